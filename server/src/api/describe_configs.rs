//! DescribeConfigs for topics and brokers: every setting with its value and where that comes from.

use hashbrown::{HashMap, HashSet};
use kafka_wire::describe_configs_request::DescribeConfigsResource;
use kafka_wire::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_wire::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Request, text};
use crate::app::Server;
use crate::config::topic::{ConfigType, TOPIC_CONFIGS, default_text};
use crate::config::{BROKER_CONFIGS, Config};
use crate::message;
use crate::wire::{Malformed, error};

/// Kinds of resources (`ConfigResource.Type`).
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

/// Where a value comes from (`ConfigSource`).
const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Where the value of topic setting `name` comes from.
pub(crate) fn source(config: &Config, name: &str, own: bool) -> i8 {
    if own {
        DYNAMIC_TOPIC
    } else if config.topic_default_is_set(name) {
        STATIC_BROKER
    } else {
        DEFAULT
    }
}

/// One setting, before it is cut to what the request asks for.
struct Setting<'a> {
    name: &'a str,
    value: String,
    source: i8,
    read_only: bool,
    kind: ConfigType,
    doc: &'a str,
    /// Name and value of the default it overrides.
    fallback: Option<(&'a str, String, i8)>,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: DescribeConfigsRequest = request.decode()?;
    let resources = each_once(&body.resources);
    let results = resources
        .iter()
        .map(|wanted| describe(server, &body, wanted));
    let response = message!(DescribeConfigsResponse {
        results: results.collect(),
    });
    server.conns.reply(request.token, &response);
    Ok(())
}

/// A resource, and the settings that are asked for.
struct Wanted<'a> {
    kind: i8,
    name: &'a str,
    /// `None` for all.
    keys: Option<HashSet<&'a str>>,
}

/// Each resource once, with what all its mentions ask for: its settings take a thousand times the room of its name.
fn each_once(resources: &[DescribeConfigsResource]) -> Vec<Wanted<'_>> {
    let mut places = HashMap::new();
    let mut all: Vec<Wanted<'_>> = Vec::new();
    for resource in resources {
        let (kind, name) = (resource.resource_type, &*resource.resource_name);
        let place = *places.entry((kind, name)).or_insert_with(|| {
            let keys = Some(HashSet::new());
            all.push(Wanted { kind, name, keys });
            all.len() - 1
        });
        let keys = &mut all[place].keys;
        match (&resource.configuration_keys, &mut *keys) {
            // An empty list has meant "all" in every broker.
            (Some(more), Some(known)) if !more.is_empty() => {
                known.extend(more.iter().map(|k| &**k))
            }
            _ => *keys = None,
        }
    }
    all
}

fn describe(
    server: &Server,
    request: &DescribeConfigsRequest,
    wanted: &Wanted<'_>,
) -> DescribeConfigsResult {
    let settings = match wanted.kind {
        TOPIC => topic(server, wanted.name),
        BROKER => broker(server, wanted.name),
        _ => Err((
            error::INVALID_REQUEST,
            "only topics and brokers have settings",
        )),
    };
    let mut result = message!(DescribeConfigsResult {
        resource_type: wanted.kind,
        resource_name: text(wanted.name),
    });
    match settings {
        Ok(settings) => {
            let keys = wanted.keys.as_ref();
            let asked = |s: &Setting<'_>| keys.is_none_or(|keys| keys.contains(s.name));
            let settings = settings.into_iter().filter(asked);
            result.configs = settings.map(|s| entry(request, s)).collect();
        }
        Err((code, why)) => {
            result.error_code = code;
            result.error_message = Some(text(why));
        }
    }
    result
}

fn entry(request: &DescribeConfigsRequest, setting: Setting<'_>) -> DescribeConfigsResourceResult {
    let mut synonyms = Vec::new();
    if request.include_synonyms {
        let synonym = |name: &str, value: &str, source| {
            message!(DescribeConfigsSynonym {
                name: text(name),
                value: Some(text(value)),
                source: source,
            })
        };
        synonyms.push(synonym(setting.name, &setting.value, setting.source));
        if let Some((name, value, source)) = &setting.fallback {
            synonyms.push(synonym(name, value, *source));
        }
    }
    message!(DescribeConfigsResourceResult {
        name: text(setting.name),
        value: Some(text(&setting.value)),
        read_only: setting.read_only,
        config_source: setting.source,
        synonyms: synonyms,
        config_type: setting.kind as i8,
        documentation: request.include_documentation.then(|| text(setting.doc)),
    })
}

fn topic<'a>(server: &Server, name: &str) -> Result<Vec<Setting<'a>>, (i16, &'static str)> {
    let Some(topic) = server.catalog.topic(name) else {
        return Err((
            error::UNKNOWN_TOPIC_OR_PARTITION,
            "the topic does not exist",
        ));
    };
    let config = &server.env.config;
    let setting = |c: &'static crate::config::topic::TopicConfig| {
        let own = topic.configs.get(c.name);
        let default = default_text(config, c.name);
        let fallback = (c.name, default.clone(), source(config, c.name, false));
        Setting {
            name: c.name,
            value: own.cloned().unwrap_or(default),
            source: source(config, c.name, own.is_some()),
            read_only: false,
            kind: c.kind(),
            doc: c.doc,
            fallback: own.is_some().then_some(fallback),
        }
    };
    Ok(TOPIC_CONFIGS.iter().map(setting).collect())
}

fn broker<'a>(server: &Server, name: &str) -> Result<Vec<Setting<'a>>, (i16, &'static str)> {
    // One spelling each, so that a broker is one resource.
    let is_ours = |node: &u32| *node < server.env.shards && node.to_string() == name;
    let node = name.parse::<u32>().ok().filter(is_ours);
    if node.is_none() && !name.is_empty() {
        return Err((error::INVALID_REQUEST, "there is no such broker"));
    }
    if name.is_empty() {
        // Dynamic defaults of the cluster: there are none.
        return Ok(Vec::new());
    }
    let config = &server.env.config;
    let setting = |c: &'static crate::config::BrokerConfig| {
        let set = config.is_set(c.name);
        Setting {
            name: c.name,
            value: config.text(c.name).to_owned(),
            source: if set { STATIC_BROKER } else { DEFAULT },
            read_only: true,
            kind: c.kind,
            doc: c.doc,
            fallback: set.then(|| (c.name, c.default.to_owned(), DEFAULT)),
        }
    };
    Ok(BROKER_CONFIGS.iter().map(setting).collect())
}
