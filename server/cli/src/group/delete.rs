//! `ringlog group delete`.

use serde_json::json;

use crate::client::{Client, Connect};
use crate::failure::Outcome;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// Names of the groups.
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &DeleteArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    crate::failure::each(&args.groups, |name| {
        let listed = client.listed_group(name)?;
        client.delete_group(&listed)?;
        args.output.print(
            || json!({ "group": name, "deleted": true }),
            || format!("deleted {name}"),
        )
    })
}
