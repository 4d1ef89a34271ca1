//! AlterConfigs and IncrementalAlterConfigs, for topics. Broker settings come from the command line and the
//! settings file alone.

use kafka_wire::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};

use super::describe_configs::{BROKER, TOPIC};
use super::{Request, text};
use crate::app::Server;
use crate::catalog::action::{ConfigOp, ConfigOpKind, NewConfigs, Refusal};
use crate::conn::Token;
use crate::control::{Action, Outcome};
use crate::message;
use crate::ops;
use crate::repeats::repeated;
use crate::wire::{Malformed, StrBytes, error};

/// A request on its way through the catalog.
#[derive(Debug)]
pub struct Waiting {
    token: Token,
    incremental: bool,
    resources: Vec<Resource>,
}

/// One resource of a request, with its outcome if it is not for the catalog.
#[derive(Debug)]
struct Resource {
    kind: i8,
    name: StrBytes,
    settled: Option<Result<(), Refusal>>,
}

pub(crate) fn replace(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: AlterConfigsRequest = request.decode()?;
    let set = |c: &kafka_wire::alter_configs_request::AlterableConfig| ConfigOp {
        name: c.name.to_string(),
        // Null is the default.
        kind: match c.value {
            Some(_) => ConfigOpKind::Set,
            None => ConfigOpKind::Delete,
        },
        value: c.value.as_ref().map(|v| v.to_string()),
    };
    let resources = body.resources.iter().map(|r| {
        let ops = r.configs.iter().map(set).collect();
        (r.resource_type, &r.resource_name, Some(ops))
    });
    submit(server, request.token, false, body.validate_only, resources);
    Ok(())
}

pub(crate) fn incremental(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: IncrementalAlterConfigsRequest = request.decode()?;
    let op = |c: &kafka_wire::incremental_alter_configs_request::AlterableConfig| {
        Some(ConfigOp {
            name: c.name.to_string(),
            kind: match c.config_operation {
                0 => ConfigOpKind::Set,
                1 => ConfigOpKind::Delete,
                2 => ConfigOpKind::Append,
                3 => ConfigOpKind::Subtract,
                _ => return None,
            },
            value: c.value.as_ref().map(|v| v.to_string()),
        })
    };
    let resources = body.resources.iter().map(|r| {
        let ops: Option<Vec<_>> = r.configs.iter().map(op).collect();
        (r.resource_type, &r.resource_name, ops)
    });
    submit(server, request.token, true, body.validate_only, resources);
    Ok(())
}

fn submit<'a>(
    server: &mut Server,
    token: Token,
    incremental: bool,
    validate_only: bool,
    wanted: impl Iterator<Item = (i8, &'a StrBytes, Option<Vec<ConfigOp>>)>,
) {
    let wanted: Vec<_> = wanted.collect();
    let twice = repeated(wanted.iter().map(|(kind, name, _)| (*kind, *name)));
    let (mut resources, mut topics) = (Vec::new(), Vec::new());
    for (kind, name, ops) in wanted {
        let refuse = |why| Some(Err(Refusal::new(error::INVALID_REQUEST, why)));
        let settled = match (kind, ops) {
            _ if twice.contains(&(kind, name)) => {
                refuse("the resource occurs more than once in the request")
            }
            (TOPIC | BROKER, Some(ops)) if !repeated(ops.iter().map(|op| &*op.name)).is_empty() => {
                refuse("a setting occurs more than once in the resource")
            }
            (TOPIC, Some(ops)) => {
                topics.push(NewConfigs {
                    name: name.to_string(),
                    replace: !incremental,
                    ops,
                });
                None
            }
            (TOPIC | BROKER, None) => refuse("unknown kind of change"),
            // Nothing is set while a broker runs, so what is to go is gone; kafka-reassign-partitions clears throttles so.
            (BROKER, Some(ops)) if incremental && ops.iter().all(is_delete) => Some(Ok(())),
            (BROKER, _) => refuse("broker settings are set at start: --set or --config"),
            _ => refuse("only topics and brokers have settings"),
        };
        resources.push(Resource {
            kind,
            name: text(name),
            settled,
        });
    }
    let waiting = Waiting {
        token,
        incremental,
        resources,
    };
    let action = Action::AlterConfigs {
        topics,
        validate_only,
    };
    server
        .ops
        .submit(action, ops::Waiting::AlterConfigs(waiting));
}

fn is_delete(op: &ConfigOp) -> bool {
    matches!(op.kind, ConfigOpKind::Delete)
}

pub(crate) fn done(server: &mut Server, waiting: Waiting, outcome: Outcome) {
    let mut outcomes = outcome.0.into_iter();
    let results = waiting.resources.into_iter().map(|resource| {
        let refusal = match resource.settled {
            Some(settled) => settled.err(),
            None => outcomes.next().and_then(Result::err),
        };
        (resource.kind, resource.name, refusal)
    });
    let code = |refusal: &Option<Refusal>| refusal.as_ref().map_or(error::NONE, |r| r.code);
    let why = |refusal: Option<Refusal>| refusal.map(|r| text(&r.message));
    if waiting.incremental {
        let responses = results.map(|(kind, name, refusal)| {
            message!(
                incremental_alter_configs_response::AlterConfigsResourceResponse {
                    error_code: code(&refusal),
                    error_message: why(refusal),
                    resource_type: kind,
                    resource_name: name,
                }
            )
        });
        let response = message!(IncrementalAlterConfigsResponse {
            responses: responses.collect(),
        });
        server.conns.reply(waiting.token, &response);
    } else {
        let responses = results.map(|(kind, name, refusal)| {
            message!(alter_configs_response::AlterConfigsResourceResponse {
                error_code: code(&refusal),
                error_message: why(refusal),
                resource_type: kind,
                resource_name: name,
            })
        });
        let response = message!(AlterConfigsResponse {
            responses: responses.collect(),
        });
        server.conns.reply(waiting.token, &response);
    }
}
