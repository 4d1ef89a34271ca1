//! The third carrier of the core: a deterministic disk and clock with faults and a seed, for tests.
//!
//! [`SimDisk`] is unkind: whatever no sync has covered may be old, new or garbage after a loss of power, block by
//! block, and sizes and names are as volatile as data. [`run_seed`] lives a whole story over it: shards, producers,
//! consumers and a control plane, crashes and restarts, with a model that says what every answer must be. A broken
//! promise is a panic whose message begins with "invariant" or "disk rule"; the same seed always tells the same story.

mod admin;
mod blocking;
mod check;
mod compacted;
mod consumer;
mod damage;
mod disk;
mod file;
mod history;
mod life;
mod model;
mod plan;
mod producer;
mod replay;
mod rng;
mod rules;
mod run;
mod segments;
mod trace;
mod traffic;
mod transactions;
mod tree;
mod world;

pub use blocking::BlockingDisk;
pub use disk::{DiskConfig, Faults, Latency, SimDisk};
pub use replay::{Image, Replay};
pub use rng::Rng;
pub use run::{Failure, MUTATIONS, RunOptions, Summary, mutation, run_seed};
