//! Sending: one operation at a time for each connection, in the order of its queue.

use std::io;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;

use crate::core::FileSpan;
use crate::shard::{CloseReason, Driven};

use super::SpanPath;
use super::cached::is_cached;
use super::conn::{Conn, Gather, SEND_BYTES, Sending};
use super::net::{Net, Scene};
use super::sendfile::{JOB_BYTES, Job, JobEnd, Outcome, carry_out};
use super::table::FileTable;
use super::uring::{Done, Kind, Ring, Token, errno};

/// Gathers kept for reuse.
const KEEP_GATHERS: usize = 64;
/// What little a connection has to send, bytes, leaves whatever the others have had.
const LITTLE: usize = 64 << 10;
/// Bytes that may leave in one turn while a commit is under way. The kernel copies them on the shard's thread, and the
/// commit's completion is seen after that: at 5 GB/s, 50 µs later.
pub(super) const ROOM_BESIDE_COMMITS: usize = 256 << 10;
/// And while none is.
pub(super) const ROOM: usize = 2 * SEND_BYTES;

impl Net {
    /// Starts sending what is at the front of the queue, if nothing is being sent.
    pub(super) fn start_send(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        slot: u32,
    ) -> io::Result<()> {
        let gathers = &mut self.gathers;
        let conn = self.conns.get_mut(slot as usize);
        let Some(conn) = conn.and_then(Option::as_deref_mut) else {
            return Ok(());
        };
        if !matches!(conn.sending, Sending::Idle) || conn.queue.is_empty() {
            return Ok(());
        }
        let most = match (self.room, conn.queue.bytes()) {
            (_, little) if little <= LITTLE => LITTLE,
            (0, _) => {
                self.postponed.push(slot);
                return Ok(());
            }
            (room, _) => room.min(SEND_BYTES),
        };
        if let Some(span) = conn.queue.front_span() {
            return self.start_span(ring, files, slot, span, most);
        }
        conn.window.for_copies(conn.fd, conn.queue.bytes());
        let (entry, bytes) = match conn.queue.front_alone(most) {
            Some(bytes) => {
                let flags = send_flags(conn.queue.span_after_front());
                // At most 1 MiB, so the length fits.
                let entry = opcode::Send::new(Fd(conn.fd), bytes.as_ptr(), bytes.len() as u32)
                    .flags(flags)
                    .build();
                conn.sending = Sending::One;
                (entry, bytes.len())
            }
            None => {
                let mut gather = gathers.pop().unwrap_or_else(Gather::new);
                conn.queue.gather(&mut gather, most);
                let flags = send_flags(gather.before_span);
                let bytes = gather.bytes;
                let entry = opcode::SendMsg::new(Fd(conn.fd), gather.message())
                    .flags(flags as u32)
                    .build();
                conn.sending = Sending::Many(gather);
                (entry, bytes)
            }
        };
        self.room = self.room.saturating_sub(bytes);
        conn.in_flight += 1;
        // SAFETY: the bytes belong to pieces at the front of the connection's queue, and the message to its
        // `sending`; both stay until the completion, for which the connection waits before it goes.
        unsafe { push(ring, entry, Kind::Send, slot) }
    }

    pub(super) fn on_sent<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        let slot = done.token.index;
        let conn = operated(self.conn(slot));
        let sending = std::mem::replace(&mut conn.sending, Sending::Idle);
        if let Sending::Many(gather) = sending
            && self.gathers.len() < KEEP_GATHERS
        {
            self.gathers.push(gather);
        }
        match errno(done.result) {
            Some(error) => self.end(scene.ring, slot, CloseReason::Failed(error))?,
            None => self.progress(scene, slot, done.result as usize),
        }
        self.list(slot);
        Ok(())
    }

    /// `bytes` more of the queue have left.
    fn progress<D: Driven>(&mut self, scene: &mut Scene<'_, '_, D>, slot: u32, bytes: usize) {
        let Some(conn) = self.conn(slot) else { return };
        conn.queue.consume(bytes);
        scene.stats.sent_bytes.add(bytes as u64);
        if conn.ending.is_none() && bytes > 0 {
            scene.shard.sent(scene.now, conn.id, bytes);
        }
    }

    // --- spans ---

    fn start_span(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        slot: u32,
        span: FileSpan,
        most: usize,
    ) -> io::Result<()> {
        let Some(file) = files.fd(span.file) else {
            return self.end(ring, slot, CloseReason::Failed(libc::EBADF));
        };
        let mapped = self.span_path == SpanPath::Mmap;
        match self.span_path {
            SpanPath::Sendfile | SpanPath::Mmap => {
                let conn = operated_new(self.conn(slot));
                conn.sending = Sending::Helper;
                if mapped {
                    conn.window.for_copies(conn.fd, span.len);
                } else {
                    conn.window.for_pages(conn.fd);
                }
                let mut job = Job {
                    slot,
                    socket: conn.fd,
                    file,
                    offset: span.offset,
                    len: span.len.min(JOB_BYTES),
                    mapped,
                };
                let here = job.len.min(most);
                if is_cached(file, job.offset, here) {
                    // What is in memory does not block; a page may yet be evicted in between, which costs one read.
                    job.len = here;
                    let outcome = carry_out(&job);
                    self.room = self.room.saturating_sub(outcome.sent);
                    self.outcomes.push_back(outcome);
                    return Ok(());
                }
                if self.senders.order(job) {
                    return Ok(());
                }
                let conn = operated(self.conn(slot));
                conn.sending = Sending::Idle;
                self.end(ring, slot, CloseReason::Failed(libc::EIO))
            }
            SpanPath::Splice => {
                let pipe = match self.pipes.take() {
                    Ok(pipe) => pipe,
                    Err(error) => {
                        let reason = CloseReason::Failed(error.raw_os_error());
                        return self.end(ring, slot, reason);
                    }
                };
                let conn = operated_new(self.conn(slot));
                let len = span.len.min(pipe.bytes) as u32;
                let entry = opcode::Splice::new(
                    Fd(file),
                    span.offset as i64,
                    Fd(pipe.write_end()),
                    -1,
                    len,
                );
                conn.sending = Sending::Pipe { pipe, held: 0 };
                // SAFETY: names no memory; the pipe stays with the connection and the file with the core until
                // the connection has ended.
                unsafe { push(ring, entry.build(), Kind::SpliceIn, slot) }
            }
        }
    }

    /// A `sendfile` job has ended.
    pub(super) fn on_outcome<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        outcome: &Outcome,
    ) -> io::Result<()> {
        let slot = outcome.slot;
        operated(self.conn(slot)).sending = Sending::Idle;
        scene.stats.span_bytes.add(outcome.sent as u64);
        self.progress(scene, slot, outcome.sent);
        match outcome.end {
            JobEnd::Share => {}
            JobEnd::Full => self.wait_for_room(scene.ring, slot)?,
            JobEnd::Failed(error) => self.end(scene.ring, slot, CloseReason::Failed(error))?,
        }
        self.list(slot);
        Ok(())
    }

    /// Waits until the socket takes bytes again.
    fn wait_for_room(&mut self, ring: &mut Ring<'_>, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conn(slot).filter(|conn| conn.ending.is_none()) else {
            return Ok(());
        };
        conn.in_flight += 1;
        if matches!(conn.sending, Sending::Idle) {
            conn.sending = Sending::Room;
        }
        let entry = opcode::PollAdd::new(Fd(conn.fd), libc::POLLOUT as u32).build();
        // SAFETY: names no memory.
        unsafe { push(ring, entry, Kind::Writable, slot) }
    }

    pub(super) fn on_writable<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        let slot = done.token.index;
        let conn = operated(self.conn(slot));
        if let Some(error) = errno(done.result) {
            self.end(scene.ring, slot, CloseReason::Failed(error))?;
        } else if matches!(conn.sending, Sending::Pipe { .. }) {
            self.splice_out(scene.ring, slot)?;
        } else {
            conn.sending = Sending::Idle;
        }
        self.list(slot);
        Ok(())
    }

    /// File bytes are in the pipe.
    pub(super) fn on_spliced_in<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        let slot = done.token.index;
        let conn = operated(self.conn(slot));
        if done.result <= 0 {
            // Nothing left in the file: the core promised bytes that are not there.
            let error = errno(done.result).unwrap_or(libc::EIO);
            self.end(scene.ring, slot, CloseReason::Failed(error))?;
        } else if let Sending::Pipe { held, .. } = &mut conn.sending {
            *held = done.result as usize;
            self.splice_out(scene.ring, slot)?;
        }
        self.list(slot);
        Ok(())
    }

    fn splice_out(&mut self, ring: &mut Ring<'_>, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conn(slot).filter(|conn| conn.ending.is_none()) else {
            return Ok(());
        };
        let more = conn.queue.front_span().map_or(0, |span| span.len);
        let Sending::Pipe { pipe, held } = &conn.sending else {
            return Ok(());
        };
        let more = if more > *held { libc::SPLICE_F_MORE } else { 0 };
        let entry = opcode::Splice::new(
            Fd(pipe.read_end()),
            -1,
            Fd(conn.fd),
            -1,
            // A pipe holds far less than 4 GiB.
            *held as u32,
        )
        .flags(libc::SPLICE_F_NONBLOCK | more)
        .build();
        conn.in_flight += 1;
        // SAFETY: names no memory; the pipe stays with the connection.
        unsafe { push(ring, entry, Kind::SpliceOut, slot) }
    }

    /// Bytes of the pipe have left for the socket.
    pub(super) fn on_spliced_out<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        let slot = done.token.index;
        let conn = operated(self.conn(slot));
        match errno(done.result) {
            Some(libc::EAGAIN) => self.wait_for_room(scene.ring, slot)?,
            Some(error) => self.end(scene.ring, slot, CloseReason::Failed(error))?,
            None => {
                let bytes = done.result as usize;
                let mut left = 0;
                if let Sending::Pipe { held, .. } = &mut conn.sending {
                    *held = held.saturating_sub(bytes);
                    left = *held;
                }
                if left == 0
                    && let Sending::Pipe { pipe, .. } =
                        std::mem::replace(&mut conn.sending, Sending::Idle)
                {
                    self.pipes.give_back(pipe);
                }
                scene.stats.span_bytes.add(bytes as u64);
                self.progress(scene, slot, bytes);
                if left > 0 {
                    self.splice_out(scene.ring, slot)?;
                }
            }
        }
        self.list(slot);
        Ok(())
    }
}

/// The connection whose operation has completed, with one operation less.
fn operated(conn: Option<&mut Conn>) -> &mut Conn {
    let Some(conn) = conn else {
        unreachable!("a connection outlives its operations");
    };
    conn.in_flight -= 1;
    conn
}

/// The connection that gets one operation more.
fn operated_new(conn: Option<&mut Conn>) -> &mut Conn {
    let Some(conn) = conn else {
        unreachable!("only connections that are there send");
    };
    conn.in_flight += 1;
    conn
}

/// A send goes on until all is taken; a peer that went away is an error, not a signal.
fn send_flags(span_follows: bool) -> i32 {
    let more = if span_follows { libc::MSG_MORE } else { 0 };
    libc::MSG_WAITALL | libc::MSG_NOSIGNAL | more
}

/// Queues `entry` for connection `slot`.
///
/// # Safety
/// As [`Ring::push`].
unsafe fn push(ring: &mut Ring<'_>, entry: Entry, kind: Kind, slot: u32) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    unsafe { ring.push(&entry.user_data(Token::new(kind, slot).pack())) }
}
