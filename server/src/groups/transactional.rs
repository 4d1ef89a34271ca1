//! Offsets in transactions: TxnOffsetCommit keeps them apart until a marker in the group's partition decides.

use std::collections::{BTreeMap, BTreeSet};

use kafka_wire::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_wire::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use ringlog_engine::id::{Now, TopicId};

use super::consumer::Committer;
use super::coordinator::{Call, Coordinator, Response};
use super::error::GroupError;
use super::group::{Group, State};
use super::record::CommittedOffset;
use super::writes::{Answer, offset_bytes};
use super::{StrBytes, own};

/// Offsets that a producer's transaction will commit, or not.
pub(super) type Undecided = BTreeMap<(StrBytes, i32), CommittedOffset>;

/// Groups with undecided offsets, by partition of the offsets topic and producer.
pub(super) type UndecidedGroups = BTreeMap<(i32, i64), BTreeSet<StrBytes>>;

impl Coordinator {
    /// TxnOffsetCommit, versions 0 to 5, of a producer whose transaction has the group's partition. `topic_id` finds the
    /// topic of a partition. The response comes when the offsets are durable; they count when the transaction commits.
    pub fn commit_in_transaction(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &TxnOffsetCommitRequest,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) {
        if let Err(error) = self.admit_in_transaction(now, request, &topic_id) {
            return self.refuse_in_transaction(call, request, error.code());
        }
        let group = self.groups.get(&request.group_id);
        let mut room = group.map_or(0, |group| {
            self.config.group_bytes_max.saturating_sub(group.bytes())
        });
        let mut changes = Vec::new();
        let mut response = TxnOffsetCommitResponse::default();
        for topic in &request.topics {
            let name = own(&topic.name);
            let mut answer = TxnOffsetCommitResponseTopic::default();
            for partition in &topic.partitions {
                let id = topic_id(&topic.name, partition.partition_index);
                let metadata = partition.committed_metadata.as_ref();
                let value = CommittedOffset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.map(own).unwrap_or_default(),
                    commit_ms: now.wall_ms,
                    expire_ms: None,
                    topic_id: id.unwrap_or_default(),
                };
                let bytes = offset_bytes(&value);
                let error = self.refuse_offset(id, &value.metadata, bytes, room);
                if error.is_none() {
                    room -= bytes;
                    changes.push((name.clone(), partition.partition_index, value));
                }
                let code = error.map_or(0, GroupError::code);
                answer
                    .partitions
                    .push(result(partition.partition_index, code));
            }
            answer.name = name;
            response.topics.push(answer);
        }
        let waiter = self.writes.wait(call.token, Answer::TxnCommit(response));
        let producer = (request.producer_id, request.producer_epoch);
        self.with_group(now, &request.group_id, |group, env| {
            let batch_bytes_max = env.config.batch_bytes_max;
            env.writes
                .undecided(group, producer, changes, waiter, batch_bytes_max);
        });
        if let Some((token, response)) = self.writes.seal(waiter) {
            self.out.send(token, response);
        }
    }

    /// Answers every partition of a request with an error.
    pub fn refuse_in_transaction(
        &mut self,
        call: &Call<'_>,
        request: &TxnOffsetCommitRequest,
        code: i16,
    ) {
        let mut response = TxnOffsetCommitResponse::default();
        for topic in &request.topics {
            let mut answer = TxnOffsetCommitResponseTopic::default();
            answer.name = own(&topic.name);
            let partitions = topic.partitions.iter();
            answer.partitions = partitions
                .map(|p| result(p.partition_index, code))
                .collect();
            response.topics.push(answer);
        }
        self.out.send(call.token, Response::TxnCommit(response));
    }

    fn admit_in_transaction(
        &mut self,
        now: Now,
        request: &TxnOffsetCommitRequest,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        let partition = self.admit_named(&request.group_id)?;
        if self.writes.is_full(self.config.unwritten_bytes_max) {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let generation = request.generation_id_or_member_epoch;
        let Some(group) = self.groups.get(&request.group_id) else {
            if generation >= 0 {
                return Err(GroupError::IllegalGeneration);
            }
            return self.create_group(now, &request.group_id, partition);
        };
        if group.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let instance_id = request.group_instance_id.as_ref();
        if let Some(consumer) = &group.consumer {
            let by = Committer {
                member_id: &request.member_id,
                instance_id,
                epoch: generation,
            };
            let topics = request.topics.iter();
            let partitions = topics.flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (&topic.name, partition.partition_index))
            });
            return consumer.check_commit_in_transaction(&by, partitions, topic_id);
        }
        if generation < 0 && request.member_id.is_empty() && instance_id.is_none() {
            // A producer that does not say for which member it commits.
            return Ok(());
        }
        group.validate_member(&request.member_id, instance_id)?;
        if generation != group.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.with_group(now, &request.group_id, |group, env| {
            group.touch(env, &request.member_id);
        });
        Ok(())
    }

    /// Takes over, or drops, what the producer's transaction has in a partition of the offsets topic so far.
    pub(super) fn decide(&mut self, now: Now, partition: i32, producer_id: i64, committed: bool) {
        let groups = self.undecided.remove(&(partition, producer_id));
        for id in groups.unwrap_or_default() {
            self.with_group(now, &id, |group, _| group.decide(producer_id, committed));
        }
    }

    /// An offset of a transaction is durable.
    pub(super) fn keep_undecided(
        &mut self,
        now: Now,
        id: &StrBytes,
        producer_id: i64,
        (topic, partition, value): (StrBytes, i32, CommittedOffset),
    ) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        let key = (group.partition, producer_id);
        self.undecided.entry(key).or_default().insert(id.clone());
        self.with_group(now, id, |group, _| {
            group.charge(offset_bytes(&value));
            let offsets = group.undecided.entry(producer_id).or_default();
            if let Some(old) = offsets.insert((topic, partition), value) {
                group.discharge(offset_bytes(&old));
            }
        });
    }
}

impl Group {
    /// Takes over, or drops, what a transaction would commit. An offset committed later without one stays.
    fn decide(&mut self, producer_id: i64, committed: bool) {
        for ((topic, partition), value) in self.undecided.remove(&producer_id).unwrap_or_default() {
            self.discharge(offset_bytes(&value));
            let stored = self.offsets.get(&topic).and_then(|of| of.get(&partition));
            let is_newer = stored.is_none_or(|stored| stored.commit_ms <= value.commit_ms);
            if committed && is_newer {
                self.set_offset(topic, partition, Some(value));
            }
        }
    }

    /// Whether a transaction that is not decided would change an offset, once the log has it.
    pub(super) fn has_undecided(&self) -> bool {
        !self.undecided.is_empty() || self.undecided_on_the_way > 0
    }

    /// Whether a transaction that is not decided would change an offset.
    pub(super) fn is_unstable(&self, topic: &StrBytes, partition: i32) -> bool {
        let key = (topic.clone(), partition);
        self.undecided.values().any(|of| of.contains_key(&key))
    }
}

fn result(index: i32, code: i16) -> TxnOffsetCommitResponsePartition {
    let mut partition = TxnOffsetCommitResponsePartition::default();
    partition.partition_index = index;
    partition.error_code = code;
    partition
}
