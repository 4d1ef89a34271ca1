//! Kafka's error codes that a group coordinator answers with.

use thiserror::Error;

use crate::wire::error;

/// An error code of Kafka's protocol, under its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{self:?}")]
#[repr(i16)]
pub enum GroupError {
    /// Nothing a client can act on.
    UnknownServerError = error::UNKNOWN_SERVER_ERROR,
    /// The topic does not exist.
    UnknownTopicOrPartition = error::UNKNOWN_TOPIC_OR_PARTITION,
    /// Metadata of a committed offset beyond `offset.metadata.max.bytes`.
    OffsetMetadataTooLarge = error::OFFSET_METADATA_TOO_LARGE,
    /// The group's partition is still being read, or too much waits to be written: try again.
    CoordinatorLoadInProgress = error::COORDINATOR_LOAD_IN_PROGRESS,
    /// Find the coordinator and try again.
    CoordinatorNotAvailable = error::COORDINATOR_NOT_AVAILABLE,
    /// Another broker coordinates the group.
    NotCoordinator = error::NOT_COORDINATOR,
    /// Not the group's current generation.
    IllegalGeneration = error::ILLEGAL_GENERATION,
    /// No protocol is supported by every member.
    InconsistentGroupProtocol = error::INCONSISTENT_GROUP_PROTOCOL,
    /// The group id is empty.
    InvalidGroupId = error::INVALID_GROUP_ID,
    /// The group has no such member.
    UnknownMemberId = error::UNKNOWN_MEMBER_ID,
    /// The session time-out lies outside the broker's limits.
    InvalidSessionTimeout = error::INVALID_SESSION_TIMEOUT,
    /// A newer producer has the transactional id.
    InvalidProducerEpoch = error::INVALID_PRODUCER_EPOCH,
    /// An offset is part of a transaction that is not decided yet.
    UnstableOffsetCommit = error::UNSTABLE_OFFSET_COMMIT,
    /// Members must join again.
    RebalanceInProgress = error::REBALANCE_IN_PROGRESS,
    /// A name is longer than the log's format can hold.
    InvalidRequest = error::INVALID_REQUEST,
    /// A bound on memory was reached.
    PolicyViolation = error::POLICY_VIOLATION,
    /// A group with members cannot be deleted.
    NonEmptyGroup = error::NON_EMPTY_GROUP,
    /// There is no such group.
    GroupIdNotFound = error::GROUP_ID_NOT_FOUND,
    /// Join again with the member id in the response.
    MemberIdRequired = error::MEMBER_ID_REQUIRED,
    /// The group takes no more members.
    GroupMaxSizeReached = error::GROUP_MAX_SIZE_REACHED,
    /// Another member took over the group instance id.
    FencedInstanceId = error::FENCED_INSTANCE_ID,
    /// Not served in this version, or not at all.
    UnsupportedVersion = error::UNSUPPORTED_VERSION,
    /// No topic has this id.
    UnknownTopicId = error::UNKNOWN_TOPIC_ID,
    /// A heartbeat's member epoch is not the member's.
    FencedMemberEpoch = error::FENCED_MEMBER_EPOCH,
    /// The group instance id belongs to a member that has not left.
    UnreleasedInstanceId = error::UNRELEASED_INSTANCE_ID,
    /// The broker does not have this assignor.
    UnsupportedAssignor = error::UNSUPPORTED_ASSIGNOR,
    /// A commit's or fetch's member epoch is not the member's.
    StaleMemberEpoch = error::STALE_MEMBER_EPOCH,
    /// What a member subscribes to is no regular expression.
    InvalidRegularExpression = error::INVALID_REGULAR_EXPRESSION,
    /// Offsets of a subscribed topic cannot be deleted.
    GroupSubscribedToTopic = error::GROUP_SUBSCRIBED_TO_TOPIC,
}

impl GroupError {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }
}
