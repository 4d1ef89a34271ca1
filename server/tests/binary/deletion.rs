//! Deleted records stay deleted, whatever happens to the process.

use bytes::Bytes;
use kafka_wire::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::{DeleteRecordsRequest, ListOffsetsRequest};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::message;

use super::process::{Client, Server, command, new_dir};
use super::{create, now_ms, produce_batch};

/// A batch of so many records.
fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(&NewRecord {
            timestamp_ms: now_ms(),
            value: Some(&[b'v'; 300]),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

fn delete(client: &mut Client, offset: i64) -> i64 {
    let request = message!(DeleteRecordsRequest {
        topics: vec![message!(DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![message!(DeleteRecordsPartition { offset: offset })],
        })],
        timeout_ms: 10_000,
    });
    let response = client.call(2, &request);
    let result = &response.topics[0].partitions[0];
    assert_eq!(result.error_code, 0, "{result:?}");
    result.low_watermark
}

/// Where the log begins (-2) or ends (-1).
fn offset(client: &mut Client, timestamp: i64) -> i64 {
    let partition = message!(ListOffsetsPartition {
        timestamp: timestamp
    });
    let request = message!(ListOffsetsRequest {
        replica_id: -1,
        topics: vec![message!(ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![partition],
        })],
    });
    let response = client.call(5, &request);
    response.topics[0].partitions[0].offset
}

#[test]
fn deleted_records_do_not_come_back_after_kill_9() {
    let dir = new_dir();
    let start = || Server::start(&mut command(dir.path()));
    let mut server = start();
    let mut client = server.connect();
    create(&mut client, "t");
    let mut end = 0;
    // In the middle of a batch, at its end, at the log's end, and again with nothing stored before.
    for (batches, from_end) in [(4, 5), (1, 10), (3, 0), (1, 7), (0, 0)] {
        for _ in 0..batches {
            assert_eq!(produce_batch(&mut client, "t", batch(10)), end);
            end += 10;
        }
        assert_eq!(delete(&mut client, end - from_end), end - from_end);
        server.kill();
        server = start();
        client = server.connect();
        assert_eq!(offset(&mut client, -2), end - from_end);
        assert_eq!(offset(&mut client, -1), end);
    }
    assert_eq!(produce_batch(&mut client, "t", batch(1)), end);
    assert_eq!(server.stop(), 0);
}
