//! FindCoordinator: the broker that a group's members or a transactional producer must turn to. The internal topic is created
//! when it is first needed; the response then waits until every shard knows it.

use kafka_wire::find_coordinator_response::Coordinator;
use kafka_wire::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Request, text};
use crate::app::Server;
use crate::catalog::action::NewTopic;
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::groups::{OFFSETS_TOPIC, partition_of};
use crate::message;
use crate::ops;
use crate::txn::STATE_TOPIC;
use crate::wire::{Malformed, StrBytes, error};

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

/// A request that waits for an internal topic.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    version: i16,
    key_type: i8,
    keys: Vec<StrBytes>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: FindCoordinatorRequest = request.decode()?;
    let version = request.header.api_version;
    let keys = match version {
        ..4 => vec![body.key],
        _ => body.coordinator_keys,
    };
    let missing = topic_of(body.key_type).filter(|name| server.catalog.topic(name).is_none());
    if let Some(name) = missing {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: -1,
            replication_factor: -1,
            ..NewTopic::default()
        };
        let action = Action::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        let waiting = Waiting {
            token: request.token,
            version,
            key_type: body.key_type,
            keys,
        };
        let waiting = ops::Waiting::FindCoordinator(waiting);
        server.ops.submit(action, waiting);
        return Ok(());
    }
    answer(server, request.token, version, body.key_type, keys);
    Ok(())
}

/// The internal topic is created, or refused.
pub(crate) fn done(server: &mut Server, waiting: Waiting, outcome: Outcome) {
    for refusal in outcome.0.iter().filter_map(|item| item.as_ref().err()) {
        // Another client was quicker.
        if refusal.code != error::TOPIC_ALREADY_EXISTS {
            let name = topic_of(waiting.key_type).unwrap_or_default();
            tracing::error!(reason = refusal.message, "{name} cannot be created");
        }
    }
    let Waiting {
        token,
        version,
        key_type,
        keys,
    } = waiting;
    answer(server, token, version, key_type, keys);
}

/// The internal topic whose partitions decide who coordinates.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        KEY_GROUP => Some(OFFSETS_TOPIC),
        KEY_TRANSACTION => Some(STATE_TOPIC),
        _ => None,
    }
}

fn answer(server: &mut Server, token: Token, version: i16, key_type: i8, keys: Vec<StrBytes>) {
    let mut found = keys.into_iter().map(|key| find(server, key_type, key));
    let response = if version >= 4 {
        message!(FindCoordinatorResponse {
            coordinators: found.collect(),
        })
    } else {
        let found = found.next().unwrap_or_default();
        message!(FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: found.error_message,
            node_id: found.node_id,
            host: found.host,
            port: found.port,
        })
    };
    server.conns.reply(token, &response);
}

fn find(server: &Server, key_type: i8, key: StrBytes) -> Coordinator {
    let env = &server.env;
    let Some(name) = topic_of(key_type) else {
        let why = format!("there are no coordinators of key type {key_type}");
        return nobody(key, error::INVALID_REQUEST, &why);
    };
    let node = server.catalog.topic(name).and_then(|topic| {
        let key = topic.key(partition_of(&key, topic.partitions))?;
        Some(key.shard(env.shards))
    });
    match node {
        Some(node) => message!(Coordinator {
            key: key,
            node_id: node as i32,
            host: text(&env.config.advertise),
            port: env.port(node),
        }),
        None => nobody(
            key,
            error::COORDINATOR_NOT_AVAILABLE,
            "the coordinator is not available",
        ),
    }
}

fn nobody(key: StrBytes, code: i16, why: &str) -> Coordinator {
    message!(Coordinator {
        key: key,
        error_code: code,
        error_message: Some(text(why)),
        node_id: -1,
        port: -1,
    })
}
