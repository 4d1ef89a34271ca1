//! Changes of a group in the making: made at once, and collected with their records for the log.

use super::super::coordinator::Env;
use super::super::group::Group;
use super::super::handover::SetAside;
use super::super::record::GroupValue;
use super::super::writes::{MadeRecord, Undo};
use super::ConsumerGroup;
use super::change::Change;

/// A group under change.
pub(super) struct Edit<'a> {
    id: &'a str,
    pub(super) group: &'a mut ConsumerGroup,
    records: Vec<MadeRecord>,
}

impl Edit<'_> {
    /// Makes a change, and notes its record and what takes it back.
    pub(super) fn put(&mut self, change: Change) {
        let (key, value) = (change.key(self.id), change.value());
        let undo = Undo::Consumer(self.group.apply(change));
        self.records.push(MadeRecord { key, value, undo });
    }

    /// Notes that the group of the classic protocol that `undo` is has been taken away.
    pub(super) fn classic_gone(&mut self, undo: Box<SetAside>) {
        self.records
            .push(MadeRecord::classic(self.id, None, Some(undo)));
    }

    /// Notes that the group has become one of the classic protocol.
    pub(super) fn classic_made(&mut self, value: &GroupValue) {
        self.records
            .push(MadeRecord::classic(self.id, Some(value.encode()), None));
    }
}

impl Group {
    /// Lets `f` change the group under the consumer protocol, and queues the records. `waiter` is the request, and its part,
    /// that waits for them.
    pub(super) fn edit_consumer<R>(
        &mut self,
        env: &mut Env<'_>,
        waiter: Option<(u64, usize)>,
        f: impl FnOnce(&mut Edit<'_>, &mut Env<'_>) -> R,
    ) -> R {
        let mut consumer: Box<ConsumerGroup> = self.consumer.take().unwrap_or_default();
        let id = self.id.clone();
        let mut edit = Edit {
            id: &id,
            group: &mut consumer,
            records: Vec::new(),
        };
        let result = f(&mut edit, env);
        let records = edit.records;
        consumer.settle(env.timers);
        self.consumer = (!consumer.is_blank()).then_some(consumer);
        env.writes
            .consumer(self, records, waiter, env.config.batch_bytes_max);
        result
    }

    /// Makes a change that the log has, or takes back one that it refused; returns the change that undoes it.
    pub(in crate::groups) fn apply_consumer(&mut self, change: Change) -> Change {
        let mut consumer = self.consumer.take().unwrap_or_default();
        let undo = consumer.apply(change);
        // Alarms that it leaves behind are cancelled with the group's next ones.
        let is_gone = consumer.is_blank() && !consumer.has_orphans();
        self.consumer = (!is_gone).then_some(consumer);
        undo
    }

    /// After changes from the log or back: alarms of members that are gone go, members without one get one.
    pub(in crate::groups) fn settle_consumer(&mut self, env: &mut Env<'_>) {
        let Some(mut consumer) = self.consumer.take() else {
            return;
        };
        consumer.settle(env.timers);
        // What was seen may have been taken back with the epoch that came of it.
        consumer.topics_seen = None;
        consumer.patterns_seen = None;
        for id in consumer.member_ids() {
            if !consumer.has_session(&id) {
                consumer.renew_session(env, &self.id, &id);
                consumer.watch_revocation(env, &self.id, &id, true);
            }
        }
        self.consumer = (!consumer.is_blank()).then_some(consumer);
    }
}
