//! Which protocol a group has: the first member of an empty group decides.

use super::super::StrBytes;
use super::super::coordinator::Env;
use super::super::error::GroupError;
use super::super::group::{Group, State};
use super::change::Change;
use super::request::Refused;

impl Group {
    /// Whether members of the consumer protocol may come, or, unless they are joining, may be there.
    pub(super) fn admit_consumer(&self, joins: bool) -> Result<(), Refused> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable.into());
        }
        if self.consumer.is_some() || (joins && self.is_in(State::Empty)) {
            return Ok(());
        }
        let reason = format_args!("Group {} is not a consumer group.", self.id.as_str());
        Err(Refused::new(GroupError::GroupIdNotFound, reason))
    }

    /// An empty classic group makes way for one of the consumer protocol; its offsets stay.
    pub(super) fn become_consumer(&mut self, env: &mut Env<'_>) {
        if self.consumer.is_some() {
            return;
        }
        let pending: Vec<StrBytes> = self.pending.keys().cloned().collect();
        for id in pending {
            self.forget_pending(env, &id);
        }
        env.timers.cancel(&mut self.join_phase);
        env.timers.cancel(&mut self.sync_phase);
        if self.is_stored {
            env.writes.classic_gone(self);
        }
    }

    /// Whether members of the classic protocol may join; an empty consumer group makes way for them, its offsets stay.
    pub(in crate::groups) fn become_classic(
        &mut self,
        env: &mut Env<'_>,
    ) -> Result<(), GroupError> {
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        if !consumer.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        self.bury_consumer(env, None);
        Ok(())
    }

    /// Removes everything stored about a consumer group.
    pub(in crate::groups) fn bury_consumer(
        &mut self,
        env: &mut Env<'_>,
        waiter: Option<(u64, usize)>,
    ) {
        self.edit_consumer(env, waiter, |edit, _| {
            let ids: Vec<StrBytes> = edit.group.member_ids();
            for id in &ids {
                edit.remove(id);
            }
            edit.drop_patterns();
            edit.put(Change::TargetEpoch(None));
            edit.put(Change::Epoch(None));
        });
    }
}
