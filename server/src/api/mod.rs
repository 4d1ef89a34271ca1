//! One file an API: request in, response now or later.

pub mod alter_configs;
pub mod alter_replica_log_dirs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub(crate) mod groups;
pub mod init_producer_id;
pub mod list_config_resources;
pub mod list_offsets;
pub(crate) mod log;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod reassignments;
pub(crate) mod txn;

use kafka_wire::KafkaRequest;
use ringlog_engine::core::FetchError;
use ringlog_engine::id::PartitionKey;
use ringlog_engine::shard::Cx;

use crate::app::{Env, Server};
use crate::catalog::{Snapshot, name};
use crate::conn::Token;
use crate::control::Done;
use crate::ops::Waiting;
use crate::wire::header::RequestHeader;
use crate::wire::{self, Malformed, StrBytes, error, versions};

/// A request and the place of its response.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// API, version, client.
    pub header: RequestHeader<'a>,
    /// What follows the header.
    pub body: &'a [u8],
    /// Where the response goes.
    pub token: Token,
}

impl Request<'_> {
    /// Decodes the body with `kafka-wire`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode<M: KafkaRequest>(&self) -> Result<M, Malformed> {
        debug_assert_eq!(M::API_KEY.value(), self.header.api_key);
        wire::decode(self.body, self.header.api_version)
    }
}

/// How far a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// It is answered, or will be without its bytes.
    Done,
    /// It waits for room in the journal and is handled again, with its bytes.
    Parked,
}

/// Whether a request of this API may wait a few milliseconds for others, as those may that come at a rate of their own. A
/// fetch says by what it finds whether it was in a hurry.
pub(crate) fn is_patient(api_key: i16) -> bool {
    matches!(
        api_key,
        versions::OFFSET_COMMIT
            | versions::HEARTBEAT
            | versions::CONSUMER_GROUP_HEARTBEAT
            | versions::FETCH
    )
}

/// Hands a request to its API.
///
/// # Errors
/// [`Malformed`] closes the connection.
pub(crate) fn dispatch(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<Handled, Malformed> {
    match request.header.api_key {
        versions::PRODUCE => return produce::handle(server, cx, request),
        versions::FETCH => fetch::handle(server, cx, request)?,
        versions::LIST_OFFSETS => list_offsets::handle(server, cx, request)?,
        versions::METADATA => metadata::handle(server, cx, request)?,
        versions::API_VERSIONS => api_versions::handle(server, request)?,
        versions::CREATE_TOPICS => create_topics::handle(server, request)?,
        versions::DELETE_TOPICS => delete_topics::handle(server, request)?,
        versions::DELETE_RECORDS => delete_records::handle(server, cx, request)?,
        versions::INIT_PRODUCER_ID => init_producer_id::handle(server, cx, request)?,
        versions::OFFSET_FOR_LEADER_EPOCH => offset_for_leader_epoch::handle(server, cx, request)?,
        versions::DESCRIBE_CONFIGS => describe_configs::handle(server, request)?,
        versions::ALTER_CONFIGS => alter_configs::replace(server, request)?,
        versions::INCREMENTAL_ALTER_CONFIGS => alter_configs::incremental(server, request)?,
        versions::DESCRIBE_LOG_DIRS => describe_log_dirs::handle(server, cx, request)?,
        versions::CREATE_PARTITIONS => create_partitions::handle(server, request)?,
        versions::FIND_COORDINATOR => find_coordinator::handle(server, request)?,
        versions::OFFSET_COMMIT
        | versions::TXN_OFFSET_COMMIT
        | versions::OFFSET_FETCH
        | versions::JOIN_GROUP
        | versions::HEARTBEAT
        | versions::LEAVE_GROUP
        | versions::SYNC_GROUP
        | versions::DESCRIBE_GROUPS
        | versions::LIST_GROUPS
        | versions::DELETE_GROUPS
        | versions::OFFSET_DELETE
        | versions::CONSUMER_GROUP_HEARTBEAT
        | versions::CONSUMER_GROUP_DESCRIBE => groups::handle(server, cx, request)?,
        versions::ADD_PARTITIONS_TO_TXN
        | versions::ADD_OFFSETS_TO_TXN
        | versions::END_TXN
        | versions::WRITE_TXN_MARKERS
        | versions::DESCRIBE_TRANSACTIONS
        | versions::LIST_TRANSACTIONS => txn::handle(server, cx, request)?,
        versions::DESCRIBE_PRODUCERS => describe_producers::handle(server, cx, request)?,
        versions::DESCRIBE_CLUSTER => describe_cluster::handle(server, request)?,
        versions::DESCRIBE_QUORUM => describe_quorum::handle(server, cx, request)?,
        versions::DESCRIBE_TOPIC_PARTITIONS => describe_topic_partitions::handle(server, request)?,
        versions::LIST_CONFIG_RESOURCES => list_config_resources::handle(server, request)?,
        versions::ALTER_PARTITION_REASSIGNMENTS => reassignments::alter(server, request)?,
        versions::LIST_PARTITION_REASSIGNMENTS => reassignments::list(server, request)?,
        versions::ELECT_LEADERS => elect_leaders::handle(server, request)?,
        versions::ALTER_REPLICA_LOG_DIRS => alter_replica_log_dirs::handle(server, request)?,
        other => return Err(Malformed::Decoder(format!("api {other} has no handler"))),
    }
    Ok(Handled::Done)
}

/// Goes on with a request that waited for the catalog.
pub(crate) fn done(server: &mut Server, cx: &mut Cx<'_>, done: Done) {
    match server.ops.take(done.op) {
        Some(Waiting::CreateTopics(waiting)) => create_topics::done(server, waiting, done.outcome),
        Some(Waiting::DeleteTopics(waiting)) => delete_topics::done(server, waiting, done.outcome),
        Some(Waiting::CreatePartitions(waiting)) => {
            create_partitions::done(server, waiting, done.outcome);
        }
        Some(Waiting::AlterConfigs(waiting)) => alter_configs::done(server, waiting, done.outcome),
        Some(Waiting::FindCoordinator(waiting)) => {
            find_coordinator::done(server, waiting, done.outcome);
        }
        Some(Waiting::Metadata(waiting)) => metadata::done(server, cx, waiting, done.outcome),
        None => tracing::error!(op = done.op, "an outcome that nobody waits for"),
    }
}

/// The key of a partition of this shard.
///
/// # Errors
/// Kafka's error code when it does not exist or lies elsewhere.
pub(crate) fn local(
    env: &Env,
    catalog: &Snapshot,
    topic: &str,
    index: i32,
) -> Result<PartitionKey, i16> {
    let key = catalog
        .topic(topic)
        .and_then(|t| t.key(index))
        .ok_or(error::UNKNOWN_TOPIC_OR_PARTITION)?;
    if key.shard(env.shards) != env.shard {
        return Err(error::NOT_LEADER_OR_FOLLOWER);
    }
    Ok(key)
}

/// Kafka's error code for the name of a topic that is not there.
fn no_such_topic(topic: &str) -> i16 {
    match name::invalid(topic) {
        Some(_) => error::INVALID_TOPIC_EXCEPTION,
        None => error::UNKNOWN_TOPIC_OR_PARTITION,
    }
}

/// Checks the leader epoch that a client believes in, -1 for none. One from the future is refused as Kafka does
/// (`Partition.checkCurrentLeaderEpoch`); older ones are served, since this broker has led all along.
///
/// # Errors
/// Kafka's error code.
pub(crate) fn check_epoch(env: &Env, believed: i32) -> Result<(), i16> {
    if believed > env.run.leader_epoch {
        return Err(error::UNKNOWN_LEADER_EPOCH);
    }
    Ok(())
}

/// Kafka's error code for a failed fetch or look-up.
pub(crate) fn fetch_error(failure: FetchError) -> i16 {
    match failure {
        FetchError::UnknownPartition => error::UNKNOWN_TOPIC_OR_PARTITION,
        FetchError::OutOfRange { .. } => error::OFFSET_OUT_OF_RANGE,
        FetchError::Damaged { .. } => error::CORRUPT_MESSAGE,
        FetchError::Disk(_) => error::KAFKA_STORAGE_ERROR,
        // The client asks again.
        FetchError::Busy => error::NOT_LEADER_OR_FOLLOWER,
    }
}

/// Text for the protocol.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from(text)
}
