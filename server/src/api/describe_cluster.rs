//! DescribeCluster: the brokers without the topics.

use kafka_wire::describe_cluster_response::DescribeClusterBroker;
use kafka_wire::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Request, text};
use crate::app::Server;
use crate::message;
use crate::wire::{Malformed, error};

/// KIP-919: the request asks for brokers, not controllers.
const ENDPOINT_BROKERS: i8 = 1;

pub(crate) fn handle(server: &mut Server, request: &Request<'_>) -> Result<(), Malformed> {
    let body: DescribeClusterRequest = request.decode()?;
    if request.header.api_version >= 1 && body.endpoint_type != ENDPOINT_BROKERS {
        let response = message!(DescribeClusterResponse {
            error_code: error::MISMATCHED_ENDPOINT_TYPE,
            error_message: Some(text("this is a broker's port")),
        });
        server.conns.reply(request.token, &response);
        return Ok(());
    }
    let env = &server.env;
    let broker = |node: u32| {
        message!(DescribeClusterBroker {
            broker_id: node as i32,
            host: text(&env.config.advertise),
            port: env.port(node),
        })
    };
    let response = message!(DescribeClusterResponse {
        cluster_id: text(&env.cluster_id),
        controller_id: 0,
        brokers: (0..env.shards).map(broker).collect(),
    });
    server.conns.reply(request.token, &response);
    Ok(())
}
