//! Administration that Kafka's tools ask for: topics by pieces, what has settings, elections, reassignments, the quorum,
//! directories.

use kafka_wire::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_wire::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_wire::describe_quorum_request::{PartitionData, TopicData};
use kafka_wire::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_wire::elect_leaders_request::TopicPartitions;
use kafka_wire::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    ElectLeadersRequest, ListConfigResourcesRequest, ListPartitionReassignmentsRequest,
};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::World;

fn named(name: &str) -> TopicRequest {
    message!(TopicRequest { name: name.into() })
}

/// Name and partitions of each topic of a response.
fn pieces(response: &DescribeTopicPartitionsResponse) -> Vec<(String, Vec<i32>)> {
    let topics = response.topics.iter();
    topics
        .map(|t| {
            let name = t.name.as_ref().map(ToString::to_string);
            let partitions = t.partitions.iter().map(|p| p.partition_index);
            (name.unwrap_or_default(), partitions.collect())
        })
        .collect()
}

#[test]
fn topics_are_described_by_pieces() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(1);
    for (name, partitions) in [("c", 1), ("a", 3), ("b", 2)] {
        create(&mut world, conn, name, partitions);
    }
    let (mut cursor, mut all) = (None, Vec::new());
    loop {
        let request = message!(DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            cursor: cursor.take(),
        });
        let response = world.call(conn, 0, &request);
        assert!(response.topics.iter().all(|t| t.error_code == 0));
        all.push(pieces(&response));
        let Some(next) = response.next_cursor else {
            break;
        };
        cursor = Some(message!(Cursor {
            topic_name: next.topic_name,
            partition_index: next.partition_index,
        }));
    }
    let piece = |name: &str, partitions: &[i32]| (name.to_owned(), partitions.to_vec());
    let expected = [
        vec![piece("a", &[0, 1])],
        vec![piece("a", &[2]), piece("b", &[0])],
        vec![piece("b", &[1]), piece("c", &[0])],
    ];
    assert_eq!(all, expected);
}

#[test]
fn topics_are_described_as_in_metadata() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 4);
    let leaders = leaders(&mut world, conn, "a");
    let request = message!(DescribeTopicPartitionsRequest {
        topics: vec![named("a"), named("no/name"), named("absent")],
        response_partition_limit: i32::MAX,
    });
    let response = world.call(conn, 0, &request);
    let metadata = world.call(conn, 12, &metadata_of("a"));
    let topic = &response.topics[0];
    assert_eq!(topic.topic_id, metadata.topics[0].topic_id);
    let described: Vec<_> = topic.partitions.iter().map(|p| p.leader_id).collect();
    assert_eq!(described, leaders);
    for partition in &topic.partitions {
        let alone = vec![partition.leader_id];
        assert_eq!(
            (&partition.replica_nodes, &partition.isr_nodes),
            (&alone, &alone)
        );
        assert!(partition.offline_replicas.is_empty());
    }
    let codes: Vec<_> = response.topics.iter().map(|t| t.error_code).collect();
    let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(codes, [0, unknown, error::INVALID_TOPIC_EXCEPTION]);
    assert_eq!(response.next_cursor, None);
    let backwards = message!(DescribeTopicPartitionsRequest {
        topics: vec![named("a")],
        cursor: Some(message!(Cursor {
            topic_name: "a".into(),
            partition_index: -1,
        })),
    });
    let response = world.call(conn, 0, &backwards);
    assert_eq!(response.topics[0].error_code, error::INVALID_REQUEST);
}

#[test]
fn what_has_settings_is_listed() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "b", 1);
    create(&mut world, conn, "a", 1);
    let mut listed = |version: i16, types: &[i8]| {
        let request = message!(ListConfigResourcesRequest {
            resource_types: types.to_vec(),
        });
        let response = world.call(conn, version, &request);
        let resources = response.config_resources.iter();
        let found: Vec<_> = resources
            .map(|r| (r.resource_type, r.resource_name.to_string()))
            .collect();
        (response.error_code, found)
    };
    let resource = |kind: i8, name: &str| (kind, name.to_owned());
    let topics = [resource(2, "a"), resource(2, "b")];
    let brokers = [resource(4, "0"), resource(4, "1")];
    assert_eq!(listed(1, &[2]), (0, topics.to_vec()));
    assert_eq!(listed(1, &[4, 32]), (0, brokers.to_vec()));
    assert_eq!(listed(1, &[]), (0, [topics, brokers].concat()));
    assert_eq!(listed(1, &[16]), (0, Vec::new()));
    assert_eq!(listed(1, &[2, 7]), (error::UNSUPPORTED_VERSION, Vec::new()));
    assert_eq!(listed(0, &[]), (0, Vec::new()), "client metrics alone");
}

#[test]
fn no_election_is_needed() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(1);
    create(&mut world, conn, "a", 2);
    let ask = |name: &str, partitions: &[i32]| {
        message!(TopicPartitions {
            topic: name.into(),
            partitions: partitions.to_vec(),
        })
    };
    for version in 0..=2 {
        let request = message!(ElectLeadersRequest {
            topic_partitions: Some(vec![ask("a", &[1, 2]), ask("b", &[0])]),
        });
        let response = world.call(conn, version, &request);
        let results = response.replica_election_results.iter();
        let codes: Vec<Vec<i16>> = results
            .map(|t| t.partition_result.iter().map(|p| p.error_code).collect())
            .collect();
        let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
        let expected = [vec![error::ELECTION_NOT_NEEDED, unknown], vec![unknown]];
        assert_eq!(codes, expected);
        let everything = message!(ElectLeadersRequest {
            topic_partitions: None
        });
        let response = world.call(conn, version, &everything);
        let results = &response.replica_election_results;
        assert!(results.len() == 1 && results[0].partition_result.is_empty());
    }
    let strange = message!(ElectLeadersRequest { election_type: 2 });
    let response = world.call(conn, 2, &strange);
    assert_eq!(response.error_code, error::INVALID_REQUEST);
}

#[test]
fn partitions_stay_where_they_are() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 1);
    let leader = leaders(&mut world, conn, "a")[0];
    let mut alter = |name: &str, index: i32, replicas: Option<Vec<i32>>, version: i16| {
        let request = message!(AlterPartitionReassignmentsRequest {
            allow_replication_factor_change: version == 0,
            topics: vec![message!(ReassignableTopic {
                name: name.into(),
                partitions: vec![message!(ReassignablePartition {
                    partition_index: index,
                    replicas: replicas,
                })],
            })],
        });
        let response = world.call(conn, version, &request);
        assert_eq!(response.error_code, 0);
        let result = &response.responses[0].partitions[0];
        assert_eq!(result.error_message.is_some(), result.error_code != 0);
        result.error_code
    };
    let invalid = error::INVALID_REPLICA_ASSIGNMENT;
    for version in 0..=1 {
        assert_eq!(alter("a", 0, Some(vec![leader]), version), 0);
        assert_eq!(alter("a", 0, Some(vec![1 - leader]), version), invalid);
        assert_eq!(alter("a", 0, Some(vec![]), version), invalid);
        assert_eq!(alter("a", 0, Some(vec![2]), version), invalid);
        assert_eq!(alter("a", 0, Some(vec![leader; 2]), version), invalid);
        let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(alter("a", 1, Some(vec![leader]), version), unknown);
        assert_eq!(alter("b", 0, None, version), unknown);
        let nothing = error::NO_REASSIGNMENT_IN_PROGRESS;
        assert_eq!(alter("a", 0, None, version), nothing);
    }
    let two = Some(vec![leader, 1 - leader]);
    assert_eq!(alter("a", 0, two.clone(), 0), invalid);
    assert_eq!(alter("a", 0, two, 1), error::INVALID_REPLICATION_FACTOR);
    let list = message!(ListPartitionReassignmentsRequest {});
    let response = world.call(conn, 0, &list);
    assert!(response.error_code == 0 && response.topics.is_empty());
}

#[test]
fn the_quorum_is_the_controller() {
    let mut world = World::new(3, &[]);
    let conn = world.connect(2);
    create(&mut world, conn, "a", 1);
    let ask = |topic: &str, partition: i32| {
        message!(DescribeQuorumRequest {
            topics: vec![message!(TopicData {
                topic_name: topic.into(),
                partitions: vec![message!(PartitionData {
                    partition_index: partition,
                })],
            })],
        })
    };
    for version in 0..=2 {
        let response = world.call(conn, version, &ask("__cluster_metadata", 0));
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (0, 0));
        assert_eq!(partition.high_watermark, 1, "one change of the catalog");
        let ids = |replicas: &[kafka_wire::describe_quorum_response::ReplicaState]| {
            replicas.iter().map(|r| r.replica_id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&partition.current_voters), [0]);
        assert_eq!(ids(&partition.observers), [1, 2]);
        if version == 2 {
            assert_eq!(response.nodes[0].node_id, 0);
            assert_eq!(response.nodes[0].listeners[0].port, 9092);
        }
        for (topic, partition) in [("a", 0), ("__cluster_metadata", 1)] {
            let response = world.call(conn, version, &ask(topic, partition));
            let code = response.topics[0].partitions[0].error_code;
            assert_eq!(code, error::UNKNOWN_TOPIC_OR_PARTITION);
        }
    }
}

#[test]
fn there_is_one_directory() {
    let mut world = World::new(2, &[]);
    let any = world.connect(0);
    create(&mut world, any, "a", 2);
    let leaders = leaders(&mut world, any, "a");
    let conn = world.connect(leaders[0] as usize);
    let all = message!(DescribeLogDirsRequest { topics: None });
    let here = world.call(conn, 4, &all).results[0].log_dir.clone();
    for version in 1..=2 {
        let mut moved = |path: &str| {
            let request = message!(AlterReplicaLogDirsRequest {
                dirs: vec![message!(AlterReplicaLogDir {
                    path: path.into(),
                    topics: vec![message!(AlterReplicaLogDirTopic {
                        name: "a".into(),
                        partitions: vec![0, 1, 2],
                    })],
                })],
            });
            let response = world.call(conn, version, &request);
            let partitions = response.results[0].partitions.iter();
            partitions.map(|p| p.error_code).collect::<Vec<_>>()
        };
        let elsewhere = error::NOT_LEADER_OR_FOLLOWER;
        assert_eq!(
            moved(&here),
            [0, elsewhere, error::UNKNOWN_TOPIC_OR_PARTITION]
        );
        assert_eq!(moved("/another"), [error::LOG_DIR_NOT_FOUND; 3]);
    }
}
