//! What is kept of one member: what it said about itself, and what it has been assigned.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_engine::id::TopicId;

use super::super::StrBytes;
use super::super::member::{Protocol, protocols_bytes};
use super::super::timers::Alarm;

/// Partitions by topic.
pub(crate) type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions by topic, each with the member epoch in which it was assigned.
pub(crate) type Assigned = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// `member_epoch` of a static member that has left and is to come back.
pub(crate) const STATIC_LEAVE_EPOCH: i32 = -2;

/// What a member said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Metadata {
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) rack_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) client_host: StrBytes,
    /// Topics it subscribes to by name.
    pub(crate) topics: BTreeSet<StrBytes>,
    /// The regular expression it subscribes to; none and an empty one both mean none.
    pub(crate) regex: Option<StrBytes>,
    pub(crate) rebalance_timeout_ms: i32,
    /// The assignor it would like.
    pub(crate) assignor: Option<StrBytes>,
    /// What it said in the classic protocol, if that is the one it speaks.
    pub(crate) classic: Option<Classic>,
}

/// What a member of the classic protocol says besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Classic {
    pub(crate) session_timeout_ms: i32,
    /// The protocols it supports, the one it likes best first; at least one.
    pub(in crate::groups) protocols: Vec<Protocol>,
}

impl Classic {
    /// The protocol under which it is served: which one does not matter, since the coordinator assigns.
    pub(super) fn protocol(&self) -> Option<&Protocol> {
        self.protocols.first()
    }

    pub(super) fn supports(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|own| own.name == *protocol)
    }
}

impl Metadata {
    /// The regular expression, if it has one.
    pub(super) fn pattern(&self) -> Option<&StrBytes> {
        self.regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let length = |text: &Option<StrBytes>| text.as_ref().map_or(0, |text| text.len());
        let topics = self.topics.iter();
        let classic = self.classic.as_ref();
        size_of::<Self>()
            + size_of::<Alarms>()
            + 2 * length(&self.instance_id)
            + length(&self.rack_id)
            + length(&self.regex)
            + length(&self.assignor)
            + self.client_id.len()
            + self.client_host.len()
            + classic.map_or(0, |classic| protocols_bytes(&classic.protocols))
            + topics
                .map(|topic| size_of::<StrBytes>() + topic.len())
                .sum::<usize>()
    }
}

/// How far a member is on its way to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i8)]
pub(crate) enum MemberState {
    /// It has what it is to have in its epoch.
    #[default]
    Stable = 0,
    /// It is to give partitions up first.
    UnrevokedPartitions = 1,
    /// It waits for partitions that others have not given up.
    UnreleasedPartitions = 2,
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    /// The epoch before: a member that did not hear of its new one comes with this.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Assigned,
    /// What it is to give up and may still be reading.
    pub(crate) pending_revocation: Assigned,
}

impl Current {
    /// That of a member that has just joined.
    pub(super) fn joining() -> Self {
        Self {
            previous_epoch: -1,
            ..Self::default()
        }
    }

    /// Whether it has all it is to have in `epoch`.
    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// The epoch in which it was assigned a partition that it has, or is to give up.
    pub(super) fn assignment_epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let of = |assigned: &Assigned| assigned.get(&topic)?.get(&partition).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }

    /// Every partition that nobody else may have.
    pub(super) fn owned(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let all = self.assigned.iter().chain(&self.pending_revocation);
        all.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let all = self
            .assigned
            .values()
            .chain(self.pending_revocation.values());
        let partitions = all.map(|partitions| 64 + 32 * partitions.len());
        // A partition is kept here and in the group's table of owners.
        size_of::<Self>() + partitions.sum::<usize>()
    }
}

/// Memory that a set of partitions takes, in bytes.
pub(super) fn partitions_bytes(partitions: &Partitions) -> usize {
    let topics = partitions.values();
    topics.map(|partitions| 64 + 8 * partitions.len()).sum()
}

/// A member's deadlines.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// When it is given up for not being heard of.
    pub(super) session: Alarm,
    /// When it is given up for not giving partitions up.
    pub(super) revocation: Alarm,
    /// When a member of the classic protocol is given up for not joining again.
    pub(super) join: Alarm,
    /// When it is given up for not asking for its assignment.
    pub(super) sync: Alarm,
}

impl Alarms {
    pub(super) fn into_all(self) -> [Alarm; 4] {
        [self.session, self.revocation, self.join, self.sync]
    }
}
