//! Puts a Fetch response together: what surrounds the records is written, large pieces of records are shared.

use bytes::BytesMut;
use ringlog_engine::core::{Chunk, Core, FetchData};
use ringlog_engine::shard::{Cx, SendData};

use super::{PartitionFetch, Pending, Progress};
use crate::app::Server;
use crate::wire;
use crate::wire::error;
use crate::wire::fetch::{self as codec, PartitionData};

/// Pieces of records smaller than this are copied: an own send would cost more.
const COPY_BYTES_MAX: usize = 4096;

/// A response in the making: written bytes, and pieces that belong between them.
struct Assembly {
    written: BytesMut,
    /// Pieces by the written bytes that precede them.
    pieces: Vec<(usize, SendData)>,
    piece_bytes: usize,
}

impl Assembly {
    fn add(&mut self, data: FetchData) {
        for chunk in data.chunks {
            match chunk {
                Chunk::Bytes(slice) if slice.len() < COPY_BYTES_MAX => {
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

/// Answers a request with what was found.
pub(super) fn respond(server: &mut Server, cx: &mut Cx<'_>, pending: Pending) {
    let Some((correlation_id, version)) = server.conns.request(pending.token) else {
        for partition in &pending.partitions {
            if let Progress::Data(data) = &partition.state {
                super::release(cx.core, data);
            }
        }
        return;
    };
    let mut assembly = Assembly {
        written: BytesMut::with_capacity(64 + 64 * pending.partitions.len()),
        pieces: Vec::new(),
        piece_bytes: 0,
    };
    wire::start_response(&mut assembly.written, correlation_id, version >= 12);
    let (topics, session_id) = (pending.topics.len(), pending.session_id);
    codec::write_start(
        &mut assembly.written,
        version,
        error::NONE,
        session_id,
        topics,
    );
    let mut partitions = pending.partitions.into_iter();
    for topic in &pending.topics {
        codec::write_topic_start(
            &mut assembly.written,
            version,
            &topic.name,
            topic.partitions,
        );
        for partition in partitions.by_ref().take(topic.partitions) {
            write_partition(
                &mut assembly,
                cx.core,
                partition,
                version,
                pending.read_committed,
            );
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

fn write_partition(
    assembly: &mut Assembly,
    core: &Core,
    partition: PartitionFetch,
    version: i16,
    read_committed: bool,
) {
    let (error, data) = match partition.state {
        Progress::Failed(code) => (code, FetchData::default()),
        Progress::Data(data) => (error::NONE, data),
        Progress::Fresh | Progress::AtEnd | Progress::Reading(_) | Progress::Held(_) => {
            (error::NONE, FetchData::default())
        }
    };
    // A partition that is out of range says where its log begins and ends; one that is not here says nothing.
    let offsets = partition.part.and_then(|part| core.offsets(part));
    let head = PartitionData {
        index: partition.index,
        error,
        high_watermark: offsets.map_or(-1, |o| o.high_watermark),
        log_start_offset: offsets.map_or(-1, |o| o.log_start),
        read_committed,
        records_bytes: data.bytes,
    };
    head.write(&mut assembly.written, version);
    assembly.add(data);
    codec::write_end(&mut assembly.written, version);
}
