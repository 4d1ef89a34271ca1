//! What a ConsumerGroupHeartbeat must be like, whatever the group's state is, and how one is refused.

use std::fmt::Display;

use kafka_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::config::GroupsConfig;
use super::super::error::GroupError;
use super::super::join::{INSTANCE_ID_BYTES_MAX, NAME_BYTES_MAX};
use super::super::{StrBytes, coordinator::Response};
use super::assign::Assignor;
use super::member::STATIC_LEAVE_EPOCH;

/// `member_epoch` of a member that joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// `member_epoch` of a member that leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;

/// Why a request is refused, with a reason for people.
#[derive(Debug)]
pub(in crate::groups) struct Refused {
    error: GroupError,
    reason: String,
}

impl Refused {
    pub(super) fn new(error: GroupError, reason: impl Display) -> Self {
        Self {
            error,
            reason: reason.to_string(),
        }
    }

    /// A classic group that cannot become one of the consumer protocol.
    pub(super) fn upgrade(group_id: &StrBytes, reason: &str) -> Self {
        let id = group_id.as_str();
        let reason =
            format_args!("Cannot upgrade classic group {id} to consumer group because {reason}.");
        Self::new(GroupError::GroupIdNotFound, reason)
    }

    pub(super) fn error(&self) -> GroupError {
        self.error
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = ConsumerGroupHeartbeatResponse::default();
        response.error_code = self.error.code();
        response.error_message = Some(self.reason.into());
        Response::ConsumerHeartbeat(response)
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        Self::new(error, error)
    }
}

/// Checks a request by itself.
pub(super) fn check(
    request: &ConsumerGroupHeartbeatRequest,
    version: i16,
    config: &GroupsConfig,
) -> Result<(), Refused> {
    if !config.consumer_protocol {
        return Err(GroupError::UnsupportedVersion.into());
    }
    let invalid = |reason: &str| Err(Refused::new(GroupError::InvalidRequest, reason));
    let is_blank = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| text.is_empty());
    let epoch = request.member_epoch;
    // From version 1 on the member chooses its id.
    let needs_id = version >= 1 || epoch > JOIN_EPOCH || epoch == LEAVE_EPOCH;
    if needs_id && request.member_id.is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if is_blank(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if is_blank(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    check_lengths(request)?;
    match epoch {
        JOIN_EPOCH => {
            if request.rebalance_timeout_ms == -1 {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if request
                .topic_partitions
                .as_ref()
                .is_none_or(|owned| !owned.is_empty())
            {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none()
            {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        STATIC_LEAVE_EPOCH if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        ..STATIC_LEAVE_EPOCH => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    check_assignor(request, config)
}

/// Names must fit into the log's format.
fn check_lengths(request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refused> {
    let length = |text: &Option<StrBytes>| text.as_ref().map_or(0, |text| text.len());
    let is_too_long = request.member_id.len() > NAME_BYTES_MAX
        || length(&request.rack_id) > NAME_BYTES_MAX
        || length(&request.instance_id) > INSTANCE_ID_BYTES_MAX;
    match is_too_long {
        true => Err(GroupError::InvalidRequest.into()),
        false => Ok(()),
    }
}

fn check_assignor(
    request: &ConsumerGroupHeartbeatRequest,
    config: &GroupsConfig,
) -> Result<(), Refused> {
    let Some(wanted) = &request.server_assignor else {
        return Ok(());
    };
    let known = Assignor::named(wanted).filter(|known| config.assignors.contains(known));
    if known.is_some() {
        return Ok(());
    }
    let names: Vec<&str> = config.assignors.iter().map(|known| known.name()).collect();
    Err(Refused::new(
        GroupError::UnsupportedAssignor,
        format_args!(
            "ServerAssignor {} is not supported. Supported assignors: {}.",
            wanted.as_str(),
            names.join(", ")
        ),
    ))
}
