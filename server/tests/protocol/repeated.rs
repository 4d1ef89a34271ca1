//! What occurs more than once or in great numbers in a request: described once, or refused; the size of an answer
//! follows from what there is.

use std::time::Instant;

use kafka_wire::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::create_topics_request::CreatableTopic;
use kafka_wire::delete_topics_request::DeleteTopicState;
use kafka_wire::describe_configs_request::DescribeConfigsResource;
use kafka_wire::describe_producers_request::TopicRequest;
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeProducersRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, alter_configs_request,
    incremental_alter_configs_request,
};
use kafka_wire_core::Uuid;
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

#[test]
fn a_topic_asked_for_many_times_is_told_once() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 3);
    let id = world.call(conn, 12, &metadata_of("t")).topics[0].topic_id;
    let by_name = |name: &str, topic_id| {
        message!(MetadataRequestTopic {
            name: Some(name.into()),
            topic_id: topic_id,
        })
    };
    let by_id = |topic_id| {
        message!(MetadataRequestTopic {
            name: None,
            topic_id: topic_id,
        })
    };
    let mut ask = |version: i16, topics: Vec<MetadataRequestTopic>| {
        let request = message!(MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: false,
        });
        let response = world.call(conn, version, &request);
        let topics = response.topics.into_iter();
        let told = topics.map(|t| (t.name.unwrap_or_default().to_string(), t.partitions.len()));
        told.collect::<Vec<_>>()
    };
    let told = |name: &str, partitions| (name.to_owned(), partitions);
    let names = ["t", "u", "t", "t", "u"].map(|name| by_name(name, Uuid::default()));
    assert_eq!(ask(9, names.to_vec()), [told("t", 3), told("u", 0)]);
    assert_eq!(ask(12, vec![by_id(id); 100]), [told("t", 3)]);
    // An id beside a name makes no difference.
    let both = vec![by_name("t", id), by_name("t", Uuid::from_bytes([7; 16]))];
    assert_eq!(ask(12, both), [told("t", 3)]);
}

#[test]
fn many_unknown_topics_are_answered_in_one_pass() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let topic = |n| {
        message!(MetadataRequestTopic {
            name: Some(format!("unknown-{n:06}").as_str().into()),
        })
    };
    let count = 200_000;
    let request = message!(MetadataRequest {
        topics: Some((0..count).map(topic).collect()),
    });
    let begun = Instant::now();
    let response = world.call(conn, 9, &request);
    assert_eq!(response.topics.len(), count);
    let code = error::POLICY_VIOLATION;
    assert!(response.topics.iter().all(|t| t.error_code == code));
    // Each name compared with each takes minutes.
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
}

#[test]
fn a_resource_is_described_once_with_all_that_is_asked_of_it() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let resource = |kind, name: &str, keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|&key| key.into()).collect();
        message!(DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: (!keys.is_empty()).then_some(keys),
        })
    };
    let mut resources = vec![resource(4, "0", &[]); 50];
    resources.push(resource(4, "0", &["num.partitions"]));
    resources.push(resource(2, "t", &["retention.ms", "segment.ms"]));
    resources.push(resource(2, "t", &["segment.ms", "segment.bytes"]));
    resources.push(resource(4, "00", &[]));
    resources.push(resource(4, "+0", &[]));
    let request = message!(DescribeConfigsRequest {
        resources: resources
    });
    let results = world.call(conn, 4, &request).results;
    let names: Vec<_> = results.iter().map(|r| &*r.resource_name).collect();
    assert_eq!(names, ["0", "t", "00", "+0"]);
    assert!(results[0].configs.len() > 50);
    let of_topic: Vec<_> = results[1].configs.iter().map(|c| &*c.name).collect();
    assert_eq!(of_topic, ["retention.ms", "segment.bytes", "segment.ms"]);
    for spelling in &results[2..] {
        assert_eq!(spelling.error_code, error::INVALID_REQUEST);
    }
}

#[test]
fn a_partitions_producers_are_described_once() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let topic = |indexes: &[i32]| {
        message!(TopicRequest {
            name: "t".into(),
            partition_indexes: indexes.to_vec(),
        })
    };
    let request = message!(DescribeProducersRequest {
        topics: vec![topic(&[0, 0, 0]), topic(&[1, 0, 1]), topic(&[0])],
    });
    let response = world.call(conn, 0, &request);
    let indexes = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|p| p.partition_index).collect::<Vec<_>>()
    });
    let indexes: Vec<_> = indexes.collect();
    assert_eq!(indexes, [vec![0], vec![1], vec![]]);
}

fn create_many(world: &mut World, conn: Conn, topics: &[(&str, i32)]) -> Vec<(String, i16)> {
    let topic = |&(name, partitions): &(&str, i32)| {
        message!(CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
        })
    };
    let request = message!(CreateTopicsRequest {
        topics: topics.iter().map(topic).collect(),
        validate_only: true,
    });
    let response = world.call(conn, 5, &request);
    let topics = response.topics.iter();
    topics.map(|t| (t.name.to_string(), t.error_code)).collect()
}

#[test]
fn a_request_creates_no_more_partitions_than_kafkas_controller_allows() {
    let mut world = World::new(1, &[("num.partitions", "5001")]);
    let conn = world.connect(0);
    let (good, much) = (error::NONE, error::POLICY_VIOLATION);
    let result = |name: &str, code| (name.to_owned(), code);
    let mut ask = |topics: &[(&str, i32)]| create_many(&mut world, conn, topics);
    assert_eq!(ask(&[("a", 10_000)]), [result("a", good)]);
    assert_eq!(ask(&[("a", 10_001)]), [result("a", much)]);
    let two = ask(&[("a", 5000), ("b", 5001)]);
    assert_eq!(two, [result("a", much), result("b", much)]);
    let default = ask(&[("a", -1), ("b", -1)]);
    assert_eq!(default, [result("a", much), result("b", much)]);
    // What is refused for its name alone does not count, as in Kafka.
    let twice = ask(&[("a", 9000), ("a", 9000), ("b", 10_000)]);
    let expected = [result("a", error::INVALID_REQUEST), result("b", good)];
    assert_eq!(twice, expected);
    let wrong = ask(&[("a", -2), ("b", 10_000)]);
    let expected = [result("a", error::INVALID_PARTITIONS), result("b", good)];
    assert_eq!(wrong, expected);
}

fn delete(
    world: &mut World,
    conn: Conn,
    topics: &[(Option<&str>, Uuid)],
) -> Vec<(Option<String>, i16)> {
    let topic = |&(name, id): &(Option<&str>, Uuid)| {
        message!(DeleteTopicState {
            name: name.map(Into::into),
            topic_id: id,
        })
    };
    let request = message!(DeleteTopicsRequest {
        topics: topics.iter().map(topic).collect(),
    });
    let response = world.call(conn, 6, &request);
    let responses = response.responses.iter();
    let result = responses.map(|t| (t.name.as_ref().map(ToString::to_string), t.error_code));
    result.collect()
}

#[test]
fn a_topic_to_be_deleted_twice_stays() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    for name in ["a", "b", "c", "d"] {
        create(&mut world, conn, name, 1);
    }
    let mut id = |name| world.call(conn, 12, &metadata_of(name)).topics[0].topic_id;
    let (b, c, none) = (id("b"), id("c"), Uuid::default());
    let topics = [
        (Some("a"), none),
        (None, b),
        (Some("c"), none),
        (Some("d"), none),
        (Some("a"), none),
        (None, b),
        (None, c),
        (Some("e"), none),
        (Some("e"), none),
    ];
    let refused = error::INVALID_REQUEST;
    let result = |name: &str, code| (Some(name.to_owned()), code);
    let expected = [
        result("a", refused),
        (None, refused),
        result("c", refused),
        result("d", error::NONE),
        (None, refused),
        result("e", refused),
    ];
    assert_eq!(delete(&mut world, conn, &topics), expected);
    let by_names = message!(DeleteTopicsRequest {
        topic_names: vec!["a".into(), "b".into(), "a".into()],
    });
    let response = world.call(conn, 5, &by_names);
    let codes: Vec<_> = response.responses.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [refused, error::NONE]);
    let all = world.call(conn, 9, &message!(MetadataRequest { topics: None }));
    let left: Vec<_> = all.topics.iter().flat_map(|t| t.name.as_deref()).collect();
    assert_eq!(left, ["a", "c"]);
}

#[test]
fn a_topic_to_be_grown_twice_does_not_grow() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 1);
    create(&mut world, conn, "b", 1);
    let topic = |name: &str, count| {
        message!(CreatePartitionsTopic {
            name: name.into(),
            count: count,
            assignments: None,
        })
    };
    let request = message!(CreatePartitionsRequest {
        topics: vec![topic("a", 2), topic("b", 2), topic("a", 3)],
    });
    let response = world.call(conn, 1, &request);
    let results = response.results.iter();
    let results: Vec<_> = results.map(|r| (&*r.name, r.error_code)).collect();
    assert_eq!(results, [("a", error::INVALID_REQUEST), ("b", 0)]);
    assert_eq!(leaders(&mut world, conn, "a").len(), 1);
}

/// Changes settings of topics in steps, and in the older way at once; the codes, which must be the same.
fn alter(world: &mut World, conn: Conn, resources: &[(&str, &[(&str, &str)])]) -> Vec<i16> {
    // The same in the types of either request.
    macro_rules! changes {
        ($request:ident) => {
            resources.iter().map(|(topic, settings)| {
                use $request::{AlterConfigsResource, AlterableConfig};
                let change = |&(name, value): &(&str, &str)| {
                    message!(AlterableConfig {
                        name: name.into(),
                        value: Some(value.into()),
                    })
                };
                message!(AlterConfigsResource {
                    resource_type: 2,
                    resource_name: (*topic).into(),
                    configs: settings.iter().map(change).collect(),
                })
            })
        };
    }
    let request = message!(IncrementalAlterConfigsRequest {
        resources: changes!(incremental_alter_configs_request).collect(),
    });
    let response = world.call(conn, 1, &request);
    let codes: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
    let request = message!(AlterConfigsRequest {
        resources: changes!(alter_configs_request).collect(),
    });
    let response = world.call(conn, 2, &request);
    let older: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, older);
    codes
}

#[test]
fn what_is_to_be_changed_twice_stays_as_it_is() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 1);
    create(&mut world, conn, "b", 1);
    let (short, long) = (("retention.ms", "1"), ("retention.ms", "2"));
    let refused = error::INVALID_REQUEST;
    let resources = [("a", &[short][..]), ("b", &[long]), ("a", &[long])];
    assert_eq!(alter(&mut world, conn, &resources), [refused, 0, refused]);
    let settings = [("a", &[short, ("segment.ms", "1"), long][..])];
    assert_eq!(alter(&mut world, conn, &settings), [refused]);
    let request = message!(DescribeConfigsRequest {
        resources: vec![message!(DescribeConfigsResource {
            resource_type: 2,
            resource_name: "a".into(),
            configuration_keys: Some(vec!["retention.ms".into()]),
        })],
    });
    let described = world.call(conn, 4, &request);
    let value = described.results[0].configs[0].value.as_deref();
    assert_eq!(value, Some("604800000"));
}

#[test]
fn a_setting_has_at_most_32767_bytes() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 1);
    let name = "leader.replication.throttled.replicas";
    let longest = "1".repeat(i16::MAX as usize);
    let mut set = |value: &str| alter(&mut world, conn, &[("a", &[(name, value)])]);
    assert_eq!(set(&longest), [0]);
    assert_eq!(set(&format!("{longest}1")), [error::INVALID_CONFIG]);
}

#[test]
fn a_refusal_of_a_long_name_fits_any_version() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "a", 1);
    let long = "\"".repeat(i16::MAX as usize);
    let request = message!(CreatePartitionsRequest {
        topics: vec![message!(CreatePartitionsTopic {
            name: long.as_str().into(),
            count: 2,
            assignments: None,
        })],
    });
    let response = world.call(conn, 1, &request);
    let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(response.results[0].error_code, unknown);
    let request = message!(AlterPartitionReassignmentsRequest {
        topics: vec![message!(ReassignableTopic {
            name: long.as_str().into(),
            partitions: vec![message!(ReassignablePartition { replicas: None })],
        })],
    });
    let response = world.call(conn, 0, &request);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, unknown);
    let why = partition.error_message.as_deref().unwrap_or_default();
    assert!((1..100).contains(&why.len()), "{} bytes", why.len());
}
