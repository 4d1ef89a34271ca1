//! `ringlog-report`: puts the JSON of a load run, of its check and of the server's counters together, for people.
//! `scripts/run` calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ringlog_benches::run_report::{Counters, Inputs, report};
use serde_json::Value;

/// Prints one report from what a load run, its check and the server said. Exit status 1 when the check or the run failed.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// What `ringlog-load produce --json` printed.
    #[arg(long, value_name = "FILE")]
    produce: PathBuf,
    /// What `ringlog-load check --json` printed.
    #[arg(long, value_name = "FILE")]
    check: PathBuf,
    /// What the server wrote to standard error: its first and last line of counters (it writes one on SIGUSR1)
    /// enclose the load.
    #[arg(long, value_name = "FILE")]
    server_log: PathBuf,
    /// Where the records came from, in words.
    #[arg(long)]
    source: String,
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Result<Value, String> {
    serde_json::from_str(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(cli: &Cli) -> Result<bool, String> {
    let counters = Counters::all(&read(&cli.server_log)?)?;
    let [before, .., after] = counters.as_slice() else {
        let reason = "fewer than two lines of counters";
        return Err(format!("{}: {reason}", cli.server_log.display()));
    };
    let inputs = Inputs {
        source: &cli.source,
        produce: &json(&cli.produce)?,
        check: &json(&cli.check)?,
        before,
        after,
    };
    let (text, well) = report(&inputs)?;
    println!("{text}");
    Ok(well)
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("ringlog-report: {reason}");
            ExitCode::from(2)
        }
    }
}
