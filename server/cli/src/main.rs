//! `ringlog`: a Kafka-protocol cluster on the command line, and a look at ringlog's own files. `ringlog --help` teaches.

mod client;
mod completions;
mod consume;
mod disk;
mod failure;
mod group;
mod output;
mod place;
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
  ringlog group lag
  ringlog verify /var/lib/ringlog

Every command but dump and verify works with any broker that speaks Kafka's protocol.";

/// Topics, records and groups of a ringlog or Kafka cluster; a look at ringlog's files.
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
    /// Show consumer groups and how far behind they are, set their offsets, delete them.
    Group(group::GroupArgs),
    /// Check everything in a data directory, without a server.
    #[command(after_help = disk::verify::EXAMPLES)]
    Verify(disk::verify::VerifyArgs),
    /// Print what single files of a data directory hold.
    #[command(after_help = disk::dump::EXAMPLES)]
    Dump(disk::dump::DumpArgs),
    /// Print a script by which a shell completes these commands.
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let outcome = match &Cli::parse().command {
        Command::Topic(args) => topic::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Group(args) => group::run(args),
        Command::Verify(args) => disk::verify::run(args),
        Command::Dump(args) => disk::dump::run(args),
        Command::Completions(args) => completions::run::<Cli>(args),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_agree_with_themselves() {
        Cli::command().debug_assert();
    }
}
