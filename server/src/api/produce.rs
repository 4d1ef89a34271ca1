//! Produce: batches into logs, acknowledged once they are durable.
//!
//! The response is written while the request is handled, since everything in it is known then, and leaves when the
//! core's durable mark reaches the request's newest frame. A request that finds the journal full waits with its
//! connection, which is not read further, and goes on where it stopped.

use std::collections::VecDeque;

use bytes::BytesMut;
use ringlog_engine::batch::{BatchError, BatchHeader, Compression};
use ringlog_engine::core::{AppendError, Appended, RecordFault};
use ringlog_engine::id::{FrameSeq, Part};
use ringlog_engine::shard::{ConnId, Cx};

use super::txn::{self, Ask};
use super::{Handled, Request};
use crate::app::Server;
use crate::conn::{Conns, Token};
use crate::txn::{Add, Origin};
use crate::wire::header::RequestHeader;
use crate::wire::produce::{self as codec, PartitionAck, ProducePartition, ProduceRequest};
use crate::wire::{self, Malformed, StrBytes, error};

/// First version whose clients know zstd.
const ZSTD_VERSION_MIN: i16 = 7;
/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 11;
/// First version of the second generation of transactions.
const SECOND_GENERATION: i16 = 12;
/// Records of a refused batch that a client is told of at most.
const RECORD_ERRORS_MAX: usize = 100;

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Written responses by the frame they wait for, in the order of their requests. A duplicate's frame may be
    /// older than its predecessor's: it then waits a little longer than it must.
    waiting: VecDeque<(FrameSeq, Token)>,
    /// Connections whose first request waits for room in the journal, in order of arrival.
    parked: VecDeque<ConnId>,
    /// The request being taken up again.
    resuming: Option<Parked>,
    /// The response being written.
    scratch: BytesMut,
    /// When the first parked request gives up, at the earliest.
    parked_until_ns: Option<u64>,
}

/// A request that found the journal full.
#[derive(Debug)]
pub(crate) struct Parked {
    token: Token,
    progress: Progress,
}

/// How far a request got.
#[derive(Debug)]
struct Progress {
    /// The response up to here.
    response: BytesMut,
    /// The topic, and the partition in it, to go on with.
    topic: usize,
    partition: usize,
    /// Partitions of the topics before.
    before: usize,
    /// The newest frame that holds one of the request's batches.
    newest: FrameSeq,
    /// A batch was refused.
    failed: bool,
    /// When to stop waiting for room.
    until_ns: u64,
    /// What the transaction's coordinator says of partitions, by their place in the request.
    verified: Option<Vec<(usize, i16)>>,
}

impl Progress {
    fn new(
        server: &mut Server,
        cx: &Cx<'_>,
        request: &Request<'_>,
        body: &ProduceRequest<'_>,
    ) -> Self {
        let version = request.header.api_version;
        let mut response = std::mem::take(&mut server.produce.scratch);
        response.clear();
        wire::start_response(&mut response, request.header.correlation_id, version >= 9);
        codec::write_topic_count(&mut response, version, body.topics.len());
        Self {
            response,
            topic: 0,
            partition: 0,
            before: 0,
            newest: FrameSeq(0),
            failed: false,
            until_ns: cx.now.after_ms(body.timeout_ms.max(0) as u64),
            verified: None,
        }
    }
}

impl State {
    /// The slot of a request: a new one, unless it is being taken up again.
    pub(crate) fn unpark(
        &mut self,
        conns: &mut Conns,
        id: ConnId,
        header: &RequestHeader<'_>,
    ) -> Option<Token> {
        match &self.resuming {
            Some(parked) => Some(parked.token),
            None => conns.begin(id, header),
        }
    }

    /// Whether a request is about to be taken up again.
    pub(crate) fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// Whether no request waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.parked.is_empty()
    }

    /// When a parked request times out.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.parked_until_ns
    }
}

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<Handled, Malformed> {
    let version = request.header.api_version;
    let body = ProduceRequest::parse(request.body, version)?;
    if body.transactional_id.is_none() && body.partitions.iter().any(is_transactional) {
        return Ok(refuse_all(server, cx, request, &body));
    }
    let mut progress = match server.produce.resuming.take() {
        Some(parked) => parked.progress,
        None => Progress::new(server, cx, request, &body),
    };
    if let Some(id) = body.transactional_id
        && progress.verified.is_none()
        && let Some(asking) = unverified(server, cx, &body)
    {
        ask(server, request, id, asking, progress);
        return Ok(Handled::Parked);
    }
    if !carry_out(server, cx, &body, version, &mut progress) {
        // By the time there is room the transaction may be over.
        progress.verified = None;
        park(server, request.token, progress);
        return Ok(Handled::Parked);
    }
    codec::write_end(&mut progress.response, version);
    finish(server, cx, request.token, body.acks, progress);
    Ok(Handled::Done)
}

/// Partitions of a request that do not know its transaction yet.
struct Unverified {
    producer: (i64, i16),
    places: Vec<usize>,
    parts: Vec<Part>,
    partitions: Vec<(StrBytes, i32)>,
}

/// A transaction's first batch in a partition is held against what the coordinator knows: nobody but it ends
/// transactions. (KIP-890)
fn unverified(server: &Server, cx: &Cx<'_>, body: &ProduceRequest<'_>) -> Option<Unverified> {
    let mut found: Option<Unverified> = None;
    let mut place = 0;
    for &(topic, count) in &body.topics {
        for partition in &body.partitions[place..place + count] {
            let here = place;
            place += 1;
            let header = partition.records.and_then(BatchHeader::read);
            let Some(header) = header.filter(|h| h.is_transactional() && h.is_idempotent()) else {
                continue;
            };
            let key = super::local(&server.env, &server.catalog, topic, partition.index);
            let Some(part) = key.ok().and_then(|key| cx.core.lookup(key)) else {
                continue;
            };
            let producer = (header.producer_id.get(), header.producer_epoch.get());
            let producers = cx.core.producers(part);
            if producers.is_some_and(|p| p.has_begun(producer.0, producer.1)) {
                continue;
            }
            let found = found.get_or_insert(Unverified {
                producer,
                places: Vec::new(),
                parts: Vec::new(),
                partitions: Vec::new(),
            });
            if found.producer == producer {
                found.places.push(here);
                found.parts.push(part);
                found.partitions.push((topic.into(), partition.index));
            }
        }
    }
    found
}

/// Parks a request until the transaction's coordinator has answered. From version 12 on partitions become part of the
/// transaction by being written to; before, they must be it already.
fn ask(
    server: &mut Server,
    request: &Request<'_>,
    transactional_id: &str,
    asking: Unverified,
    mut progress: Progress,
) {
    let add = Add {
        origin: Origin::Shard { shard: 0, id: 0 },
        transactional_id: transactional_id.into(),
        producer_id: asking.producer.0,
        epoch: asking.producer.1,
        verify_only: request.header.api_version < SECOND_GENERATION,
        partitions: asking.partitions,
    };
    let places = asking.places.into_iter();
    progress.verified = Some(
        places
            .map(|place| (place, error::INVALID_TXN_STATE))
            .collect(),
    );
    let token = request.token;
    if let Some(conn) = server.conns.get(token.conn) {
        conn.parked = Some(Parked { token, progress });
    }
    let ask = Ask::Produce {
        conn: token.conn,
        parts: asking.parts,
    };
    txn::ask(server, add, ask);
}

/// The coordinator has answered: the request goes on.
pub(crate) fn verified(server: &mut Server, cx: &mut Cx<'_>, id: ConnId, results: Vec<i16>) {
    let parked = server.conns.get(id).and_then(|conn| conn.parked.take());
    let Some(mut parked) = parked else {
        return;
    };
    for (verified, code) in parked.progress.verified.iter_mut().flatten().zip(results) {
        verified.1 = code;
    }
    go_on(server, cx, id, parked);
}

/// What a producer is told of the coordinator's answer. (`ReplicaManager.handleProduceAppend`)
fn verdict(code: i16, version: i16) -> i16 {
    match code {
        error::PRODUCER_FENCED => error::INVALID_PRODUCER_EPOCH,
        error::TRANSACTION_ABORTABLE if version < ABORTABLE_VERSION_MIN => error::INVALID_TXN_STATE,
        error::CONCURRENT_TRANSACTIONS if version >= SECOND_GENERATION => code,
        error::CONCURRENT_TRANSACTIONS
        | error::COORDINATOR_LOAD_IN_PROGRESS
        | error::COORDINATOR_NOT_AVAILABLE
        | error::NOT_COORDINATOR => error::NOT_ENOUGH_REPLICAS,
        code => code,
    }
}

fn is_transactional(partition: &ProducePartition<'_>) -> bool {
    let header = partition.records.and_then(BatchHeader::read);
    header.is_some_and(BatchHeader::is_transactional)
}

/// Nobody without a transactional id may write to transactions: Kafka refuses the whole request.
/// (`KafkaApis.handleProduceRequest`)
fn refuse_all(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
    body: &ProduceRequest<'_>,
) -> Handled {
    let version = request.header.api_version;
    let mut progress = Progress::new(server, cx, request, body);
    let mut partitions = body.partitions.iter();
    for &(topic, count) in &body.topics {
        codec::write_topic_start(&mut progress.response, version, topic, count);
        for partition in partitions.by_ref().take(count) {
            let refused = because(
                error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                "transactional records without a transactional id",
            );
            acknowledge(partition.index, Err(refused), version, &mut progress);
        }
        codec::write_topic_end(&mut progress.response, version);
    }
    codec::write_end(&mut progress.response, version);
    finish(server, cx, request.token, body.acks, progress);
    Handled::Done
}

/// Appends batch after batch; false when the journal is full.
fn carry_out(
    server: &mut Server,
    cx: &mut Cx<'_>,
    body: &ProduceRequest<'_>,
    version: i16,
    progress: &mut Progress,
) -> bool {
    while let Some(&(topic, count)) = body.topics.get(progress.topic) {
        let start = progress.response.len();
        if progress.partition == 0 {
            codec::write_topic_start(&mut progress.response, version, topic, count);
        }
        while progress.partition < count {
            let place = progress.before + progress.partition;
            let partition = &body.partitions[place];
            let verified = progress
                .verified
                .iter()
                .flatten()
                .find(|(p, _)| *p == place);
            let result = match verified {
                Some(&(_, code)) if code != error::NONE => {
                    let why = "the transaction's coordinator does not allow it";
                    Err(because(verdict(code, version), why))
                }
                _ => append(server, cx, body, topic, partition, version),
            };
            let waits = cx.now.mono_ns < progress.until_ns;
            if matches!(result, Err(Refused::Busy)) && waits {
                if progress.partition == 0 {
                    progress.response.truncate(start);
                }
                return false;
            }
            acknowledge(partition.index, result, version, progress);
            progress.partition += 1;
        }
        codec::write_topic_end(&mut progress.response, version);
        progress.topic += 1;
        progress.before += count;
        progress.partition = 0;
    }
    true
}

/// Why a batch was not appended.
enum Refused {
    /// The journal is full.
    Busy,
    /// For good.
    For(Refusal),
}

/// What a client is told of a refused batch.
struct Refusal {
    /// Kafka's error code.
    code: i16,
    /// Words for people.
    why: String,
    /// The records at fault, where single ones are.
    records: Vec<(u32, String)>,
}

fn because(code: i16, why: &str) -> Refused {
    Refused::For(Refusal {
        code,
        why: why.to_owned(),
        records: Vec::new(),
    })
}

fn append(
    server: &Server,
    cx: &mut Cx<'_>,
    body: &ProduceRequest<'_>,
    topic: &str,
    partition: &ProducePartition<'_>,
    version: i16,
) -> Result<Appended, Refused> {
    let because = |code, why: &str| Err(because(code, why));
    if !matches!(body.acks, -1..=1) {
        return because(error::INVALID_REQUIRED_ACKS, "acks must be -1, 0 or 1");
    }
    let Some(meta) = server.catalog.topic(topic) else {
        return because(error::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic");
    };
    if meta.internal {
        let why = "the topic belongs to the broker";
        return because(error::INVALID_TOPIC_EXCEPTION, why);
    }
    let Some(key) = meta.key(partition.index) else {
        return because(
            error::UNKNOWN_TOPIC_OR_PARTITION,
            "there is no such partition",
        );
    };
    if key.shard(server.env.shards) != server.env.shard {
        return because(
            error::NOT_LEADER_OR_FOLLOWER,
            "the partition is on another broker",
        );
    }
    let Some(part) = cx.core.lookup(key) else {
        return because(error::UNKNOWN_TOPIC_OR_PARTITION, "the partition is gone");
    };
    let records = partition.records.unwrap_or_default();
    if let Some(header) = BatchHeader::read(records) {
        let codec = Compression::from_attributes(header.attributes.get());
        if codec == Some(Compression::Zstd) && version < ZSTD_VERSION_MIN {
            let why = "zstd needs version 7 of the Produce request";
            return because(error::UNSUPPORTED_COMPRESSION_TYPE, why);
        }
        if header.base_offset.get() != 0 {
            let why = "the base offset of a batch is 0 until the broker assigns it";
            return because(error::INVALID_RECORD, why);
        }
        if header.is_idempotent() && header.base_sequence.get() < 0 {
            return because(error::INVALID_RECORD, "an idempotent batch has a sequence");
        }
    }
    cx.core
        .append(cx.now, part, records)
        .map_err(|refusal| match refusal {
            AppendError::Busy => Refused::Busy,
            other => Refused::For(Refusal {
                code: append_error(other),
                why: other.to_string(),
                records: record_errors(cx, part, records, other),
            }),
        })
}

/// The records that a batch was refused for, where Kafka names them (`ProduceResponse.RecordError`).
fn record_errors(
    cx: &Cx<'_>,
    part: Part,
    batch: &[u8],
    refusal: AppendError,
) -> Vec<(u32, String)> {
    if !matches!(refusal, AppendError::Timestamp | AppendError::KeyMissing) {
        return Vec::new();
    }
    let faults = cx
        .core
        .record_faults(cx.now, part, batch, RECORD_ERRORS_MAX);
    let said = |(index, fault)| {
        let why = match fault {
            RecordFault::Timestamp(time_ms, window) => format!(
                "Timestamp {time_ms} is out of range. The timestamp should be within [{}, {}]",
                window.first_ms, window.last_ms
            ),
            RecordFault::AppendTime => {
                "Producer should not set timestamp type to LogAppendTime.".to_owned()
            }
            RecordFault::KeyMissing => {
                "Compacted topic cannot accept message without key.".to_owned()
            }
        };
        (index, why)
    };
    faults.into_iter().map(said).collect()
}

/// Kafka's error code for a refused batch: what `UnifiedLog`, `ProduceRequest` and `LogValidator` give.
fn append_error(refusal: AppendError) -> i16 {
    match refusal {
        AppendError::UnknownPartition => error::UNKNOWN_TOPIC_OR_PARTITION,
        AppendError::Invalid(BatchError::Crc { .. } | BatchError::Length(_)) => {
            error::CORRUPT_MESSAGE
        }
        AppendError::Invalid(BatchError::Magic(magic)) if !(0..=1).contains(&magic) => {
            error::CORRUPT_MESSAGE
        }
        AppendError::Invalid(BatchError::Codec(_)) => error::UNSUPPORTED_COMPRESSION_TYPE,
        AppendError::Invalid(_) | AppendError::ControlBatch => error::INVALID_RECORD,
        AppendError::Records(_) | AppendError::KeyMissing => error::INVALID_RECORD,
        AppendError::Undecodable { .. } => error::CORRUPT_MESSAGE,
        AppendError::NotCompressed => error::UNKNOWN_SERVER_ERROR,
        AppendError::Timestamp => error::INVALID_TIMESTAMP,
        AppendError::TooLarge { .. } => error::MESSAGE_TOO_LARGE,
        AppendError::OutOfOrderSequence { .. } => error::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::ProducerFenced { .. } => error::INVALID_PRODUCER_EPOCH,
        AppendError::NotTransactional { .. } => error::INVALID_TXN_STATE,
        AppendError::CoordinatorFenced { .. } => error::TRANSACTION_COORDINATOR_FENCED,
        AppendError::Busy => error::REQUEST_TIMED_OUT,
        AppendError::StorageFull => error::KAFKA_STORAGE_ERROR,
        // The process ends: the client is to look for the partition again.
        AppendError::Closed => error::NOT_LEADER_OR_FOLLOWER,
    }
}

fn acknowledge(
    index: i32,
    result: Result<Appended, Refused>,
    version: i16,
    progress: &mut Progress,
) {
    match result {
        Ok(appended) => {
            progress.newest = progress.newest.max(appended.frame);
            let ack = PartitionAck {
                index,
                error: error::NONE,
                base_offset: appended.base_offset,
                append_time_ms: appended.append_time_ms,
                log_start_offset: appended.log_start_offset,
                message: None,
                records: &[],
            };
            ack.write(&mut progress.response, version);
        }
        Err(refused) => {
            progress.failed = true;
            let (code, why, records) = match &refused {
                Refused::Busy => (error::REQUEST_TIMED_OUT, "the journal is full", &[][..]),
                Refused::For(r) => (r.code, r.why.as_str(), &r.records[..]),
            };
            let ack = PartitionAck {
                records,
                ..PartitionAck::refused(index, code, Some(why))
            };
            ack.write(&mut progress.response, version);
        }
    }
}

fn park(server: &mut Server, token: Token, progress: Progress) {
    let State {
        parked,
        parked_until_ns,
        ..
    } = &mut server.produce;
    parked.push_back(token.conn);
    let until_ns = parked_until_ns.map_or(progress.until_ns, |ns| ns.min(progress.until_ns));
    *parked_until_ns = Some(until_ns);
    if let Some(conn) = server.conns.get(token.conn) {
        conn.parked = Some(Parked { token, progress });
    }
}

fn finish(server: &mut Server, cx: &mut Cx<'_>, token: Token, acks: i16, mut progress: Progress) {
    wire::end_response(&mut progress.response, 0);
    if acks == 0 {
        // Nobody reads a response. As Kafka does, a refused batch ends the connection, so that the client notices.
        if progress.failed {
            server.refuse(cx, token.conn, "a batch sent with acks=0 was refused");
        }
        server.conns.reply_nothing(token);
    } else {
        let ready = progress.newest <= cx.core.durable();
        server.conns.write(token, ready, |out, _, _| {
            out.extend_from_slice(&progress.response);
            Ok::<(), Malformed>(())
        });
        if !ready {
            server.produce.waiting.push_back((progress.newest, token));
        }
    }
    server.produce.scratch = progress.response;
}

/// Once a turn: lets responses leave whose batches are durable, and ends requests that waited too long for room.
pub(crate) fn durable(server: &mut Server, cx: &mut Cx<'_>) {
    let durable = cx.core.durable();
    while let Some(&(frame, token)) = server.produce.waiting.front()
        && frame <= durable
    {
        server.produce.waiting.pop_front();
        server.conns.release(token);
    }
    if let Some(until_ns) = server.produce.parked_until_ns
        && cx.now.mono_ns >= until_ns
    {
        for _ in 0..server.produce.parked.len() {
            if let Some(id) = server.produce.parked.pop_front() {
                resume(server, cx, id);
            }
        }
        parked_until(server);
    }
}

/// The journal has room again: parked requests go on in order, until it is full again.
pub(crate) fn room(server: &mut Server, cx: &mut Cx<'_>) {
    while let Some(id) = server.produce.parked.pop_front() {
        resume(server, cx, id);
        // One that now waits for its transaction's coordinator has left the queue, and says nothing of the journal.
        if server.produce.parked.back() == Some(&id) {
            // It was the first and could not go on, so it stays the first.
            server.produce.parked.rotate_right(1);
            break;
        }
    }
    parked_until(server);
}

/// Takes a connection's parked request up again, unless it is gone.
fn resume(server: &mut Server, cx: &mut Cx<'_>, id: ConnId) {
    let parked = server.conns.get(id).and_then(|conn| conn.parked.take());
    if let Some(parked) = parked {
        go_on(server, cx, id, parked);
    }
}

/// Handles a connection's frames from its parked request on.
fn go_on(server: &mut Server, cx: &mut Cx<'_>, id: ConnId, parked: Parked) {
    server.produce.resuming = Some(parked);
    server.work_off(cx, id);
    server.produce.resuming = None;
    server.conns.mark(id);
}

fn parked_until(server: &mut Server) {
    let State {
        parked,
        parked_until_ns,
        ..
    } = &mut server.produce;
    parked.retain(|id| server.conns.get(*id).is_some_and(|c| c.parked.is_some()));
    let until = |id: &ConnId| {
        let parked = server.conns.get(*id)?.parked.as_ref()?;
        Some(parked.progress.until_ns)
    };
    *parked_until_ns = parked.iter().filter_map(until).min();
}
