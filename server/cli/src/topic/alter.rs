//! `ringlog topic alter`.

use kafka_wire::CreatePartitionsRequest;
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::ControlError;
use serde_json::json;

use super::{CHANGE_MS, Setting, configs};
use crate::client::{Client, Connect, words};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringlog topic alter logs --config retention.ms=3600000
  ringlog topic alter logs --unset retention.ms
  ringlog topic alter logs --partitions 32";

const CREATE_PARTITIONS: i16 = 3;

#[derive(Debug, clap::Args)]
#[group(id = "change", required = true, multiple = true, args = ["configs", "unset", "partitions"])]
pub(super) struct AlterArgs {
    /// Name of the topic.
    topic: String,
    /// A setting, as often as needed.
    #[arg(long = "config", short, value_name = "NAME=VALUE")]
    configs: Vec<Setting>,
    /// A setting to take back, so that the broker's default holds.
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// Partitions there are to be; there can only be more. Keys go to other partitions from then on.
    #[arg(long, short)]
    partitions: Option<i32>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &AlterArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    let topic = client.topic(&args.topic)?;
    if let Some(wanted) = args.partitions {
        add_partitions(&mut client, &args.topic, topic.partitions.len(), wanted)?;
    }
    if !args.configs.is_empty() || !args.unset.is_empty() {
        configs::change(&mut client, &args.topic, &args.configs, &args.unset)?;
    }
    let set = args.configs.iter();
    args.output.print(
        || {
            json!({
                "topic": args.topic,
                "set": set.clone().map(|s| (s.name.clone(), s.value.clone())).collect::<std::collections::BTreeMap<_, _>>(),
                "unset": args.unset,
                "partitions": args.partitions,
            })
        },
        || {
            let mut done: Vec<String> = set
                .clone()
                .map(|setting| format!("{}={}", setting.name, setting.value))
                .collect();
            done.extend(args.unset.iter().map(|name| format!("{name} unset")));
            done.extend(args.partitions.map(|n| count(n.max(0) as u64, "partition")));
            format!("{}: {}", args.topic, done.join(", "))
        },
    )
}

fn add_partitions(client: &mut Client, name: &str, have: usize, wanted: i32) -> Outcome {
    if wanted == have as i32 {
        return Err(Failure::new(format!(
            "topic {name} has {have} partitions already"
        )));
    }
    let mut topic = CreatePartitionsTopic::default();
    topic.name = StrBytes::from(name);
    topic.count = wanted;
    topic.assignments = None;
    let mut request = CreatePartitionsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = CHANGE_MS;
    let answer = client.call_any(&request, CREATE_PARTITIONS)?;
    match answer.results.first() {
        Some(result) if result.error_code != 0 => {
            let said = words(result.error_message.as_ref());
            let what = format!("partitions of topic {name:?}");
            Err(ControlError::refused(what, result.error_code, said).into())
        }
        _ => Ok(()),
    }
}
