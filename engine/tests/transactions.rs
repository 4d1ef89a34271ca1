//! Transactions over a disk that loses power: whatever the seed does, the last stable offset and the list of aborted
//! transactions are what reading the whole durable log gives, a committed read ends where the undecided begins, and
//! neither the high watermark nor the last stable offset ever goes back.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::HashMap;

use machine::one::OnePartition;
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Marker, NewRecord};
use ringlog_engine::core::{
    AppendError, ColdReads, CoreConfig, Durability, Inspect, LogConfig, Mutations,
};
use ringlog_engine::id::Now;
use ringlog_engine::sim::Rng;

const PRODUCERS: u64 = 4;

/// A producer as its coordinator sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Producer {
    epoch: i16,
    sequence: i32,
}

struct Machine {
    rng: Rng,
    log: OnePartition,
    producers: [Producer; PRODUCERS as usize],
    /// What was seen: log start, high watermark, last stable offset.
    seen: (i64, i64, i64),
    /// Aborted transactions and open ones that were compared.
    compared: (usize, usize),
}

fn config() -> CoreConfig {
    CoreConfig {
        shard: 0,
        shards: 1,
        durability: Durability::Fsync,
        commits_in_flight: 3,
        journal_file_bytes: 64 << 10,
        journal_files: 3,
        existing_journals: Vec::new(),
        memory_bytes: 192 << 10,
        max_batch_bytes: 4096,
        cold_reads: ColdReads::Direct,
        producer_expiry_ms: 1 << 40,
        open_files: 16,
        reads_in_flight: 4,
        cleaner: Default::default(),
        inspect: Inspect::Headers,
        decompressed_bytes_max: 1 << 20,
        mutations: Mutations::default(),
    }
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = rng.fork();
        let log = LogConfig {
            segment_bytes: 20_000,
            retention_ms: -1,
            ..LogConfig::default()
        };
        Self {
            log: OnePartition::new(disk, "logs", log, config()),
            rng,
            producers: Default::default(),
            seen: (0, 0, 0),
            compared: (0, 0),
        }
    }

    /// Appends something: a batch of a transaction, one outside of any, or a marker, in either generation of the
    /// protocol.
    fn append(&mut self) {
        let id = self.rng.below(PRODUCERS);
        let mut producer = self.producers[id as usize];
        let is_open = self
            .log
            .core
            .producers(self.log.part)
            .unwrap()
            .ongoing(id as i64);
        let ends = is_open.is_some() && self.rng.percent(40);
        let batch = if ends {
            if self.rng.percent(50) {
                producer.epoch += 1;
                producer.sequence = 0;
            }
            let marker = Marker {
                committed: self.rng.percent(50),
                coordinator_epoch: 0,
            };
            marker.batch(id as i64, producer.epoch, self.log.now.wall_ms)
        } else {
            let records = self.rng.between(1, 3);
            let batch = data(self.log.now, id as i64, producer, records);
            producer.sequence += records as i32;
            batch
        };
        match self
            .log
            .core
            .append_internal(self.log.now, self.log.part, &batch)
        {
            Ok(appended) => {
                assert!(!appended.duplicate);
                self.producers[id as usize] = producer;
            }
            Err(AppendError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn crash(&mut self) {
        if self.rng.percent(50) {
            self.log.disk.kill();
        } else {
            self.log.disk.lose_power();
        }
        self.log.restart();
        // Coordinators outlive partitions; here the log is all there is. A batch that was not durable never was.
        let known = self.log.core.producers(self.log.part).unwrap();
        for (id, producer) in self.producers.iter_mut().enumerate() {
            let found = known.get(id as i64);
            *producer = found.map_or(Producer::default(), |found| Producer {
                epoch: found.epoch,
                sequence: found.last_sequence() + 1,
            });
        }
    }

    fn fetch(&mut self, offset: i64, committed: bool) -> Vec<u8> {
        let (bytes, end) = self.log.fetch(offset, 8_000, committed);
        let last = headers(&bytes).last().map_or(offset, |h| h.next_offset());
        assert!(bytes.is_empty() || last <= end, "{last} {end}");
        bytes
    }

    /// All that can be read, batch by batch.
    fn read_all(&mut self, committed: bool) -> Vec<(BatchHeader, Option<Marker>)> {
        let mut found = Vec::new();
        let mut offset = self.log.core.offsets(self.log.part).unwrap().log_start;
        loop {
            let bytes = self.fetch(offset, committed);
            if bytes.is_empty() {
                return found;
            }
            let mut at = 0;
            for header in headers(&bytes) {
                let batch = &bytes[at..at + header.total_len()];
                at += batch.len();
                if header.next_offset() > offset {
                    offset = header.next_offset();
                    found.push((header, Marker::read(batch)));
                }
            }
        }
    }

    /// Nothing goes back, ever.
    fn watch(&mut self) {
        let offsets = self.log.core.offsets(self.log.part).unwrap();
        let now = (
            offsets.log_start,
            offsets.high_watermark,
            offsets.last_stable,
        );
        let before = self.seen;
        assert!(
            now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2,
            "{now:?} after {before:?}"
        );
        assert!(offsets.last_stable <= offsets.high_watermark);
        self.seen = now;
    }

    /// Lets everything become durable, and holds what the core says against the log.
    fn check(&mut self) {
        self.log.settle();
        self.watch();
        let all = self.read_all(false);
        let committed = self.read_all(true);
        let offsets = self.log.core.offsets(self.log.part).unwrap();
        // Everything is there: the log of the test starts at 0 unless records were deleted.
        let mut open: HashMap<i64, i64> = HashMap::new();
        let mut aborted = Vec::new();
        for (header, marker) in &all {
            let id = header.producer_id.get();
            match marker {
                Some(marker) => {
                    if let Some(first) = open.remove(&id)
                        && !marker.committed
                    {
                        aborted.push((id, first, header.base_offset.get()));
                    }
                }
                None if header.is_transactional() => {
                    open.entry(id).or_insert(header.base_offset.get());
                }
                None => {}
            }
        }
        let stable = open
            .values()
            .min()
            .copied()
            .unwrap_or(offsets.high_watermark);
        assert_eq!(offsets.last_stable, stable);
        let end = committed
            .last()
            .map_or(0, |(header, _)| header.next_offset());
        assert_eq!(
            end, stable,
            "a committed read ends where the undecided begins"
        );
        let before = all.iter().filter(|(h, _)| h.base_offset.get() < stable);
        assert_eq!(committed.len(), before.count());
        let (from, to) = (self.rng.below(stable as u64 + 1) as i64, stable);
        for (from, to) in [(0, i64::MAX), (from, to)] {
            let listed = self.log.core.aborted(self.log.part, from, to);
            let listed = listed
                .iter()
                .map(|t| (t.producer_id, t.first_offset, t.last_offset));
            let expected = aborted.iter().copied();
            let expected = expected.filter(|&(_, first, last)| last >= from && first < to);
            assert_eq!(listed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        self.compared.0 += aborted.len();
        self.compared.1 += open.len();
    }
}

fn data(now: Now, id: i64, producer: Producer, records: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new()
        .producer(id, producer.epoch, producer.sequence)
        .transactional(true);
    for _ in 0..records {
        builder.push(&NewRecord {
            timestamp_ms: now.wall_ms,
            key: None,
            value: Some(&[b'x'; 300]),
            headers: &[],
        });
    }
    builder.build().unwrap()
}

fn headers(mut bytes: &[u8]) -> Vec<BatchHeader> {
    let mut found = Vec::new();
    while let Ok(header) = BatchHeader::parse(bytes) {
        found.push(*header);
        bytes = &bytes[header.total_len()..];
    }
    found
}

#[test]
fn what_is_stable_and_aborted_is_what_the_log_says_after_any_crash() {
    let mut compared = (0, 0);
    for seed in 0..60 {
        let mut machine = Machine::new(seed);
        for _ in 0..machine.rng.between(2, 6) {
            for _ in 0..machine.rng.between(10, 200) {
                if machine.rng.percent(60) {
                    machine.append();
                }
                if machine.rng.percent(40) {
                    machine.log.turn();
                    machine.watch();
                }
            }
            if machine.rng.percent(70) {
                machine.crash();
                machine.watch();
            }
            machine.check();
        }
        compared.0 += machine.compared.0;
        compared.1 += machine.compared.1;
    }
    assert!(compared.0 > 500 && compared.1 > 100, "{compared:?}");
}

#[test]
fn records_deleted_take_the_aborted_transactions_before_them_along() {
    let mut machine = Machine::new(1);
    for _ in 0..100 {
        machine.append();
        machine.log.turn();
    }
    machine.check();
    let listed = machine.log.core.aborted(machine.log.part, 0, i64::MAX);
    let cut = listed[listed.len() / 2].last_offset + 1;
    machine
        .log
        .core
        .delete_records(machine.log.part, cut)
        .unwrap();
    while machine
        .log
        .core
        .offsets(machine.log.part)
        .unwrap()
        .log_start
        < cut
    {
        machine.log.turn();
    }
    let kept: Vec<_> = listed
        .into_iter()
        .filter(|t| t.last_offset >= cut)
        .collect();
    assert_eq!(
        machine.log.core.aborted(machine.log.part, 0, i64::MAX),
        kept
    );
    machine.crash();
    assert_eq!(
        machine.log.core.aborted(machine.log.part, 0, i64::MAX),
        kept
    );
}

#[test]
fn a_marker_decides_when_it_is_durable_and_not_before() {
    let mut machine = Machine::new(2);
    let producer = Producer::default();
    let batch = data(machine.log.now, 1, producer, 2);
    let part = machine.log.part;
    machine.log.append_soon(&batch);
    while machine.log.core.offsets(part).unwrap().high_watermark < 2 {
        machine.log.turn();
    }
    assert_eq!(machine.log.core.offsets(part).unwrap().last_stable, 0);
    assert!(machine.fetch(0, true).is_empty() && !machine.fetch(0, false).is_empty());
    let marker = Marker {
        committed: true,
        coordinator_epoch: 0,
    };
    let batch = marker.batch(1, 0, 0);
    let refused = machine.log.core.append(machine.log.now, part, &batch);
    assert_eq!(refused, Err(AppendError::ControlBatch));
    machine.log.append_soon(&batch);
    assert_eq!(machine.log.core.offsets(part).unwrap().last_stable, 0);
    assert_eq!(machine.log.core.producers(part).unwrap().ongoing(1), None);
    // It is lost: the transaction is open again, and may be ended again.
    machine.log.disk.lose_power();
    machine.log.restart();
    assert_eq!(machine.log.core.offsets(part).unwrap().last_stable, 0);
    assert_eq!(
        machine.log.core.producers(part).unwrap().ongoing(1),
        Some(0)
    );
    machine.log.append_soon(&batch);
    while machine.log.core.offsets(part).unwrap().last_stable < 3 {
        machine.log.turn();
    }
    assert_eq!(machine.read_all(true).len(), 2);
}
