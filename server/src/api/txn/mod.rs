//! Transactions: requests to the shard's coordinator, the log it keeps, and what shards tell each other about it.

mod asks;
mod marks;
mod write_markers;

use std::collections::VecDeque;

use ringlog_engine::core::{FetchData, FetchError, ReadId};
use ringlog_engine::shard::Cx;

use super::Request;
use super::log::{Appends, Loads};
use crate::app::{Env, Mail, Server};
use crate::catalog::{Change, Snapshot};
use crate::config::Config;
use crate::groups::partition_of;
use crate::txn::{Add, Coordinator, Origin, Output, Response, STATE_TOPIC, TxnConfig};
use crate::wire::{Malformed, StrBytes, error, versions};

pub(crate) use asks::{Ask, ask};
use marks::Mark;

/// What shards tell each other.
#[derive(Debug)]
pub enum TxnMail {
    /// A partition is written to: it is to be part of the transaction, or must be already.
    Add(Add),
    /// The answer to it: an error code for each partition.
    Answer {
        /// The asker's number for it.
        id: u64,
        /// Error codes.
        results: Vec<i16>,
    },
    /// Markers to be written.
    Mark(Mark),
    /// They are durable.
    Marked {
        /// The coordinator's number for them.
        job: u64,
    },
}

/// The coordinator and what it waits for.
pub(crate) struct State {
    coordinator: Coordinator,
    appends: Appends,
    loads: Loads,
    marks: marks::Marks,
    asks: asks::Asks,
    requests: write_markers::Requests,
    /// Mail to this shard itself.
    local: VecDeque<TxnMail>,
    /// Whether the partitions that were there at the start are taken on.
    started: bool,
}

impl State {
    pub(crate) fn new(env: &Env, catalog: &Snapshot) -> Self {
        let mut config = txn_config(env);
        if let Some(topic) = catalog.topic(STATE_TOPIC) {
            config.state_partitions = topic.partitions;
        }
        Self {
            coordinator: Coordinator::new(config),
            appends: Appends::default(),
            loads: Loads::default(),
            marks: marks::Marks::default(),
            asks: asks::Asks::default(),
            requests: write_markers::Requests::default(),
            local: VecDeque::new(),
            started: false,
        }
    }

    /// When [`turn`] is needed without other input.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        if !self.started || !self.local.is_empty() {
            return Some(0);
        }
        let deadlines = [
            self.loads.deadline_ns(),
            self.coordinator.deadline_ns(),
            self.marks.deadline_ns(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether nothing is on its way to the log.
    pub(crate) fn is_idle(&self) -> bool {
        self.coordinator.is_written()
    }
}

fn txn_config(env: &Env) -> TxnConfig {
    let config: &Config = &env.config;
    let ms = |name| u64::try_from(config.number(name)).unwrap_or(0);
    TxnConfig {
        state_partitions: config.number("transaction.state.log.num.partitions") as i32,
        timeout_ms_max: config.number("transaction.max.timeout.ms") as i32,
        expiry_ms: config.number("transactional.id.expiration.ms"),
        abort_interval_ms: ms("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        expiry_interval_ms: ms("transaction.remove.expired.transaction.cleanup.interval.ms"),
        coordinator_epoch: env.run.leader_epoch,
        ..TxnConfig::default()
    }
}

/// Every request that has to do with transactions.
pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let (token, version) = (request.token, request.header.api_version);
    match request.header.api_key {
        versions::INIT_PRODUCER_ID => {
            let ids = &mut server.producer_ids;
            let coordinator = &mut server.txn.coordinator;
            coordinator.init(cx.now, token, version, &request.decode()?, || ids.next());
        }
        versions::ADD_PARTITIONS_TO_TXN => add_partitions(server, cx, request)?,
        versions::ADD_OFFSETS_TO_TXN => {
            let body: kafka_wire::AddOffsetsToTxnRequest = request.decode()?;
            let partition = super::groups::partition_for(server, &body.group_id);
            let add = Add {
                origin: Origin::Offsets(token, version),
                transactional_id: body.transactional_id,
                producer_id: body.producer_id,
                epoch: body.producer_epoch,
                verify_only: false,
                partitions: vec![partition],
            };
            server.txn.coordinator.add(cx.now, add);
        }
        versions::END_TXN => {
            let ids = &mut server.producer_ids;
            let coordinator = &mut server.txn.coordinator;
            coordinator.end(cx.now, token, version, &request.decode()?, || ids.next());
        }
        versions::DESCRIBE_TRANSACTIONS => {
            server.txn.coordinator.describe(token, &request.decode()?);
        }
        versions::LIST_TRANSACTIONS => {
            let coordinator = &mut server.txn.coordinator;
            coordinator.list(cx.now, token, &request.decode()?);
        }
        versions::WRITE_TXN_MARKERS => write_markers::handle(server, request)?,
        other => return Err(Malformed::Decoder(format!("api {other} has no handler"))),
    }
    deliver(server, cx);
    Ok(())
}

/// AddPartitionsToTxn: one transaction up to version 3, several from version 4 on. Kafka adds all partitions of a
/// transaction or none. (`KafkaApis.handleAddPartitionsToTxnRequest`)
fn add_partitions(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: kafka_wire::AddPartitionsToTxnRequest = request.decode()?;
    let version = request.header.api_version;
    let mut adds = Vec::new();
    let one = |id, producer_id, epoch, verify_only, topics| Add {
        origin: Origin::Request {
            waiter: 0,
            index: 0,
        },
        transactional_id: id,
        producer_id,
        epoch,
        verify_only,
        partitions: flat(topics),
    };
    if version < 4 {
        adds.push(one(
            body.v3_and_below_transactional_id,
            body.v3_and_below_producer_id,
            body.v3_and_below_producer_epoch,
            false,
            body.v3_and_below_topics,
        ));
    }
    for t in body.transactions {
        let (id, epoch) = (t.transactional_id, t.producer_epoch);
        adds.push(one(id, t.producer_id, epoch, t.verify_only, t.topics));
    }
    let catalog = &server.catalog;
    let mut expected = Vec::with_capacity(adds.len());
    let mut good = Vec::with_capacity(adds.len());
    for (index, add) in adds.into_iter().enumerate() {
        let exists = |(name, index): &(StrBytes, i32)| {
            let topic = catalog.topic(name);
            topic.is_some_and(|topic| topic.key(*index).is_some())
        };
        let all = add.partitions.iter().all(exists);
        let code = |partition| match (all, exists(partition)) {
            (true, _) => error::NONE,
            (false, true) => error::OPERATION_NOT_ATTEMPTED,
            (false, false) => error::UNKNOWN_TOPIC_OR_PARTITION,
        };
        let codes = add.partitions.iter().map(|p| (p.0.clone(), p.1, code(p)));
        expected.push((add.transactional_id.clone(), codes.collect()));
        if all {
            good.push((index, add));
        }
    }
    let coordinator = &mut server.txn.coordinator;
    let waiter = coordinator.expect(request.token, version, expected, good.len());
    for (index, add) in good {
        let origin = Origin::Request { waiter, index };
        coordinator.add(cx.now, Add { origin, ..add });
    }
    Ok(())
}

fn flat(
    topics: Vec<kafka_wire::add_partitions_to_txn_request::AddPartitionsToTxnTopic>,
) -> Vec<(StrBytes, i32)> {
    let topics = topics.into_iter();
    let partitions = topics.flat_map(|topic| {
        let name = topic.name;
        let partitions = topic.partitions.into_iter();
        partitions.map(move |partition| (name.clone(), partition))
    });
    partitions.collect()
}

/// The shard that coordinates a transactional id.
pub(crate) fn coordinator_of(server: &Server, id: &str) -> Option<u32> {
    let topic = server.catalog.topic(STATE_TOPIC)?;
    let key = topic.key(partition_of(id, topic.partitions))?;
    Some(key.shard(server.env.shards))
}

/// Mail from another shard.
pub(crate) fn mail(server: &mut Server, cx: &mut Cx<'_>, mail: TxnMail) {
    server.txn.local.push_back(mail);
    deliver(server, cx);
}

/// Sends mail to a shard, perhaps this one.
fn post(server: &mut Server, to: u32, mail: TxnMail) {
    if to == server.env.shard {
        server.txn.local.push_back(mail);
    } else {
        server.ops.post(to, Mail::Txn(mail));
    }
}

/// Carries out what the coordinator wants, and what this shard is told.
fn deliver(server: &mut Server, cx: &mut Cx<'_>) {
    loop {
        if let Some(output) = server.txn.coordinator.next_output() {
            match output {
                Output::Respond(token, response) => respond(server, token, &response),
                Output::Answer { shard, id, results } => {
                    post(server, shard, TxnMail::Answer { id, results });
                }
                Output::Mark(job) => marks::spread(server, cx, job),
            }
        } else if let Some(mail) = server.txn.local.pop_front() {
            match mail {
                TxnMail::Add(add) => server.txn.coordinator.add(cx.now, add),
                TxnMail::Answer { id, results } => asks::answered(server, cx, id, results),
                TxnMail::Mark(mark) => server.txn.marks.push(mark),
                TxnMail::Marked { job } => marks::marked(server, cx, job),
            }
        } else {
            return;
        }
    }
}

fn respond(server: &mut Server, token: crate::conn::Token, response: &Response) {
    let conns = &mut server.conns;
    match response {
        Response::Init(response) => conns.reply(token, response),
        Response::AddPartitions(response) => conns.reply(token, response),
        Response::AddOffsets(response) => conns.reply(token, response),
        Response::End(response) => conns.reply(token, response),
        Response::Describe(response) => conns.reply(token, response),
        Response::List(response) => conns.reply(token, response),
    }
}

/// Once a turn: reads partitions taken on, goes on with what became durable, lets time pass, writes.
pub(crate) fn turn(server: &mut Server, cx: &mut Cx<'_>) {
    if !server.txn.started {
        server.txn.started = true;
        take_on(server, cx, 0);
    }
    let txn = &mut server.txn;
    txn.loads.turn(cx, &mut txn.coordinator);
    txn.appends.durable(cx, &mut txn.coordinator);
    marks::durable(server, cx);
    server.txn.coordinator.tick(cx.now);
    deliver(server, cx);
    marks::send(server, cx);
    send(server, cx);
    deliver(server, cx);
}

fn send(server: &mut Server, cx: &mut Cx<'_>) {
    let (txn, catalog) = (&mut server.txn, &server.catalog);
    txn.appends.send(cx, catalog, &mut txn.coordinator);
}

/// The catalog changed, and the core with it.
pub(crate) fn changed(server: &mut Server, cx: &mut Cx<'_>, change: &Change) {
    if let Change::Created { topic, first } = change
        && &*topic.name == STATE_TOPIC
    {
        server.txn.coordinator.set_partitions(topic.partitions);
        take_on(server, cx, *first);
    }
}

/// Starts to read this shard's partitions of the state topic from `first` on.
fn take_on(server: &mut Server, cx: &mut Cx<'_>, first: i32) {
    let txn = &mut server.txn;
    let place = (&*server.catalog, &server.env);
    txn.loads
        .take_on(cx.core, place, &mut txn.coordinator, first);
}

/// A read is done. Gives the result back if it was not the coordinator's.
pub(crate) fn fetched(
    server: &mut Server,
    cx: &mut Cx<'_>,
    read: ReadId,
    result: Result<FetchData, FetchError>,
) -> Option<Result<FetchData, FetchError>> {
    let txn = &mut server.txn;
    txn.loads.fetched(cx, &mut txn.coordinator, read, result)
}

/// The process ends: what came in is still written, who waits is sent elsewhere.
pub(crate) fn end(server: &mut Server, cx: &mut Cx<'_>) {
    send(server, cx);
    for partition in 0..server.txn.coordinator.partitions() {
        server.txn.coordinator.disown(partition);
    }
    deliver(server, cx);
}
