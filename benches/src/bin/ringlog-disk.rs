//! `ringlog-disk`: what the device gives to the engine's patterns of writing and reading, without a server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ringlog_benches::disk::commit::{self, Commit};
use ringlog_benches::disk::read::{self, Read, ReadMode};
use ringlog_benches::disk::report::{Figures, Row, table};
use ringlog_benches::disk::twice::{self, Twice};
use ringlog_benches::disk::{BenchError, Scratch};
use ringlog_engine::ring::raise_descriptors;
use serde_json::{Map, Value, json};

/// Measures what the device under a folder gives to ringlog's patterns of writing and reading, without a server.
///
/// A server cannot be faster than these loops: hold its numbers against them, taken in the same minutes on the same
/// device. Nothing else may use the device meanwhile. Works in a folder of its own, which is gone at the end.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// A folder on the file system to be measured (ext4 or XFS, with O_DIRECT).
    #[arg(long, global = true, default_value = ".", value_name = "FOLDER")]
    dir: PathBuf,
    /// Measure each setting so often, in turns; medians are shown, with the smallest and the largest.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Print one JSON document instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    pattern: Pattern,
}

const EXAMPLES: &str = "\
Sizes take KiB, MiB or GiB: 16KiB, 250KiB, 4GiB. Lists are separated by commas.

Examples:
  ringlog-disk commit --size 4KiB,16KiB --in-flight 1,2,4   how many group commits a second
  ringlog-disk commit --size 4KiB --rate 2000 --beside-reads 256KiB   what a cold reader does to them
  ringlog-disk twice --frame 1MiB --partitions 16           how many MB/s when each byte is written twice
  ringlog-disk read --mode direct,cold,hot --block 1MiB     how fast a cold consumer can be";

#[derive(Debug, Subcommand)]
enum Pattern {
    /// Overwrites of a zero-filled file with O_DIRECT, each with a linked fdatasync: a journal's group commits.
    Commit(CommitArgs),
    /// Journal commits and, at the same time, the same bytes appended to segment files with a syncfs a round.
    Twice(TwiceArgs),
    /// Sequential reads of a file: O_DIRECT, through an empty page cache, through a full one.
    Read(ReadArgs),
}

#[derive(Debug, Args)]
struct CommitArgs {
    /// Bytes of one commit, whole blocks of 4 KiB.
    #[arg(long, value_delimiter = ',', default_value = "4KiB,16KiB,256KiB,1MiB", value_parser = size)]
    size: Vec<u64>,
    /// Commits in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: Vec<u16>,
    /// Length of the file.
    #[arg(long, default_value = "256MiB", value_parser = size)]
    file: u64,
    /// Seconds for each setting and repeat.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Begin so many commits a second, and count latencies from when each was due; otherwise one begins when one ends.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Meanwhile read another file of the same length, past the page cache and over and over, in blocks of this size.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    beside_reads: Option<u64>,
}

#[derive(Debug, Args)]
struct TwiceArgs {
    /// Bytes of one journal frame, whole blocks of 4 KiB.
    #[arg(long, value_delimiter = ',', default_value = "256KiB,1MiB", value_parser = size)]
    frame: Vec<u64>,
    /// Commits in flight.
    #[arg(long, value_delimiter = ',', default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: Vec<u16>,
    /// Segment files.
    #[arg(long, value_delimiter = ',', default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    partitions: Vec<u16>,
    /// Length of the journal.
    #[arg(long, default_value = "512MiB", value_parser = size)]
    journal: u64,
    /// Bytes of a destage round, at most half of the journal.
    #[arg(long, default_value = "128MiB", value_parser = size)]
    round: u64,
    /// Payload for each setting and repeat.
    #[arg(long, default_value = "4GiB", value_parser = size)]
    total: u64,
}

#[derive(Debug, Args)]
struct ReadArgs {
    /// How the file is read.
    #[arg(long, value_delimiter = ',', default_value = "direct,cold,hot")]
    mode: Vec<ReadMode>,
    /// Bytes of one read, whole blocks of 4 KiB.
    #[arg(long, value_delimiter = ',', default_value = "64KiB,1MiB", value_parser = size)]
    block: Vec<u64>,
    /// Reads in flight.
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: Vec<u16>,
    /// Length of the file.
    #[arg(long, default_value = "2GiB", value_parser = size)]
    file: u64,
}

/// A number of bytes, with KiB, MiB or GiB; whole blocks, and what an operation or a file may have.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        other => return Err(format!("{other} is none of KiB, MiB, GiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a whole number"))?;
    let bytes = number.checked_mul(unit).ok_or("too large")?;
    if bytes == 0 || !bytes.is_multiple_of(4096) {
        return Err("not whole blocks of 4 KiB".into());
    }
    Ok(bytes)
}

/// A number of commits each second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("not a number between 0.001 and 10 million".into()),
    }
}

type Setting = Map<String, Value>;
type Measure = Box<dyn Fn(&Scratch) -> Result<Figures, BenchError>>;

/// Names the values of a setting.
fn named(values: &[(&str, Value)]) -> Setting {
    values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

/// Operations of more than this would not show what depth does, and must stay below the ring's limit.
const OPERATION_MAX: u64 = 64 << 20;

fn one_operation(bytes: u64) -> Result<usize, BenchError> {
    if bytes > OPERATION_MAX {
        let reason = format!("{bytes} bytes in one operation: at most {OPERATION_MAX}");
        return Err(BenchError::Settings(reason));
    }
    Ok(bytes as usize)
}

/// The settings to be measured, with their names, in order.
type Plan = Vec<(Setting, Measure)>;

/// Prepares the scratch folder and lists what is to be measured.
fn plan(pattern: &Pattern, scratch: &Scratch) -> Result<(&'static str, Plan), BenchError> {
    Ok(match pattern {
        Pattern::Commit(args) => ("commit", plan_commit(args, scratch)?),
        Pattern::Twice(args) => ("twice", plan_twice(args, scratch)?),
        Pattern::Read(args) => ("read", plan_read(args, scratch)?),
    })
}

fn plan_commit(args: &CommitArgs, scratch: &Scratch) -> Result<Plan, BenchError> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        let reason = "--seconds must lie between 0 and 3600";
        return Err(BenchError::Settings(reason.into()));
    }
    commit::prepare(scratch, args.file, args.beside_reads.is_some())?;
    let read_block = args.beside_reads.map(one_operation).transpose()?;
    let mut plan = Plan::new();
    for &bytes in &args.size {
        for &in_flight in &args.in_flight {
            let setting = Commit {
                size: one_operation(bytes)?,
                in_flight: in_flight.into(),
                file_bytes: args.file,
                duration: Duration::from_secs_f64(args.seconds),
                rate: args.rate,
                read_block,
            };
            let mut names = named(&[("bytes", json!(bytes)), ("in_flight", json!(in_flight))]);
            if let Some(rate) = args.rate {
                names.insert("rate".into(), json!(rate));
            }
            if let Some(block) = args.beside_reads {
                names.insert("beside_reads".into(), json!(block));
            }
            plan.push((
                names,
                Box::new(move |scratch| commit::run(scratch, &setting)),
            ));
        }
    }
    Ok(plan)
}

fn plan_twice(args: &TwiceArgs, scratch: &Scratch) -> Result<Plan, BenchError> {
    let mut plan = Plan::new();
    for &frame in &args.frame {
        for &in_flight in &args.in_flight {
            for &partitions in &args.partitions {
                let setting = Twice {
                    frame: one_operation(frame)?,
                    in_flight: in_flight.into(),
                    partitions: partitions.into(),
                    journal_bytes: args.journal,
                    round_bytes: args.round,
                    total_bytes: args.total,
                };
                if plan.is_empty() {
                    twice::prepare(scratch, &setting)?;
                }
                let names = named(&[
                    ("frame", json!(frame)),
                    ("in_flight", json!(in_flight)),
                    ("partitions", json!(partitions)),
                ]);
                plan.push((
                    names,
                    Box::new(move |scratch| twice::run(scratch, &setting)),
                ));
            }
        }
    }
    Ok(plan)
}

fn plan_read(args: &ReadArgs, scratch: &Scratch) -> Result<Plan, BenchError> {
    read::prepare(scratch, args.file)?;
    let mut plan = Plan::new();
    for &mode in &args.mode {
        for &block in &args.block {
            for &depth in &args.depth {
                let setting = Read {
                    mode,
                    block: one_operation(block)?,
                    depth: depth.into(),
                    file_bytes: args.file,
                };
                let names = named(&[
                    ("mode", json!(mode)),
                    ("block", json!(block)),
                    ("depth", json!(depth)),
                ]);
                plan.push((names, Box::new(move |scratch| read::run(scratch, &setting))));
            }
        }
    }
    Ok(plan)
}

/// Every setting once, then every setting again: what drifts meets them all alike.
fn measure(cli: &Cli, scratch: &Scratch) -> Result<Vec<Row>, BenchError> {
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {msg} [{elapsed}]")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message("preparing files");
    let (pattern, settings) = plan(&cli.pattern, scratch)?;
    let mut figures: Vec<Vec<Figures>> = settings.iter().map(|_| Vec::new()).collect();
    for repeat in 1..=cli.repeat {
        for (index, (setting, run)) in settings.iter().enumerate() {
            let words: Vec<String> = setting
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            bar.set_message(format!(
                "{pattern} {}: setting {} of {}, repeat {repeat} of {}",
                words.join(", "),
                index + 1,
                settings.len(),
                cli.repeat
            ));
            scratch.check()?;
            figures[index].push(run(scratch)?);
        }
    }
    bar.finish_and_clear();
    let rows = settings.into_iter().zip(&figures);
    Ok(rows
        .map(|((setting, _), repeats)| Row::new(pattern, setting, repeats))
        .collect())
}

fn run(cli: &Cli) -> Result<(), BenchError> {
    // One is opened for each partition; if so many are not allowed, opening them says so.
    raise_descriptors();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
        registered.map_err(|source| BenchError::File {
            what: "signals".into(),
            source,
        })?;
    }
    let scratch = Scratch::new(&cli.dir, stop)?;
    let rows = measure(cli, &scratch)?;
    if cli.json {
        let folder = cli.dir.display().to_string();
        println!(
            "{}",
            json!({ "dir": folder, "repeat": cli.repeat, "rows": rows })
        );
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringlog-disk: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!(size("16KiB"), Ok(16384));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for wrong in [
            "",
            "0",
            "5",
            "4kb",
            "1.5MiB",
            "-4096",
            "18446744073709551615GiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
