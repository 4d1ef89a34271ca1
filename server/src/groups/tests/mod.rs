//! The coordinator with a log that a test keeps, and requests by hand.

mod admin;
mod consumer;
mod loading;
mod membership;
mod offsets;
mod random;
mod records;
mod repeats;
mod sim;
mod static_members;

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_wire::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::sync_group_request::SyncGroupRequestAssignment;
use kafka_wire::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_wire::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest,
};
use ringlog_engine::id::{Now, TopicId};
use ringlog_engine::shard::ConnId;

use super::*;
use consumer::with_topics;

/// A producer with transactions.
pub(super) const PRODUCER: i64 = 7;

/// A coordinator of every partition, its log, and its answers.
pub(super) struct Rig {
    pub(super) coordinator: Coordinator,
    pub(super) now: Now,
    /// Batches in the order they were made durable.
    pub(super) log: Vec<(i32, Vec<u8>)>,
    /// Appends held back.
    pub(super) held: Vec<Append>,
    pub(super) hold: bool,
    slot: u64,
    answers: BTreeMap<u64, Response>,
}

pub(super) fn config() -> GroupsConfig {
    GroupsConfig {
        offsets_partitions: 4,
        ..GroupsConfig::default()
    }
}

fn coordinator(config: GroupsConfig) -> Coordinator {
    let mut next = 0;
    Coordinator::new(config, move || {
        next += 1;
        next
    })
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(config())
    }

    pub(super) fn with(config: GroupsConfig) -> Self {
        let now = Now {
            mono_ns: 0,
            wall_ms: 1_700_000_000_000,
        };
        let mut rig = Self {
            coordinator: coordinator(config),
            now,
            log: Vec::new(),
            held: Vec::new(),
            hold: false,
            slot: 0,
            answers: BTreeMap::new(),
        };
        rig.load();
        rig
    }

    /// Loses everything but the log, and reads that.
    pub(super) fn restart(&mut self) {
        self.held.clear();
        self.coordinator = coordinator(self.coordinator.config.clone());
        self.load();
    }

    fn load(&mut self) {
        for partition in 0..self.coordinator.config.offsets_partitions {
            self.coordinator.own(partition);
            for (_, batch) in self.log.iter().filter(|(at, _)| *at == partition) {
                self.coordinator.replay(self.now, partition, batch).unwrap();
            }
            self.coordinator.loaded(self.now, partition);
        }
    }

    /// Lets time pass, doing what is due on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end_ns = self.now.after_ms(ms);
        while let Some(at_ns) = self.coordinator.deadline_ns().filter(|at| *at <= end_ns) {
            self.advance(at_ns.max(self.now.mono_ns));
            self.coordinator.tick(self.now);
            self.pump();
        }
        self.advance(end_ns);
    }

    fn advance(&mut self, to_ns: u64) {
        self.now.wall_ms += (to_ns / 1_000_000) as i64 - (self.now.mono_ns / 1_000_000) as i64;
        self.now.mono_ns = to_ns;
    }

    /// Makes appends durable and collects answers.
    pub(super) fn pump(&mut self) {
        while let Some(append) = self.coordinator.next_append(self.now) {
            self.held.push(append);
        }
        if !self.hold {
            self.release(Ok(()));
        }
        while let Some((token, response)) = self.coordinator.next_response() {
            let earlier = self.answers.insert(token.slot, response);
            assert!(earlier.is_none(), "a request is answered once");
        }
    }

    /// Ends the appends held back.
    pub(super) fn release(&mut self, result: Result<(), AppendFailure>) {
        for append in std::mem::take(&mut self.held) {
            if result.is_ok() {
                self.log.push((append.partition, append.batch));
            }
            self.coordinator.appended(self.now, append.id, result);
        }
        while let Some((token, response)) = self.coordinator.next_response() {
            let earlier = self.answers.insert(token.slot, response);
            assert!(earlier.is_none(), "a request is answered once");
        }
    }

    pub(super) fn request(
        &mut self,
        version: i16,
        f: impl FnOnce(&mut Coordinator, Now, &Call<'_>),
    ) -> u64 {
        self.slot += 1;
        let call = Call {
            token: Token {
                conn: ConnId(1),
                slot: self.slot,
            },
            version,
            client_id: "client",
            client_host: "/127.0.0.1",
        };
        f(&mut self.coordinator, self.now, &call);
        self.pump();
        self.slot
    }

    pub(super) fn answer(&mut self, slot: u64) -> Option<Response> {
        self.answers.remove(&slot)
    }

    pub(super) fn is_answered(&self, slot: u64) -> bool {
        self.answers.contains_key(&slot)
    }

    pub(super) fn join_answer(&mut self, slot: u64) -> JoinGroupResponse {
        match self.answer(slot) {
            Some(Response::Join(response)) => response,
            other => panic!("no answer to a JoinGroup: {other:?}"),
        }
    }

    pub(super) fn sync_answer(&mut self, slot: u64) -> SyncGroupResponse {
        match self.answer(slot) {
            Some(Response::Sync(response)) => response,
            other => panic!("no answer to a SyncGroup: {other:?}"),
        }
    }

    // --- requests ---

    pub(super) fn join(&mut self, version: i16, request: &JoinGroupRequest) -> u64 {
        self.request(version, |c, now, call| {
            with_topics(|topics| c.join(now, call, request, topics));
        })
    }

    /// The id a member gets before it joins.
    pub(super) fn member_id(&mut self, group: &str) -> StrBytes {
        let slot = self.join(9, &join_request(group, ""));
        let answer = self.join_answer(slot);
        assert_eq!(answer.error_code, GroupError::MemberIdRequired.code());
        assert!(!answer.member_id.is_empty());
        answer.member_id
    }

    pub(super) fn sync(&mut self, request: &SyncGroupRequest) -> u64 {
        self.request(5, |c, now, call| {
            with_topics(|topics| c.sync(now, call, request, topics));
        })
    }

    pub(super) fn heartbeat(&mut self, group: &str, member: &StrBytes, generation: i32) -> i16 {
        let mut request = HeartbeatRequest::default();
        request.group_id = group.into();
        request.member_id = member.clone();
        request.generation_id = generation;
        let slot = self.request(4, |c, now, call| {
            with_topics(|topics| c.heartbeat(now, call, &request, topics));
        });
        match self.answer(slot) {
            Some(Response::Heartbeat(response)) => response.error_code,
            other => panic!("no answer to a Heartbeat: {other:?}"),
        }
    }

    pub(super) fn leave(&mut self, group: &str, member: &StrBytes) -> i16 {
        let mut request = LeaveGroupRequest::default();
        request.group_id = group.into();
        request.member_id = member.clone();
        let slot = self.request(1, |c, now, call| {
            with_topics(|topics| c.leave(now, call, &request, topics));
        });
        match self.answer(slot) {
            Some(Response::Leave(response)) => response.error_code,
            other => panic!("no answer to a LeaveGroup: {other:?}"),
        }
    }

    /// Commits partition 0 of `topic`.
    pub(super) fn commit(
        &mut self,
        group: &str,
        member: &StrBytes,
        generation: i32,
        offset: i64,
    ) -> u64 {
        let request = commit_request(group, member, generation, "topic", offset);
        self.request(8, |c, now, call| c.commit(now, call, &request, topics))
    }

    /// Commits partition 0 of `topic` in the transaction of [`PRODUCER`].
    pub(super) fn commit_in_transaction(&mut self, group: &str, offset: i64) -> u64 {
        let mut partition = TxnOffsetCommitRequestPartition::default();
        partition.committed_offset = offset;
        let mut entry = TxnOffsetCommitRequestTopic::default();
        entry.name = "topic".into();
        entry.partitions = vec![partition];
        let mut request = TxnOffsetCommitRequest::default();
        request.group_id = group.into();
        request.producer_id = PRODUCER;
        request.generation_id_or_member_epoch = -1;
        request.topics = vec![entry];
        self.request(5, |c, now, call| {
            c.commit_in_transaction(now, call, &request, topics);
        })
    }

    pub(super) fn commit_answer(&mut self, slot: u64) -> i16 {
        match self.answer(slot) {
            Some(Response::Commit(response)) => response.topics[0].partitions[0].error_code,
            Some(Response::TxnCommit(response)) => response.topics[0].partitions[0].error_code,
            other => panic!("no answer to an OffsetCommit: {other:?}"),
        }
    }

    /// Holds writes back and commits, for a group of its own, until too much waits to be written.
    pub(super) fn fill(&mut self) {
        self.hold = true;
        let put_off = GroupError::CoordinatorLoadInProgress.code();
        let commits = (0..1_000).map(|_| {
            let slot = self.commit("filler", &StrBytes::default(), -1, 1);
            self.answer(slot)
        });
        let mut answers = commits.flatten();
        let first = answers.next();
        let Some(Response::Commit(response)) = first else {
            panic!("there is no limit: {first:?}");
        };
        assert_eq!(response.topics[0].partitions[0].error_code, put_off);
    }

    /// The committed offset of partition 0 of `topic`.
    pub(super) fn fetch(&mut self, group: &str) -> i64 {
        let mut request = OffsetFetchRequest::default();
        request.group_id = group.into();
        request.topics = None;
        let slot = self.request(7, |c, _, call| c.fetch_offsets(call, &request));
        match self.answer(slot) {
            Some(Response::Fetch(response)) => {
                assert_eq!(response.error_code, 0);
                let topics = response.topics.iter();
                let mut topics = topics.filter(|topic| topic.name.as_str() == "topic");
                topics
                    .next()
                    .map_or(-1, |t| t.partitions[0].committed_offset)
            }
            other => panic!("no answer to an OffsetFetch: {other:?}"),
        }
    }

    /// Lets `n` members join an empty group and get assignments; their ids, the leader first.
    pub(super) fn stable_group(&mut self, group: &str, n: usize) -> Vec<StrBytes> {
        let ids: Vec<StrBytes> = (0..n).map(|_| self.member_id(group)).collect();
        let slots: Vec<u64> = ids
            .iter()
            .map(|id| self.join(9, &join_request(group, id)))
            .collect();
        self.pass(10_000);
        let answers: Vec<_> = slots.into_iter().map(|s| self.join_answer(s)).collect();
        let leader = answers[0].leader.clone();
        let generation = answers[0].generation_id;
        assert!(answers.iter().all(|answer| answer.error_code == 0));
        let syncs: Vec<u64> = ids
            .iter()
            .map(|id| {
                let assigned = if *id == leader { ids.as_slice() } else { &[] };
                self.sync(&sync_request(group, id, generation, assigned))
            })
            .collect();
        for (slot, id) in syncs.into_iter().zip(&ids) {
            let answer = self.sync_answer(slot);
            assert_eq!(
                (answer.error_code, &answer.assignment[..]),
                (0, id.as_bytes())
            );
        }
        let mut ids = ids;
        ids.sort_by_key(|id| *id != leader);
        ids
    }
}

/// One topic exists.
pub(super) fn topics(name: &str, index: i32) -> Option<TopicId> {
    (name == "topic" && (0..1000).contains(&index)).then_some(TopicId([9; 16]))
}

pub(super) fn join_request(group: &str, member: &str) -> JoinGroupRequest {
    let mut request = JoinGroupRequest::default();
    request.group_id = group.into();
    request.session_timeout_ms = 10_000;
    request.rebalance_timeout_ms = 30_000;
    request.member_id = member.into();
    request.protocol_type = "consumer".into();
    request.protocols = vec![protocol("range", &["topic"])];
    request
}

/// A consumer's protocol with the metadata Kafka's consumers send: version 0, topics, no user data.
pub(super) fn protocol(name: &str, topics: &[&str]) -> JoinGroupRequestProtocol {
    let mut metadata = vec![0, 0];
    metadata.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        metadata.extend_from_slice(topic.as_bytes());
    }
    metadata.extend_from_slice(&(-1i32).to_be_bytes());
    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = name.into();
    protocol.metadata = metadata.into();
    protocol
}

/// Every member is assigned its own id.
pub(super) fn sync_request(
    group: &str,
    member: &StrBytes,
    generation: i32,
    assigned: &[StrBytes],
) -> SyncGroupRequest {
    let mut request = SyncGroupRequest::default();
    request.group_id = group.into();
    request.member_id = member.clone();
    request.generation_id = generation;
    request.protocol_type = Some("consumer".into());
    request.protocol_name = Some("range".into());
    request.assignments = assigned
        .iter()
        .map(|id| {
            let mut assignment = SyncGroupRequestAssignment::default();
            assignment.member_id = id.clone();
            assignment.assignment = Bytes::copy_from_slice(id.as_bytes());
            assignment
        })
        .collect();
    request
}

pub(super) fn commit_request(
    group: &str,
    member: &StrBytes,
    generation: i32,
    topic: &str,
    offset: i64,
) -> OffsetCommitRequest {
    let mut partition = OffsetCommitRequestPartition::default();
    partition.committed_offset = offset;
    partition.committed_metadata = Some("m".into());
    let mut entry = OffsetCommitRequestTopic::default();
    entry.name = topic.into();
    entry.partitions = vec![partition];
    let mut request = OffsetCommitRequest::default();
    request.group_id = group.into();
    request.member_id = member.clone();
    request.generation_id_or_member_epoch = generation;
    request.topics = vec![entry];
    request
}
