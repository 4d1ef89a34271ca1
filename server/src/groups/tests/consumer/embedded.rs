//! The bytes within JoinGroup and SyncGroup, as consumers write and read them: partitions of the topic called `topic`.

use bytes::BytesMut;
use kafka_wire::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, consumer_protocol_assignment,
    consumer_protocol_subscription, decode_consumer_protocol_assignment,
    encode_consumer_protocol_assignment, encode_consumer_protocol_subscription,
};
use kafka_wire_core::{ApiVersion, DecodeLimits};

use super::*;

/// A subscription to `topics` of a member that has `owned`.
pub(super) fn said(topics: &[&str], owned: &[i32], version: i16) -> Bytes {
    let mut of_topic = consumer_protocol_subscription::TopicPartition::default();
    of_topic.topic = "topic".into();
    of_topic.partitions = owned.to_vec();
    let mut said = ConsumerProtocolSubscription::default();
    said.topics = topics.iter().map(|topic| StrBytes::from(*topic)).collect();
    said.owned_partitions = match owned.is_empty() {
        true => Vec::new(),
        false => vec![of_topic],
    };
    let mut bytes = BytesMut::new();
    encode_consumer_protocol_subscription(&mut bytes, &said, ApiVersion::new(version)).unwrap();
    bytes.freeze()
}

/// An assignment of partitions, as a leader's assignor writes it.
pub(super) fn write_assignment(partitions: &[i32], user_data: Option<&'static [u8]>) -> Bytes {
    let mut of_topic = consumer_protocol_assignment::TopicPartition::default();
    of_topic.topic = "topic".into();
    of_topic.partitions = partitions.to_vec();
    let mut assignment = ConsumerProtocolAssignment::default();
    assignment.assigned_partitions = vec![of_topic];
    assignment.user_data = user_data.map(Bytes::from_static);
    let mut bytes = BytesMut::new();
    encode_consumer_protocol_assignment(&mut bytes, &assignment, ApiVersion::new(1)).unwrap();
    bytes.freeze()
}

/// The partitions of an assignment; without bytes there is none.
pub(super) fn read_assignment(bytes: &Bytes) -> Vec<i32> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let (version, found) =
        decode_consumer_protocol_assignment(bytes.clone(), DecodeLimits::default()).unwrap();
    assert_eq!(version.value(), 1, "in the member's version");
    let topics = found.assigned_partitions.into_iter();
    topics.flat_map(|of_topic| of_topic.partitions).collect()
}
