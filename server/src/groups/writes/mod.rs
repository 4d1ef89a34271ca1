//! Records on their way to the offsets topic, and what happens when they are durable or lost.

mod answer;
mod consumer;
mod linger;
mod offsets;
mod outcome;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::id::Now;

use super::coordinator::{Coordinator, Response};
use super::error::GroupError;
use super::group::Group;
use super::member::Member;
use super::record::{CommittedOffset, group_key};
use super::{StrBytes, Token};

use answer::Waiter;
use linger::Linger;

pub(super) use answer::Answer;
pub(super) use consumer::{MadeRecord, Undo};
pub(super) use outcome::offset_bytes;

/// Bytes a record takes in a batch besides key and value, at most.
const RECORD_OVERHEAD: usize = 32;

/// Names an append until its outcome is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// A record batch for a partition of the offsets topic.
#[derive(Debug)]
pub struct Append {
    /// To be named to [`Coordinator::appended`].
    pub id: AppendId,
    /// Partition of the offsets topic.
    pub partition: i32,
    /// The batch.
    pub batch: Vec<u8>,
}

/// Why an append failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFailure {
    /// The log takes nothing now.
    Unavailable,
    /// The partition is not here, or the process ends.
    NotOwner,
    /// The log will never take it.
    TooLarge,
    /// It belongs to a transaction whose producer has been fenced.
    Fenced,
}

impl AppendFailure {
    fn error(self) -> GroupError {
        match self {
            Self::Unavailable => GroupError::CoordinatorNotAvailable,
            Self::NotOwner => GroupError::NotCoordinator,
            Self::TooLarge => GroupError::UnknownServerError,
            Self::Fenced => GroupError::InvalidProducerEpoch,
        }
    }
}

/// What a record changes.
#[derive(Debug)]
enum Change {
    /// A committed offset, or its removal.
    Offset(StrBytes, i32, Option<CommittedOffset>),
    /// An offset in a producer's transaction.
    Undecided(i64, StrBytes, i32, CommittedOffset),
    /// The group itself.
    Group,
    /// The group is gone.
    GroupGone,
    /// A change that is made already, of a consumer group or between the protocols: what takes it back.
    Made(Option<Undo>),
}

/// What follows when all records of a write are durable, or are lost.
#[derive(Debug)]
pub(super) enum Effect {
    None,
    /// A request waits, perhaps for several writes; the number tells its parts apart.
    Answer(u64, usize),
    /// The group becomes stable.
    Sync {
        generation: i32,
        assignments: HashMap<StrBytes, Bytes>,
    },
    /// A static member has taken its predecessor's place.
    StaticJoin {
        member_id: StrBytes,
        led_before: StrBytes,
        version: i16,
    },
}

#[derive(Debug)]
struct Record {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    change: Change,
}

impl Record {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD
    }
}

/// Records of one group that go into one batch.
#[derive(Debug)]
struct Write {
    group: StrBytes,
    /// Id and epoch of the producer whose transaction it is part of; then it has a batch of its own.
    producer: Option<(i64, i16)>,
    records: Vec<Record>,
    effect: Effect,
    /// Its number, if it holds changes of a consumer group.
    serial: Option<u64>,
    /// Those changes have been taken back.
    is_taken_back: bool,
}

impl Write {
    fn new(
        group: &Group,
        producer: Option<(i64, i16)>,
        records: Vec<Record>,
        effect: Effect,
    ) -> Self {
        Self {
            group: group.id.clone(),
            producer,
            records,
            effect,
            serial: None,
            is_taken_back: false,
        }
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(Record::bytes).sum()
    }
}

#[derive(Debug)]
struct InFlight {
    /// Ownership of the partition when it was sent.
    epoch: u64,
    writes: Vec<Write>,
}

/// Everything not durable yet.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// By partition, in the order they must reach the log.
    unsent: BTreeMap<i32, VecDeque<Write>>,
    in_flight: BTreeMap<AppendId, InFlight>,
    waiters: BTreeMap<u64, Waiter>,
    /// What is answered when a write of a consumer group is durable, by its number.
    followers: BTreeMap<u64, Vec<(Token, Response)>>,
    /// Bytes of records, unsent or in flight.
    bytes: usize,
    serial: u64,
    linger: Linger,
}

impl Writes {
    /// Whether too much waits already.
    pub(super) fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes > bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent.is_empty() && self.in_flight.is_empty()
    }

    fn push(&mut self, group: &Group, records: Vec<Record>, effect: Effect) {
        self.push_of(group, None, records, effect);
    }

    fn push_of(
        &mut self,
        group: &Group,
        producer: Option<(i64, i16)>,
        records: Vec<Record>,
        effect: Effect,
    ) {
        self.queue(
            group.partition,
            Write::new(group, producer, records, effect),
        );
    }

    /// Queues offsets, which may wait for those of other groups.
    fn push_offsets(&mut self, group: &Group, records: Vec<Record>, effect: Effect) {
        self.linger.commit(&group.id);
        self.insert(group.partition, Write::new(group, None, records, effect));
    }

    fn queue(&mut self, partition: i32, write: Write) {
        self.linger.hurry();
        self.insert(partition, write);
    }

    fn insert(&mut self, partition: i32, write: Write) {
        self.bytes += write.bytes();
        self.unsent.entry(partition).or_default().push_back(write);
    }

    /// Stores the group with an assignment of each member.
    pub(super) fn group(
        &mut self,
        group: &mut Group,
        assignment: impl Fn(&Member) -> Bytes,
        effect: Effect,
    ) {
        group.is_stored = true;
        group.writes_on_the_way += 1;
        let record = Record {
            key: group_key(&group.id),
            value: Some(group.value(assignment).encode()),
            change: Change::Group,
        };
        self.push(group, vec![record], effect);
    }

    /// Whether anything leaves now; `linger_ms` is how long offsets may wait for others, below 0 for as long as pays.
    fn may_leave(&mut self, now: Now, linger_ms: i64) -> bool {
        if self.unsent.is_empty() {
            self.linger.emptied();
            return false;
        }
        self.linger.may_leave(now.mono_ns, linger_ms)
    }

    /// When [`Coordinator::next_append`] is needed without other input, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.linger.deadline_ns()
    }

    /// What waits leaves with the next call of [`Coordinator::next_append`].
    pub(super) fn hurry(&mut self) {
        self.linger.hurry();
    }

    /// The next writes of one partition that fit into a batch.
    fn take_batch(&mut self, batch_bytes_max: usize) -> Option<(i32, Vec<Write>)> {
        let mut entry = self.unsent.first_entry()?;
        let partition = *entry.key();
        let mut taken = Vec::new();
        let mut bytes = ringlog_engine::batch::HEADER_LEN;
        while let Some(write) = entry.get().front() {
            bytes += write.bytes();
            let alone = write.producer.is_some();
            if (alone || bytes > batch_bytes_max) && !taken.is_empty() {
                break;
            }
            taken.extend(entry.get_mut().pop_front());
            if alone {
                break;
            }
        }
        if entry.get().is_empty() {
            entry.remove();
        }
        Some((partition, taken))
    }
}

impl Coordinator {
    /// The next batch to append. Call it until it returns none, once a turn: what came in together leaves together.
    pub fn next_append(&mut self, now: Now) -> Option<Append> {
        loop {
            if !self.writes.may_leave(now, self.config.append_linger_ms) {
                return None;
            }
            let (partition, mut writes) = self.writes.take_batch(self.config.batch_bytes_max)?;
            let id = AppendId(self.writes.serial);
            self.writes.serial += 1;
            let mut builder = BatchBuilder::new();
            if let Some((id, epoch)) = writes.first().and_then(|write| write.producer) {
                builder = builder.producer(id, epoch, -1).transactional(true);
            }
            for record in writes.iter_mut().flat_map(|write| &mut write.records) {
                builder.push(&NewRecord {
                    timestamp_ms: now.wall_ms,
                    key: Some(&record.key),
                    value: record.value.as_deref(),
                    headers: &[],
                });
            }
            let epoch = self.owned.epoch(partition).unwrap_or(0);
            self.writes.in_flight.insert(id, InFlight { epoch, writes });
            match builder.build() {
                Ok(batch) => {
                    return Some(Append {
                        id,
                        partition,
                        batch,
                    });
                }
                Err(_) => self.appended(now, id, Err(AppendFailure::Unavailable)),
            }
        }
    }
}
