//! DescribeProducers: what partitions know of their idempotent and transactional producers.

use hashbrown::HashSet;
use kafka_wire::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_wire::{DescribeProducersRequest, DescribeProducersResponse};
use ringlog_engine::shard::Cx;

use super::{Request, local};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: DescribeProducersRequest = request.decode()?;
    // A partition's producers take thousands of times the room of its number, so it is described once.
    let mut seen = HashSet::new();
    let mut response = message!(DescribeProducersResponse {});
    for topic in &body.topics {
        let indexes = topic.partition_indexes.iter().copied();
        let partitions = indexes.filter(|&index| seen.insert((&*topic.name, index)));
        response.topics.push(message!(TopicResponse {
            name: topic.name.clone(),
            partitions: partitions
                .map(|index| describe(server, cx, &topic.name, index))
                .collect(),
        }));
    }
    server.conns.reply(request.token, &response);
    Ok(())
}

fn describe(server: &Server, cx: &Cx<'_>, topic: &str, index: i32) -> PartitionResponse {
    let found = local(&server.env, &server.catalog, topic, index).and_then(|key| {
        let part = cx.core.lookup(key);
        part.and_then(|part| cx.core.producers(part))
            .ok_or(error::UNKNOWN_TOPIC_OR_PARTITION)
    });
    let producers = match found {
        Ok(producers) => producers,
        Err(code) => {
            return message!(PartitionResponse {
                partition_index: index,
                error_code: code,
            });
        }
    };
    let active = producers.iter().map(|(id, producer)| {
        message!(ProducerState {
            producer_id: id,
            producer_epoch: i32::from(producer.epoch),
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_append_ms,
            coordinator_epoch: producer.coordinator_epoch,
            current_txn_start_offset: producers.ongoing(id).unwrap_or(-1),
        })
    });
    message!(PartitionResponse {
        partition_index: index,
        active_producers: active.collect(),
    })
}
