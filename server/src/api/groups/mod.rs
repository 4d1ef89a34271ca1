//! Consumer groups: requests of members and administrators, carried to the shard's coordinator, and the log it keeps.

use kafka_wire::TxnOffsetCommitRequest;
use ringlog_engine::core::{FetchData, FetchError, ReadId};
use ringlog_engine::shard::Cx;

use super::Request;
use super::log::{Appends, Loads};
use super::txn::{self, Ask};
use crate::app::{Env, Server};
use crate::catalog::{Change, Snapshot};
use crate::config::Config;
use crate::conn::Token;
use crate::groups::{
    self, Assignor, Call, Coordinator, GroupsConfig, MemberIds, OFFSETS_TOPIC, Response,
    partition_of,
};
use crate::txn::{Add, Origin};
use crate::wire::{Malformed, StrBytes, error, versions};

/// The coordinator and what it waits for.
pub(crate) struct State {
    coordinator: Coordinator,
    appends: Appends,
    loads: Loads,
    /// Whether the partitions that were there at the start are taken on.
    started: bool,
}

impl State {
    pub(crate) fn new(env: &Env, catalog: &Snapshot) -> Self {
        let mut config = groups_config(&env.config);
        if let Some(topic) = catalog.topic(OFFSETS_TOPIC) {
            config.offsets_partitions = topic.partitions;
        }
        let mut ids = MemberIds::new(env.run, env.shard);
        Self {
            coordinator: Coordinator::new(config, move || ids.next()),
            appends: Appends::default(),
            loads: Loads::default(),
            started: false,
        }
    }

    /// When [`turn`] is needed without other input.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        if !self.started {
            return Some(0);
        }
        let deadlines = [self.loads.deadline_ns(), self.coordinator.deadline_ns()];
        deadlines.into_iter().flatten().min()
    }

    /// See [`Coordinator::lingers_until_ns`].
    pub(crate) fn lingers_until_ns(&self) -> Option<u64> {
        self.coordinator.lingers_until_ns()
    }

    /// Whether nothing is on its way to the log.
    pub(crate) fn is_idle(&self) -> bool {
        self.coordinator.is_written()
    }
}

fn groups_config(config: &Config) -> GroupsConfig {
    let number = |name| usize::try_from(config.number(name)).unwrap_or(0);
    let migration = config.text("group.consumer.migration.policy");
    GroupsConfig {
        offsets_partitions: config.number("offsets.topic.num.partitions") as i32,
        initial_rebalance_delay_ms: number("group.initial.rebalance.delay.ms") as u64,
        session_timeout_ms_min: config.number("group.min.session.timeout.ms") as i32,
        session_timeout_ms_max: config.number("group.max.session.timeout.ms") as i32,
        group_size_max: number("group.max.size"),
        consumer_protocol: config
            .names("group.coordinator.rebalance.protocols")
            .contains(&"consumer"),
        consumer_session_timeout_ms: number("group.consumer.session.timeout.ms") as u64,
        consumer_heartbeat_interval_ms: config.number("group.consumer.heartbeat.interval.ms")
            as i32,
        consumer_group_size_max: number("group.consumer.max.size"),
        online_upgrade: matches!(migration, "bidirectional" | "upgrade"),
        online_downgrade: matches!(migration, "bidirectional" | "downgrade"),
        assignors: assignors(config),
        assignment_interval_ms: config.number("group.consumer.assignment.interval.ms"),
        append_linger_ms: config.number("group.coordinator.append.linger.ms"),
        offset_metadata_bytes_max: number("offset.metadata.max.bytes"),
        offsets_retention_ms: config.number("offsets.retention.minutes") * 60_000,
        retention_check_interval_ms: number("offsets.retention.check.interval.ms") as u64,
        ..GroupsConfig::default()
    }
}

/// The assignors of `group.consumer.assignors`, in its order.
fn assignors(config: &Config) -> Vec<Assignor> {
    let names = config.names("group.consumer.assignors").into_iter();
    names.filter_map(Assignor::named).collect()
}

/// Every request that belongs to a group.
pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let peer = server.conns.peer(request.token.conn);
    let host = peer.map_or_else(String::new, |peer| format!("/{}", peer.ip()));
    let call = &Call {
        token: request.token,
        version: request.header.api_version,
        client_id: request.header.client_id.unwrap_or_default(),
        client_host: &host,
    };
    let groups = &mut server.groups.coordinator;
    let catalog = &server.catalog;
    let topic_id = |name: &str, index: i32| Some(catalog.topic(name)?.key(index)?.topic);
    match request.header.api_key {
        versions::OFFSET_COMMIT => {
            let mut body = request.decode()?;
            if call.version >= 10 {
                groups::name_committed(&mut body, &**catalog);
            }
            groups.commit(cx.now, call, &body, topic_id);
        }
        versions::TXN_OFFSET_COMMIT => {
            let body = request.decode()?;
            return commit(server, cx, request, body);
        }
        versions::OFFSET_FETCH if call.version >= 10 => {
            groups.fetch_offsets_by_id(call, request.decode()?, &**catalog);
        }
        versions::OFFSET_FETCH => groups.fetch_offsets(call, &request.decode()?),
        versions::JOIN_GROUP => groups.join(cx.now, call, &request.decode()?, &**catalog),
        versions::HEARTBEAT => groups.heartbeat(cx.now, call, &request.decode()?, &**catalog),
        versions::LEAVE_GROUP => groups.leave(cx.now, call, &request.decode()?, &**catalog),
        versions::SYNC_GROUP => groups.sync(cx.now, call, &request.decode()?, &**catalog),
        versions::DESCRIBE_GROUPS => groups.describe(call, &request.decode()?),
        versions::LIST_GROUPS => groups.list(call, &request.decode()?),
        versions::DELETE_GROUPS => groups.delete(cx.now, call, &request.decode()?),
        versions::CONSUMER_GROUP_HEARTBEAT => {
            groups.consumer_heartbeat(cx.now, call, &request.decode()?, &**catalog);
        }
        versions::CONSUMER_GROUP_DESCRIBE => {
            groups.describe_consumers(call, &request.decode()?, &**catalog);
        }
        versions::OFFSET_DELETE => {
            let exists = |name: &str| catalog.topic(name).is_some();
            groups.delete_offsets(cx.now, call, &request.decode()?, exists);
        }
        other => return Err(Malformed::Decoder(format!("api {other} has no handler"))),
    }
    respond(server);
    Ok(())
}

/// The partition of the offsets topic that a group belongs to, as part of a transaction.
pub(crate) fn partition_for(server: &Server, group_id: &str) -> (StrBytes, i32) {
    let partitions = server.groups.coordinator.partitions();
    (OFFSETS_TOPIC.into(), partition_of(group_id, partitions))
}

/// TxnOffsetCommit: the transaction must have the group's partition. From version 5 on it is added to it here.
/// (KIP-890)
fn commit(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
    body: TxnOffsetCommitRequest,
) -> Result<(), Malformed> {
    let (token, version) = (request.token, request.header.api_version);
    let client_id = request.header.client_id.unwrap_or_default();
    let (topic, index) = partition_for(server, &body.group_id);
    let key = super::local(&server.env, &server.catalog, &topic, index);
    let producers = key.ok().and_then(|key| cx.core.lookup(key));
    let producers = producers.and_then(|part| cx.core.producers(part));
    let has_begun = producers
        .is_some_and(|producers| producers.has_begun(body.producer_id, body.producer_epoch));
    if has_begun || producers.is_none() {
        // If the group is not here, its coordinator says so.
        let call = (token, version, client_id);
        commit_in_transaction(server, cx, call, &body, error::NONE);
        return Ok(());
    }
    let add = Add {
        origin: Origin::Shard { shard: 0, id: 0 },
        transactional_id: body.transactional_id.clone(),
        producer_id: body.producer_id,
        epoch: body.producer_epoch,
        verify_only: version < 5,
        partitions: vec![(topic, index)],
    };
    let ask = Ask::Commit {
        token,
        version,
        client_id: client_id.to_owned(),
        request: Box::new(body),
    };
    txn::ask(server, add, ask);
    Ok(())
}

/// Goes on with a TxnOffsetCommit: the transaction's coordinator has said `code`.
pub(crate) fn commit_in_transaction(
    server: &mut Server,
    cx: &mut Cx<'_>,
    (token, version, client_id): (Token, i16, &str),
    request: &TxnOffsetCommitRequest,
    code: i16,
) {
    let call = &Call {
        token,
        version,
        client_id,
        client_host: "",
    };
    let groups = &mut server.groups.coordinator;
    let catalog = &server.catalog;
    let topic_id = |name: &str, index: i32| Some(catalog.topic(name)?.key(index)?.topic);
    match code {
        error::NONE => groups.commit_in_transaction(cx.now, call, request, topic_id),
        code => {
            let code = match code {
                error::PRODUCER_FENCED => error::INVALID_PRODUCER_EPOCH,
                error::TRANSACTION_ABORTABLE if version < 4 => error::INVALID_TXN_STATE,
                error::CONCURRENT_TRANSACTIONS if version < 5 => {
                    error::COORDINATOR_LOAD_IN_PROGRESS
                }
                error::NOT_COORDINATOR => error::COORDINATOR_NOT_AVAILABLE,
                code => code,
            };
            groups.refuse_in_transaction(call, request, code);
        }
    }
    respond(server);
}

/// A transaction was decided in a partition of the offsets topic.
pub(crate) fn decided(
    server: &mut Server,
    cx: &mut Cx<'_>,
    partition: i32,
    producer_id: i64,
    committed: bool,
) {
    let groups = &mut server.groups.coordinator;
    groups.decided(cx.now, partition, producer_id, committed);
}

/// Once a turn: reads partitions taken on, answers what became durable, lets time pass, writes.
pub(crate) fn turn(server: &mut Server, cx: &mut Cx<'_>) {
    start(server, cx);
    let groups = &mut server.groups;
    groups.loads.turn(cx, &mut groups.coordinator);
    groups.appends.durable(cx, &mut groups.coordinator);
    groups.coordinator.tick(cx.now);
    send(server, cx);
    respond(server);
}

/// The catalog changed, and the core with it.
pub(crate) fn changed(server: &mut Server, cx: &mut Cx<'_>, change: &Change) {
    match change {
        Change::Created { topic, first } if &*topic.name == OFFSETS_TOPIC => {
            server.groups.coordinator.set_partitions(topic.partitions);
            take_on(server, cx, *first);
        }
        Change::Deleted { topic } => {
            // Another shard may be ahead of this one: the log that is still to be read has the topic's offsets.
            start(server, cx);
            server.groups.coordinator.topic_deleted(cx.now, &topic.name);
        }
        Change::Created { .. } | Change::Configured { .. } => {}
    }
}

/// Takes on, once, the partitions that were there when the process started.
fn start(server: &mut Server, cx: &mut Cx<'_>) {
    if !server.groups.started {
        server.groups.started = true;
        take_on(server, cx, 0);
    }
}

/// Starts to read this shard's partitions of the offsets topic from `first` on.
fn take_on(server: &mut Server, cx: &mut Cx<'_>, first: i32) {
    let groups = &mut server.groups;
    let place = (&*server.catalog, &server.env);
    groups
        .loads
        .take_on(cx.core, place, &mut groups.coordinator, first);
}

/// A read is done. Gives the result back if it was not the coordinator's.
pub(crate) fn fetched(
    server: &mut Server,
    cx: &mut Cx<'_>,
    read: ReadId,
    result: Result<FetchData, FetchError>,
) -> Option<Result<FetchData, FetchError>> {
    let groups = &mut server.groups;
    let coordinator = &mut groups.coordinator;
    groups.loads.fetched(cx, coordinator, read, result)
}

/// The process ends: what came in is still written, who waits for other members is sent elsewhere.
pub(crate) fn end(server: &mut Server, cx: &mut Cx<'_>) {
    server.groups.coordinator.hurry();
    send(server, cx);
    let partitions = 0..server.groups.coordinator.partitions();
    for partition in partitions {
        server.groups.coordinator.disown(cx.now, partition);
    }
    respond(server);
}

fn send(server: &mut Server, cx: &mut Cx<'_>) {
    let (groups, catalog) = (&mut server.groups, &server.catalog);
    groups.appends.send(cx, catalog, &mut groups.coordinator);
}

fn respond(server: &mut Server) {
    while let Some((token, response)) = server.groups.coordinator.next_response() {
        let conns = &mut server.conns;
        match response {
            Response::Join(response) => conns.reply(token, &response),
            Response::Sync(response) => conns.reply(token, &response),
            Response::Heartbeat(response) => conns.reply(token, &response),
            Response::Leave(response) => conns.reply(token, &response),
            Response::Commit(response) => conns.reply(token, &response),
            Response::Fetch(response) => conns.reply(token, &response),
            Response::Describe(response) => conns.reply(token, &response),
            Response::List(response) => conns.reply(token, &response),
            Response::Delete(response) => conns.reply(token, &response),
            Response::OffsetDelete(response) => conns.reply(token, &response),
            Response::TxnCommit(response) => conns.reply(token, &response),
            Response::ConsumerHeartbeat(response) => conns.reply(token, &response),
            Response::ConsumerDescribe(response) => conns.reply(token, &response),
        }
    }
}
