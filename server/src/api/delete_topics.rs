//! DeleteTopics, by name or, from version 6, by id.

use kafka_wire::delete_topics_response::DeletableTopicResult;
use kafka_wire::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{Request, text};
use crate::app::Server;
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::wire::{Malformed, StrBytes, error, topic_id, uuid};

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
    let wanted: Vec<(Option<StrBytes>, kafka_wire_core::Uuid)> = if version >= 6 {
        let topics = body.topics.into_iter();
        topics.map(|t| (t.name, t.topic_id)).collect()
    } else {
        let names = body.topic_names.into_iter();
        names.map(|n| (Some(n), Default::default())).collect()
    };
    let (mut results, mut asked, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (name, id) in wanted {
        let found = match &name {
            Some(_) if !id.is_zero() => Err(error::INVALID_REQUEST),
            None if id.is_zero() => Err(error::INVALID_REQUEST),
            Some(name) => {
                let topic = server.catalog.topic(name);
                topic.ok_or(error::UNKNOWN_TOPIC_OR_PARTITION)
            }
            None => {
                let topic = server.catalog.topic_by_id(topic_id(id));
                topic.ok_or(error::UNKNOWN_TOPIC_ID)
            }
        };
        let found = found.and_then(|topic| {
            if !server.env.config.delete_topics {
                return Err(error::TOPIC_DELETION_DISABLED);
            }
            Ok(topic.clone())
        });
        let mut result = message!(DeletableTopicResult {
            name: name.as_ref().map(|n| text(n)),
        });
        match found {
            Ok(topic) if ids.contains(&topic.id) => result.error_code = error::INVALID_REQUEST,
            Ok(topic) => {
                result.name = Some(text(&topic.name));
                if version >= 6 {
                    result.topic_id = uuid(topic.id);
                }
                asked.push(results.len());
                ids.push(topic.id);
            }
            Err(code) => {
                result.error_code = code;
                if version >= 6 {
                    result.topic_id = id;
                }
            }
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
