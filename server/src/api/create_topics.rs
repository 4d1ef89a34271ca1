//! CreateTopics.

use std::sync::Arc;

use hashbrown::HashSet;
use kafka_wire::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_wire::{CreateTopicsRequest, CreateTopicsResponse};

use super::{Request, text};
use crate::app::Server;
use crate::catalog::Topic;
use crate::catalog::action::{NewTopic, Refusal};
use crate::config::topic::{TOPIC_CONFIGS, default_text};
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::wire::{Malformed, StrBytes, uuid};

/// A request on its way through the catalog.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    version: i16,
    validate_only: bool,
    names: Vec<StrBytes>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: CreateTopicsRequest = request.decode()?;
    let new = |t: &kafka_wire::create_topics_request::CreatableTopic| NewTopic {
        name: t.name.to_string(),
        partitions: t.num_partitions,
        replication_factor: t.replication_factor,
        assignments: t
            .assignments
            .iter()
            .map(|a| (a.partition_index, a.broker_ids.clone()))
            .collect(),
        configs: t
            .configs
            .iter()
            .map(|c| (c.name.to_string(), c.value.as_ref().map(|v| v.to_string())))
            .collect(),
        internal: false,
    };
    let action = Action::CreateTopics {
        topics: body.topics.iter().map(new).collect(),
        validate_only: body.validate_only,
    };
    let waiting = Waiting {
        token: request.token,
        version: request.header.api_version,
        validate_only: body.validate_only,
        names: body.topics.into_iter().map(|t| text(&t.name)).collect(),
    };
    server
        .ops
        .submit(action, ops::Waiting::CreateTopics(waiting));
    Ok(())
}

pub(crate) fn done(server: &mut Server, waiting: Waiting, outcome: Outcome) {
    let one = |(name, item): (StrBytes, Result<Arc<Topic>, Refusal>)| match item {
        Ok(topic) => created(server, &waiting, name, &topic),
        Err(refusal) => {
            let mut result = message!(CreatableTopicResult {
                name: name,
                error_code: refusal.code,
                error_message: Some(text(&refusal.message)),
            });
            if waiting.version >= 5 {
                result.configs = Some(Vec::new());
            }
            result
        }
    };
    // A name that occurs more than once is refused once, as Kafka does.
    let mut names = HashSet::new();
    let topics = waiting
        .names
        .iter()
        .cloned()
        .zip(outcome.0)
        .filter(|(name, _)| names.insert(name.clone()))
        .map(one);
    let response = message!(CreateTopicsResponse {
        topics: topics.collect(),
    });
    server.conns.reply(waiting.token, &response);
}

fn created(
    server: &Server,
    waiting: &Waiting,
    name: StrBytes,
    topic: &Topic,
) -> CreatableTopicResult {
    let mut result = message!(CreatableTopicResult { name: name });
    if waiting.version >= 5 {
        result.num_partitions = topic.partitions;
        result.replication_factor = 1;
        let config = |c: &crate::config::topic::TopicConfig| {
            let own = topic.configs.get(c.name);
            let value = own
                .cloned()
                .unwrap_or_else(|| default_text(&server.env.config, c.name));
            message!(CreatableTopicConfigs {
                name: text(c.name),
                value: Some(text(&value)),
                config_source: super::describe_configs::source(
                    &server.env.config,
                    c.name,
                    own.is_some()
                ),
            })
        };
        result.configs = Some(TOPIC_CONFIGS.iter().map(config).collect());
    }
    if waiting.version >= 7 && !waiting.validate_only {
        result.topic_id = uuid(topic.id);
    }
    result
}
