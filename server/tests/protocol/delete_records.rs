//! DeleteRecords.

use bytes::Bytes;
use kafka_wire::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::{DeleteRecordsRequest, DeleteTopicsRequest, ListOffsetsRequest};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

fn request(topic: &str, partitions: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition = |&(index, offset): &(i32, i64)| {
        message!(DeleteRecordsPartition {
            partition_index: index,
            offset: offset,
        })
    };
    message!(DeleteRecordsRequest {
        topics: vec![message!(DeleteRecordsTopic {
            name: topic.into(),
            partitions: partitions.iter().map(partition).collect(),
        })],
        timeout_ms: 10_000,
    })
}

/// Low watermark and error code.
fn delete(world: &mut World, conn: Conn, topic: &str, index: i32, offset: i64) -> (i64, i16) {
    let response = world.call(conn, 2, &request(topic, &[(index, offset)]));
    let result = &response.topics[0].partitions[0];
    assert_eq!(result.partition_index, index);
    (result.low_watermark, result.error_code)
}

/// Offset and timestamp that ListOffsets finds.
fn listed(world: &mut World, conn: Conn, topic: &str, timestamp: i64) -> (i64, i64) {
    let request = message!(ListOffsetsRequest {
        replica_id: -1,
        topics: vec![message!(ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![message!(ListOffsetsPartition {
                timestamp: timestamp
            })],
        })],
    });
    let response = world.call(conn, 7, &request);
    let found = &response.topics[0].partitions[0];
    assert_eq!(found.error_code, error::NONE);
    (found.offset, found.timestamp)
}

fn earliest(world: &mut World, conn: Conn, topic: &str) -> i64 {
    listed(world, conn, topic, -2).0
}

fn batch_at(timestamps_ms: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for &timestamp_ms in timestamps_ms {
        builder.push(&NewRecord {
            timestamp_ms,
            value: Some(b"x"),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

#[test]
fn a_log_begins_where_its_user_says_in_every_version() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    for _ in 0..4 {
        produce(&mut world, conn, "t", 0, batch(&[b"a", b"b", b"c"]));
    }
    for (version, offset) in [(0, 2), (1, 3), (2, 7)] {
        let response = world.call(conn, version, &request("t", &[(0, offset)]));
        let result = &response.topics[0].partitions[0];
        assert_eq!((result.low_watermark, result.error_code), (offset, 0));
        assert_eq!(earliest(&mut world, conn, "t"), offset);
    }
    let response = world.call(conn, 11, &fetch_request("t", &[(0, 6)], 0));
    assert_eq!(fetched(&response).error_code, error::OFFSET_OUT_OF_RANGE);
    let response = world.call(conn, 11, &fetch_request("t", &[(0, 7)], 0));
    let found = fetched(&response);
    assert_eq!((found.error_code, found.log_start_offset), (0, 7));
    assert!(found.records.as_ref().is_some_and(|r| !r.is_empty()));
    // What is below the log's start already changes nothing.
    assert_eq!(delete(&mut world, conn, "t", 0, 3), (7, 0));
    assert_eq!(earliest(&mut world, conn, "t"), 7);
}

#[test]
fn minus_one_is_the_high_watermark_and_the_log_goes_on_from_there() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    for _ in 0..20 {
        produce(&mut world, conn, "t", 0, batch(&[&[7; 20 << 10]]));
    }
    assert_eq!(delete(&mut world, conn, "t", 0, -1), (20, 0));
    assert_eq!(earliest(&mut world, conn, "t"), 20);
    world.pass_ms(20_000);
    assert_eq!(
        world.core(0).log_bytes(world.part(0, "t", 0)),
        0,
        "the emptied segment is gone"
    );
    assert_eq!(produce(&mut world, conn, "t", 0, batch(&[b"x"])), (0, 20));
    let response = world.call(conn, 11, &fetch_request("t", &[(0, 20)], 0));
    assert_eq!(fetched(&response).high_watermark, 21);
}

#[test]
fn an_answer_waits_for_the_checkpoint() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, batch(&[b"a", b"b"]));
    let rounds = world.core(0).stats().rounds;
    world.send(conn, 2, &request("t", &[(0, 1)]));
    assert!(world.take::<DeleteRecordsRequest>(conn, 2).is_none());
    let response = loop {
        world.pass_ms(1);
        if let Some(response) = world.take::<DeleteRecordsRequest>(conn, 2) {
            break response;
        }
        assert_eq!(world.core(0).stats().rounds, rounds);
    };
    assert!(world.core(0).stats().rounds > rounds);
    assert_eq!(response.topics[0].partitions[0].low_watermark, 1);
}

#[test]
fn a_disk_that_cannot_write_times_a_request_out() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, batch(&[b"a", b"b"]));
    world.disk.faults.capacity_bytes = Some(0);
    let result = delete(&mut world, conn, "t", 0, 1);
    assert_eq!(result, (0, error::REQUEST_TIMED_OUT));
    world.disk.faults.capacity_bytes = None;
    assert_eq!(delete(&mut world, conn, "t", 0, 1), (1, 0));
}

#[test]
fn wrong_requests_have_kafkas_codes() {
    let mut world = World::new(2, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let leaders = leaders(&mut world, conn, "t");
    let here = leaders.iter().position(|l| *l == 0).expect("one is") as i32;
    produce(&mut world, conn, "t", here, batch(&[b"a"]));
    let cases = [
        ("t", here, 2, error::OFFSET_OUT_OF_RANGE),
        ("t", here, -2, error::OFFSET_OUT_OF_RANGE),
        ("t", 1 - here, 0, error::NOT_LEADER_OR_FOLLOWER),
        ("t", 2, 0, error::UNKNOWN_TOPIC_OR_PARTITION),
        ("nope", 0, 0, error::UNKNOWN_TOPIC_OR_PARTITION),
    ];
    for (topic, index, offset, code) in cases {
        let result = delete(&mut world, conn, topic, index, offset);
        assert_eq!(result, (-1, code), "{topic} {index} {offset}");
    }
    let empty = message!(DeleteRecordsRequest {});
    assert!(world.call(conn, 2, &empty).topics.is_empty());
}

#[test]
fn compacted_topics_keep_their_records() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    for (name, policy, code) in [
        ("compact", "compact", error::POLICY_VIOLATION),
        ("both", "compact,delete", error::NONE),
    ] {
        create_with(&mut world, conn, name, &[("cleanup.policy", policy)]);
        assert_eq!(delete(&mut world, conn, name, 0, 0).1, code, "{name}");
    }
}

#[test]
fn a_topic_deleted_meanwhile_ends_the_wait() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let (conn, admin) = (world.connect(0), world.connect(0));
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, batch(&[b"a", b"b"]));
    world.disk.faults.capacity_bytes = Some(0);
    world.send(conn, 2, &request("t", &[(0, 1)]));
    let topic = message!(DeleteTopicsRequest {
        topic_names: vec!["t".into()],
    });
    world.call(admin, 5, &topic);
    let response = world
        .take::<DeleteRecordsRequest>(conn, 2)
        .expect("at once");
    let result = &response.topics[0].partitions[0];
    assert_eq!(result.error_code, error::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn offsets_are_found_among_what_is_left() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    for timestamps_ms in [&[5000][..], &[3000, 4000], &[2000]] {
        produce(&mut world, conn, "t", 0, batch_at(timestamps_ms));
    }
    const NEWEST: i64 = -3;
    let mut expect = |offset: i64, wanted: &[(i64, (i64, i64))]| {
        assert_eq!(delete(&mut world, conn, "t", 0, offset).1, error::NONE);
        for &(timestamp, found) in wanted {
            let answer = listed(&mut world, conn, "t", timestamp);
            assert_eq!(answer, found, "{timestamp} from offset {offset} on");
        }
    };
    let none = (-1, -1);
    expect(0, &[(NEWEST, (0, 5000)), (2500, (0, 5000)), (-1, (4, -1))]);
    expect(1, &[(NEWEST, (2, 4000)), (2500, (1, 3000)), (4500, none)]);
    // Inside a batch.
    expect(2, &[(NEWEST, (2, 4000)), (2500, (2, 4000)), (-2, (2, -1))]);
    expect(3, &[(NEWEST, (3, 2000)), (1000, (3, 2000)), (2500, none)]);
    expect(
        -1,
        &[(NEWEST, none), (0, none), (-2, (4, -1)), (-1, (4, -1))],
    );
}
