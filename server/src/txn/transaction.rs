//! One transactional id: its state, and the change of it that is on its way to the log.

use std::collections::VecDeque;

use crate::conn::Token;
use crate::wire::StrBytes;

use super::record::{Partitions, TxnValue};
use super::requests::{Add, Origin};

/// The largest epoch a producer is given: one more is left, to fence it.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// Where a transaction stands; the numbers are those of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum TxnState {
    /// There has been none.
    Empty = 0,
    /// It has partitions.
    Ongoing = 1,
    /// It is decided; markers are being written.
    PrepareCommit = 2,
    /// It is decided; markers are being written.
    PrepareAbort = 3,
    /// Its markers are durable.
    CompleteCommit = 4,
    /// Its markers are durable.
    CompleteAbort = 5,
}

impl TxnState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// From its number in the log.
    #[must_use]
    pub fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == code)
    }

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether markers are being written.
    #[must_use]
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// What follows when a change is durable, or lost.
#[derive(Debug)]
pub(super) enum Effect {
    /// InitProducerId is answered.
    Init(Token),
    /// Partitions were added.
    Added { origin: Origin, count: usize },
    /// The end is decided: whoever asked for it is answered, markers are written.
    Prepared(Asked),
    /// All markers are durable.
    Completed,
    /// The id is forgotten.
    Expired,
}

/// Who wanted a transaction to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// Its producer.
    Producer(Token),
    /// A new producer of the same id, which has to come again.
    Successor(Token),
    /// Nobody: it took too long.
    Clock,
}

/// A change on its way to the log.
#[derive(Debug)]
pub(super) struct Change {
    /// The state it leads to; `None` if the id is forgotten.
    pub(super) value: Option<TxnValue>,
    pub(super) last_epoch: i16,
    pub(super) effect: Effect,
}

/// One transactional id.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) partition: i32,
    pub(super) value: TxnValue,
    /// The epoch before the current one if its producer raised it itself, else -1. Not in the log.
    pub(super) last_epoch: i16,
    pub(super) change: Option<Change>,
    /// Partitions to be added when the change, or the end of the transaction before, is durable.
    pub(super) waiting: VecDeque<Add>,
}

impl Transaction {
    /// One whose first epoch is about to be given.
    pub(super) fn new(partition: i32, producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self::from_value(
            partition,
            TxnValue {
                producer_id,
                previous_producer_id: -1,
                next_producer_id: -1,
                epoch: -1,
                timeout_ms,
                state: TxnState::Empty,
                partitions: Partitions::new(),
                updated_ms: now_ms,
                started_ms: -1,
                client_version: 0,
            },
        )
    }

    /// As the log has it.
    pub(super) fn from_value(partition: i32, value: TxnValue) -> Self {
        Self {
            partition,
            value,
            last_epoch: -1,
            change: None,
            waiting: VecDeque::new(),
        }
    }

    /// Whether no producer may be given a later epoch of this producer id.
    pub(super) fn is_exhausted(&self) -> bool {
        self.value.epoch >= EPOCH_MAX
    }

    /// Whether an epoch was the last of its producer id.
    pub(super) fn is_last(epoch: i16) -> bool {
        epoch >= EPOCH_MAX
    }

    /// Whether producers are given an epoch: the largest is nobody's, it fences.
    pub(super) fn is_given(epoch: i16) -> bool {
        epoch <= EPOCH_MAX
    }

    pub(super) fn has(&self, (topic, partition): &(StrBytes, i32)) -> bool {
        let partitions = self.value.partitions.get(topic);
        partitions.is_some_and(|partitions| partitions.contains(partition))
    }

    /// When a transaction under way is aborted, milliseconds since 1970.
    pub(super) fn due_ms(&self) -> Option<i64> {
        let value = &self.value;
        (value.state == TxnState::Ongoing)
            .then(|| value.started_ms.saturating_add(i64::from(value.timeout_ms)))
    }

    /// When the id is forgotten if nothing happens, milliseconds since 1970.
    pub(super) fn expires_ms(&self, expiry_ms: i64) -> Option<i64> {
        let idle = !self.value.state.is_prepared() && self.value.state != TxnState::Ongoing;
        idle.then(|| self.value.updated_ms.saturating_add(expiry_ms))
    }
}
