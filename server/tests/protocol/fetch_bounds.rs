//! Fetch: what a client may ask for without costing others more than what it gets.

use kafka_wire::FetchRequest;
use ringlog_server::wire::versions;

use super::fetch::bases;
use super::util::*;
use super::world::World;

#[test]
fn a_partition_named_twice_is_answered_once_as_it_was_named_last() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    for topic in ["t", "u"] {
        create(&mut world, conn, topic, 20);
        for _ in 0..3 {
            produce(&mut world, conn, topic, 0, batch(&[b"x"]));
        }
    }
    let others: Vec<(i32, i64)> = (2..20).map(|index| (index, 0)).collect();
    for others in [&others[..0], &others] {
        let mut request = fetch_request("t", &[(0, 0), (1, 0), (0, 1)], 0);
        let mut more = [
            fetch_request("u", &[(0, 1)], 0),
            fetch_request("t", &[(0, 2)], 0),
        ];
        request
            .topics
            .extend(more.iter_mut().map(|m| m.topics.remove(0)));
        if !others.is_empty() {
            let mut rest = fetch_request("u", others, 0);
            request.topics.push(rest.topics.remove(0));
        }
        for epoch in [-1, 0] {
            request.session_epoch = epoch;
            let response = world.call(conn, 11, &request);
            let topics = &response.responses;
            let numbers = |at: usize| -> Vec<i32> {
                let partitions = topics[at].partitions.iter();
                partitions.map(|p| p.partition_index).collect()
            };
            let records =
                |at: usize| bases(topics[at].partitions[0].records.as_ref().expect("some"));
            assert_eq!((numbers(0), records(0)), (vec![0, 1], vec![2]));
            assert_eq!((numbers(1)[0], records(1)), (0, vec![1, 2]));
            assert_eq!(numbers(1).len(), 1 + others.len());
            assert_eq!(topics.len(), 2);
        }
    }
    let held = world.server(0).fetches().session_partitions;
    assert_eq!(held, 3 + 21, "each once");
}

/// With an entry each they would be compared with one another when the request ends.
#[test]
fn the_same_partition_very_often_costs_no_more_than_the_request_is_long() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let mut request = fetch_request("t", &vec![(0, 0); 150_000], 1);
    let started = std::time::Instant::now();
    for _ in 0..2 {
        let response = world.call(conn, 11, &request);
        assert_eq!(response.responses[0].partitions.len(), 1);
        request.topics[0].partitions.truncate(100_000);
    }
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

#[test]
fn more_topics_than_a_request_may_name_close_the_connection() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    // Replica id, max wait, min bytes, max bytes, isolation level, session; 2^20 topics less one, of 3 bytes each.
    let mut body = vec![0; 25];
    body.extend([0x80, 0x80, 0x40]);
    for _ in 1..1 << 20 {
        body.extend([1, 1, 0]);
    }
    body.extend([1, 1, 0]);
    let frame = world.frame_of(versions::FETCH, 12, true, &body);
    world.send_raw(conn, &frame);
    assert!(world.is_closed(conn));
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    assert_eq!(produce(&mut world, conn, "t", 0, batch(&[b"fine"])).0, 0);
}

#[test]
fn no_response_is_waited_for_that_is_as_large_as_it_may_be() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    for _ in 0..2 {
        produce(&mut world, conn, "t", 0, batch(&[&[9; 1000]]));
    }
    let one = batch(&[&[9; 1000]]).len() as i32;
    // The second batch does not fit, or not all of it.
    for max_bytes in [one, one + one / 2] {
        let mut request = fetch_request("t", &[(0, 0), (1, 0)], 10_000);
        request.min_bytes = i32::MAX;
        request.max_bytes = max_bytes;
        world.send(conn, 11, &request);
        let response = world.take::<FetchRequest>(conn, 11).expect("at once");
        assert_eq!(
            bases(fetched(&response).records.as_ref().expect("one")),
            [0]
        );
    }
    let mut request = fetch_request("t", &[(0, 0)], 10_000);
    request.min_bytes = one + one / 2;
    request.topics[0].partitions[0].partition_max_bytes = request.min_bytes;
    world.send(conn, 11, &request);
    let response = world.take::<FetchRequest>(conn, 11).expect("at once");
    assert_eq!(
        bases(fetched(&response).records.as_ref().expect("one")),
        [0]
    );
}

/// As in Kafka: what all partitions together may give does not limit the wait.
#[test]
fn a_partition_that_gives_all_it_may_is_not_looked_at_for_each_batch_that_follows() {
    let mut world = World::new(1, &[]);
    let (reader, writer) = (world.connect(0), world.connect(0));
    create(&mut world, reader, "t", 2);
    let one = batch(&[&[9; 1000]]).len() as i32;
    for _ in 0..2 {
        produce(&mut world, writer, "t", 0, batch(&[&[9; 1000]]));
    }
    let mut request = fetch_request("t", &[(0, 0), (1, 0)], 10_000);
    request.min_bytes = 2 * one;
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = one;
    }
    world.send(reader, 11, &request);
    assert!(world.take_raw(reader, 1, 11).is_none());
    assert_eq!(world.server(0).fetches().watched_partitions, 1);
    produce(&mut world, writer, "t", 0, batch(&[&[9; 1000]]));
    assert!(world.take_raw(reader, 1, 11).is_none());
    produce(&mut world, writer, "t", 1, batch(&[&[9; 1000]]));
    let response = world.take::<FetchRequest>(reader, 11).expect("enough");
    for partition in &response.responses[0].partitions {
        assert_eq!(bases(partition.records.as_ref().expect("one")), [0]);
    }
    assert_eq!(world.server(0).fetches().watched_partitions, 0);
}

/// A read from the disk brings a piece of what there is, whatever was asked for.
#[test]
fn more_than_a_read_from_the_disk_brings_is_not_waited_for() {
    let mut world = World::new(1, &[("log.retention.ms", "-1")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let large = batch(&[&vec![3; 99 << 10]]);
    for at in 0..750 {
        let produced = produce(&mut world, conn, "t", 0, large.clone());
        assert_eq!(produced, (0, at));
    }
    let mut request = fetch_request("t", &[(0, 0)], 60_000);
    request.min_bytes = 3 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 4 << 20;
    world.send(conn, 11, &request);
    world.pass_ms(1000);
    assert!(world.core(0).stats().read_file_bytes > 0, "from the disk");
    let response = world.take::<FetchRequest>(conn, 11).expect("no wait");
    let records = fetched(&response).records.as_ref().expect("records");
    assert!(!bases(records).is_empty() && records.len() < 3 << 20);
}

#[test]
fn requests_that_are_over_leave_no_deadlines_behind() {
    let mut world = World::new(1, &[]);
    let reader = world.connect(0);
    create(&mut world, reader, "t", 1);
    world.send(reader, 11, &fetch_request("t", &[(0, 0)], 500));
    let patient = fetch_request("t", &[(0, 0)], i32::MAX);
    let waiting: Vec<_> = (0..10).map(|_| world.connect(0)).collect();
    for &conn in &waiting {
        world.send(conn, 11, &patient);
    }
    for _ in 0..3000 {
        let conn = world.connect(0);
        world.send(conn, 11, &patient);
        world.disconnect(conn);
    }
    let gauges = world.server(0).fetches();
    assert_eq!(gauges.waiting, 11);
    assert!(gauges.deadlines < 1100, "{}", gauges.deadlines);
    // Those that wait still have theirs.
    world.pass_ms(501);
    assert!(world.take::<FetchRequest>(reader, 11).is_some());
    assert_eq!(world.server(0).fetches().waiting, 10);
    produce(&mut world, reader, "t", 0, batch(&[b"x"]));
    for conn in waiting {
        assert!(world.take::<FetchRequest>(conn, 11).is_some());
    }
}
