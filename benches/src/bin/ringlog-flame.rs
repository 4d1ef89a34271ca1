//! `ringlog-flame`: what `perf` recorded, as flame graphs and as a table. scripts/flamegraph and scripts/perf-report record
//! and call it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringlog_benches::profile::page::{Graphs, INDEX, write};
use ringlog_benches::profile::threads::{Process, Thread, threads};
use ringlog_benches::profile::waits::waits;
use ringlog_benches::profile::{Kind, ProfileError, fold, table};

/// Flame graphs and tables by thread from the text of `perf script`.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw a graph for each process and thread, and a page that shows them.
    Draw(Draw),
    /// Print the functions of each thread by their share of its time.
    Table(Table),
}

#[derive(Debug, Args)]
struct Samples {
    /// `perf script -F comm,pid,tid,time,event,ip,sym,dso` of samples of the processor's time.
    #[arg(long, value_name = "FILE")]
    on_cpu: PathBuf,
    /// A process to show; the others are dropped (repeatable).
    #[arg(long = "process", value_name = "NAME=PID", required = true)]
    processes: Vec<Process>,
}

#[derive(Debug, Args)]
struct Draw {
    #[command(flatten)]
    samples: Samples,
    /// `perf script -F comm,pid,tid,time,event,trace,ip,sym,dso` of sched:sched_switch on all processors.
    #[arg(long, value_name = "FILE")]
    off_cpu: Option<PathBuf>,
    /// Folder of the graphs.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Title of the page.
    #[arg(long)]
    title: String,
    /// A line above the graphs (repeatable).
    #[arg(long = "note")]
    notes: Vec<String>,
}

#[derive(Debug, Args)]
struct Table {
    #[command(flatten)]
    samples: Samples,
    /// Samples a second.
    #[arg(long)]
    hz: f64,
    /// Length of the recording.
    #[arg(long)]
    seconds: f64,
    /// Functions of each thread.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn on_cpu(samples: &Samples) -> Result<Vec<Thread>, String> {
    let folded = fold(&read(&samples.on_cpu)?).map_err(|error| error.to_string())?;
    threads(&folded, &samples.processes).map_err(|error| error.to_string())
}

fn run_draw(draw: &Draw) -> Result<String, String> {
    let on = on_cpu(&draw.samples)?;
    let mut notes = draw.notes.clone();
    let off = match &draw.off_cpu {
        None => Vec::new(),
        Some(path) => {
            let folded = fold(&waits(&read(path)?)).map_err(|error| error.to_string())?;
            match threads(&folded, &draw.samples.processes) {
                Ok(threads) => threads,
                Err(ProfileError::Empty) => {
                    notes.push(
                        "Off the processor: no wait began and ended while it was recorded.".into(),
                    );
                    Vec::new()
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let mut graphs = vec![Graphs {
        kind: Kind::OnCpu,
        threads: &on,
    }];
    if !off.is_empty() {
        graphs.push(Graphs {
            kind: Kind::OffCpu,
            threads: &off,
        });
    }
    write(&draw.out, &draw.title, &notes, &graphs).map_err(|error| error.to_string())?;
    Ok(draw.out.join(INDEX).display().to_string())
}

fn run_table(table: &Table) -> Result<String, String> {
    let rows = table::rows(&on_cpu(&table.samples)?, table.hz, table.seconds, table.top);
    match table.json {
        true => serde_json::to_string_pretty(&rows).map_err(|error| error.to_string()),
        false => Ok(table::text(&rows)),
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Draw(draw) => run_draw(&draw),
        Command::Table(table) => run_table(&table),
    };
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("ringlog-flame: {reason}");
            ExitCode::FAILURE
        }
    }
}
