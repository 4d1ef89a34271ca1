//! The two phases of a rebalance: all members join, then the leader assigns.

use bytes::Bytes;
use kafka_wire::JoinGroupResponse;
use kafka_wire::join_group_response::JoinGroupResponseMember;

use super::coordinator::{Env, Response};
use super::error::GroupError;
use super::group::{Group, InitialDelay, State};
use super::member::{JoinWait, Member};
use super::timers::TimerKey;
use super::{StrBytes, Token};

impl Group {
    /// Starts a rebalance where the state allows one; otherwise sees whether the one that runs can go on.
    pub(super) fn rebalance_or_complete(&mut self, env: &mut Env<'_>) {
        match self.state() {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare(env),
            State::PreparingRebalance => self.complete_if_all_joined(env),
            State::Dead => {}
        }
    }

    /// Starts a rebalance.
    pub(super) fn prepare(&mut self, env: &mut Env<'_>) {
        if self.is_in(State::CompletingRebalance) {
            self.answer_syncs(env, GroupError::RebalanceInProgress);
        }
        env.timers.cancel(&mut self.sync_phase);
        self.pending_sync.clear();
        let was_empty = self.is_in(State::Empty);
        self.transition(State::PreparingRebalance, env.now.wall_ms);
        if was_empty {
            // Its members are likely to start at about the same time.
            let delay_ms = env.config.initial_rebalance_delay_ms;
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay_ms),
                joined: false,
            });
            self.set_join_phase(env, delay_ms);
        } else if self.all_joined() {
            self.complete_join(env);
        } else {
            self.set_join_phase(env, self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if nobody is missing.
    pub(super) fn complete_if_all_joined(&mut self, env: &mut Env<'_>) {
        let waits_for_time = self.initial_delay.is_some();
        if self.is_in(State::PreparingRebalance) && !waits_for_time && self.all_joined() {
            self.complete_join(env);
        }
    }

    /// The join phase's time is up.
    pub(super) fn join_phase_over(&mut self, env: &mut Env<'_>) {
        if !self.is_in(State::PreparingRebalance) {
            return;
        }
        if let Some(delay) = &mut self.initial_delay
            && delay.joined
            && delay.remaining_ms > 0
        {
            let passed_ms = delay.delay_ms;
            delay.delay_ms = env
                .config
                .initial_rebalance_delay_ms
                .min(delay.remaining_ms);
            delay.remaining_ms = delay.remaining_ms.saturating_sub(passed_ms);
            delay.joined = false;
            let next_ms = delay.delay_ms;
            self.set_join_phase(env, next_ms);
            return;
        }
        self.complete_join(env);
    }

    /// Ends the join phase: members that have not joined are out, static ones excepted, and a generation starts.
    fn complete_join(&mut self, env: &mut Env<'_>) {
        env.timers.cancel(&mut self.join_phase);
        self.initial_delay = None;
        let missing = self.members().filter(|member| member.join.is_none());
        let missing = missing.filter(|member| member.instance_id.is_none());
        let missing: Vec<StrBytes> = missing.map(|member| member.id.clone()).collect();
        for id in missing {
            self.expel(env, &id, GroupError::UnknownMemberId);
        }
        if !self.elect_joined_leader() && self.members().len() > 0 {
            // Only static members, and none of them has joined: their sessions decide.
            self.set_join_phase(env, self.rebalance_timeout_ms().max(1));
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        if self.members().len() == 0 {
            self.protocol = None;
            self.leader = None;
            self.subscribed = self.compute_subscribed();
            self.transition(State::Empty, env.now.wall_ms);
            env.writes
                .group(self, |_| Bytes::new(), super::writes::Effect::None);
            return;
        }
        self.protocol = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        self.transition(State::CompletingRebalance, env.now.wall_ms);
        self.announce_generation(env);
    }

    /// Answers every JoinGroup that waits, and gives members until the sync phase's end to ask for assignments.
    fn announce_generation(&mut self, env: &mut Env<'_>) {
        for id in self.member_ids() {
            if let Some(join) = self.take_join(&id) {
                let response = self.join_response(&id, join.version);
                env.out.send(join.token, Response::Join(response));
            }
            if let Some(member) = self.member_mut(&id) {
                member.is_new = false;
            }
            self.renew_session(env, &id);
            self.pending_sync.insert(id);
        }
        let due_ns = env.now.after_ms(self.rebalance_timeout_ms());
        env.timers.set(&mut self.sync_phase, due_ns, || {
            TimerKey::Sync(self.id.clone())
        });
    }

    /// The sync phase's time is up: who has not asked for its assignment is out.
    pub(super) fn sync_phase_over(&mut self, env: &mut Env<'_>) {
        if !matches!(self.state(), State::CompletingRebalance | State::Stable)
            || self.pending_sync.is_empty()
        {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.expel(env, &id, GroupError::UnknownMemberId);
        }
        self.prepare(env);
    }

    /// A member's session, or that of a member given an id, is over.
    pub(super) fn session_over(&mut self, env: &mut Env<'_>, member_id: &StrBytes) {
        if self.pending.contains_key(member_id) {
            self.forget_pending(env, member_id);
            self.complete_if_all_joined(env);
            return;
        }
        if self.member(member_id).is_none_or(Member::is_excused) {
            return;
        }
        self.expel(env, member_id, GroupError::UnknownMemberId);
        self.rebalance_or_complete(env);
    }

    /// Takes a member out; requests of it that wait are answered with `error`.
    pub(super) fn expel(&mut self, env: &mut Env<'_>, member_id: &StrBytes, error: GroupError) {
        if let Some(mut member) = self.remove_member(member_id) {
            env.timers.cancel(&mut member.session);
            if let Some(join) = member.join {
                env.out.join_error(join, &StrBytes::default(), error);
            }
            if let Some(token) = member.sync {
                env.out.sync_error(token, error);
            }
            self.end_sync_phase_if_all_synced(env);
        }
    }

    /// Answers everything that waits with `error`, before the group goes from memory.
    pub(super) fn dismiss(&mut self, env: &mut Env<'_>, error: GroupError) {
        for id in self.member_ids() {
            self.expel(env, &id, error);
        }
    }

    /// Notes that a member has asked for its assignment.
    pub(super) fn has_synced(&mut self, env: &mut Env<'_>, member_id: &StrBytes) {
        self.pending_sync.remove(member_id);
        self.end_sync_phase_if_all_synced(env);
    }

    fn end_sync_phase_if_all_synced(&mut self, env: &mut Env<'_>) {
        if self.pending_sync.is_empty() {
            env.timers.cancel(&mut self.sync_phase);
        }
    }

    /// Answers the SyncGroups that wait with `error`, and drops assignments.
    pub(super) fn answer_syncs(&mut self, env: &mut Env<'_>, error: GroupError) {
        for id in self.member_ids() {
            self.set_assignment(&id, Bytes::new());
            if let Some(token) = self.take_sync(&id) {
                env.out.sync_error(token, error);
                self.renew_session(env, &id);
            }
        }
    }

    pub(super) fn take_sync(&mut self, member_id: &StrBytes) -> Option<Token> {
        self.member_mut(member_id)?.sync.take()
    }

    /// Forgets a member that was given an id and has not joined.
    pub(super) fn forget_pending(&mut self, env: &mut Env<'_>, member_id: &StrBytes) -> bool {
        match self.pending.remove(member_id) {
            Some(mut alarm) => {
                env.timers.cancel(&mut alarm);
                self.discharge(pending_bytes(member_id));
                true
            }
            None => false,
        }
    }

    /// Starts a member's session anew.
    pub(super) fn renew_session(&mut self, env: &mut Env<'_>, member_id: &StrBytes) {
        let group_id = self.id.clone();
        if let Some(member) = self.member_mut(member_id) {
            let due_ns = env.now.after_ms(member.session_timeout_ms.max(0) as u64);
            let key = || TimerKey::Member(group_id, member_id.clone());
            env.timers.set(&mut member.session, due_ns, key);
        }
    }

    fn set_join_phase(&mut self, env: &mut Env<'_>, after_ms: u64) {
        let due_ns = env.now.after_ms(after_ms);
        env.timers.set(&mut self.join_phase, due_ns, || {
            TimerKey::Join(self.id.clone())
        });
    }

    /// What a member is told about the current generation; the leader also about all members.
    pub(super) fn join_response(&self, member_id: &StrBytes, version: i16) -> JoinGroupResponse {
        let mut response = self.join_response_without_members(member_id, version);
        if self.is_leader(member_id) {
            response.members = self.response_members();
        }
        response
    }

    pub(super) fn join_response_without_members(
        &self,
        member_id: &StrBytes,
        version: i16,
    ) -> JoinGroupResponse {
        let mut response = JoinGroupResponse::default();
        response.generation_id = self.generation;
        response.protocol_type = self.protocol_type.clone();
        response.protocol_name = self.protocol.clone();
        if version < 7 && response.protocol_name.is_none() {
            response.protocol_name = Some(StrBytes::default());
        }
        response.leader = self.leader.clone().unwrap_or_default();
        response.member_id = member_id.clone();
        response
    }

    pub(super) fn response_members(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let members = self.members().map(|member| {
            let mut entry = JoinGroupResponseMember::default();
            entry.member_id = member.id.clone();
            entry.group_instance_id = member.instance_id.clone();
            entry.metadata = member.metadata(protocol);
            entry
        });
        members.collect()
    }

    /// Parks a JoinGroup of a member; one of the same member that waits already is told to come again.
    pub(super) fn park_join(&mut self, env: &mut Env<'_>, member_id: &StrBytes, join: JoinWait) {
        if let Some(earlier) = self.await_join(member_id, join) {
            env.out
                .join_error(earlier, member_id, GroupError::RebalanceInProgress);
        }
    }
}

/// Memory a member that was given an id takes.
pub(super) fn pending_bytes(member_id: &StrBytes) -> usize {
    size_of::<(StrBytes, super::timers::Alarm)>() + member_id.len()
}
