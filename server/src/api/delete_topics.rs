//! DeleteTopics, by name or, from version 6, by id.

use std::sync::Arc;

use hashbrown::HashSet;
use kafka_wire::delete_topics_response::DeletableTopicResult;
use kafka_wire::{DeleteTopicsRequest, DeleteTopicsResponse};
use kafka_wire_core::Uuid;

use super::{Request, text};
use crate::app::Server;
use crate::catalog::Topic;
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::repeats::repeated;
use crate::wire::{Malformed, StrBytes, error, topic_id, uuid};

/// A topic as a request names it: by name or by id.
type Wanted = (Option<StrBytes>, Uuid);

/// A request on its way through the catalog.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    /// Results in the request's order; those still at the catalog have no error yet.
    results: Vec<DeletableTopicResult>,
    /// Which of them are at the catalog.
    asked: Vec<usize>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: DeleteTopicsRequest = request.decode()?;
    let version = request.header.api_version;
    let wanted: Vec<Wanted> = if version >= 6 {
        let topics = body.topics.into_iter();
        topics.map(|t| (t.name, t.topic_id)).collect()
    } else {
        let names = body.topic_names.into_iter();
        names.map(|n| (Some(n), Default::default())).collect()
    };
    let found: Vec<_> = wanted.iter().map(|w| find(server, w)).collect();
    let twice = repeated(wanted.iter());
    let topics_twice = repeated(found.iter().flatten().map(|topic| topic.id));
    let mut answered = HashSet::new();
    let (mut results, mut asked, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (wanted, found) in wanted.iter().zip(found) {
        if !answered.insert(wanted) {
            continue;
        }
        let (name, id) = wanted;
        let mut result = message!(DeletableTopicResult { name: name.clone() });
        if version >= 6 {
            result.topic_id = *id;
        }
        // Which of several mentions is meant cannot be known, so the topic stays, as in Kafka: by name and id as well.
        let is_repeated = match &found {
            Ok(topic) => topics_twice.contains(&topic.id),
            Err(_) => twice.contains(wanted),
        };
        match found {
            _ if is_repeated => result.error_code = error::INVALID_REQUEST,
            Ok(topic) => {
                result.name = Some(text(&topic.name));
                if version >= 6 {
                    result.topic_id = uuid(topic.id);
                }
                asked.push(results.len());
                ids.push(topic.id);
            }
            Err(code) => result.error_code = code,
        }
        results.push(result);
    }
    let waiting = Waiting {
        token: request.token,
        results,
        asked,
    };
    if ids.is_empty() {
        done(server, waiting, Outcome(Vec::new()));
    } else {
        let action = Action::DeleteTopics(ids);
        server
            .ops
            .submit(action, ops::Waiting::DeleteTopics(waiting));
    }
    Ok(())
}

/// The topic that is meant, or Kafka's error code.
fn find(server: &Server, (name, id): &Wanted) -> Result<Arc<Topic>, i16> {
    let catalog = &server.catalog;
    let topic = match name {
        Some(_) if !id.is_zero() => return Err(error::INVALID_REQUEST),
        None if id.is_zero() => return Err(error::INVALID_REQUEST),
        Some(name) => catalog
            .topic(name)
            .ok_or(error::UNKNOWN_TOPIC_OR_PARTITION)?,
        None => {
            let topic = catalog.topic_by_id(topic_id(*id));
            topic.ok_or(error::UNKNOWN_TOPIC_ID)?
        }
    };
    if !server.env.config.delete_topics {
        return Err(error::TOPIC_DELETION_DISABLED);
    }
    Ok(topic.clone())
}

pub(crate) fn done(server: &mut Server, mut waiting: Waiting, outcome: Outcome) {
    for (at, item) in waiting.asked.iter().zip(outcome.0) {
        if let Err(refusal) = item {
            waiting.results[*at].error_code = refusal.code;
        }
    }
    let response = message!(DeleteTopicsResponse {
        responses: waiting.results,
    });
    server.conns.reply(waiting.token, &response);
}
