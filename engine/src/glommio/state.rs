//! What the tasks of one shard share. All run on one thread, and nothing is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::disk::Completion;
use crate::ring::{RingStats, now};
use crate::shard::{CloseReason, ConnId, Driven, NetCommand};

use super::conn::Conn;
use super::disk::Files;

/// One shard, its connections and its files.
pub(super) struct State<D: Driven> {
    pub(super) shard: RefCell<D>,
    pub(super) stats: Arc<RingStats>,
    pub(super) conns: RefCell<HashMap<ConnId, Rc<Conn>>>,
    /// Commands taken from the shard and not yet carried out: that waits for the turn.
    pub(super) commands: RefCell<VecDeque<NetCommand>>,
    pub(super) files: Rc<Files>,
    /// Disk operations under way.
    pub(super) in_flight: Cell<usize>,
    /// The shard is over: it hears of nothing but its connections.
    pub(super) over: Cell<bool>,
    /// Where received bytes, and small pieces to send, lie for the length of one call.
    pub(super) scratch: RefCell<Vec<u8>>,
    pub(super) together: RefCell<Vec<u8>>,
    /// Connections whose peer sends nothing more, until the next turn has been carried out.
    ended: RefCell<Vec<Rc<Conn>>>,
    due: Cell<bool>,
    turns: RefCell<Option<Waker>>,
}

impl<D: Driven> State<D> {
    pub(super) fn new(
        shard: D,
        files: Rc<Files>,
        stats: Arc<RingStats>,
        recv_buffer_bytes: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard: RefCell::new(shard),
            stats,
            conns: RefCell::default(),
            commands: RefCell::default(),
            files,
            in_flight: Cell::new(0),
            over: Cell::new(false),
            scratch: RefCell::new(vec![0; recv_buffer_bytes.max(1)]),
            together: RefCell::default(),
            ended: RefCell::default(),
            due: Cell::new(true),
            turns: RefCell::new(None),
        })
    }

    /// Has the shard take a turn soon: after whatever else is ready to run, so that a turn serves all of it.
    pub(super) fn rouse(&self) {
        self.due.set(true);
        if let Some(task) = self.turns.take() {
            task.wake();
        }
    }

    /// Whether a turn is due; `task` is woken when one becomes due later.
    pub(super) fn is_due(&self, task: &Waker) -> bool {
        let due = self.due.take();
        if !due {
            *self.turns.borrow_mut() = Some(task.clone());
        }
        due
    }

    pub(super) fn completed(&self, completion: Completion) {
        self.in_flight.set(self.in_flight.get() - 1);
        if !self.over.get() {
            self.shard.borrow_mut().completed(now(), completion);
        }
        self.rouse();
    }

    /// Bytes for the application: the front of the scratch buffer.
    pub(super) fn received(&self, conn: &Conn, bytes: usize) {
        let scratch = self.scratch.borrow();
        let mut shard = self.shard.borrow_mut();
        shard.received(now(), conn.id, &scratch[..bytes]);
        self.take_fill(&mut shard, conn);
        self.rouse();
    }

    pub(super) fn filled(&self, conn: &Conn, buf: bytes::BytesMut) {
        let mut shard = self.shard.borrow_mut();
        shard.filled(now(), conn.id, buf);
        self.take_fill(&mut shard, conn);
        self.rouse();
    }

    pub(super) fn sent(&self, conn: &Conn, bytes: usize) {
        self.stats.sent_bytes.add(bytes as u64);
        self.shard.borrow_mut().sent(now(), conn.id, bytes);
        self.rouse();
    }

    pub(super) fn closed(&self, conn: &Conn, reason: CloseReason) {
        let mut conns = self.conns.borrow_mut();
        conns.remove(&conn.id);
        self.stats.connections.set(conns.len() as u64);
        self.shard.borrow_mut().closed(now(), conn.id, reason);
        self.rouse();
    }

    /// `conn` was read to its end.
    pub(super) fn ended_reading(&self, conn: Rc<Conn>) {
        self.ended.borrow_mut().push(conn);
        self.rouse();
    }

    /// A fill must be known before the connection is read again; it tells nobody anything, so it need not wait for
    /// the turn as other commands do.
    fn take_fill(&self, shard: &mut D, conn: &Conn) {
        let mut commands = self.commands.borrow_mut();
        while let Some(command) = shard.next_command() {
            match command {
                NetCommand::Fill { conn: id, buf, len } if id == conn.id => conn.fill(buf, len),
                other => commands.push_back(other),
            }
        }
    }

    /// Carries out the shard's commands. Commands about connections that are gone, or ending, are dropped.
    pub(super) fn carry_out_commands(&self) {
        loop {
            let waiting = self.commands.borrow_mut().pop_front();
            let next = waiting.or_else(|| self.shard.borrow_mut().next_command());
            let Some(command) = next else { break };
            let id = match &command {
                NetCommand::Send { conn, .. }
                | NetCommand::Close { conn }
                | NetCommand::Abort { conn }
                | NetCommand::Pause { conn }
                | NetCommand::Resume { conn }
                | NetCommand::Fill { conn, .. } => *conn,
            };
            let conn = self.conns.borrow().get(&id).cloned();
            if let Some(conn) = conn {
                conn.command(command);
            }
        }
        for conn in self.ended.take() {
            conn.end_of_input();
        }
    }
}
