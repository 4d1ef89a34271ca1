//! What members of the classic protocol say and hear within bytes that are opaque to JoinGroup and SyncGroup.
//!
//! Source: Kafka's schemas `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, each behind its version. Later
//! versions only add to the end, so one of the future is read as the last that is known (`ConsumerProtocol` of Apache Kafka).

use bytes::{Buf, Bytes, BytesMut};
use kafka_wire::consumer_protocol_assignment::TopicPartition;
use kafka_wire::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, KafkaMessage,
    encode_consumer_protocol_assignment,
};
use kafka_wire_core::ApiVersion;

use super::super::topics::Topics;
use super::member::{Assigned, Partitions};
use crate::wire;

/// The last version that is known of both.
const VERSION_MAX: i16 = 3;

/// What a member subscribes to, and has.
pub(super) fn subscription(metadata: &[u8]) -> Option<ConsumerProtocolSubscription> {
    read(metadata)
}

/// What a leader has assigned; without bytes nothing has been.
pub(super) fn assignment(bytes: &[u8]) -> Option<ConsumerProtocolAssignment> {
    match bytes {
        [] => Some(ConsumerProtocolAssignment::default()),
        bytes => read(bytes),
    }
}

fn read<M: KafkaMessage>(mut bytes: &[u8]) -> Option<M> {
    let version = bytes.try_get_i16().ok().filter(|version| *version >= 0)?;
    wire::decode(bytes, version.min(VERSION_MAX)).ok()
}

/// Partitions by the ids of their topics, without those that do not exist.
pub(super) fn by_id<'a>(
    named: impl Iterator<Item = (&'a str, &'a [i32])>,
    topics: &dyn Topics,
) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, indexes) in named {
        if let Some(topic) = topics.topic(name) {
            let exist = indexes
                .iter()
                .filter(|i| (0..topic.partitions).contains(*i));
            let of_topic = partitions.entry(topic.id).or_default();
            of_topic.extend(exist);
        }
    }
    partitions.retain(|_, of_topic| !of_topic.is_empty());
    partitions
}

/// An assignment in the version in which the member that said `metadata` speaks.
pub(super) fn encode(assigned: &Assigned, metadata: &[u8], topics: &dyn Topics) -> Bytes {
    let named = assigned.iter().filter_map(|(id, partitions)| {
        let mut of_topic = TopicPartition::default();
        of_topic.topic = topics.name(*id)?.into();
        of_topic.partitions = partitions.keys().copied().collect();
        Some(of_topic)
    });
    let mut assignment = ConsumerProtocolAssignment::default();
    assignment.assigned_partitions = named.collect();
    let version = metadata.get(..2).map_or(0, |mut prefix| prefix.get_i16());
    let version = ApiVersion::new(version.clamp(0, VERSION_MAX));
    let mut out = BytesMut::new();
    // Names come from the catalog, so they fit.
    match encode_consumer_protocol_assignment(&mut out, &assignment, version) {
        Ok(_) => out.freeze(),
        Err(_) => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::StrBytes;
    use super::*;

    #[test]
    fn a_subscription_of_the_future_is_read_as_the_last_known_version() {
        // Version 9: topics, user data, owned partitions, generation, rack, and something new.
        let mut bytes = vec![0, 9, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255];
        bytes.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5]);
        bytes.extend([0, 0, 0, 7, 255, 255, 1, 2, 3]);
        let found = subscription(&bytes).unwrap();
        assert_eq!(found.topics, [StrBytes::from("t")]);
        assert_eq!(found.owned_partitions[0].partitions, [5]);
        assert_eq!((found.generation_id, found.rack_id), (7, None));
    }

    #[test]
    fn what_is_cut_short_or_of_a_negative_version_is_refused() {
        assert_eq!(subscription(&[]), None);
        assert_eq!(subscription(&[255, 255, 0, 0, 0, 0]), None);
        assert_eq!(subscription(&[0, 0, 0, 0, 0, 1, 0]), None);
        assert_eq!(assignment(&[0]), None);
        assert_eq!(assignment(&[]), Some(ConsumerProtocolAssignment::default()));
    }
}
