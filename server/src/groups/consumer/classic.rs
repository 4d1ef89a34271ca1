//! Members of the classic protocol in a consumer group.
//!
//! Their JoinGroup is what a heartbeat that says everything is for the others, and its generation is the member's epoch. What
//! a member is to have comes with SyncGroup; that there is something new, as the answer of a Heartbeat that asks it to join
//! again. A member that revokes first joins twice, as cooperative consumers do. There is no leader, so nobody else assigns.

use kafka_wire::{HeartbeatRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse};

use super::super::coordinator::{Env, Response};
use super::super::error::GroupError;
use super::super::group::{CONSUMER, Group};
use super::super::join::Joining;
use super::super::leave::Leaving;
use super::super::timers::TimerKey;
use super::super::topics::Topics;
use super::super::{StrBytes, Token, own};
use super::ConsumerGroup;
use super::admission::Place;
use super::embedded;
use super::heartbeat::Step;
use super::member::{Classic, Current, MemberState, Metadata};

impl Group {
    /// Whether there is a consumer group with members here.
    pub(in crate::groups) fn is_shared(&self) -> bool {
        let consumer = self.consumer.as_ref();
        consumer.is_some_and(|consumer| !consumer.is_empty())
    }

    /// Whether a member of the classic protocol meets a consumer group with members here. One whose last member of the other
    /// protocol is gone turns classic now, at the latest.
    pub(in crate::groups) fn meets_consumers(
        &mut self,
        env: &mut Env<'_>,
        topics: &dyn Topics,
    ) -> bool {
        self.downgrade(env, topics);
        self.is_shared()
    }

    /// The group's id, and the consumer group that it is.
    fn shared(&mut self) -> Result<(StrBytes, &mut ConsumerGroup), GroupError> {
        let id = self.id.clone();
        let consumer = self.consumer.as_deref_mut();
        consumer
            .map(|consumer| (id, consumer))
            .ok_or(GroupError::UnknownMemberId)
    }

    /// JoinGroup of a member with this id, perhaps a new one. The answer comes when everything it tells is durable.
    pub(in crate::groups) fn join_shared(
        &mut self,
        env: &mut Env<'_>,
        topics: &dyn Topics,
        id: &StrBytes,
        joining: Joining,
    ) -> Result<(), GroupError> {
        let (group_id, consumer) = self.shared()?;
        let place = consumer.classic_place(env, id, &joining)?;
        if joining.has_new_id && joining.instance_id.is_none() && joining.wait.version >= 4 {
            env.out
                .join_error(joining.wait, id, GroupError::MemberIdRequired);
            return Ok(());
        }
        // All protocols of a consumer carry the same subscription.
        let said = joining.protocols.first();
        let said = said.and_then(|protocol| embedded::subscription(&protocol.metadata));
        let said = said.ok_or(GroupError::UnknownServerError)?;
        let owned = said.owned_partitions.iter();
        let owned = owned.map(|of| (of.topic.as_str(), &of.partitions[..]));
        let owned = embedded::by_id(owned, topics);
        let mut response = JoinGroupResponse::default();
        response.protocol_type = Some(CONSUMER.into());
        response.protocol_name = joining.protocols.first().map(|p| p.name.clone());
        response.member_id = id.clone();
        let (token, timeout_ms) = (joining.wait.token, joining.rebalance_timeout_ms);
        let known = match &place {
            Place::Returned(before) => consumer.members.get(before),
            _ => consumer.members.get(id),
        };
        let known = known.cloned().unwrap_or_default();
        let step = Step {
            member_id: id,
            place: &place,
            metadata: Some(Metadata {
                rack_id: said.rack_id.as_ref().map(own).or(known.rack_id),
                client_id: joining.client_id,
                client_host: joining.client_host,
                topics: said.topics.iter().map(own).collect(),
                // There are none in the classic protocol.
                regex: None,
                instance_id: joining.instance_id,
                rebalance_timeout_ms: timeout_ms,
                assignor: known.assignor,
                classic: Some(Classic {
                    session_timeout_ms: joining.session_timeout_ms,
                    protocols: joining.protocols,
                }),
            }),
            owned: Some(&owned),
        };
        response.generation_id = self.edit_consumer(env, None, |edit, env| {
            let (_, after) = edit.step(env, &group_id, topics, step);
            edit.group.joined(env, &group_id, id, timeout_ms);
            after.epoch
        });
        env.writes
            .follow(self, env.out, token, Response::Join(response));
        Ok(())
    }

    /// SyncGroup.
    pub(in crate::groups) fn sync_shared(
        &mut self,
        env: &mut Env<'_>,
        topics: &dyn Topics,
        token: Token,
        request: &SyncGroupRequest,
    ) -> Result<(), GroupError> {
        let id = &own(&request.member_id);
        let instance_id = request.group_instance_id.as_ref();
        let (group_id, consumer) = self.shared()?;
        let (classic, current) = consumer.classic_member(id, instance_id, request.generation_id)?;
        let (name, said) = match classic.protocol() {
            Some(protocol) => (Some(&protocol.name), &protocol.metadata[..]),
            None => (None, &[][..]),
        };
        let differs = |asked: &Option<StrBytes>, actual: Option<&str>| {
            asked.is_some() && asked.as_deref() != actual
        };
        if differs(&request.protocol_type, Some(CONSUMER))
            || differs(&request.protocol_name, name.map(StrBytes::as_str))
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // One that is to give partitions up first has joined for this epoch already.
        let has_joined = current.state == MemberState::UnrevokedPartitions;
        if consumer.epoch() > current.epoch && !has_joined {
            consumer.ask_to_join(env, &group_id, id);
            return Err(GroupError::RebalanceInProgress);
        }
        let mut response = SyncGroupResponse::default();
        response.protocol_type = request.protocol_type.as_ref().map(own);
        response.protocol_name = request.protocol_name.as_ref().map(own);
        response.assignment = embedded::encode(&current.assigned, said, topics);
        consumer.synced(env, &group_id, id);
        env.writes
            .follow(self, env.out, token, Response::Sync(response));
        Ok(())
    }

    /// Heartbeat.
    pub(in crate::groups) fn heartbeat_shared(
        &mut self,
        env: &mut Env<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        let id = &own(&request.member_id);
        let instance_id = request.group_instance_id.as_ref();
        let (group_id, consumer) = self.shared()?;
        let (_, current) = consumer.classic_member(id, instance_id, request.generation_id)?;
        consumer.renew_session(env, &group_id, id);
        let has_more = match current.state {
            MemberState::Stable => false,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !consumer.is_waiting(id, &current),
        };
        if current.epoch < consumer.epoch() || has_more {
            consumer.ask_to_join(env, &group_id, id);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// LeaveGroup: whoever is named, by member id or, as administrators do, by instance id alone.
    pub(in crate::groups) fn leave_shared(
        &mut self,
        env: &mut Env<'_>,
        topics: &dyn Topics,
        leaving: &[Leaving],
    ) -> Vec<Result<(), GroupError>> {
        let find = |(member_id, instance_id): &Leaving| {
            let consumer = self.consumer.as_ref().ok_or(GroupError::UnknownMemberId)?;
            let holder = instance_id
                .as_ref()
                .map(|id| consumer.static_members.get(id));
            match holder {
                Some(Some(holder)) if member_id.is_empty() || holder == member_id => {
                    Ok(holder.clone())
                }
                Some(Some(_)) => Err(GroupError::FencedInstanceId),
                None if consumer.has_member(member_id) => Ok(member_id.clone()),
                Some(None) | None => Err(GroupError::UnknownMemberId),
            }
        };
        let found: Vec<Result<StrBytes, GroupError>> = leaving.iter().map(find).collect();
        let mut ids: Vec<StrBytes> = found.iter().flatten().cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            self.expel_consumers(env, &ids);
            self.downgrade(env, topics);
        }
        found.into_iter().map(|id| id.map(|_| ())).collect()
    }
}

impl ConsumerGroup {
    /// Who joins under `id`, if it may.
    fn classic_place(
        &self,
        env: &Env<'_>,
        id: &StrBytes,
        joining: &Joining,
    ) -> Result<Place, GroupError> {
        let instance_id = joining.instance_id.as_ref();
        let holder = instance_id.and_then(|id| self.static_members.get(id));
        let is_member = self.has_member(id);
        let is_full = self.member_count() >= env.config.consumer_group_size_max;
        if is_full && !is_member && holder.is_none() {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !self.supports(&joining.protocol_type, &joining.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match (holder, instance_id) {
            (Some(holder), _) if joining.has_new_id => Ok(Place::Returned(holder.clone())),
            (Some(holder), _) if holder != id => Err(GroupError::FencedInstanceId),
            (None, Some(_)) if !joining.has_new_id => Err(GroupError::UnknownMemberId),
            _ if is_member => Ok(Place::Member),
            _ => Ok(Place::New),
        }
    }

    /// A member of the classic protocol that is in its generation.
    fn classic_member(
        &self,
        id: &StrBytes,
        instance_id: Option<&StrBytes>,
        generation: i32,
    ) -> Result<(Classic, Current), GroupError> {
        let checked = self.check_identity(id, instance_id);
        checked.map_err(|refused| refused.error())?;
        let metadata = self.members.get(id);
        let classic = metadata.and_then(|metadata| metadata.classic.clone());
        let classic = classic.ok_or(GroupError::UnknownMemberId)?;
        let current = self.current(id);
        match generation == current.epoch {
            true => Ok((classic, current)),
            false => Err(GroupError::IllegalGeneration),
        }
    }

    /// Whether others still have something that a member is to have.
    fn is_waiting(&self, id: &StrBytes, current: &Current) -> bool {
        let target = self.targets.get(id).into_iter().flatten();
        let mut target =
            target.flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition)));
        target.any(|(topic, partition)| {
            let has = current.assigned.get(&topic);
            let has = has.is_some_and(|of_topic| of_topic.contains_key(&partition));
            !has && self.owners.contains_key(&(topic, partition))
        })
    }

    /// A member has joined: now it has that long to ask for its assignment.
    fn joined(&mut self, env: &mut Env<'_>, group: &StrBytes, id: &StrBytes, timeout_ms: i32) {
        let alarms = self.alarms.entry(id.clone()).or_default();
        env.timers.cancel(&mut alarms.join);
        let due_ns = env.now.after_ms(timeout_ms.max(0) as u64);
        let key = || TimerKey::ConsumerSync(group.clone(), id.clone());
        env.timers.set(&mut alarms.sync, due_ns, key);
    }

    /// A member has asked for its assignment.
    fn synced(&mut self, env: &mut Env<'_>, group: &StrBytes, id: &StrBytes) {
        let alarms = self.alarms.entry(id.clone()).or_default();
        env.timers.cancel(&mut alarms.sync);
        self.renew_session(env, group, id);
    }

    /// A member is told to join again, and has its rebalance time-out for it from the first time on.
    fn ask_to_join(&mut self, env: &mut Env<'_>, group: &StrBytes, id: &StrBytes) {
        let metadata = self.members.get(id);
        let timeout_ms = metadata.map_or(0, |metadata| metadata.rebalance_timeout_ms);
        let alarms = self.alarms.entry(id.clone()).or_default();
        if !alarms.join.is_set() {
            let due_ns = env.now.after_ms(timeout_ms.max(0) as u64);
            let key = || TimerKey::ConsumerJoin(group.clone(), id.clone());
            env.timers.set(&mut alarms.join, due_ns, key);
        }
    }
}
