//! Changes of a group, one for each record, and making them.

use std::collections::BTreeMap;

use super::super::StrBytes;
use super::ConsumerGroup;
use super::member::{Current, Metadata, Partitions, partitions_bytes};
use super::regex::Resolved;

/// The group's epoch: it rises with every reason to assign anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupEpoch {
    pub(crate) epoch: i32,
    /// Hash of the subscribed topics as they were.
    pub(crate) metadata_hash: i64,
}

/// The epoch of the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetEpoch {
    pub(crate) epoch: i32,
    /// When it was computed, milliseconds since 1970.
    pub(crate) timestamp_ms: i64,
}

/// A record's worth of change: what it names is now so, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Epoch(Option<GroupEpoch>),
    Member(StrBytes, Option<Box<Metadata>>),
    TargetEpoch(Option<TargetEpoch>),
    Target(StrBytes, Option<Partitions>),
    Current(StrBytes, Option<Box<Current>>),
    /// What a regular expression matches.
    Resolved(StrBytes, Option<Resolved>),
    /// What Kafka 4.0 stored of topics: read over.
    Topics,
}

impl ConsumerGroup {
    /// The group that `changes` make.
    pub(super) fn of(changes: Vec<Change>) -> Self {
        let mut group = Self::default();
        for change in changes {
            group.apply(change);
        }
        group
    }

    /// Makes a change. Returns the change that takes it back.
    pub(in crate::groups) fn apply(&mut self, change: Change) -> Change {
        match change {
            Change::Epoch(value) => Change::Epoch(std::mem::replace(&mut self.epoch, value)),
            Change::TargetEpoch(value) => {
                Change::TargetEpoch(std::mem::replace(&mut self.target_epoch, value))
            }
            Change::Member(id, value) => {
                let old = self.put_member(&id, value.map(|value| *value));
                Change::Member(id, old.map(Box::new))
            }
            Change::Target(id, value) => {
                self.bytes += value.as_ref().map_or(0, partitions_bytes);
                let old = replace(&mut self.targets, &id, value);
                self.bytes -= old.as_ref().map_or(0, partitions_bytes);
                Change::Target(id, old)
            }
            Change::Current(id, value) => {
                let old = self.put_current(&id, value.map(|value| *value));
                Change::Current(id, old.map(Box::new))
            }
            Change::Resolved(regex, value) => {
                self.bytes += value.as_ref().map_or(0, Resolved::bytes);
                let old = replace(&mut self.resolved, &regex, value);
                self.bytes -= old.as_ref().map_or(0, Resolved::bytes);
                Change::Resolved(regex, old)
            }
            Change::Topics => Change::Topics,
        }
    }

    fn put_member(&mut self, id: &StrBytes, value: Option<Metadata>) -> Option<Metadata> {
        let old = self.members.remove(id);
        if let Some(old) = &old {
            self.bytes -= old.bytes() + 4 * id.len();
            if let Some(instance_id) = &old.instance_id
                && self.static_members.get(instance_id) == Some(id)
            {
                self.static_members.remove(instance_id);
            }
            self.count(old, discount);
        }
        let Some(value) = value else {
            if let Some(alarms) = self.alarms.remove(id) {
                self.orphans.extend(alarms.into_all());
            }
            return old;
        };
        self.bytes += value.bytes() + 4 * id.len();
        if let Some(instance_id) = &value.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        self.count(&value, |counts, name| {
            *counts.entry(name.clone()).or_default() += 1;
        });
        self.members.insert(id.clone(), value);
        old
    }

    fn count(
        &mut self,
        metadata: &Metadata,
        change: impl Fn(&mut BTreeMap<StrBytes, usize>, &StrBytes),
    ) {
        for topic in &metadata.topics {
            change(&mut self.subscribers, topic);
        }
        if let Some(pattern) = metadata.pattern() {
            change(&mut self.patterns, pattern);
        }
        if let Some(assignor) = &metadata.assignor {
            change(&mut self.preferences, assignor);
        }
    }

    fn put_current(&mut self, id: &StrBytes, value: Option<Current>) -> Option<Current> {
        let old = self.currents.remove(id);
        if let Some(old) = &old {
            self.bytes -= old.bytes();
            for partition in old.owned() {
                if self.owners.get(&partition) == Some(id) {
                    self.owners.remove(&partition);
                }
            }
        }
        if let Some(value) = value {
            self.bytes += value.bytes();
            for partition in value.owned() {
                self.owners.insert(partition, id.clone());
            }
            self.currents.insert(id.clone(), value);
        }
        old
    }
}

fn replace<T>(map: &mut BTreeMap<StrBytes, T>, key: &StrBytes, value: Option<T>) -> Option<T> {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    }
}

fn discount(counts: &mut BTreeMap<StrBytes, usize>, name: &StrBytes) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}
