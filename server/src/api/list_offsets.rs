//! ListOffsets: earliest, latest, newest by timestamp, first by timestamp. Look-ups may need the disk; the
//! response waits for all of them.

use hashbrown::HashMap;
use kafka_wire::list_offsets_request::ListOffsetsPartition;
use kafka_wire::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_wire::{ListOffsetsRequest, ListOffsetsResponse};
use ringlog_engine::core::{FetchError, ReadId, Reply, TimedOffset};
use ringlog_engine::shard::Cx;

use super::{Request, check_epoch, fetch_error, local, text};
use crate::app::Server;
use crate::conn::Token;
use crate::message;
use crate::repeats::repeated;
use crate::wire::{Malformed, error};

/// Only what is decided counts: the log ends at the last stable offset.
const READ_COMMITTED: i8 = 1;

/// "Timestamps" that are questions. Kafka's ListOffsetsRequest names more; they have to do with tiered storage.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

/// Requests whose look-ups wait for the disk.
#[derive(Debug, Default)]
pub(crate) struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    /// Request, place in it, and the end of what counts.
    reads: HashMap<ReadId, (u64, usize, usize, i64)>,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    topics: Vec<ListOffsetsTopicResponse>,
    missing: usize,
}

enum Found {
    Now(ListOffsetsPartitionResponse),
    /// Nothing at or behind this offset counts.
    Later(ReadId, i64),
}

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: ListOffsetsRequest = request.decode()?;
    let version = request.header.api_version;
    let mut pending = Pending {
        token: request.token,
        topics: Vec::with_capacity(body.topics.len()),
        missing: 0,
    };
    let number = server.list_offsets.next;
    let committed = body.isolation_level == READ_COMMITTED;
    // A look-up may read and decompress, so none is done twice. Kafka refuses such partitions as well.
    // (`ListOffsetsRequest.duplicatePartitions`)
    let repeated = repeated(body.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|wanted| (&*topic.name, wanted.partition_index))
    }));
    for (t, topic) in body.topics.iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (p, wanted) in topic.partitions.iter().enumerate() {
            let index = wanted.partition_index;
            if repeated.contains(&(&*topic.name, index)) {
                partitions.push(failed(index, error::INVALID_REQUEST));
                continue;
            }
            match look_up(server, cx, &topic.name, wanted, (version, committed)) {
                Found::Now(answer) => partitions.push(answer),
                Found::Later(read, end) => {
                    let place = (number, t, p, end);
                    server.list_offsets.reads.insert(read, place);
                    pending.missing += 1;
                    partitions.push(failed(index, error::NONE));
                }
            }
        }
        pending.topics.push(message!(ListOffsetsTopicResponse {
            name: text(&topic.name),
            partitions: partitions,
        }));
    }
    if pending.missing == 0 {
        answer(server, pending);
    } else {
        server.list_offsets.next += 1;
        server.list_offsets.pending.insert(number, pending);
    }
    Ok(())
}

fn look_up(
    server: &Server,
    cx: &mut Cx<'_>,
    topic: &str,
    wanted: &ListOffsetsPartition,
    (version, committed): (i16, bool),
) -> Found {
    let index = wanted.partition_index;
    let part = match local(&server.env, &server.catalog, topic, index) {
        Ok(key) => cx.core.lookup(key),
        Err(code) => return Found::Now(failed(index, code)),
    };
    let Some((part, offsets)) = part.and_then(|part| Some((part, cx.core.offsets(part)?))) else {
        return Found::Now(failed(index, error::UNKNOWN_TOPIC_OR_PARTITION));
    };
    if let Err(code) = check_epoch(&server.env, wanted.current_leader_epoch) {
        return Found::Now(failed(index, code));
    }
    let end = if committed {
        offsets.last_stable
    } else {
        offsets.high_watermark
    };
    let at = |offset| {
        message!(ListOffsetsPartitionResponse {
            partition_index: index,
            timestamp: -1,
            offset: offset,
            leader_epoch: if version >= 4 {
                offsets.leader_epoch
            } else {
                -1
            },
        })
    };
    let result = match wanted.timestamp {
        LATEST => return Found::Now(at(end)),
        EARLIEST => return Found::Now(at(offsets.log_start)),
        MAX_TIMESTAMP if version >= 7 => cx.core.max_timestamp(cx.now, part),
        ms if ms >= 0 => cx.core.offset_for_time(cx.now, part, ms),
        _ => return Found::Now(failed(index, error::UNSUPPORTED_VERSION)),
    };
    match result {
        Ok(Reply::Ready(found)) => {
            let found = found.filter(|found| found.offset < end);
            Found::Now(timed_answer(index, version, Ok(found)))
        }
        Ok(Reply::Pending(read)) => Found::Later(read, end),
        Err(failure) => Found::Now(timed_answer(index, version, Err(failure))),
    }
}

fn failed(index: i32, code: i16) -> ListOffsetsPartitionResponse {
    message!(ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: code,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    })
}

fn timed_answer(
    index: i32,
    version: i16,
    result: Result<Option<TimedOffset>, FetchError>,
) -> ListOffsetsPartitionResponse {
    match result {
        Ok(Some(found)) => message!(ListOffsetsPartitionResponse {
            partition_index: index,
            timestamp: found.timestamp_ms,
            offset: found.offset,
            leader_epoch: if version >= 4 { found.leader_epoch } else { -1 },
        }),
        Ok(None) => failed(index, error::NONE),
        Err(failure) => failed(index, fetch_error(failure)),
    }
}

/// A look-up is answered.
pub(crate) fn timed(
    server: &mut Server,
    _cx: &mut Cx<'_>,
    read: ReadId,
    result: Result<Option<TimedOffset>, FetchError>,
) {
    let Some((number, t, p, end)) = server.list_offsets.reads.remove(&read) else {
        return;
    };
    let Some(pending) = server.list_offsets.pending.get_mut(&number) else {
        return;
    };
    let version = server.conns.request(pending.token).map_or(0, |(_, v)| v);
    let result = result.map(|found| found.filter(|found| found.offset < end));
    let place = &mut pending.topics[t].partitions[p];
    *place = timed_answer(place.partition_index, version, result);
    pending.missing -= 1;
    if pending.missing == 0
        && let Some(pending) = server.list_offsets.pending.remove(&number)
    {
        answer(server, pending);
    }
}

fn answer(server: &mut Server, pending: Pending) {
    let response = message!(ListOffsetsResponse {
        topics: pending.topics,
    });
    server.conns.reply(pending.token, &response);
}
