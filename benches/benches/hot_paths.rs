//! The CPU's share of the hot paths, without a disk: checksums, validation, append and commit, look-ups, fetches from
//! memory. `cargo bench -p ringlog-benches`.
#![allow(missing_docs)] // criterion's macros make undocumented functions.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, HEADER_LEN, Records, inspect};
use ringlog_engine::checksum::{crc32, crc32c};
use ringlog_engine::core::{
    ColdReads, Core, CoreConfig, Durability, FetchSpec, Inspect, LogConfig, Mutations, Reply,
};
use ringlog_engine::disk::{Completion, DiskError, Op, OpKind, Returned};
use ringlog_engine::id::{Now, Part, PartitionKey, TopicId};
use ringlog_engine::recovery::RunInfo;
use ringlog_engine::store::{IndexEntry, SparseIndex};

/// Batches by size in bytes: one small record, a usual linger, a full batch of a bulk producer.
const BATCHES: [(usize, &str); 3] = [(300, "300 B"), (16 << 10, "16 KiB"), (250 << 10, "250 KiB")];
/// Time between two turns.
const TURN_NS: u64 = 100_000;

/// A batch of `bytes` bytes, nearly: records of up to 1 KiB that do not repeat.
fn batch(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut builder = BatchBuilder::new();
    while builder.uncompressed_len() + 24 < bytes {
        let len = (bytes - builder.uncompressed_len() - 16).min(1024);
        let value: Vec<u8> = (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        builder.push_values(1_700_000_000_000, [value.as_slice()]);
    }
    builder.build().expect("an uncompressed batch is built")
}

/// A core over a disk that does everything at once and forgets it.
struct Engine {
    core: Core,
    parts: Vec<Part>,
    now: Now,
}

impl Engine {
    fn new(partitions: i32) -> Self {
        let now = Now {
            mono_ns: 1,
            wall_ms: 1_700_000_000_000,
        };
        let config = CoreConfig {
            shard: 0,
            shards: 1,
            durability: Durability::Fsync,
            commits_in_flight: 4,
            journal_file_bytes: 64 << 20,
            journal_files: 4,
            existing_journals: Vec::new(),
            memory_bytes: 256 << 20,
            max_batch_bytes: 1 << 20,
            cleaner: Default::default(),
            inspect: Inspect::Uncompressed,
            decompressed_bytes_max: 1 << 20,
            cold_reads: ColdReads::Direct,
            producer_expiry_ms: 86_400_000,
            open_files: 100,
            reads_in_flight: 16,
            mutations: Mutations::default(),
        };
        let run = RunInfo {
            run: 1,
            leader_epoch: 0,
            dir_id: [1; 16],
        };
        let mut core = Core::new(config, run, Vec::new(), now);
        let key = |partition| PartitionKey {
            topic: TopicId([7; 16]),
            partition,
        };
        let parts = (0..partitions)
            .map(|n| core.create_partition(now, key(n), "bench", LogConfig::default()))
            .collect();
        let mut engine = Self { core, parts, now };
        engine.turn(); // The journal's first files.
        engine
    }

    /// One turn of a driver whose disk is done before it is asked.
    fn turn(&mut self) {
        self.now.mono_ns += TURN_NS;
        self.core.poll(self.now);
        loop {
            while let Some(op) = self.core.next_op() {
                self.core.complete(self.now, done(op));
                self.core.poll(self.now);
            }
            while let Some(event) = self.core.next_event() {
                black_box(&event);
            }
            if self.core.deadline_ns() != Some(0) {
                return;
            }
            self.core.poll(self.now);
        }
    }

    /// Appends `count` copies of `batch` to the partitions in turns and makes them durable.
    fn commit(&mut self, batch: &[u8], count: usize) {
        let mut last = None;
        for n in 0..count {
            let part = self.parts[n % self.parts.len()];
            let appended = self.core.append(self.now, part, batch);
            last = Some(
                appended
                    .expect("the disk is quick enough for there always to be room")
                    .frame,
            );
        }
        self.turn();
        assert!(last.is_none_or(|frame| frame <= self.core.durable()));
    }
}

/// The completion of an operation that succeeded. Nothing here reads: what is fetched is in memory.
fn done(op: Op) -> Completion {
    let (result, returned) = match op.kind {
        OpKind::Write { data, .. } => (Ok(()), Returned::Data(data)),
        OpKind::Read { buf, .. } => (Err(DiskError::IO), Returned::Buf(buf)),
        _ => (Ok(()), Returned::Nothing),
    };
    Completion {
        id: op.id,
        result,
        returned,
    }
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for (bytes, name) in BATCHES {
        let data = batch(bytes);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_with_input(BenchmarkId::new("crc32c", name), &data, |b, data| {
            b.iter(|| crc32c(black_box(data)));
        });
        group.bench_with_input(BenchmarkId::new("crc32", name), &data, |b, data| {
            b.iter(|| crc32(black_box(data)));
        });
    }
}

fn validate(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for (bytes, name) in BATCHES {
        let data = batch(bytes);
        assert!(BatchHeader::validate(&data).is_ok());
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &data, |b, data| {
            b.iter(|| BatchHeader::validate(black_box(data)).is_ok());
        });
    }
}

/// What reading every record adds to the validation of a batch of 250 KiB, by the records' size in bytes.
fn inspect_records(c: &mut Criterion) {
    let mut group = c.benchmark_group("inspect");
    for len in [1024, 100] {
        let mut builder = BatchBuilder::new();
        let value = vec![7; len];
        while builder.uncompressed_len() < 250 << 10 {
            builder.push_values(1_700_000_000_000, [value.as_slice()]);
        }
        let data = builder.build().expect("an uncompressed batch is built");
        let count = BatchHeader::parse(&data).map_or(0, |header| header.record_count.get());
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_with_input(BenchmarkId::new("records of", len), &data, |b, data| {
            b.iter(|| inspect(Records::new(black_box(&data[HEADER_LEN..]), count)).is_ok());
        });
    }
}

/// Append, seal, commit, and in the end destage: all of the engine's work for a batch.
fn append_and_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_and_commit");
    for (bytes, name) in BATCHES {
        let data = batch(bytes);
        // As many as fill one frame of a loaded server, roughly.
        let count = (1 << 20) / data.len().max(1 << 14);
        for partitions in [16, 1000] {
            let mut engine = Engine::new(partitions);
            group.throughput(Throughput::Bytes((data.len() * count) as u64));
            let id = BenchmarkId::new(
                format!("{count} x {name}"),
                format!("{partitions} partitions"),
            );
            group.bench_with_input(id, &data, |b, data| b.iter(|| engine.commit(data, count)));
            let stats = engine.core.stats();
            assert!(stats.syncs >= stats.frames, "every commit was synced");
        }
    }
}

fn fetch_from_memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch_from_memory");
    for (bytes, name) in BATCHES {
        let data = batch(bytes);
        let mut engine = Engine::new(1);
        let count = (8 << 20) / data.len();
        engine.commit(&data, count);
        let part = engine.parts[0];
        let offsets = engine.core.offsets(part).expect("the partition is there");
        let max_bytes = 1 << 20;
        let spec = FetchSpec {
            offset: offsets.high_watermark / 2,
            max_bytes,
            min_one: true,
            spans: false,
            committed: false,
        };
        group.throughput(Throughput::Bytes(max_bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| match engine.core.fetch(engine.now, part, spec) {
                Ok(Reply::Ready(found)) => assert!(found.bytes > max_bytes / 2),
                other => panic!("not in memory: {other:?}"),
            });
        });
    }
}

fn index_look_up(c: &mut Criterion) {
    let mut index = SparseIndex::new(4096);
    for n in 0..4000 {
        index.push(IndexEntry {
            relative_offset: n * 100,
            position: n * 16384,
            max_timestamp: i64::from(n),
            max_timestamp_offset: n * 100,
        });
    }
    let mut group = c.benchmark_group("index_look_up");
    group.throughput(Throughput::Elements(1));
    let mut offset = 0;
    group.bench_function("by offset", |b| {
        b.iter(|| {
            offset = (offset + 7919 * 31) % 400_000;
            index.position_of(black_box(offset))
        });
    });
    let mut time = 0;
    group.bench_function("by time", |b| {
        b.iter(|| {
            time = (time + 1009) % 4000;
            index.position_of_time(black_box(time))
        });
    });
}

criterion_group!(
    hot_paths,
    checksums,
    validate,
    inspect_records,
    append_and_commit,
    fetch_from_memory,
    index_look_up
);
criterion_main!(hot_paths);
