//! Whole runs against a server in this process: the null sink, with a store that keeps batches and can be told to do
//! wrong.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use clap::Parser;
use ringlog_engine::batch::{BatchHeader, header::assign};
use ringlog_load::check::{CheckResult, check};
use ringlog_load::cli::Cli;
use ringlog_load::null_sink::{Discard, NullSink, PartitionId, Store};
use ringlog_load::report;
use ringlog_load::run::{RunResult, run};

/// What a store does to the fifth batch it is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Acks it and forgets it.
    Lose,
    /// Stores it twice.
    Double,
    /// Stores it after the one that follows.
    Delay,
    /// Flips a bit of its last record's payload.
    Damage,
}

struct Keep {
    logs: HashMap<PartitionId, Vec<Vec<u8>>>,
    fault: Fault,
    count: usize,
    delayed: Option<Vec<u8>>,
}

impl Keep {
    fn new(fault: Fault) -> Self {
        Self {
            logs: HashMap::new(),
            fault,
            count: 0,
            delayed: None,
        }
    }

    fn next(&self, partition: PartitionId) -> i64 {
        let last = self.logs.get(&partition).and_then(|log| log.last());
        last.and_then(|batch| BatchHeader::read(batch))
            .map_or(0, BatchHeader::next_offset)
    }

    fn store(&mut self, partition: PartitionId, batch: &[u8]) -> i64 {
        let base = self.next(partition);
        let mut batch = batch.to_vec();
        assign(&mut batch, base, 0);
        self.logs.entry(partition).or_default().push(batch);
        base
    }
}

impl Store for Keep {
    fn append(&mut self, partition: PartitionId, batch: &[u8]) -> i64 {
        BatchHeader::validate(batch).expect("a batch that a broker would take");
        self.count += 1;
        if self.count != 5 {
            let base = self.store(partition, batch);
            if let Some(delayed) = self.delayed.take() {
                self.store(partition, &delayed);
            }
            return base;
        }
        match self.fault {
            Fault::None => self.store(partition, batch),
            Fault::Lose => self.next(partition),
            Fault::Double => {
                self.store(partition, batch);
                self.store(partition, batch)
            }
            Fault::Delay => {
                self.delayed = Some(batch.to_vec());
                self.next(partition)
            }
            Fault::Damage => {
                let mut batch = batch.to_vec();
                let place = batch.len() - 3;
                batch[place] ^= 1;
                self.store(partition, &batch)
            }
        }
    }

    fn read(&mut self, partition: PartitionId, offset: i64, max: usize, out: &mut Vec<u8>) -> i64 {
        let limit = out.len() + max;
        for batch in self.logs.get(&partition).into_iter().flatten() {
            let after = BatchHeader::read(batch).map_or(0, BatchHeader::next_offset);
            if after > offset && out.len() < limit {
                out.extend_from_slice(batch);
            }
        }
        self.next(partition)
    }

    fn range(&mut self, partition: PartitionId) -> (i64, i64) {
        (0, self.next(partition))
    }
}

struct Server {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start<S: Store + Send + 'static>(store: S) -> Self {
        let mut sink = NullSink::bind("127.0.0.1:0", store).unwrap();
        let address = sink.address().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || sink.run(&until).unwrap());
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    fn run(&self, line: &str) -> RunResult {
        let words = format!("ringlog-load {line} --bootstrap {}", self.address);
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let request = cli.command.request().unwrap().unwrap();
        let result = run(&request.options).unwrap();
        // Neither of the reports may fail on any result.
        assert!(report::table(&request.options, &result).contains("errors"));
        assert_eq!(
            report::json(&request.options, &result)["schema"],
            report::SCHEMA
        );
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_closed_loop_counts_what_the_sink_took() {
    let server = Server::start(Discard::new(10, 100));
    for options in [
        "--batch-records 1 --record-size 256 --connections 8",
        "--batch-bytes 250000 --connections 2 --in-flight 3 --compression lz4",
        "--partitions-per-request 3 --batch-records 5 --threads 2 --connections 4 --acks 1",
        "--batch-records 2 --acks 0",
        "--idempotent --in-flight 5 --verify --compression zstd",
        "--rate 2000 --batch-records 10 --topics 1 --spin-us 50",
    ] {
        let result = server.run(&format!(
            "produce -t closed --partitions 4 --warmup 0.1 -d 0.4 {options}"
        ));
        let produce = result.produce.as_ref().unwrap();
        assert_eq!(
            result.error_count(),
            0,
            "{options}: {:?}",
            produce.total.errors
        );
        assert!(
            produce.measured.requests > 0 && produce.measured.records > 0,
            "{options}"
        );
        assert!(produce.measured.records <= produce.total.records);
        assert_eq!(produce.measured.latency.len(), produce.measured.requests);
        assert!(report::is_well(&result, false));
    }
}

#[test]
fn silent_connections_stay_open_beside_the_load() {
    let server = Server::start(Discard::new(10, 100));
    let pid = std::process::id();
    let result = server.run(&format!(
        "produce -t idle --warmup 0 -d 0.3 --batch-records 1 --idle-connections 300 --server-pid {pid}"
    ));
    let idle = result.idle.as_ref().unwrap();
    assert_eq!((idle.connections, idle.closed_by_broker), (300, 0));
    // Both ends of each are this process's, and so are a few of other tests, which may close theirs meanwhile.
    let (before, with) = (idle.before.unwrap(), idle.with.unwrap());
    assert!(with.descriptors >= before.descriptors + 500);
    assert!(report::is_well(&result, false));
    assert!(result.produce.unwrap().measured.records > 0);
    assert!(
        server
            .run("produce -t idle --warmup 0 -d 0.1")
            .idle
            .is_none()
    );
}

#[test]
fn batches_of_every_size_arrive_whole() {
    // The store checks every batch's checksum and length.
    for (bytes, codec) in [
        (3_000, "none"),
        (20_000, "none"),
        (300_000, "none"),
        (150_000, "zstd"),
    ] {
        let server = Server::start(Keep::new(Fault::None));
        let result = server.run(&format!(
            "produce -t sizes --partitions 3 --rate 20000 --connections 2 --in-flight 3 --warmup 0 -d 0.3 \
             --partitions-per-request 2 --batch-bytes {bytes} --compression {codec}"
        ));
        assert_eq!(result.error_count(), 0, "{bytes} {codec}");
        let sent = result.produce.unwrap().total;
        let read = server.run("consume -t sizes --until end --check-crc");
        assert_eq!(read.error_count(), 0);
        let read = read.consume.unwrap().total;
        assert!(sent.records > 0);
        assert_eq!(
            (read.records, read.batch_bytes),
            (sent.records, sent.batch_bytes)
        );
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = Server::start(Discard::new(10, 100));
    let result = server
        .run("produce -t open --rate 1000 --batch-records 1 --connections 4 --warmup 0.2 -d 1");
    let produce = result.produce.unwrap();
    let expected = 1000.0 * result.window_s;
    let records = produce.measured.records as f64;
    // Acks of the window's last records may come after it.
    assert!(
        (records - expected).abs() < 0.1 * expected,
        "{records} of {expected}"
    );
    assert!(produce.measured.send_lag.is_some());
}

#[test]
fn a_source_is_read_for_as_long_as_asked() {
    let server = Server::start(Discard::new(10, 100));
    let made = server.run("produce -t source --partitions 3 -d 0.1 --warmup 0");
    assert_eq!(made.error_count(), 0);
    let result = server.run("consume -t source --check-crc --warmup 0.1 -d 0.3 --connections 2");
    let consume = result.consume.as_ref().unwrap();
    assert_eq!(result.error_count(), 0, "{:?}", consume.total.errors);
    assert!(consume.measured.records > 1000);
    assert_eq!(consume.measured.records, consume.measured.batches * 10);
}

fn checked_run(fault: Fault, folder: &Path) -> (RunResult, CheckResult, RunResult) {
    let server = Server::start(Keep::new(fault));
    let log = folder.join(format!("{fault:?}"));
    let result = server.run(&format!(
        "mixed -t kept --partitions 1 --batch-records 3 --rate 600 --verify --from earliest --warmup 0 -d 0.5 \
         --ack-log {}",
        log.display()
    ));
    let checked = check(&log, None).unwrap();
    let read = server.run("consume -t kept --until end --verify --check-crc");
    (result, checked, read)
}

#[test]
fn a_good_store_passes_every_check() {
    let folder = tempfile::tempdir().unwrap();
    let (result, checked, read) = checked_run(Fault::None, folder.path());
    let findings = result.findings().unwrap();
    assert!(!result.verify_failed(), "{findings:?}");
    assert_eq!(
        findings.verified,
        result.produce.as_ref().unwrap().total.records
    );
    assert!(findings.verified > 100);
    assert!(result.consume.unwrap().measured.end_to_end.is_some());
    assert!(checked.is_clean(), "{checked:?}");
    assert_eq!(
        (checked.acked, checked.acked_found),
        (findings.verified, findings.verified)
    );
    assert_eq!(read.findings().unwrap().verified, findings.verified);
    assert!(!read.verify_failed());
}

#[test]
fn loss_duplicate_reorder_and_damage_fail_every_check() {
    let folder = tempfile::tempdir().unwrap();
    for fault in [Fault::Lose, Fault::Double, Fault::Delay, Fault::Damage] {
        let (result, checked, read) = checked_run(fault, folder.path());
        assert!(result.verify_failed(), "{fault:?}: {:?}", result.findings());
        assert!(!report::is_well(&result, true));
        assert!(!checked.is_clean(), "{fault:?}: {checked:?}");
        assert!(read.verify_failed(), "{fault:?}: {:?}", read.findings());
        let findings = read.findings().unwrap();
        let (found, expected) = match fault {
            Fault::Lose => (findings.missing, 3),
            Fault::Double => (findings.duplicates, 3),
            Fault::Delay => (findings.out_of_order, 3),
            _ => (findings.corrupt, 1),
        };
        assert_eq!(found, expected, "{fault:?}: {findings:?}");
    }
}

#[test]
fn a_server_that_goes_away_is_counted_by_name() {
    let server = Server::start(Discard::new(1, 1));
    let stop = Arc::clone(&server.stop);
    let killer = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let words = format!(
        "ringlog-load produce -t gone --warmup 0 -d 1 --batch-records 1 -b {}",
        server.address
    );
    let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
    let request = cli.command.request().unwrap().unwrap();
    let sinks_thread = thread::spawn(move || {
        // The server's connections close when it is dropped.
        killer.join().unwrap();
        drop(server);
    });
    let result = run(&request.options).unwrap();
    sinks_thread.join().unwrap();
    let errors = result.produce.as_ref().unwrap().total.errors.clone();
    assert!(
        errors.keys().any(|name| name.starts_with("CONNECTION_")),
        "{errors:?}"
    );
    assert!(!report::is_well(&result, false));
    assert!(report::is_well(&result, true));
}
