//! The target assignment: computed when the group's epoch has risen above that of the last one.

use std::collections::BTreeMap;

use ringlog_engine::id::{Now, TopicId};

use super::super::StrBytes;
use super::super::config::GroupsConfig;
use super::super::topics::Topics;
use super::ConsumerGroup;
use super::assign::{Assignor, Input, Subscriber, Topic};
use super::change::{Change, TargetEpoch};
use super::edit::Edit;
use super::member::Partitions;

impl ConsumerGroup {
    /// The assignor that most members would like, or the broker's.
    pub(super) fn assignor(&self, config: &GroupsConfig) -> Assignor {
        let wishes = self.preferences.iter();
        let wish = wishes.max_by_key(|(_, count)| **count);
        // One that is no longer configured does not count.
        let wish = wish.and_then(|(name, _)| Assignor::named(name));
        let wish = wish.filter(|wish| config.assignors.contains(wish));
        let first = config.assignors.first().copied();
        wish.or(first).unwrap_or(Assignor::Uniform)
    }

    /// Whether a new target is needed, and the last one old enough.
    fn is_target_due(&self, now: Now, config: &GroupsConfig) -> bool {
        let last_ms = self.target_epoch.map_or(0, |epoch| epoch.timestamp_ms);
        let age_ms = now.wall_ms.saturating_sub(last_ms);
        // A clock that was put back counts as time enough.
        let is_old_enough = age_ms < 0 || age_ms >= config.assignment_interval_ms;
        self.epoch() > self.assignment_epoch() && is_old_enough
    }

    fn compute_target(
        &self,
        topics: &dyn Topics,
        assignor: Assignor,
    ) -> Vec<(StrBytes, Partitions)> {
        let mut known: BTreeMap<&StrBytes, Topic> = BTreeMap::new();
        for name in self
            .members
            .values()
            .flat_map(|metadata| self.topics_of(metadata))
        {
            if let Some(topic) = topics.topic(name) {
                let (id, partitions) = (topic.id, topic.partitions);
                known.insert(name, Topic { id, partitions });
            }
        }
        let by_id: BTreeMap<TopicId, Topic> =
            known.values().map(|topic| (topic.id, *topic)).collect();
        let places: BTreeMap<TopicId, usize> = by_id.keys().copied().zip(0..).collect();
        let members = self.members.iter().map(|(id, metadata)| {
            let found = self.topics_of(metadata).filter_map(|name| known.get(name));
            let mut wanted: Vec<usize> = found.map(|topic| places[&topic.id]).collect();
            wanted.sort_unstable();
            Subscriber {
                id,
                instance_id: metadata.instance_id.as_ref(),
                topics: wanted,
                target: self.targets.get(id),
            }
        });
        let input = Input {
            topics: by_id.into_values().collect(),
            members: members.collect(),
        };
        let assigned = assignor.assign(&input);
        self.members.keys().cloned().zip(assigned).collect()
    }
}

impl Edit<'_> {
    /// Assigns anew if that is due.
    pub(super) fn update_target(&mut self, now: Now, config: &GroupsConfig, topics: &dyn Topics) {
        if !self.group.is_target_due(now, config) {
            return;
        }
        let epoch = self.group.epoch();
        let assignor = self.group.assignor(config);
        for (id, target) in self.group.compute_target(topics, assignor) {
            if self.group.targets.get(&id) != Some(&target) {
                self.put(Change::Target(id, Some(target)));
            }
        }
        self.put(Change::TargetEpoch(Some(TargetEpoch {
            epoch,
            timestamp_ms: now.wall_ms,
        })));
    }
}
