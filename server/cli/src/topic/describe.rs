//! `ringlog topic describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kafka_wire::DescribeLogDirsRequest;
use kafka_wire::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_wire_core::StrBytes;
use serde_json::{Value, json};

use super::configs::{self, Config};
use super::{each, id_text};
use crate::client::{Client, Connect, Isolation, Topic, TopicPartition};
use crate::failure::Outcome;
use crate::output::{Column, Output, bytes, count, table};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringlog topic describe logs
  ringlog topic describe logs --all-configs
  ringlog topic describe logs --json | jq '.partitions[].end'";

const DESCRIBE_LOG_DIRS: i16 = 4;

#[derive(Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// Names of the topics.
    #[arg(required = true)]
    topics: Vec<String>,
    /// Show every setting, not only those made for the topic.
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// What is told of a partition.
struct Line<'a> {
    partition: &'a TopicPartition,
    start: i64,
    end: i64,
    /// `None` if the broker does not say.
    bytes: Option<u64>,
}

pub(super) fn run(args: &DescribeArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    each(&args.topics, |name| describe(&mut client, name, args))
}

fn describe(client: &mut Client, name: &str, args: &DescribeArgs) -> Outcome {
    let topic = client.topic(name)?;
    let all: Vec<i32> = topic
        .partitions
        .iter()
        .map(|partition| partition.index)
        .collect();
    let bounds = client.bounds(&topic, &all, Isolation::ReadUncommitted)?;
    let sizes = sizes(client, &topic)?;
    let mut settings = configs::read(client, name)?;
    settings.retain(|setting| args.all_configs || setting.own);
    let lines: Vec<Line<'_>> = topic
        .partitions
        .iter()
        .map(|partition| {
            let (start, end) = bounds.get(&partition.index).copied().unwrap_or((0, 0));
            Line {
                partition,
                start,
                end,
                bytes: sizes.get(&partition.index).copied(),
            }
        })
        .collect();
    args.output.print(
        || as_json(&topic, &settings, &lines),
        || as_text(&topic, &settings, &lines),
    )
}

/// Bytes of each partition on its leader's disk.
fn sizes(client: &mut Client, topic: &Topic) -> Outcome<BTreeMap<i32, u64>> {
    let leaders: BTreeSet<i32> = topic
        .partitions
        .iter()
        .map(|partition| partition.leader)
        .collect();
    let mut sizes = BTreeMap::new();
    for leader in leaders.into_iter().filter(|&leader| leader >= 0) {
        let led = topic
            .partitions
            .iter()
            .filter(|partition| partition.leader == leader);
        let mut asked = DescribableLogDirTopic::default();
        asked.topic = StrBytes::from(topic.name.as_str());
        asked.partitions = led.map(|partition| partition.index).collect();
        let mut request = DescribeLogDirsRequest::default();
        request.topics = Some(vec![asked]);
        let answer = client.call_node(leader, &request, DESCRIBE_LOG_DIRS)?;
        let of_topics = answer.results.iter().flat_map(|dir| &dir.topics);
        for partition in of_topics.flat_map(|topic| &topic.partitions) {
            if !partition.is_future_key {
                sizes.insert(
                    partition.partition_index,
                    partition.partition_size.max(0) as u64,
                );
            }
        }
    }
    Ok(sizes)
}

fn as_json(topic: &Topic, settings: &[Config], lines: &[Line<'_>]) -> Value {
    let settings: BTreeMap<_, _> = settings.iter().map(|s| (&s.name, &s.value)).collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "partition": line.partition.index,
                "leader": line.partition.leader,
                "replicas": line.partition.replicas,
                "in_sync": line.partition.in_sync,
                "start": line.start,
                "end": line.end,
                "bytes": line.bytes,
            })
        })
        .collect();
    json!({
        "topic": topic.name,
        "id": id_text(topic.id),
        "internal": topic.internal,
        "configs": settings,
        "partitions": lines,
    })
}

fn as_text(topic: &Topic, settings: &[Config], lines: &[Line<'_>]) -> String {
    let records: i64 = lines.iter().map(|line| line.end - line.start).sum();
    let size: u64 = lines.iter().filter_map(|line| line.bytes).sum();
    let mut text = format!(
        "{}  id {}  {}, {} offsets in use, {}\n",
        topic.name,
        id_text(topic.id),
        count(lines.len() as u64, "partition"),
        records,
        bytes(size),
    );
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or("-");
        let default = if setting.own { "" } else { "  (default)" };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "  {}={value}{default}", setting.name);
    }
    let columns = [
        Column::Number("partition"),
        Column::Number("leader"),
        Column::Text("replicas"),
        Column::Number("start"),
        Column::Number("end"),
        Column::Number("offsets"),
        Column::Number("on disk"),
    ];
    let row = |line: &Line<'_>| {
        vec![
            line.partition.index.to_string(),
            match line.partition.leader {
                -1 => "none".into(),
                leader => leader.to_string(),
            },
            replicas(line.partition),
            line.start.to_string(),
            line.end.to_string(),
            (line.end - line.start).to_string(),
            line.bytes.map_or_else(|| "?".into(), bytes),
        ]
    };
    text + &table(&columns, lines.iter().map(row))
}

/// Node ids; those that are behind with a mark.
fn replicas(partition: &TopicPartition) -> String {
    let one = |node: &i32| match partition.in_sync.contains(node) {
        true => node.to_string(),
        false => format!("{node} (behind)"),
    };
    let all: Vec<String> = partition.replicas.iter().map(one).collect();
    all.join(", ")
}
