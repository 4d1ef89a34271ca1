//! `ringlog topic delete`.

use kafka_wire::DeleteTopicsRequest;
use kafka_wire::delete_topics_request::DeleteTopicState;
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::ControlError;
use serde_json::json;

use super::{CHANGE_MS, each};
use crate::client::{Client, Connect, words};
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// From version 6 on topics are named in another field.
const DELETE_TOPICS: i16 = 6;
/// Kafka's error for a topic that is not there.
const UNKNOWN_TOPIC: i16 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    /// Names of the topics.
    #[arg(required = true)]
    topics: Vec<String>,
    /// A topic that is not there is no error.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &DeleteArgs) -> Outcome {
    let mut client = Client::connect(&args.connect)?;
    each(&args.topics, |name| delete(&mut client, name, args))
}

fn delete(client: &mut Client, name: &str, args: &DeleteArgs) -> Outcome {
    let mut topic = DeleteTopicState::default();
    topic.name = Some(StrBytes::from(name));
    let mut request = DeleteTopicsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = CHANGE_MS;
    let answer = client.call_any(&request, DELETE_TOPICS)?;
    let Some(result) = answer.responses.first() else {
        return Err(Failure::new(format!(
            "the broker says nothing of topic {name}"
        )));
    };
    let deleted = match result.error_code {
        0 => true,
        UNKNOWN_TOPIC if args.if_exists => false,
        UNKNOWN_TOPIC => return Err(client.unknown_topic(name)),
        code => {
            let said = words(result.error_message.as_ref());
            return Err(ControlError::refused(format!("topic {name:?}"), code, said).into());
        }
    };
    args.output.print(
        || json!({ "topic": name, "deleted": deleted }),
        || match deleted {
            true => format!("deleted {name}"),
            false => format!("{name} is not there"),
        },
    )
}
