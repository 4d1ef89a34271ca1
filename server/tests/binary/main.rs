//! The real binary: starts, refusals to start, stops, and what survives `kill -9`.
#![allow(unreachable_pub)]

mod admin;
mod compaction;
mod deletion;
mod process;
mod space;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_wire::create_topics_request::CreatableTopic;
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{CreateTopicsRequest, FetchRequest, ProduceRequest};
use process::{Client, Server, command, file, new_dir, refused};
use ringlog_engine::batch::{BatchBuilder, NewRecord, body};
use ringlog_server::message;
use rustix::process::{Pid, Signal, kill_process};

/// Older records would fall to retention.
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a clock after 1970").as_millis() as i64
}

fn create(client: &mut Client, name: &str) {
    let topic = message!(CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
    });
    let request = message!(CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
    });
    let response = client.call(5, &request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

fn produce(client: &mut Client, topic: &str, value: &str) -> i64 {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp_ms: now_ms(),
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    });
    produce_batch(
        client,
        topic,
        Bytes::from(builder.build().expect("a batch")),
    )
}

/// Writes a batch; its offset.
fn produce_batch(client: &mut Client, topic: &str, batch: Bytes) -> i64 {
    let (code, offset) = try_produce(client, topic, batch);
    assert_eq!(code, 0);
    offset
}

/// Writes a batch; an error code and its offset.
fn try_produce(client: &mut Client, topic: &str, batch: Bytes) -> (i16, i64) {
    let data = message!(PartitionProduceData {
        records: Some(batch),
    });
    let request = message!(ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![message!(TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
        })],
    });
    let response = client.call(8, &request);
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Batches of a topic's first partition from `offset` on, and its high watermark.
fn fetch(client: &mut Client, topic: &str, offset: i64, max_wait_ms: i32) -> (Bytes, i64) {
    let partition = message!(FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
    });
    let request = message!(FetchRequest {
        max_wait_ms: max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![message!(FetchTopic {
            topic: topic.into(),
            partitions: vec![partition],
        })],
    });
    let response = client.call(11, &request);
    let found = &response.responses[0].partitions[0];
    assert_eq!(found.error_code, 0);
    let records = found.records.clone().unwrap_or_default();
    (records, found.high_watermark)
}

/// Every value of a topic, by offset.
fn consume(client: &mut Client, topic: &str, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let mut scratch = Vec::new();
    while values.len() < count {
        let (records, _) = fetch(client, topic, values.len() as i64, 1000);
        assert!(!records.is_empty(), "only {} of {count}", values.len());
        let mut rest = &records[..];
        while let Ok(header) = ringlog_engine::batch::BatchHeader::parse(rest) {
            assert_eq!(header.base_offset.get(), values.len() as i64);
            let (batch, tail) = rest.split_at(header.total_len());
            for record in body(batch, 1 << 20, &mut scratch).expect("a body") {
                let value = record.expect("a record").value.expect("a value").to_vec();
                values.push(String::from_utf8(value).expect("text"));
            }
            rest = tail;
        }
    }
    values
}

fn survives(driver: &str) {
    let dir = new_dir();
    let data = dir.path().join("data");
    let mut expected = Vec::new();
    for round in 0..3 {
        let server = Server::start(command(&data).args(["--driver", driver]));
        let mut client = server.connect();
        if round == 0 {
            create(&mut client, "t");
        }
        assert_eq!(consume(&mut client, "t", expected.len()), expected);
        for number in 0..50 {
            let value = format!("{driver} {round} {number}");
            assert_eq!(produce(&mut client, "t", &value), expected.len() as i64);
            expected.push(value);
        }
        assert_eq!(consume(&mut client, "t", expected.len()), expected);
        if round == 1 {
            assert!(
                server.ready.contains("after an unclean stop"),
                "{}",
                server.ready
            );
            assert_eq!(server.stop(), 0);
        } else {
            server.kill();
        }
    }
}

#[test]
fn what_was_acked_survives_kill_9_and_sigterm() {
    survives("ring");
}

#[test]
#[cfg(feature = "glommio")]
fn what_was_acked_survives_on_the_second_driver_too() {
    survives("glommio");
}

#[test]
fn shards_answer_on_ports_in_a_row_and_their_number_may_change() {
    let dir = new_dir();
    let server = Server::start(command(dir.path()).args(["--shards", "2"]));
    let mut client = server.connect();
    create(&mut client, "t");
    server.kill();
    for shards in ["3", "1"] {
        let server = Server::start(command(dir.path()).args(["--shards", shards]));
        let request = message!(kafka_wire::MetadataRequest { topics: None });
        let response = server.connect().call(9, &request);
        let ports: Vec<i32> = response.brokers.iter().map(|b| b.port).collect();
        let expected: Vec<i32> = (0..shards.parse().expect("a number"))
            .map(|n: i32| i32::from(server.port) + n)
            .collect();
        assert_eq!(ports, expected);
        assert_eq!(response.topics[0].name.as_deref(), Some("t"));
        server.kill();
    }
}

#[test]
fn a_directory_serves_one_process() {
    let dir = new_dir();
    let server = Server::start(&mut command(dir.path()));
    let (status, line) = refused(&mut command(dir.path()));
    assert_eq!(status, 5, "{line}");
    assert!(
        line.contains(&format!("in use by process {}", server.pid())),
        "{line}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dirs = (new_dir(), new_dir());
    let server = Server::start(&mut command(dirs.0.path()));
    let port = server.port.to_string();
    let (status, line) = refused(command(dirs.1.path()).args(["--port", &port]));
    assert_eq!(status, 7, "{line}");
    assert!(line.contains(&port) && line.contains("--port"), "{line}");
    // Told before anything is read: this directory could not be used either.
    file(&dirs.1, "catalog", "not a catalog");
    let (status, line) = refused(command(dirs.1.path()).args(["--port", &port]));
    assert_eq!(status, 7, "{line}");
}

/// The kernel lets go of a killed server's ports a little late.
#[test]
fn a_port_that_is_free_in_a_moment_is_waited_for() {
    let dir = new_dir();
    let server = Server::start(&mut command(dir.path()));
    let (port, mut client) = (server.port, server.connect());
    create(&mut client, "t");
    produce(&mut client, "t", "one");
    server.kill();
    // Whoever had it last keeps it for longer than a start takes.
    let held = loop {
        match std::net::TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => break listener,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
    });
    let again = Server::start(command(dir.path()).args(["--port", &port.to_string()]));
    assert!(holder.is_finished(), "it started on a port that was taken");
    assert_eq!(again.port, port);
    assert_eq!(consume(&mut again.connect(), "t", 1), ["one"]);
    holder.join().expect("ends");
}

/// Names of a process's threads that a signal can reach.
fn reachable(pid: u32, signal: Signal) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("runs");
    let reached = |task: std::io::Result<std::fs::DirEntry>| {
        let status = task.expect("a task").path().join("status");
        let status = std::fs::read_to_string(status).unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|l| l.strip_prefix(name));
            value.unwrap_or_default().trim().to_owned()
        };
        let mask = u64::from_str_radix(&field("SigBlk:"), 16).expect("hex");
        (mask & 1 << (signal.as_raw() - 1) == 0).then(|| field("Name:"))
    };
    tasks.filter_map(reached).collect()
}

#[test]
fn signals_disturb_nobody() {
    let dir = new_dir();
    for driver in ["ring", "glommio"] {
        let server = Server::start(
            command(&dir.path().join(driver))
                .args(["--driver", driver])
                .stderr(Stdio::piped()),
        );
        for signal in [Signal::USR1, Signal::TERM, Signal::INT] {
            // Threads that have just been started are about to say what they want.
            let mut threads = Vec::new();
            for _ in 0..100 {
                threads = reachable(server.pid(), signal);
                if threads.len() == 1 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(threads.len(), 1, "{driver} {signal:?}: {threads:?}");
        }
        let pid = server.pid();
        let stop = Arc::new(AtomicBool::new(false));
        let stormed = stop.clone();
        let storm = std::thread::spawn(move || {
            let pid = Pid::from_raw(pid as i32).expect("a process");
            while !stormed.load(Ordering::Relaxed) {
                kill_process(pid, Signal::USR1).expect("runs");
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let lines = server.read_stderr();
        let mut client = server.connect();
        create(&mut client, "t");
        for number in 0..300 {
            assert_eq!(produce(&mut client, "t", "value"), number);
        }
        assert_eq!(consume(&mut client, "t", 300).len(), 300);
        stop.store(true, Ordering::Relaxed);
        storm.join().expect("no panic");
        assert_eq!(server.stop(), 0);
        let lines = lines.join().expect("no panic");
        assert!(
            lines.iter().any(|l| l.contains("\"shards\":[{")),
            "{driver}"
        );
        assert!(
            lines.iter().all(|l| l.starts_with("ringlog counters: ")),
            "{lines:?}"
        );
    }
}

#[test]
fn directories_of_others_are_left_alone() {
    let dir = new_dir();
    file(&dir, "thesis.tex", "years of work");
    let (status, line) = refused(&mut command(dir.path()));
    assert_eq!(status, 6, "{line}");
    assert!(line.contains("thesis.tex"), "{line}");
    let dir = new_dir();
    file(&dir, "catalog", "not a catalog");
    let (status, line) = refused(&mut command(dir.path()));
    assert_eq!(status, 6, "{line}");
    let dir = new_dir();
    let plain = file(&dir, "plain", "");
    let (status, line) = refused(&mut command(&plain));
    assert_eq!(status, 8, "{line}");
}

#[test]
fn a_directory_of_another_format_is_named() {
    let dir = new_dir();
    Server::start(&mut command(dir.path())).kill();
    const META: redb::TableDefinition<'_, &str, &str> = redb::TableDefinition::new("meta");
    {
        let store = redb::Database::open(dir.path().join("catalog")).expect("opens");
        let write = store.begin_write().expect("writes");
        let mut meta = write.open_table(META).expect("is there");
        meta.insert("format", "99").expect("inserts");
        drop(meta);
        write.commit().expect("commits");
    }
    let (status, line) = refused(&mut command(dir.path()));
    assert_eq!(status, 6, "{line}");
    assert!(line.contains("format 99"), "{line}");
}

#[test]
fn wrong_settings_are_named() {
    let dir = new_dir();
    let settings = file(
        &dir,
        "server.properties",
        "num.partitions=3\nlog.segment.byts=1\n",
    );
    let data = dir.path().join("data");
    let (status, line) = refused(command(&data).arg("--config").arg(&settings));
    assert_eq!(status, 3, "{line}");
    assert!(
        line.contains("line 2") && line.contains("log.segment.bytes"),
        "{line}"
    );
    let cases: &[&[&str]] = &[
        &["--set", "num.partitions=none"],
        &["--set", "nonsense"],
        &["--shards", "0"],
        &["--driver", "glommio", "--read-path", "mmap"],
        &["--driver", "glommio", "--read-path", "splice"],
    ];
    for case in cases {
        let (status, line) = refused(command(&data).args(*case));
        assert_eq!(status, 3, "{line}");
    }
    let checked = command(&data).arg("--check").output().expect("starts");
    assert!(checked.status.success());
    let text = String::from_utf8(checked.stdout).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
}
