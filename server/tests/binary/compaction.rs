//! Compacted topics in the real server: what is left is the newest record of each key, and after kill -9 the groups'
//! offsets are what they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::{
    CreateTopicsRequest, FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Compression, NewRecord, body};
use ringlog_server::message;

use super::process::{Client, Server, command, new_dir};
use super::{fetch, now_ms, produce_batch};

const SETTINGS: [&str; 10] = [
    "--set",
    "log.cleaner.backoff.ms=50",
    "--set",
    "log.cleaner.min.cleanable.ratio=0.01",
    "--set",
    "offsets.topic.num.partitions=1",
    "--set",
    "offsets.topic.segment.bytes=1048576",
    "--set",
    "group.initial.rebalance.delay.ms=0",
];

fn start(data: &Path) -> Server {
    Server::start(command(data).args(SETTINGS))
}

/// Bytes of a topic's logs.
fn log_bytes(data: &Path, topic: &str) -> u64 {
    let mut bytes = 0;
    let topics = std::fs::read_dir(data.join("topics")).expect("a directory");
    for dir in topics.map(|d| d.expect("an entry")) {
        if dir.file_name().to_string_lossy().starts_with(topic) {
            for file in std::fs::read_dir(dir.path()).expect("a directory") {
                let file = file.expect("an entry");
                if file.file_name().to_string_lossy().ends_with(".log") {
                    // Files are removed meanwhile.
                    bytes += file.metadata().map_or(0, |m| m.len());
                }
            }
        }
    }
    bytes
}

/// Whether compaction has made a segment of the topic: its name has a revision.
fn is_compacted(data: &Path, topic: &str) -> bool {
    let topics = std::fs::read_dir(data.join("topics")).expect("a directory");
    let dirs = topics.map(|d| d.expect("an entry"));
    let mut ours = dirs.filter(|d| d.file_name().to_string_lossy().starts_with(topic));
    ours.any(|dir| {
        let files = std::fs::read_dir(dir.path()).expect("a directory");
        let names = files.map(|f| f.expect("an entry").file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        names.any(|name| name.ends_with(".log") && name.split('.').count() == 3)
    })
}

/// Waits until the topic's logs, which are in segments, have been compacted to so many bytes.
fn wait_for_size(data: &Path, topic: &str, bytes: u64) {
    let since = Instant::now();
    while !is_compacted(data, topic) || log_bytes(data, topic) > bytes {
        let found = log_bytes(data, topic);
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{topic} has {found} bytes, not {bytes}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn create(client: &mut Client, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let config = |&(name, value): &(&str, &str)| {
        message!(CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        })
    };
    let topic = message!(CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
    });
    let request = message!(CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
    });
    let response = client.call(5, &request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

/// Every record of a partition: offset, key, value.
fn read_all(client: &mut Client, topic: &str) -> Vec<(i64, String, String)> {
    let (mut records, mut offset) = (Vec::new(), 0);
    loop {
        let (bytes, high_watermark) = fetch(client, topic, offset, 100);
        if bytes.is_empty() {
            assert_eq!(offset, high_watermark, "nothing before the end");
            return records;
        }
        let mut rest = &bytes[..];
        while let Ok(header) = BatchHeader::parse(rest) {
            let (batch, behind) = rest.split_at(header.total_len());
            let mut scratch = Vec::new();
            for record in body(batch, 1 << 20, &mut scratch).expect("a body") {
                let record = record.expect("a record");
                let at = header.base_offset.get() + i64::from(record.offset_delta);
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8(bytes.expect("there").to_vec()).expect("text")
                };
                if at >= offset {
                    records.push((at, text(record.key), text(record.value)));
                }
            }
            offset = header.next_offset();
            rest = behind;
        }
    }
}

#[test]
fn the_newest_record_of_each_key_is_left() {
    let dir = new_dir();
    let data = dir.path().join("data");
    let mut server = start(&data);
    let mut client = server.connect();
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    create(&mut client, "state", 1, &configs);
    let mut newest = BTreeMap::new();
    let filler = "x".repeat(1000);
    for round in 0..120 {
        let codec = Compression::from_attributes(round % 5).expect("a codec");
        let mut builder = BatchBuilder::new().compression(codec);
        let base = i64::from(round) * 60;
        for at in 0..60 {
            // Each key comes again and again; the fillers do not compress to nothing.
            let (key, value) = (format!("key {}", at % 20), format!("{round} {at} {filler}"));
            builder.push(&NewRecord {
                timestamp_ms: now_ms(),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[],
            });
            newest.insert(key, (base + at, value));
        }
        let batch = Bytes::from(builder.build().expect("a batch"));
        assert_eq!(produce_batch(&mut client, "state", batch), base);
    }
    // A start puts all that the journal holds into segments.
    server.kill();
    server = start(&data);
    client = server.connect();
    // What is left: the segment that is written, and what came of all the others.
    wait_for_size(&data, "state", 1_500_000);
    for restarts in 0..2 {
        let records = read_all(&mut client, "state");
        assert!(records.len() < 4_000, "{} records", records.len());
        assert!(records.is_sorted_by(|a, b| a.0 < b.0));
        let mut left = BTreeMap::new();
        for (offset, key, value) in records {
            left.insert(key, (offset, value));
        }
        assert_eq!(left, newest);
        if restarts == 0 {
            server.kill();
            server = start(&data);
            client = server.connect();
        }
    }
}

fn commit(client: &mut Client, group: &str, partitions: i32, offset: i64) {
    let partition = |index| {
        message!(OffsetCommitRequestPartition {
            partition_index: index,
            committed_offset: offset + i64::from(index),
            committed_metadata: Some(group.into()),
        })
    };
    let request = message!(OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![message!(OffsetCommitRequestTopic {
            name: "input".into(),
            partitions: (0..partitions).map(partition).collect(),
        })],
    });
    let response = client.call(7, &request);
    let codes = response.topics.iter().flat_map(|t| &t.partitions);
    assert!(codes.clone().count() > 0 && codes.clone().all(|p| p.error_code == 0));
}

/// Committed offset and metadata of each partition.
fn committed(client: &mut Client, group: &str) -> BTreeMap<i32, (i64, String)> {
    let request = message!(OffsetFetchRequest {
        group_id: group.into(),
        topics: None,
    });
    let since = Instant::now();
    loop {
        let response = client.call(5, &request);
        // The coordinator may still be reading its log.
        if response.error_code != 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "{response:?}");
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let partitions = response.topics.iter().flat_map(|t| &t.partitions);
        let found = partitions.map(|p| {
            let metadata = p.metadata.as_ref().map_or("", |m| m.as_str());
            (p.partition_index, (p.committed_offset, metadata.to_owned()))
        });
        return found.collect();
    }
}

#[test]
fn offsets_of_groups_survive_compaction_and_kill_9() {
    const GROUPS: i64 = 30;
    const PARTITIONS: i32 = 50;
    let dir = new_dir();
    let data = dir.path().join("data");
    let server = start(&data);
    let mut client = server.connect();
    create(&mut client, "input", PARTITIONS, &[]);
    let find = message!(FindCoordinatorRequest {
        key: "group 0".into(),
    });
    let since = Instant::now();
    while client.call(2, &find).error_code != 0 {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    for round in 0..40 {
        for group in 0..GROUPS {
            commit(
                &mut client,
                &format!("group {group}"),
                PARTITIONS,
                round * 1000 + group,
            );
        }
    }
    server.kill();
    let server = start(&data);
    let mut client = server.connect();
    // Without compaction the log has some 6 MB.
    wait_for_size(&data, "__consumer_offsets", 2_500_000);
    let all = |client: &mut Client| -> Vec<_> {
        let groups = 0..GROUPS;
        groups
            .map(|g| committed(client, &format!("group {g}")))
            .collect()
    };
    let before = all(&mut client);
    for (group, offsets) in before.iter().enumerate() {
        let expected = (0..PARTITIONS).map(|index| {
            let offset = 39_000 + group as i64 + i64::from(index);
            (index, (offset, format!("group {group}")))
        });
        assert_eq!(*offsets, expected.collect::<BTreeMap<_, _>>());
    }
    server.kill();
    let server = start(&data);
    let mut client = server.connect();
    assert_eq!(all(&mut client), before);
}
