//! `ringlog completions`: what shells know of the commands.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::failure::{Failure, Outcome};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog completions bash > /etc/bash_completion.d/ringlog
  ringlog completions zsh > ~/.zfunc/_ringlog
  source <(ringlog completions bash)";

/// `ringlog completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Prints the shell's script.
pub(crate) fn run<C: CommandFactory>(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, &mut C::command(), "ringlog", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}
