//! Connections: accepting, receiving, carrying out the application's commands, closing.
//!
//! Whatever happens to a connection only notes it and lists the connection; [`Net::attend`] then decides what is
//! to be started, once, after the application's commands. So a [`NetCommand::Fill`] issued while bytes are
//! handled comes before the next receive.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};
use slab::Slab;

use crate::id::Now;
use crate::shard::{CloseReason, ConnId, Driven, NetCommand};

use super::conn::{Conn, Fill, Gather};
use super::pipe::Pipes;
use super::pool::{GROUP, RecvPool};
use super::send::{ROOM, ROOM_BESIDE_COMMITS};
use super::sendfile::{Outcome, Senders};
use super::stats::RingStats;
use super::table::FileTable;
use super::uring::{Done, Kind, Ring, Token, errno};
use super::{RingConfig, SpanPath};

/// Pause before accepting again when the system had no descriptor or memory left.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;
/// Pause between two log lines about the same trouble.
const LOG_PAUSE_NS: u64 = 1_000_000_000;
/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness instead of trying at once.
pub(super) const POLL_FIRST: u16 = 1;

/// A place in the table of connections. `None` while its socket is being closed.
type Place = Option<Box<Conn>>;

/// What handling network events needs of the loop.
pub(super) struct Scene<'t, 'r, D> {
    pub(super) ring: &'t mut Ring<'r>,
    pub(super) shard: &'t mut D,
    pub(super) stats: &'t RingStats,
    pub(super) now: Now,
}

/// All connections of a shard.
pub(super) struct Net {
    pub(super) conns: Slab<Place>,
    accepted: u32,
    listener: RawFd,
    accept_armed: bool,
    accepting: bool,
    accept_at_ns: u64,
    logged_ns: u64,
    pool: RecvPool,
    max_connections: usize,
    listed: Vec<u32>,
    /// Bytes that may yet be sent in this turn.
    pub(super) room: usize,
    /// Listed again for the next turn: there was no room in this one.
    pub(super) postponed: Vec<u32>,
    /// What became of `sendfile` jobs, of helpers and of the shard's own thread, for the next turn.
    pub(super) outcomes: VecDeque<Outcome>,
    ended: Vec<(ConnId, CloseReason)>,
    pub(super) span_path: SpanPath,
    pub(super) senders: Senders,
    pub(super) pipes: Pipes,
    // Boxes: the kernel reads a gather where it lies, so it must not move.
    #[allow(clippy::vec_box)]
    pub(super) gathers: Vec<Box<Gather>>,
}

impl Net {
    /// Connections accepted from `listener`, which the caller keeps open.
    pub(super) fn new(
        config: &RingConfig,
        listener: RawFd,
        pool: RecvPool,
        senders: Senders,
    ) -> Self {
        Self {
            conns: Slab::new(),
            accepted: 0,
            listener,
            accept_armed: false,
            accepting: true,
            accept_at_ns: 0,
            logged_ns: 0,
            pool,
            max_connections: config.max_connections,
            listed: Vec::new(),
            room: 0,
            postponed: Vec::new(),
            outcomes: VecDeque::new(),
            ended: Vec::new(),
            span_path: config.span_path,
            senders,
            pipes: Pipes::default(),
            gathers: Vec::new(),
        }
    }

    pub(super) fn conn(&mut self, slot: u32) -> Option<&mut Conn> {
        self.conns.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The connection an application names, if it is still there, and its place.
    fn find(&mut self, id: ConnId) -> Option<(u32, &mut Conn)> {
        let slot = id.0 as u32;
        let conn = self.conn(slot)?;
        (conn.id == id).then_some((slot, conn))
    }

    /// Has [`Net::attend`] look at the connection.
    pub(super) fn list(&mut self, slot: u32) {
        if let Some(conn) = self.conn(slot)
            && !std::mem::replace(&mut conn.listed, true)
        {
            self.listed.push(slot);
        }
    }

    // --- accepting ---

    /// When [`Net::attend`] is needed without other input: monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        (self.accepting && !self.accept_armed).then_some(self.accept_at_ns)
    }

    /// Accepts nothing from now on.
    pub(super) fn stop_accepting(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        self.accepting = false;
        if self.accept_armed {
            let accept = CancelBuilder::user_data(Token::new(Kind::Accept, 0).pack());
            let cancel = opcode::AsyncCancel2::new(accept)
                .build()
                .user_data(Token::IGNORE);
            // SAFETY: names no memory.
            unsafe { ring.push(&cancel) }?;
        }
        Ok(())
    }

    fn arm_accept(&mut self, ring: &mut Ring<'_>, now_ns: u64) -> io::Result<()> {
        if self.accepting && !self.accept_armed && self.accept_at_ns <= now_ns {
            self.accept_armed = true;
            // Non-blocking for `sendfile` and `splice`, which would otherwise wait for a slow reader in a thread;
            // sends and receives of the ring wait for readiness either way.
            let entry = opcode::AcceptMulti::new(Fd(self.listener))
                .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
                .build()
                .user_data(Token::new(Kind::Accept, 0).pack());
            // SAFETY: names no memory; the driver keeps the listener open until the ring is drained.
            unsafe { ring.push(&entry) }?;
        }
        Ok(())
    }

    pub(super) fn on_accept<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        self.accept_armed &= cqueue::more(done.flags);
        if let Some(error) = errno(done.result) {
            if matches!(
                error,
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
            ) {
                self.accept_at_ns = scene.now.mono_ns + ACCEPT_PAUSE_NS;
                let error = io::Error::from_raw_os_error(error);
                self.log(scene.now, || {
                    tracing::warn!("cannot accept connections: {error}")
                });
            }
            return Ok(());
        }
        let fd = done.result;
        if self.conns.len() >= self.max_connections || !self.accepting {
            scene.stats.refused.add(1);
            let limit = self.max_connections;
            self.log(scene.now, || {
                tracing::warn!("connection refused: max_connections is {limit}")
            });
            return close_socket(scene.ring, fd, Token::IGNORE);
        }
        scene.stats.other_calls.add(1);
        let Some(peer) = peer_of(fd) else {
            // It is gone again already.
            return close_socket(scene.ring, fd, Token::IGNORE);
        };
        self.accepted = self.accepted.wrapping_add(1);
        let entry = self.conns.vacant_entry();
        let slot = entry.key() as u32;
        let id = ConnId(u64::from(self.accepted) << 32 | u64::from(slot));
        entry.insert(Some(Box::new(Conn::new(id, fd))));
        scene.stats.accepted.add(1);
        scene.stats.connections.set(self.conns.len() as u64);
        self.list(slot);
        scene.shard.accepted(scene.now, id, peer);
        Ok(())
    }

    fn log(&mut self, now: Now, line: impl FnOnce()) {
        if now.mono_ns.saturating_sub(self.logged_ns) >= LOG_PAUSE_NS {
            self.logged_ns = now.mono_ns;
            line();
        }
    }

    // --- receiving ---

    fn arm_recv(&mut self, ring: &mut Ring<'_>, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conn(slot).filter(|conn| conn.wants_recv()) else {
            return Ok(());
        };
        let hint = if conn.more { 0 } else { POLL_FIRST };
        let fd = Fd(conn.fd);
        let entry = match &mut conn.fill {
            Some(fill) => {
                let room = &mut fill.buf.spare_capacity_mut()[..fill.left];
                let bytes = u32::try_from(room.len()).unwrap_or(1 << 30);
                opcode::Recv::new(fd, room.as_mut_ptr().cast(), bytes)
                    .flags(libc::MSG_WAITALL)
                    .ioprio(hint)
                    .build()
            }
            None => opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .ioprio(hint)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT),
        };
        conn.recv_armed = true;
        conn.in_flight += 1;
        // SAFETY: a fill's memory is owned by the connection, whose buffer is not touched before the completion,
        // and which is not dropped before; otherwise the kernel picks from the pool, which outlives the ring's
        // operations.
        unsafe { ring.push(&entry.user_data(Token::new(Kind::Recv, slot).pack())) }
    }

    pub(super) fn on_recv<D: Driven>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        done: Done,
    ) -> io::Result<()> {
        let slot = done.token.index;
        let buffer = cqueue::buffer_select(done.flags);
        let Some(conn) = self.conns[slot as usize].as_deref_mut() else {
            unreachable!("a connection outlives its operations");
        };
        conn.in_flight -= 1;
        conn.recv_armed = false;
        conn.more = cqueue::sock_nonempty(done.flags);
        let (id, bytes) = (conn.id, usize::try_from(done.result).unwrap_or(0));
        scene.stats.received_bytes.add(bytes as u64);
        match done.result {
            0 => conn.eof = true,
            _ if bytes == 0 => self.recv_failed(scene, slot, -done.result)?,
            _ => match conn.fill.take() {
                Some(fill) => {
                    if let Some(buf) = conn.filled(fill, bytes)
                        && conn.is_heard()
                    {
                        scene.shard.filled(scene.now, id, buf);
                    }
                }
                None => {
                    if let Some(buffer) = buffer
                        && conn.is_heard()
                    {
                        let data = self.pool.bytes(buffer, bytes);
                        scene.shard.received(scene.now, id, data);
                    }
                }
            },
        }
        if let Some(buffer) = buffer {
            self.pool.give_back(buffer);
        }
        self.list(slot);
        Ok(())
    }

    fn recv_failed<D>(
        &mut self,
        scene: &mut Scene<'_, '_, D>,
        slot: u32,
        error: i32,
    ) -> io::Result<()> {
        if error == libc::ENOBUFS {
            // More connections had bytes than there are buffers: all are free again at the end of this turn.
            scene.stats.recv_starved.add(1);
            if let Some(conn) = self.conn(slot) {
                conn.more = true;
            }
            return Ok(());
        }
        self.end(scene.ring, slot, CloseReason::Failed(error))
    }

    // --- commands ---

    /// Carries out one command. Commands about connections that are gone, or ending, are dropped.
    pub(super) fn command(&mut self, ring: &mut Ring<'_>, command: NetCommand) -> io::Result<()> {
        let id = match &command {
            NetCommand::Send { conn, .. }
            | NetCommand::Close { conn }
            | NetCommand::Abort { conn }
            | NetCommand::Pause { conn }
            | NetCommand::Resume { conn }
            | NetCommand::Fill { conn, .. } => *conn,
        };
        let Some((slot, conn)) = self.find(id) else {
            return Ok(());
        };
        match command {
            NetCommand::Send { data, .. } => {
                if conn.is_heard() {
                    conn.queue.push(data);
                }
            }
            NetCommand::Close { .. } => conn.close_when_sent = true,
            NetCommand::Abort { .. } => self.end(ring, slot, CloseReason::Local)?,
            NetCommand::Pause { .. } => conn.paused = true,
            NetCommand::Resume { .. } => conn.paused = false,
            NetCommand::Fill { buf, len, .. } => {
                let room = buf.capacity() - buf.len();
                if conn.recv_armed || conn.fill.is_some() || len > room || len == 0 {
                    // The kernel may be writing elsewhere by now: going on would mix up the stream.
                    tracing::error!("fill of {len} bytes out of turn on connection {}", id.0);
                    self.end(ring, slot, CloseReason::Failed(libc::EINVAL))?;
                } else {
                    conn.fill = Some(Fill { buf, left: len });
                }
            }
        }
        self.list(slot);
        Ok(())
    }

    /// Starts whatever the listed connections and the listener are ready for. What is sent meanwhile is bounded, more
    /// tightly while a commit is under way (`committing`).
    pub(super) fn attend(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        now_ns: u64,
        committing: bool,
    ) -> io::Result<()> {
        self.arm_accept(ring, now_ns)?;
        self.room = if committing {
            ROOM_BESIDE_COMMITS
        } else {
            ROOM
        };
        let listed = std::mem::take(&mut self.listed);
        for &slot in &listed {
            let Some(conn) = self.conn(slot) else {
                continue;
            };
            conn.listed = false;
            if conn.ending.is_none() {
                self.start_send(ring, files, slot)?;
                self.close_if_sent(ring, slot)?;
                self.arm_recv(ring, slot)?;
            }
            self.finish_if_quiet(ring, slot)?;
        }
        let newly = std::mem::replace(&mut self.listed, listed);
        self.listed.clear();
        // First come, first served: those that had no room are first next time.
        let mut postponed = std::mem::take(&mut self.postponed);
        for slot in postponed.drain(..) {
            self.list(slot);
        }
        self.postponed = postponed;
        self.listed.extend(newly);
        Ok(())
    }

    /// Whether [`Net::attend`] has something to do.
    pub(super) fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    // --- ending ---

    fn close_if_sent(&mut self, ring: &mut Ring<'_>, slot: u32) -> io::Result<()> {
        match self.conn(slot).filter(|conn| conn.is_sent()) {
            Some(conn) if conn.close_when_sent => self.end(ring, slot, CloseReason::Local),
            Some(conn) if conn.eof => self.end(ring, slot, CloseReason::Peer),
            _ => Ok(()),
        }
    }

    /// Begins to tear the connection down: what the kernel still works on is cancelled, and waited for.
    pub(super) fn end(
        &mut self,
        ring: &mut Ring<'_>,
        slot: u32,
        reason: CloseReason,
    ) -> io::Result<()> {
        let Some(conn) = self.conn(slot).filter(|conn| conn.ending.is_none()) else {
            return Ok(());
        };
        conn.ending = Some(reason);
        let (fd, busy) = (Fd(conn.fd), conn.in_flight > 0);
        self.list(slot);
        if !busy {
            return Ok(());
        }
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all())
            .build()
            .user_data(Token::IGNORE);
        // SAFETY: names no memory.
        unsafe { ring.push(&cancel) }
    }

    fn finish_if_quiet(&mut self, ring: &mut Ring<'_>, slot: u32) -> io::Result<()> {
        let place = &mut self.conns[slot as usize];
        let quiet = |conn: &mut Box<Conn>| conn.in_flight == 0 && conn.ending.is_some();
        let Some(conn) = place.take_if(quiet) else {
            return Ok(());
        };
        if let Some(reason) = conn.ending {
            self.ended.push((conn.id, reason));
        }
        close_socket(ring, conn.fd, Token::new(Kind::Closed, slot))
    }

    /// The socket of a place is closed: the place is free.
    pub(super) fn on_closed(&mut self, stats: &RingStats, slot: u32) {
        self.conns.remove(slot as usize);
        stats.connections.set(self.conns.len() as u64);
    }

    /// Connections that have ended since the last call, to tell the shard.
    pub(super) fn next_ended(&mut self) -> Option<(ConnId, CloseReason)> {
        self.ended.pop()
    }

    /// Whether [`Net::next_ended`] has one.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Whether every connection has sent what it has to send, or is ending.
    pub(super) fn is_flushed(&self) -> bool {
        let mut open = self.conns.iter().filter_map(|(_, place)| place.as_ref());
        open.all(|conn| conn.is_sent() || conn.ending.is_some())
    }

    /// Ends all connections at once.
    pub(super) fn end_all(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        let slots: Vec<u32> = self.conns.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.end(ring, slot, CloseReason::Local)?;
        }
        Ok(())
    }

    /// Whether the kernel knows nothing of us any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.conns.is_empty() && !self.accept_armed
    }
}

impl Conn {
    /// Notes `bytes` received into `fill`; the buffer when it is complete.
    fn filled(&mut self, mut fill: Fill, bytes: usize) -> Option<bytes::BytesMut> {
        assert!(bytes <= fill.left);
        // SAFETY: the kernel has written `bytes` bytes behind what the buffer held, within its capacity.
        unsafe { fill.buf.set_len(fill.buf.len() + bytes) };
        fill.left -= bytes;
        if fill.left == 0 {
            return Some(fill.buf);
        }
        self.fill = Some(fill);
        None
    }
}

fn close_socket(ring: &mut Ring<'_>, fd: RawFd, token: impl Into<u64>) -> io::Result<()> {
    let close = opcode::Close::new(Fd(fd)).build().user_data(token.into());
    // SAFETY: names no memory. The descriptor is ours, and nothing names it after this.
    unsafe { ring.push(&close) }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.pack()
    }
}

fn peer_of(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: the descriptor was accepted just now and is open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let peer = rustix::net::getpeername(socket).ok()??;
    SocketAddr::try_from(peer).ok()
}

impl Drop for Net {
    fn drop(&mut self) {
        for (_, place) in &mut self.conns {
            match place.take() {
                // SAFETY: the descriptor is ours alone and nothing in the kernel names it.
                Some(conn) if conn.in_flight == 0 => drop(unsafe { OwnedFd::from_raw_fd(conn.fd) }),
                // Memory and descriptor are given up: the kernel may still use them.
                Some(conn) => std::mem::forget(conn),
                None => {}
            }
        }
    }
}

/// Has connections send small pieces at once: a Kafka response must not wait for the peer's acknowledgement of
/// the one before. Accepted sockets inherit it from the listener, which saves a call for each.
pub(super) fn send_at_once(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    rustix::net::sockopt::set_tcp_nodelay(listener.as_fd(), true)?;
    debug_assert!(listener.as_fd().as_raw_fd() >= 0);
    Ok(())
}
