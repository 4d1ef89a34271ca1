//! FindCoordinator: the broker that a group's members must turn to. The offsets topic is created when it is first
//! needed; the response then waits until every shard knows it.

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
use crate::wire::{Malformed, StrBytes, error};

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

/// A request that waits for the offsets topic.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    version: i16,
    keys: Vec<StrBytes>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: FindCoordinatorRequest = request.decode()?;
    let version = request.header.api_version;
    let keys = match version {
        ..4 => vec![body.key],
        _ => body.coordinator_keys,
    };
    let is_group = body.key_type == KEY_GROUP;
    if is_group && server.catalog.topic(OFFSETS_TOPIC).is_none() {
        let topic = NewTopic {
            name: OFFSETS_TOPIC.to_owned(),
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
            keys,
        };
        let waiting = ops::Waiting::FindCoordinator(waiting);
        server.ops.submit(action, waiting);
        return Ok(());
    }
    answer(server, request.token, version, body.key_type, keys);
    Ok(())
}

/// The offsets topic is created, or refused.
pub(crate) fn done(server: &mut Server, waiting: Waiting, outcome: Outcome) {
    for refusal in outcome.0.iter().filter_map(|item| item.as_ref().err()) {
        // Another client was quicker.
        if refusal.code != error::TOPIC_ALREADY_EXISTS {
            tracing::error!(
                reason = refusal.message,
                "{OFFSETS_TOPIC} cannot be created"
            );
        }
    }
    let Waiting {
        token,
        version,
        keys,
    } = waiting;
    answer(server, token, version, KEY_GROUP, keys);
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
    let node = match key_type {
        KEY_GROUP => server.catalog.topic(OFFSETS_TOPIC).and_then(|topic| {
            let key = topic.key(partition_of(&key, topic.partitions))?;
            Some(key.shard(env.shards))
        }),
        // No broker coordinates transactions; each would say so.
        KEY_TRANSACTION => Some(partition_of(&key, env.shards as i32) as u32),
        _ => {
            let why = format!("there are no coordinators of key type {key_type}");
            return nobody(key, error::INVALID_REQUEST, &why);
        }
    };
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
