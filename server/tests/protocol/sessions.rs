//! Fetch sessions (KIP-227).

use kafka_wire::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_wire::{DeleteTopicsRequest, FetchRequest, FetchResponse};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

/// A request in session `id`, naming these partitions of topic `t` with their offsets.
fn in_session(id: i32, epoch: i32, partitions: &[(i32, i64)], wait_ms: i32) -> FetchRequest {
    let mut request = fetch_request("t", partitions, wait_ms);
    request.session_id = id;
    request.session_epoch = epoch;
    if partitions.is_empty() {
        request.topics.clear();
    }
    request
}

/// Partitions in a response: number, error code, bytes of records.
fn told(response: &FetchResponse) -> Vec<(i32, i16, usize)> {
    let partitions = response.responses.iter().flat_map(|t| &t.partitions);
    partitions
        .map(|p| {
            let bytes = p.records.as_ref().map_or(0, |r| r.len());
            (p.partition_index, p.error_code, bytes)
        })
        .collect()
}

fn open(world: &mut World, conn: Conn, partitions: &[(i32, i64)]) -> i32 {
    let response = world.call(conn, 11, &in_session(0, 0, partitions, 0));
    assert_eq!(response.error_code, 0);
    assert_eq!(told(&response).len(), partitions.len(), "all are told of");
    assert!(response.session_id > 0);
    response.session_id
}

fn two_connections(partitions: i32, settings: &[(&str, &str)]) -> (World, Conn, Conn) {
    let mut world = World::new(1, settings);
    let (reader, writer) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", partitions);
    (world, reader, writer)
}

#[test]
fn a_session_tells_only_what_is_new() {
    let (mut world, conn, writer) = two_connections(3, &[]);
    produce(&mut world, writer, "t", 1, batch(&[b"x"]));
    let bytes = batch(&[b"x"]).len();
    for version in [7, 8, 9, 10, 11, 12] {
        let first = world.call(
            conn,
            version,
            &in_session(0, 0, &[(0, 0), (1, 0), (2, 0)], 0),
        );
        assert_eq!(told(&first), [(0, 0, 0), (1, 0, bytes), (2, 0, 0)]);
        let id = first.session_id;
        // Asked for again, the unread partition comes again; the others have nothing to say.
        let again = world.call(conn, version, &in_session(id, 1, &[], 0));
        assert_eq!((again.session_id, again.error_code), (id, 0));
        assert_eq!(told(&again), [(1, 0, bytes)]);
        let moved = world.call(conn, version, &in_session(id, 2, &[(1, 1)], 0));
        assert!(told(&moved).is_empty(), "version {version}: {moved:?}");
        let closed = world.call(conn, version, &in_session(id, -1, &[], 0));
        assert_eq!((closed.session_id, closed.error_code), (0, 0));
        let gone = world.call(conn, version, &in_session(id, 3, &[], 0));
        assert_eq!(gone.error_code, error::FETCH_SESSION_ID_NOT_FOUND);
    }
}

#[test]
fn a_long_poll_in_a_session_wakes_for_any_of_its_partitions() {
    let (mut world, conn, writer) = two_connections(5, &[]);
    let id = open(&mut world, conn, &[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    for (epoch, index) in [(1, 3), (2, 0)] {
        world.send(conn, 11, &in_session(id, epoch, &[], 60_000));
        world.pass_ms(50);
        assert!(world.take::<FetchRequest>(conn, 11).is_none());
        produce(&mut world, writer, "t", index, batch(&[b"x"]));
        let response = world.take::<FetchRequest>(conn, 11).expect("woken");
        assert_eq!(told(&response).len(), 1);
        assert_eq!(told(&response)[0].0, index);
        // Reads on, so that the next poll waits again.
        let done = in_session(id, epoch + 1, &[(index, 1)], 0);
        if epoch == 1 {
            let response = world.call(conn, 11, &done);
            assert!(told(&response).is_empty());
            let id = in_session(id, 3, &[], 60_000);
            world.send(conn, 11, &id);
            produce(&mut world, writer, "t", 3, batch(&[b"y"]));
            let response = world.take::<FetchRequest>(conn, 11).expect("woken again");
            assert_eq!(told(&response)[0].0, 3);
            break;
        }
    }
}

#[test]
fn minimum_bytes_count_over_a_session_s_partitions() {
    let (mut world, conn, writer) = two_connections(3, &[]);
    let id = open(&mut world, conn, &[(0, 0), (1, 0), (2, 0)]);
    let mut request = in_session(id, 1, &[], 60_000);
    request.min_bytes = 3 * batch(&[b"x"]).len() as i32;
    world.send(conn, 11, &request);
    for index in [2, 0, 1] {
        assert!(world.take_raw(conn, 1, 11).is_none(), "before {index}");
        produce(&mut world, writer, "t", index, batch(&[b"x"]));
    }
    let response = world.take::<FetchRequest>(conn, 11).expect("enough");
    let mut indexes: Vec<i32> = told(&response).iter().map(|p| p.0).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 1, 2]);
}

#[test]
fn patience_ends_with_an_empty_response() {
    let (mut world, conn, _) = two_connections(2, &[]);
    let id = open(&mut world, conn, &[(0, 0), (1, 0)]);
    world.send(conn, 11, &in_session(id, 1, &[], 500));
    world.pass_ms(499);
    assert!(world.take_raw(conn, 1, 11).is_none());
    world.pass_ms(2);
    let response = world.take::<FetchRequest>(conn, 11).expect("at last");
    assert_eq!((response.session_id, response.error_code), (id, 0));
    assert!(told(&response).is_empty());
}

#[test]
fn forgotten_partitions_are_told_of_no_more() {
    let (mut world, conn, writer) = two_connections(2, &[]);
    let id = open(&mut world, conn, &[(0, 0), (1, 0)]);
    let mut request = in_session(id, 1, &[], 0);
    request.forgotten_topics_data = vec![message!(ForgottenTopic {
        topic: "t".into(),
        partitions: vec![0, 9],
    })];
    assert!(told(&world.call(conn, 11, &request)).is_empty());
    produce(&mut world, writer, "t", 0, batch(&[b"x"]));
    produce(&mut world, writer, "t", 1, batch(&[b"x"]));
    let response = world.call(conn, 11, &in_session(id, 2, &[], 0));
    assert_eq!(told(&response).len(), 1);
    assert_eq!(told(&response)[0].0, 1);
    // Without its last partition a session ends.
    let mut request = in_session(id, 3, &[], 0);
    request.forgotten_topics_data = vec![message!(ForgottenTopic {
        topic: "t".into(),
        partitions: vec![1],
    })];
    let response = world.call(conn, 11, &request);
    assert_eq!((response.session_id, response.error_code), (0, 0));
    assert_eq!(world.server(0).fetches().sessions, 0);
}

#[test]
fn epochs_out_of_order_have_kafkas_codes() {
    let (mut world, conn, _) = two_connections(1, &[]);
    let id = open(&mut world, conn, &[(0, 0)]);
    for epoch in [2, 7, -2] {
        let response = world.call(conn, 11, &in_session(id, epoch, &[], 0));
        assert_eq!(response.error_code, error::INVALID_FETCH_SESSION_EPOCH);
        assert_eq!(response.session_id, 0);
        assert!(response.responses.is_empty());
    }
    assert_eq!(
        world.call(conn, 11, &in_session(id, 1, &[], 0)).error_code,
        0
    );
    for (id, epoch) in [(id ^ 1, 1), (0, 5)] {
        let response = world.call(conn, 11, &in_session(id, epoch, &[], 0));
        assert_eq!(response.error_code, error::FETCH_SESSION_ID_NOT_FOUND);
    }
}

#[test]
fn a_request_that_overtakes_a_waiting_one_ends_it() {
    let (mut world, conn, other) = two_connections(1, &[]);
    let id = open(&mut world, conn, &[(0, 0)]);
    world.send(conn, 11, &in_session(id, 1, &[], 60_000));
    // Sessions belong to no connection.
    world.send(other, 11, &in_session(id, 2, &[], 60_000));
    let response = world.take::<FetchRequest>(conn, 11).expect("at once");
    assert_eq!(response.error_code, error::INVALID_FETCH_SESSION_EPOCH);
    assert!(world.take_raw(other, 1, 11).is_none(), "it waits");
    produce(&mut world, conn, "t", 0, batch(&[b"x"]));
    let response = world.take::<FetchRequest>(other, 11).expect("woken");
    assert_eq!(told(&response).len(), 1);
}

#[test]
fn a_full_request_replaces_the_session_it_names() {
    let (mut world, conn, other) = two_connections(2, &[]);
    let id = open(&mut world, conn, &[(0, 0)]);
    world.send(conn, 11, &in_session(id, 1, &[], 60_000));
    let response = world.call(other, 11, &in_session(id, 0, &[(1, 0)], 0));
    assert!(response.session_id > 0 && response.session_id != id);
    let response = world.take::<FetchRequest>(conn, 11).expect("ended");
    assert_eq!(response.error_code, error::FETCH_SESSION_ID_NOT_FOUND);
    assert_eq!(world.server(0).fetches().sessions, 1);
}

#[test]
fn errors_are_told_until_they_are_gone() {
    let (mut world, conn, writer) = two_connections(1, &[]);
    let response = world.call(conn, 11, &in_session(0, 0, &[(0, 0), (5, 0)], 60_000));
    let id = response.session_id;
    let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(told(&response), [(0, 0, 0), (5, unknown, 0)]);
    let response = world.call(conn, 11, &in_session(id, 1, &[], 60_000));
    assert_eq!(told(&response), [(5, unknown, 0)]);
    let more = message!(kafka_wire::CreatePartitionsRequest {
        topics: vec![message!(
            kafka_wire::create_partitions_request::CreatePartitionsTopic {
                name: "t".into(),
                count: 6,
                assignments: None,
            }
        )],
        timeout_ms: 1000,
    });
    assert_eq!(world.call(writer, 3, &more).results[0].error_code, 0);
    let response = world.call(conn, 11, &in_session(id, 2, &[], 0));
    assert_eq!(told(&response), [(5, 0, 0)], "the error is gone");
    let response = world.call(conn, 11, &in_session(id, 3, &[], 0));
    assert!(told(&response).is_empty());
}

#[test]
fn a_topic_deleted_and_created_again_is_found_by_its_session() {
    let (mut world, conn, admin) = two_connections(1, &[]);
    produce(&mut world, admin, "t", 0, batch(&[b"x"]));
    let id = open(&mut world, conn, &[(0, 1)]);
    world.send(conn, 11, &in_session(id, 1, &[], 60_000));
    let delete = message!(DeleteTopicsRequest {
        topic_names: vec!["t".into()],
    });
    world.call(admin, 5, &delete);
    let response = world.take::<FetchRequest>(conn, 11).expect("woken");
    assert_eq!(told(&response), [(0, error::UNKNOWN_TOPIC_OR_PARTITION, 0)]);
    create(&mut world, admin, "t", 1);
    let response = world.call(conn, 11, &in_session(id, 2, &[(0, 0)], 0));
    assert_eq!(told(&response), [(0, 0, 0)]);
    world.send(conn, 11, &in_session(id, 3, &[], 60_000));
    produce(&mut world, admin, "t", 0, batch(&[b"y"]));
    assert_eq!(
        told(&world.take::<FetchRequest>(conn, 11).expect("woken")).len(),
        1
    );
}

#[test]
fn a_log_start_that_rises_is_told() {
    let (mut world, conn, admin) = two_connections(1, &[("log.retention.ms", "-1")]);
    produce(&mut world, admin, "t", 0, batch(&[b"x", b"y"]));
    let id = open(&mut world, conn, &[(0, 2)]);
    let quiet = world.call(conn, 11, &in_session(id, 1, &[], 0));
    assert!(told(&quiet).is_empty());
    let delete = message!(kafka_wire::DeleteRecordsRequest {
        topics: vec![message!(
            kafka_wire::delete_records_request::DeleteRecordsTopic {
                name: "t".into(),
                partitions: vec![message!(
                    kafka_wire::delete_records_request::DeleteRecordsPartition { offset: 1 }
                )],
            }
        )],
        timeout_ms: 10_000,
    });
    let answer = world.call(admin, 2, &delete);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    let response = world.call(conn, 11, &in_session(id, 2, &[], 0));
    assert_eq!(fetched(&response).log_start_offset, 1);
}

#[test]
fn every_partition_gets_its_turn_when_responses_are_small() {
    let (mut world, conn, writer) = two_connections(4, &[]);
    for index in 0..4 {
        produce(&mut world, writer, "t", index, batch(&[&[1; 3000]]));
    }
    let all = [(0, 0), (1, 0), (2, 0), (3, 0)];
    let mut request = in_session(0, 0, &all, 0);
    request.max_bytes = 1;
    let first = world.call(conn, 11, &request);
    assert_eq!(told(&first).iter().filter(|p| p.2 > 0).count(), 1);
    let mut seen = Vec::new();
    for epoch in 1..=8 {
        let mut request = in_session(first.session_id, epoch, &[], 0);
        request.max_bytes = 1;
        let response = world.call(conn, 11, &request);
        seen.extend(told(&response).iter().filter(|p| p.2 > 0).map(|p| p.0));
    }
    assert_eq!(seen, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn without_slots_there_are_no_sessions() {
    let (mut world, conn, _) =
        two_connections(1, &[("max.incremental.fetch.session.cache.slots", "0")]);
    let response = world.call(conn, 11, &in_session(0, 0, &[(0, 0)], 0));
    assert_eq!((response.session_id, response.error_code), (0, 0));
    assert_eq!(told(&response).len(), 1);
}

#[test]
fn requests_and_sessions_leave_nothing_behind() {
    let (mut world, conn, _) =
        two_connections(8, &[("max.incremental.fetch.session.cache.slots", "1")]);
    let all: Vec<(i32, i64)> = (0..8).map(|index| (index, 0)).collect();
    let id = open(&mut world, conn, &all);
    assert!(told(&world.call(conn, 11, &in_session(id, 1, &[], 0))).is_empty());
    assert_eq!(world.server(0).fetches().watched_partitions, 8);
    world.send(conn, 11, &in_session(id, 2, &[], 60_000));
    assert_eq!(world.server(0).fetches().waiting, 1);
    // The connection goes, and the session is used on another: what was under way is under way again.
    world.disconnect(conn);
    assert_eq!(world.server(0).fetches().waiting, 0);
    let conn = world.connect(0);
    assert!(told(&world.call(conn, 11, &in_session(id, 3, &[], 0))).is_empty());
    // A young session is not given up for another; after two idle minutes it is.
    let none = world.call(conn, 11, &in_session(0, 0, &all, 0));
    assert_eq!(none.session_id, 0);
    world.pass_ms(121_000);
    let next = open(&mut world, conn, &[(3, 0)]);
    let gauges = world.server(0).fetches();
    assert_eq!((gauges.sessions, gauges.session_partitions), (1, 1));
    assert_eq!(
        gauges.watched_partitions, 0,
        "those of the evicted are gone"
    );
    world.call(conn, 11, &in_session(next, -1, &[], 0));
    let gauges = world.server(0).fetches();
    assert_eq!((gauges.sessions, gauges.watched_partitions), (0, 0));
}

#[test]
fn what_lies_on_the_disk_comes_through_a_session_too() {
    let (mut world, conn, writer) = two_connections(1, &[]);
    let value = vec![3; 50 << 10];
    for at in 0..100 {
        assert_eq!(
            produce(&mut world, writer, "t", 0, batch(&[&value])),
            (0, at)
        );
    }
    let first = world.call(conn, 11, &in_session(0, 0, &[(0, 0)], 0));
    let (id, mut next) = (first.session_id, 0);
    let mut epoch = 1;
    while next < 100 {
        let response = world.call(conn, 11, &in_session(id, epoch, &[(0, next)], 0));
        let records = fetched(&response).records.clone().expect("records");
        for base in super::fetch::bases(&records) {
            assert_eq!(base, next);
            next += 1;
        }
        epoch += 1;
    }
}

/// Requests name what they want by topic; so do responses.
#[test]
fn partitions_of_a_topic_are_told_together() {
    let (mut world, conn, writer) = two_connections(2, &[]);
    create(&mut world, writer, "u", 2);
    let mut request = in_session(0, 0, &[(0, 0), (1, 0)], 0);
    let more = fetch_request("u", &[(0, 0), (1, 0)], 0).topics.remove(0);
    request.topics.push(more);
    let first = world.call(conn, 11, &request);
    for (topic, index) in [("u", 1), ("t", 0), ("u", 0), ("t", 1)] {
        produce(&mut world, writer, topic, index, batch(&[b"x"]));
    }
    let response = world.call(conn, 11, &in_session(first.session_id, 1, &[], 0));
    let topics: Vec<_> = response.responses.iter().map(|t| t.topic.clone()).collect();
    assert_eq!(topics, ["t".into(), "u".into()]);
    let wanted = message!(FetchPartition {
        partition: 1,
        fetch_offset: 1,
        partition_max_bytes: 1000,
    });
    let mut request = in_session(first.session_id, 2, &[], 0);
    request.topics = vec![message!(FetchTopic {
        topic: "u".into(),
        partitions: vec![wanted],
    })];
    assert_eq!(told(&world.call(conn, 11, &request)).len(), 3);
}
