//! Log compaction without I/O: which records of a log may go, and what a batch looks like when they have gone.
//!
//! The rules are those of Apache Kafka 4's log cleaner (`Cleaner`, `MemoryRecords.filterTo`; KIP-58, KIP-98, KIP-354,
//! KIP-534): of each key the newest record stays, a tombstone until its delete horizon, and offsets never change. A pass
//! reads the dirty part of a log into a [`KeyMap`], then every batch up to the end of the map through
//! [`Cleaner::clean`].

mod batch;
mod map;
mod transactions;

pub use batch::{Batches, Cleaned, CleanedBatch, Cleaner, Policy, index_batch};
pub use map::KeyMap;
pub use transactions::CleanTransactions;
