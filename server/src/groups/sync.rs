//! SyncGroup and Heartbeat.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_wire::{HeartbeatRequest, HeartbeatResponse, SyncGroupRequest, SyncGroupResponse};
use ringlog_engine::id::Now;

use super::coordinator::{Call, Coordinator, Env, Response};
use super::error::GroupError;
use super::group::{Group, State};
use super::topics::Topics;
use super::writes::Effect;
use super::{StrBytes, Token};

impl Coordinator {
    /// SyncGroup, versions 0 to 5.
    pub fn sync(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &SyncGroupRequest,
        topics: &dyn Topics,
    ) {
        let result = self.try_sync(now, call, request, topics);
        if let Err(error) = result {
            self.out.sync_error(call.token, error);
        }
    }

    fn try_sync(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &SyncGroupRequest,
        topics: &dyn Topics,
    ) -> Result<(), GroupError> {
        let lacks_protocol = request.protocol_type.is_none() || request.protocol_name.is_none();
        if call.version >= 5 && lacks_protocol {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let admitted = self.admit_named(&request.group_id);
        admitted.map_err(|error| match error {
            // As Kafka answers: clients take the other for fatal, and after this one join, which may be put off.
            GroupError::CoordinatorLoadInProgress => GroupError::RebalanceInProgress,
            error => error,
        })?;
        let assignments = request.assignments.iter();
        let assigned_bytes: usize = assignments.map(|entry| entry.assignment.len()).sum();
        let has_room = self.has_room(assigned_bytes);
        let synced = self.with_group(now, &request.group_id, |group, env| {
            if group.meets_consumers(env, topics) {
                return group.sync_shared(env, topics, call.token, request);
            }
            let fits = group.bytes() + assigned_bytes <= env.config.group_bytes_max;
            if !(has_room && fits) {
                return Err(GroupError::PolicyViolation);
            }
            group.sync(env, call.token, request)
        });
        synced.unwrap_or(Err(GroupError::UnknownMemberId))
    }

    /// Heartbeat, versions 0 to 4.
    pub fn heartbeat(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &HeartbeatRequest,
        topics: &dyn Topics,
    ) {
        let result = match self.admit_named(&request.group_id) {
            // Whether it is a member is not known yet, and it need not worry.
            Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => self
                .with_group(now, &request.group_id, |group, env| {
                    match group.meets_consumers(env, topics) {
                        true => group.heartbeat_shared(env, request),
                        false => group.heartbeat(env, request),
                    }
                })
                .unwrap_or(Err(GroupError::UnknownMemberId)),
        };
        let mut response = HeartbeatResponse::default();
        response.error_code = result.err().map_or(0, GroupError::code);
        self.out.send(call.token, Response::Heartbeat(response));
    }
}

impl Group {
    fn validate_in_generation(
        &self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(())
    }

    fn sync(
        &mut self,
        env: &mut Env<'_>,
        token: Token,
        request: &SyncGroupRequest,
    ) -> Result<(), GroupError> {
        let member_id = &super::own(&request.member_id);
        let instance_id = request.group_instance_id.as_ref();
        self.validate_in_generation(member_id, instance_id, request.generation_id)?;
        let differs = |asked: &Option<StrBytes>, actual: &Option<StrBytes>| {
            asked.is_some() && actual.is_some() && asked != actual
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state() {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                // The group is stored once a generation: a leader that says it again waits like the others.
                let is_on_the_way = self.generation_on_the_way == Some(self.generation);
                let stores = self.is_leader(member_id) && !is_on_the_way;
                if stores && env.is_full() {
                    // Clients know no other error here that asks them to come again a little later.
                    return Err(GroupError::CoordinatorNotAvailable);
                }
                self.park_sync(env, member_id, token);
                self.has_synced(env, member_id);
                if stores {
                    self.store_assignments(env, request);
                }
                Ok(())
            }
            State::Stable => {
                self.has_synced(env, member_id);
                self.send_assignment(env, member_id, token);
                Ok(())
            }
        }
    }

    fn park_sync(&mut self, env: &mut Env<'_>, member_id: &StrBytes, token: Token) {
        if let Some(member) = self.member_mut(member_id)
            && let Some(earlier) = member.sync.replace(token)
        {
            env.out.sync_error(earlier, GroupError::RebalanceInProgress);
        }
    }

    /// The leader has assigned: it counts once it is in the log.
    fn store_assignments(&mut self, env: &mut Env<'_>, request: &SyncGroupRequest) {
        let entries = request.assignments.iter();
        let by_member: HashMap<&StrBytes, &Bytes> = entries
            .map(|entry| (&entry.member_id, &entry.assignment))
            .collect();
        let mut kept: HashMap<StrBytes, Bytes> = HashMap::new();
        for member in self.members() {
            let assignment = by_member.get(&member.id);
            let assignment = assignment.map(|bytes| Bytes::copy_from_slice(bytes));
            kept.insert(member.id.clone(), assignment.unwrap_or_default());
        }
        let stored = kept.clone();
        self.generation_on_the_way = Some(self.generation);
        let effect = Effect::Sync {
            generation: self.generation,
            assignments: kept,
        };
        let of_member = |member: &super::member::Member| stored.get(&member.id).cloned();
        env.writes
            .group(self, |member| of_member(member).unwrap_or_default(), effect);
    }

    /// The assignments of a generation are in the log, or are not.
    pub(super) fn assignments_stored(
        &mut self,
        env: &mut Env<'_>,
        generation: i32,
        assignments: HashMap<StrBytes, Bytes>,
        result: Result<(), GroupError>,
    ) {
        if self.generation_on_the_way == Some(generation) {
            self.generation_on_the_way = None;
        }
        if !self.is_in(State::CompletingRebalance) || generation != self.generation {
            return;
        }
        if let Err(error) = result {
            self.answer_syncs(env, error);
            self.prepare(env);
            return;
        }
        for (id, assignment) in assignments {
            self.set_assignment(&id, assignment);
        }
        self.transition(State::Stable, env.now.wall_ms);
        for id in self.member_ids() {
            if let Some(token) = self.take_sync(&id) {
                self.send_assignment(env, &id, token);
            }
        }
    }

    fn send_assignment(&mut self, env: &mut Env<'_>, member_id: &StrBytes, token: Token) {
        let mut response = SyncGroupResponse::default();
        response.protocol_type = self.protocol_type.clone();
        response.protocol_name = self.protocol.clone();
        if let Some(member) = self.member(member_id) {
            response.assignment = member.assignment.clone();
        }
        env.out.send(token, Response::Sync(response));
        self.renew_session(env, member_id);
    }

    fn heartbeat(
        &mut self,
        env: &mut Env<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        let member_id = &request.member_id;
        let instance_id = request.group_instance_id.as_ref();
        self.validate_in_generation(member_id, instance_id, request.generation_id)?;
        match self.state() {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => {
                self.touch(env, member_id);
                Err(GroupError::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.touch(env, member_id);
                Ok(())
            }
        }
    }

    /// A sign of life of a member named by a request, whose strings are not kept.
    pub(super) fn touch(&mut self, env: &mut Env<'_>, member_id: &StrBytes) {
        if let Some(id) = self.member(member_id).map(|member| member.id.clone()) {
            self.renew_session(env, &id);
        }
    }
}
