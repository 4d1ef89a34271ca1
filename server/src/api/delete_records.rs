//! DeleteRecords: raises where a log begins. An answer without error means durable: it waits for the checkpoint that
//! has the new log start.
//!
//! Behaviour: `ReplicaManager.deleteRecordsOnLocalLog`, `Partition.deleteRecordsOnLeader` and `DelayedDeleteRecords`
//! of Apache Kafka 4.

use kafka_wire::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_wire::{DeleteRecordsRequest, DeleteRecordsResponse};
use ringlog_engine::core::Core;
use ringlog_engine::id::Part;
use ringlog_engine::shard::Cx;

use super::{Request, fetch_error, local, text};
use crate::app::Server;
use crate::config::topic;
use crate::conn::Token;
use crate::message;
use crate::wire::{Malformed, error};

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Requests whose log starts are not durable yet.
#[derive(Debug, Default)]
pub(crate) struct State {
    waiting: Vec<Pending>,
    /// Destage rounds when the requests were last looked at: a log start rises with a round.
    rounds: u64,
    /// A partition may be gone.
    recheck: bool,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    topics: Vec<DeleteRecordsTopicResult>,
    missing: Vec<Missing>,
    deadline_ns: u64,
}

/// A partition whose log start is on its way.
#[derive(Debug, Clone, Copy)]
struct Missing {
    /// Where its result is.
    topic: usize,
    partition: usize,
    part: Part,
    log_start: i64,
}

impl State {
    /// The catalog changed.
    pub(crate) fn changed(&mut self) {
        self.recheck = true;
    }

    /// Whether no request waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next request times out.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let next = self.waiting.iter().map(|p| p.deadline_ns).min();
        next.map(|ns| if self.recheck { 0 } else { ns })
    }
}

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: DeleteRecordsRequest = request.decode()?;
    let mut pending = Pending {
        token: request.token,
        topics: Vec::with_capacity(body.topics.len()),
        missing: Vec::new(),
        deadline_ns: cx.now.after_ms(body.timeout_ms.max(0) as u64),
    };
    for (t, topic) in body.topics.iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (p, wanted) in topic.partitions.iter().enumerate() {
            let index = wanted.partition_index;
            let deleted = delete(server, cx.core, &topic.name, index, wanted.offset);
            partitions.push(match deleted {
                Ok((part, log_start)) => {
                    pending.missing.push(Missing {
                        topic: t,
                        partition: p,
                        part,
                        log_start,
                    });
                    result(index, log_start, error::NONE)
                }
                Err(code) => result(index, -1, code),
            });
        }
        pending.topics.push(message!(DeleteRecordsTopicResult {
            name: text(&topic.name),
            partitions: partitions,
        }));
    }
    server.delete_records.waiting.push(pending);
    look(server, cx);
    Ok(())
}

/// Asks for a new log start; the partition and the start to wait for.
fn delete(
    server: &Server,
    core: &mut Core,
    name: &str,
    index: i32,
    offset: i64,
) -> Result<(Part, i64), i16> {
    let meta = server.catalog.topic(name);
    if meta.is_some_and(|topic| topic.internal) {
        return Err(error::INVALID_TOPIC_EXCEPTION);
    }
    let key = local(&server.env, &server.catalog, name, index)?;
    if meta.is_some_and(|t| topic::only_compacts(&server.env.config, &t.configs)) {
        return Err(error::POLICY_VIOLATION);
    }
    let unknown = error::UNKNOWN_TOPIC_OR_PARTITION;
    let part = core.lookup(key).ok_or(unknown)?;
    let offset = match offset {
        HIGH_WATERMARK => core.offsets(part).ok_or(unknown)?.high_watermark,
        offset => offset,
    };
    core.delete_records(part, offset).map_err(fetch_error)?;
    Ok((part, offset))
}

fn result(index: i32, low_watermark: i64, code: i16) -> DeleteRecordsPartitionResult {
    message!(DeleteRecordsPartitionResult {
        partition_index: index,
        low_watermark: low_watermark,
        error_code: code,
    })
}

/// Once a turn: answers requests whose log starts are durable, or whose patience has ended.
pub(crate) fn turn(server: &mut Server, cx: &mut Cx<'_>) {
    let state = &server.delete_records;
    if state.waiting.is_empty() {
        return;
    }
    let late = state.deadline_ns().is_some_and(|ns| ns <= cx.now.mono_ns);
    if late || cx.core.stats().rounds != state.rounds {
        look(server, cx);
    }
}

fn look(server: &mut Server, cx: &mut Cx<'_>) {
    let state = &mut server.delete_records;
    state.rounds = cx.core.stats().rounds;
    state.recheck = false;
    let mut ready = Vec::new();
    for mut pending in std::mem::take(&mut state.waiting) {
        let late = pending.deadline_ns <= cx.now.mono_ns;
        let Pending {
            topics, missing, ..
        } = &mut pending;
        missing.retain(|wanted| {
            let place = &mut topics[wanted.topic].partitions[wanted.partition];
            let found = settle(cx.core, *wanted, late);
            if let Some((low_watermark, code)) = found {
                *place = result(place.partition_index, low_watermark, code);
            }
            found.is_none()
        });
        if missing.is_empty() {
            ready.push(pending);
        } else {
            state.waiting.push(pending);
        }
    }
    for pending in ready {
        let response = message!(DeleteRecordsResponse {
            topics: pending.topics,
        });
        server.conns.reply(pending.token, &response);
    }
}

/// What a partition comes to: the log's start and an error code, or nothing yet.
fn settle(core: &Core, wanted: Missing, late: bool) -> Option<(i64, i16)> {
    match core.offsets(wanted.part) {
        None => Some((-1, error::UNKNOWN_TOPIC_OR_PARTITION)),
        Some(o) if o.log_start >= wanted.log_start => Some((o.log_start, error::NONE)),
        Some(o) if late => Some((o.log_start, error::REQUEST_TIMED_OUT)),
        Some(_) => None,
    }
}
