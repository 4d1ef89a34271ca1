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

/// The feature by which clients decide how transactions are done (KIP-584, KIP-890).
const TRANSACTION_VERSION: &str = "transaction.version";
/// The second generation: every end of a transaction raises the producer's epoch.
const TRANSACTION_GENERATION: i16 = 2;

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
            supported_features: vec![message!(SupportedFeatureKey {
                name: TRANSACTION_VERSION.into(),
                min_version: 0,
                max_version: TRANSACTION_GENERATION,
            })],
            finalized_features_epoch: 0,
            finalized_features: vec![message!(FinalizedFeatureKey {
                name: TRANSACTION_VERSION.into(),
                max_version_level: TRANSACTION_GENERATION,
                min_version_level: TRANSACTION_GENERATION,
            })],
        })
    };
    server.conns.reply(request.token, &response);
    Ok(())
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
