//! Starts that fail, again and again: whatever a crash inside recovery leaves, the next start finds everything that
//! was acknowledged. Crashes are tried at every call, in pairs, which random stories hardly ever hit.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::{core_config, record_batch};
use ringlog_engine::core::{Core, CoreConfig, LogConfig, Mutations};
use ringlog_engine::disk::DiskError;
use ringlog_engine::id::{Now, PartitionKey, TopicId};
use ringlog_engine::recovery::{PartitionMeta, Recovered, RecoveryError, RecoveryOptions, recover};
use ringlog_engine::sim::{DiskConfig, Rng, SimDisk};

const NOW: Now = Now {
    mono_ns: 1_000_000_000,
    wall_ms: 1_700_000_000_000,
};
const BATCHES: usize = 5;

/// A machine with one shard and one partition.
struct Machine {
    disk: SimDisk,
    meta: PartitionMeta,
}

impl Machine {
    /// A machine that served once and lost power with [`BATCHES`] acknowledged records.
    fn after_a_crash(seed: u64) -> Self {
        let key = PartitionKey {
            topic: TopicId([7; 16]),
            partition: 0,
        };
        let mut machine = Self {
            disk: SimDisk::new(Rng::new(seed), DiskConfig::default()),
            meta: PartitionMeta {
                key,
                topic_name: "logs".to_owned(),
                config: LogConfig::default(),
            },
        };
        let recovered = machine.start(None).unwrap();
        machine.serve(recovered);
        machine.disk.lose_power();
        machine
    }

    /// The same machine with another future.
    fn copy(&self, seed: u64) -> Self {
        Self {
            disk: self.disk.copy(Rng::new(seed)),
            meta: self.meta.clone(),
        }
    }

    /// Recovers, or crashes after `crash_after` calls.
    fn start(&mut self, crash_after: Option<u64>) -> Result<Recovered, RecoveryError> {
        let options = RecoveryOptions {
            shards: 1,
            journal_file_len: core_config().journal_file_len(),
            new_dir_id: [9; 16],
            now_ms: NOW.wall_ms,
            mutations: Mutations::default(),
        };
        let mut disk = self.disk.blocking(crash_after);
        recover(&mut disk, std::slice::from_ref(&self.meta), options)
    }

    /// How many calls a whole recovery makes from here.
    fn calls(&mut self) -> u64 {
        let mut limit = 1;
        // A crash that spares what the system holds changes nothing but what recovery itself does.
        while let Err(error) = self.start(Some(limit)) {
            assert!(is_crash(&error), "{error}");
            self.disk.kill();
            limit += 1;
            assert!(limit < 1_000, "recovery never ends");
        }
        limit
    }

    fn serve(&mut self, recovered: Recovered) {
        let config = CoreConfig {
            existing_journals: recovered.existing_journals(0),
            ..core_config()
        };
        let mut core = Core::new(config, recovered.run, recovered.partitions, NOW);
        let part = core.lookup(self.meta.key).unwrap();
        let mut now = NOW;
        let mut appended = 0;
        while appended < BATCHES || core.offsets(part).unwrap().high_watermark < appended as i64 {
            if appended < BATCHES && core.append(now, part, &record_batch(now, 1500)).is_ok() {
                appended += 1;
            }
            core.poll(now);
            while let Some(op) = core.next_op() {
                self.disk.submit(0, now.mono_ns, op);
            }
            now.mono_ns = self.disk.next_due_ns().unwrap_or(now.mono_ns + 1_000);
            while let Some((_, completion)) = self.disk.complete(now.mono_ns) {
                core.complete(now, completion);
            }
        }
    }

    /// Holds what the next start finds against what was acknowledged.
    fn check(&mut self, story: &str) {
        match self.start(None) {
            Ok(recovered) => {
                let log = &recovered.partitions[0].log;
                assert_eq!(log.next_offset(), Some(BATCHES as i64), "{story}");
            }
            Err(error) => panic!("{story}: {error}"),
        }
    }
}

fn is_crash(error: &RecoveryError) -> bool {
    matches!(error, RecoveryError::Disk { error, .. } if *error == DiskError::IO)
}

#[test]
fn a_merged_checkpoint_whose_sync_failed_is_not_believed_by_the_next_start() {
    let original = Machine::after_a_crash(0);
    let calls = original.copy(0).calls() + 20;
    let mut seed = 0;
    for failing in 0..20 {
        for second in 0..calls {
            seed += 1;
            let mut machine = original.copy(seed);
            machine.disk.faults.fail_sync_at = Some(failing);
            if machine.start(None).is_ok() {
                continue;
            }
            machine.disk.faults.fail_sync_at = None;
            machine.disk.kill();
            if machine.start(Some(second)).is_err() {
                machine.disk.lose_power();
                machine.check(&format!(
                    "seed {seed}: sync failed at {failing}, power lost at {second}"
                ));
            }
        }
    }
}

#[test]
fn a_crash_at_every_call_of_two_starts_in_a_row_loses_nothing() {
    let calls = Machine::after_a_crash(0).calls() + 20;
    let original = Machine::after_a_crash(0);
    let mut seed = 0;
    for first in 0..calls {
        for second in 0..calls {
            seed += 1;
            let mut machine = original.copy(seed);
            // The process is killed, and what it wrote is read from memory; then power goes.
            if machine.start(Some(first)).is_ok() {
                continue;
            }
            machine.disk.kill();
            if machine.start(Some(second)).is_err() {
                machine.disk.lose_power();
                machine.check(&format!(
                    "seed {seed}: killed at {first}, power lost at {second}"
                ));
            }
        }
    }
}
