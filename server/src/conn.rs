//! Connections: their unparsed bytes, and the queue that lets responses leave in request order.
//!
//! Every request takes a slot of its connection's queue. A response written while its request is handled goes
//! straight into the connection's output buffer; one that comes later is kept in its slot. Once a turn the ready
//! slots at the front of the queue are sent, neighbouring small ones as one piece.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::BytesMut;
use hashbrown::HashMap;
use kafka_wire::KafkaResponse;
use ringlog_engine::core::FileSpan;
use ringlog_engine::shard::{ConnId, Net, SendData};

use crate::api::produce::Parked;
use crate::wire;
use crate::wire::header::RequestHeader;

/// Requests of one connection that may be under way; past it the connection is not read.
const SLOTS_MAX: usize = 1024;
/// Bytes of responses that one connection may hold, unsent; past it the connection is not read.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Names one request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Where it came from.
    pub conn: ConnId,
    /// Counts the connection's requests.
    pub slot: u64,
}

/// A response on its way.
#[derive(Debug)]
enum Body {
    /// Not known yet.
    Waiting,
    /// In the connection's output buffer, behind those of earlier slots; `ready` to leave or not.
    Staged { bytes: usize, ready: bool },
    /// Complete, in pieces.
    Parts { parts: Vec<SendData>, bytes: usize },
}

#[derive(Debug)]
struct Slot {
    correlation_id: i32,
    api_version: i16,
    body: Body,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: SocketAddr,
    /// Received and not handled yet. A frame that is not complete starts it.
    pub(crate) input: BytesMut,
    /// `input` is with the driver.
    pub(crate) filling: bool,
    /// What `input` counts for in the shard's request memory.
    pub(crate) charged: usize,
    /// Waits for request memory.
    pub(crate) starved: bool,
    /// The first request of `input` waits for room in the journal.
    pub(crate) parked: Option<Parked>,
    /// The driver was told not to receive.
    pub(crate) paused: bool,
    pub(crate) closing: bool,
    pub(crate) last_active_ns: u64,
    /// Fetch requests that wait.
    pub(crate) fetches: Vec<u64>,
    dirty: bool,
    slots: VecDeque<Slot>,
    first_slot: u64,
    output: BytesMut,
    /// Bytes in slots, not handed to the driver yet.
    held: usize,
    /// Bytes handed to the driver since the start.
    queued: u64,
    /// Bytes the driver has sent since the start.
    sent: u64,
    /// Files on their way to the client, by the count of bytes after which they may be released.
    spans: VecDeque<(u64, FileSpan)>,
    /// `sent` as it was at `still_since_ns`.
    sent_then: u64,
    still_since_ns: u64,
}

impl Conn {
    fn new(peer: SocketAddr, now_ns: u64) -> Self {
        Self {
            peer,
            input: BytesMut::new(),
            filling: false,
            charged: 0,
            starved: false,
            parked: None,
            paused: false,
            closing: false,
            last_active_ns: now_ns,
            fetches: Vec::new(),
            dirty: false,
            slots: VecDeque::new(),
            first_slot: 0,
            output: BytesMut::new(),
            held: 0,
            queued: 0,
            sent: 0,
            spans: VecDeque::new(),
            sent_then: 0,
            still_since_ns: now_ns,
        }
    }

    /// How long the client has taken nothing of what waits for it, nanoseconds; to be asked now and then.
    pub(crate) fn still_ns(&mut self, now_ns: u64) -> u64 {
        if self.unsent() == 0 || self.sent != self.sent_then {
            self.sent_then = self.sent;
            self.still_since_ns = now_ns;
        }
        now_ns.saturating_sub(self.still_since_ns)
    }

    /// Bytes of responses that have not left.
    pub(crate) fn unsent(&self) -> usize {
        self.held + (self.queued - self.sent) as usize
    }

    /// Whether its client has taken responses, and all of them.
    pub(crate) fn has_taken_all(&self) -> bool {
        self.sent > 0 && self.unsent() == 0
    }

    /// Whether no further request may be handled for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.closing
            || self.parked.is_some()
            || self.slots.len() >= SLOTS_MAX
            || self.unsent() >= HELD_BYTES_MAX
    }

    /// Whether it keeps memory of requests without waiting for anything but its client: for the rest of a request, or for it to
    /// take its responses.
    pub(crate) fn holds_memory_idly(&self) -> bool {
        self.charged > 0 && !self.starved && self.parked.is_none()
    }

    /// Whether every request is answered and every answer sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.unsent() == 0
    }

    /// Gives back what the buffers of a connection hold that has nothing under way. The buffer of a large response would
    /// otherwise stay as long as its client does, however silent that is.
    pub(crate) fn rest(&mut self) {
        if self.is_idle() && self.input.is_empty() && !self.filling && self.charged == 0 {
            self.input = BytesMut::new();
            self.output = BytesMut::new();
            self.slots = VecDeque::new();
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = number.checked_sub(self.first_slot)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// Sends the ready responses at the front of the queue.
    fn flush(&mut self, id: ConnId, net: &mut Net) {
        let mut run = 0;
        while let Some(slot) = self.slots.front_mut() {
            match &mut slot.body {
                Body::Waiting | Body::Staged { ready: false, .. } => break,
                Body::Staged { bytes, .. } => run += *bytes,
                Body::Parts { parts, bytes } => {
                    let parts = std::mem::take(parts);
                    let bytes = *bytes;
                    self.send_run(id, net, run);
                    run = 0;
                    self.held -= bytes;
                    for part in parts {
                        self.queued += part.len() as u64;
                        if let SendData::Span(span) = &part {
                            self.spans.push_back((self.queued, *span));
                        }
                        net.send(id, part);
                    }
                }
            }
            self.slots.pop_front();
            self.first_slot += 1;
        }
        self.send_run(id, net, run);
    }

    fn send_run(&mut self, id: ConnId, net: &mut Net, run: usize) {
        if run > 0 {
            self.held -= run;
            self.queued += run as u64;
            net.send(id, SendData::Bytes(self.output.split_to(run).freeze()));
        }
    }
}

/// All connections of a shard.
#[derive(Debug, Default)]
pub struct Conns {
    table: HashMap<ConnId, Conn>,
    dirty: Vec<ConnId>,
    /// Bytes of responses that have not left, of all connections.
    unsent: usize,
}

impl Conns {
    pub(crate) fn open(&mut self, id: ConnId, peer: SocketAddr, now_ns: u64) {
        self.table.insert(id, Conn::new(peer, now_ns));
    }

    /// Forgets a connection; returns it with the file spans that its responses still held.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<(Conn, Vec<FileSpan>)> {
        let mut conn = self.table.remove(&id)?;
        self.unsent -= conn.unsent();
        let mut spans: Vec<FileSpan> = conn.spans.drain(..).map(|(_, span)| span).collect();
        for slot in conn.slots.drain(..) {
            if let Body::Parts { parts, .. } = slot.body {
                spans.extend(parts.iter().filter_map(|part| match part {
                    SendData::Span(span) => Some(*span),
                    _ => None,
                }));
            }
        }
        Some((conn, spans))
    }

    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.table.get_mut(&id)
    }

    /// Bytes of responses that have not left, of all connections.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.table.iter().map(|(id, conn)| (*id, conn))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Conn)> {
        self.table.iter_mut().map(|(id, conn)| (*id, conn))
    }

    /// The client's address, as long as it is connected.
    #[must_use]
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.table.get(&id).map(|conn| conn.peer)
    }

    /// Whether the client that sent the request is still there.
    #[must_use]
    pub fn is_open(&self, token: Token) -> bool {
        self.table.get(&token.conn).is_some_and(|c| !c.closing)
    }

    /// Takes a slot for a request.
    pub(crate) fn begin(&mut self, id: ConnId, header: &RequestHeader<'_>) -> Option<Token> {
        let conn = self.table.get_mut(&id)?;
        conn.slots.push_back(Slot {
            correlation_id: header.correlation_id,
            api_version: header.api_version,
            body: Body::Waiting,
        });
        Some(Token {
            conn: id,
            slot: conn.first_slot + conn.slots.len() as u64 - 1,
        })
    }

    pub(crate) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(&id)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    pub(crate) fn next_dirty(&mut self) -> Option<ConnId> {
        let id = self.dirty.pop()?;
        if let Some(conn) = self.table.get_mut(&id) {
            conn.dirty = false;
        }
        Some(id)
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Answers a request, at once or later; nothing happens if the client is gone. The message's version is the
    /// request's.
    pub fn reply<M: KafkaResponse>(&mut self, token: Token, message: &M) {
        let result = self.write(token, true, |out, correlation_id, version| {
            wire::encode(out, correlation_id, message, version).map(|_| ())
        });
        if let Some(Err(error)) = result {
            tracing::error!(message = M::NAME, %error, "a response cannot be encoded, closing the connection");
            self.give_up(token);
        }
    }

    /// Answers a request with what `write` appends, `ready` to leave or held until [`Conns::release`].
    pub(crate) fn write<E>(
        &mut self,
        token: Token,
        ready: bool,
        write: impl FnOnce(&mut BytesMut, i32, i16) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let conn = self.table.get_mut(&token.conn)?;
        let newest = conn.first_slot + conn.slots.len() as u64 == token.slot + 1;
        let at = usize::try_from(token.slot.checked_sub(conn.first_slot)?).ok()?;
        let slot = conn.slots.get_mut(at)?;
        debug_assert!(matches!(slot.body, Body::Waiting), "answered twice");
        let (correlation_id, version) = (slot.correlation_id, slot.api_version);
        if newest || !ready {
            debug_assert!(newest, "only the newest request's response can be staged");
            let start = conn.output.len();
            if let Err(error) = write(&mut conn.output, correlation_id, version) {
                conn.output.truncate(start);
                return Some(Err(error));
            }
            let bytes = conn.output.len() - start;
            slot.body = Body::Staged { bytes, ready };
            conn.held += bytes;
            self.unsent += bytes;
        } else {
            let mut out = BytesMut::new();
            if let Err(error) = write(&mut out, correlation_id, version) {
                return Some(Err(error));
            }
            let bytes = out.len();
            slot.body = Body::Parts {
                parts: vec![SendData::Bytes(out.freeze())],
                bytes,
            };
            conn.held += bytes;
            self.unsent += bytes;
        }
        if ready {
            self.mark(token.conn);
        }
        Some(Ok(()))
    }

    /// Lets a response leave that was written before.
    pub(crate) fn release(&mut self, token: Token) {
        if let Some(conn) = self.table.get_mut(&token.conn)
            && let Some(slot) = conn.slot(token.slot)
            && let Body::Staged { ready, .. } = &mut slot.body
        {
            *ready = true;
            self.mark(token.conn);
        }
    }

    /// Correlation id and version of a request that waits.
    pub(crate) fn request(&mut self, token: Token) -> Option<(i32, i16)> {
        let slot = self.table.get_mut(&token.conn)?.slot(token.slot)?;
        Some((slot.correlation_id, slot.api_version))
    }

    /// Answers a request with a complete response in pieces. Gives the pieces back if the client is gone.
    pub(crate) fn reply_parts(
        &mut self,
        token: Token,
        parts: Vec<SendData>,
    ) -> Result<(), Vec<SendData>> {
        let Some(conn) = self.table.get_mut(&token.conn) else {
            return Err(parts);
        };
        let bytes = parts.iter().map(SendData::len).sum();
        let Some(slot) = conn.slot(token.slot) else {
            return Err(parts);
        };
        slot.body = Body::Parts { parts, bytes };
        conn.held += bytes;
        self.unsent += bytes;
        self.mark(token.conn);
        Ok(())
    }

    /// Ends a request that has no response.
    pub fn reply_nothing(&mut self, token: Token) {
        drop(self.reply_parts(token, Vec::new()));
    }

    /// Ends the connection of a request that cannot be answered.
    pub fn give_up(&mut self, token: Token) {
        if let Some(conn) = self.table.get_mut(&token.conn) {
            conn.closing = true;
            self.mark(token.conn);
        }
    }

    /// Sends what is ready. Returns true when the connection is to be closed.
    pub(crate) fn flush(&mut self, id: ConnId, net: &mut Net) -> bool {
        let Some(conn) = self.table.get_mut(&id) else {
            return false;
        };
        conn.flush(id, net);
        conn.closing
    }

    /// Counts sent bytes; calls `release` for files that are done with.
    pub(crate) fn on_sent(&mut self, id: ConnId, bytes: usize, mut release: impl FnMut(FileSpan)) {
        let Some(conn) = self.table.get_mut(&id) else {
            return;
        };
        conn.sent += bytes as u64;
        self.unsent -= bytes;
        debug_assert!(conn.sent <= conn.queued);
        while let Some(&(end, span)) = conn.spans.front()
            && end <= conn.sent
        {
            conn.spans.pop_front();
            release(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::shard::NetCommand;

    fn begin(conns: &mut Conns, id: ConnId, correlation_id: i32) -> Token {
        let header = RequestHeader {
            api_key: 3,
            api_version: 9,
            correlation_id,
            client_id: None,
        };
        conns.begin(id, &header).expect("open")
    }

    fn put(conns: &mut Conns, token: Token, ready: bool, text: &[u8]) {
        let done = conns.write(token, ready, |out, _, _| {
            out.extend_from_slice(text);
            Ok::<(), ()>(())
        });
        assert_eq!(done, Some(Ok(())));
    }

    fn sent(net: &mut Net) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(command) = net.next_command() {
            match command {
                NetCommand::Send {
                    data: SendData::Bytes(bytes),
                    ..
                } => all.push(bytes.to_vec()),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    #[test]
    fn responses_leave_in_request_order_and_neighbours_as_one_piece() {
        let (mut conns, mut net) = (Conns::default(), Net::default());
        let id = ConnId(1);
        conns.open(id, ([127, 0, 0, 1], 9).into(), 0);
        let a = begin(&mut conns, id, 1);
        put(&mut conns, a, false, b"a");
        let b = begin(&mut conns, id, 2);
        let c = begin(&mut conns, id, 3);
        put(&mut conns, c, true, b"c");
        conns.flush(id, &mut net);
        assert!(sent(&mut net).is_empty(), "the first is not ready");
        conns.release(a);
        conns.flush(id, &mut net);
        assert_eq!(sent(&mut net), [b"a"]);
        put(&mut conns, b, true, b"b");
        let d = begin(&mut conns, id, 4);
        put(&mut conns, d, true, b"d");
        conns.flush(id, &mut net);
        assert_eq!(sent(&mut net), [b"b".to_vec(), b"cd".to_vec()]);
        let conn = conns.get(id).expect("open");
        assert!(conn.slots.is_empty() && conn.held == 0 && conn.unsent() == 4);
        conns.on_sent(id, 4, |_| panic!("no files"));
        assert!(conns.get(id).expect("open").is_idle());
        assert_eq!(conns.unsent(), 0);
        let e = begin(&mut conns, id, 5);
        put(&mut conns, e, true, b"gone");
        assert_eq!(conns.unsent(), 4);
        conns.remove(id);
        assert_eq!(conns.unsent(), 0);
    }

    #[test]
    fn a_silent_connection_keeps_no_buffers_and_a_busy_one_all() {
        let (mut conns, mut net) = (Conns::default(), Net::default());
        let id = ConnId(1);
        conns.open(id, ([127, 0, 0, 1], 9).into(), 0);
        let kept = |conns: &mut Conns| {
            let conn = conns.get(id).expect("open");
            conn.rest();
            (
                conn.input.capacity(),
                conn.output.capacity(),
                conn.slots.capacity(),
            )
        };
        let large = begin(&mut conns, id, 1);
        put(&mut conns, large, true, &[7; 100_000]);
        assert!(kept(&mut conns).1 >= 100_000, "not sent yet");
        conns.flush(id, &mut net);
        assert_eq!(sent(&mut net)[0].len(), 100_000);
        assert!(kept(&mut conns).2 > 0, "the client has not taken it yet");
        conns.on_sent(id, 100_000, |_| panic!("no files"));
        conns
            .get(id)
            .expect("open")
            .input
            .extend_from_slice(b"half a req");
        assert!(kept(&mut conns).0 >= 10, "a request is arriving");
        conns.get(id).expect("open").input.clear();
        assert_eq!(kept(&mut conns), (0, 0, 0));
        let next = begin(&mut conns, id, 2);
        put(&mut conns, next, true, b"next");
        conns.flush(id, &mut net);
        assert_eq!(sent(&mut net), [b"next"]);
    }
}
