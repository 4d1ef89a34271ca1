//! `ringlog topic create`.

use kafka_wire::CreateTopicsRequest;
use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::ControlError;
use serde_json::{Value, json};

use super::{CHANGE_MS, Setting, each, id_text};
use crate::client::{Client, Connect, words};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, count};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringlog topic create logs
  ringlog topic create orders payments --partitions 16 --config retention.ms=86400000
  ringlog topic create state --config cleanup.policy=compact --if-not-exists";

const CREATE_TOPICS: i16 = 7;
/// Kafka's error for a topic that is there already.
const EXISTS: i16 = 36;

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Names of the topics.
    #[arg(required = true)]
    topics: Vec<String>,
    /// Partitions of each [default: the broker's num.partitions].
    #[arg(long, short)]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's].
    #[arg(long, value_name = "COPIES")]
    replication_factor: Option<i16>,
    /// A setting, as often as needed.
    #[arg(long = "config", short, value_name = "NAME=VALUE")]
    configs: Vec<Setting>,
    /// A topic that is there already is no error, and stays as it is.
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &CreateArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    each(&args.topics, |name| create(&mut client, name, args))
}

fn create(client: &mut Client, name: &str, args: &CreateArgs) -> Outcome {
    let mut topic = CreatableTopic::default();
    topic.name = StrBytes::from(name);
    topic.num_partitions = args.partitions.unwrap_or(-1);
    topic.replication_factor = args.replication_factor.unwrap_or(-1);
    topic.configs = args.configs.iter().map(config).collect();
    let mut request = CreateTopicsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = CHANGE_MS;
    let answer = client.call_any(&request, CREATE_TOPICS)?;
    let Some(result) = answer.topics.first() else {
        return Err(Failure::new(format!(
            "the broker says nothing of topic {name}"
        )));
    };
    let created = match result.error_code {
        0 => true,
        EXISTS if args.if_not_exists => false,
        EXISTS => {
            return Err(Failure::new(format!("there is a topic {name:?} already"))
                .remedy("--if-not-exists takes it as it is, `ringlog topic alter` changes it"));
        }
        code => {
            let said = words(result.error_message.as_ref());
            return Err(ControlError::refused(format!("topic {name:?}"), code, said).into());
        }
    };
    let partitions = match result.num_partitions {
        // Brokers before CreateTopics version 5 do not say.
        number if number <= 0 => client.find_topic(name)?.map_or(0, |t| t.partitions.len()),
        number => number as usize,
    };
    args.output.print(
        || -> Value {
            json!({ "topic": name, "created": created, "id": id_text(result.topic_id.to_bytes()), "partitions": partitions })
        },
        || match created {
            true => format!("created {name} with {}", count(partitions as u64, "partition")),
            false => format!("{name} was there already"),
        },
    )
}

fn config(setting: &Setting) -> CreatableTopicConfig {
    let mut config = CreatableTopicConfig::default();
    config.name = StrBytes::from(setting.name.as_str());
    config.value = Some(StrBytes::from(setting.value.as_str()));
    config
}
