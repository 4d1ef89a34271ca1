//! A simulated member of the classic protocol: it gives up everything before it joins, assigns if it is made the leader, and
//! joins again when it is told to.

use kafka_wire::leave_group_request::MemberIdentity;
use kafka_wire::{HeartbeatResponse, LeaveGroupRequest};

use super::super::embedded::{read_assignment, said, write_assignment};
use super::*;

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Join,
    /// It has joined, and is to bring these assignments if it leads.
    Sync(Vec<SyncGroupRequestAssignment>),
    Live,
}

impl World {
    fn topic_size(&self) -> i32 {
        let topic = self.topics.topic("topic");
        topic.map_or(0, |topic| topic.partitions)
    }

    /// What a member of the classic protocol does now, if it has no request on the way.
    pub(super) fn act_old(&mut self, member: usize) {
        let size = self.topic_size();
        let state = &mut self.members[member];
        if state.stage == Stage::Live && state.dealt.is_some_and(|dealt| dealt != size) {
            state.stage = Stage::Join;
        }
        match state.stage.clone() {
            Stage::Join => {
                state.dealt = None;
                state.forget();
                state.phase = Phase::Joining;
                let mut request = join_request("g", &state.id);
                request.session_timeout_ms = 6_000;
                request.rebalance_timeout_ms = REVOCATION_MS;
                request.protocols[0].metadata = said(&["topic"], &[], 1);
                self.send(member, Ask::Join(request));
            }
            Stage::Sync(assignments) => {
                let mut request = sync_request("g", &state.id, state.epoch, &[]);
                request.assignments = assignments;
                self.send(member, Ask::Sync(request));
            }
            Stage::Live if self.now_ms >= state.beat_ms + BEAT_MS => {
                state.beat_ms = self.now_ms;
                let mut request = HeartbeatRequest::default();
                request.group_id = "g".into();
                request.member_id = state.id.clone();
                request.generation_id = state.epoch;
                self.send(member, Ask::Heartbeat(request));
            }
            Stage::Live => self.read_on(member),
        }
    }

    pub(super) fn leave_old(&mut self, member: usize) {
        let state = &mut self.members[member];
        let mut leaving = MemberIdentity::default();
        leaving.member_id = state.id.clone();
        let mut request = LeaveGroupRequest::default();
        request.group_id = "g".into();
        request.members = vec![leaving];
        state.abandon();
        state.phase = Phase::Off;
        self.send(member, Ask::Leave(request));
    }

    pub(super) fn joined(&mut self, member: usize, response: &JoinGroupResponse) {
        let (seed, now_ms, size) = (self.seed, self.now_ms, self.topic_size());
        let state = &mut self.members[member];
        let is = |error: GroupError| response.error_code == error.code();
        if response.error_code == 0 {
            state.id = response.member_id.clone();
            state.epoch = response.generation_id;
            state.dealt = (response.leader == state.id).then_some(size);
            state.stage = Stage::Sync(shares(response, size));
        } else if is(GroupError::MemberIdRequired) {
            state.id = response.member_id.clone();
        } else if is(GroupError::UnknownMemberId) {
            state.abandon();
        } else {
            let waits =
                is(GroupError::RebalanceInProgress) || is(GroupError::CoordinatorNotAvailable);
            assert!(waits, "seed {seed}: {response:?}");
            state.next_act_ms = now_ms + 300;
        }
    }

    pub(super) fn synced(&mut self, member: usize, response: &SyncGroupResponse) {
        let id = self.topics.topic("topic").map(|topic| topic.id);
        let state = &mut self.members[member];
        if response.error_code != 0 {
            return self.asked_to_join(member, response.error_code);
        }
        let told = read_assignment(&response.assignment);
        state.reads = told.iter().filter_map(|p| Some((id?, *p))).collect();
        state.stage = Stage::Live;
        state.phase = Phase::Live;
    }

    pub(super) fn heard(&mut self, member: usize, response: &HeartbeatResponse) {
        if response.error_code != 0 {
            self.asked_to_join(member, response.error_code);
        }
    }

    /// An error that means that the member is to join again, perhaps anew.
    fn asked_to_join(&mut self, member: usize, code: i16) {
        let (seed, now_ms) = (self.seed, self.now_ms);
        let state = &mut self.members[member];
        let is = |error: GroupError| code == error.code();
        if is(GroupError::UnknownMemberId) {
            state.abandon();
        } else {
            let is_known = is(GroupError::RebalanceInProgress)
                || is(GroupError::IllegalGeneration)
                || is(GroupError::CoordinatorNotAvailable);
            assert!(is_known, "seed {seed}: {code}");
            state.stage = Stage::Join;
            state.next_act_ms = now_ms + 100;
        }
    }
}

/// A leader deals the topic's partitions out.
fn shares(response: &JoinGroupResponse, partitions: i32) -> Vec<SyncGroupRequestAssignment> {
    let count = response.members.len() as i32;
    let members = response.members.iter().zip(0..);
    members
        .map(|(member, at)| {
            let share: Vec<i32> = (0..partitions).filter(|p| p % count == at).collect();
            let mut assigned = SyncGroupRequestAssignment::default();
            assigned.member_id = member.member_id.clone();
            assigned.assignment = write_assignment(&share, None);
            assigned
        })
        .collect()
}
