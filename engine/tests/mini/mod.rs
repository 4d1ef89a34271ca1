//! A small protocol over a shard, enough to test and measure a driver with the real core below it.
//!
//! A request is 16 bytes, big-endian: what (u32), partition (u32), argument (u64). `APPEND` is followed by a
//! record batch of `argument` bytes; `FETCH` asks from offset `argument`. An answer is 16 bytes: status (u64), and
//! the base offset (append) or the length of the bytes that follow (fetch). A connection has one request at a time.

#![allow(unreachable_pub)]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use ringlog_engine::core::{
    AppendError, Chunk, Event, FetchData, FetchSpec, FileSpan, LogConfig, ReadId, Reply,
};
use ringlog_engine::id::{FrameSeq, Part, PartitionKey, TopicId};
use ringlog_engine::recovery::PartitionMeta;
use ringlog_engine::shard::{App, CloseReason, ConnId, Cx, SendData};

pub const APPEND: u32 = 1;
pub const FETCH: u32 = 2;
pub const OK: u64 = 0;
/// No room in the journal for now.
pub const BUSY: u64 = 1;
/// Anything else.
pub const FAILED: u64 = 2;
/// Bytes of a request without its batch, and of an answer without its bytes.
pub const HEAD: usize = 16;
/// The largest batch.
pub const BATCH_MAX: usize = 1 << 20;
/// The only topic.
pub const TOPIC: &str = "mini";

pub fn key(partition: u32) -> PartitionKey {
    PartitionKey {
        topic: TopicId([7; 16]),
        partition: partition as i32,
    }
}

/// The topic's partitions, as a catalog would list them.
pub fn catalog(partitions: u32, config: &LogConfig) -> Vec<PartitionMeta> {
    (0..partitions)
        .map(|partition| PartitionMeta {
            key: key(partition),
            topic_name: TOPIC.to_owned(),
            config: config.clone(),
        })
        .collect()
}

/// A request's 16 bytes.
pub fn request(what: u32, partition: u32, argument: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&what.to_be_bytes());
    head[4..8].copy_from_slice(&partition.to_be_bytes());
    head[8..].copy_from_slice(&argument.to_be_bytes());
    head
}

/// Status and value of an answer.
pub fn answer(head: &[u8; HEAD]) -> (u64, u64) {
    let mut head = &head[..];
    (head.get_u64(), head.get_u64())
}

#[derive(Default)]
struct Conn {
    input: BytesMut,
    /// Bytes queued for sending, with the span to release when they are sent.
    queued: VecDeque<(usize, Option<FileSpan>)>,
}

/// The protocol's side of a shard.
pub struct Mini {
    conns: HashMap<ConnId, Conn>,
    /// Appends that wait until their frame is durable.
    appends: VecDeque<(FrameSeq, ConnId, i64)>,
    fetches: HashMap<ReadId, ConnId>,
    spans: bool,
    draining: bool,
}

impl Mini {
    /// With `spans`, cold data is sent straight from files.
    pub fn new(spans: bool) -> Self {
        Self {
            conns: HashMap::new(),
            appends: VecDeque::new(),
            fetches: HashMap::new(),
            spans,
            draining: false,
        }
    }

    fn serve(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while let Some(input) = self.conns.get_mut(&conn).map(|conn| &mut conn.input) {
            if input.len() < HEAD {
                return;
            }
            let mut head = &input[..HEAD];
            let (what, partition, argument) = (head.get_u32(), head.get_u32(), head.get_u64());
            let part = cx.core.lookup(key(partition));
            let (Some(part), true) = (part, argument < BATCH_MAX as u64 || what == FETCH) else {
                return cx.net.abort(conn);
            };
            if what == FETCH {
                input.advance(HEAD);
                self.fetch(cx, conn, part, argument as i64);
                continue;
            }
            let len = HEAD + argument as usize;
            if input.len() < len {
                // Large batches come straight into the buffer.
                if len - input.len() > 16 * 1024 {
                    let missing = len - input.len();
                    let mut buf = std::mem::take(input);
                    buf.reserve(missing);
                    cx.net.fill(conn, buf, missing);
                }
                return;
            }
            let request = input.split_to(len);
            self.append(cx, conn, part, &request[HEAD..]);
        }
    }

    fn append(&mut self, cx: &mut Cx<'_>, conn: ConnId, part: Part, batch: &[u8]) {
        match cx.core.append(cx.now, part, batch) {
            Ok(done) => self.appends.push_back((done.frame, conn, done.base_offset)),
            Err(AppendError::Busy | AppendError::StorageFull) => self.answer(cx, conn, BUSY, 0),
            Err(_) => self.answer(cx, conn, FAILED, 0),
        }
    }

    fn fetch(&mut self, cx: &mut Cx<'_>, conn: ConnId, part: Part, offset: i64) {
        let spec = FetchSpec {
            offset,
            max_bytes: 1 << 20,
            min_one: true,
            spans: self.spans,
            committed: false,
        };
        match cx.core.fetch(cx.now, part, spec) {
            Ok(Reply::Ready(data)) => self.fetched(cx, conn, data),
            Ok(Reply::Pending(id)) => {
                self.fetches.insert(id, conn);
            }
            Err(_) => self.answer(cx, conn, FAILED, 0),
        }
    }

    fn fetched(&mut self, cx: &mut Cx<'_>, conn: ConnId, data: FetchData) {
        self.answer(cx, conn, OK, data.bytes as u64);
        for chunk in data.chunks {
            match (chunk, self.conns.get_mut(&conn)) {
                (Chunk::Bytes(slice), Some(state)) => {
                    state.queued.push_back((slice.len(), None));
                    cx.net.send(conn, SendData::Slice(slice));
                }
                (Chunk::Span(span), Some(state)) => {
                    state.queued.push_back((span.len, Some(span)));
                    cx.net.send(conn, SendData::Span(span));
                }
                (Chunk::Span(span), None) => cx.core.release(span),
                (Chunk::Bytes(_), None) => {}
            }
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, conn: ConnId, status: u64, value: u64) {
        if let Some(state) = self.conns.get_mut(&conn) {
            let head = [status.to_be_bytes(), value.to_be_bytes()].concat();
            state.queued.push_back((HEAD, None));
            cx.net.send(conn, SendData::Bytes(Bytes::from(head)));
        }
    }
}

impl App for Mini {
    type Mail = ();

    fn on_accept(&mut self, _: &mut Cx<'_>, conn: ConnId, _: SocketAddr) {
        self.conns.insert(conn, Conn::default());
    }
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId, data: &[u8]) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.input.extend_from_slice(data);
            self.serve(cx, conn);
        }
    }
    fn on_filled(&mut self, cx: &mut Cx<'_>, conn: ConnId, buf: BytesMut) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.input = buf;
            self.serve(cx, conn);
        }
    }
    fn on_sent(&mut self, cx: &mut Cx<'_>, conn: ConnId, mut bytes: usize) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        while let Some((left, span)) = state.queued.front_mut() {
            if *left > bytes {
                *left -= bytes;
                return;
            }
            bytes -= *left;
            if let Some(span) = span.take() {
                cx.core.release(span);
            }
            state.queued.pop_front();
        }
    }
    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, _: CloseReason) {
        let queued = self.conns.remove(&conn).unwrap_or_default().queued;
        for span in queued.into_iter().filter_map(|(_, span)| span) {
            cx.core.release(span);
        }
    }
    fn on_event(&mut self, cx: &mut Cx<'_>, event: Event) {
        if let Event::Fetched(id, result) = event
            && let Some(conn) = self.fetches.remove(&id)
        {
            match result {
                Ok(data) => self.fetched(cx, conn, data),
                Err(_) => self.answer(cx, conn, FAILED, 0),
            }
        }
    }
    fn on_mail(&mut self, _: &mut Cx<'_>, (): ()) {}
    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        let durable = cx.core.durable();
        while let Some(&(frame, conn, offset)) = self.appends.front()
            && frame <= durable
        {
            self.appends.pop_front();
            self.answer(cx, conn, OK, offset as u64);
        }
    }
    fn deadline_ns(&self) -> Option<u64> {
        None
    }
    fn on_shutdown(&mut self, _: &mut Cx<'_>) {
        self.draining = true;
    }
    fn is_drained(&self) -> bool {
        self.draining && self.appends.is_empty()
    }
}
