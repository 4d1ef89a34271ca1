//! Kafka's `consumer` group protocol (KIP-848): the coordinator assigns, and each member comes to its assignment in its
//! own time, giving up first what others are to have.
//!
//! Members of the classic protocol may be in such a group, too: it takes them over from a classic group that a member of this
//! protocol joins, and makes way for a classic group when the last member of this protocol leaves ([`convert`]).
//!
//! A [`ConsumerGroup`] is what its records in the offsets topic say, and nothing else but deadlines: every change is a
//! [`Change`], which has a record, and [`ConsumerGroup::apply`] is the one way to make it, for a request, for replay and
//! for taking back what the log refused. Behaviour follows Apache Kafka 4.4.

mod admission;
mod assign;
mod change;
mod classic;
mod commit;
mod convert;
mod describe;
mod edit;
mod embedded;
mod heartbeat;
#[cfg(test)]
mod inspect;
mod leave;
mod member;
mod reconcile;
mod record;
mod regex;
mod request;
mod subscription;
mod target;

use std::collections::{BTreeMap, HashMap};

use ringlog_engine::id::TopicId;

pub use assign::Assignor;
pub use record::ConsumerKey;

pub(super) use assign::DEFAULT_ASSIGNORS;
pub(super) use change::Change;
pub(super) use commit::Committer;

use change::{GroupEpoch, TargetEpoch};
use member::{Current, Metadata, Partitions};

use super::StrBytes;
use super::timers::{Alarm, Timers};
use member::Alarms;
use regex::Resolved;

/// The type of these groups.
pub(super) const TYPE: &str = "consumer";

/// Where a group is, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsumerState {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl ConsumerState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group of the `consumer` protocol.
#[derive(Debug, Default)]
pub(super) struct ConsumerGroup {
    // What the log says, a map for each kind of record.
    epoch: Option<GroupEpoch>,
    target_epoch: Option<TargetEpoch>,
    members: BTreeMap<StrBytes, Metadata>,
    currents: BTreeMap<StrBytes, Current>,
    targets: BTreeMap<StrBytes, Partitions>,
    resolved: BTreeMap<StrBytes, Resolved>,

    // What follows from it.
    /// Member ids by instance id.
    static_members: HashMap<StrBytes, StrBytes>,
    /// Who has each partition, or has not given it up yet.
    owners: HashMap<(TopicId, i32), StrBytes>,
    /// How many members subscribe to a topic by name.
    subscribers: BTreeMap<StrBytes, usize>,
    /// How many members have a regular expression.
    patterns: BTreeMap<StrBytes, usize>,
    /// How many members would like an assignor.
    preferences: BTreeMap<StrBytes, usize>,
    /// Memory it takes, in bytes.
    bytes: usize,

    // What is not stored.
    alarms: BTreeMap<StrBytes, Alarms>,
    /// Alarms of members that are gone, still to be cancelled.
    orphans: Vec<Alarm>,
    /// The version of the catalog that the group's epoch answers to.
    topics_seen: Option<u64>,
    /// The version of the catalog that its regular expressions were matched against, and when, monotonic nanoseconds.
    patterns_seen: Option<(u64, u64)>,
}

impl ConsumerGroup {
    /// Whether the log has nothing about it.
    pub(super) fn is_blank(&self) -> bool {
        self.epoch.is_none()
            && self.target_epoch.is_none()
            && self.members.is_empty()
            && self.currents.is_empty()
            && self.targets.is_empty()
            && self.resolved.is_empty()
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch.map_or(0, |epoch| epoch.epoch)
    }

    pub(super) fn assignment_epoch(&self) -> i32 {
        self.target_epoch.map_or(0, |epoch| epoch.epoch)
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn has_member(&self, id: &StrBytes) -> bool {
        self.members.contains_key(id)
    }

    /// Whether a member speaks the classic protocol.
    fn is_classic(&self, id: &StrBytes) -> bool {
        let metadata = self.members.get(id);
        metadata.is_some_and(|metadata| metadata.classic.is_some())
    }

    pub(super) fn member_ids(&self) -> Vec<StrBytes> {
        self.members.keys().cloned().collect()
    }

    /// What a member has; nothing if it has just joined.
    pub(super) fn current(&self, id: &StrBytes) -> Current {
        let current = self.currents.get(id);
        current.cloned().unwrap_or_else(Current::joining)
    }

    /// What a member is to have.
    fn target(&self, id: &StrBytes) -> Partitions {
        self.targets.get(id).cloned().unwrap_or_default()
    }

    /// Whether a partition is nobody's, or the member's own.
    fn is_free_for(&self, id: &StrBytes, topic: TopicId, partition: i32) -> bool {
        let owner = self.owners.get(&(topic, partition));
        owner.is_none_or(|owner| owner == id)
    }

    pub(super) fn state(&self) -> ConsumerState {
        if self.members.is_empty() {
            return ConsumerState::Empty;
        }
        if self.epoch() > self.assignment_epoch() {
            return ConsumerState::Assigning;
        }
        let epoch = self.assignment_epoch();
        let is_reconciled = |id| {
            let current = self.currents.get(id);
            current.is_some_and(|current| current.is_reconciled_to(epoch))
        };
        match self.members.keys().all(is_reconciled) {
            true => ConsumerState::Stable,
            false => ConsumerState::Reconciling,
        }
    }

    /// Forgets what has no member: what is left of an incomplete log.
    pub(super) fn drop_leftovers(&mut self) {
        let members = &self.members;
        let leftover: Vec<StrBytes> = self
            .currents
            .keys()
            .chain(self.targets.keys())
            .filter(|id| !members.contains_key(*id))
            .cloned()
            .collect();
        for id in leftover {
            self.apply(Change::Current(id.clone(), None));
            self.apply(Change::Target(id, None));
        }
    }

    /// Cancels the alarms of members that are gone.
    pub(super) fn settle(&mut self, timers: &mut Timers) {
        for mut alarm in self.orphans.drain(..) {
            timers.cancel(&mut alarm);
        }
    }

    /// Cancels all alarms, before the group goes from memory.
    pub(super) fn cancel_alarms(&mut self, timers: &mut Timers) {
        for alarms in self.alarms.values_mut() {
            for mut alarm in std::mem::take(alarms).into_all() {
                timers.cancel(&mut alarm);
            }
        }
        self.settle(timers);
    }
}
