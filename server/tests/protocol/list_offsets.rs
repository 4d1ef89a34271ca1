//! ListOffsets: what a request may make the broker look up.

use bytes::Bytes;
use kafka_wire::ListOffsetsRequest;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ringlog_engine::batch::{BatchBuilder, Compression, NewRecord};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

/// Error, offset and timestamp of each partition that is asked for by topic, number and time.
fn offsets(world: &mut World, conn: Conn, wanted: &[(&str, i32, i64)]) -> Vec<(i16, i64, i64)> {
    let topic = |&(name, index, timestamp): &(&str, i32, i64)| {
        message!(ListOffsetsTopic {
            name: name.into(),
            partitions: vec![message!(ListOffsetsPartition {
                partition_index: index,
                timestamp: timestamp,
            })],
        })
    };
    let request = message!(ListOffsetsRequest {
        replica_id: -1,
        topics: wanted.iter().map(topic).collect(),
    });
    let response = world.call(conn, 7, &request);
    let partitions = response.topics.iter().flat_map(|t| &t.partitions);
    partitions
        .map(|p| (p.error_code, p.offset, p.timestamp))
        .collect()
}

#[test]
fn a_partition_named_twice_is_refused_and_others_are_answered() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    create(&mut world, conn, "u", 1);
    for (topic, index) in [("t", 0), ("t", 1), ("u", 0)] {
        produce(&mut world, conn, topic, index, batch(&[b"a", b"b"]));
    }
    let wanted = [
        ("t", 0, 1001),
        ("t", 1, 1001),
        ("u", 0, -1),
        ("t", 0, 1001),
        ("t", 1, -1),
        ("nope", 0, -1),
        ("nope", 0, -1),
        ("t", 0, -2),
    ];
    let refused = (error::INVALID_REQUEST, -1, -1);
    let found = offsets(&mut world, conn, &wanted);
    let mut expected = vec![refused; wanted.len()];
    expected[2] = (0, 2, -1);
    assert_eq!(found, expected);
    let found = offsets(&mut world, conn, &wanted[..3]);
    assert_eq!(found, [(0, 1, 1001), (0, 1, 1001), (0, 2, -1)]);
}

/// Three records of `bytes` zeros with timestamps 1000, 1001, 1002.
fn zeros(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new().compression(Compression::Zstd);
    for timestamp_ms in 1000..1003 {
        builder.push(&NewRecord {
            timestamp_ms,
            value: Some(&vec![0; bytes]),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

#[test]
fn a_batch_is_not_decompressed_beyond_the_limit_to_find_a_time_in_it() {
    let settings = [
        ("ringlog.inspect.decompressed.max.bytes", "40000"),
        ("log.retention.ms", "-1"),
    ];
    let mut world = World::new(1, &settings);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    produce(&mut world, conn, "t", 0, zeros(1_000));
    let first = [("t", 0, 1001), ("t", 0, -3)].map(|w| offsets(&mut world, conn, &[w])[0]);
    assert_eq!(first, [(0, 1, 1001), (0, 2, 1002)]);
    create(&mut world, conn, "large", 1);
    produce(&mut world, conn, "large", 0, zeros(20_000));
    // From memory, then from the disk: nothing that is looked for lies before the answer.
    for _ in 0..2 {
        for time in [1001, -3] {
            let found = offsets(&mut world, conn, &[("large", 0, time)]);
            assert_eq!(found, [(0, 0, 1002)], "{time}");
        }
        for _ in 0..100 {
            produce(&mut world, conn, "t", 0, batch(&[&vec![3; 50 << 10]]));
        }
    }
}
