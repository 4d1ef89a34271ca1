//! Kafka's record batch, version 2 (magic 2): the unit that is produced, journalled, stored and fetched.
//!
//! Source of the layout: the Apache Kafka documentation, section "Record Batch", and KIP-98.

pub mod header;

pub use header::{BatchError, BatchHeader, Compression, HEADER_LEN};
