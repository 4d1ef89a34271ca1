//! DescribeQuorum (KIP-595, KIP-836, KIP-853): who keeps the catalog. The controller is broker 0, the only voter; the
//! others follow it, and nothing is answered before they know it. The catalog's version stands for offsets.

use kafka_wire::describe_quorum_request::TopicData as Asked;
use kafka_wire::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_wire::{DescribeQuorumRequest, DescribeQuorumResponse};
use kafka_wire_core::Uuid;
use ringlog_engine::shard::Cx;

use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

/// Kafka's topic for the metadata of a cluster, which has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";
const CONTROLLER: i32 = 0;
/// Name of the one listener that every broker has.
const LISTENER: &str = "PLAINTEXT";

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: DescribeQuorumRequest = request.decode()?;
    let is_right = |topic: &Asked| {
        *topic.topic_name == *METADATA_TOPIC
            && matches!(&topic.partitions[..], [only] if only.partition_index == 0)
    };
    let response = match &body.topics[..] {
        [only] if is_right(only) => described(server, request.header.api_version, cx.now.wall_ms),
        topics => message!(DescribeQuorumResponse {
            topics: topics.iter().map(unknown).collect(),
        }),
    };
    server.conns.reply(request.token, &response);
    Ok(())
}

fn described(server: &Server, version: i16, now_ms: i64) -> DescribeQuorumResponse {
    let env = &server.env;
    // Directories and addresses came with version 2.
    let tells_places = version >= 2;
    let directory = if tells_places {
        env.run.dir_id
    } else {
        [0; 16]
    };
    let end = server.catalog.version as i64;
    let replica = |node: u32| {
        let leads = node as i32 == CONTROLLER;
        message!(ReplicaState {
            replica_id: node as i32,
            replica_directory_id: Uuid::from_bytes(directory),
            log_end_offset: end,
            last_fetch_timestamp: if leads { -1 } else { now_ms },
            last_caught_up_timestamp: now_ms,
        })
    };
    let partition = message!(PartitionData {
        leader_id: CONTROLLER,
        leader_epoch: env.run.leader_epoch,
        high_watermark: end,
        current_voters: vec![replica(0)],
        observers: (1..env.shards).map(replica).collect(),
    });
    let listener = message!(Listener {
        name: text(LISTENER),
        host: text(&env.config.advertise),
        port: env.config.port,
    });
    let node = message!(Node {
        node_id: CONTROLLER,
        listeners: vec![listener],
    });
    message!(DescribeQuorumResponse {
        topics: vec![message!(TopicData {
            topic_name: text(METADATA_TOPIC),
            partitions: vec![partition],
        })],
        nodes: if tells_places { vec![node] } else { Vec::new() },
    })
}

/// Any other topic has no quorum.
fn unknown(asked: &Asked) -> TopicData {
    let one = |p: &kafka_wire::describe_quorum_request::PartitionData| {
        message!(PartitionData {
            partition_index: p.partition_index,
            error_code: error::UNKNOWN_TOPIC_OR_PARTITION,
        })
    };
    message!(TopicData {
        topic_name: text(&asked.topic_name),
        partitions: asked.partitions.iter().map(one).collect(),
    })
}
