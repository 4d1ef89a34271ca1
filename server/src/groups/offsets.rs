//! OffsetCommit, OffsetFetch and OffsetDelete.

use std::collections::HashSet;

use kafka_wire::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_wire::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_wire::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_wire::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_wire::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse,
};
use ringlog_engine::id::{Now, TopicId};

use super::by_id;
use super::consumer::Committer;
use super::coordinator::{Call, Coordinator, Response};
use super::error::GroupError;
use super::group::{CONSUMER, Group, State};
use super::record::CommittedOffset;
use super::writes::{Answer, offset_bytes};
use super::{StrBytes, own};
use crate::repeats::distinct;

/// The offset of a partition nobody has committed.
const NO_OFFSET: i64 = -1;

/// A topic and the partitions of it that a request names.
type Wanted<'a> = (&'a StrBytes, &'a [i32]);
/// A partition, its offset if there is one, and an error code.
type Found<'a> = (i32, Option<&'a CommittedOffset>, i16);

/// Offsets to be stored: topic, partition, value.
type Changes = Vec<(StrBytes, i32, Option<CommittedOffset>)>;

impl Coordinator {
    /// OffsetCommit, versions 2 to 10, with the names of topics ([`super::name_committed`]). `topic_id` finds the topic of a partition. The response comes when the offsets are
    /// durable.
    pub fn commit(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &OffsetCommitRequest,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) {
        if let Err(error) = self.admit_commit(now, call, request, &topic_id) {
            let (response, _) =
                self.commit_response(now, call, request, |_, _| None, (Some(error), 0));
            self.out.send(call.token, Response::Commit(response));
            return;
        }
        let group = self.groups.get(&request.group_id);
        let room = group.map_or(0, |group| {
            self.config.group_bytes_max.saturating_sub(group.bytes())
        });
        let (response, changes) = self.commit_response(now, call, request, topic_id, (None, room));
        let waiter = self.writes.wait(call.token, Answer::Commit(response));
        self.with_group(now, &request.group_id, |group, env| {
            let batch_bytes_max = env.config.batch_bytes_max;
            env.writes
                .offsets(group, changes, false, Some((waiter, 0)), batch_bytes_max);
        });
        if let Some((token, response)) = self.writes.seal(waiter) {
            self.out.send(token, response);
        }
    }

    fn admit_commit(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &OffsetCommitRequest,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        let partition = self.admit(&request.group_id)?;
        if self.writes.is_full(self.config.unwritten_bytes_max) {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        if !self.groups.contains_key(&request.group_id) {
            if request.generation_id_or_member_epoch >= 0 {
                return Err(match call.version {
                    ..9 => GroupError::IllegalGeneration,
                    _ => GroupError::GroupIdNotFound,
                });
            }
            // A consumer without group management that only keeps its offsets here.
            self.create_group(now, &request.group_id, partition)?;
        }
        let group = self.groups.get(&request.group_id);
        group.map_or(Ok(()), |group| {
            group.validate_commit(request, call.version, topic_id)
        })?;
        if request.generation_id_or_member_epoch >= 0 {
            self.with_group(now, &request.group_id, |group, env| {
                group.touch(env, &request.member_id);
            });
        }
        Ok(())
    }

    /// What is answered if all goes well, and what is to be stored for it. An `error` is that of every partition.
    fn commit_response(
        &self,
        now: Now,
        call: &Call<'_>,
        request: &OffsetCommitRequest,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
        (error, mut room): (Option<GroupError>, usize),
    ) -> (OffsetCommitResponse, Changes) {
        let mut changes = Changes::new();
        let mut response = OffsetCommitResponse::default();
        for topic in &request.topics {
            let name = own(&topic.name);
            let is_unknown = call.version >= by_id::VERSION && name.is_empty();
            let error = is_unknown.then_some(GroupError::UnknownTopicId).or(error);
            let mut topic_response = OffsetCommitResponseTopic::default();
            topic_response.topic_id = topic.topic_id;
            for partition in &topic.partitions {
                let id = topic_id(&topic.name, partition.partition_index);
                let metadata = partition.committed_metadata.as_ref();
                let metadata = metadata.map_or("", StrBytes::as_str);
                let value = CommittedOffset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: StrBytes::default(),
                    commit_ms: now.wall_ms,
                    expire_ms: expire_ms(now, request.retention_time_ms),
                    topic_id: id.unwrap_or_default(),
                };
                let bytes = offset_bytes(&value) + metadata.len();
                let error = error.or_else(|| self.refuse_offset(id, metadata, bytes, room));
                if error.is_none() {
                    room -= bytes;
                    let metadata = metadata.into();
                    let value = CommittedOffset { metadata, ..value };
                    changes.push((name.clone(), partition.partition_index, Some(value)));
                }
                let mut answer = OffsetCommitResponsePartition::default();
                answer.partition_index = partition.partition_index;
                answer.error_code = error.map_or(0, GroupError::code);
                topic_response.partitions.push(answer);
            }
            topic_response.name = name;
            response.topics.push(topic_response);
        }
        (response, changes)
    }

    pub(super) fn refuse_offset(
        &self,
        topic_id: Option<TopicId>,
        metadata: &str,
        bytes: usize,
        room: usize,
    ) -> Option<GroupError> {
        if topic_id.is_none() {
            return Some(GroupError::UnknownTopicOrPartition);
        }
        if metadata.len() > self.config.offset_metadata_bytes_max {
            return Some(GroupError::OffsetMetadataTooLarge);
        }
        if bytes > room || !self.has_room(bytes) {
            return Some(GroupError::PolicyViolation);
        }
        None
    }

    /// OffsetFetch, versions 1 to 9. A group or partition that is named twice is answered once.
    pub fn fetch_offsets(&mut self, call: &Call<'_>, request: &OffsetFetchRequest) {
        let response = if call.version < 8 {
            self.fetch_one(call.version, request)
        } else {
            self.fetch_groups(request)
        };
        self.out.send(call.token, Response::Fetch(response));
    }

    fn fetch_one(&self, version: i16, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let mut response = OffsetFetchResponse::default();
        let wanted: Option<Vec<Wanted<'_>>> = request.topics.as_ref().map(|topics| {
            let topics = topics.iter();
            topics
                .map(|topic| (&topic.name, topic.partition_indexes.as_slice()))
                .collect()
        });
        let error = self.admit(&request.group_id).err();
        let code = error.map_or(0, GroupError::code);
        if version >= 2 {
            response.error_code = code;
        }
        if error.is_some() && version >= 2 {
            return response;
        }
        // Version 1 has no place for an error but the partitions.
        let stable = request.require_stable;
        let found = self.find_offsets(&request.group_id, wanted.as_deref(), (code, stable));
        for (name, partitions) in found {
            let mut topic = OffsetFetchResponseTopic::default();
            topic.name = own(name);
            topic.partitions = partitions.into_iter().map(old_partition).collect();
            response.topics.push(topic);
        }
        response
    }

    pub(super) fn fetch_groups(&self, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let mut response = OffsetFetchResponse::default();
        for asked in distinct(&request.groups, |asked| asked.group_id.as_str()) {
            let mut group = OffsetFetchResponseGroup::default();
            group.group_id = own(&asked.group_id);
            if let Err(error) = self.admit_fetch(asked) {
                group.error_code = error.code();
                response.groups.push(group);
                continue;
            }
            let wanted: Option<Vec<Wanted<'_>>> = asked.topics.as_ref().map(|topics| {
                let topics = topics.iter();
                topics
                    .map(|topic| (&topic.name, topic.partition_indexes.as_slice()))
                    .collect()
            });
            let how = (0, request.require_stable);
            for (name, partitions) in self.find_offsets(&asked.group_id, wanted.as_deref(), how) {
                let mut topic = OffsetFetchResponseTopics::default();
                topic.name = own(name);
                topic.partitions = partitions.into_iter().map(new_partition).collect();
                group.topics.push(topic);
            }
            response.groups.push(group);
        }
        response
    }

    fn admit_fetch(&self, asked: &OffsetFetchRequestGroup) -> Result<(), GroupError> {
        self.admit(&asked.group_id)?;
        let group = self.groups.get(&asked.group_id);
        let consumer = group.and_then(|group| group.consumer.as_ref());
        consumer.map_or(Ok(()), |consumer| {
            consumer.check_fetch(asked.member_id.as_ref(), asked.member_epoch)
        })
    }

    /// The offsets of the partitions wanted, or all. With an error code, that instead.
    fn find_offsets<'a>(
        &'a self,
        group_id: &StrBytes,
        wanted: Option<&[Wanted<'a>]>,
        (error_code, require_stable): (i16, bool),
    ) -> Vec<(&'a StrBytes, Vec<Found<'a>>)> {
        let group = self.groups.get(group_id).filter(|_| error_code == 0);
        let group = group.filter(|group| !group.is_in(State::Dead));
        // An offset that a transaction may be about to change is not told.
        let unstable = |name: &StrBytes, index: i32| {
            let found = group.filter(|_| require_stable);
            found.is_some_and(|group| group.is_unstable(name, index))
        };
        let stable = |name: &StrBytes, (index, offset, code): Found<'a>| match unstable(name, index)
        {
            true => (index, None, GroupError::UnstableOffsetCommit.code()),
            false => (index, offset, code),
        };
        // An offset's metadata is up to a thousand times as long as what asks for it.
        let mut told = HashSet::new();
        match wanted {
            Some(topics) => topics
                .iter()
                .map(|&(name, partitions)| {
                    let stored = group.and_then(|group| group.offsets.get(name));
                    let partitions = partitions.iter();
                    let partitions = partitions
                        .filter(|partition| stored.is_none() || told.insert((name, **partition)));
                    let partitions = partitions.map(|partition| {
                        let offset = stored.and_then(|stored| stored.get(partition));
                        stable(name, (*partition, offset, error_code))
                    });
                    (name, partitions.collect())
                })
                .collect(),
            None => group
                .iter()
                .flat_map(|group| &group.offsets)
                .map(|(name, stored)| {
                    let partitions = stored.iter();
                    let partitions =
                        partitions.map(|(index, offset)| stable(name, (*index, Some(offset), 0)));
                    (name, partitions.collect())
                })
                .collect(),
        }
    }

    /// OffsetDelete. `topic_exists` finds a topic by its name. The response comes when the offsets are gone for good.
    pub fn delete_offsets(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &OffsetDeleteRequest,
        topic_exists: impl Fn(&str) -> bool,
    ) {
        let mut response = OffsetDeleteResponse::default();
        let group = self
            .admit(&request.group_id)
            .and_then(|_| self.deletable_from(&request.group_id));
        let changes = match group {
            Ok(group) => delete_topics(group, request, topic_exists, &mut response),
            Err(error) => {
                response.error_code = error.code();
                Changes::new()
            }
        };
        let waiter = self.writes.wait(call.token, Answer::OffsetDelete(response));
        self.with_group(now, &request.group_id, |group, env| {
            let batch_bytes_max = env.config.batch_bytes_max;
            env.writes
                .offsets(group, changes, false, Some((waiter, 0)), batch_bytes_max);
        });
        if let Some((token, response)) = self.writes.seal(waiter) {
            self.out.send(token, response);
        }
    }

    fn deletable_from(&self, group_id: &StrBytes) -> Result<&Group, GroupError> {
        if self.writes.is_full(self.config.unwritten_bytes_max) {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let group = self.groups.get(group_id);
        let group = group.ok_or(GroupError::GroupIdNotFound)?;
        match group.state() {
            State::Dead => Err(GroupError::GroupIdNotFound),
            _ if group.consumer.is_some() => Ok(group),
            State::Empty => Ok(group),
            _ if group.protocol_type.as_deref() == Some(CONSUMER) => Ok(group),
            _ => Err(GroupError::NonEmptyGroup),
        }
    }
}

fn delete_topics(
    group: &Group,
    request: &OffsetDeleteRequest,
    topic_exists: impl Fn(&str) -> bool,
    response: &mut OffsetDeleteResponse,
) -> Changes {
    let mut changes = Changes::new();
    let mut removed = HashSet::new();
    for topic in &request.topics {
        let name = own(&topic.name);
        let error = if !topic_exists(&name) {
            Some(GroupError::UnknownTopicOrPartition)
        } else if !group.is_without_members() && group.is_subscribed(&name) {
            Some(GroupError::GroupSubscribedToTopic)
        } else {
            None
        };
        let mut topic_response = OffsetDeleteResponseTopic::default();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if error.is_none()
                && group.has_offset(&name, index)
                && removed.insert((&topic.name, index))
            {
                changes.push((name.clone(), index, None));
            }
            let mut answer = OffsetDeleteResponsePartition::default();
            answer.partition_index = index;
            answer.error_code = error.map_or(0, GroupError::code);
            topic_response.partitions.push(answer);
        }
        topic_response.name = name;
        response.topics.push(topic_response);
    }
    changes
}

/// When an offset expires by the client's own wish.
fn expire_ms(now: Now, retention_ms: i64) -> Option<i64> {
    (retention_ms >= 0).then(|| now.wall_ms.saturating_add(retention_ms))
}

fn old_partition((index, offset, error_code): Found<'_>) -> OffsetFetchResponsePartition {
    let mut partition = OffsetFetchResponsePartition::default();
    partition.partition_index = index;
    partition.committed_offset = offset.map_or(NO_OFFSET, |offset| offset.offset);
    partition.committed_leader_epoch = offset.map_or(-1, |offset| offset.leader_epoch);
    partition.metadata = Some(offset.map_or_else(StrBytes::default, |o| o.metadata.clone()));
    partition.error_code = error_code;
    partition
}

fn new_partition((index, offset, error_code): Found<'_>) -> OffsetFetchResponsePartitions {
    let mut partition = OffsetFetchResponsePartitions::default();
    partition.partition_index = index;
    partition.committed_offset = offset.map_or(NO_OFFSET, |offset| offset.offset);
    partition.committed_leader_epoch = offset.map_or(-1, |offset| offset.leader_epoch);
    partition.metadata = Some(offset.map_or_else(StrBytes::default, |o| o.metadata.clone()));
    partition.error_code = error_code;
    partition
}

impl Group {
    fn validate_commit(
        &self,
        request: &OffsetCommitRequest,
        version: i16,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some(consumer) = &self.consumer {
            let by = Committer::of(request);
            let topics = request.topics.iter();
            let topics = topics.filter(|topic| !topic.name.is_empty());
            let partitions = topics.flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (&topic.name, partition.partition_index))
            });
            return consumer.check_commit(&by, version, partitions, topic_id);
        }
        let generation = request.generation_id_or_member_epoch;
        let instance_id = request.group_instance_id.as_ref();
        if generation < 0 && self.is_in(State::Empty) {
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && instance_id.is_none() {
            // The group has members: offsets are theirs to commit.
            return Err(GroupError::UnknownMemberId);
        }
        self.validate_member(&request.member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.is_in(State::CompletingRebalance) {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether there is an offset, durable or on the way.
    fn has_offset(&self, topic: &StrBytes, partition: i32) -> bool {
        let stored = self.offsets.get(topic);
        stored.is_some_and(|partitions| partitions.contains_key(&partition))
            || self
                .offsets_on_the_way
                .contains_key(&(topic.clone(), partition))
    }

    /// Every offset, durable or on the way, that `is_meant` chooses, as removals.
    pub(super) fn removals(&self, is_meant: impl Fn(&StrBytes) -> bool) -> Changes {
        let stored = self.offsets.iter();
        let stored = stored.flat_map(|(topic, partitions)| {
            partitions
                .keys()
                .map(move |partition| (topic.clone(), *partition))
        });
        let mut all: Vec<(StrBytes, i32)> = stored
            .chain(self.offsets_on_the_way.keys().cloned())
            .filter(|(topic, _)| is_meant(topic))
            .collect();
        all.sort_unstable();
        all.dedup();
        let removals = all.into_iter();
        removals
            .map(|(topic, partition)| (topic, partition, None))
            .collect()
    }
}
