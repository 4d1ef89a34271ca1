//! ListOffsets: what a request may make the broker look up.

use kafka_wire::ListOffsetsRequest;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
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
