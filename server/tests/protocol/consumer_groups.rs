//! Groups of the consumer protocol, over the wire.

use kafka_wire::consumer_group_heartbeat_request::TopicPartitions;
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_wire::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    CreatePartitionsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
    JoinGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

/// A topic with three partitions, and the group's coordinator.
fn world(settings: &[(&str, &str)]) -> (World, Conn) {
    let mut world = World::new(1, settings);
    let conn = world.connect(0);
    create(&mut world, conn, "logs", 3);
    let find = message!(FindCoordinatorRequest {
        coordinator_keys: vec!["g".into()],
    });
    let found = world.call(conn, 4, &find);
    assert_eq!(found.coordinators[0].error_code, 0);
    (world, conn)
}

fn join(member: &str) -> ConsumerGroupHeartbeatRequest {
    message!(ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["logs".into()]),
        topic_partitions: Some(Vec::new()),
        rack_id: Some("rack".into()),
    })
}

fn next(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    message!(ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
    })
}

#[test]
fn a_member_joins_commits_by_topic_id_and_is_described() {
    let (mut world, conn) = world(&[]);
    let joined = world.call(conn, 1, &join("m"));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
    let assignment = joined.assignment.expect("a first answer has one");
    let topic = &assignment.topic_partitions[0];
    assert_eq!(topic.partitions, [0, 1, 2]);
    let id = topic.topic_id;

    let commit = message!(OffsetCommitRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        generation_id_or_member_epoch: 1,
        topics: vec![message!(OffsetCommitRequestTopic {
            topic_id: id,
            partitions: vec![message!(OffsetCommitRequestPartition {
                partition_index: 2,
                committed_offset: 7,
            })],
        })],
    });
    let committed = world.call(conn, 10, &commit);
    assert_eq!(committed.topics[0].topic_id, id);
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let fetch = message!(OffsetFetchRequest {
        groups: vec![message!(OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: Some("m".into()),
            member_epoch: 1,
            topics: None,
        })],
    });
    let fetched = world.call(conn, 10, &fetch);
    let topic = &fetched.groups[0].topics[0];
    assert_eq!(
        (topic.topic_id, topic.partitions[0].committed_offset),
        (id, 7)
    );

    let describe = message!(ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into(), "none".into()],
    });
    let described = world.call(conn, 1, &describe);
    let group = &described.groups[0];
    assert_eq!(group.group_state.as_str(), "Stable");
    assert_eq!((group.group_epoch, group.assignment_epoch), (1, 1));
    assert_eq!(group.assignor_name.as_str(), "uniform");
    let member = &group.members[0];
    assert_eq!(member.rack_id.as_deref(), Some("rack"));
    assert_eq!(
        member.assignment.topic_partitions[0].topic_name.as_str(),
        "logs"
    );
    assert_eq!(member.target_assignment, member.assignment);
    assert_eq!(described.groups[1].error_code, error::GROUP_ID_NOT_FOUND);

    let list = |kind: &str| {
        message!(ListGroupsRequest {
            types_filter: vec![kind.into()]
        })
    };
    let listed = world.call(conn, 5, &list("Consumer"));
    assert_eq!(listed.groups[0].group_type.as_str(), "consumer");
    assert_eq!(world.call(conn, 5, &list("classic")).groups.len(), 0);
    let classic = message!(DescribeGroupsRequest {
        groups: vec!["g".into()]
    });
    let classic = world.call(conn, 6, &classic);
    assert_eq!(classic.groups[0].error_code, error::GROUP_ID_NOT_FOUND);
}

#[test]
fn partitions_that_are_created_are_assigned() {
    let (mut world, conn) = world(&[]);
    world.call(conn, 1, &join("m"));
    let more = message!(
        kafka_wire::create_partitions_request::CreatePartitionsTopic {
            name: "logs".into(),
            count: 5,
            assignments: None,
        }
    );
    let more = message!(CreatePartitionsRequest {
        topics: vec![more],
        timeout_ms: 1_000,
    });
    assert_eq!(world.call(conn, 2, &more).results[0].error_code, 0);
    world.pass_ms(5_000);
    let told = world.call(conn, 1, &next("m", 1));
    let assignment = told.assignment.expect("there is more to read");
    assert_eq!(assignment.topic_partitions[0].partitions, [0, 1, 2, 3, 4]);
    let mut owned = TopicPartitions::default();
    owned.topic_id = assignment.topic_partitions[0].topic_id;
    owned.partitions = assignment.topic_partitions[0].partitions.clone();
    let mut all = next("m", told.member_epoch);
    all.topic_partitions = Some(vec![owned]);
    let same = world.call(conn, 1, &all);
    assert_eq!((same.error_code, same.assignment), (0, None));
}

#[test]
fn without_the_protocol_nobody_joins() {
    let (mut world, conn) = world(&[("group.coordinator.rebalance.protocols", "classic")]);
    let refused = world.call(conn, 0, &join("m"));
    assert_eq!(refused.error_code, error::UNSUPPORTED_VERSION);
    let join = message!(JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
    });
    // Without protocols it is refused, but not for the group's sake.
    let refused = world.call(conn, 9, &join);
    assert_eq!(refused.error_code, error::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn the_feature_is_announced() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let ask = message!(ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    });
    let told = world.call(conn, 3, &ask);
    let mut features = told.finalized_features.iter();
    let feature = features.find(|feature| feature.name.as_str() == "group.version");
    assert_eq!(feature.map(|feature| feature.max_version_level), Some(1));
}

#[test]
fn while_offsets_wait_for_those_of_others_requests_may_too_unless_one_is_in_a_hurry() {
    let (mut world, conn) = world(&[]);
    let other = world.connect(0);
    let commit = |group: usize, offset| {
        message!(OffsetCommitRequest {
            group_id: format!("g-{group}").into(),
            generation_id_or_member_epoch: -1,
            topics: vec![message!(OffsetCommitRequestTopic {
                name: "logs".into(),
                partitions: vec![message!(OffsetCommitRequestPartition {
                    partition_index: 1,
                    committed_offset: offset,
                })],
            })],
        })
    };
    world.pass_ms(1_000);
    world.send(conn, 9, &commit(0, 0));
    assert!(!world.gathers(0), "a lone commit leaves at once");
    for offset in 1..4 {
        for group in 0..100 {
            world.send(conn, 9, &commit(group, offset));
            world.pass_ms(1);
        }
    }
    world.pass_ms(10);
    assert!(!world.gathers(0), "nothing waits");
    world.send(conn, 9, &commit(0, 4));
    assert!(world.gathers(0));
    // A fetch that finds nothing waits anyway.
    world.send(other, 12, &fetch_request("logs", &[(1, 0)], 500));
    assert!(world.gathers(0));
    let produced = produce_request("logs", 1, -1, batch(&[b"line"]));
    world.send(conn, 9, &produced);
    assert!(!world.gathers(0), "a record is in a hurry");
    world.pass_ms(10);
    for _ in 0..302 {
        let committed = world.take::<OffsetCommitRequest>(conn, 9);
        let committed = committed.expect("an answer to each");
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    }
    let produced = world.take::<ProduceRequest>(conn, 9);
    assert_eq!(outcome(&produced.expect("an answer")), (0, 0));
    // So is who waits for it.
    world.send(conn, 9, &commit(1, 5));
    assert!(!world.gathers(0));
    assert!(world.take::<FetchRequest>(other, 12).is_some());
}
