//! Acknowledged when written, flushed by time: what a loss of power takes back, and what it leaves.

#![allow(clippy::unwrap_used)]

mod machine;

use machine::one::OnePartition;
use machine::{SECOND_NS, core_config, record_batch};
use ringlog_engine::core::{CoreConfig, Durability, Event, Fatal, LogConfig};
use ringlog_engine::sim::{Faults, Rng};

const EVERY_MS: u64 = 100;
/// What a write and a sync of the simulated disk may take on top.
const SLACK_NS: u64 = 2_000_000;

fn shard(seed: u64) -> OnePartition {
    shard_of(seed, Durability::WriteThenFlush { every_ms: EVERY_MS })
}

fn shard_of(seed: u64, durability: Durability) -> OnePartition {
    let config = CoreConfig {
        durability,
        ..core_config()
    };
    OnePartition::new(Rng::new(seed), "logs", LogConfig::default(), config)
}

/// Appends one record and returns once it is acknowledged.
fn append(shard: &mut OnePartition) {
    let batch = record_batch(shard.now, 3000);
    shard.append_soon(&batch);
    shard.settle();
}

/// Lets time pass.
fn run_for(shard: &mut OnePartition, ns: u64) {
    let end = shard.now.mono_ns + ns;
    while shard.now.mono_ns < end {
        shard.turn();
    }
}

fn end(shard: &OnePartition) -> i64 {
    shard.core.offsets(shard.part).unwrap().high_watermark
}

#[test]
fn an_ack_does_not_wait_for_its_flush_which_comes_in_time() {
    let mut shard = shard(1);
    append(&mut shard);
    run_for(&mut shard, SECOND_NS);
    let before = shard.core.stats().syncs;
    append(&mut shard);
    assert_eq!(shard.core.stats().syncs, before, "an ack waited for a sync");
    run_for(&mut shard, EVERY_MS * 1_000_000 / 2);
    assert_eq!(shard.core.stats().syncs, before, "flushed too soon");
    run_for(&mut shard, EVERY_MS * 1_000_000 / 2 + SLACK_NS);
    assert_eq!(shard.core.stats().syncs, before + 1);
    // The marker behind it is flushed, too; then there is nothing to do.
    run_for(&mut shard, SECOND_NS / 2);
    let after = shard.core.stats().syncs;
    assert!(after <= before + 2, "{before} {after}");
    run_for(&mut shard, SECOND_NS);
    assert_eq!(shard.core.stats().syncs, after, "an idle shard flushes");
}

#[test]
fn a_loss_of_power_takes_back_what_was_not_flushed_and_nothing_else() {
    let mut taken_back = 0;
    for seed in 0..40 {
        let mut shard = shard(seed);
        for _ in 0..5 {
            append(&mut shard);
        }
        run_for(&mut shard, EVERY_MS * 1_000_000 + SLACK_NS);
        let flushed = end(&shard);
        // Each in a frame of its own: any of them may be gone, and later ones be there.
        for _ in 0..4 {
            append(&mut shard);
        }
        shard.disk.lose_power();
        // Recovery does not call it damage: nobody had said that these frames were durable.
        shard.restart();
        let left = end(&shard);
        assert!(left >= flushed, "seed {seed}: {left} of {flushed} flushed");
        taken_back += flushed + 4 - left;
    }
    assert!(taken_back > 0, "the simulated disk loses nothing");
}

#[test]
fn under_load_no_flushed_frame_is_lost_whenever_power_goes() {
    for seed in 0..40 {
        let mut shard = shard(seed);
        // Acknowledged ends with their times, over several uses of the journal's files.
        let mut acked = Vec::new();
        for _ in 0..60 + seed {
            append(&mut shard);
            acked.push((shard.now.mono_ns, end(&shard)));
            run_for(&mut shard, 5_000_000);
        }
        let window_ns = EVERY_MS * 1_000_000 + SLACK_NS;
        let lost_at = shard.now.mono_ns;
        let old = acked.iter().rev().find(|(at, _)| at + window_ns <= lost_at);
        let flushed = old.unwrap().1;
        shard.disk.lose_power();
        shard.restart();
        let left = end(&shard);
        assert!(left >= flushed, "seed {seed}: {left} of {flushed} flushed");
    }
}

#[test]
fn without_any_flush_a_loss_of_power_leaves_what_checkpoints_speak_of_and_never_damage() {
    let mut taken_back = 0;
    for seed in 0..40 {
        let mut shard = shard_of(seed, Durability::Write);
        for _ in 0..60 + seed {
            append(&mut shard);
        }
        let acked = end(&shard);
        assert!(shard.core.stats().rounds > 0, "no checkpoint");
        shard.disk.lose_power();
        shard.restart();
        taken_back += acked - end(&shard);
    }
    assert!(taken_back > 0, "the simulated disk loses nothing");
}

#[test]
fn a_failed_flush_ends_the_process() {
    let mut shard = shard(1);
    append(&mut shard);
    shard.disk.faults = Faults {
        sync_ppm: 1_000_000,
        ..Faults::default()
    };
    let end = shard.now.mono_ns + SECOND_NS;
    let mut fatal = false;
    while !fatal && shard.now.mono_ns < end {
        let events = shard.turn();
        fatal = events
            .iter()
            .any(|event| matches!(event, Event::Fatal(Fatal::Journal(_))));
    }
    assert!(fatal);
}
