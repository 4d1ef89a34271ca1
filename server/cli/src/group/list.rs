//! `ringlog group list`.

use serde_json::json;

use crate::client::{Client, Connect, Listed};
use crate::failure::Outcome;
use crate::output::{Column, Output, table};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &ListArgs) -> Outcome {
    let groups = Client::connect(&args.connect)?.groups()?;
    args.output.print(
        || {
            let one = |group: &Listed| {
                json!({
                    "group": group.group,
                    "state": group.state,
                    "type": group.kind,
                    "protocol": group.protocol,
                    "coordinator": group.coordinator,
                })
            };
            groups.iter().map(one).collect()
        },
        || {
            if groups.is_empty() {
                return "there are no groups".into();
            }
            let columns = [
                Column::Text("group"),
                Column::Text("state"),
                Column::Text("type"),
                Column::Text("protocol"),
                Column::Number("coordinator"),
            ];
            let row = |group: &Listed| {
                vec![
                    group.group.clone(),
                    group.state.clone(),
                    group.kind.clone(),
                    group.protocol.clone(),
                    group.coordinator.to_string(),
                ]
            };
            table(&columns, groups.iter().map(row))
        },
    )
}
