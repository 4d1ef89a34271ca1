//! One partition on a shard of its own, whose disk may lose power.

use ringlog_engine::core::{
    AppendError, Chunk, Core, CoreConfig, Event, FetchSpec, LogConfig, Mutations, Reply,
    TimedOffset,
};
use ringlog_engine::id::{Now, Part, PartitionKey, TopicId};
use ringlog_engine::recovery::{PartitionMeta, RecoveryOptions, recover};
use ringlog_engine::sim::{DiskConfig, Rng, SimDisk};

use super::SECOND_NS;

/// A core with one partition, over a simulated disk.
pub struct OnePartition {
    pub disk: SimDisk,
    pub core: Core,
    pub part: Part,
    pub now: Now,
    meta: PartitionMeta,
    config: CoreConfig,
}

impl OnePartition {
    /// An empty one.
    pub fn new(rng: Rng, topic_name: &str, log: LogConfig, config: CoreConfig) -> Self {
        let mut disk = SimDisk::new(rng, DiskConfig::default());
        let meta = PartitionMeta {
            key: PartitionKey {
                topic: TopicId([7; 16]),
                partition: 0,
            },
            topic_name: topic_name.to_owned(),
            config: log,
        };
        let now = Now {
            mono_ns: SECOND_NS,
            wall_ms: 1_700_000_000_000,
        };
        let (core, part) = start(&mut disk, &meta, &config, now);
        Self {
            disk,
            core,
            part,
            now,
            meta,
            config,
        }
    }

    /// Starts again over what the disk holds.
    pub fn restart(&mut self) {
        (self.core, self.part) = start(&mut self.disk, &self.meta, &self.config, self.now);
    }

    /// Goes to whatever is due next.
    pub fn turn(&mut self) -> Vec<Event> {
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

    /// Appends as soon as there is room.
    pub fn append_soon(&mut self, batch: &[u8]) {
        while let Err(error) = self.core.append_internal(self.now, self.part, batch) {
            assert_eq!(error, AppendError::Busy);
            self.turn();
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.mono_ns + ms * 1_000_000;
        while self.now.mono_ns < end {
            self.turn();
        }
    }

    /// Lets a round that begins now, or later, end.
    pub fn end_round(&mut self) {
        let rounds = self.core.stats().rounds;
        let mut turns = 0;
        while self.core.stats().rounds == rounds {
            self.turn();
            turns += 1;
            assert!(turns < 100_000, "no round ends");
        }
    }

    /// Lets everything become durable.
    pub fn settle(&mut self) {
        loop {
            let offsets = self.core.offsets(self.part).unwrap();
            if offsets.high_watermark == offsets.log_end {
                return;
            }
            self.turn();
        }
    }

    /// The first record that is not older.
    pub fn find(&mut self, timestamp_ms: i64) -> Option<TimedOffset> {
        let reply = self.core.offset_for_time(self.now, self.part, timestamp_ms);
        match reply.unwrap() {
            Reply::Ready(found) => found,
            Reply::Pending(read) => loop {
                let found = self.turn().into_iter().find_map(|event| match event {
                    Event::Timed(id, result) if id == read => Some(result.unwrap()),
                    _ => None,
                });
                if let Some(found) = found {
                    break found;
                }
            },
        }
    }

    /// Batches from `offset` on, as bytes, and the end of what was looked at.
    pub fn fetch(&mut self, offset: i64, max_bytes: usize, committed: bool) -> (Vec<u8>, i64) {
        let spec = FetchSpec {
            offset,
            max_bytes,
            min_one: true,
            spans: false,
            committed,
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
            match chunk {
                Chunk::Bytes(slice) => bytes.extend_from_slice(slice),
                Chunk::Span(_) => panic!("spans were not asked for"),
            }
        }
        (bytes, data.end)
    }
}

fn start(disk: &mut SimDisk, meta: &PartitionMeta, config: &CoreConfig, now: Now) -> (Core, Part) {
    let options = RecoveryOptions {
        shards: 1,
        journal_file_len: config.journal_file_len(),
        new_dir_id: [9; 16],
        now_ms: now.wall_ms,
        mutations: Mutations::default(),
    };
    let metas = std::slice::from_ref(meta);
    let recovered = recover(&mut disk.blocking(None), metas, options).unwrap();
    let config = CoreConfig {
        existing_journals: recovered.existing_journals(0),
        ..config.clone()
    };
    let core = Core::new(config, recovered.run, recovered.partitions, now);
    let part = core.lookup(meta.key).unwrap();
    (core, part)
}
