//! `ringlog group`: consumer groups, how far behind they are, and where they go on.

mod delete;
mod describe;
mod lag;
mod list;
mod reset;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// `ringlog group`.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Show which groups there are.
    List(list::ListArgs),
    /// Show a group's members and what is assigned to them.
    Describe(describe::DescribeArgs),
    /// Show how far groups are behind the ends of their partitions.
    #[command(after_help = lag::EXAMPLES)]
    Lag(lag::LagArgs),
    /// Set where a group without members goes on; shows what it would do unless told to do it.
    #[command(after_help = reset::EXAMPLES)]
    Reset(reset::ResetArgs),
    /// Delete groups without members, and what they have committed.
    Delete(delete::DeleteArgs),
}

/// Carries the command out.
pub(crate) fn run(args: &GroupArgs) -> Outcome {
    match &args.command {
        GroupCommand::List(args) => list::run(args),
        GroupCommand::Describe(args) => describe::run(args),
        GroupCommand::Lag(args) => lag::run(args),
        GroupCommand::Reset(args) => reset::run(args),
        GroupCommand::Delete(args) => delete::run(args),
    }
}
