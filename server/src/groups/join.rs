//! JoinGroup.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_wire::JoinGroupRequest;
use ringlog_engine::id::Now;

use super::coordinator::{Call, Coordinator, Env};
use super::error::GroupError;
use super::group::{Group, State};
use super::member::{JoinWait, Member, Protocol, protocols_bytes};
use super::rebalance::pending_bytes;
use super::timers::{Alarm, TimerKey};
use super::topics::Topics;
use super::writes::Effect;
use super::{StrBytes, own, own_option};

/// The longest name the log's format can hold, in bytes.
pub(super) const NAME_BYTES_MAX: usize = i16::MAX as usize;
/// The longest group instance id, in bytes: Kafka's clients check the same.
pub(super) const INSTANCE_ID_BYTES_MAX: usize = 249;
/// How much of a client id goes into a member id, in bytes.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = 1_024;

/// A JoinGroup, copied out of its request.
pub(super) struct Joining {
    /// It came without a member id.
    pub(super) has_new_id: bool,
    pub(super) instance_id: Option<StrBytes>,
    pub(super) client_id: StrBytes,
    pub(super) client_host: StrBytes,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocol_type: StrBytes,
    pub(super) protocols: Vec<Protocol>,
    pub(super) wait: JoinWait,
}

impl Joining {
    fn new(call: &Call<'_>, request: &JoinGroupRequest) -> Result<Self, GroupError> {
        let protocols = request.protocols.iter();
        let mut names = protocols.clone().map(|protocol| &protocol.name);
        let instance_id = request.group_instance_id.as_ref();
        if names.any(|name| name.len() > NAME_BYTES_MAX)
            || request.protocol_type.len() > NAME_BYTES_MAX
            || instance_id.is_some_and(|id| id.is_empty() || id.len() > INSTANCE_ID_BYTES_MAX)
        {
            return Err(GroupError::InvalidRequest);
        }
        let mut seen = HashSet::new();
        let protocols = protocols.filter(|protocol| seen.insert(protocol.name.as_str()));
        let rebalance_timeout_ms = match request.rebalance_timeout_ms {
            // Version 0 has no rebalance time-out of its own.
            unset if unset < 0 => request.session_timeout_ms,
            set => set,
        };
        Ok(Self {
            has_new_id: request.member_id.is_empty(),
            instance_id: own_option(instance_id),
            client_id: call.client_id.into(),
            client_host: call.client_host.into(),
            rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocol_type: own(&request.protocol_type),
            protocols: protocols
                .map(|protocol| Protocol {
                    name: own(&protocol.name),
                    metadata: Bytes::copy_from_slice(&protocol.metadata),
                })
                .collect(),
            wait: JoinWait {
                token: call.token,
                version: call.version,
            },
        })
    }

    fn bytes(&self) -> usize {
        size_of::<Member>() + protocols_bytes(&self.protocols) + 4 * INSTANCE_ID_BYTES_MAX
    }

    fn into_member(self, id: StrBytes) -> Member {
        Member {
            id,
            instance_id: self.instance_id,
            client_id: self.client_id,
            client_host: self.client_host,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols: self.protocols,
            assignment: Bytes::new(),
            is_new: true,
            session: Alarm::default(),
            join: Some(self.wait),
            sync: None,
        }
    }
}

impl Coordinator {
    /// JoinGroup, versions 0 to 9.
    pub fn join(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &JoinGroupRequest,
        topics: &dyn Topics,
    ) {
        if let Err(error) = self.try_join(now, call, request, topics) {
            let wait = JoinWait {
                token: call.token,
                version: call.version,
            };
            let member_id = match error {
                GroupError::GroupMaxSizeReached => StrBytes::default(),
                _ => own(&request.member_id),
            };
            self.out.join_error(wait, &member_id, error);
        }
    }

    fn try_join(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &JoinGroupRequest,
        topics: &dyn Topics,
    ) -> Result<(), GroupError> {
        let partition = self.admit_named(&request.group_id)?;
        let limits = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if !limits.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let joining = Joining::new(call, request)?;
        let is_unknown = request.member_id.is_empty();
        let has_room = self.has_room(joining.bytes());
        let is_full = self.writes.is_full(self.config.unwritten_bytes_max);
        let id = is_unknown.then(|| {
            let prefix = joining.instance_id.as_ref().unwrap_or(&joining.client_id);
            let end = prefix.floor_char_boundary(MEMBER_ID_PREFIX_BYTES_MAX);
            let prefix = prefix[..end].to_owned();
            self.new_member_id(&prefix)
        });
        if !self.groups.contains_key(&request.group_id) {
            if !is_unknown {
                return Err(GroupError::UnknownMemberId);
            }
            self.create_group(now, &request.group_id, partition)
                .map_err(|_| GroupError::GroupMaxSizeReached)?;
        }
        let joined = self.with_group(now, &request.group_id, |group, env| {
            let fits = group.bytes() + joining.bytes() <= env.config.group_bytes_max;
            let fits = fits && has_room;
            if group.meets_consumers(env, topics) {
                let id = id.unwrap_or_else(|| own(&request.member_id));
                return match (fits, is_full) {
                    (false, _) => Err(GroupError::GroupMaxSizeReached),
                    (_, true) => Err(GroupError::CoordinatorLoadInProgress),
                    _ => group.join_shared(env, topics, &id, joining),
                };
            }
            group.become_classic(env);
            if !group.has_place(env, &request.member_id) {
                group.forget_pending(env, &request.member_id);
                group.expel(env, &request.member_id, GroupError::GroupMaxSizeReached);
                return Err(GroupError::GroupMaxSizeReached);
            }
            if !fits {
                return Err(GroupError::GroupMaxSizeReached);
            }
            match id {
                Some(id) => group.join_new(env, id, joining),
                None => group.join_known(env, &own(&request.member_id), joining),
            }
        });
        joined.unwrap_or(Err(GroupError::UnknownMemberId))
    }
}

impl Group {
    /// Whether the group's size lets the member in.
    fn has_place(&self, env: &Env<'_>, member_id: &StrBytes) -> bool {
        let size_max = env.config.group_size_max;
        let member = self.member(member_id);
        match self.state() {
            State::Empty | State::Dead => true,
            // Those that have joined count, so that a group that is too large shrinks to its limit.
            State::PreparingRebalance => {
                member.is_some_and(|member| member.join.is_some())
                    || self.awaiting_join() < size_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members().len() < size_max
            }
        }
    }

    fn check_joining(&self, joining: &Joining) -> Result<(), GroupError> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.supports(&joining.protocol_type, &joining.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// A member without an id.
    fn join_new(
        &mut self,
        env: &mut Env<'_>,
        id: StrBytes,
        joining: Joining,
    ) -> Result<(), GroupError> {
        self.check_joining(&joining)?;
        if let Some(instance_id) = &joining.instance_id {
            if let Some(current) = self.static_member(instance_id).cloned() {
                self.replace_static(env, &current, id, joining)?;
            } else {
                self.add(env, id, joining);
            }
        } else if joining.wait.version >= 4 {
            self.give_id(env, id, &joining)?;
        } else {
            self.add(env, id, joining);
        }
        Ok(())
    }

    /// Lets the client know its id first (KIP-394), so that one that gives up does not leave a member behind.
    fn give_id(
        &mut self,
        env: &mut Env<'_>,
        id: StrBytes,
        joining: &Joining,
    ) -> Result<(), GroupError> {
        if self.pending.len() >= env.config.pending_members_max {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let mut alarm = Alarm::default();
        let due_ns = env.now.after_ms(joining.session_timeout_ms.max(0) as u64);
        env.timers.set(&mut alarm, due_ns, || {
            TimerKey::Member(self.id.clone(), id.clone())
        });
        self.charge(pending_bytes(&id));
        self.pending.insert(id.clone(), alarm);
        env.out
            .join_error(joining.wait, &id, GroupError::MemberIdRequired);
        Ok(())
    }

    /// A member with an id.
    fn join_known(
        &mut self,
        env: &mut Env<'_>,
        id: &StrBytes,
        joining: Joining,
    ) -> Result<(), GroupError> {
        self.check_joining(&joining)?;
        if self.pending.contains_key(id) {
            // Ids are given out to dynamic members only.
            if joining.instance_id.is_some() {
                return Err(GroupError::UnknownMemberId);
            }
            self.forget_pending(env, id);
            self.add(env, id.clone(), joining);
            return Ok(());
        }
        self.validate_member(id, joining.instance_id.as_ref())?;
        let is_same = self
            .member(id)
            .is_some_and(|member| member.protocols == joining.protocols);
        match self.state() {
            State::PreparingRebalance => self.update(env, id, joining),
            // It has not seen the answer to its last JoinGroup.
            State::CompletingRebalance if is_same => self.repeat_generation(env, id, &joining),
            State::CompletingRebalance => self.update(env, id, joining),
            // A leader that joins again asks for a rebalance: what it assigns from has changed.
            State::Stable if self.is_leader(id) || !is_same => self.update(env, id, joining),
            State::Stable => self.repeat_generation(env, id, &joining),
            State::Empty | State::Dead => return Err(GroupError::UnknownMemberId),
        }
        Ok(())
    }

    fn repeat_generation(&self, env: &mut Env<'_>, id: &StrBytes, joining: &Joining) {
        let JoinWait { token, version } = joining.wait;
        let response = self.join_response(id, version);
        env.out
            .send(token, super::coordinator::Response::Join(response));
    }

    fn add(&mut self, env: &mut Env<'_>, id: StrBytes, joining: Joining) {
        if let Some(delay) = &mut self.initial_delay {
            delay.joined = true;
        }
        let protocol_type = joining.protocol_type.clone();
        let mut member = joining.into_member(id.clone());
        // Without an id it cannot send heartbeats: it is given up when the join phase takes too long.
        let due_ns = env.now.after_ms(env.config.new_member_join_timeout_ms);
        let key = || TimerKey::Member(self.id.clone(), id);
        env.timers.set(&mut member.session, due_ns, key);
        self.add_member(member, protocol_type);
        self.rebalance_or_complete(env);
    }

    fn update(&mut self, env: &mut Env<'_>, id: &StrBytes, joining: Joining) {
        self.accept(env, id, joining);
        self.rebalance_or_complete(env);
    }

    fn accept(&mut self, env: &mut Env<'_>, id: &StrBytes, joining: Joining) {
        self.update_member(
            id,
            joining.protocols,
            joining.rebalance_timeout_ms,
            joining.session_timeout_ms,
        );
        self.park_join(env, id, joining.wait);
    }

    /// A static member has started anew: it takes its predecessor's place under a new id.
    fn replace_static(
        &mut self,
        env: &mut Env<'_>,
        current: &StrBytes,
        id: StrBytes,
        joining: Joining,
    ) -> Result<(), GroupError> {
        if self.is_in(State::Stable) && env.is_full() {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let led_before = self.leader.clone().unwrap_or_default();
        let (join, sync, mut session) = self.rename_member(current, id.clone());
        env.timers.cancel(&mut session);
        if let Some(join) = join {
            env.out
                .join_error(join, current, GroupError::FencedInstanceId);
        }
        if let Some(token) = sync {
            env.out.sync_error(token, GroupError::FencedInstanceId);
        }
        let version = joining.wait.version;
        self.accept(env, &id, joining);
        self.renew_session(env, &id);
        match self.state() {
            State::Stable if self.select_protocol() == self.protocol => {
                let effect = Effect::StaticJoin {
                    member_id: id,
                    led_before,
                    version,
                };
                env.writes
                    .group(self, |member| member.assignment.clone(), effect);
            }
            _ => self.rebalance_or_complete(env),
        }
        Ok(())
    }

    /// A static member that took its place in a stable group is stored under its new id.
    pub(super) fn static_joined(
        &mut self,
        env: &mut Env<'_>,
        member_id: &StrBytes,
        led_before: StrBytes,
        version: i16,
        result: Result<(), GroupError>,
    ) {
        if !self.is_in(State::Stable) {
            // A rebalance has begun: the request waits for its end like any other.
            return;
        }
        let Some(join) = self.take_join(member_id) else {
            return;
        };
        if let Err(error) = result {
            env.out.join_error(join, &StrBytes::default(), error);
            return;
        }
        let mut response = self.join_response_without_members(member_id, version);
        if version < 9 {
            // It would assign if it heard that it leads; its predecessor's id keeps it a follower.
            response.leader = led_before;
        } else if self.is_leader(member_id) {
            response.members = self.response_members();
            response.skip_assignment = true;
        }
        self.renew_session(env, member_id);
        env.out
            .send(join.token, super::coordinator::Response::Join(response));
    }
}
