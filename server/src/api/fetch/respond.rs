//! Puts a Fetch response together: what surrounds the records is written, large pieces of records are shared.

use std::sync::Arc;

use bytes::BytesMut;
use ringlog_engine::core::{Chunk, FetchData, LogOffsets};
use ringlog_engine::shard::{Cx, SendData};
use ringlog_engine::store::AbortedTransaction;

use super::pending::{PartitionFetch, Pending, Progress, Scope, TopicFetch};
use super::session::{NewSlot, SlotState};
use crate::app::Server;
use crate::conn::Token;
use crate::wire;
use crate::wire::error;
use crate::wire::fetch::{self as codec, FetchPartition, PartitionData};

/// Pieces of records smaller than this are copied: an own send would cost more.
const COPY_BYTES_MAX: usize = 4095;

/// A response in the making: written bytes, and pieces that belong between them.
struct Assembly {
    written: BytesMut,
    /// Pieces by the written bytes that precede them.
    pieces: Vec<(usize, SendData)>,
    piece_bytes: usize,
    /// Pieces of memory of up to so many bytes are copied.
    copy_bytes_max: usize,
}

impl Assembly {
    fn add(&mut self, data: FetchData) {
        for chunk in data.chunks {
            match chunk {
                Chunk::Bytes(slice) if slice.len() <= self.copy_bytes_max => {
                    self.written.extend_from_slice(&slice);
                }
                Chunk::Bytes(slice) => self.put(SendData::Slice(slice)),
                Chunk::Span(span) => self.put(SendData::Span(span)),
            }
        }
    }

    fn put(&mut self, piece: SendData) {
        self.piece_bytes += piece.len();
        self.pieces.push((self.written.len(), piece));
    }

    fn finish(mut self) -> Vec<SendData> {
        let len = (self.written.len() + self.piece_bytes - 4) as i32;
        self.written[..4].copy_from_slice(&len.to_be_bytes());
        let mut parts = Vec::with_capacity(2 * self.pieces.len() + 1);
        let mut done = 0;
        for (at, piece) in self.pieces {
            if at > done {
                parts.push(SendData::Bytes(self.written.split_to(at - done).freeze()));
                done = at;
            }
            parts.push(piece);
        }
        if !self.written.is_empty() {
            parts.push(SendData::Bytes(self.written.freeze()));
        }
        parts
    }
}

/// Answers a whole request with an error.
pub(super) fn refuse(server: &mut Server, token: Token, code: i16) {
    let result = server
        .conns
        .write(token, true, |out, correlation_id, version| {
            let start = out.len();
            wire::start_response(out, correlation_id, version >= 12);
            codec::write_start(out, version, code, 0, 0);
            codec::write_end(out, version);
            wire::end_response(out, start);
            Ok::<(), wire::Malformed>(())
        });
    debug_assert!(!matches!(result, Some(Err(_))), "nothing in it can fail");
}

/// One partition's part of a response.
struct Answer {
    topic: Arc<str>,
    index: i32,
    error: i16,
    offsets: Option<LogOffsets>,
    /// Aborted transactions that the records may belong to; `None` if the request does not care.
    aborted: Option<Vec<AbortedTransaction>>,
    data: FetchData,
}

impl Answer {
    fn new(
        read_committed: bool,
        topic: Arc<str>,
        partition: PartitionFetch,
        offsets: Option<LogOffsets>,
    ) -> Self {
        let (code, mut data) = match partition.state {
            Progress::Failed(code) => (code, FetchData::default()),
            Progress::Data(data) => (error::NONE, data),
            _ => (error::NONE, FetchData::default()),
        };
        let aborted = std::mem::take(&mut data.aborted);
        Self {
            aborted: (read_committed && code == error::NONE).then_some(aborted),
            topic,
            index: partition.index,
            error: code,
            // Kafka tells nothing of a log with an error (`ReplicaManager.createLogReadResult`).
            offsets: offsets.filter(|_| code == error::NONE),
            data,
        }
    }
}

/// Answers a request with what was found.
pub(super) fn respond(server: &mut Server, cx: &mut Cx<'_>, mut pending: Pending) {
    let partitions = std::mem::take(&mut pending.partitions);
    let scope = std::mem::replace(&mut pending.scope, Scope::Incremental { session: 0 });
    let (session_id, answers) = match scope {
        Scope::Incremental { session } => {
            let committed = pending.read_committed;
            (session, news(server, cx, session, committed, partitions))
        }
        Scope::Full {
            topics,
            opens_session,
        } => {
            let id = if opens_session && server.conns.is_open(pending.token) {
                open_session(server, cx, &topics, &partitions)
            } else {
                0
            };
            let committed = pending.read_committed;
            (id, everything(cx, committed, topics, partitions))
        }
    };
    send(server, cx, &pending, session_id, answers);
}

/// All partitions of a full request, in its order.
fn everything(
    cx: &Cx<'_>,
    read_committed: bool,
    topics: Vec<TopicFetch>,
    partitions: Vec<PartitionFetch>,
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(partitions.len());
    let mut partitions = partitions.into_iter();
    for topic in topics {
        for partition in partitions.by_ref().take(topic.partitions) {
            let offsets = partition.part.and_then(|part| cx.core.offsets(part));
            let name = topic.name.clone();
            let answer = Answer::new(read_committed, name, partition, offsets);
            answers.push(answer);
        }
    }
    answers
}

/// Those of a session's partitions that were looked at and that the client has to be told of.
fn news(
    server: &mut Server,
    cx: &Cx<'_>,
    session: i32,
    read_committed: bool,
    partitions: Vec<PartitionFetch>,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let Some(session) = server.fetch.sessions.get(session) else {
        debug_assert!(false, "a session outlives the request that waits in it");
        return answers;
    };
    for partition in partitions {
        let (place, at_end) = (partition.slot, matches!(partition.state, Progress::AtEnd));
        let offsets = partition.part.and_then(|part| cx.core.offsets(part));
        let Some(slot) = session.slots.get_mut(place) else {
            continue;
        };
        debug_assert!(matches!(slot.state, SlotState::Active(_)));
        debug_assert!(slot.watched || !at_end, "nobody would wake it");
        let topic = slot.topic.clone();
        let answer = Answer::new(read_committed, topic, partition, offsets);
        if slot.tell(offsets, answer.data.bytes, answer.error) {
            answers.push(answer);
        }
        session.settle(place, at_end);
    }
    // One entry a topic.
    answers.sort_by(|a, b| a.topic.cmp(&b.topic));
    answers
}

/// Opens a session with what a full request asked for; its id, or 0.
fn open_session(
    server: &mut Server,
    cx: &mut Cx<'_>,
    topics: &[TopicFetch],
    partitions: &[PartitionFetch],
) -> i32 {
    let names = topics
        .iter()
        .flat_map(|topic| std::iter::repeat_n(&topic.name, topic.partitions));
    let slots: Vec<NewSlot> = names
        .zip(partitions)
        .map(|(name, partition)| NewSlot {
            topic: name.clone(),
            wanted: FetchPartition {
                index: partition.index,
                current_leader_epoch: partition.leader_epoch,
                offset: partition.offset,
                max_bytes: i32::try_from(partition.max_bytes).unwrap_or(i32::MAX),
            },
            part: partition.part,
            offsets: partition.part.and_then(|part| cx.core.offsets(part)),
            error: match partition.state {
                Progress::Failed(code) => code,
                _ => error::NONE,
            },
        })
        .collect();
    let mut evicted = Vec::new();
    let now_ns = cx.now.mono_ns;
    let sessions = &mut server.fetch.sessions;
    let id = sessions.create(slots.into_iter(), now_ns, &mut evicted);
    for other in evicted {
        super::close_session(server, cx, other);
    }
    id
}

fn send(
    server: &mut Server,
    cx: &mut Cx<'_>,
    pending: &Pending,
    session_id: i32,
    answers: Vec<Answer>,
) {
    let Some((correlation_id, version)) = server.conns.request(pending.token) else {
        for answer in &answers {
            super::release(cx.core, &answer.data);
        }
        return;
    };
    let mut assembly = Assembly {
        written: BytesMut::with_capacity(64 + 64 * answers.len()),
        pieces: Vec::new(),
        piece_bytes: 0,
        copy_bytes_max: copy_bytes_max(server, cx),
    };
    wire::start_response(&mut assembly.written, correlation_id, version >= 12);
    let topics = answers.chunk_by(|a, b| a.topic == b.topic);
    let sizes: Vec<usize> = topics.map(<[Answer]>::len).collect();
    let count = sizes.len();
    codec::write_start(
        &mut assembly.written,
        version,
        error::NONE,
        session_id,
        count,
    );
    let mut answers = answers.into_iter().peekable();
    for size in sizes {
        let name = answers.peek().map_or("", |answer| &*answer.topic);
        codec::write_topic_start(&mut assembly.written, version, name, size);
        for answer in answers.by_ref().take(size) {
            write_partition(&mut assembly, answer, version);
        }
        codec::write_end(&mut assembly.written, version);
    }
    codec::write_end(&mut assembly.written, version);
    if let Err(parts) = server.conns.reply_parts(pending.token, assembly.finish()) {
        for part in parts {
            if let SendData::Span(span) = part {
                cx.core.release(span);
            }
        }
    }
}

/// A shared piece keeps all the memory that it was cut from. When readers keep more than the tail itself may take, and
/// what responses may take besides, pieces are copied.
fn copy_bytes_max(server: &Server, cx: &Cx<'_>) -> usize {
    let shared_max = cx.core.tail_bytes_max() + server.env.config.response_bytes_max as u64;
    if cx.core.live_bytes() as u64 > shared_max {
        usize::MAX
    } else {
        COPY_BYTES_MAX
    }
}

fn write_partition(assembly: &mut Assembly, answer: Answer, version: i16) {
    let offsets = answer.offsets;
    let head = PartitionData {
        index: answer.index,
        error: answer.error,
        high_watermark: offsets.map_or(-1, |o| o.high_watermark),
        last_stable_offset: offsets.map_or(-1, |o| o.last_stable),
        log_start_offset: offsets.map_or(-1, |o| o.log_start),
        aborted: answer.aborted.as_deref(),
        records_bytes: answer.data.bytes,
    };
    head.write(&mut assembly.written, version);
    assembly.add(answer.data);
    codec::write_end(&mut assembly.written, version);
}
