//! Compaction under transactions: whatever the seed does, crashes included, a committed read sees of each key the
//! value that was committed last, and compaction gets on.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::{BTreeMap, HashMap};

use machine::core_config;
use machine::one::OnePartition;
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Marker, NewRecord, body};
use ringlog_engine::core::{CleanerConfig, CompactionPolicy, CoreConfig, LogConfig};
use ringlog_engine::sim::Rng;

const PRODUCERS: u64 = 3;
const KEYS: u64 = 8;

/// Offset and value of each key; a tombstone counts until it is gone.
type View = BTreeMap<u8, (i64, Option<Vec<u8>>)>;

struct Machine {
    rng: Rng,
    log: OnePartition,
    compactions: u64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = rng.fork();
        let log = LogConfig {
            segment_bytes: 6_000,
            retention_ms: -1,
            compaction: Some(CompactionPolicy {
                dirty_ratio_ppm: rng.pick(&[0, 300_000]),
                delete_retention_ms: rng.pick(&[0, 50, 1 << 40]),
                ..CompactionPolicy::default()
            }),
            ..LogConfig::default()
        };
        let config = CoreConfig {
            cleaner: CleanerConfig {
                backoff_ms: 20,
                dedupe_bytes: 0,
                ..CleanerConfig::default()
            },
            ..core_config()
        };
        Self {
            log: OnePartition::new(disk, "state", log, config),
            rng,
            compactions: 0,
        }
    }

    fn crash(&mut self) {
        self.compactions += self.log.core.stats().compactions;
        if self.rng.percent(30) {
            self.log.disk.kill();
        } else {
            self.log.disk.lose_power();
        }
        self.log.restart();
    }

    /// A transaction of some batches, decided at once, or a batch outside of any; returns what it leaves.
    fn write(&mut self, sequences: &mut HashMap<i64, i32>, view: &mut View) {
        let id = self.rng.below(PRODUCERS) as i64;
        let committed = self.rng.percent(60);
        let mut written = View::new();
        for _ in 0..self.rng.between(1, 3) {
            let sequence = sequences.entry(id).or_default();
            let mut builder = BatchBuilder::new()
                .producer(id, 0, *sequence)
                .transactional(true);
            let base = self.log.core.offsets(self.log.part).unwrap().log_end;
            let mut records = Vec::new();
            for at in 0..self.rng.between(1, 3) {
                let key = self.rng.below(KEYS) as u8;
                let value = self
                    .rng
                    .percent(85)
                    .then(|| vec![self.rng.next_u64() as u8; 200]);
                builder.push(&NewRecord {
                    timestamp_ms: self.log.now.wall_ms,
                    key: Some(&[key]),
                    value: value.as_deref(),
                    headers: &[],
                });
                records.push((key, (base + at as i64, value)));
            }
            *sequence += records.len() as i32;
            self.log.append_soon(&builder.build().unwrap());
            written.extend(records);
        }
        let marker = Marker {
            committed,
            coordinator_epoch: 0,
        };
        self.log
            .append_soon(&marker.batch(id, 0, self.log.now.wall_ms));
        if committed {
            view.extend(written);
        }
    }

    /// What a consumer that reads committed records has at the end, answer by answer as Kafka's does it.
    fn committed(&mut self) -> View {
        let mut view = View::new();
        let mut offset = 0;
        loop {
            let (bytes, end) = self.log.fetch(offset, 3_000, true);
            // As the server does it: the list as of the answer.
            let mut aborted = self.log.core.aborted(self.log.part, offset, end);
            if bytes.is_empty() {
                return view;
            }
            aborted.sort_by_key(|t| t.first_offset);
            let mut pending = aborted.into_iter().peekable();
            let mut skipped = std::collections::HashSet::new();
            let mut rest = bytes.as_slice();
            while let Ok(header) = BatchHeader::parse(rest) {
                let (batch, behind) = rest.split_at(header.total_len());
                rest = behind;
                let id = header.producer_id.get();
                while let Some(t) = pending.next_if(|t| t.first_offset <= header.last_offset()) {
                    skipped.insert(t.producer_id);
                }
                offset = offset.max(header.next_offset());
                if header.is_control() {
                    if Marker::read(batch).is_some_and(|m| !m.committed) {
                        skipped.remove(&id);
                    }
                    continue;
                }
                if skipped.contains(&id) {
                    continue;
                }
                let mut scratch = Vec::new();
                for record in body(batch, 1 << 20, &mut scratch).unwrap() {
                    let record = record.unwrap();
                    let at = header.base_offset.get() + i64::from(record.offset_delta);
                    let value = record.value.map(<[u8]>::to_vec);
                    view.insert(record.key.unwrap()[0], (at, value));
                }
            }
        }
    }
}

/// Tombstones may be gone.
fn values(view: &View) -> View {
    let kept = view.iter().filter(|(_, (_, value))| value.is_some());
    kept.map(|(key, seen)| (*key, seen.clone())).collect()
}

#[test]
fn a_committed_read_sees_the_last_committed_values_after_any_crash() {
    let (mut compactions, mut dropped) = (0, 0);
    for seed in 0..40 {
        let mut machine = Machine::new(seed);
        let (mut sequences, mut view) = (HashMap::new(), View::new());
        for _ in 0..machine.rng.between(2, 6) {
            for _ in 0..machine.rng.between(10, 60) {
                machine.write(&mut sequences, &mut view);
                for _ in 0..machine.rng.below(6) {
                    machine.log.turn();
                }
            }
            machine.log.settle();
            assert_eq!(values(&machine.committed()), values(&view), "seed {seed}");
            for _ in 0..machine.rng.below(120) {
                machine.log.turn();
            }
            dropped += machine.log.core.stats().compaction_dropped_records;
            if machine.rng.percent(70) {
                machine.crash();
            }
            let seen = machine.committed();
            assert_eq!(values(&seen), values(&view), "seed {seed}");
            // A tombstone that is there is the newest of its key.
            let newest = |(key, seen): (&u8, &(i64, _))| seen.0 == view[key].0;
            assert!(seen.iter().all(newest), "seed {seed}");
        }
        compactions += machine.compactions + machine.log.core.stats().compactions;
    }
    assert!(
        compactions > 80 && dropped > 5_000,
        "{compactions} {dropped}"
    );
}

/// A batch of one record of this size, in a transaction or outside of any.
fn one_record(machine: &Machine, transactional: bool, key: Option<&[u8]>, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    if transactional {
        builder = builder.producer(1, 0, 0).transactional(true);
    }
    builder.push(&NewRecord {
        timestamp_ms: machine.log.now.wall_ms,
        key,
        value: Some(&vec![b'v'; bytes]),
        headers: &[],
    });
    builder.build().unwrap().to_vec()
}

#[test]
fn behind_what_compaction_has_emptied_a_committed_read_still_ends_where_the_undecided_begins() {
    let mut machine = Machine::new(3);
    let kept = one_record(&machine, false, Some(b"k"), 200);
    machine.log.append_soon(&kept);
    // Records without a key are dropped.
    for _ in 0..20 {
        let keyless = one_record(&machine, false, None, 150);
        machine.log.append_soon(&keyless);
    }
    // The open transaction begins a segment of its own.
    let open = machine.log.core.offsets(machine.log.part).unwrap().log_end;
    let batch = one_record(&machine, true, Some(b"k"), 3_500);
    machine.log.append_soon(&batch);
    let mut turns = 0;
    while machine.log.core.compacted_end(machine.log.part) < open {
        machine.log.turn();
        turns += 1;
        assert!(turns < 100_000, "nothing is compacted");
    }
    assert_eq!(machine.log.fetch(1, 3_000, true).0, [0; 0]);
    let (bytes, _) = machine.log.fetch(1, 3_000, false);
    let first = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(first.base_offset.get(), open, "the gap reaches up to it");
    let marker = Marker {
        committed: true,
        coordinator_epoch: 0,
    };
    let marker = marker.batch(1, 0, machine.log.now.wall_ms);
    machine.log.append_soon(&marker);
    machine.log.settle();
    assert_eq!(machine.log.fetch(1, 3_000, true).0, bytes);
}
