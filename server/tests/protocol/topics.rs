//! Topics: created, found, grown, described, deleted.

use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_wire::describe_configs_request::DescribeConfigsResource;
use kafka_wire::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest,
};
use ringlog_server::message;
use ringlog_server::wire::{error, versions};

use super::util::*;
use super::world::{Conn, World};

#[test]
fn api_versions_say_what_is_served() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    for version in 0..=4 {
        let request = message!(ApiVersionsRequest {
            client_software_name: if version >= 3 {
                "kcat".into()
            } else {
                "".into()
            },
            client_software_version: if version >= 3 {
                "1.7".into()
            } else {
                "".into()
            },
        });
        let response = world.call(conn, version, &request);
        assert_eq!(response.error_code, 0);
        assert_eq!(response.api_keys.len(), versions::APIS.len());
        let produce = &response.api_keys[0];
        assert_eq!((produce.min_version, produce.max_version), (0, 12));
    }
    let nameless = message!(ApiVersionsRequest {});
    assert_eq!(
        world.call(conn, 3, &nameless).error_code,
        error::INVALID_REQUEST
    );
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let frame = world.frame_of(versions::API_VERSIONS, 99, true, b"whatever");
    world.send_raw(conn, &frame);
    let response = world
        .take::<ApiVersionsRequest>(conn, 0)
        .expect("an answer");
    assert_eq!(response.error_code, error::UNSUPPORTED_VERSION);
    assert_eq!(response.api_keys[0].api_key, versions::API_VERSIONS);
    assert!(!world.is_closed(conn));
}

#[test]
fn metadata_tells_all_some_and_none() {
    let mut world = World::new(3, &[]);
    let conn = world.connect(1);
    create(&mut world, conn, "b", 3);
    create(&mut world, conn, "a", 1);
    for version in 0..=12 {
        // Version 0 says "all" by an empty list.
        let all = message!(MetadataRequest {
            topics: (version == 0).then(Vec::new),
        });
        let response = world.call(conn, version, &all);
        let names: Vec<_> = response
            .topics
            .iter()
            .filter_map(|t| t.name.clone())
            .collect();
        assert_eq!(names, ["a".into(), "b".into()], "version {version}");
        let nodes: Vec<_> = response
            .brokers
            .iter()
            .map(|b| (b.node_id, b.port))
            .collect();
        assert_eq!(nodes, [(0, 9092), (1, 9093), (2, 9094)]);
        let mut leaders: Vec<_> = response.topics[1]
            .partitions
            .iter()
            .map(|p| p.leader_id)
            .collect();
        leaders.sort_unstable();
        assert_eq!(leaders, [0, 1, 2], "neighbours lie on different shards");
        if version >= 1 {
            let none = message!(MetadataRequest {
                topics: Some(Vec::new())
            });
            assert!(world.call(conn, version, &none).topics.is_empty());
        }
    }
}

#[test]
fn topics_asked_for_are_created_and_usable_on_every_shard() {
    let mut world = World::new(2, &[("num.partitions", "2")]);
    let conn = world.connect(0);
    let leaders = leaders(&mut world, conn, "new");
    assert_eq!(leaders.len(), 2);
    for shard in 0..2 {
        let conn = world.connect(shard);
        let index = leaders
            .iter()
            .position(|l| *l == shard as i32)
            .expect("one each");
        assert_eq!(
            produce(&mut world, conn, "new", index as i32, batch(&[b"x"])),
            (0, 0)
        );
    }
    let mut ask = metadata_of("other");
    ask.allow_auto_topic_creation = false;
    let response = world.call(conn, 9, &ask);
    assert_eq!(
        response.topics[0].error_code,
        error::UNKNOWN_TOPIC_OR_PARTITION
    );
    let response = world.call(conn, 9, &metadata_of("a/b"));
    assert_eq!(
        response.topics[0].error_code,
        error::INVALID_TOPIC_EXCEPTION
    );
    let mut world = World::new(1, &[("auto.create.topics.enable", "false")]);
    let conn = world.connect(0);
    let response = world.call(conn, 9, &metadata_of("new"));
    assert_eq!(
        response.topics[0].error_code,
        error::UNKNOWN_TOPIC_OR_PARTITION
    );
}

fn create_one(world: &mut World, conn: Conn, version: i16, topic: CreatableTopic) -> i16 {
    let request = message!(CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 1
    });
    world.call(conn, version, &request).topics[0].error_code
}

#[test]
fn creation_follows_kafkas_rules() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    let topic = |name: &str, partitions, replicas| {
        message!(CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: replicas,
        })
    };
    for version in 2..=7 {
        let good = topic(&format!("v{version}"), 1, 3);
        assert_eq!(create_one(&mut world, conn, version, good), 0);
    }
    let cases = [
        (topic("defaults", -1, -1), error::NONE),
        (topic("v2", 1, 1), error::TOPIC_ALREADY_EXISTS),
        (topic("x y", 1, 1), error::INVALID_TOPIC_EXCEPTION),
        (topic("zero", 0, 1), error::INVALID_PARTITIONS),
        (topic("minus", 1, -2), error::INVALID_REPLICATION_FACTOR),
        (topic("many", i32::MAX, 1), error::POLICY_VIOLATION),
        (topic("a.b", 1, 1), error::NONE),
        (topic("a_b", 1, 1), error::INVALID_TOPIC_EXCEPTION),
    ];
    for (topic, code) in cases {
        let name = topic.name.clone();
        assert_eq!(create_one(&mut world, conn, 7, topic), code, "{name}");
    }
    let mut configured = topic("configured", 1, 1);
    let config = |name: &str, value: &str| {
        message!(CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into())
        })
    };
    configured.configs = vec![config("retention.mss", "1")];
    assert_eq!(
        create_one(&mut world, conn, 7, configured.clone()),
        error::INVALID_CONFIG
    );
    configured.configs = vec![
        config("retention.ms", "1"),
        config("cleanup.policy", "compact"),
    ];
    assert_eq!(create_one(&mut world, conn, 7, configured), 0);
    let mut placed = topic("placed", -1, -1);
    let place = |index, brokers: Vec<i32>| {
        message!(CreatableReplicaAssignment {
            partition_index: index,
            broker_ids: brokers
        })
    };
    placed.assignments = vec![place(0, vec![1]), place(1, vec![0])];
    assert_eq!(create_one(&mut world, conn, 7, placed.clone()), 0);
    assert_eq!(leaders(&mut world, conn, "placed"), [1, 0]);
    placed.name = "misplaced".into();
    placed.assignments[1].broker_ids = vec![1];
    assert_eq!(
        create_one(&mut world, conn, 7, placed),
        error::INVALID_REPLICA_ASSIGNMENT
    );
    let twice = message!(CreateTopicsRequest {
        topics: vec![topic("d", 1, 1), topic("d", 1, 1)]
    });
    let codes: Vec<_> = world
        .call(conn, 7, &twice)
        .topics
        .iter()
        .map(|t| t.error_code)
        .collect();
    assert_eq!(codes, [error::INVALID_REQUEST]);
    let dry = message!(CreateTopicsRequest {
        topics: vec![topic("dry", 1, 1)],
        validate_only: true
    });
    assert_eq!(world.call(conn, 7, &dry).topics[0].error_code, 0);
    assert_eq!(create_one(&mut world, conn, 7, topic("dry", 1, 1)), 0);
}

#[test]
fn a_topic_created_again_is_another_topic() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, batch(&[b"old"]));
    let id = |world: &mut World| world.call(conn, 12, &metadata_of("t")).topics[0].topic_id;
    let old = id(&mut world);
    for version in 1..=5 {
        let request = message!(DeleteTopicsRequest {
            topic_names: vec!["t".into()]
        });
        let response = world.call(conn, version, &request);
        let code = if version == 1 {
            0
        } else {
            error::UNKNOWN_TOPIC_OR_PARTITION
        };
        assert_eq!(response.responses[0].error_code, code);
    }
    create(&mut world, conn, "t", 1);
    assert_ne!(id(&mut world), old);
    assert_eq!(produce(&mut world, conn, "t", 0, batch(&[b"new"])), (0, 0));
    let by_id = |id| {
        let topic = message!(kafka_wire::delete_topics_request::DeleteTopicState { topic_id: id });
        message!(DeleteTopicsRequest {
            topics: vec![topic]
        })
    };
    let gone = world.call(conn, 6, &by_id(old));
    assert_eq!(gone.responses[0].error_code, error::UNKNOWN_TOPIC_ID);
    let new = id(&mut world);
    let done = world.call(conn, 6, &by_id(new));
    assert_eq!(
        (
            done.responses[0].error_code,
            done.responses[0].name.as_deref()
        ),
        (0, Some("t"))
    );
}

#[test]
fn topics_grow_and_never_shrink() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let mut grow = |version, count, validate_only| {
        let topic = message!(CreatePartitionsTopic {
            name: "t".into(),
            count: count,
            assignments: None,
        });
        let request = message!(CreatePartitionsRequest {
            topics: vec![topic],
            validate_only: validate_only,
        });
        world.call(conn, version, &request).results[0].error_code
    };
    assert_eq!(grow(0, 2, false), error::INVALID_PARTITIONS);
    assert_eq!(grow(1, 5, true), 0);
    assert_eq!(grow(2, 3, false), 0);
    assert_eq!(grow(3, 4, false), 0);
    let leaders = leaders(&mut world, conn, "t");
    assert_eq!(leaders.len(), 4);
    let last = world.connect(leaders[3] as usize);
    assert_eq!(produce(&mut world, last, "t", 3, batch(&[b"x"])), (0, 0));
}

#[test]
fn every_setting_is_described_with_its_source() {
    let mut world = World::new(1, &[("log.retention.hours", "1")]);
    let conn = world.connect(0);
    let mut topic = message!(CreatableTopic {
        name: "t".into(),
        num_partitions: 1,
        replication_factor: 1,
    });
    topic.configs = vec![message!(CreatableTopicConfig {
        name: "segment.bytes".into(),
        value: Some("2097152".into()),
    })];
    assert_eq!(create_one(&mut world, conn, 7, topic), 0);
    for version in 1..=4 {
        let resource = |kind, name: &str| {
            message!(DescribeConfigsResource {
                resource_type: kind,
                resource_name: name.into()
            })
        };
        let request = message!(DescribeConfigsRequest {
            resources: vec![
                resource(2, "t"),
                resource(4, "0"),
                resource(2, "nope"),
                resource(4, "7")
            ],
            include_synonyms: true,
        });
        let response = world.call(conn, version, &request);
        let find = |result: usize, name: &str| {
            let configs = &response.results[result].configs;
            let found = configs
                .iter()
                .find(|c| &*c.name == name)
                .expect("described");
            (
                found.value.as_deref().unwrap_or_default().to_string(),
                found.config_source,
            )
        };
        assert_eq!(find(0, "segment.bytes"), ("2097152".into(), 1));
        assert_eq!(find(0, "retention.ms"), ("3600000".into(), 4));
        assert_eq!(find(0, "max.message.bytes"), ("1048588".into(), 5));
        assert_eq!(find(1, "log.retention.hours"), ("1".into(), 4));
        assert_eq!(
            response.results[2].error_code,
            error::UNKNOWN_TOPIC_OR_PARTITION
        );
        assert_eq!(response.results[3].error_code, error::INVALID_REQUEST);
    }
}

fn alter(world: &mut World, conn: Conn, version: i16, op: i8, name: &str, value: &str) -> i16 {
    alter_of(world, conn, (2, "t"), (version, op, name, value))
}

fn alter_of(
    world: &mut World,
    conn: Conn,
    (kind, of): (i8, &str),
    (version, op, name, value): (i16, i8, &str, &str),
) -> i16 {
    use kafka_wire::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let change = message!(AlterableConfig {
        name: name.into(),
        config_operation: op,
        value: Some(value.into()),
    });
    let request = message!(IncrementalAlterConfigsRequest {
        resources: vec![message!(AlterConfigsResource {
            resource_type: kind,
            resource_name: of.into(),
            configs: vec![change],
        })],
    });
    world.call(conn, version, &request).responses[0].error_code
}

#[test]
fn a_broker_has_nothing_to_unset_and_takes_nothing_while_it_runs() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let throttle = "leader.replication.throttled.rate";
    let unset = alter_of(&mut world, conn, (4, "0"), (1, 1, throttle, ""));
    assert_eq!(unset, error::NONE);
    let set = alter_of(&mut world, conn, (4, "0"), (1, 0, throttle, "1000"));
    assert_eq!(set, error::INVALID_REQUEST);
}

#[test]
fn settings_are_changed_one_by_one_or_replaced() {
    use kafka_wire::alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let big = batch(&[&[1; 3000]]);
    assert_eq!(
        alter(&mut world, conn, 0, 0, "max.message.bytes", "1000"),
        0
    );
    let refused = produce(&mut world, conn, "t", 0, big.clone());
    assert_eq!(refused.0, error::MESSAGE_TOO_LARGE);
    assert_eq!(alter(&mut world, conn, 1, 1, "max.message.bytes", ""), 0);
    assert_eq!(produce(&mut world, conn, "t", 0, big.clone()).0, 0);
    let wrong = alter(&mut world, conn, 1, 0, "max.message.bytes", "lots");
    assert_eq!(wrong, error::INVALID_CONFIG);
    let too_much = alter(&mut world, conn, 1, 0, "max.message.bytes", "2000000000");
    assert_eq!(too_much, error::INVALID_CONFIG);
    // MirrorMaker puts back to its default every setting that its source leaves there.
    for setting in ["local.retention.bytes", "local.retention.ms"] {
        assert_eq!(alter(&mut world, conn, 1, 1, setting, ""), 0);
    }
    assert_eq!(
        alter(&mut world, conn, 1, 2, "cleanup.policy", "compact"),
        0
    );
    assert_eq!(
        alter(&mut world, conn, 1, 9, "cleanup.policy", "x"),
        error::INVALID_REQUEST
    );
    for version in 0..=2 {
        let change = message!(AlterableConfig {
            name: "max.message.bytes".into(),
            value: Some("1000".into()),
        });
        let resource = |kind, name: &str| {
            message!(AlterConfigsResource {
                resource_type: kind,
                resource_name: name.into(),
                configs: vec![change.clone()],
            })
        };
        let request = message!(AlterConfigsRequest {
            resources: vec![resource(4, "0"), resource(2, "t"), resource(2, "nope")],
        });
        let response = world.call(conn, version, &request);
        let codes: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(codes, [error::INVALID_REQUEST, 0, unknown]);
    }
    assert_eq!(
        produce(&mut world, conn, "t", 0, big).0,
        error::MESSAGE_TOO_LARGE
    );
}

#[test]
fn log_sizes_are_described() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let records = batch(&[&[1; 500]]);
    produce(&mut world, conn, "t", 1, records.clone());
    for version in 1..=4 {
        let request = message!(DescribeLogDirsRequest { topics: None });
        let response = world.call(conn, version, &request);
        let sizes: Vec<_> = response.results[0].topics[0]
            .partitions
            .iter()
            .map(|p| (p.partition_index, p.partition_size))
            .collect();
        assert_eq!(sizes, [(0, 0), (1, records.len() as i64)]);
    }
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut world = World::new(2, &[]);
    let mut ids = Vec::new();
    for shard in [0, 1, 0, 1] {
        let conn = world.connect(shard);
        for version in 0..=5 {
            let response = world.call(
                conn,
                version,
                &message!(InitProducerIdRequest {
                    transactional_id: None,
                    transaction_timeout_ms: 1,
                }),
            );
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(response.producer_id >= 0);
            ids.push(response.producer_id);
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn the_cluster_is_described() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    for version in 0..=2 {
        let response = world.call(conn, version, &message!(DescribeClusterRequest {}));
        assert_eq!(&*response.cluster_id, "test-cluster");
        assert_eq!((response.controller_id, response.brokers.len()), (0, 2));
    }
}

#[test]
fn a_setting_without_a_value_and_a_name_used_twice_are_refused() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let topic = |name: &str, value: Option<&str>| {
        message!(CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![message!(CreatableTopicConfig {
                name: "retention.ms".into(),
                value: value.map(Into::into),
            })],
        })
    };
    let request = message!(CreateTopicsRequest {
        topics: vec![
            topic("unset", None),
            topic("twice", Some("1")),
            topic("once", Some("1")),
            topic("twice", Some("2")),
        ],
        timeout_ms: 1000,
    });
    let response = world.call(conn, 5, &request);
    let codes: Vec<_> = response
        .topics
        .iter()
        .map(|t| (t.name.to_string(), t.error_code))
        .collect();
    let expected = [
        ("unset".to_owned(), error::INVALID_CONFIG),
        ("twice".to_owned(), error::INVALID_REQUEST),
        ("once".to_owned(), 0),
    ];
    assert_eq!(codes, expected);
}
