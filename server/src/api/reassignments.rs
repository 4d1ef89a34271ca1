//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455). A partition lies where its key says: asking for
//! that changes nothing, asking for anything else is refused, and no reassignment is ever under way.

use kafka_wire::alter_partition_reassignments_request::ReassignablePartition;
use kafka_wire::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_wire::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

pub(crate) fn list(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let _: ListPartitionReassignmentsRequest = request.decode()?;
    let response = message!(ListPartitionReassignmentsResponse {});
    server.conns.reply(request.token, &response);
    Ok(())
}

pub(crate) fn alter(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: AlterPartitionReassignmentsRequest = request.decode()?;
    let mut response = message!(AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: body.allow_replication_factor_change,
    });
    for topic in &body.topics {
        let one = |partition: &ReassignablePartition| {
            let allow = body.allow_replication_factor_change;
            let refused = check(server, &topic.name, partition, allow).err();
            let (code, why) = refused.unzip();
            message!(ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: code.unwrap_or(error::NONE),
                error_message: why.as_deref().map(text),
            })
        };
        response.responses.push(message!(ReassignableTopicResponse {
            name: text(&topic.name),
            partitions: topic.partitions.iter().map(one).collect(),
        }));
    }
    server.conns.reply(request.token, &response);
    Ok(())
}

/// Whether the partition is where it is wanted; else Kafka's error code and why. That says nothing of the topic's name,
/// which a request has once for all its partitions and may be as long as the request.
fn check(
    server: &Server,
    topic: &str,
    wanted: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<(), (i16, String)> {
    let index = wanted.partition_index;
    let found = server.catalog.topic(topic).and_then(|t| t.key(index));
    let key = found.ok_or_else(|| {
        let why = "there is no such partition".to_owned();
        (error::UNKNOWN_TOPIC_OR_PARTITION, why)
    })?;
    let Some(replicas) = &wanted.replicas else {
        let why = "no reassignment of it is in progress".to_owned();
        return Err((error::NO_REASSIGNMENT_IN_PROGRESS, why));
    };
    let invalid = |why: String| Err((error::INVALID_REPLICA_ASSIGNMENT, why));
    let shards = server.env.shards as i32;
    if let Some(broker) = replicas
        .iter()
        .find(|broker| !(0..shards).contains(*broker))
    {
        return invalid(format!("there is no broker {broker}"));
    }
    if let Some(twice) = (1..replicas.len()).find(|&at| replicas[..at].contains(&replicas[at])) {
        return invalid(format!("broker {} occurs twice", replicas[twice]));
    }
    match replicas[..] {
        [] => invalid("a partition without brokers".to_owned()),
        [broker] if broker == key.shard(server.env.shards) as i32 => Ok(()),
        [_] => {
            invalid("it does not move: a partition's broker follows from its topic's id".to_owned())
        }
        _ if !may_change_factor => {
            let why = "the replication factor is 1 and may not change".to_owned();
            Err((error::INVALID_REPLICATION_FACTOR, why))
        }
        _ => invalid("a partition lies on one broker".to_owned()),
    }
}
