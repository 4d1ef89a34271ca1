//! `ringlog-load`: see `ringlog-load --help`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use ringlog_load::cli::{
    CheckCommand, CheckCommitsCommand, Cli, Command, CommitsCommand, NullSinkCommand, Request,
    sweep,
};
use ringlog_load::null_sink::{Discard, NullSink};
use ringlog_load::{check, claims, commits, report, run};

/// Errors came or a check failed.
const FOUND_FAULTS: u8 = 1;
/// The command line is wrong or a run could not take place.
const DID_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Sweep(command) => sweep::sweep(command).map(|(text, well)| {
            print(&text);
            well
        }),
        Command::Check(command) => run_check(command),
        Command::Commits(command) => run_commits(command),
        Command::CheckCommits(command) => run_check_commits(command),
        Command::Claims(command) => claims::command::run(command)
            .map(|text| {
                print(&text);
                true
            })
            .map_err(|error| error.to_string()),
        Command::Store(command) => claims::harm::run(command).map(|text| {
            print(&text);
            true
        }),
        Command::NullSink(command) => run_null_sink(command),
        command => match command.request() {
            Ok(Some(request)) => run_load(&request),
            Ok(None) => Err("not a run".into()),
            Err(usage) => Err(usage),
        },
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FOUND_FAULTS),
        Err(reason) => {
            eprintln!("ringlog-load: {reason}");
            ExitCode::from(DID_NOT_RUN)
        }
    }
}

fn run_load(request: &Request) -> Result<bool, String> {
    let result = run::run(&request.options).map_err(|error| error.to_string())?;
    print(&match request.json {
        true => report::json(&request.options, &result).to_string(),
        false => report::table(&request.options, &result),
    });
    Ok(report::is_well(&result, request.tolerate_errors))
}

fn run_check(command: &CheckCommand) -> Result<bool, String> {
    let result = check::check(&command.ack_log, command.bootstrap.as_deref())
        .map_err(|error| error.to_string())?;
    print(&match command.json {
        true => report::check_json(&result).to_string(),
        false => report::check_table(&result),
    });
    Ok(result.is_clean())
}

fn run_commits(command: &CommitsCommand) -> Result<bool, String> {
    let options = command.options()?;
    let result = commits::run(&options).map_err(|error| error.to_string())?;
    print(&match command.json {
        true => commits::report::json(&options, &result).to_string(),
        false => commits::report::table(&options, &result),
    });
    Ok(result.is_well(command.tolerate_errors))
}

fn run_check_commits(command: &CheckCommitsCommand) -> Result<bool, String> {
    let patience = Duration::from_secs_f64(command.patience);
    let restored = commits::check::check(&command.book, &command.bootstrap, patience)
        .map_err(|error| error.to_string())?;
    print(&match command.json {
        true => commits::report::check_json(&restored).to_string(),
        false => commits::report::check_table(&restored),
    });
    Ok(restored.is_clean())
}

fn run_null_sink(command: &NullSinkCommand) -> Result<bool, String> {
    run::pin(&command.cpus()).map_err(|error| format!("--cpus: {error}"))?;
    let store = Discard::new(command.fetch_batch_records, command.fetch_record_size);
    let mut sink = NullSink::bind(&format!("127.0.0.1:{}", command.port), store)
        .map_err(|error| format!("port {}: {error}", command.port))?;
    print(&format!(
        "null sink at {}, until it is killed",
        sink.address()
    ));
    sink.run(&AtomicBool::new(false))
        .map_err(|error| error.to_string())?;
    Ok(true)
}

/// Prints a line. A reader that has gone (`| head`) is no reason to fail.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
