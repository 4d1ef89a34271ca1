//! Runs many seeds of the simulator and prints those that break a promise, with the command that repeats each.
//!
//! `cargo run --profile sim -p ringlog-engine --example ringlog-sim -- --seeds 0..10000 --threads 2`

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use ringlog_engine::core::Mutations;
use ringlog_engine::sim::{Failure, RunOptions, Summary, mutation, run_seed};

/// The deterministic simulator of the storage engine: a disk that loses what no sync covered, crashes, faults.
///
/// The run of record is `ringlog-sim --seeds 0..10000`; about 20 ms of one core a seed, and its last line must say
/// "0 failed". A failing seed is printed with the options that repeat it. `--flip-bit`, `--fill-disk`,
/// `--crash-recovery` and `--fail-syncs` lean every seed that way; with `--mutation NAME` seeds should fail:
/// ack-before-sync, release-before-sync, accept-reused-frames, skip-dir-sync, serve-undurable, retry-failed-sync, and
/// with `--compact` swap-before-sync, drop-newest, remove-before-checkpoint, with `--transactions` forget-transactions and,
/// compacted as well, count-aborted-keys.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to run, as `from..to`.
    #[arg(long, default_value = "0..1000", value_parser = parse_range)]
    seeds: Range<u64>,
    /// One seed, twice, to see that it repeats itself.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads.
    #[arg(long, visible_alias = "jobs", default_value_t = 2)]
    threads: u64,
    /// A fault to switch on in the engine; the runs should then fail.
    #[arg(long)]
    mutation: Option<String>,
    /// Flip a bit in a journal or checkpoint before a restart.
    #[arg(long)]
    flip_bit: bool,
    /// Let the disk run full and get room again in every seed.
    #[arg(long)]
    fill_disk: bool,
    /// Let every recovery crash several times before it may succeed.
    #[arg(long)]
    crash_recovery: bool,
    /// Let syncs fail, and nothing else, in every seed.
    #[arg(long)]
    fail_syncs: bool,
    /// Compact every topic, with few keys.
    #[arg(long)]
    compact: bool,
    /// Let most producers write in transactions, and half of the consumers read what is committed.
    #[arg(long)]
    transactions: bool,
    /// With --seed: print every step.
    #[arg(long)]
    trace: bool,
    /// Stop after so many failures.
    #[arg(long, default_value_t = 20)]
    failures: u64,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected from..to")?;
    let number = |s: &str| s.parse::<u64>().map_err(|e| format!("{s}: {e}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mutations = match args.mutation.as_deref().map(mutation) {
        None => Mutations::default(),
        Some(Some(mutations)) => mutations,
        Some(None) => {
            eprintln!(
                "unknown mutation; known are: {}",
                ringlog_engine::sim::MUTATIONS.join(", ")
            );
            return ExitCode::from(2);
        }
    };
    let options = RunOptions {
        mutations,
        trace: false,
        flip_bit: args.flip_bit,
        fill_disk: args.fill_disk,
        crash_recovery: args.crash_recovery,
        fail_syncs: args.fail_syncs,
        compact: args.compact,
        transactions: args.transactions,
    };
    let failed = match args.seed {
        Some(seed) => run_one(seed, options, args.trace),
        None => run_many(&args, options),
    };
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one seed, twice if the first run is good. Returns whether something is wrong.
fn run_one(seed: u64, options: RunOptions, trace: bool) -> bool {
    let first = run_seed(seed, RunOptions { trace, ..options });
    match first {
        Err(failure) => {
            println!("seed {seed}: {}", failure.message);
            true
        }
        Ok(summary) => {
            println!("seed {seed}: {summary:#?}");
            let again = run_seed(seed, options).ok();
            let same = again == Some(summary);
            println!(
                "a second run is {}",
                if same { "the same" } else { "different" }
            );
            !same
        }
    }
}

#[derive(Default)]
struct Totals {
    summary: Summary,
    failures: Vec<Failure>,
    damage_found: u64,
}

fn run_many(args: &Args, options: RunOptions) -> bool {
    let next = AtomicU64::new(args.seeds.start);
    let totals = Mutex::new(Totals::default());
    let started = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads.max(1))
            .map(|_| scope.spawn(|| work(args, options, &next, &totals)))
            .collect();
        while workers.iter().any(|w| !w.is_finished()) {
            std::thread::sleep(Duration::from_millis(200));
            progress(args, &next, &totals, started);
        }
    });
    report(args, &totals, started)
}

fn work(args: &Args, options: RunOptions, next: &AtomicU64, totals: &Mutex<Totals>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.seeds.end {
            return;
        }
        let result = run_seed(seed, options);
        let Ok(mut totals) = totals.lock() else {
            return;
        };
        match result {
            Ok(summary) => {
                totals.summary.add(&summary);
                totals.damage_found += u64::from(summary.damage_found);
            }
            Err(failure) => {
                let options = repeat_options(args);
                println!("\rseed {seed} failed: {}", failure.message);
                println!("  repeat: ringlog-sim --seed {seed} --trace{options}");
                totals.failures.push(failure);
            }
        }
        if totals.failures.len() as u64 >= args.failures {
            return;
        }
    }
}

fn repeat_options(args: &Args) -> String {
    let mut options = String::new();
    if let Some(name) = &args.mutation {
        options += &format!(" --mutation {name}");
    }
    for (set, name) in [
        (args.flip_bit, " --flip-bit"),
        (args.fill_disk, " --fill-disk"),
        (args.crash_recovery, " --crash-recovery"),
        (args.fail_syncs, " --fail-syncs"),
        (args.compact, " --compact"),
        (args.transactions, " --transactions"),
    ] {
        options += if set { name } else { "" };
    }
    options
}

fn progress(args: &Args, next: &AtomicU64, totals: &Mutex<Totals>, started: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let done = next.load(Ordering::Relaxed).min(args.seeds.end) - args.seeds.start;
    let failures = totals.lock().map_or(0, |t| t.failures.len());
    let rate = done as f64 / started.elapsed().as_secs_f64();
    let all = args.seeds.end - args.seeds.start;
    eprint!("\r{done}/{all} seeds, {rate:.0}/s, {failures} failed ");
    drop(std::io::stderr().flush());
}

fn report(args: &Args, totals: &Mutex<Totals>, started: Instant) -> bool {
    let Ok(totals) = totals.lock() else {
        return true;
    };
    let s = &totals.summary;
    println!(
        "\r{} seeds in {:.1} s: {} failed. {} starts, {} crashes, {} batches, {} acks, {} refused for \
         want of room and {} for want of disk, {} fetches of {} MB, {} compactions, {} markers, {} aborted batches left out of committed reads, {} steps; damage found {} times",
        args.seeds.end - args.seeds.start,
        started.elapsed().as_secs_f64(),
        totals.failures.len(),
        s.recoveries,
        s.crashes,
        s.batches,
        s.acks,
        s.busy,
        s.storage_full,
        s.fetches,
        s.fetched_bytes / 1_000_000,
        s.compactions,
        s.markers,
        s.hidden,
        s.steps,
        totals.damage_found
    );
    !totals.failures.is_empty()
}
