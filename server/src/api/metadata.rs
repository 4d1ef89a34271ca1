//! Metadata: brokers, topics and who leads their partitions. Topics asked for by name are created when both the
//! broker and the request allow it; the response then waits until every shard knows them.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_wire::{MetadataRequest, MetadataResponse};
use ringlog_engine::shard::Cx;

use super::{Request, no_such_topic, text};
use crate::app::{Env, Server};
use crate::catalog::action::{NewTopic, Refusal};
use crate::catalog::{Topic, name};
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::wire::{Malformed, error, topic_id, uuid};

/// A request whose topics are being created.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    version: i16,
    request: MetadataRequest,
    created: Vec<String>,
}

pub(crate) fn handle(
    server: &mut Server,
    _cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let mut body: MetadataRequest = request.decode()?;
    if let Some(topics) = &mut body.topics {
        each_once(topics);
    }
    let version = request.header.api_version;
    let may_create =
        server.env.config.auto_create_topics && (version < 4 || body.allow_auto_topic_creation);
    // Each name is there once by now.
    let mut missing: Vec<String> = Vec::new();
    if may_create {
        for topic in body.topics.iter().flatten() {
            if let Some(name) = &topic.name
                && name::invalid(name).is_none()
                && server.catalog.topic(name).is_none()
            {
                missing.push(name.to_string());
            }
        }
    }
    if missing.is_empty() {
        answer(server, request.token, version, &body, &HashMap::new());
        return Ok(());
    }
    let create = |name: &String| NewTopic {
        name: name.clone(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    };
    let action = Action::CreateTopics {
        topics: missing.iter().map(create).collect(),
        validate_only: false,
    };
    let waiting = Waiting {
        token: request.token,
        version,
        request: body,
        created: missing,
    };
    server.ops.submit(action, ops::Waiting::Metadata(waiting));
    Ok(())
}

/// Names and ids are sets, as in Kafka: a topic with its partitions takes thousands of times the room of its name.
fn each_once(topics: &mut Vec<MetadataRequestTopic>) {
    let mut seen = HashSet::new();
    topics.retain(|topic| {
        // Where there is a name, nobody looks at the id.
        let id = topic.name.is_none().then_some(topic.topic_id);
        seen.insert((topic.name.clone(), id))
    });
}

/// The topics are created, or refused.
pub(crate) fn done(server: &mut Server, _cx: &mut Cx<'_>, waiting: Waiting, outcome: Outcome) {
    let mut refused: HashMap<&str, Refusal> = HashMap::new();
    for (name, item) in waiting.created.iter().zip(outcome.0) {
        match item {
            // Another client was quicker.
            Err(r) if r.code == error::TOPIC_ALREADY_EXISTS => {}
            Err(r) => drop(refused.insert(name, r)),
            Ok(_) => {}
        }
    }
    let (token, version) = (waiting.token, waiting.version);
    answer(server, token, version, &waiting.request, &refused);
}

fn answer(
    server: &mut Server,
    token: Token,
    version: i16,
    request: &MetadataRequest,
    refused: &HashMap<&str, Refusal>,
) {
    let env = &server.env;
    let catalog = &server.catalog;
    // Version 0 has no null: it says "all" by an empty list.
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let topics = if all {
        let all = catalog.topics();
        all.iter().map(|t| found(env, t)).collect()
    } else {
        let one = |t: &MetadataRequestTopic| {
            let known = match &t.name {
                Some(name) => catalog.topic(name),
                None => catalog.topic_by_id(topic_id(t.topic_id)),
            };
            match (known, &t.name) {
                (Some(topic), _) => found(env, topic),
                (None, Some(name)) => message!(MetadataResponseTopic {
                    error_code: absent(name, refused),
                    name: Some(text(name)),
                }),
                (None, None) => message!(MetadataResponseTopic {
                    error_code: error::UNKNOWN_TOPIC_ID,
                    // Only version 12 can leave the name out.
                    name: (version < 12).then(|| text("")),
                    topic_id: t.topic_id,
                }),
            }
        };
        request.topics.iter().flatten().map(one).collect()
    };
    let response = message!(MetadataResponse {
        brokers: brokers(env),
        cluster_id: Some(text(&env.cluster_id)),
        controller_id: 0,
        topics: topics,
    });
    server.conns.reply(token, &response);
}

fn absent(name: &str, refused: &HashMap<&str, Refusal>) -> i16 {
    let refusal = refused.get(name);
    refusal.map_or_else(|| no_such_topic(name), |refusal| refusal.code)
}

fn brokers(env: &Env) -> Vec<MetadataResponseBroker> {
    let broker = |node: u32| {
        message!(MetadataResponseBroker {
            node_id: node as i32,
            host: text(&env.config.advertise),
            port: env.port(node),
        })
    };
    (0..env.shards).map(broker).collect()
}

fn found(env: &Env, topic: &Arc<Topic>) -> MetadataResponseTopic {
    let partition = |key: ringlog_engine::id::PartitionKey| {
        let leader = key.shard(env.shards) as i32;
        message!(MetadataResponsePartition {
            partition_index: key.partition,
            leader_id: leader,
            leader_epoch: env.run.leader_epoch,
            replica_nodes: vec![leader],
            isr_nodes: vec![leader],
        })
    };
    message!(MetadataResponseTopic {
        name: Some(text(&topic.name)),
        topic_id: uuid(topic.id),
        is_internal: topic.internal,
        partitions: topic.keys(0).map(partition).collect(),
    })
}
