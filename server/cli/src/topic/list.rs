//! `ringlog topic list`.

use serde_json::json;

use super::id_text;
use crate::client::{Client, Connect};
use crate::failure::Outcome;
use crate::output::{Column, Output, table};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Show the broker's own topics, too.
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &ListArgs) -> Outcome {
    let mut topics = Client::connect(&args.connect)?.topics()?;
    topics.retain(|topic| args.internal || !topic.internal);
    args.output.print(
        || {
            topics
                .iter()
                .map(|topic| {
                    json!({
                        "topic": topic.name,
                        "id": id_text(topic.id),
                        "partitions": topic.partitions.len(),
                        "replicas": replicas(topic),
                        "internal": topic.internal,
                    })
                })
                .collect()
        },
        || {
            if topics.is_empty() {
                return "there are no topics; `ringlog topic create NAME` makes one".into();
            }
            let columns = [
                Column::Text("topic"),
                Column::Number("partitions"),
                Column::Number("replicas"),
            ];
            let row = |topic: &crate::client::Topic| {
                vec![
                    topic.name.clone(),
                    topic.partitions.len().to_string(),
                    replicas(topic).to_string(),
                ]
            };
            table(&columns, topics.iter().map(row))
        },
    )
}

/// Copies of the partition that has the most.
fn replicas(topic: &crate::client::Topic) -> usize {
    let copies = topic
        .partitions
        .iter()
        .map(|partition| partition.replicas.len());
    copies.max().unwrap_or(0)
}
