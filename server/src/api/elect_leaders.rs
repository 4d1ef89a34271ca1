//! ElectLeaders (KIP-183, KIP-460): a partition's only replica leads it, so no election is ever needed.

use kafka_wire::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_wire::{ElectLeadersRequest, ElectLeadersResponse};

use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

/// Kinds of elections: of the preferred replica, and of one that is not in sync.
const ELECTIONS: std::ops::RangeInclusive<i8> = 0..=1;

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: ElectLeadersRequest = request.decode()?;
    let mut response = message!(ElectLeadersResponse {});
    if !ELECTIONS.contains(&body.election_type) {
        response.error_code = error::INVALID_REQUEST;
        server.conns.reply(request.token, &response);
        return Ok(());
    }
    response.replica_election_results = match &body.topic_partitions {
        // Of all partitions only those are named whose leader changes.
        None => {
            let topics = server.catalog.topics();
            let none = |name: &str| message!(ReplicaElectionResult { topic: text(name) });
            topics.iter().map(|topic| none(&topic.name)).collect()
        }
        Some(topics) => {
            let one = |topic: &kafka_wire::elect_leaders_request::TopicPartitions| {
                let found = server.catalog.topic(&topic.topic);
                let result = |&index: &i32| {
                    let is_there = found.is_some_and(|topic| topic.key(index).is_some());
                    let (code, why) = if is_there {
                        (error::ELECTION_NOT_NEEDED, "its only replica leads it")
                    } else {
                        (
                            error::UNKNOWN_TOPIC_OR_PARTITION,
                            "there is no such partition",
                        )
                    };
                    message!(PartitionResult {
                        partition_id: index,
                        error_code: code,
                        error_message: Some(text(why)),
                    })
                };
                message!(ReplicaElectionResult {
                    topic: text(&topic.topic),
                    partition_result: topic.partitions.iter().map(result).collect(),
                })
            };
            topics.iter().map(one).collect()
        }
    };
    server.conns.reply(request.token, &response);
    Ok(())
}
