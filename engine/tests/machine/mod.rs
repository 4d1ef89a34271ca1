//! What the stories of the simulated disk share: a small core, and a machine that drives it.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod one;

use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::core::{
    AppendError, ColdReads, Core, CoreConfig, Durability, Inspect, LogConfig, Mutations,
};
use ringlog_engine::id::{Now, Part, PartitionKey, TopicId};
use ringlog_engine::recovery::{PartitionMeta, RecoveryError, RecoveryOptions, recover};
use ringlog_engine::sim::{DiskConfig, Rng, SimDisk};

/// A core with two journal files of 64 KiB.
pub fn core_config() -> CoreConfig {
    CoreConfig {
        shard: 0,
        shards: 1,
        durability: Durability::Fsync,
        commits_in_flight: 2,
        journal_file_bytes: 64 << 10,
        journal_files: 2,
        existing_journals: Vec::new(),
        memory_bytes: 1 << 20,
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

/// A batch of one record whose value has `bytes` bytes.
pub fn record_batch(now: Now, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp_ms: now.wall_ms,
        key: None,
        value: Some(&vec![b'x'; bytes]),
        headers: &[],
    });
    builder.build().unwrap().to_vec()
}

pub const SECOND_NS: u64 = 1_000_000_000;

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicId([7; 16]),
        partition,
    }
}

fn start(disk: &mut SimDisk, catalog: &[PartitionMeta], now: Now) -> Result<Core, RecoveryError> {
    let options = RecoveryOptions {
        shards: 1,
        journal_file_len: core_config().journal_file_len(),
        new_dir_id: [1; 16],
        now_ms: now.wall_ms,
        mutations: Mutations::default(),
    };
    let recovered = recover(&mut disk.blocking(None), catalog, options)?;
    let config = CoreConfig {
        existing_journals: recovered.existing_journals(0),
        ..core_config()
    };
    Ok(Core::new(config, recovered.run, recovered.partitions, now))
}

/// One shard without a server, driven step by step.
pub struct Machine {
    pub disk: SimDisk,
    pub core: Core,
    pub now: Now,
    catalog: Vec<PartitionMeta>,
    /// Turns in a row that were due at once and did nothing.
    idle_turns: u32,
    pub idle_turns_max: u32,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(config: DiskConfig) -> Self {
        let mut disk = SimDisk::new(Rng::new(1), config);
        let now = Now {
            mono_ns: SECOND_NS,
            wall_ms: 1_700_000_000_000,
        };
        Self {
            core: start(&mut disk, &[], now).unwrap(),
            disk,
            catalog: Vec::new(),
            now,
            idle_turns: 0,
            idle_turns_max: 0,
        }
    }

    pub fn partition(&mut self, number: i32, retention_ms: i64) -> Part {
        let meta = PartitionMeta {
            key: key(number),
            topic_name: "logs".to_owned(),
            config: LogConfig {
                retention_ms,
                ..LogConfig::default()
            },
        };
        self.catalog.push(meta.clone());
        self.core
            .create_partition(self.now, meta.key, &meta.topic_name, meta.config)
    }

    pub fn part(&self, number: i32) -> Part {
        self.core.lookup(key(number)).unwrap()
    }

    /// Starts again over what the disk holds.
    pub fn restart(&mut self) -> Result<(), RecoveryError> {
        self.core = start(&mut self.disk, &self.catalog, self.now)?;
        Ok(())
    }

    /// Flips a bit in the body of a checkpoint.
    pub fn damage(&mut self, path: &str) {
        self.disk.flip_bit(path, 4096 + 20, 1).unwrap();
    }

    /// Appends one record as soon as there is room.
    pub fn append(&mut self, part: Part) {
        while self.try_append(part).is_err() {
            self.turn();
        }
    }

    /// Appends one record, or says why not.
    pub fn try_append(&mut self, part: Part) -> Result<(), AppendError> {
        let batch = record_batch(self.now, 3000);
        self.core.append(self.now, part, &batch).map(drop)
    }

    /// Goes to whatever is due next, as a driver does.
    pub fn turn(&mut self) {
        let due = [self.disk.next_due_ns(), self.core.deadline_ns()];
        // A core that is finished waits for nothing.
        let due = due.into_iter().flatten().min();
        let due = due.unwrap_or(self.now.mono_ns + SECOND_NS);
        let at_once = due <= self.now.mono_ns;
        let passed_ns = due.saturating_sub(self.now.mono_ns).max(1_000);
        self.now.mono_ns += passed_ns;
        self.now.wall_ms = 1_700_000_000_000 + (self.now.mono_ns / 1_000_000) as i64;
        let mut worked = false;
        while let Some((_, completion)) = self.disk.complete(self.now.mono_ns) {
            self.core.complete(self.now, completion);
            worked = true;
        }
        self.core.poll(self.now);
        while let Some(op) = self.core.next_op() {
            self.disk.submit(0, self.now.mono_ns, op);
            worked = true;
        }
        while self.core.next_event().is_some() {
            worked = true;
        }
        self.idle_turns = if at_once && !worked {
            self.idle_turns + 1
        } else {
            0
        };
        self.idle_turns_max = self.idle_turns_max.max(self.idle_turns);
    }

    pub fn run_for(&mut self, seconds: u64) {
        let end = self.now.mono_ns + seconds * SECOND_NS;
        let mut turns = 0;
        while self.now.mono_ns < end && turns < 100_000 {
            self.turn();
            turns += 1;
        }
    }
}
