//! The application's contract, and the turn that drivers run.

use std::net::SocketAddr;

use bytes::BytesMut;

use crate::buf::BufPool;
use crate::core::{Core, Event, Fatal};
use crate::disk::{Completion, Op};
use crate::id::Now;

use super::net::{ConnId, Net, NetCommand};

/// What an application may touch while it handles something.
pub struct Cx<'a> {
    /// The shard's logs.
    pub core: &'a mut Core,
    /// The shard's connections.
    pub net: &'a mut Net,
    /// The time of this turn.
    pub now: Now,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// We closed it.
    Local,
    /// The network or a file read failed, by error number.
    Failed(i32),
}

/// A protocol over one shard's logs, free of I/O. Every call returns without waiting.
pub trait App {
    /// Messages from other threads.
    type Mail: Send + 'static;

    /// A client connected.
    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId, peer: SocketAddr);
    /// Bytes arrived. The application copies what it keeps.
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId, data: &[u8]);
    /// A buffer given to [`Net::fill`] has all its bytes.
    fn on_filled(&mut self, cx: &mut Cx<'_>, conn: ConnId, buf: BytesMut);
    /// `bytes` of what was queued have left for the kernel.
    fn on_sent(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: usize);
    /// The connection is gone; the last call about it.
    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, reason: CloseReason);
    /// News from the core. [`Event::Fatal`] never comes here: the driver ends the process.
    fn on_event(&mut self, cx: &mut Cx<'_>, event: Event);
    /// A message from another thread.
    fn on_mail(&mut self, cx: &mut Cx<'_>, mail: Self::Mail);
    /// Once a turn, after everything else: answer what became durable, run timers.
    fn on_turn(&mut self, cx: &mut Cx<'_>);
    /// When [`App::on_turn`] is needed next without other input: monotonic nanoseconds.
    fn deadline_ns(&self) -> Option<u64>;
    /// Whether whatever arrives may wait for the next deadline, to be taken together: a turn is due then anyway, and nothing
    /// that is expected is in a hurry. A driver may use it to be woken once instead of for each request.
    fn gathers(&self) -> bool {
        false
    }
    /// The process was asked to end: accept no new work, finish what is under way.
    fn on_shutdown(&mut self, cx: &mut Cx<'_>);
    /// Whether everything under way is finished, after [`App::on_shutdown`].
    fn is_drained(&self) -> bool;
}

/// The core and its application, driven by turns. A driver, each turn: waits for input or the deadline, reads the
/// clocks once, hands every input in, calls [`Shard::turn`], then takes all operations and commands out.
pub struct Shard<A: App> {
    core: Core,
    app: A,
    net: Net,
    fatal: Option<Fatal>,
    draining: bool,
}

macro_rules! with_cx {
    ($self:ident, $now:expr, $cx:ident => $call:expr) => {{
        let mut context = Cx {
            core: &mut $self.core,
            net: &mut $self.net,
            now: $now,
        };
        let $cx = &mut context;
        $call
    }};
}

impl<A: App> Shard<A> {
    /// A shard at the start of its life.
    pub fn new(core: Core, app: A) -> Self {
        Self {
            core,
            app,
            net: Net::default(),
            fatal: None,
            draining: false,
        }
    }

    /// A client connected.
    pub fn accepted(&mut self, now: Now, conn: ConnId, peer: SocketAddr) {
        with_cx!(self, now, cx => self.app.on_accept(cx, conn, peer));
    }

    /// Bytes arrived.
    pub fn received(&mut self, now: Now, conn: ConnId, data: &[u8]) {
        with_cx!(self, now, cx => self.app.on_data(cx, conn, data));
    }

    /// A [`NetCommand::Fill`] is complete.
    pub fn filled(&mut self, now: Now, conn: ConnId, buf: BytesMut) {
        with_cx!(self, now, cx => self.app.on_filled(cx, conn, buf));
    }

    /// Queued bytes left for the kernel.
    pub fn sent(&mut self, now: Now, conn: ConnId, bytes: usize) {
        with_cx!(self, now, cx => self.app.on_sent(cx, conn, bytes));
    }

    /// A connection ended. Files of unsent spans must be released by the driver's user through `on_close`.
    pub fn closed(&mut self, now: Now, conn: ConnId, reason: CloseReason) {
        with_cx!(self, now, cx => self.app.on_close(cx, conn, reason));
    }

    /// A message arrived.
    pub fn mail(&mut self, now: Now, mail: A::Mail) {
        with_cx!(self, now, cx => self.app.on_mail(cx, mail));
    }

    /// A disk operation ended.
    pub fn completed(&mut self, now: Now, completion: Completion) {
        self.core.complete(now, completion);
    }

    /// The process was asked to end.
    pub fn shutdown(&mut self, now: Now) {
        self.draining = true;
        with_cx!(self, now, cx => self.app.on_shutdown(cx));
    }

    /// Where the memory for what arrives comes from, for the driver to stock.
    pub(crate) fn memory(&self) -> &BufPool {
        self.core.tail_memory()
    }

    /// Ends a turn: delivers the core's news, lets the application answer, starts commits and background work.
    pub fn turn(&mut self, now: Now) {
        self.deliver(now);
        with_cx!(self, now, cx => self.app.on_turn(cx));
        if self.draining && self.app.is_drained() {
            self.core.shutdown(now);
        }
        self.core.poll(now);
        self.deliver(now);
    }

    fn deliver(&mut self, now: Now) {
        while let Some(event) = self.core.next_event() {
            match event {
                Event::Fatal(fatal) => self.fatal = Some(fatal),
                other => with_cx!(self, now, cx => self.app.on_event(cx, other)),
            }
        }
    }

    /// The next disk operation to carry out.
    pub fn next_op(&mut self) -> Option<Op> {
        self.core.next_op()
    }

    /// The next network command to carry out.
    pub fn next_command(&mut self) -> Option<NetCommand> {
        self.net.next_command()
    }

    /// When the next turn is due without input, monotonic nanoseconds; 0 is at once.
    pub fn deadline_ns(&self) -> Option<u64> {
        match (self.core.deadline_ns(), self.app.deadline_ns()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether whatever arrives may wait for the deadline: see [`App::gathers`].
    pub fn gathers(&self) -> bool {
        self.app.gathers()
    }

    /// A failure after which the process must exit without another acknowledgement: checked by the driver after
    /// each turn, before it carries out commands.
    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal
    }

    /// Whether a shutdown is complete: the application has drained and the core has written everything.
    pub fn is_finished(&self) -> bool {
        self.draining && self.core.is_finished()
    }

    /// The core, for tests and statistics.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The application, for tests and statistics.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// Both, for tests.
    pub fn parts_mut(&mut self) -> (&mut Core, &mut A) {
        (&mut self.core, &mut self.app)
    }
}
