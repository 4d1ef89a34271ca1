//! Requests that most tests need.

use bytes::Bytes;
use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::fetch_response::PartitionData;
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{
    CreateTopicsRequest, FetchRequest, FetchResponse, MetadataRequest, ProduceRequest,
    ProduceResponse,
};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::message;

use super::world::{Conn, World};

/// A batch of records with these values.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (at, value) in values.iter().enumerate() {
        builder.push(&NewRecord {
            timestamp_ms: 1_000 + at as i64,
            value: Some(value),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

pub fn create(world: &mut World, conn: Conn, name: &str, partitions: i32) {
    let request = message!(CreateTopicsRequest {
        topics: vec![message!(CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 3,
        })],
        timeout_ms: 1000,
    });
    let response = world.call(conn, 5, &request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    assert_eq!(response.topics[0].num_partitions, partitions);
}

/// One partition with these settings.
pub fn create_with(world: &mut World, conn: Conn, name: &str, configs: &[(&str, &str)]) {
    let config = |&(name, value): &(&str, &str)| {
        message!(CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        })
    };
    let request = message!(CreateTopicsRequest {
        topics: vec![message!(CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
        })],
        timeout_ms: 1000,
    });
    let response = world.call(conn, 5, &request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

pub fn metadata_of(name: &str) -> MetadataRequest {
    message!(MetadataRequest {
        topics: Some(vec![message!(MetadataRequestTopic {
            name: Some(name.into()),
        })]),
    })
}

/// Leaders of a topic's partitions.
pub fn leaders(world: &mut World, conn: Conn, name: &str) -> Vec<i32> {
    let response = world.call(conn, 9, &metadata_of(name));
    let topic = &response.topics[0];
    assert_eq!(topic.error_code, 0, "{topic:?}");
    topic.partitions.iter().map(|p| p.leader_id).collect()
}

pub fn produce_request(topic: &str, index: i32, acks: i16, records: Bytes) -> ProduceRequest {
    message!(ProduceRequest {
        acks: acks,
        timeout_ms: 30_000,
        topic_data: vec![message!(TopicProduceData {
            name: topic.into(),
            partition_data: vec![message!(PartitionProduceData {
                index: index,
                records: Some(records),
            })],
        })],
    })
}

/// Produces one batch; the error code and the base offset.
pub fn produce(
    world: &mut World,
    conn: Conn,
    topic: &str,
    index: i32,
    records: Bytes,
) -> (i16, i64) {
    let response = world.call(conn, 8, &produce_request(topic, index, -1, records));
    outcome(&response)
}

pub fn outcome(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

pub fn fetch_request(topic: &str, partitions: &[(i32, i64)], wait_ms: i32) -> FetchRequest {
    let partition = |&(index, offset): &(i32, i64)| {
        message!(FetchPartition {
            partition: index,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
        })
    };
    message!(FetchRequest {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![message!(FetchTopic {
            topic: topic.into(),
            partitions: partitions.iter().map(partition).collect(),
        })],
    })
}

pub fn fetched(response: &FetchResponse) -> &PartitionData {
    &response.responses[0].partitions[0]
}
