//! `ringlog group reset`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::{Client, Committed, Connect, Isolation};
use crate::failure::{Failure, Outcome};
use crate::output::{Column, Output, count, table};
use crate::place::Place;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringlog group reset billing --topic orders --to beginning
  ringlog group reset billing --topic orders:0,1 --to 4711 --execute
  ringlog group reset billing --all-topics --to -2h --execute
  ringlog group reset billing --all-topics --shift-by -100 --execute

The group must have no members. Offsets outside a partition become its first or its end. Without --execute nothing is
changed. A group that is not there yet is made.";

#[derive(Debug, clap::Args)]
#[group(id = "where", required = true, args = ["to", "shift_by"])]
#[group(id = "which", required = true, args = ["topics", "all_topics"])]
pub(super) struct ResetArgs {
    /// Name of the group.
    group: String,
    /// A topic, or some partitions of it as TOPIC:0,1; as often as needed.
    #[arg(long = "topic", short, value_name = "TOPIC[:PARTITIONS]")]
    topics: Vec<Chosen>,
    /// Every topic in which the group has committed something.
    #[arg(long)]
    all_topics: bool,
    /// Where it goes on: beginning, end, an offset, a time (RFC 3339, @SECONDS) or a span before now such as -1h.
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    to: Option<Place>,
    /// By how many offsets to go on from where it stands; negative to go back.
    #[arg(long, value_name = "OFFSETS", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Do it.
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// TOPIC or TOPIC:0,1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chosen {
    topic: String,
    partitions: Vec<i32>,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, numbers) = match text.split_once(':') {
            Some((topic, numbers)) => (topic, numbers.split(',').collect()),
            None => (text, Vec::new()),
        };
        let partitions: Result<_, _> = numbers.into_iter().map(str::parse).collect();
        Ok(Self {
            topic: topic.to_owned(),
            partitions: partitions.map_err(|_| "TOPIC or TOPIC:0,1 is wanted".to_owned())?,
        })
    }
}

/// What becomes of a partition.
struct Step {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    new: i64,
}

pub(super) fn run(args: &ResetArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    let known = client
        .groups()?
        .into_iter()
        .find(|listed| listed.group == args.group);
    let committed = match &known {
        Some(listed) => client.committed(listed)?,
        None => Vec::new(),
    };
    let steps = plan(&mut client, args, &committed)?;
    if args.execute {
        if let Some(listed) = known {
            let group = client.group(listed)?;
            if !group.members.is_empty() {
                return Err(Failure::new(format!(
                    "group {:?} has {}, who would go on as they are",
                    args.group,
                    count(group.members.len() as u64, "member")
                ))
                .remedy("stop them first"));
            }
        }
        let new = |step: &Step| Committed {
            topic: step.topic.clone(),
            partition: step.partition,
            offset: step.new,
        };
        let offsets: Vec<_> = steps.iter().map(new).collect();
        client.commit(&args.group, &offsets)?;
    }
    args.output
        .print(|| as_json(args, &steps), || as_text(args, &steps))
}

fn plan(client: &mut Client, args: &ResetArgs, committed: &[Committed]) -> Outcome<Vec<Step>> {
    let now = Timestamp::now();
    let mut steps = Vec::new();
    for chosen in chosen(args, committed)? {
        let topic = client.topic(&chosen.topic)?;
        let partitions = topic.choose(&chosen.partitions)?;
        let stands: BTreeMap<i32, i64> = committed
            .iter()
            .filter(|c| c.topic == chosen.topic)
            .map(|c| (c.partition, c.offset))
            .collect();
        let isolation = Isolation::ReadUncommitted;
        let new: BTreeMap<i32, i64> = match (&args.to, args.shift_by) {
            (Some(place), _) => place.ends(client, &topic, &partitions, isolation, now)?,
            (None, shift) => {
                let bounds = client.bounds(&topic, &partitions, isolation)?;
                let shifted = bounds.iter().filter_map(|(partition, &(start, end))| {
                    let from = stands.get(partition)?;
                    let to = from.saturating_add(shift.unwrap_or(0));
                    Some((*partition, to.clamp(start, end.max(start))))
                });
                shifted.collect()
            }
        };
        steps.extend(new.into_iter().map(|(partition, new)| Step {
            topic: chosen.topic.clone(),
            partition,
            committed: stands.get(&partition).copied(),
            new,
        }));
    }
    match steps.is_empty() {
        true => Err(Failure::new(format!(
            "group {:?} stands nowhere in these partitions",
            args.group
        ))
        .remedy("--to sets a place, --topic says of which topic")),
        false => Ok(steps),
    }
}

fn chosen(args: &ResetArgs, committed: &[Committed]) -> Outcome<Vec<Chosen>> {
    if !args.all_topics {
        return Ok(args.topics.clone());
    }
    let topics: BTreeSet<&String> = committed.iter().map(|c| &c.topic).collect();
    if topics.is_empty() {
        return Err(
            Failure::new(format!("group {:?} has committed nothing", args.group)).remedy(
                "name topics with --topic; `ringlog group list` shows the groups there are",
            ),
        );
    }
    let whole = |topic: &&String| {
        let of_topic = committed.iter().filter(|c| &&c.topic == topic);
        Chosen {
            topic: (*topic).clone(),
            partitions: of_topic.map(|c| c.partition).collect(),
        }
    };
    Ok(topics.iter().map(whole).collect())
}

fn as_json(args: &ResetArgs, steps: &[Step]) -> Value {
    let step = |step: &Step| json!({ "topic": step.topic, "partition": step.partition, "committed": step.committed, "new": step.new });
    json!({
        "group": args.group,
        "executed": args.execute,
        "partitions": steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn as_text(args: &ResetArgs, steps: &[Step]) -> String {
    let columns = [
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("committed"),
        Column::Number(if args.execute { "now" } else { "would be" }),
    ];
    let row = |step: &Step| {
        vec![
            step.topic.clone(),
            step.partition.to_string(),
            step.committed
                .map_or_else(|| "-".into(), |offset| offset.to_string()),
            step.new.to_string(),
        ]
    };
    let text = table(&columns, steps.iter().map(row));
    match args.execute {
        true => text,
        false => text + "\nnothing was changed; --execute does it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_with_and_without_partitions() {
        let chosen = |topic: &str, partitions: &[i32]| Chosen {
            topic: topic.into(),
            partitions: partitions.to_vec(),
        };
        assert_eq!("a".parse(), Ok(chosen("a", &[])));
        assert_eq!("a:0,12".parse(), Ok(chosen("a", &[0, 12])));
        for bad in ["a:", "a:x", "a:1,"] {
            assert!(bad.parse::<Chosen>().is_err(), "{bad}");
        }
    }
}
