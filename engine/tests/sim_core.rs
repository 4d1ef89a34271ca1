//! One core over the simulated disk, step by step: stories that random ones tell too seldom.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::{Machine, SECOND_NS};
use ringlog_engine::sim::{DiskConfig, Latency};

#[test]
fn a_commit_slower_than_the_age_limit_is_waited_for_without_spinning() {
    let quick = DiskConfig::default();
    let slow = Latency {
        min_ns: 25 * SECOND_NS,
        max_ns: 25 * SECOND_NS,
        ..quick.journal
    };
    let mut machine = Machine::new(DiskConfig {
        journal: slow,
        ..quick
    });
    let part = machine.partition(0, -1);
    machine.append(part);
    machine.run_for(60);
    assert!(machine.idle_turns_max < 10, "{}", machine.idle_turns_max);
    assert_eq!(machine.core.offsets(part).unwrap().high_watermark, 1);
    assert_eq!(machine.core.stats().backlog_bytes % 4096, 0);
}

#[test]
fn a_failed_seal_of_an_expired_segment_is_done_again_without_another_append() {
    let mut machine = Machine::new(DiskConfig::default());
    let part = machine.partition(0, 60_000);
    machine.append(part);
    machine.append(part);
    machine.run_for(30);
    assert!(machine.core.stats().rounds > 0, "stored before it expires");
    // The disk is full when the segment's last block and index are due.
    machine.disk.faults.capacity_bytes = Some(machine.disk.used_bytes());
    machine.run_for(60);
    assert_eq!(machine.core.offsets(part).unwrap().log_start, 0);
    machine.disk.faults.capacity_bytes = None;
    machine.run_for(60);
    assert_eq!(machine.core.offsets(part).unwrap().log_start, 2);
}
