//! Compaction under transactions: whatever the seed does, crashes included, a committed read sees of each key the
//! value that was committed last, and compaction gets on.

#![allow(clippy::unwrap_used)]

mod machine;

use std::collections::{BTreeMap, HashMap};

use machine::{SECOND_NS, core_config};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Marker, NewRecord, body};
use ringlog_engine::core::{
    AppendError, Chunk, CleanerConfig, CompactionPolicy, Core, CoreConfig, Event, FetchSpec,
    LogConfig, Mutations, Reply,
};
use ringlog_engine::id::{Now, Part, PartitionKey, TopicId};
use ringlog_engine::recovery::{PartitionMeta, RecoveryOptions, recover};
use ringlog_engine::sim::{DiskConfig, Rng, SimDisk};
use ringlog_engine::store::AbortedTransaction;

const PRODUCERS: u64 = 3;
const KEYS: u64 = 8;

/// Offset and value of each key; a tombstone counts until it is gone.
type View = BTreeMap<u8, (i64, Option<Vec<u8>>)>;

struct Machine {
    rng: Rng,
    disk: SimDisk,
    core: Core,
    part: Part,
    now: Now,
    meta: PartitionMeta,
    compactions: u64,
}

fn start(disk: &mut SimDisk, meta: &PartitionMeta, now: Now) -> (Core, Part) {
    let options = RecoveryOptions {
        shards: 1,
        journal_file_len: core_config().journal_file_len(),
        new_dir_id: [9; 16],
        now_ms: now.wall_ms,
        mutations: Mutations::default(),
    };
    let metas = std::slice::from_ref(meta);
    let recovered = recover(&mut disk.blocking(None), metas, options).unwrap();
    let config = CoreConfig {
        existing_journals: recovered.existing_journals(0),
        cleaner: CleanerConfig {
            backoff_ms: 20,
            dedupe_bytes: 0,
            ..CleanerConfig::default()
        },
        ..core_config()
    };
    let core = Core::new(config, recovered.run, recovered.partitions, now);
    let part = core.lookup(meta.key).unwrap();
    (core, part)
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(rng.fork(), DiskConfig::default());
        let meta = PartitionMeta {
            key: PartitionKey {
                topic: TopicId([7; 16]),
                partition: 0,
            },
            topic_name: "state".to_owned(),
            config: LogConfig {
                segment_bytes: 6_000,
                retention_ms: -1,
                compaction: Some(CompactionPolicy {
                    dirty_ratio_ppm: rng.pick(&[0, 300_000]),
                    delete_retention_ms: rng.pick(&[0, 50, 1 << 40]),
                    ..CompactionPolicy::default()
                }),
                ..LogConfig::default()
            },
        };
        let now = Now {
            mono_ns: SECOND_NS,
            wall_ms: 1_700_000_000_000,
        };
        let (core, part) = start(&mut disk, &meta, now);
        Self {
            rng,
            disk,
            core,
            part,
            now,
            meta,
            compactions: 0,
        }
    }

    fn turn(&mut self) -> Vec<Event> {
        let due = [self.disk.next_due_ns(), self.core.deadline_ns()];
        let due = due.into_iter().flatten().min().unwrap();
        self.now.mono_ns = due.clamp(self.now.mono_ns + 1_000, self.now.mono_ns + 10_000_000);
        self.now.wall_ms = 1_700_000_000_000 + (self.now.mono_ns / 1_000_000) as i64;
        while let Some((_, completion)) = self.disk.complete(self.now.mono_ns) {
            self.core.complete(self.now, completion);
        }
        self.core.poll(self.now);
        while let Some(op) = self.core.next_op() {
            self.disk.submit(0, self.now.mono_ns, op);
        }
        std::iter::from_fn(|| self.core.next_event()).collect()
    }

    fn crash(&mut self) {
        self.compactions += self.core.stats().compactions;
        if self.rng.percent(30) {
            self.disk.kill();
        } else {
            self.disk.lose_power();
        }
        (self.core, self.part) = start(&mut self.disk, &self.meta, self.now);
    }

    fn append_soon(&mut self, batch: &[u8]) {
        while let Err(error) = self.core.append_internal(self.now, self.part, batch) {
            assert_eq!(error, AppendError::Busy);
            self.turn();
        }
    }

    fn settle(&mut self) {
        loop {
            let offsets = self.core.offsets(self.part).unwrap();
            if offsets.high_watermark == offsets.log_end {
                return;
            }
            self.turn();
        }
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
            let base = self.core.offsets(self.part).unwrap().log_end;
            let mut records = Vec::new();
            for at in 0..self.rng.between(1, 3) {
                let key = self.rng.below(KEYS) as u8;
                let value = self
                    .rng
                    .percent(85)
                    .then(|| vec![self.rng.next_u64() as u8; 200]);
                builder.push(&NewRecord {
                    timestamp_ms: self.now.wall_ms,
                    key: Some(&[key]),
                    value: value.as_deref(),
                    headers: &[],
                });
                records.push((key, (base + at as i64, value)));
            }
            *sequence += records.len() as i32;
            self.append_soon(&builder.build().unwrap());
            written.extend(records);
        }
        let marker = Marker {
            committed,
            coordinator_epoch: 0,
        };
        self.append_soon(&marker.batch(id, 0, self.now.wall_ms));
        if committed {
            view.extend(written);
        }
    }

    fn fetch(&mut self, offset: i64) -> (Vec<u8>, Vec<AbortedTransaction>) {
        let spec = FetchSpec {
            offset,
            max_bytes: 3_000,
            min_one: true,
            spans: false,
            committed: true,
        };
        let reply = self.core.fetch(self.now, self.part, spec).unwrap();
        let data = match reply {
            Reply::Ready(data) => data,
            Reply::Pending(read) => loop {
                let found = self.turn().into_iter().find_map(|event| match event {
                    Event::Fetched(id, result) if id == read => Some(result.unwrap()),
                    _ => None,
                });
                if let Some(data) = found {
                    break data;
                }
            },
        };
        let mut bytes = Vec::new();
        for chunk in &data.chunks {
            if let Chunk::Bytes(slice) = chunk {
                bytes.extend_from_slice(slice);
            }
        }
        // As the server does it: the list as of the answer.
        let aborted = self.core.aborted(self.part, offset, data.end);
        (bytes, aborted)
    }

    /// What a consumer that reads committed records has at the end, answer by answer as Kafka's does it.
    fn committed(&mut self) -> View {
        let mut view = View::new();
        let mut offset = 0;
        loop {
            let (bytes, mut aborted) = self.fetch(offset);
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
                    machine.turn();
                }
            }
            machine.settle();
            assert_eq!(values(&machine.committed()), values(&view), "seed {seed}");
            for _ in 0..machine.rng.below(120) {
                machine.turn();
            }
            dropped += machine.core.stats().compaction_dropped_records;
            if machine.rng.percent(70) {
                machine.crash();
            }
            let seen = machine.committed();
            assert_eq!(values(&seen), values(&view), "seed {seed}");
            // A tombstone that is there is the newest of its key.
            let newest = |(key, seen): (&u8, &(i64, _))| seen.0 == view[key].0;
            assert!(seen.iter().all(newest), "seed {seed}");
        }
        compactions += machine.compactions + machine.core.stats().compactions;
    }
    assert!(
        compactions > 80 && dropped > 5_000,
        "{compactions} {dropped}"
    );
}
