//! What simulated members do: joining, syncing, heartbeats, commits, and what they make of answers.

use kafka_wire::{OffsetCommitResponse, OffsetFetchResponse};

use super::*;

impl World {
    pub(super) fn leave(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if state.phase != Phase::Stable || state.awaiting.is_some() {
            return;
        }
        state.phase = Phase::Off;
        let mut identity = kafka_wire::leave_group_request::MemberIdentity::default();
        identity.member_id = state.member_id.clone();
        identity.group_instance_id = state.instance.clone();
        let mut request = LeaveGroupRequest::default();
        request.group_id = GROUP.into();
        request.members = vec![identity];
        self.ask(client, Ask::Leave(request));
    }

    pub(super) fn act(&mut self, client: usize) {
        let state = &self.clients[client];
        if state.phase == Phase::Off || state.next_act_ms > self.now_ms {
            return;
        }
        if state.awaiting.is_some() {
            if self.now_ms > state.asked_ms + PATIENCE_MS {
                self.reconnect(client);
            }
            return;
        }
        match state.phase {
            Phase::Unjoined => self.send_join(client),
            Phase::Stable => self.heartbeat_or_commit(client),
            _ => {}
        }
    }

    pub(super) fn send_join(&mut self, client: usize) {
        let state = &mut self.clients[client];
        state.phase = Phase::Joining;
        let mut request = join_request(GROUP, &state.member_id);
        request.rebalance_timeout_ms = 12_000;
        request.group_instance_id = state.instance.clone();
        self.ask(client, Ask::Join(request));
    }

    pub(super) fn heartbeat_or_commit(&mut self, client: usize) {
        let pause_ms = 500 + self.random.below(2_000);
        let commits = self.random.one_in(2);
        let state = &mut self.clients[client];
        state.next_act_ms = self.now_ms + pause_ms;
        let first = state.owned.iter_mut().next();
        if commits && let Some((&partition, offset)) = first {
            *offset += 1;
            let mut request =
                commit_request(GROUP, &state.member_id, state.generation, "topic", *offset);
            request.topics[0].partitions[0].partition_index = partition;
            request.group_instance_id = state.instance.clone();
            self.ask(client, Ask::Commit(request));
            return;
        }
        let mut request = HeartbeatRequest::default();
        request.group_id = GROUP.into();
        request.member_id = state.member_id.clone();
        request.group_instance_id = state.instance.clone();
        request.generation_id = state.generation;
        self.ask(client, Ask::Heartbeat(request));
    }

    pub(super) fn answer(&mut self) {
        for client in 0..self.clients.len() {
            let conn = self.clients[client].conn;
            while let Some((_, slot, response)) = pop_due(&mut self.responses, conn, self.now_ms) {
                if self.clients[client].awaiting != Some(slot) {
                    continue;
                }
                self.clients[client].awaiting = None;
                if self.clients[client].phase != Phase::Off {
                    self.take(client, response);
                }
            }
        }
    }

    pub(super) fn take(&mut self, client: usize, response: Response) {
        match response {
            Response::Join(response) => self.joined(client, response),
            Response::Sync(response) => self.synced(client, &response),
            Response::Heartbeat(response) => self.failed(client, response.error_code),
            Response::Commit(response) => self.committed(client, &response),
            Response::Fetch(response) => self.fetched(client, &response),
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    /// What a client does about an error.
    pub(super) fn failed(&mut self, client: usize, code: i16) {
        let state = &mut self.clients[client];
        if code == 0 {
            return;
        }
        let is = |error: GroupError| code == error.code();
        if is(GroupError::UnknownMemberId) {
            state.member_id = StrBytes::default();
        } else {
            let known = is(GroupError::RebalanceInProgress)
                || is(GroupError::IllegalGeneration)
                || is(GroupError::CoordinatorNotAvailable)
                || is(GroupError::FencedInstanceId);
            assert!(known, "seed {}: error {code}", self.seed);
        }
        if is(GroupError::FencedInstanceId) {
            // Its own earlier request, under an id it never heard of, overtook it.
            state.member_id = StrBytes::default();
        }
        if is(GroupError::CoordinatorNotAvailable) && state.phase == Phase::Stable {
            return;
        }
        state.phase = Phase::Unjoined;
        state.owned.clear();
        state.next_act_ms = self.now_ms + 100;
    }

    pub(super) fn joined(&mut self, client: usize, response: JoinGroupResponse) {
        if response.error_code == GroupError::MemberIdRequired.code() {
            self.clients[client].member_id = response.member_id;
            self.clients[client].phase = Phase::Unjoined;
            return;
        }
        self.failed(client, response.error_code);
        if response.error_code != 0 {
            return;
        }
        let state = &mut self.clients[client];
        state.member_id = response.member_id.clone();
        state.generation = response.generation_id;
        state.phase = Phase::Syncing;
        let mut request = sync_request(GROUP, &state.member_id, state.generation, &[]);
        request.group_instance_id = state.instance.clone();
        let members: Vec<&StrBytes> = response.members.iter().map(|m| &m.member_id).collect();
        if !response.skip_assignment {
            for (at, id) in members.iter().enumerate() {
                let mine = (0..PARTITIONS).filter(|p| p % members.len() == at);
                let mut assignment = SyncGroupRequestAssignment::default();
                assignment.member_id = (*id).clone();
                assignment.assignment = mine.map(|p| p as u8).collect::<Vec<u8>>().into();
                request.assignments.push(assignment);
            }
        }
        self.ask(client, Ask::Sync(request));
    }

    pub(super) fn synced(&mut self, client: usize, response: &SyncGroupResponse) {
        self.failed(client, response.error_code);
        if response.error_code != 0 {
            return;
        }
        let state = &mut self.clients[client];
        let name = state.instance.as_ref().unwrap_or(&state.member_id);
        for &partition in &response.assignment {
            let key = (state.generation, i32::from(partition));
            let owner = self.owners.entry(key).or_insert_with(|| name.to_string());
            assert_eq!(
                *owner,
                name.as_str(),
                "seed {}: one owner of {key:?}",
                self.seed
            );
        }
        let owned = response.assignment.iter();
        state.owned = owned.map(|&partition| (i32::from(partition), 0)).collect();
        state.phase = Phase::Fetching;
        let mut group = kafka_wire::offset_fetch_request::OffsetFetchRequestGroup::default();
        group.group_id = GROUP.into();
        group.topics = None;
        let mut request = OffsetFetchRequest::default();
        request.groups = vec![group];
        self.ask(client, Ask::Fetch(request));
    }

    pub(super) fn fetched(&mut self, client: usize, response: &OffsetFetchResponse) {
        let state = &mut self.clients[client];
        for partition in response.groups[0].topics.iter().flat_map(|t| &t.partitions) {
            if let Some(next) = state.owned.get_mut(&partition.partition_index) {
                *next = partition.committed_offset;
            }
        }
        state.phase = Phase::Stable;
    }

    pub(super) fn committed(&mut self, client: usize, response: &OffsetCommitResponse) {
        let partition = &response.topics[0].partitions[0];
        if partition.error_code == 0 {
            self.commits += 1;
            let offset = self.clients[client].owned.get(&partition.partition_index);
            if let Some(&offset) = offset {
                let acked = self.acked.entry(partition.partition_index).or_default();
                *acked = offset.max(*acked);
            }
        }
        self.failed(client, partition.error_code);
    }
}
