//! Kafka's consumer groups: membership, rebalances and committed offsets, under the classic protocol and the one of
//! KIP-848 ([`consumer`]).
//!
//! A [`Coordinator`] is a state machine without clock or I/O. In: requests, each with a [`Token`]; the outcome of
//! appends; the time. Out: [`Response`]s by token, [`Append`]s to partitions of the offsets topic, and the time of
//! the next deadline. Every partition's appends must reach the log in the order they come out and be reported in
//! that order, so that what is in memory is always what reading the log would give.
//!
//! Behaviour follows Apache Kafka 4's coordinator for classic groups (KIP-62, KIP-134, KIP-345, KIP-394, KIP-814).

mod admin;
mod by_id;
pub(crate) mod codec;
mod config;
mod consumer;
mod coordinator;
mod error;
mod expire;
mod group;
mod handover;
mod join;
mod leave;
mod loading;
mod member;
mod member_ids;
mod offsets;
mod partition;
mod rebalance;
mod record;
mod replay;
mod sync;
mod timers;
mod topics;
mod transactional;
mod writes;

#[cfg(test)]
mod tests;

pub use by_id::name_committed;
pub use config::GroupsConfig;
pub use consumer::{Assignor, ConsumerKey};
pub use coordinator::{Call, Coordinator, Response};
pub use error::GroupError;
pub use member_ids::MemberIds;
pub use partition::{OFFSETS_TOPIC, partition_of};
pub use record::{CommittedOffset, GroupValue, Key, MemberValue, RecordFormatError};
pub use replay::ReplayError;
pub use topics::{TopicInfo, Topics};
pub use writes::{Append, AppendFailure, AppendId};

use crate::conn::Token;
use crate::wire::StrBytes;

/// A copy of `text` that does not keep the request it came in alive.
fn own(text: &StrBytes) -> StrBytes {
    StrBytes::from(text.as_str())
}

/// As [`own`], for what may be null.
fn own_option(text: Option<&StrBytes>) -> Option<StrBytes> {
    text.map(own)
}
