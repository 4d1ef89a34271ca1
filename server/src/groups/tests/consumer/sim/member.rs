//! A simulated member, as clients of the protocol behave: it gives up what it is no longer to read, takes its time for that,
//! says so, and reads what is new.

use kafka_wire::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_wire::{OffsetCommitResponse, OffsetFetchResponse};

use super::*;

pub(super) const BEAT_MS: u64 = 1_000;
/// A request is given up after this and said again over another connection.
const PATIENCE_MS: u64 = 3_000;
/// A JoinGroup may take as long as a rebalance.
const JOIN_PATIENCE_MS: u64 = 15_000;
pub(super) const REVOCATION_MS: i32 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Off,
    Live,
    /// It is to give up some of what it reads, by the time in `revoked_ms`.
    Revoking,
    /// It has no assignment of its generation, as a member of the classic protocol.
    Joining,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: StrBytes,
    instance: Option<StrBytes>,
    regex: Option<&'static str>,
    assignor: Option<&'static str>,
    /// How far it is in the classic protocol, if it speaks that.
    pub(super) is_old: bool,
    pub(super) stage: Stage,
    /// How many partitions it has dealt out, if it leads: it joins again when there are more.
    pub(super) dealt: Option<i32>,
    pub(super) phase: Phase,
    pub(super) epoch: i32,
    pub(super) reads: BTreeSet<Place>,
    told: BTreeSet<Place>,
    /// The next offset to commit of what it reads, once fetched.
    next: BTreeMap<Place, i64>,
    revoked_ms: u64,
    /// Whether the next heartbeat is to say everything, and what it reads.
    full: bool,
    changed: bool,
    pub(super) conn: u64,
    pub(super) next_act_ms: u64,
    pub(super) asked_ms: u64,
    /// When its last heartbeat went.
    pub(super) beat_ms: u64,
    pub(super) awaiting: Option<u64>,
}

impl Member {
    pub(super) fn new(at: usize, is_old: bool) -> Self {
        let id = format!("first-{at}");
        Self {
            id: if is_old { "" } else { &id }.into(),
            instance: at
                .is_multiple_of(3)
                .then(|| format!("instance-{at}").into()),
            is_old,
            stage: Stage::default(),
            dealt: None,
            regex: at.is_multiple_of(4).then_some("t.*"),
            assignor: (at == 5).then_some("range"),
            phase: Phase::Live,
            epoch: 0,
            reads: BTreeSet::new(),
            told: BTreeSet::new(),
            next: BTreeMap::new(),
            revoked_ms: 0,
            full: true,
            changed: false,
            conn: 0,
            next_act_ms: 0,
            asked_ms: 0,
            beat_ms: 0,
            awaiting: None,
        }
    }

    /// Names of the topics it subscribes to.
    pub(super) fn topics(&self, topics: &FakeTopics) -> Vec<String> {
        let mut names = vec!["topic".to_owned()];
        if !self.is_old && self.regex.is_some_and(|regex| regex.starts_with('t')) {
            topics.each_name(&mut |name| {
                if name.starts_with('t') && name != "topic" {
                    names.push(name.to_owned());
                }
            });
        }
        names
    }

    /// It reads nothing any more and joins anew.
    pub(super) fn abandon(&mut self) {
        self.epoch = 0;
        self.forget();
        self.full = true;
        self.phase = Phase::Live;
        if self.is_old {
            self.id = StrBytes::default();
            self.stage = Stage::Join;
            self.phase = Phase::Joining;
        }
    }

    /// It reads nothing any more.
    pub(super) fn forget(&mut self) {
        self.reads.clear();
        self.told.clear();
        self.next.clear();
    }

    fn owned(&self) -> Vec<TopicPartitions> {
        let mut by_topic: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.reads {
            by_topic.entry(*topic).or_default().push(*partition);
        }
        let topics = by_topic.into_iter();
        topics
            .map(|(topic, partitions)| {
                let mut of_topic = TopicPartitions::default();
                of_topic.topic_id = uuid(topic);
                of_topic.partitions = partitions;
                of_topic
            })
            .collect()
    }

    fn heartbeat(&mut self) -> ConsumerGroupHeartbeatRequest {
        let mut request = ConsumerGroupHeartbeatRequest::default();
        request.group_id = "g".into();
        request.member_id = self.id.clone();
        request.instance_id = self.instance.clone();
        request.member_epoch = self.epoch;
        if self.full {
            request.rebalance_timeout_ms = REVOCATION_MS;
            request.subscribed_topic_names = Some(vec!["topic".into()]);
            request.subscribed_topic_regex = Some(self.regex.unwrap_or_default().into());
            request.server_assignor = self.assignor.map(StrBytes::from);
        }
        if self.full || self.changed {
            request.topic_partitions = Some(self.owned());
        }
        (self.full, self.changed) = (false, false);
        request
    }
}

impl World {
    pub(super) fn reconnect(&mut self, member: usize) {
        self.conns += 1;
        let member = &mut self.members[member];
        self.responses.remove(&member.conn);
        // What it sent may still arrive. Not so commits: one that arrives behind a newer one takes the offset back, which is
        // the client's doing.
        if let Some(sent) = self.requests.get_mut(&member.conn) {
            sent.retain(|(_, _, ask)| !matches!(ask, Ask::Commit(_)));
        }
        member.conn = self.conns;
        member.awaiting = None;
        member.full = true;
        if member.stage != Stage::Live {
            member.stage = Stage::Join;
        }
    }

    pub(super) fn crash(&mut self, member: usize) {
        self.members[member].phase = Phase::Off;
        self.members[member].abandon();
        self.members[member].phase = Phase::Off;
    }

    /// A member that was off starts anew, under another id.
    pub(super) fn start(&mut self, member: usize) {
        if self.members[member].phase != Phase::Off {
            return;
        }
        self.names += 1;
        self.members[member].is_old = self.random.one_in(2);
        self.members[member].id = format!("later-{}", self.names).into();
        self.members[member].abandon();
        self.reconnect(member);
    }

    pub(super) fn leave(&mut self, member: usize) {
        let state = &mut self.members[member];
        if state.phase != Phase::Live || state.awaiting.is_some() || state.epoch == 0 {
            return;
        }
        if state.is_old {
            return self.leave_old(member);
        }
        let epoch = match state.instance {
            Some(_) => -2,
            None => -1,
        };
        state.abandon();
        state.phase = Phase::Off;
        let mut request = state.heartbeat();
        request.member_epoch = epoch;
        self.send(member, Ask::Beat(request));
    }

    pub(super) fn resubscribe(&mut self, member: usize) {
        let choices = [None, Some("t.*"), Some("to.*|x")];
        let choice = self.random.below(3) as usize;
        let state = &mut self.members[member];
        // One that is sent again must say the same.
        if state.awaiting.is_none() {
            // Expressions other than "t.*" match no more than its name here.
            state.regex = choices[choice].filter(|regex| *regex == "t.*");
            state.full = true;
        }
    }

    pub(super) fn act(&mut self, member: usize) {
        let now_ms = self.now_ms;
        let state = &mut self.members[member];
        if state.phase == Phase::Off || state.next_act_ms > now_ms {
            return;
        }
        if state.awaiting.is_some() {
            let patience_ms = match state.stage {
                Stage::Join if state.is_old => JOIN_PATIENCE_MS,
                _ => PATIENCE_MS,
            };
            if now_ms > state.asked_ms + patience_ms {
                self.reconnect(member);
            }
            return;
        }
        if state.is_old {
            return self.act_old(member);
        }
        if state.phase == Phase::Revoking && now_ms >= state.revoked_ms {
            let told = state.told.clone();
            state.next.retain(|place, _| told.contains(place));
            // What it was told with it may be new: an answer that was lost had it first.
            state.reads = told;
            state.phase = Phase::Live;
            // It says so at once.
            state.changed = true;
            self.beat_now(member);
            return;
        }
        let is_due = now_ms >= state.beat_ms + BEAT_MS || state.full || state.changed;
        match is_due {
            true => self.beat_now(member),
            false => self.read_on(member),
        }
    }

    /// Asks from where to read, or commits how far it has read.
    pub(super) fn read_on(&mut self, member: usize) {
        let state = &self.members[member];
        let mut reads = state.reads.iter();
        if !reads.all(|place| state.next.contains_key(place)) {
            self.fetch(member);
        } else if self.random.one_in(4) {
            self.commit(member);
        }
    }

    fn beat_now(&mut self, member: usize) {
        self.members[member].beat_ms = self.now_ms;
        let request = self.members[member].heartbeat();
        self.send(member, Ask::Beat(request));
    }

    fn fetch(&mut self, member: usize) {
        let state = &self.members[member];
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = "g".into();
        // Members of the classic protocol do not say who they are.
        group.member_id = (!state.is_old).then(|| state.id.clone());
        group.member_epoch = if state.is_old { -1 } else { state.epoch };
        group.topics = None;
        let mut request = OffsetFetchRequest::default();
        request.groups = vec![group];
        self.send(member, Ask::Fetch(request));
    }

    fn commit(&mut self, member: usize) {
        let pick = self.random.next() as usize;
        let topics = &self.topics;
        let state = &mut self.members[member];
        let count = state.next.len();
        let Some((place, offset)) = state.next.iter_mut().nth(pick % count.max(1)) else {
            return;
        };
        let Some(name) = topics.name(place.0) else {
            return;
        };
        *offset += 1;
        let mut request = commit_request("g", &state.id, state.epoch, name, *offset);
        request.topics[0].partitions[0].partition_index = place.1;
        request.group_instance_id = state.instance.clone().filter(|_| !state.is_old);
        self.send(member, Ask::Commit(request));
    }

    pub(super) fn answer(&mut self) {
        for member in 0..self.members.len() {
            let conn = self.members[member].conn;
            while let Some((_, slot, response)) = pop_due(&mut self.responses, conn, self.now_ms) {
                if self.members[member].awaiting != Some(slot) {
                    continue;
                }
                self.members[member].awaiting = None;
                if self.members[member].phase == Phase::Off {
                    continue;
                }
                match response {
                    Response::ConsumerHeartbeat(response) => self.beaten(member, &response),
                    Response::Fetch(response) => self.fetched(member, &response),
                    Response::Commit(response) => self.committed(member, &response),
                    Response::Join(response) => self.joined(member, &response),
                    Response::Sync(response) => self.synced(member, &response),
                    Response::Heartbeat(response) => self.heard(member, &response),
                    other => panic!("seed {}: {other:?}", self.seed),
                }
            }
        }
    }

    fn beaten(&mut self, member: usize, response: &ConsumerGroupHeartbeatResponse) {
        let takes_ms = self.random.below(3_000);
        let (seed, now_ms) = (self.seed, self.now_ms);
        let state = &mut self.members[member];
        let is = |error: GroupError| response.error_code == error.code();
        if response.error_code != 0 {
            state.next_act_ms = now_ms + 300;
            state.full = true;
            let is_out = is(GroupError::FencedMemberEpoch)
                || is(GroupError::UnknownMemberId)
                || is(GroupError::GroupIdNotFound)
                || is(GroupError::FencedInstanceId);
            if is_out {
                state.abandon();
            } else {
                let waits =
                    is(GroupError::UnreleasedInstanceId) || is(GroupError::CoordinatorNotAvailable);
                assert!(waits, "seed {seed}: {response:?}");
            }
            return;
        }
        state.epoch = response.member_epoch;
        let Some(assignment) = &response.assignment else {
            return;
        };
        let topics = assignment.topic_partitions.iter();
        state.told = topics
            .flat_map(|of| of.partitions.iter().map(|p| (topic_id(of.topic_id), *p)))
            .collect();
        if state.reads.is_subset(&state.told) {
            state.changed |= state.reads != state.told;
            state.reads = state.told.clone();
            state.phase = Phase::Live;
        } else {
            state.phase = Phase::Revoking;
            state.revoked_ms = now_ms + takes_ms;
        }
    }

    fn fetched(&mut self, member: usize, response: &OffsetFetchResponse) {
        let group = &response.groups[0];
        let state = &mut self.members[member];
        if group.error_code != 0 {
            let is_known = group.error_code == GroupError::StaleMemberEpoch.code()
                || group.error_code == GroupError::UnknownMemberId.code();
            assert!(is_known, "seed {}: {}", self.seed, group.error_code);
            state.full = true;
            return;
        }
        let mut stored: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for topic in &group.topics {
            for partition in &topic.partitions {
                stored.insert(
                    (&topic.name, partition.partition_index),
                    partition.committed_offset,
                );
            }
        }
        for place in &state.reads {
            let name = self.topics.name(place.0).unwrap_or_default();
            let offset = stored.get(&(name, place.1)).copied().unwrap_or(0);
            state.next.entry(*place).or_insert(offset);
        }
    }

    fn committed(&mut self, member: usize, response: &OffsetCommitResponse) {
        let topic = &response.topics[0];
        let partition = &topic.partitions[0];
        let state = &mut self.members[member];
        let is = |error: GroupError| partition.error_code == error.code();
        if partition.error_code == 0 {
            self.commits += 1;
            let place = self
                .topics
                .topic(&topic.name)
                .map(|found| (found.id, partition.partition_index));
            if let Some(offset) = place.and_then(|place| state.next.get(&place)) {
                let key = (topic.name.clone(), partition.partition_index);
                let acked = self.acked.entry(key).or_default();
                *acked = (*acked).max(*offset);
            }
            return;
        }
        let is_known = is(GroupError::StaleMemberEpoch)
            || is(GroupError::UnknownMemberId)
            || is(GroupError::UnknownTopicOrPartition)
            || is(GroupError::GroupIdNotFound)
            || is(GroupError::IllegalGeneration)
            || is(GroupError::RebalanceInProgress)
            || is(GroupError::CoordinatorNotAvailable);
        assert!(is_known, "seed {}: {}", self.seed, partition.error_code);
        // What it may have committed is not known: it asks.
        state.next.clear();
        state.full = true;
    }
}
