//! ConsumerGroupDescribe.

use std::collections::BTreeMap;

use kafka_wire::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_wire::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_engine::id::TopicId;

use super::super::admin::{OPERATIONS_ALL, OPERATIONS_UNKNOWN};
use super::super::config::GroupsConfig;
use super::super::coordinator::{Call, Coordinator, Response};
use super::super::error::GroupError;
use super::super::topics::Topics;
use super::super::{StrBytes, own};
use super::ConsumerGroup;
use super::member::Metadata;
use crate::repeats::distinct;
use crate::wire::uuid;

/// Types of members, in version 1.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl Coordinator {
    /// ConsumerGroupDescribe, versions 0 and 1. A group that is named twice is described once.
    pub fn describe_consumers(
        &mut self,
        call: &Call<'_>,
        request: &ConsumerGroupDescribeRequest,
        topics: &dyn Topics,
    ) {
        let mut response = ConsumerGroupDescribeResponse::default();
        for id in distinct(&request.group_ids, StrBytes::as_str) {
            let mut described = DescribedGroup::default();
            described.authorized_operations = OPERATIONS_UNKNOWN;
            match self.describable(id) {
                Ok(group) => {
                    group.describe(&self.config, topics, &mut described);
                    if request.include_authorized_operations {
                        described.authorized_operations = OPERATIONS_ALL;
                    }
                }
                Err((error, reason)) => {
                    described.error_code = error.code();
                    described.error_message = reason.map(StrBytes::from);
                }
            }
            described.group_id = own(id);
            response.groups.push(described);
        }
        self.out
            .send(call.token, Response::ConsumerDescribe(response));
    }

    fn describable(&self, id: &StrBytes) -> Result<&ConsumerGroup, (GroupError, Option<String>)> {
        if !self.config.consumer_protocol {
            return Err((GroupError::UnsupportedVersion, None));
        }
        self.admit_named(id).map_err(|error| (error, None))?;
        let Some(group) = self.groups.get(id) else {
            let reason = format!("Group {} not found.", id.as_str());
            return Err((GroupError::GroupIdNotFound, Some(reason)));
        };
        group.consumer.as_deref().ok_or_else(|| {
            let reason = format!("Group {} is not a consumer group.", id.as_str());
            (GroupError::GroupIdNotFound, Some(reason))
        })
    }
}

impl ConsumerGroup {
    fn describe(&self, config: &GroupsConfig, topics: &dyn Topics, described: &mut DescribedGroup) {
        described.group_state = self.state().name().into();
        described.group_epoch = self.epoch();
        described.assignment_epoch = self.assignment_epoch();
        described.assignor_name = self.assignor(config).name().into();
        let members = self.members.iter();
        described.members = members
            .map(|(id, metadata)| self.describe_member(id, metadata, topics))
            .collect();
    }

    fn describe_member(&self, id: &StrBytes, metadata: &Metadata, topics: &dyn Topics) -> Member {
        let current = self.current(id);
        let target = self.targets.get(id);
        let mut member = Member::default();
        member.member_id = id.clone();
        member.instance_id = metadata.instance_id.clone();
        member.rack_id = metadata.rack_id.clone();
        member.member_epoch = current.epoch;
        member.client_id = metadata.client_id.clone();
        member.client_host = metadata.client_host.clone();
        member.subscribed_topic_names = metadata.topics.iter().cloned().collect();
        member.subscribed_topic_regex = metadata.pattern().cloned();
        member.assignment =
            assignment(&current.assigned, topics, |of| of.keys().copied().collect());
        if let Some(target) = target {
            member.target_assignment =
                assignment(target, topics, |of| of.iter().copied().collect());
        }
        member.member_type = match metadata.classic {
            Some(_) => CLASSIC_MEMBER,
            None => CONSUMER_MEMBER,
        };
        member
    }
}

/// Partitions of topics that exist.
fn assignment<P>(
    of: &BTreeMap<TopicId, P>,
    topics: &dyn Topics,
    partitions: impl Fn(&P) -> Vec<i32>,
) -> Assignment {
    let mut assignment = Assignment::default();
    for (id, of_topic) in of {
        if let Some(name) = topics.name(*id) {
            let mut entry = TopicPartitions::default();
            entry.topic_id = uuid(*id);
            entry.topic_name = name.into();
            entry.partitions = partitions(of_topic);
            assignment.topic_partitions.push(entry);
        }
    }
    assignment
}
