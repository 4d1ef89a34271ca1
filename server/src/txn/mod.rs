//! The transaction coordinator: who may write under a transactional id, which partitions a transaction has, and how it ends.
//!
//! A [`Coordinator`] is a state machine without clock or I/O, like that of groups. In: requests, the outcome of appends, the
//! news that markers are durable, the time. Out: [`Output`]s, [`Append`](crate::groups::Append)s to partitions of the
//! state topic, and the time of the next deadline. A state counts once its record is durable; while a record is on its way
//! the transaction takes no other change.
//!
//! Behaviour follows Apache Kafka 4's coordinator (KIP-98, KIP-360, KIP-588, KIP-890).

mod admin;
mod config;
mod coordinator;
mod end;
mod record;
mod requests;
mod table;
mod transaction;
mod writes;

#[cfg(test)]
mod tests;

pub use config::TxnConfig;
pub use coordinator::{Coordinator, MarkJob, Output, Response};
pub use record::{Partitions, TxnValue};
pub use requests::{Add, Origin, PartitionCode};
pub use transaction::TxnState;

/// The internal topic that holds transactional ids and their state.
pub const STATE_TOPIC: &str = "__transaction_state";
