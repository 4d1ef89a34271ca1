//! `ringlog group describe`.

use serde_json::{Value, json};

use crate::client::{Client, Connect, Group, Member};
use crate::failure::Outcome;
use crate::output::{Column, Output, count, table};

#[derive(Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// Name of the group.
    group: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &DescribeArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    let listed = client.listed_group(&args.group)?;
    let group = client.group(listed)?;
    args.output.print(|| as_json(&group), || as_text(&group))
}

fn as_json(group: &Group) -> Value {
    let member = |member: &Member| {
        json!({
            "member": member.id,
            "instance": member.instance,
            "client": member.client,
            "host": member.host,
            "assigned": member.assigned,
        })
    };
    json!({
        "group": group.listed.group,
        "state": group.listed.state,
        "type": group.listed.kind,
        "assignor": group.assignor,
        "coordinator": group.listed.coordinator,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn as_text(group: &Group) -> String {
    let listed = &group.listed;
    let mut text = format!(
        "{}  {}, {}, coordinator {}",
        listed.group,
        listed.state,
        count(group.members.len() as u64, "member"),
        listed.coordinator,
    );
    if !group.assignor.is_empty() {
        text += &format!(", assignor {}", group.assignor);
    }
    if group.members.is_empty() {
        return text + "\n`ringlog group lag` shows where it stands";
    }
    let columns = [
        Column::Text("member"),
        Column::Text("client"),
        Column::Text("host"),
        Column::Text("partitions"),
    ];
    let row = |member: &Member| {
        vec![
            member.instance.clone().unwrap_or_else(|| member.id.clone()),
            member.client.clone(),
            member.host.clone(),
            assigned(member),
        ]
    };
    text + "\n" + &table(&columns, group.members.iter().map(row))
}

/// `topic: 0, 1; other: 2`.
fn assigned(member: &Member) -> String {
    let topic = |(name, partitions): (&String, &Vec<i32>)| {
        let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
        format!("{name}: {}", numbers.join(", "))
    };
    let topics: Vec<String> = member.assigned.iter().map(topic).collect();
    topics.join("; ")
}
