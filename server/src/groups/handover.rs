//! A classic group that makes way for one of the consumer protocol, or comes in its place.

use super::coordinator::Env;
use super::error::GroupError;
use super::group::Group;
use super::member::{JoinWait, Protocol};
use super::rebalance::pending_bytes;
use super::record::GroupValue;
use super::timers::Alarm;
use super::writes::MadeRecord;
use super::{StrBytes, Token};

/// What is left of a classic group that was taken away where nobody could be told.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    alarms: Vec<Alarm>,
    joins: Vec<(StrBytes, JoinWait)>,
    syncs: Vec<Token>,
}

/// A classic group that has made way, should it have to come back: as stored, with what its members said of all the protocols
/// they support.
#[derive(Debug)]
pub(super) struct SetAside {
    value: GroupValue,
    protocols: Vec<(StrBytes, Vec<Protocol>)>,
}

impl Group {
    fn set_aside(&self) -> SetAside {
        let protocols = self.members();
        SetAside {
            value: self.value(|member| member.assignment.clone()),
            protocols: protocols
                .map(|member| (member.id.clone(), member.protocols.clone()))
                .collect(),
        }
    }

    /// Puts `group` in the place of what there is of the classic protocol, and returns that; none is nothing.
    /// [`Group::settle_classic`] follows.
    pub(super) fn swap_classic(&mut self, group: Option<Box<SetAside>>) -> Option<Box<SetAside>> {
        let is_something = self.is_stored || self.members().len() > 0;
        let before = is_something.then(|| Box::new(self.set_aside()));
        for (id, alarm) in std::mem::take(&mut self.pending) {
            self.discharge(pending_bytes(&id));
            self.left.alarms.push(alarm);
        }
        for id in self.member_ids() {
            if let Some(member) = self.remove_member(&id) {
                self.left.alarms.push(member.session);
                self.left.joins.extend(member.join.map(|join| (id, join)));
                self.left.syncs.extend(member.sync);
            }
        }
        let phases = [&mut self.join_phase, &mut self.sync_phase];
        self.left.alarms.extend(phases.map(std::mem::take));
        self.initial_delay = None;
        match group {
            Some(group) => self.bring_back(*group),
            None => self.unstore(),
        }
        before
    }

    fn bring_back(&mut self, group: SetAside) {
        self.restore(group.value);
        for (id, protocols) in group.protocols {
            if let Some(member) = self.member(&id) {
                let (rebalance_ms, session_ms) =
                    (member.rebalance_timeout_ms, member.session_timeout_ms);
                self.update_member(&id, protocols, rebalance_ms, session_ms);
            }
        }
    }

    /// Cancels and answers what a classic group that was taken away has left: its members are to join again.
    pub(super) fn settle_classic(&mut self, env: &mut Env<'_>, error: GroupError) {
        let left = std::mem::take(&mut self.left);
        for mut alarm in left.alarms {
            env.timers.cancel(&mut alarm);
        }
        for (id, join) in left.joins {
            env.out.join_error(join, &id, error);
        }
        for token in left.syncs {
            env.out.sync_error(token, error);
        }
    }

    /// Removes from the log what it holds of a classic group that there is none of.
    pub(super) fn bury_classic(&mut self, env: &mut Env<'_>) {
        let gone = MadeRecord::classic(&self.id, None, None);
        env.writes
            .consumer(self, vec![gone], None, env.config.batch_bytes_max);
    }

    /// Goes on with a classic group that has come back: its members are to join again.
    pub(super) fn resume_classic(&mut self, env: &mut Env<'_>) {
        for id in self.member_ids() {
            self.renew_session(env, &id);
        }
        if self.members().len() > 0 {
            self.prepare(env);
        }
    }
}
