//! One partition over the simulated disk: what it is after a loss of power, and what retention and look-ups make of logs
//! that random stories hardly ever have.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::one::OnePartition;
use machine::{core_config, record_batch};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::core::{CleanerConfig, CompactionPolicy, CoreConfig, LogConfig};
use ringlog_engine::sim::Rng;

fn kept_for_ever() -> LogConfig {
    LogConfig {
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// Appends a batch with one record of `bytes` bytes and makes it durable.
fn append(log: &mut OnePartition, bytes: usize) {
    let batch = record_batch(log.now, bytes);
    log.append_soon(&batch);
    log.settle();
}

#[test]
fn a_topic_with_the_longest_name_is_stored_and_recovered_as_any_other() {
    let name = "n".repeat(249);
    let config = kept_for_ever();
    // The partition's directory is made by a round, or by the recovery after a crash before any.
    for stored in [true, false] {
        let mut log = OnePartition::new(Rng::new(1), &name, config.clone(), core_config());
        append(&mut log, 3000);
        append(&mut log, 3000);
        let before = log.fetch(0, 1 << 20, false).0;
        if stored {
            log.end_round();
        }
        for _ in 0..2 {
            log.disk.lose_power();
            log.restart();
            assert_eq!(log.core.offsets(log.part).unwrap().high_watermark, 2);
            assert!(log.fetch(0, 1 << 20, false).0 == before, "other bytes");
        }
    }
}

/// A batch of one record.
fn batch(timestamp_ms: i64, key: &[u8], bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp_ms,
        key: Some(key),
        value: Some(&vec![b'v'; bytes]),
        headers: &[],
    });
    builder.build().unwrap().to_vec()
}

/// Retention after a minute, of segments with one batch of 3,000 bytes each.
fn kept_for_a_minute() -> LogConfig {
    LogConfig {
        retention_ms: 60_000,
        segment_bytes: 4_000,
        ..LogConfig::default()
    }
}

fn compacted(config: LogConfig) -> LogConfig {
    LogConfig {
        compaction: Some(CompactionPolicy {
            dirty_ratio_ppm: 0,
            ..CompactionPolicy::default()
        }),
        ..config
    }
}

fn quick_cleaner() -> CoreConfig {
    CoreConfig {
        cleaner: CleanerConfig {
            backoff_ms: 20,
            ..CleanerConfig::default()
        },
        ..core_config()
    }
}

#[test]
fn records_without_a_time_expire_by_when_their_segment_was_made() {
    let config = kept_for_a_minute();
    let mut log = OnePartition::new(Rng::new(1), "logs", config, core_config());
    for timestamp_ms in [-1, -1, log.now.wall_ms, -1] {
        log.append_soon(&batch(timestamp_ms, b"k", 3_000));
    }
    log.settle();
    log.run_for(50_000);
    assert_eq!(log.core.offsets(log.part).unwrap().log_start, 0);
    log.run_for(40_000);
    assert_eq!(log.core.offsets(log.part).unwrap().log_start, 4);
}

#[test]
fn a_segment_that_compaction_has_emptied_does_not_keep_what_is_behind_it() {
    let config = compacted(kept_for_a_minute());
    let mut log = OnePartition::new(Rng::new(1), "logs", config, quick_cleaner());
    for _ in 0..4 {
        log.append_soon(&batch(log.now.wall_ms, b"k", 3_000));
    }
    log.settle();
    log.run_for(30_000);
    assert_eq!(log.core.offsets(log.part).unwrap().log_start, 0);
    assert_eq!(log.core.compacted_end(log.part), 3);
    assert_eq!(
        log.fetch(0, 1 << 20, false).0.len(),
        batch(0, b"k", 3_000).len()
    );
    log.run_for(60_000);
    assert_eq!(log.core.offsets(log.part).unwrap().log_start, 4);
}

#[test]
fn a_compacted_segment_that_was_cut_behind_its_newest_record_is_still_found_by_time() {
    let config = LogConfig {
        segment_bytes: 3_000,
        ..kept_for_ever()
    };
    let mut log = OnePartition::new(Rng::new(1), "logs", compacted(config), quick_cleaner());
    let start_ms = log.now.wall_ms;
    let times = [10, 100, 20, 50, 10, 10, 10, 10];
    for (at, ms) in times.into_iter().enumerate() {
        log.append_soon(&batch(start_ms + ms, &[at as u8], 600));
    }
    log.settle();
    delete_to(&mut log, 2);
    let mut turns = 0;
    while log.core.compacted_end(log.part) < 4 {
        log.turn();
        turns += 1;
        assert!(turns < 100_000, "nothing is compacted");
    }
    let found = log.find(start_ms + 50).unwrap();
    assert_eq!((found.offset, found.timestamp_ms), (3, start_ms + 50));
    assert_eq!(log.find(start_ms + 60), None);
}

/// Lets the log begin at `offset`, durably.
fn delete_to(log: &mut OnePartition, offset: i64) {
    log.core.delete_records(log.part, offset).unwrap();
    while log.core.offsets(log.part).unwrap().log_start < offset {
        log.turn();
    }
}
