//! One core over the simulated disk, step by step: stories that random ones tell too seldom.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::{Machine, SECOND_NS};
use ringlog_engine::core::{AppendError, FetchSpec, Reply};
use ringlog_engine::id::Part;
use ringlog_engine::sim::{DiskConfig, Latency};

const SLOW: Latency = Latency {
    min_ns: 25 * SECOND_NS,
    max_ns: 25 * SECOND_NS,
    stall_one_in: 0,
    stall_ns: 0,
};

#[test]
fn a_commit_slower_than_the_age_limit_is_waited_for_without_spinning() {
    let quick = DiskConfig::default();
    let mut machine = Machine::new(DiskConfig {
        journal: SLOW,
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
fn a_further_commit_has_half_as_many_batches_as_are_under_way() {
    let mut machine = Machine::new(DiskConfig::default());
    let part = machine.partition(0, -1);
    machine.append(part);
    machine.run_for(1);
    machine.disk.config.journal = SLOW;
    let before = machine.core.stats().frames;
    let frames_after = |appends: u32, machine: &mut Machine| {
        for _ in 0..appends {
            machine.append(part);
        }
        machine.core.poll(machine.now);
        machine.core.stats().frames - before
    };
    assert_eq!(frames_after(3, &mut machine), 1, "nothing is under way");
    assert_eq!(frames_after(1, &mut machine), 1, "one waits beside three");
    assert_eq!(frames_after(1, &mut machine), 2, "two do not");
    assert_eq!(
        frames_after(5, &mut machine),
        2,
        "but no more than two commits are under way"
    );
    machine.run_for(120);
    assert_eq!(machine.core.offsets(part).unwrap().high_watermark, 11);
}

#[test]
fn a_failed_seal_of_an_expired_segment_is_done_again_without_another_append() {
    let mut machine = Machine::new(DiskConfig::default());
    let part = machine.partition(0, 60_000);
    machine.append(part);
    machine.append(part);
    machine.run_for(30);
    assert!(machine.core.stats().rounds > 0, "stored before it expires");
    // The disk is full when the segment's last block and index are due, and even the reserve is of no use.
    machine.disk.faults.capacity_bytes = Some(0);
    machine.run_for(60);
    assert_eq!(machine.core.offsets(part).unwrap().log_start, 0);
    machine.disk.faults.capacity_bytes = None;
    machine.run_for(60);
    assert_eq!(machine.core.offsets(part).unwrap().log_start, 2);
}

#[test]
fn a_deleted_partition_among_the_dirty_ones_is_no_reason_to_spin() {
    let mut machine = Machine::new(DiskConfig::default());
    let (first, second) = (machine.partition(0, -1), machine.partition(1, -1));
    machine.append(first);
    machine.run_for(1);
    // Its batch is not durable when the round begins, so it stays in the list behind it.
    machine.disk.config.journal = SLOW;
    machine.append(second);
    machine.turn();
    machine.core.delete_records(first, 1).unwrap();
    machine.run_for(2);
    assert!(machine.core.stats().rounds > 0);
    machine.core.drop_partition(machine.now, second);
    machine.run_for(60);
    assert!(machine.idle_turns_max < 10, "{}", machine.idle_turns_max);
    assert!(
        machine.core.stats().backlog_bytes <= 2 * 4096,
        "more than markers is left"
    );
}

#[test]
fn a_shutdown_whose_last_round_failed_waits_for_reads_without_spinning() {
    let mut machine = Machine::new(DiskConfig::default());
    let part = machine.partition(0, -1);
    for _ in 0..500 {
        machine.append(part);
    }
    machine.run_for(1);
    machine.disk.config.read = SLOW;
    let spec = FetchSpec {
        offset: 0,
        max_bytes: 1 << 20,
        min_one: true,
        spans: false,
        committed: false,
    };
    let reply = machine.core.fetch(machine.now, part, spec).unwrap();
    assert!(
        matches!(reply, Reply::Pending(_)),
        "the oldest is not in memory"
    );
    machine.disk.faults.capacity_bytes = Some(0);
    machine.append(part);
    machine.core.shutdown(machine.now);
    machine.run_for(20);
    assert!(!machine.core.is_finished(), "a read is under way");
    assert!(machine.idle_turns_max < 10, "{}", machine.idle_turns_max);
    machine.run_for(20);
    assert!(machine.core.is_finished() && !machine.core.ended_clean());
}

/// Runs until the log begins at `offset`, so that whoever asked for it has been told.
fn delete_to(machine: &mut Machine, part: Part, offset: i64) {
    machine.core.delete_records(part, offset).unwrap();
    while machine.core.offsets(part).unwrap().log_start < offset {
        machine.turn();
    }
}

#[test]
fn deleted_records_do_not_come_back_with_an_older_checkpoint() {
    // A log that was served before, and one whose first life it is.
    for lives in 0..2 {
        let mut machine = Machine::new(DiskConfig::default());
        let mut part = machine.partition(0, -1);
        for _ in 0..3 {
            machine.append(part);
        }
        machine.run_for(1);
        if lives > 0 {
            machine.disk.lose_power();
            machine.restart().unwrap();
            part = machine.part(0);
        } else {
            delete_to(&mut machine, part, 1);
        }
        delete_to(&mut machine, part, 2);
        // A journal that is idle vouches for its newest checkpoint.
        machine.run_for(1);
        let newest = machine.core.stats().rounds % 2;
        machine.disk.lose_power();
        machine.damage(&format!("shard-0/checkpoint-{}", 1 - newest));
        let error = machine.restart().unwrap_err().to_string();
        assert!(error.contains("shard-0/checkpoint-"), "{error}");
    }
}

#[test]
fn a_disk_that_others_fill_keeps_nothing_from_its_segment() {
    let mut machine = Machine::new(DiskConfig::default());
    let part = machine.partition(0, -1);
    machine.append(part);
    machine.run_for(1);
    machine.disk.faults.capacity_bytes = Some(machine.disk.used_bytes());
    let mut acked = 1;
    while machine.try_append(part) != Err(AppendError::StorageFull) {
        machine.turn();
        acked = machine.core.offsets(part).unwrap().log_end;
    }
    machine.run_for(30);
    assert!(acked > 10, "the journal takes what it can: {acked}");
    assert_eq!(machine.core.offsets(part).unwrap().high_watermark, acked);
    assert!(
        machine.core.stats().backlog_bytes <= 2 * 4096,
        "more than markers is left"
    );
    assert_eq!(machine.try_append(part), Err(AppendError::StorageFull));
    // Even now a shutdown is clean, and a start finds room for everything.
    machine.core.shutdown(machine.now);
    machine.run_for(5);
    assert!(machine.core.ended_clean());
    machine.disk.kill();
    machine.restart().unwrap();
    let part = machine.part(0);
    assert_eq!(machine.core.offsets(part).unwrap().high_watermark, acked);
    machine.disk.faults.capacity_bytes = None;
    machine.run_for(5);
    assert!(machine.try_append(part).is_ok(), "it goes on by itself");
}

#[test]
fn a_consumer_at_the_start_of_a_log_whose_older_epochs_are_gone_is_told_that_it_lost_nothing() {
    let mut machine = Machine::new(DiskConfig::default());
    let (part, other) = (machine.partition(0, -1), machine.partition(1, -1));
    for _ in 0..3 {
        machine.append(part);
    }
    machine.append(other);
    machine.run_for(1);
    delete_to(&mut machine, part, 3);
    // Another checkpoint, of an empty log.
    delete_to(&mut machine, other, 1);
    for epoch in 1..4 {
        machine.disk.lose_power();
        machine.restart().unwrap();
        let core = &machine.core;
        let leader_epoch = core.offsets(part).unwrap().leader_epoch;
        assert_eq!(leader_epoch, epoch, "an unclean stop begins a new one");
        assert_eq!(core.epoch_end(part, 0), Some((0, 3)));
        assert_eq!(core.epoch_end(part, epoch), Some((epoch, 3)));
        assert_eq!(core.epoch_end(part, epoch + 1), None, "not begun");
        assert_eq!(core.epoch_end(part, -1), None);
    }
    machine.append(part);
    machine.append(part);
    machine.run_for(1);
    assert_eq!(machine.core.epoch_end(part, 0), Some((0, 3)));
    delete_to(&mut machine, part, 4);
    assert_eq!(machine.core.epoch_end(part, 0), Some((0, 4)));
    assert_eq!(machine.core.epoch_end(part, 3), Some((3, 5)));
}
