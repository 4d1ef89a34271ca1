//! The ringlog server: Kafka protocol over the engine's shards.
//!
//! Free of I/O up to [`app::Server`]: a driver hands in what connections received and carries out what comes back. The
//! control thread ([`control`]), the admin plane ([`admin`]) and the command line (`main`) are the only parts that do I/O.

pub mod admin;
pub mod api;
pub mod app;
pub mod catalog;
pub mod config;
pub mod conn;
pub mod control;
pub mod counters;
pub mod groups;
mod input;
mod log_gate;
pub mod ops;
mod ownership;
pub(crate) mod repeats;
pub mod start;
pub mod txn;
pub mod wire;
