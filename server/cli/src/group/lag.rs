//! `ringlog group lag`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::client::{Client, Connect, Isolation, Listed};
use crate::failure::Outcome;
use crate::output::{Column, Output, table};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringlog group lag                      every group
  ringlog group lag billing --json | jq 'map(.lag) | add'";

#[derive(Debug, clap::Args)]
pub(super) struct LagArgs {
    /// Names of the groups [default: all].
    groups: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// Where a group stands in a partition.
struct Line {
    group: String,
    topic: String,
    partition: i32,
    committed: Option<i64>,
    /// First offset and the offset behind the last; `None` if the topic is gone.
    bounds: Option<(i64, i64)>,
    member: Option<String>,
}

impl Line {
    /// Offsets that are still to be read.
    fn lag(&self) -> Option<i64> {
        let (start, end) = self.bounds?;
        Some(end - self.committed?.clamp(start, end))
    }
}

pub(super) fn run(args: &LagArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    let groups = match args.groups.is_empty() {
        true => client.groups()?,
        false => args
            .groups
            .iter()
            .map(|name| client.listed_group(name))
            .collect::<Outcome<_>>()?,
    };
    let mut lines = Vec::new();
    let mut bounds = BTreeMap::new();
    for group in groups {
        lines.extend(stands(&mut client, group, &mut bounds)?);
    }
    args.output.print(|| as_json(&lines), || as_text(&lines))
}

type Bounds = BTreeMap<String, Option<BTreeMap<i32, (i64, i64)>>>;

/// Where a group stands, in every partition that it has committed or is assigned.
fn stands(client: &mut Client, listed: Listed, known: &mut Bounds) -> Outcome<Vec<Line>> {
    let committed = client.committed(&listed)?;
    let name = listed.group.clone();
    let group = client.group(listed)?;
    let mut owners: BTreeMap<(String, i32), String> = BTreeMap::new();
    for member in &group.members {
        for (topic, partitions) in &member.assigned {
            for &partition in partitions {
                let owner = member.instance.as_ref().unwrap_or(&member.id);
                owners.insert((topic.clone(), partition), owner.clone());
            }
        }
    }
    let offsets: BTreeMap<(String, i32), i64> = committed
        .into_iter()
        .map(|c| ((c.topic, c.partition), c.offset))
        .collect();
    let places: BTreeSet<_> = owners.keys().chain(offsets.keys()).cloned().collect();
    let mut lines = Vec::new();
    for place in places {
        let bounds = topic_bounds(client, &place.0, known)?;
        lines.push(Line {
            group: name.clone(),
            committed: offsets.get(&place).copied(),
            bounds: bounds.and_then(|bounds| bounds.get(&place.1).copied()),
            member: owners.get(&place).cloned(),
            topic: place.0,
            partition: place.1,
        });
    }
    Ok(lines)
}

/// Where a topic's partitions begin and end; asked once.
fn topic_bounds<'a>(
    client: &mut Client,
    name: &str,
    known: &'a mut Bounds,
) -> Outcome<Option<&'a BTreeMap<i32, (i64, i64)>>> {
    if !known.contains_key(name) {
        let bounds = match client.find_topic(name)? {
            None => None,
            Some(topic) => {
                let all = topic.choose(&[])?;
                Some(client.bounds(&topic, &all, Isolation::ReadUncommitted)?)
            }
        };
        known.insert(name.to_owned(), bounds);
    }
    Ok(known.get(name).and_then(Option::as_ref))
}

fn as_json(lines: &[Line]) -> Value {
    let one = |line: &Line| {
        json!({
            "group": line.group,
            "topic": line.topic,
            "partition": line.partition,
            "committed": line.committed,
            "end": line.bounds.map(|(_, end)| end),
            "lag": line.lag(),
            "member": line.member,
        })
    };
    lines.iter().map(one).collect()
}

fn as_text(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "no group has committed anything".into();
    }
    let columns = [
        Column::Text("group"),
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("committed"),
        Column::Number("end"),
        Column::Number("lag"),
        Column::Text("member"),
    ];
    let number = |number: Option<i64>| number.map_or_else(|| "-".into(), |n| n.to_string());
    let row = |line: &Line| {
        vec![
            line.group.clone(),
            line.topic.clone(),
            line.partition.to_string(),
            number(line.committed),
            line.bounds
                .map_or_else(|| "topic is gone".into(), |(_, end)| end.to_string()),
            number(line.lag()),
            line.member.clone().unwrap_or_default(),
        ]
    };
    let total: i64 = lines.iter().filter_map(Line::lag).sum();
    format!(
        "{}\nlag of all: {total}",
        table(&columns, lines.iter().map(row))
    )
}
