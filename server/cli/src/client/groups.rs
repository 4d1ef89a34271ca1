//! Consumer groups: who coordinates them, who is in them, and what they have committed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use kafka_wire::describe_groups_response::DescribedGroupMember;
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    decode_consumer_protocol_assignment,
};
use kafka_wire_core::{DecodeLimits, StrBytes};
use ringlog_load::protocol::{ControlError, error_code};

use super::{Client, alike, words};
use crate::failure::{Failure, Outcome};

/// The last version that asks for one group.
const FIND_COORDINATOR: i16 = 3;
const LIST_GROUPS: i16 = 5;
const DESCRIBE_GROUPS: i16 = 5;
const CONSUMER_GROUP_DESCRIBE: i16 = 1;
/// The last version that asks for one group.
const OFFSET_FETCH: i16 = 7;
const OFFSET_COMMIT: i16 = 8;
const DELETE_GROUPS: i16 = 2;
/// Pause before a coordinator that is not ready is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// A group as listings have it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) group: String,
    pub(crate) state: String,
    /// `classic` or `consumer`; empty where brokers do not say.
    pub(crate) kind: String,
    pub(crate) protocol: String,
    /// Node id of its coordinator.
    pub(crate) coordinator: i32,
}

/// A group with its members.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) listed: Listed,
    pub(crate) assignor: String,
    pub(crate) members: Vec<Member>,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    /// Partitions by topic.
    pub(crate) assigned: BTreeMap<String, Vec<i32>>,
}

/// An offset that is committed, or is to be.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl Client {
    /// All groups of all brokers, by name.
    pub(crate) fn groups(&mut self) -> Outcome<Vec<Listed>> {
        self.find_brokers()?;
        let mut groups = BTreeMap::new();
        for coordinator in self.nodes() {
            let request = ListGroupsRequest::default();
            let answer = self.patiently(
                |client| {
                    let answer = client.call_node(coordinator, &request, LIST_GROUPS)?;
                    Ok((answer.error_code, answer))
                },
                "the list of groups",
            )?;
            for group in &answer.groups {
                let listed = Listed {
                    group: group.group_id.as_str().to_owned(),
                    state: group.group_state.as_str().to_owned(),
                    kind: group.group_type.as_str().to_lowercase(),
                    protocol: group.protocol_type.as_str().to_owned(),
                    coordinator,
                };
                groups.insert(listed.group.clone(), listed);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// A group by name; if there is none, says which might be meant.
    pub(crate) fn listed_group(&mut self, name: &str) -> Outcome<Listed> {
        let groups = self.groups()?;
        if let Some(group) = groups.iter().find(|group| group.group == name) {
            return Ok(group.clone());
        }
        let failure = Failure::new(format!("there is no group {name:?}"));
        let names = groups.iter().map(|group| group.group.as_str());
        Err(match alike(name, names) {
            Some(other) => failure.remedy(format!("did you mean {other:?}?")),
            None => failure.remedy("`ringlog group list` shows what there is"),
        })
    }

    /// A group with its members.
    pub(crate) fn group(&mut self, listed: Listed) -> Outcome<Group> {
        if listed.kind == "consumer" {
            return self.consumer_group(listed);
        }
        let mut request = DescribeGroupsRequest::default();
        request.groups = vec![StrBytes::from(listed.group.as_str())];
        let answer = self.call_node(listed.coordinator, &request, DESCRIBE_GROUPS)?;
        let Some(described) = answer.groups.into_iter().next() else {
            return Err(silent(&listed.group));
        };
        check(
            &listed.group,
            described.error_code,
            described.error_message.as_ref(),
        )?;
        Ok(Group {
            assignor: described.protocol_data.as_str().to_owned(),
            members: described.members.into_iter().map(member).collect(),
            listed: Listed {
                state: described.group_state.as_str().to_owned(),
                ..listed
            },
        })
    }

    /// The same for a group whose brokers assign partitions (KIP-848).
    fn consumer_group(&mut self, listed: Listed) -> Outcome<Group> {
        let mut request = ConsumerGroupDescribeRequest::default();
        request.group_ids = vec![StrBytes::from(listed.group.as_str())];
        let answer = self.call_node(listed.coordinator, &request, CONSUMER_GROUP_DESCRIBE)?;
        let Some(described) = answer.groups.into_iter().next() else {
            return Err(silent(&listed.group));
        };
        check(
            &listed.group,
            described.error_code,
            described.error_message.as_ref(),
        )?;
        let members = described.members.iter().map(|member| Member {
            id: member.member_id.as_str().to_owned(),
            instance: member.instance_id.as_ref().map(|id| id.as_str().to_owned()),
            client: member.client_id.as_str().to_owned(),
            host: member.client_host.as_str().to_owned(),
            assigned: member
                .assignment
                .topic_partitions
                .iter()
                .map(|topic| {
                    (
                        topic.topic_name.as_str().to_owned(),
                        topic.partitions.clone(),
                    )
                })
                .collect(),
        });
        Ok(Group {
            assignor: described.assignor_name.as_str().to_owned(),
            members: members.collect(),
            listed: Listed {
                state: described.group_state.as_str().to_owned(),
                ..listed
            },
        })
    }

    /// Every offset a group has committed, by topic and partition.
    pub(crate) fn committed(&mut self, listed: &Listed) -> Outcome<Vec<Committed>> {
        let mut request = OffsetFetchRequest::default();
        request.group_id = StrBytes::from(listed.group.as_str());
        request.topics = None;
        let what = format!("offsets of group {:?}", listed.group);
        let answer = self.patiently(
            |client| {
                let answer = client.call_node(listed.coordinator, &request, OFFSET_FETCH)?;
                Ok((answer.error_code, answer))
            },
            &what,
        )?;
        let mut committed: Vec<Committed> = Vec::new();
        for topic in &answer.topics {
            for partition in topic.partitions.iter().filter(|p| p.committed_offset >= 0) {
                check(&what, partition.error_code, None)?;
                committed.push(Committed {
                    topic: topic.name.as_str().to_owned(),
                    partition: partition.partition_index,
                    offset: partition.committed_offset,
                });
            }
        }
        committed.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(committed)
    }

    /// Commits offsets for a group without members.
    pub(crate) fn commit(&mut self, group: &str, offsets: &[Committed]) -> Outcome {
        let coordinator = self.coordinator(group)?;
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for new in offsets {
            let mut partition = OffsetCommitRequestPartition::default();
            partition.partition_index = new.partition;
            partition.committed_offset = new.offset;
            partition.committed_leader_epoch = -1;
            partition.committed_metadata = Some(StrBytes::from(""));
            topics.entry(&new.topic).or_default().push(partition);
        }
        let mut request = OffsetCommitRequest::default();
        request.group_id = StrBytes::from(group);
        request.generation_id_or_member_epoch = -1;
        request.topics = topics
            .into_iter()
            .map(|(name, partitions)| {
                let mut topic = OffsetCommitRequestTopic::default();
                topic.name = StrBytes::from(name);
                topic.partitions = partitions;
                topic
            })
            .collect();
        let answer = self.call_node(coordinator, &request, OFFSET_COMMIT)?;
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let place = format!("{}/{}", topic.name.as_str(), partition.partition_index);
                check(&place, partition.error_code, None)?;
            }
        }
        Ok(())
    }

    /// Deletes a group and what it has committed.
    pub(crate) fn delete_group(&mut self, listed: &Listed) -> Outcome {
        let mut request = DeleteGroupsRequest::default();
        request.groups_names = vec![StrBytes::from(listed.group.as_str())];
        let answer = self.call_node(listed.coordinator, &request, DELETE_GROUPS)?;
        let what = format!("group {:?}", listed.group);
        match answer.results.first() {
            Some(result) => check(&what, result.error_code, result.error_message.as_ref()),
            None => Err(silent(&listed.group)),
        }
    }

    /// Node id of a group's coordinator, whether the group is there or not.
    fn coordinator(&mut self, group: &str) -> Outcome<i32> {
        self.find_brokers()?;
        let mut request = FindCoordinatorRequest::default();
        request.key = StrBytes::from(group);
        request.key_type = 0;
        let what = format!("the coordinator of group {group:?}");
        let answer = self.patiently(
            |client| {
                let answer = client.call_any(&request, FIND_COORDINATOR)?;
                Ok((answer.error_code, answer))
            },
            &what,
        )?;
        Ok(answer.node_id)
    }

    /// Asks again for as long as a coordinator says that it is not ready.
    fn patiently<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Outcome<(i16, T)>,
        what: &str,
    ) -> Outcome<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let (code, answer) = ask(self)?;
            match code {
                0 => return Ok(answer),
                code if error_code::passes(code) && Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                code => return Err(ControlError::refused(what, code, None).into()),
            }
        }
    }
}

fn silent(group: &str) -> Failure {
    Failure::new(format!("the broker says nothing of group {group}"))
}

fn check(what: &str, code: i16, message: Option<&StrBytes>) -> Outcome {
    match code {
        0 => Ok(()),
        code => Err(ControlError::refused(what, code, words(message)).into()),
    }
}

/// A member of a classic group. What a group that is none of consumers assigns is its own affair.
fn member(member: DescribedGroupMember) -> Member {
    let assignment =
        decode_consumer_protocol_assignment(member.member_assignment, DecodeLimits::default());
    let assigned = assignment
        .map(|(_, assignment)| assignment.assigned_partitions)
        .unwrap_or_default();
    Member {
        id: member.member_id.as_str().to_owned(),
        instance: member
            .group_instance_id
            .as_ref()
            .map(|id| id.as_str().to_owned()),
        client: member.client_id.as_str().to_owned(),
        host: member.client_host.as_str().to_owned(),
        assigned: assigned
            .into_iter()
            .map(|topic| (topic.topic.as_str().to_owned(), topic.partitions))
            .collect(),
    }
}
