//! ApiVersions: what is served. The first thing a client asks, in a version it can only guess: an unknown one is
//! answered with error 35 and version 0's body (KIP-511).

use kafka_wire::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_wire::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_engine::shard::ConnId;

use super::Request;
use crate::app::Server;
use crate::message;
use crate::wire::header::{Prefix, RequestHeader};
use crate::wire::versions::{API_VERSIONS, APIS, Api};
use crate::wire::{Malformed, error};

/// Features and their levels (KIP-584), by which clients and tools decide what a broker can do: groups of the consumer
/// protocol (KIP-848), and transactions of the second generation, whose every end raises the producer's epoch (KIP-890).
const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("transaction.version", 2)];

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: ApiVersionsRequest = request.decode()?;
    let named = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(inner)
    };
    let invalid = request.header.api_version >= 3
        && !(named(&body.client_software_name) && named(&body.client_software_version));
    let response = if invalid {
        message!(ApiVersionsResponse {
            error_code: error::INVALID_REQUEST
        })
    } else {
        message!(ApiVersionsResponse {
            api_keys: APIS.iter().map(entry).collect(),
            supported_features: FEATURES.iter().map(supported).collect(),
            finalized_features_epoch: 0,
            finalized_features: FEATURES.iter().map(finalized).collect(),
        })
    };
    server.conns.reply(request.token, &response);
    Ok(())
}

fn supported((name, level): &(&str, i16)) -> SupportedFeatureKey {
    message!(SupportedFeatureKey {
        name: (*name).into(),
        min_version: 0,
        max_version: *level,
    })
}

fn finalized((name, level): &(&str, i16)) -> FinalizedFeatureKey {
    message!(FinalizedFeatureKey {
        name: (*name).into(),
        max_version_level: *level,
        min_version_level: *level,
    })
}

fn entry(api: &Api) -> ApiVersion {
    message!(ApiVersion {
        api_key: api.key,
        min_version: api.advertised_min,
        max_version: api.max,
    })
}

/// Answers a request in a version that is not served.
pub(crate) fn unsupported(server: &mut Server, id: ConnId, prefix: Prefix) {
    let header = RequestHeader {
        api_key: API_VERSIONS,
        api_version: 0,
        correlation_id: prefix.correlation_id,
        client_id: None,
    };
    let own = APIS.iter().filter(|api| api.key == API_VERSIONS);
    let response = message!(ApiVersionsResponse {
        error_code: error::UNSUPPORTED_VERSION,
        api_keys: own.map(entry).collect(),
    });
    if let Some(token) = server.conns.begin(id, &header) {
        server.conns.reply(token, &response);
    }
}
