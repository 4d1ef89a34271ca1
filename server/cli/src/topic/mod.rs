//! `ringlog topic`: what topics there are, and changes to them.

mod alter;
mod configs;
mod create;
mod delete;
mod describe;
mod list;

use clap::{Args, Subcommand};

use crate::failure::{Outcome, each};

/// `ringlog topic`.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Make topics.
    #[command(after_help = create::EXAMPLES)]
    Create(create::CreateArgs),
    /// Show which topics there are.
    List(list::ListArgs),
    /// Show a topic's partitions, where they begin and end, their size, and its settings.
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::DescribeArgs),
    /// Change a topic's settings or add partitions.
    #[command(after_help = alter::EXAMPLES)]
    Alter(alter::AlterArgs),
    /// Delete topics with all their records.
    Delete(delete::DeleteArgs),
}

/// Carries the command out.
pub(crate) fn run(args: &TopicArgs) -> Outcome {
    match &args.command {
        TopicCommand::Create(args) => create::run(args),
        TopicCommand::List(args) => list::run(args),
        TopicCommand::Describe(args) => describe::run(args),
        TopicCommand::Alter(args) => alter::run(args),
        TopicCommand::Delete(args) => delete::run(args),
    }
}

/// Longest time a broker may take to carry a change out, milliseconds.
const CHANGE_MS: i32 = 10_000;

/// NAME=VALUE of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    name: String,
    value: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok(Self {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err("NAME=VALUE is wanted, for instance retention.ms=86400000".into()),
        }
    }
}

/// A topic's id as ringlog names its directories.
fn id_text(id: [u8; 16]) -> String {
    ringlog_engine::id::TopicId(id).to_string()
}
