//! The third carrier of the core: a deterministic disk and clock with faults and a seed, for tests.
//!
//! [`SimDisk`] is unkind: whatever no sync has covered may be old, new or garbage after a loss of power, block by
//! block, and sizes and names are as volatile as data.

mod blocking;
mod disk;
mod file;
mod history;
mod rng;
mod tree;

pub use blocking::BlockingDisk;
pub use disk::{DiskConfig, Faults, Latency, SimDisk};
pub use rng::Rng;
