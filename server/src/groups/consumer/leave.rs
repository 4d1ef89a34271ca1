//! Members that go: because they say so, because nobody hears of them, or because they keep what they are to give up.

use kafka_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::coordinator::Env;
use super::super::group::Group;
use super::super::timers::TimerKey;
use super::super::topics::Topics;
use super::super::{StrBytes, own};
use super::ConsumerGroup;
use super::change::{Change, GroupEpoch};
use super::edit::Edit;
use super::heartbeat::not_found;
use super::member::{Assigned, MemberState, STATIC_LEAVE_EPOCH};
use super::request::Refused;

impl Group {
    /// A member leaves; a static one perhaps to come back.
    pub(super) fn leave_consumer(
        &mut self,
        env: &mut Env<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn Topics,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let consumer = self.consumer.as_ref().ok_or_else(|| not_found(&self.id))?;
        let id = own(&request.member_id);
        consumer.check_identity(&id, request.instance_id.as_ref())?;
        if request.member_epoch == STATIC_LEAVE_EPOCH {
            self.edit_consumer(env, None, |edit, _| edit.leave_for_now(&id));
        } else {
            self.expel_consumers(env, std::slice::from_ref(&id));
            self.downgrade(env, topics);
        }
        let mut response = ConsumerGroupHeartbeatResponse::default();
        response.member_id = Some(id);
        response.member_epoch = request.member_epoch;
        Ok(response)
    }

    /// Takes members out; the others are assigned anew.
    pub(super) fn expel_consumers(&mut self, env: &mut Env<'_>, ids: &[StrBytes]) {
        self.edit_consumer(env, None, |edit, _| {
            ids.iter().for_each(|id| edit.remove(id));
            edit.drop_patterns();
            let metadata_hash = edit.group.epoch.map_or(0, |epoch| epoch.metadata_hash);
            edit.put(Change::Epoch(Some(GroupEpoch {
                epoch: edit.group.epoch().saturating_add(1),
                metadata_hash,
            })));
            // Perhaps nobody subscribes to some topic now.
            edit.group.topics_seen = None;
        });
    }

    /// A member's session is over, or the time in which it was to join again or to ask for its assignment. If only members of
    /// the classic protocol are left, the next of them that is heard of makes a classic group of it.
    pub(in crate::groups) fn consumer_time_over(&mut self, env: &mut Env<'_>, id: &StrBytes) {
        if self
            .consumer
            .as_ref()
            .is_some_and(|consumer| consumer.has_member(id))
        {
            self.expel_consumers(env, std::slice::from_ref(id));
        }
    }

    /// A member has had the time to give up what others are to have.
    pub(in crate::groups) fn revocation_over(&mut self, env: &mut Env<'_>, id: &StrBytes) {
        let current = self
            .consumer
            .as_ref()
            .and_then(|consumer| consumer.currents.get(id));
        if current.is_some_and(|current| current.state == MemberState::UnrevokedPartitions) {
            self.expel_consumers(env, std::slice::from_ref(id));
        }
    }
}

impl Edit<'_> {
    /// A static member goes and keeps its partitions until its session ends.
    fn leave_for_now(&mut self, id: &StrBytes) {
        let mut current = self.group.current(id);
        current.epoch = STATIC_LEAVE_EPOCH;
        current.pending_revocation = Assigned::new();
        self.put(Change::Current(id.clone(), Some(Box::new(current))));
    }
}

impl ConsumerGroup {
    pub(super) fn has_session(&self, id: &StrBytes) -> bool {
        self.alarms.contains_key(id)
    }

    pub(super) fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Starts a member's session anew.
    pub(super) fn renew_session(&mut self, env: &mut Env<'_>, group: &StrBytes, id: &StrBytes) {
        let metadata = self.members.get(id);
        let classic = metadata.and_then(|metadata| metadata.classic.as_ref());
        let timeout_ms = classic.map_or(env.config.consumer_session_timeout_ms, |classic| {
            classic.session_timeout_ms.max(0) as u64
        });
        let due_ns = env.now.after_ms(timeout_ms);
        let alarms = self.alarms.entry(id.clone()).or_default();
        let key = || TimerKey::ConsumerSession(group.clone(), id.clone());
        env.timers.set(&mut alarms.session, due_ns, key);
    }

    /// Gives a member that is to give partitions up its time for it, from its last step on.
    pub(super) fn watch_revocation(
        &mut self,
        env: &mut Env<'_>,
        group: &StrBytes,
        id: &StrBytes,
        has_moved: bool,
    ) {
        let current = self.currents.get(id);
        let is_revoking =
            current.is_some_and(|current| current.state == MemberState::UnrevokedPartitions);
        let timeout_ms = self
            .members
            .get(id)
            .map_or(0, |metadata| metadata.rebalance_timeout_ms);
        let alarms = self.alarms.entry(id.clone()).or_default();
        if !is_revoking {
            env.timers.cancel(&mut alarms.revocation);
        } else if has_moved {
            let due_ns = env.now.after_ms(timeout_ms.max(0) as u64);
            let key = || TimerKey::Revocation(group.clone(), id.clone());
            env.timers.set(&mut alarms.revocation, due_ns, key);
        }
    }

    /// A member's alarm, by the kind of its key.
    pub(in crate::groups) fn alarm(&mut self, key: &TimerKey) -> Option<&mut super::Alarm> {
        match key {
            TimerKey::ConsumerSession(_, id) => Some(&mut self.alarms.get_mut(id)?.session),
            TimerKey::Revocation(_, id) => Some(&mut self.alarms.get_mut(id)?.revocation),
            TimerKey::ConsumerJoin(_, id) => Some(&mut self.alarms.get_mut(id)?.join),
            TimerKey::ConsumerSync(_, id) => Some(&mut self.alarms.get_mut(id)?.sync),
            _ => None,
        }
    }
}
