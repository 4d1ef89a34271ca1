//! A shard that does what the test asks and tells what happens to it.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::buf::{BLOCK, BufPool};
use crate::core::Fatal;
use crate::disk::{Completion, Op};
use crate::id::Now;
use crate::ring::{RingError, RingStats, Shutdown};
use crate::shard::{CloseReason, ConnId, Driven, MailSender, NetCommand, SendData};

use super::subject::{Config, ShardInputs, run};

/// How the script answers bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Sends them back, and pauses while more than 256 KiB wait to be sent.
    Echo,
    /// Takes the first 4 bytes as a length and fills a buffer with as many that follow, each time.
    Fill,
    /// Only tells.
    Listen,
    /// Once something has come in, gathers what else comes for [`GATHER_NS`], and tells how much.
    Gather,
}

/// What a test asks of the script.
pub(super) enum Ask {
    Command(NetCommand),
    Op(Op),
    /// Send this, and fail in the same turn.
    FailSending(ConnId, Bytes, Fatal),
    /// Run this on the shard's thread.
    Run(Box<dyn FnOnce() + Send>),
}

/// What a script tells the test.
#[derive(Debug)]
pub(super) enum Told {
    Accepted(ConnId, SocketAddr),
    Received(ConnId, Vec<u8>),
    /// Bytes taken in one turn.
    Taken(usize),
    Filled(ConnId, BytesMut),
    Sent(usize),
    Closed(ConnId, CloseReason),
    Completed(Completion),
}

pub(super) struct Script {
    mode: Mode,
    told: Sender<Told>,
    commands: VecDeque<NetCommand>,
    ops: VecDeque<Op>,
    waiting: std::collections::HashMap<ConnId, usize>,
    fatal: Option<Fatal>,
    shutdown: bool,
    memory: BufPool,
    taken: usize,
    gather_until_ns: Option<u64>,
}

const PAUSE_AT: usize = 256 * 1024;
/// How long a script gathers, nanoseconds.
pub(super) const GATHER_NS: u64 = 500_000_000;

impl Script {
    fn tell(&self, told: Told) {
        // The test may have seen enough.
        let _ = self.told.send(told);
    }

    fn echo(&mut self, conn: ConnId, data: &[u8]) {
        let waiting = self.waiting.entry(conn).or_default();
        let before = *waiting;
        *waiting += data.len();
        if before < PAUSE_AT && *waiting >= PAUSE_AT {
            self.commands.push_back(NetCommand::Pause { conn });
        }
        let data = SendData::Bytes(Bytes::copy_from_slice(data));
        self.commands.push_back(NetCommand::Send { conn, data });
    }
}

impl Driven for Script {
    type Mail = Ask;

    fn accepted(&mut self, _: Now, conn: ConnId, peer: SocketAddr) {
        self.tell(Told::Accepted(conn, peer));
    }
    fn received(&mut self, _: Now, conn: ConnId, data: &[u8]) {
        match self.mode {
            Mode::Echo => self.echo(conn, data),
            Mode::Fill => {
                let len = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
                let mut buf = BytesMut::with_capacity(len);
                buf.extend_from_slice(&data[4..]);
                let len = len - buf.len();
                self.commands.push_back(NetCommand::Fill { conn, buf, len });
            }
            Mode::Listen => self.tell(Told::Received(conn, data.to_vec())),
            Mode::Gather => self.taken += data.len(),
        }
    }
    fn filled(&mut self, _: Now, conn: ConnId, buf: BytesMut) {
        self.tell(Told::Filled(conn, buf));
    }
    fn sent(&mut self, _: Now, conn: ConnId, bytes: usize) {
        if self.mode == Mode::Listen {
            return self.tell(Told::Sent(bytes));
        }
        let waiting = self.waiting.entry(conn).or_default();
        let before = *waiting;
        *waiting -= bytes;
        if before >= PAUSE_AT && *waiting < PAUSE_AT {
            self.commands.push_back(NetCommand::Resume { conn });
        }
    }
    fn closed(&mut self, _: Now, conn: ConnId, reason: CloseReason) {
        self.waiting.remove(&conn);
        self.tell(Told::Closed(conn, reason));
    }
    fn mail(&mut self, _: Now, ask: Ask) {
        match ask {
            Ask::Command(command) => self.commands.push_back(command),
            Ask::Op(op) => self.ops.push_back(op),
            Ask::Run(f) => f(),
            Ask::FailSending(conn, bytes, fatal) => {
                self.fatal = Some(fatal);
                let data = SendData::Bytes(bytes);
                self.commands.push_back(NetCommand::Send { conn, data });
            }
        }
    }
    fn completed(&mut self, _: Now, completion: Completion) {
        self.tell(Told::Completed(completion));
    }
    fn shutdown(&mut self, _: Now) {
        self.shutdown = true;
    }
    fn turn(&mut self, now: Now) {
        if self.mode != Mode::Gather {
            return;
        }
        let is_over = |until_ns: &u64| *until_ns <= now.mono_ns;
        if self.gather_until_ns.as_ref().is_some_and(is_over) {
            self.gather_until_ns = None;
        }
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            self.tell(Told::Taken(taken));
            let until_ns = now.mono_ns + GATHER_NS;
            self.gather_until_ns.get_or_insert(until_ns);
        }
    }
    fn next_op(&mut self) -> Option<Op> {
        self.ops.pop_front()
    }
    fn next_command(&mut self) -> Option<NetCommand> {
        self.commands.pop_front()
    }
    fn deadline_ns(&self) -> Option<u64> {
        self.gather_until_ns
    }
    fn gathers(&self) -> bool {
        self.gather_until_ns.is_some()
    }
    fn fatal(&self) -> Option<Fatal> {
        self.fatal
    }
    fn is_finished(&self) -> bool {
        self.shutdown
    }
    fn memory(&self) -> &BufPool {
        &self.memory
    }
}

/// A running driver.
pub(super) struct Harness {
    pub(super) dir: tempfile::TempDir,
    pub(super) address: SocketAddr,
    pub(super) asks: MailSender<Ask>,
    pub(super) told: Receiver<Told>,
    pub(super) shutdown: Shutdown,
    pub(super) stats: Arc<RingStats>,
    thread: Option<JoinHandle<Result<(), RingError>>>,
}

impl Harness {
    pub(super) fn start(mode: Mode) -> Self {
        Self::with(mode, |_| {})
    }

    pub(super) fn with(mode: Mode, tune: impl FnOnce(&mut Config)) -> Self {
        // Not under /tmp, which may be in memory.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut config = Config::new(dir.path().to_owned(), 0);
        tune(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let (asks, inputs) = ShardInputs::new(listener, shutdown.clone()).unwrap();
        let stats = inputs.stats();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let script = |_| Script {
                mode,
                told: tell,
                commands: VecDeque::new(),
                ops: VecDeque::new(),
                waiting: Default::default(),
                fatal: None,
                shutdown: false,
                memory: BufPool::new(BLOCK, 2),
                taken: 0,
                gather_until_ns: None,
            };
            run(&config, inputs, script, |_| {})
        });
        Self {
            dir,
            address,
            asks,
            told,
            shutdown,
            stats,
            thread: Some(thread),
        }
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    pub(super) fn ask(&self, ask: Ask) {
        assert!(self.asks.send(ask));
    }

    pub(super) fn command(&self, command: NetCommand) {
        self.ask(Ask::Command(command));
    }

    pub(super) fn next(&self) -> Told {
        self.told.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Skips what is told until `pick` takes something.
    pub(super) fn until<T>(&self, pick: impl Fn(Told) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }

    pub(super) fn accepted(&self) -> ConnId {
        self.until(|told| match told {
            Told::Accepted(conn, _) => Some(conn),
            _ => None,
        })
    }

    pub(super) fn closed(&self) -> (ConnId, CloseReason) {
        self.until(|told| match told {
            Told::Closed(conn, reason) => Some((conn, reason)),
            _ => None,
        })
    }

    /// Runs `op` and returns its completion.
    pub(super) fn op(&self, op: Op) -> Completion {
        self.ask(Ask::Op(op));
        self.until(|told| match told {
            Told::Completed(completion) => Some(completion),
            _ => None,
        })
    }

    /// Waits for the driver to end after whatever makes it.
    pub(super) fn join(&mut self) -> Result<(), RingError> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Asks for the shutdown and waits for it.
    pub(super) fn stop(mut self) {
        self.shutdown.request();
        self.join().unwrap();
    }
}
