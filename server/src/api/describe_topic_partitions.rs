//! DescribeTopicPartitions (KIP-966): topics with their partitions, in order of their names, as many at a time as the
//! client wants; a cursor says where the next response goes on.

use std::collections::BTreeSet;

use kafka_wire::describe_topic_partitions_request::TopicRequest;
use kafka_wire::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_wire::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::{Request, no_such_topic, text};
use crate::app::{Env, Server};
use crate::catalog::Topic;
use crate::message;
use crate::wire::{Malformed, error, uuid};

/// Partitions of one response at most (`max.request.partition.size.limit`).
const PARTITIONS_MAX: i32 = 2000;
/// What may be done with a topic where nothing is forbidden: a bit for each operation, by its number in Kafka's
/// `AclOperation`: read, write, create, delete, alter, describe, describe configs, alter configs.
const OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: DescribeTopicPartitionsRequest = request.decode()?;
    let (from, first) = match &body.cursor {
        Some(cursor) => (&*cursor.topic_name, cursor.partition_index),
        None => ("", 0),
    };
    if first < 0 {
        let refused = |topic: &TopicRequest| {
            message!(DescribeTopicPartitionsResponseTopic {
                error_code: error::INVALID_REQUEST,
                name: Some(text(&topic.name)),
            })
        };
        let response = message!(DescribeTopicPartitionsResponse {
            topics: body.topics.iter().map(refused).collect(),
        });
        server.conns.reply(request.token, &response);
        return Ok(());
    }
    let all = body.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        server.catalog.names().collect()
    } else {
        body.topics.iter().map(|topic| &*topic.name).collect()
    };
    let mut left = body.response_partition_limit.clamp(1, PARTITIONS_MAX);
    let mut response = message!(DescribeTopicPartitionsResponse {});
    for topic_name in names.range(from..) {
        let first = if *topic_name == from { first } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor(topic_name, first));
            break;
        }
        let Some(topic) = server.catalog.topic(topic_name) else {
            if !all {
                response.topics.push(absent(topic_name));
            }
            continue;
        };
        let found = described(&server.env, topic, first, left);
        let next = first.saturating_add(found.partitions.len() as i32);
        left -= found.partitions.len() as i32;
        response.topics.push(found);
        if next < topic.partitions {
            response.next_cursor = Some(cursor(topic_name, next));
            break;
        }
    }
    server.conns.reply(request.token, &response);
    Ok(())
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    message!(Cursor {
        topic_name: text(topic),
        partition_index: partition,
    })
}

fn absent(topic: &str) -> DescribeTopicPartitionsResponseTopic {
    message!(DescribeTopicPartitionsResponseTopic {
        error_code: no_such_topic(topic),
        name: Some(text(topic)),
    })
}

/// The topic with at most `limit` partitions from `first` on.
fn described(
    env: &Env,
    topic: &Topic,
    first: i32,
    limit: i32,
) -> DescribeTopicPartitionsResponseTopic {
    let partition = |key: ringlog_engine::id::PartitionKey| {
        let leader = key.shard(env.shards) as i32;
        message!(DescribeTopicPartitionsResponsePartition {
            partition_index: key.partition,
            leader_id: leader,
            leader_epoch: env.run.leader_epoch,
            replica_nodes: vec![leader],
            isr_nodes: vec![leader],
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
        })
    };
    let keys = topic.keys(first).take(limit as usize);
    message!(DescribeTopicPartitionsResponseTopic {
        name: Some(text(&topic.name)),
        topic_id: uuid(topic.id),
        is_internal: topic.internal,
        partitions: keys.map(partition).collect(),
        topic_authorized_operations: OPERATIONS,
    })
}
