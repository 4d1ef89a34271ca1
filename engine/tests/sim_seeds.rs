//! The storage engine in the simulator: fresh seeds, seeds that once found something, faults that must not hurt, and
//! faults of the engine's own that must not go unnoticed. `ringlog-sim` runs as many seeds as one likes.

use std::sync::atomic::{AtomicU64, Ordering};

use ringlog_engine::sim::{Failure, MUTATIONS, RunOptions, Summary, mutation, run_seed};

/// Runs `seeds` on all cores; the sum of what they did, or the failures.
fn run_all(
    seeds: impl IntoIterator<Item = u64>,
    options: RunOptions,
) -> Result<(Summary, u64), Vec<Failure>> {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let next = AtomicU64::new(0);
    let work = || {
        let mut results = Vec::new();
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            results.push(run_seed(seed, options));
        }
        results
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |w: std::thread::ScopedJoinHandle<'_, Vec<_>>| w.join().unwrap_or_default();
        workers.into_iter().flat_map(join).collect()
    });
    assert_eq!(results.len(), seeds.len(), "every seed ends");
    let (mut sum, mut damaged, mut failures) = (Summary::default(), 0, Vec::new());
    for result in results {
        match result {
            Ok(summary) => {
                sum.add(&summary);
                damaged += u64::from(summary.damage_found);
            }
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok((sum, damaged))
    } else {
        Err(failures)
    }
}

/// As [`run_all`]; prints what failed.
fn run_good(seeds: impl IntoIterator<Item = u64>, options: RunOptions) -> (Summary, u64) {
    match run_all(seeds, options) {
        Ok(done) => done,
        Err(failures) => {
            let lines = failures
                .iter()
                .map(|f| format!("seed {}: {}", f.seed, f.message));
            panic!("{}", lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

#[test]
fn fresh_seeds_keep_every_promise() {
    let (sum, _) = run_good(100_000..100_250, RunOptions::default());
    // The stories are worth something: crashes, starts, acknowledgements, reads.
    assert!(sum.crashes > 100 && sum.recoveries > sum.crashes, "{sum:?}");
    assert!(sum.acks > 5_000 && sum.fetches > 5_000, "{sum:?}");
}

/// Seeds that found a fault of the engine, each of which fails again without its repair. A change of the simulator
/// itself makes other stories of them; `sim_core.rs` and `sim_recovery.rs` hold what must not depend on that.
#[test]
fn seeds_that_found_something_stay_good() {
    // A deleted partition's file was being opened: the round failed, and every producer was told of a full disk.
    run_good([946, 1213], RunOptions::default());
    // Recovery wrote segments from frames that were not durable, a power loss took the frames, and the files stayed.
    run_good([31495], RunOptions::default());
    let options = RunOptions {
        flip_bit: true,
        ..RunOptions::default()
    };
    let found = [
        // The newest merged checkpoint was damaged, and the one of the run before was taken for it.
        2, 4, // The header of the journal file was damaged: its frames were skipped.
        199, 225,
        // A shard's newest checkpoint was damaged, and the journal's files were used again since the one before.
        1549, 2772,
        // A batch was lost to damage while the checkpoint still knew its producer: sent again, it was a duplicate.
        2674,
    ];
    run_good(found, options);
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in [1, 7, 23, 42] {
        let run = || run_seed(seed, RunOptions::default()).map_err(|f| f.message);
        let (first, second) = (run(), run());
        assert!(first.is_ok(), "seed {seed}: {first:?}");
        assert_eq!(first, second, "seed {seed}");
    }
    let hash = |seed| run_seed(seed, RunOptions::default()).map_or(0, |s| s.hash);
    assert_ne!(hash(1), hash(2), "other seeds are other stories");
}

#[test]
fn a_flipped_bit_stops_the_start_or_costs_nothing_acknowledged() {
    let options = RunOptions {
        flip_bit: true,
        ..RunOptions::default()
    };
    let (_, damaged) = run_good(0..60, options);
    assert!(damaged > 5, "damage was found {damaged} times");
}

#[test]
fn crashes_inside_recovery_are_survived() {
    let options = RunOptions {
        crash_recovery: true,
        ..RunOptions::default()
    };
    let (sum, _) = run_good(0..40, options);
    assert!(sum.recoveries > 400, "{sum:?}");
}

#[test]
fn a_full_disk_refuses_producers_and_loses_nothing() {
    let options = RunOptions {
        fill_disk: true,
        ..RunOptions::default()
    };
    let (sum, _) = run_good(0..40, options);
    assert!(sum.storage_full > 20 && sum.acks > 2_000, "{sum:?}");
}

#[test]
fn failing_syncs_lose_nothing() {
    let options = RunOptions {
        fail_syncs: true,
        ..RunOptions::default()
    };
    run_good(0..40, options);
}

#[test]
fn compacted_logs_keep_the_newest_record_of_each_key() {
    let compact = RunOptions {
        compact: true,
        ..RunOptions::default()
    };
    let (sum, _) = run_good(100_000..100_120, compact);
    assert!(sum.compactions > 100 && sum.fetches > 5_000, "{sum:?}");
    // The map of keys was full while a piece was being read ahead: its file was closed under it.
    run_good([206], compact);
}

#[test]
fn compaction_on_a_bad_day_loses_nothing() {
    let compact = RunOptions {
        compact: true,
        ..RunOptions::default()
    };
    for options in [
        RunOptions {
            crash_recovery: true,
            ..compact
        },
        RunOptions {
            fill_disk: true,
            ..compact
        },
        RunOptions {
            fail_syncs: true,
            ..compact
        },
        RunOptions {
            flip_bit: true,
            ..compact
        },
    ] {
        run_good(0..40, options);
    }
}

#[test]
fn committed_reads_show_what_was_committed_and_nothing_else() {
    let transactions = RunOptions {
        transactions: true,
        ..RunOptions::default()
    };
    let (sum, _) = run_good(100_000..100_100, transactions);
    assert!(sum.markers > 1_000 && sum.hidden > 1_000, "{sum:?}");
    // The log's start passed a committed read under way: aborted and undecided records were shown.
    run_good([73, 130, 156, 183, 197], transactions);
}

#[test]
fn compaction_drops_what_was_aborted_and_keeps_what_was_committed() {
    let options = RunOptions {
        transactions: true,
        compact: true,
        ..RunOptions::default()
    };
    let (sum, _) = run_good(100_000..100_100, options);
    assert!(sum.compactions > 100 && sum.hidden > 1_000, "{sum:?}");
    run_good([56, 111, 122], options);
    for bad_day in [
        RunOptions {
            crash_recovery: true,
            ..options
        },
        RunOptions {
            fail_syncs: true,
            ..options
        },
        RunOptions {
            flip_bit: true,
            ..options
        },
    ] {
        run_good(0..30, bad_day);
    }
}

/// Switches the fault on and runs seeds until one fails.
fn seeds_until_caught(name: &str, options: RunOptions, most: u64) -> u64 {
    let mutations = mutation(name).unwrap_or_else(|| panic!("no mutation {name}"));
    let options = RunOptions {
        mutations,
        ..options
    };
    for seed in 0..most {
        if let Err(failure) = run_seed(seed, options) {
            let is_finding =
                failure.message.contains("invariant") || failure.message.contains("disk rule");
            assert!(is_finding, "{name}: seed {seed}: {}", failure.message);
            return seed + 1;
        }
    }
    panic!("{name} is not caught by {most} seeds");
}

#[test]
fn every_fault_of_the_engine_that_can_be_switched_on_is_caught() {
    for name in MUTATIONS {
        // Where nothing but syncs fails, nothing but the retry can be what is caught.
        let of_compaction = [
            "swap-before-sync",
            "drop-newest",
            "remove-before-checkpoint",
            "count-aborted-keys",
        ];
        let of_transactions = ["count-aborted-keys", "forget-transactions"];
        let compact = of_compaction.contains(&name);
        let options = RunOptions {
            fail_syncs: name == "retry-failed-sync",
            compact,
            transactions: of_transactions.contains(&name),
            ..RunOptions::default()
        };
        let seeds = seeds_until_caught(name, options, if compact { 100 } else { 30 });
        println!("{name}: caught by {seeds} seeds");
    }
}
