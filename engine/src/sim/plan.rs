//! What a seed stands for: sizes, rates and faults of one simulated life story. Each seed draws its own corner of
//! the space (many partitions or few, tiny journals or roomy ones, a kind disk or a failing one) instead of a bit of
//! everything, so that rare corners are reached at all.

use super::disk::{DiskConfig, Faults, Latency};
use super::rng::Rng;
use super::run::RunOptions;
use crate::core::{
    CleanerConfig, ColdReads, CompactionPolicy, CoreConfig, Durability, Inspect, LogConfig,
    Mutations,
};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Times that compaction looks for work while everybody is idle, at most.
const IDLE_BACKOFFS_MAX: u64 = 1_000;
/// Longer than any story.
pub(super) const NEVER_MS: i64 = 1 << 40;

/// How a process's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    PowerLoss,
    Kill,
    Shutdown,
}

/// One run of the simulated process.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) shards: u32,
    /// Client steps before the end.
    pub(super) steps: u64,
    pub(super) end: End,
    /// Faults while serving.
    pub(super) faults: Faults,
    /// Crashes inside the recovery that begins this life.
    pub(super) recovery_crashes: u64,
    /// Faults while recovering.
    pub(super) recovery_faults: Faults,
}

/// The whole story.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) durability: Durability,
    pub(super) disk: DiskConfig,
    pub(super) lives: Vec<Life>,
    pub(super) partitions_max: usize,
    pub(super) topics_change: bool,
    /// Users delete records.
    pub(super) records_deleted: bool,
    pub(super) producers: usize,
    pub(super) consumers: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) journal_file_bytes: u64,
    pub(super) journal_files: usize,
    pub(super) memory_bytes: u64,
    pub(super) commits_in_flight: usize,
    pub(super) open_files: usize,
    pub(super) reads_in_flight: usize,
    pub(super) cold_reads: ColdReads,
    /// Longest pause between two steps of one client, nanoseconds.
    pub(super) pause_max_ns: u64,
    /// Percent of steps that are followed by a pause of all clients.
    pub(super) idle_percent: u64,
    pub(super) idle_max_ns: u64,
    /// The disk runs full and gets room again.
    pub(super) disk_fills: bool,
    /// Topics are compacted.
    pub(super) compacts: bool,
    pub(super) cleaner: CleanerConfig,
    /// Some producers write in transactions, and some consumers read what is committed.
    pub(super) transactions: bool,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let durability = if rng.percent(8) {
            Durability::Write
        } else {
            Durability::Fsync
        };
        let max_batch_bytes = rng.pick(&[2 << 10, 16 << 10, 16 << 10, 100 << 10, 1_200_000]);
        let large = max_batch_bytes > 500_000;
        let frame = (max_batch_bytes as u64 + 8192).next_multiple_of(4096);
        let journal_file_bytes = (frame * rng.pick(&[1, 2, 4])).max(64 << 10);
        let journal_files = rng.between(2, 5) as usize;
        let journal_bytes = journal_file_bytes * journal_files as u64;
        let faulty = rng.percent(30);
        let lives = rng.between(1, 5);
        let steps = rng.pick(&[100, 300, 600]) / if large { 4 } else { 1 };
        Self {
            durability,
            disk: draw_disk(rng),
            lives: (0..lives)
                .map(|_| draw_life(rng, steps, faulty, durability))
                .collect(),
            partitions_max: rng.pick(&[1, 2, 4, 12, 40]),
            topics_change: rng.percent(50),
            records_deleted: rng.percent(50),
            producers: rng.between(1, 8) as usize,
            consumers: rng.between(0, 6) as usize,
            max_batch_bytes,
            journal_file_bytes,
            journal_files,
            memory_bytes: journal_bytes * rng.pick(&[1, 1, 2, 4]),
            commits_in_flight: rng.between(1, 4) as usize,
            open_files: rng.pick(&[8, 16, 100]),
            reads_in_flight: rng.pick(&[1, 4, 64]),
            cold_reads: match rng.below(100) {
                0..50 => ColdReads::Direct,
                50..75 => ColdReads::Cached,
                _ => ColdReads::DirectOnce,
            },
            pause_max_ns: rng.pick(&[100 * US, 2 * MS, 20 * MS]),
            idle_percent: rng.pick(&[0, 1, 5]),
            idle_max_ns: rng.pick(&[50 * MS, 3000 * MS, 3_600_000 * MS]),
            disk_fills: rng.percent(20),
            compacts: false,
            cleaner: CleanerConfig {
                enabled: false,
                ..CleanerConfig::default()
            },
            transactions: false,
        }
    }

    /// Makes it a story of compaction.
    pub(super) fn compact(&mut self, rng: &mut Rng) {
        self.compacts = true;
        self.cleaner = CleanerConfig {
            enabled: true,
            // The smallest map has room for 14 keys.
            dedupe_bytes: rng.pick(&[0, 24 * 50, 1 << 20]),
            backoff_ms: rng.pick(&[1, 20, 200]),
            bytes_per_second: rng.pick(&[u64::MAX, u64::MAX, 1 << 20]),
        };
        if self.transactions {
            // Who looks for work every millisecond takes a turn each time.
            let rest_max_ns = self.cleaner.backoff_ms * IDLE_BACKOFFS_MAX * MS;
            self.idle_max_ns = self.idle_max_ns.min(rest_max_ns);
        }
    }

    /// Leans the story towards what `options` ask for.
    pub(super) fn bend(&mut self, options: &RunOptions) {
        self.disk_fills |= options.fill_disk;
        self.transactions = options.transactions;
        for life in &mut self.lives {
            if options.crash_recovery {
                life.recovery_crashes = 5;
            }
            if options.fail_syncs {
                life.recovery_faults = Faults::default();
                life.faults = Faults {
                    sync_ppm: 20_000,
                    ..Faults::default()
                };
            }
        }
    }

    pub(super) fn core_config(
        &self,
        shard: u32,
        shards: u32,
        existing_journals: Vec<u32>,
        mutations: Mutations,
    ) -> CoreConfig {
        CoreConfig {
            shard,
            shards,
            durability: self.durability,
            commits_in_flight: self.commits_in_flight,
            journal_file_bytes: self.journal_file_bytes,
            journal_files: self.journal_files,
            existing_journals,
            memory_bytes: self.memory_bytes,
            max_batch_bytes: self.max_batch_bytes,
            // The stories are about disks; their clocks and clients' clocks differ by anything.
            inspect: Inspect::Headers,
            decompressed_bytes_max: 1 << 20,
            cold_reads: self.cold_reads,
            // Longer than any story: what a producer forgets is Kafka's problem, not the disk's.
            producer_expiry_ms: 365 * 24 * 3_600_000,
            open_files: self.open_files,
            reads_in_flight: self.reads_in_flight,
            cleaner: self.cleaner,
            mutations,
        }
    }

    /// Settings of a new topic.
    pub(super) fn log_config(&self, rng: &mut Rng) -> LogConfig {
        let batch = self.max_batch_bytes as u32;
        let compaction = (self.compacts && rng.percent(85)).then(|| CompactionPolicy {
            dirty_ratio_ppm: rng.pick(&[0, 0, 100_000, 500_000]),
            min_lag_ms: rng.pick(&[0, 0, 0, 100]),
            max_lag_ms: rng.pick(&[i64::MAX, 50, 1000]),
            delete_retention_ms: rng.pick(&[0, 100, 5_000, NEVER_MS]),
        });
        LogConfig {
            segment_bytes: rng.pick(&[4096, 12_000, 64 << 10, 1 << 20]).max(batch),
            segment_ms: rng.pick(&[100, 10_000, 1 << 40]),
            retention_ms: rng.pick(&[-1, -1, 200, 10_000, 7 * 24 * 3_600_000]),
            retention_bytes: rng.pick(&[-1, -1, 30_000, 500_000]),
            index_interval_bytes: rng.pick(&[1, 1000, 4096]),
            max_message_bytes: batch,
            log_append_time: rng.percent(20),
            timestamp_after_max_ms: i64::MAX,
            compaction,
            ..LogConfig::default()
        }
    }
}

fn draw_life(rng: &mut Rng, steps: u64, faulty: bool, durability: Durability) -> Life {
    let ends = match durability {
        Durability::Fsync => [
            End::PowerLoss,
            End::PowerLoss,
            End::PowerLoss,
            End::Kill,
            End::Shutdown,
        ],
        // Acknowledged after the write alone: survives the process, not power loss.
        Durability::Write | Durability::WriteThenFlush { .. } => {
            [End::Kill, End::Kill, End::Kill, End::Kill, End::Shutdown]
        }
    };
    let faults = |rng: &mut Rng| {
        let rate = |rng: &mut Rng| rng.pick(&[0, 0, 1000, 10_000, 40_000]);
        if faulty && rng.percent(60) {
            Faults {
                write_ppm: rate(rng),
                sync_ppm: rate(rng),
                // What was acknowledged after the write alone would not survive the restart of the system.
                stop_percent: match durability {
                    Durability::Fsync => rng.pick(&[0, 0, 10, 50]),
                    Durability::Write | Durability::WriteThenFlush { .. } => 0,
                },
                read_ppm: rate(rng),
                meta_ppm: rate(rng),
                capacity_bytes: None,
                fail_sync_at: None,
            }
        } else {
            Faults::default()
        }
    };
    Life {
        shards: rng.pick(&[1, 1, 2, 3]),
        steps: rng.between(1, steps),
        end: rng.pick(&ends),
        faults: faults(rng),
        recovery_crashes: rng.pick(&[0, 0, 0, 1, 2, 5]),
        recovery_faults: if rng.percent(30) {
            faults(rng)
        } else {
            Faults::default()
        },
    }
}

fn draw_disk(rng: &mut Rng) -> DiskConfig {
    let latency = |min_ns, max_ns, stall_one_in, stall_ns| Latency {
        min_ns,
        max_ns,
        stall_one_in,
        stall_ns,
    };
    let journal = [
        latency(10 * US, 100 * US, 0, 0),
        latency(10 * US, 10 * MS, 0, 0),
        latency(20 * US, 200 * US, 50, 50 * MS),
    ];
    let background = [
        latency(10 * US, 200 * US, 0, 0),
        latency(100 * US, 20 * MS, 0, 0),
        latency(20 * US, 2 * MS, 20, 500 * MS),
        latency(50 * MS, 400 * MS, 0, 0),
    ];
    DiskConfig {
        journal: rng.pick(&journal),
        read: rng.pick(&background),
        background: rng.pick(&background),
    }
}
