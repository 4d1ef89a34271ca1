//! ListConfigResources (KIP-1142): what there is that has settings of its own. Version 0 asks for subscriptions of
//! client metrics alone, of which there are none.

use kafka_wire::list_config_resources_response::ConfigResource;
use kafka_wire::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::describe_configs::{BROKER, TOPIC};
use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

/// Kinds of resources that have none here (`ConfigResource.Type`): broker loggers, client metrics, groups.
const EMPTY: [i8; 3] = [8, 16, 32];

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: ListConfigResourcesRequest = request.decode()?;
    let asked = |kind: i8| body.resource_types.is_empty() || body.resource_types.contains(&kind);
    let known = |kind: &i8| [TOPIC, BROKER].contains(kind) || EMPTY.contains(kind);
    let mut response = message!(ListConfigResourcesResponse {});
    if !body.resource_types.iter().all(known) {
        response.error_code = error::UNSUPPORTED_VERSION;
    } else if request.header.api_version >= 1 {
        let resource = |kind: i8, name: &str| {
            message!(ConfigResource {
                resource_name: text(name),
                resource_type: kind,
            })
        };
        if asked(TOPIC) {
            let topics = server.catalog.topics();
            let topics = topics.iter().map(|topic| resource(TOPIC, &topic.name));
            response.config_resources.extend(topics);
        }
        if asked(BROKER) {
            let brokers = (0..server.env.shards).map(|node| resource(BROKER, &node.to_string()));
            response.config_resources.extend(brokers);
        }
    }
    server.conns.reply(request.token, &response);
    Ok(())
}
