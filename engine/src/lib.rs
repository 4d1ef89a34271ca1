//! The ringlog storage engine: a shard-per-core log engine for Linux.

pub mod batch;
pub mod checksum;
