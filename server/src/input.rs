//! What arrives on connections: whole requests are handled where they lie, the start of a small one is kept, and
//! the rest of a large one is received straight into a buffer that grows as its bytes arrive.

use std::collections::VecDeque;

use bytes::BytesMut;
use ringlog_engine::shard::{ConnId, Cx};

use crate::app::Server;
use crate::conn::Conn;

/// A request that lacks more than this is received straight into its buffer.
const FILL_BYTES_MIN: usize = 16 << 10;
/// A request's buffer has at most this size until as much has arrived; then it doubles.
const STEP_BYTES: usize = 1 << 20;
/// Buffers kept for reuse, in bytes.
const POOL_BYTES_MAX: usize = 32 << 20;

/// Memory for requests that are not complete or wait for room in the journal, bounded over all connections.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    used: usize,
    limit: usize,
    pool: Vec<BytesMut>,
    pooled: usize,
    starving: VecDeque<ConnId>,
    /// What connections hold that wait for more, in bytes.
    starved: usize,
}

impl RequestMemory {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            used: 0,
            limit,
            pool: Vec::new(),
            pooled: 0,
            starving: VecDeque::new(),
            starved: 0,
        }
    }

    /// Whether somebody waits for memory.
    pub(crate) fn is_contended(&self) -> bool {
        !self.starving.is_empty()
    }

    /// A buffer with room for `bytes` for a connection that holds `held` bytes, or `None` when all memory is in use. Whoever
    /// is the last that does not wait itself gets it past the limit: nobody else would give any back. So a request larger than
    /// the limit gets through, too.
    fn take(&mut self, bytes: usize, held: usize) -> Option<BytesMut> {
        if self.used + bytes > self.limit && self.used > self.starved + held {
            return None;
        }
        let found = self.pool.iter().rposition(|b| b.capacity() >= bytes);
        let buf = match found {
            Some(at) => {
                let buf = self.pool.swap_remove(at);
                self.pooled -= buf.capacity();
                buf
            }
            None => BytesMut::with_capacity(bytes),
        };
        self.used += buf.capacity();
        Some(buf)
    }

    fn give(&mut self, mut buf: BytesMut, charged: usize) {
        self.used -= charged;
        buf.clear();
        let bytes = buf.capacity();
        if charged > 0 && bytes <= 2 * STEP_BYTES && self.pooled + bytes <= POOL_BYTES_MAX {
            self.pooled += bytes;
            self.pool.push(buf);
        }
    }

    /// A connection that holds `held` bytes waits for more.
    fn starve(&mut self, id: ConnId, held: usize) {
        self.starving.push_back(id);
        self.starved += held;
    }

    /// Takes back what a closed connection held.
    pub(crate) fn forget(&mut self, conn: Conn) {
        if conn.starved {
            self.starved -= conn.charged;
        }
        if conn.filling {
            // The driver has the buffer and drops it.
            self.used -= conn.charged;
        } else {
            self.give(conn.input, conn.charged);
        }
    }
}

impl Server {
    /// Memory that requests under way take, in bytes; without buffers of small ones.
    #[must_use]
    pub fn request_memory(&self) -> usize {
        self.memory.used
    }

    /// Bytes arrived in the driver's buffer.
    pub(crate) fn received(&mut self, cx: &mut Cx<'_>, id: ConnId, data: &[u8]) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        if conn.closing {
            return;
        }
        conn.last_active_ns = cx.now.mono_ns;
        if conn.input.is_empty() && !conn.is_blocked() {
            let used = self.frames(cx, id, data);
            let rest = &data[used..];
            if let Some(conn) = self.conns.get(id)
                && !rest.is_empty()
            {
                conn.input.extend_from_slice(rest);
            }
        } else {
            conn.input.extend_from_slice(data);
            self.work_off(cx, id);
        }
        self.receive_rest(cx, id);
        self.regulate(cx, id);
    }

    /// The driver has filled a buffer.
    pub(crate) fn filled(&mut self, cx: &mut Cx<'_>, id: ConnId, buf: BytesMut) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        conn.last_active_ns = cx.now.mono_ns;
        conn.filling = false;
        conn.input = buf;
        self.work_off(cx, id);
        self.receive_rest(cx, id);
        self.regulate(cx, id);
    }

    /// Goes on with a connection after something that held it up may have gone.
    pub(crate) fn go_on(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        if conn.filling || conn.is_blocked() {
            return;
        }
        if !conn.input.is_empty() {
            self.work_off(cx, id);
        }
        self.regulate(cx, id);
    }

    /// Handles the requests that are complete in a connection's buffer.
    pub(crate) fn work_off(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        let mut input = std::mem::take(&mut conn.input);
        let used = self.frames(cx, id, &input);
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        if used == input.len() {
            let charged = std::mem::take(&mut conn.charged);
            if charged > 0 {
                self.memory.give(input, charged);
                self.wake_starved(cx);
            } else {
                input.clear();
                conn.input = input;
            }
            return;
        }
        if used > 0 {
            let left = input.len() - used;
            input.copy_within(used.., 0);
            input.truncate(left);
        }
        conn.input = input;
    }

    /// Asks the driver for the rest of a large request that has begun to arrive.
    fn receive_rest(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        if conn.is_blocked() || conn.filling {
            return;
        }
        let have = conn.input.len();
        let Some(len) = conn.input.first_chunk() else {
            return;
        };
        // Not negative and not too large: `frames` looked at it.
        let whole = 4 + i32::from_be_bytes(*len).max(0) as usize;
        if whole < have + FILL_BYTES_MIN {
            return;
        }
        let size = whole.min(STEP_BYTES.max(2 * have));
        if conn.charged < size {
            let Some(mut larger) = self.memory.take(size, conn.charged) else {
                conn.starved = true;
                self.memory.starve(id, conn.charged);
                return;
            };
            let charged = larger.capacity();
            larger.extend_from_slice(&conn.input);
            let old = std::mem::replace(&mut conn.input, larger);
            let old_charge = std::mem::replace(&mut conn.charged, charged);
            self.memory.give(old, old_charge);
        }
        let buf = std::mem::take(&mut conn.input);
        conn.filling = true;
        cx.net.fill(id, buf, size - have);
    }

    /// Lets connections that wait for request memory try again. They go on with the next bytes that arrive.
    pub(crate) fn wake_starved(&mut self, cx: &mut Cx<'_>) {
        self.memory.starved = 0;
        for id in std::mem::take(&mut self.memory.starving) {
            if let Some(conn) = self.conns.get(id) {
                conn.starved = false;
            }
            self.regulate(cx, id);
        }
    }

    /// Stops or resumes receiving.
    fn regulate(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let Some(conn) = self.conns.get(id) else {
            return;
        };
        let pause = conn.starved || conn.is_blocked();
        if pause != conn.paused && !conn.closing {
            conn.paused = pause;
            if pause {
                cx.net.pause(id);
            } else {
                cx.net.resume(id);
            }
        }
    }
}
