//! What no client should send: answered as Kafka would or with a closed connection, and nobody else suffers.

use ringlog_server::wire::versions;

use super::util::*;
use super::world::World;

/// A world with a topic, and that it still serves.
fn check(world: &mut World) {
    let conn = world.connect(0);
    let (code, _) = produce(world, conn, "t", 0, batch(&[b"fine"]));
    assert_eq!(code, 0);
    world.disconnect(conn);
}

fn new_world() -> World {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    world
}

#[test]
fn broken_frames_close_the_connection() {
    let mut world = new_world();
    let unknown_api = world.frame_of(999, 0, false, &[]);
    let old_produce = world.frame_of(versions::PRODUCE, 2, false, &[0; 20]);
    let new_fetch = world.frame_of(versions::FETCH, 99, true, &[0; 20]);
    let truncated = world.frame_of(versions::PRODUCE, 8, false, &[0xff, 0xff, 0, 1]);
    let lying_count = world.frame_of(
        versions::FETCH,
        4,
        false,
        &[
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x7f, 0xff, 0xff, 0xff,
        ],
    );
    let lying_metadata = world.frame_of(versions::METADATA, 1, false, &[0x7f, 0xff, 0xff, 0xff]);
    let cases: Vec<Vec<u8>> = vec![
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 3, 1, 2, 3],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
        unknown_api,
        old_produce,
        new_fetch,
        truncated,
        lying_count,
        lying_metadata,
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let conn = world.connect(0);
        world.send_raw(conn, bytes);
        assert!(world.is_closed(conn), "case {number}");
        check(&mut world);
    }
}

/// Kafka ignores them, and librdkafka 2.16 sends them with Metadata for all topics.
#[test]
fn bytes_behind_the_last_field_are_ignored() {
    let mut world = new_world();
    let conn = world.connect(0);
    let bytes = world.frame_of(versions::METADATA, 0, false, &[0, 0, 0, 0, 9]);
    world.send_raw(conn, &bytes);
    assert!(!world.is_closed(conn));
}

#[test]
fn answers_before_a_broken_frame_still_leave() {
    let mut world = new_world();
    let conn = world.connect(0);
    let mut bytes = world.frame(9, &metadata_of("t"));
    bytes.extend([0xff; 8]);
    world.send_raw(conn, &bytes);
    assert!(world.is_closed(conn));
    assert!(world.take::<kafka_wire::MetadataRequest>(conn, 9).is_some());
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let mut world = new_world();
    let conn = world.connect(0);
    let frame = world.frame(8, &produce_request("t", 0, -1, batch(&[b"slow"])));
    for byte in &frame {
        world.send_raw(conn, &[*byte]);
    }
    world.pass_ms(100);
    let response = world
        .take::<kafka_wire::ProduceRequest>(conn, 8)
        .expect("an answer");
    assert_eq!(outcome(&response), (0, 0));
}

#[test]
fn large_requests_arrive_in_steps() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 64);
    // Several MiB in one request.
    let value = vec![1; 90 << 10];
    let mut request = produce_request("t", 0, -1, batch(&[&value]));
    let first = request.topic_data[0].partition_data[0].clone();
    for index in 1..64 {
        let mut next = first.clone();
        next.index = index;
        request.topic_data[0].partition_data.push(next);
    }
    for round in 0..3 {
        let response = world.call(conn, 8, &request);
        let partitions = &response.responses[0].partition_responses;
        assert_eq!(partitions.len(), 64);
        assert!(
            partitions
                .iter()
                .all(|p| (p.error_code, p.base_offset) == (0, round))
        );
    }
}

#[test]
fn half_a_request_keeps_no_more_than_what_arrived() {
    let mut world = new_world();
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let conn = world.connect(0);
        // 100 MiB announced.
        let mut start = (100_i32 << 20).to_be_bytes().to_vec();
        start.extend([0; 1000]);
        world.send_raw(conn, &start);
        stalled.push(conn);
    }
    assert!(world.server(0).request_memory() <= 50 * (1 << 20));
    check(&mut world);
    for conn in stalled {
        world.disconnect(conn);
    }
    assert_eq!(world.server(0).request_memory(), 0);
}

#[test]
fn stalled_requests_give_way_when_memory_is_wanted() {
    let mut world = World::new(1, &[("queued.max.request.bytes", "4194304")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let mut stalled = Vec::new();
    // At the beginning, and so far that they hold memory and want more.
    for sent in [
        100, 1_200_000, 100, 1_200_000, 1_200_000, 1_200_000, 100, 1_200_000,
    ] {
        let conn = world.connect(0);
        let mut start = (3_i32 << 20).to_be_bytes().to_vec();
        start.extend(vec![0; sent]);
        world.send_raw(conn, &start);
        stalled.push(conn);
    }
    let value = vec![1; 90 << 10];
    world.send(conn, 8, &produce_request("t", 0, -1, batch(&[&value])));
    world.pass_ms(60_000);
    let response = world
        .take::<kafka_wire::ProduceRequest>(conn, 8)
        .expect("got memory");
    assert_eq!(outcome(&response), (0, 0));
    assert!(stalled.iter().any(|c| world.is_closed(*c)));
}

#[test]
fn requests_that_share_too_little_memory_all_get_through() {
    let mut world = World::new(1, &[("queued.max.request.bytes", "4194304")]);
    let conns: Vec<_> = (0..8).map(|_| world.connect(0)).collect();
    let request = produce_request("nowhere", 0, -1, vec![0; 3 << 20].into());
    let frame = world.frame(8, &request);
    // Piece by piece in turns, so that each holds some of the memory.
    for piece in frame.chunks(600 << 10) {
        for conn in &conns {
            world.send_raw(*conn, piece);
        }
    }
    world.pass_ms(1_000);
    for conn in conns {
        let answer = world.take::<kafka_wire::ProduceRequest>(conn, 8);
        let code = outcome(&answer.expect("an answer")).0;
        assert_eq!(
            code,
            ringlog_server::wire::error::UNKNOWN_TOPIC_OR_PARTITION
        );
    }
    assert!(world.server(0).request_memory() <= 4 << 20);
}

#[test]
fn a_client_that_never_reads_is_not_read_either() {
    let mut world = new_world();
    let conn = world.connect(0);
    let value = vec![1; 90 << 10];
    for _ in 0..20 {
        produce(&mut world, conn, "t", 0, batch(&[&value]));
    }
    world.stop_reading(conn);
    let request = fetch_request("t", &[(0, 0)], 0);
    for _ in 0..50 {
        world.send(conn, 11, &request);
        world.pass_ms(50);
    }
    assert!(world.is_paused(conn));
    check(&mut world);
    world.read_again(conn);
    world.pass_ms(5_000);
    let mut answers = 0;
    while world.take::<kafka_wire::FetchRequest>(conn, 11).is_some() {
        answers += 1;
    }
    assert!(answers >= 8, "{answers}");
    assert!(!world.is_closed(conn));
}
