//! A load generator for any broker that speaks Kafka's protocol: the library behind `ringlog-load`.

pub mod ack_log;
pub mod check;
pub mod claims;
pub mod cli;
pub mod cluster;
pub mod commits;
pub mod consumer;
pub mod coordinator;
pub mod counters;
pub mod descriptors;
mod hist_log;
pub mod idle;
pub mod net;
pub mod null_sink;
pub mod payload;
pub mod producer;
mod progress;
pub mod protocol;
pub mod report;
pub mod run;
pub mod shared;
pub mod stamp;
pub mod stats;
pub mod template;
pub mod verify;
