//! `ringlog`: a Kafka-protocol cluster on the command line, and a look at ringlog's own files. `ringlog --help` teaches.

mod client;
mod consume;
mod disk;
mod failure;
mod output;
mod produce;
mod topic;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

const EXAMPLES: &str = "\
Examples:
  ringlog topic create logs --partitions 8
  journalctl -f | ringlog produce logs
  ringlog consume logs --from -1h
  ringlog verify /var/lib/ringlog

Every command but dump and verify works with any broker that speaks Kafka's protocol.";

/// Topics and records of a ringlog or Kafka cluster; a look at ringlog's files.
#[derive(Debug, Parser)]
#[command(name = "ringlog", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, show, change and delete topics.
    Topic(topic::TopicArgs),
    /// Send records to a topic, one for each line.
    #[command(after_help = produce::EXAMPLES)]
    Produce(produce::ProduceArgs),
    /// Print a topic's records, a line each.
    #[command(after_help = consume::EXAMPLES)]
    Consume(consume::ConsumeArgs),
    /// Check everything in a data directory, without a server.
    #[command(after_help = disk::verify::EXAMPLES)]
    Verify(disk::verify::VerifyArgs),
    /// Print what single files of a data directory hold.
    #[command(after_help = disk::dump::EXAMPLES)]
    Dump(disk::dump::DumpArgs),
}

fn main() -> ExitCode {
    let outcome = match &Cli::parse().command {
        Command::Topic(args) => topic::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Verify(args) => disk::verify::run(args),
        Command::Dump(args) => disk::dump::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                complain(&failure);
            }
            ExitCode::from(failure.status())
        }
    }
}

/// Says what went wrong, in one line.
fn complain(failure: &Failure) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error:{red:#} {failure}");
}
