//! CreatePartitions.

use hashbrown::HashSet;
use kafka_wire::create_partitions_response::CreatePartitionsTopicResult;
use kafka_wire::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Request, text};
use crate::app::Server;
use crate::catalog::action::NewPartitions;
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::wire::{Malformed, StrBytes};

/// A request on its way through the catalog.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    names: Vec<StrBytes>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: CreatePartitionsRequest = request.decode()?;
    let new = |t: &kafka_wire::create_partitions_request::CreatePartitionsTopic| NewPartitions {
        name: t.name.to_string(),
        count: t.count,
        assignments: t
            .assignments
            .as_ref()
            .map(|all| all.iter().map(|a| a.broker_ids.clone()).collect()),
    };
    let action = Action::CreatePartitions {
        topics: body.topics.iter().map(new).collect(),
        validate_only: body.validate_only,
    };
    let waiting = Waiting {
        token: request.token,
        names: body.topics.iter().map(|t| text(&t.name)).collect(),
    };
    server
        .ops
        .submit(action, ops::Waiting::CreatePartitions(waiting));
    Ok(())
}

pub(crate) fn done(server: &mut Server, waiting: Waiting, outcome: Outcome) {
    // A name that occurs more than once is refused once, as Kafka does.
    let mut names = HashSet::new();
    let items = waiting.names.into_iter().zip(outcome.0);
    let items = items.filter(|(name, _)| names.insert(name.clone()));
    let results = items.map(|(name, item)| match item {
        Ok(_) => message!(CreatePartitionsTopicResult { name: name }),
        Err(refusal) => message!(CreatePartitionsTopicResult {
            name: name,
            error_code: refusal.code,
            error_message: Some(text(&refusal.message)),
        }),
    });
    let response = message!(CreatePartitionsResponse {
        results: results.collect(),
    });
    server.conns.reply(waiting.token, &response);
}
