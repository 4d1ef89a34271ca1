//! What comes up for a partition while its log is read, and has to wait until it has been.
//!
//! A log is read up to where it ended when reading began. A marker that is written meanwhile lies behind that, and what it
//! decides may not have been read yet. Nor may the offsets of a topic that is deleted meanwhile.

use std::collections::{BTreeSet, HashSet};

use ringlog_engine::id::Now;

use super::StrBytes;
use super::coordinator::{Coordinator, Env};
use super::group::Group;

/// What waits until a partition's log has been read.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    /// Producers whose transactions were decided, and whether they were committed, in the order of the log.
    decisions: Vec<(i64, bool)>,
    decided: HashSet<i64>,
    /// Topics that were deleted. No offsets can be committed meanwhile, so none are of a new topic of the same name.
    deleted_topics: BTreeSet<StrBytes>,
}

impl Postponed {
    /// The log is read from its start, anew perhaps: the markers of an earlier time are in what is read now, the removal of
    /// offsets is not.
    pub(super) fn begin(&mut self) {
        self.decisions.clear();
        self.decided.clear();
    }

    /// A producer has one open transaction at most, and no group takes offsets of the next one while the log is read: its
    /// first marker decides, and those after it have nothing to decide.
    fn decide(&mut self, producer_id: i64, committed: bool) {
        if self.decided.insert(producer_id) {
            self.decisions.push((producer_id, committed));
        }
    }
}

impl Coordinator {
    /// A marker is durable in a partition of the offsets topic: what the producer's transaction has there is decided, once
    /// the partition's log has been read.
    pub fn decided(&mut self, now: Now, partition: i32, producer_id: i64, committed: bool) {
        match self.postponed.get_mut(&partition) {
            Some(postponed) => postponed.decide(producer_id, committed),
            None => self.decide(now, partition, producer_id, committed),
        }
    }

    /// Does what has waited until the partition's log has been read. Where that went past the end it had at first, a marker
    /// may have been read as well; then there is nothing left to decide.
    pub(super) fn catch_up(&mut self, now: Now, partition: i32) {
        let Some(postponed) = self.postponed.remove(&partition) else {
            return;
        };
        for (producer_id, committed) in postponed.decisions {
            self.decide(now, partition, producer_id, committed);
        }
        if !postponed.deleted_topics.is_empty() {
            let is_deleted = |topic: &StrBytes| postponed.deleted_topics.contains(topic);
            for id in self.groups_of(partition) {
                self.with_group(now, &id, |group, env| group.remove_topics(env, is_deleted));
            }
        }
    }

    /// A topic was deleted: its offsets go, once they have been read.
    pub fn topic_deleted(&mut self, now: Now, topic: &str) {
        let topic = StrBytes::from(topic);
        for postponed in self.postponed.values_mut() {
            postponed.deleted_topics.insert(topic.clone());
        }
        let read = self.groups.values();
        let read = read.filter(|group| !self.postponed.contains_key(&group.partition));
        let having = read.filter(|group| group.has_offsets_of(&topic));
        let having: Vec<StrBytes> = having.map(|group| group.id.clone()).collect();
        for id in having {
            self.with_group(now, &id, |group, env| {
                group.remove_topics(env, |name| *name == topic);
            });
        }
    }
}

impl Group {
    /// Whether there is an offset of the topic, durable or on the way.
    fn has_offsets_of(&self, topic: &StrBytes) -> bool {
        let mut on_the_way = self.offsets_on_the_way.keys();
        self.offsets.contains_key(topic) || on_the_way.any(|(name, _)| name == topic)
    }

    fn remove_topics(&mut self, env: &mut Env<'_>, is_deleted: impl Fn(&StrBytes) -> bool) {
        let changes = self.removals(is_deleted);
        let batch_bytes_max = env.config.batch_bytes_max;
        env.writes
            .offsets(self, changes, false, None, batch_bytes_max);
    }
}
