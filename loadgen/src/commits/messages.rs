//! Requests of the load and their answers, as bytes.

use bytes::{Bytes, BytesMut};
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::{HeartbeatRequest, KafkaRequest, OffsetCommitRequest};
use kafka_wire_core::{DecodeError, EncodeError, StrBytes};

use super::groups::Plan;
use super::members::Member;
use super::{ANSWER_WAIT, CommitsError};
use crate::cluster::ClusterError;
use crate::protocol::{ControlClient, control};

/// The last version that names topics.
const OFFSET_COMMIT: i16 = 8;
const OFFSET_COMMIT_MIN: i16 = 2;
const HEARTBEAT: i16 = 4;

/// Versions that all coordinators speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) commit: i16,
    pub(super) heartbeat: i16,
}

impl Versions {
    /// Asks each coordinator.
    pub(super) fn of(plan: &Plan) -> Result<Self, CommitsError> {
        let mut versions = Self {
            commit: OFFSET_COMMIT,
            heartbeat: HEARTBEAT,
        };
        for address in plan.addresses() {
            let client = ControlClient::connect(address, ANSWER_WAIT)?;
            let highest = |key: i16, name, low: i16, high: i16| {
                let found = (low..=high).rev().find(|&v| client.speaks(key, v));
                found.ok_or_else(|| ClusterError::NotSpoken {
                    address: address.to_owned(),
                    api: name,
                    version: low,
                })
            };
            let key = OffsetCommitRequest::API_KEY.value();
            versions.commit = highest(key, "OffsetCommit", OFFSET_COMMIT_MIN, versions.commit)?;
            let key = HeartbeatRequest::API_KEY.value();
            versions.heartbeat = highest(key, "Heartbeat", 0, versions.heartbeat)?;
        }
        Ok(versions)
    }
}

/// A commit of one offset for every partition of a topic.
pub(super) struct Commit<'a> {
    pub(super) group: &'a StrBytes,
    pub(super) topic: &'a StrBytes,
    pub(super) partitions: i32,
    /// Whose it is; `None` without members.
    pub(super) member: Option<&'a Member>,
    pub(super) offset: i64,
}

impl Commit<'_> {
    /// The whole frame.
    pub(super) fn encode(&self, correlation: i32, version: i16) -> Result<BytesMut, EncodeError> {
        let mut request = OffsetCommitRequest::default();
        request.group_id = self.group.clone();
        request.generation_id_or_member_epoch = self.member.map_or(-1, |m| m.generation);
        request.member_id = self.member.map_or_else(StrBytes::default, |m| m.id.clone());
        request.retention_time_ms = -1;
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = self.topic.clone();
        topic.partitions = (0..self.partitions)
            .map(|index| {
                let mut partition = OffsetCommitRequestPartition::default();
                partition.partition_index = index;
                partition.committed_offset = self.offset;
                partition.committed_leader_epoch = -1;
                partition.committed_metadata = Some(StrBytes::default());
                partition
            })
            .collect();
        request.topics = vec![topic];
        control::encode(correlation, &request, version)
    }
}

/// A member's heartbeat as a whole frame.
pub(super) fn heartbeat(
    group: &StrBytes,
    member: &Member,
    correlation: i32,
    version: i16,
) -> Result<BytesMut, EncodeError> {
    let mut request = HeartbeatRequest::default();
    request.group_id = group.clone();
    request.generation_id = member.generation;
    request.member_id = member.id.clone();
    control::encode(correlation, &request, version)
}

/// What a coordinator says to a commit of `partitions`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All are stored.
    Stored,
    /// The first error code.
    Refused(i16),
    /// It says nothing of some partitions.
    LeftOut,
}

/// Reads the answer to a commit, its length left out.
pub(super) fn committed(
    frame: Bytes,
    version: i16,
    partitions: i32,
) -> Result<Verdict, DecodeError> {
    let answer = control::decode::<OffsetCommitRequest>(frame, version)?;
    let mut told = 0;
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code != 0 {
            return Ok(Verdict::Refused(partition.error_code));
        }
        told += 1;
    }
    Ok(match told == partitions.max(0) as usize {
        true => Verdict::Stored,
        false => Verdict::LeftOut,
    })
}

/// Reads the answer to a heartbeat: its error code, 0 for none.
pub(super) fn heard(frame: Bytes, version: i16) -> Result<i16, DecodeError> {
    Ok(control::decode::<HeartbeatRequest>(frame, version)?.error_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_wire::offset_commit_response::{
        OffsetCommitResponsePartition, OffsetCommitResponseTopic,
    };
    use kafka_wire::{OffsetCommitResponse, ResponseHeader, response_header_version_for};
    use kafka_wire_core::{ApiVersion, KafkaEncode};

    fn answer(errors: &[i16], version: i16) -> Bytes {
        let mut response = OffsetCommitResponse::default();
        let mut topic = OffsetCommitResponseTopic::default();
        topic.name = "t".into();
        topic.partitions = errors
            .iter()
            .map(|&error| {
                let mut partition = OffsetCommitResponsePartition::default();
                partition.error_code = error;
                partition
            })
            .collect();
        response.topics = vec![topic];
        let version = ApiVersion::new(version);
        let header = response_header_version_for::<OffsetCommitRequest>(version).unwrap();
        let mut frame = BytesMut::new();
        let front = ResponseHeader::default();
        front
            .encode_into(&mut frame, ApiVersion::new(header))
            .unwrap();
        response.encode_into(&mut frame, version).unwrap();
        frame.freeze()
    }

    #[test]
    fn a_commit_is_stored_when_every_partition_is() {
        for version in OFFSET_COMMIT_MIN..=OFFSET_COMMIT {
            let verdict = |errors: &[i16]| committed(answer(errors, version), version, 2).unwrap();
            assert_eq!(verdict(&[0, 0]), Verdict::Stored);
            assert_eq!(verdict(&[0, 22]), Verdict::Refused(22));
            assert_eq!(verdict(&[0]), Verdict::LeftOut);
        }
        assert!(committed(Bytes::from_static(b"\0\0"), OFFSET_COMMIT, 1).is_err());
    }

    #[test]
    fn members_and_others_commit_in_every_version() {
        let member = Member {
            id: "m".into(),
            generation: 7,
        };
        let (group, topic) = (StrBytes::from("g"), StrBytes::from("t"));
        for member in [None, Some(&member)] {
            let commit = Commit {
                group: &group,
                topic: &topic,
                partitions: 3,
                member,
                offset: 9,
            };
            for version in OFFSET_COMMIT_MIN..=OFFSET_COMMIT {
                let frame = commit.encode(5, version).unwrap();
                let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
                assert_eq!(length as usize, frame.len() - 4);
                assert_eq!(frame[4..8], [0, 8, 0, version as u8]);
            }
        }
    }
}
