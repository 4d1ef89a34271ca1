//! Records on their way to the offsets topic, and what happens when they are durable or lost.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use kafka_wire::{
    DeleteGroupsResponse, OffsetCommitResponse, OffsetDeleteResponse, TxnOffsetCommitResponse,
};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::id::Now;

use super::coordinator::{Coordinator, Env, Response};
use super::error::GroupError;
use super::group::{Group, State};
use super::member::Member;
use super::record::{CommittedOffset, group_key, offset_key};
use super::{StrBytes, Token};

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
}

impl Write {
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

/// A request that is answered when its writes are durable.
#[derive(Debug)]
struct Waiter {
    token: Token,
    writes_left: usize,
    answer: Answer,
}

/// The answer if all goes well.
#[derive(Debug)]
pub(super) enum Answer {
    Commit(OffsetCommitResponse),
    Delete(DeleteGroupsResponse),
    OffsetDelete(OffsetDeleteResponse),
    TxnCommit(TxnOffsetCommitResponse),
}

impl Answer {
    /// Puts `error` where a part was to succeed.
    fn fail(&mut self, part: usize, error: GroupError) {
        let set = |code: &mut i16| {
            if *code == 0 {
                *code = error.code();
            }
        };
        match self {
            Self::Commit(response) => {
                let topics = response.topics.iter_mut();
                let partitions = topics.flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| set(&mut partition.error_code));
            }
            Self::TxnCommit(response) => {
                let topics = response.topics.iter_mut();
                let partitions = topics.flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| set(&mut partition.error_code));
            }
            Self::Delete(response) => {
                if let Some(result) = response.results.get_mut(part) {
                    set(&mut result.error_code);
                }
            }
            Self::OffsetDelete(response) => set(&mut response.error_code),
        }
    }

    fn into_response(self) -> Response {
        match self {
            Self::Commit(response) => Response::Commit(response),
            Self::Delete(response) => Response::Delete(response),
            Self::OffsetDelete(response) => Response::OffsetDelete(response),
            Self::TxnCommit(response) => Response::TxnCommit(response),
        }
    }
}

/// Everything not durable yet.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// By partition, in the order they must reach the log.
    unsent: BTreeMap<i32, VecDeque<Write>>,
    in_flight: BTreeMap<AppendId, InFlight>,
    waiters: BTreeMap<u64, Waiter>,
    /// Bytes of records, unsent or in flight.
    bytes: usize,
    serial: u64,
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
        let write = Write {
            group: group.id.clone(),
            producer,
            records,
            effect,
        };
        self.bytes += write.bytes();
        self.unsent
            .entry(group.partition)
            .or_default()
            .push_back(write);
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

    /// A request that is answered with `answer` once the writes that are given `Effect::Answer` with the number
    /// returned have ended; [`Writes::seal`] follows them.
    pub(super) fn wait(&mut self, token: Token, answer: Answer) -> u64 {
        self.serial += 1;
        let waiter = Waiter {
            token,
            // Its maker's own share, given up by `seal`.
            writes_left: 1,
            answer,
        };
        self.waiters.insert(self.serial, waiter);
        self.serial
    }

    /// All writes of a waiter have been queued. Its response if nothing has to be waited for.
    pub(super) fn seal(&mut self, waiter: u64) -> Option<(Token, Response)> {
        self.write_ended(waiter, 0, Ok(()))
    }

    fn write_ended(
        &mut self,
        id: u64,
        part: usize,
        result: Result<(), GroupError>,
    ) -> Option<(Token, Response)> {
        let waiter = self.waiters.get_mut(&id)?;
        if let Err(error) = result {
            waiter.answer.fail(part, error);
        }
        waiter.writes_left -= 1;
        if waiter.writes_left > 0 {
            return None;
        }
        let waiter = self.waiters.remove(&id)?;
        Some((waiter.token, waiter.answer.into_response()))
    }

    /// Queues changes of offsets, then perhaps the group's own tombstone, as parts of a waiting request; in several
    /// batches if they are many.
    pub(super) fn offsets(
        &mut self,
        group: &mut Group,
        changes: Vec<(StrBytes, i32, Option<CommittedOffset>)>,
        group_gone: bool,
        waiter: Option<(u64, usize)>,
        batch_bytes_max: usize,
    ) {
        let mut records = Vec::new();
        let mut bytes = 0;
        for (topic, partition, value) in changes {
            let on_the_way = group
                .offsets_on_the_way
                .entry((topic.clone(), partition))
                .or_default();
            *on_the_way += 1;
            let record = Record {
                key: offset_key(&group.id, &topic, partition),
                value: value.as_ref().map(CommittedOffset::encode),
                change: Change::Offset(topic, partition, value),
            };
            if bytes + record.bytes() > batch_bytes_max / 2 && !records.is_empty() {
                self.push_part(group, std::mem::take(&mut records), waiter);
                bytes = 0;
            }
            bytes += record.bytes();
            records.push(record);
        }
        if group_gone {
            group.writes_on_the_way += 1;
            records.push(Record {
                key: group_key(&group.id),
                value: None,
                change: Change::GroupGone,
            });
        }
        if !records.is_empty() {
            self.push_part(group, records, waiter);
        }
    }

    /// Queues offsets of a producer's transaction, as part of a waiting request.
    pub(super) fn undecided(
        &mut self,
        group: &mut Group,
        producer: (i64, i16),
        changes: Vec<(StrBytes, i32, CommittedOffset)>,
        waiter: u64,
        batch_bytes_max: usize,
    ) {
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        for (topic, partition, value) in changes {
            group.writes_on_the_way += 1;
            let record = Record {
                key: offset_key(&group.id, &topic, partition),
                value: Some(value.encode()),
                change: Change::Undecided(producer.0, topic, partition, value),
            };
            if bytes + record.bytes() > batch_bytes_max / 2 && !records.is_empty() {
                let part = std::mem::take(&mut records);
                let effect = self.part(Some((waiter, 0)));
                self.push_of(group, Some(producer), part, effect);
                bytes = 0;
            }
            bytes += record.bytes();
            records.push(record);
        }
        if !records.is_empty() {
            let effect = self.part(Some((waiter, 0)));
            self.push_of(group, Some(producer), records, effect);
        }
    }

    fn push_part(&mut self, group: &Group, records: Vec<Record>, waiter: Option<(u64, usize)>) {
        let effect = self.part(waiter);
        self.push(group, records, effect);
    }

    /// The effect of one of a waiter's writes.
    fn part(&mut self, waiter: Option<(u64, usize)>) -> Effect {
        match waiter {
            Some((id, part)) => {
                if let Some(waiter) = self.waiters.get_mut(&id) {
                    waiter.writes_left += 1;
                }
                Effect::Answer(id, part)
            }
            None => Effect::None,
        }
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

    /// An append is durable, or failed. Successes of a partition are reported in the order of its log.
    ///
    /// # Panics
    /// If `id` is not that of an append whose outcome is open.
    pub fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>) {
        let in_flight = self.writes.in_flight.remove(&id);
        let in_flight = in_flight.expect("an append is reported once");
        let result = result.map_err(AppendFailure::error);
        for write in in_flight.writes {
            self.write_ended(now, in_flight.epoch, write, result);
        }
    }

    /// Whether every write is durable or has failed.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.writes.is_empty()
    }

    /// Gives up what was not sent to a partition that goes elsewhere.
    pub(super) fn fail_unsent(&mut self, now: Now, partition: i32) {
        for write in self.writes.unsent.remove(&partition).unwrap_or_default() {
            self.write_ended(now, 0, write, Err(GroupError::NotCoordinator));
        }
    }

    fn write_ended(&mut self, now: Now, epoch: u64, write: Write, result: Result<(), GroupError>) {
        self.writes.bytes -= write.bytes();
        let Write {
            group: id,
            producer: _,
            records,
            effect,
        } = write;
        if let Effect::Answer(waiter, part) = effect
            && let Some((token, response)) = self.writes.write_ended(waiter, part, result)
        {
            self.out.send(token, response);
        }
        let partition = self.groups.get(&id).map(|group| group.partition);
        let owned = partition.and_then(|partition| self.owned.epoch(partition));
        if owned.is_none_or(|owned| owned != epoch && epoch != 0) {
            return;
        }
        let mut gone = false;
        let mut undecided = Vec::new();
        self.with_group(now, &id, |group, env| {
            for record in records {
                match record.change {
                    Change::Undecided(producer_id, topic, partition, value) => {
                        undecided.push((producer_id, (topic, partition, value)));
                    }
                    change => gone |= group.change_ended(env, change, result.is_ok()),
                }
            }
            group.effect_ended(env, effect, result);
        });
        for (producer_id, offset) in undecided {
            if result.is_ok() {
                self.keep_undecided(now, &id, producer_id, offset);
            }
            self.with_group(now, &id, |group, _| group.writes_on_the_way -= 1);
        }
        if gone {
            self.drop_group(&id);
        }
    }
}

impl Group {
    /// A change is durable, or is lost. True when the group is gone.
    fn change_ended(&mut self, env: &mut Env<'_>, change: Change, is_durable: bool) -> bool {
        match change {
            Change::Offset(topic, partition, value) => {
                self.forget_on_the_way(&topic, partition);
                if is_durable {
                    self.set_offset(topic, partition, value);
                }
                false
            }
            // Kept by the coordinator.
            Change::Undecided(..) => false,
            Change::Group => {
                self.writes_on_the_way -= 1;
                false
            }
            Change::GroupGone => {
                self.writes_on_the_way -= 1;
                if !is_durable {
                    self.transition(State::Empty, env.now.wall_ms);
                }
                is_durable
            }
        }
    }

    fn effect_ended(&mut self, env: &mut Env<'_>, effect: Effect, result: Result<(), GroupError>) {
        match effect {
            Effect::None | Effect::Answer(..) => {}
            Effect::Sync {
                generation,
                assignments,
            } => self.assignments_stored(env, generation, assignments, result),
            Effect::StaticJoin {
                member_id,
                led_before,
                version,
            } => self.static_joined(env, &member_id, led_before, version, result),
        }
    }

    fn forget_on_the_way(&mut self, topic: &StrBytes, partition: i32) {
        let key = (topic.clone(), partition);
        if let Some(count) = self.offsets_on_the_way.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.offsets_on_the_way.remove(&key);
            }
        }
    }

    /// Sets or removes an offset, as the log says.
    pub(super) fn set_offset(
        &mut self,
        topic: StrBytes,
        partition: i32,
        value: Option<CommittedOffset>,
    ) {
        let removed = match value {
            Some(value) => {
                self.charge(offset_bytes(&value));
                let partitions = self.offsets.entry(topic).or_default();
                partitions.insert(partition, value)
            }
            None => match self.offsets.get_mut(&topic) {
                Some(partitions) => {
                    let removed = partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.offsets.remove(&topic);
                    }
                    removed
                }
                None => None,
            },
        };
        if let Some(removed) = removed {
            self.discharge(offset_bytes(&removed));
        }
    }
}

/// Memory a committed offset takes.
pub(super) fn offset_bytes(offset: &CommittedOffset) -> usize {
    size_of::<(i32, CommittedOffset)>() + offset.metadata.len()
}
