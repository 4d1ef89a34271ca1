//! Fetch and ListOffsets.

use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::{FetchRequest, ListOffsetsRequest};
use ringlog_engine::batch::BatchHeader;
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

/// Base offsets of the batches in a response's records.
pub fn bases(records: &[u8]) -> Vec<i64> {
    let (mut rest, mut bases) = (records, Vec::new());
    while let Ok(header) = BatchHeader::parse(rest) {
        bases.push(header.base_offset.get());
        rest = &rest[header.total_len()..];
    }
    assert!(rest.is_empty(), "whole batches");
    bases
}

#[test]
fn every_version_returns_what_was_produced() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    for value in [b"a", b"b", b"c"] {
        produce(&mut world, conn, "t", 0, batch(&[value]));
    }
    for version in 4..=12 {
        let response = world.call(conn, version, &fetch_request("t", &[(0, 1)], 0));
        let found = fetched(&response);
        assert_eq!(
            (found.error_code, found.high_watermark),
            (0, 3),
            "version {version}"
        );
        assert_eq!(found.last_stable_offset, 3);
        assert_eq!(bases(found.records.as_ref().expect("records")), [1, 2]);
    }
}

#[test]
fn an_empty_fetch_waits_for_data_or_its_patience() {
    let mut world = World::new(1, &[]);
    let (reader, writer) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 2);
    let request = fetch_request("t", &[(0, 0), (1, 0)], 500);
    world.send(reader, 11, &request);
    world.pass_ms(499);
    assert!(world.take::<FetchRequest>(reader, 11).is_none());
    world.pass_ms(2);
    let empty = world
        .take::<FetchRequest>(reader, 11)
        .expect("patience ended");
    assert_eq!(empty.responses[0].partitions.len(), 2);
    assert!(
        fetched(&empty)
            .records
            .as_ref()
            .is_none_or(|r| r.is_empty())
    );

    world.send(reader, 11, &request);
    world.pass_ms(100);
    produce(&mut world, writer, "t", 1, batch(&[b"x"]));
    let response = world.take::<FetchRequest>(reader, 11).expect("data came");
    let second = &response.responses[0].partitions[1];
    assert_eq!(bases(second.records.as_ref().expect("records")), [0]);
}

#[test]
fn a_long_poll_holds_what_follows_and_keeps_the_order() {
    let mut world = World::new(1, &[]);
    let (conn, writer) = (world.connect(0), world.connect(0));
    create(&mut world, conn, "t", 1);
    world.send(conn, 11, &fetch_request("t", &[(0, 0)], 10_000));
    world.send(conn, 9, &metadata_of("t"));
    world.pass_ms(100);
    assert!(world.take_raw(conn, 3, 9).is_none(), "the fetch is first");
    produce(&mut world, writer, "t", 0, batch(&[b"x"]));
    assert!(world.take::<FetchRequest>(conn, 11).is_some());
    assert!(world.take_raw(conn, 3, 9).is_some());
}

#[test]
fn minimum_bytes_are_waited_for() {
    let mut world = World::new(1, &[]);
    let (reader, writer) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 1);
    let mut request = fetch_request("t", &[(0, 0)], 10_000);
    request.min_bytes = 3 * batch(&[b"x"]).len() as i32;
    world.send(reader, 11, &request);
    for count in 1..=3 {
        assert!(world.take_raw(reader, 1, 11).is_none(), "after {count}");
        produce(&mut world, writer, "t", 0, batch(&[b"x"]));
    }
    let response = world.take::<FetchRequest>(reader, 11).expect("enough");
    let records = fetched(&response).records.clone().expect("records");
    assert_eq!(bases(&records), [0, 1, 2]);
}

#[test]
fn limits_hold_but_the_first_batch_always_comes() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    for index in [0, 0, 1] {
        produce(&mut world, conn, "t", index, batch(&[&[9; 5000]]));
    }
    let mut request = fetch_request("t", &[(0, 0), (1, 0)], 0);
    request.max_bytes = 100;
    let response = world.call(conn, 11, &request);
    let partitions = &response.responses[0].partitions;
    assert_eq!(bases(partitions[0].records.as_ref().expect("records")), [0]);
    assert!(partitions[1].records.as_ref().is_none_or(|r| r.is_empty()));
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = 100;
    }
    request.max_bytes = 1 << 20;
    let response = world.call(conn, 11, &request);
    let partitions = &response.responses[0].partitions;
    assert_eq!(bases(partitions[0].records.as_ref().expect("records")), [0]);
    assert!(partitions[1].records.as_ref().is_none_or(|r| r.is_empty()));
}

#[test]
fn wrong_places_have_kafkas_codes_and_end_the_wait() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let leaders = leaders(&mut world, conn, "t");
    let here = leaders.iter().position(|l| *l == 0).expect("one is") as i32;
    let cases = [
        ("t", here, 5, error::OFFSET_OUT_OF_RANGE),
        ("t", here, -1, error::OFFSET_OUT_OF_RANGE),
        ("t", 1 - here, 0, error::NOT_LEADER_OR_FOLLOWER),
        ("t", 9, 0, error::UNKNOWN_TOPIC_OR_PARTITION),
        ("nope", 0, 0, error::UNKNOWN_TOPIC_OR_PARTITION),
    ];
    for (topic, index, offset, code) in cases {
        world.send(conn, 11, &fetch_request(topic, &[(index, offset)], 60_000));
        let response = world.take::<FetchRequest>(conn, 11).expect("at once");
        assert_eq!(fetched(&response).error_code, code);
    }
}

#[test]
fn what_has_left_memory_is_read_from_segments() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let value = vec![3; 50 << 10];
    let batches = 100;
    for at in 0..batches {
        assert_eq!(produce(&mut world, conn, "t", 0, batch(&[&value])), (0, at));
    }
    let mut next = 0;
    while next < batches {
        let response = world.call(conn, 11, &fetch_request("t", &[(0, next)], 0));
        let records = fetched(&response).records.clone().expect("records");
        for base in bases(&records) {
            assert_eq!(base, next);
            next += 1;
        }
    }
}

#[test]
fn a_deleted_topic_ends_waiting_fetches() {
    let mut world = World::new(1, &[]);
    let (reader, admin) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 1);
    world.send(reader, 11, &fetch_request("t", &[(0, 0)], 60_000));
    let request = message!(kafka_wire::DeleteTopicsRequest {
        topic_names: vec!["t".into()],
    });
    world.call(admin, 5, &request);
    let response = world.take::<FetchRequest>(reader, 11).expect("at once");
    assert_eq!(
        fetched(&response).error_code,
        error::UNKNOWN_TOPIC_OR_PARTITION
    );
}

#[test]
fn a_client_that_leaves_takes_its_fetch_along() {
    let mut world = World::new(1, &[]);
    let (reader, writer) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 1);
    world.send(reader, 11, &fetch_request("t", &[(0, 0)], 60_000));
    world.disconnect(reader);
    assert_eq!(produce(&mut world, writer, "t", 0, batch(&[b"x"])), (0, 0));
}

fn offset_at(world: &mut World, conn: Conn, version: i16, timestamp: i64) -> (i16, i64, i64) {
    let request = message!(ListOffsetsRequest {
        replica_id: -1,
        topics: vec![message!(ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![message!(ListOffsetsPartition {
                timestamp: timestamp,
            })],
        })],
    });
    let response = world.call(conn, version, &request);
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset, found.timestamp)
}

#[test]
fn offsets_are_found_by_position_and_time() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    assert_eq!(
        offset_at(&mut world, conn, 7, -3),
        (0, -1, -1),
        "an empty log"
    );
    // Timestamps 1000, 1001, 1002.
    produce(&mut world, conn, "t", 0, batch(&[b"a", b"b", b"c"]));
    for version in 1..=7 {
        assert_eq!(offset_at(&mut world, conn, version, -2), (0, 0, -1));
        assert_eq!(offset_at(&mut world, conn, version, -1), (0, 3, -1));
        assert_eq!(offset_at(&mut world, conn, version, 1001), (0, 1, 1001));
        assert_eq!(offset_at(&mut world, conn, version, 5000), (0, -1, -1));
    }
    assert_eq!(offset_at(&mut world, conn, 7, -3), (0, 2, 1002));
}

#[test]
fn a_leader_epoch_from_the_future_is_refused() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, batch(&[b"x"]));
    for (epoch, code) in [(-1, 0), (0, 0), (1000, error::UNKNOWN_LEADER_EPOCH)] {
        let mut request = fetch_request("t", &[(0, 0)], 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = world.call(conn, 11, &request);
        assert_eq!(fetched(&response).error_code, code, "fetch with {epoch}");
        let request = message!(ListOffsetsRequest {
            replica_id: -1,
            topics: vec![message!(ListOffsetsTopic {
                name: "t".into(),
                partitions: vec![message!(ListOffsetsPartition {
                    timestamp: -1,
                    current_leader_epoch: epoch,
                })],
            })],
        });
        let response = world.call(conn, 5, &request);
        assert_eq!(response.topics[0].partitions[0].error_code, code, "{epoch}");
    }
}

#[test]
fn clients_that_never_read_leave_memory_for_those_that_do() {
    const LIMIT: usize = 1 << 20;
    let limit = LIMIT.to_string();
    let settings = [
        ("ringlog.response.memory.bytes", &*limit),
        ("log.retention.ms", "-1"),
    ];
    let mut world = World::new(1, &settings);
    let writer = world.connect(0);
    create(&mut world, writer, "t", 1);
    let batch = batch(&[&vec![3; 50 << 10]]);
    for at in 0..40 {
        assert_eq!(produce(&mut world, writer, "t", 0, batch.clone()), (0, at));
    }
    let deaf: Vec<Conn> = (0..60).map(|_| world.connect(0)).collect();
    let mut request = fetch_request("t", &[(0, 0)], 60_000);
    request.topics[0].partitions[0].partition_max_bytes = 500 << 10;
    for &conn in &deaf {
        world.stop_reading(conn);
        for _ in 0..5 {
            world.send(conn, 11, &request);
        }
        world.pass_ms(1);
    }
    let bound = 2 * LIMIT;
    let unsent = world.server(0).conns.unsent();
    assert!((LIMIT..bound).contains(&unsent), "{unsent}");
    assert!(world.server(0).fetches().waiting > 60);
    // Who reads is served, if in small pieces.
    for _ in 0..20 {
        let response = world.call(writer, 11, &request);
        let records = fetched(&response).records.as_ref().expect("records");
        assert!((1..=64 << 10).contains(&records.len()));
        assert!(world.server(0).conns.unsent() < bound);
    }
    // Who takes nothing makes way for others in the end, and nothing is left behind.
    world.pass_ms(32_000);
    assert!(deaf.iter().any(|conn| world.is_closed(*conn)), "stalled");
    assert!(world.server(0).conns.unsent() < bound);
    for conn in deaf {
        world.disconnect(conn);
    }
    let left = (
        world.server(0).conns.unsent(),
        world.server(0).fetches().waiting,
    );
    assert_eq!(left, (0, 0));
    let response = world.call(writer, 11, &request);
    let records = fetched(&response).records.as_ref().expect("records");
    assert!(records.len() > 400 << 10, "all again");
}

#[test]
fn while_memory_is_short_readers_get_small_pieces() {
    let settings = [
        ("ringlog.response.memory.bytes", "1048576"),
        ("log.retention.ms", "-1"),
    ];
    let mut world = World::new(1, &settings);
    let (reader, deaf) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 1);
    let batch = batch(&[&[3; 30 << 10]]);
    for _ in 0..50 {
        produce(&mut world, reader, "t", 0, batch.clone());
    }
    world.stop_reading(deaf);
    let mut request = fetch_request("t", &[(0, 0)], 0);
    request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
    for _ in 0..2 {
        world.send(deaf, 11, &request);
    }
    world.pass_ms(1);
    assert!(world.server(0).conns.unsent() > 1 << 20);
    let mut next = 0;
    while next < 50 {
        let response = world.call(reader, 11, &fetch_request("t", &[(0, next)], 100));
        let records = fetched(&response).records.clone().expect("records");
        assert!(!records.is_empty() && records.len() <= 64 << 10);
        next += bases(&records).len() as i64;
    }
    world.read_again(deaf);
    let response = world.call(reader, 11, &request);
    let records = fetched(&response).records.clone().expect("records");
    assert!(records.len() > 500 << 10, "all again");
}
