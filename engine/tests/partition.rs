//! One partition over the simulated disk: what it is after a loss of power, and what retention and look-ups make of logs
//! that random stories hardly ever have.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::one::OnePartition;
use machine::{core_config, record_batch};
use ringlog_engine::core::LogConfig;
use ringlog_engine::sim::Rng;

/// Appends a batch with one record of `bytes` bytes and makes it durable.
fn append(log: &mut OnePartition, bytes: usize) {
    let batch = record_batch(log.now, bytes);
    log.append_soon(&batch);
    log.settle();
}

#[test]
fn a_topic_with_the_longest_name_is_stored_and_recovered_as_any_other() {
    let name = "n".repeat(249);
    let config = LogConfig {
        retention_ms: -1,
        ..LogConfig::default()
    };
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
