//! Which offsets a member of a consumer group may commit and fetch.

use kafka_wire::OffsetCommitRequest;
use ringlog_engine::id::TopicId;

use super::super::StrBytes;
use super::super::error::GroupError;
use super::ConsumerGroup;

/// Whose commit it is.
pub(in crate::groups) struct Committer<'a> {
    pub(in crate::groups) member_id: &'a StrBytes,
    pub(in crate::groups) instance_id: Option<&'a StrBytes>,
    pub(in crate::groups) epoch: i32,
}

impl<'a> Committer<'a> {
    pub(in crate::groups) fn of(request: &'a OffsetCommitRequest) -> Self {
        Self {
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_ref(),
            epoch: request.generation_id_or_member_epoch,
        }
    }
}

impl ConsumerGroup {
    /// Checks an OffsetCommit: an administrator's while there are no members, or a member's. One that comes with an earlier
    /// epoch may commit what it has had since then or longer (KIP-1251). `topic_id` finds the topic of a partition.
    pub(in crate::groups) fn check_commit<'a>(
        &self,
        by: &Committer<'_>,
        version: i16,
        partitions: impl Iterator<Item = (&'a StrBytes, i32)>,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        if by.epoch < 0 && self.is_empty() {
            return Ok(());
        }
        if !self.has_member(by.member_id) {
            return Err(GroupError::UnknownMemberId);
        }
        if version < 9 && !self.is_classic(by.member_id) {
            return Err(GroupError::UnsupportedVersion);
        }
        self.check_epochs(by, partitions, topic_id)
    }

    /// Checks a TxnOffsetCommit, which may also come from nobody in particular.
    pub(in crate::groups) fn check_commit_in_transaction<'a>(
        &self,
        by: &Committer<'_>,
        partitions: impl Iterator<Item = (&'a StrBytes, i32)>,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        let is_nobody = by.epoch < 0 && by.member_id.is_empty() && by.instance_id.is_none();
        if is_nobody || (by.epoch < 0 && self.is_empty()) {
            return Ok(());
        }
        if !self.has_member(by.member_id) {
            return Err(GroupError::UnknownMemberId);
        }
        let checked = self.check_epochs(by, partitions, topic_id);
        // Producers know the classic protocol's error.
        checked.map_err(|_| GroupError::IllegalGeneration)
    }

    fn check_epochs<'a>(
        &self,
        by: &Committer<'_>,
        mut partitions: impl Iterator<Item = (&'a StrBytes, i32)>,
        topic_id: impl Fn(&str, i32) -> Option<TopicId>,
    ) -> Result<(), GroupError> {
        let current = self.current(by.member_id);
        if self.is_classic(by.member_id) {
            // Its epoch is its generation.
            return match by.epoch == current.epoch {
                true => Ok(()),
                false => Err(GroupError::IllegalGeneration),
            };
        }
        let has_had = |(topic, partition): (&StrBytes, i32)| {
            let id = topic_id(topic, partition);
            let since = id.and_then(|id| current.assignment_epoch(id, partition));
            since.is_some_and(|since| since <= by.epoch)
        };
        match by.epoch == current.epoch || (by.epoch < current.epoch && partitions.all(has_had)) {
            true => Ok(()),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// Checks who fetches offsets: nobody in particular, or a member with its epoch.
    pub(in crate::groups) fn check_fetch(
        &self,
        member_id: Option<&StrBytes>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        let Some(id) = member_id else {
            return match epoch {
                ..0 => Ok(()),
                _ => Err(GroupError::UnknownMemberId),
            };
        };
        if !self.has_member(id) {
            return Err(GroupError::UnknownMemberId);
        }
        match self.current(id).epoch == epoch {
            true => Ok(()),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }
}
