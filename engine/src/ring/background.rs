//! The shard's helper thread: destage writes and syncs on a ring of its own, file-system metadata by plain calls.
//!
//! Nothing here delays a commit: the kernel's worker threads belong to the thread that submits, and this is
//! another thread than the shard's.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use crate::disk::{Completion, DiskError, FileId, Op};
use crate::shard::Wake;

use super::error::{ExitOnPanic, RingError};
use super::root::Root;
use super::uring::{Kind, Ring, Token, Wait, create};
use super::waker::{ShardWaker, poll_entry};
use super::worker::Worker;

/// Submission entries of the helper's ring.
const ENTRIES: u32 = 128;
/// Orders carried out between two visits to the ring.
const ORDERS_AT_ONCE: usize = 32;

/// What the helper thread is told.
pub(super) enum Order {
    /// Carry this out.
    Op(Op),
    /// A slow operation that it had started has ended.
    SlowDone(super::worker::SlowDone),
    /// Finish what was ordered and end.
    Stop,
}

/// What it reports.
pub(super) struct Report {
    pub(super) completion: Completion,
    /// A file that is open from now on, and its descriptor.
    pub(super) opened: Option<(FileId, RawFd)>,
}

/// The shard's side of the helper thread.
pub(super) struct Background {
    orders: Sender<Order>,
    waker: Arc<ShardWaker>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    /// Operations ordered and not yet reported.
    outstanding: usize,
    ordered: bool,
}

impl Background {
    /// Starts the thread; it wakes `shard` when there is something to report.
    pub(super) fn start(
        data_dir: &Path,
        number: u32,
        shard: Arc<ShardWaker>,
    ) -> Result<Self, RingError> {
        let root = Root::open(data_dir)
            .map_err(|error| io::Error::from_raw_os_error(error.0))
            .map_err(RingError::setup("opening the data directory"))?;
        let failed = RingError::setup("starting the background thread");
        let waker = ShardWaker::new().map_err(&failed)?;
        let (orders, incoming) = channel();
        let (outgoing, reports) = channel();
        let context = Context {
            root: Arc::new(root),
            incoming,
            orders: orders.clone(),
            outgoing,
            waker: waker.clone(),
            shard,
        };
        let thread = std::thread::Builder::new()
            .name(format!("ringlog-disk-{number}"))
            .spawn(move || context.run())
            .map_err(&failed)?;
        Ok(Self {
            orders,
            waker,
            reports,
            thread: Some(thread),
            outstanding: 0,
            ordered: false,
        })
    }

    /// Hands an operation over; [`Background::flush`] makes sure that it is seen.
    pub(super) fn order(&mut self, op: Op) -> Result<(), RingError> {
        self.outstanding += 1;
        self.ordered = true;
        self.orders
            .send(Order::Op(op))
            .map_err(|_| RingError::Helper("background"))
    }

    /// Wakes the thread if it sleeps and was given something.
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.ordered) {
            self.waker.wake();
        }
    }

    /// The next report, without waiting.
    pub(super) fn next_report(&mut self) -> Result<Option<Report>, RingError> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.outstanding -= 1;
                Ok(Some(report))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(RingError::Helper("background")),
        }
    }

    /// Operations ordered and not reported.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // An error means that the thread is gone already.
        let _ = self.orders.send(Order::Stop);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread starts with.
struct Context {
    root: Arc<Root>,
    incoming: Receiver<Order>,
    orders: Sender<Order>,
    outgoing: Sender<Report>,
    waker: Arc<ShardWaker>,
    shard: Arc<ShardWaker>,
}

impl Context {
    fn run(self) {
        // The shard hears of a failure by the channel's end.
        if let Err(error) = self.serve() {
            tracing::error!("background thread: {error}");
        }
        self.shard.wake();
    }

    fn serve(&self) -> io::Result<()> {
        let mut ring = create(ENTRIES, 4 * ENTRIES)?;
        let mut ring = Ring::new(&mut ring);
        let workers = &mut [super::worker::DEPTH as u32, 0];
        ring.submitter().register_iowq_max_workers(workers)?;
        let mut worker = Worker::new(self.root.clone(), self.orders.clone(), self.waker.clone());
        let _guard = ExitOnPanic("background");
        let served = self.serve_with(&mut ring, &mut worker);
        if served.is_err() {
            worker.leak();
        }
        served
    }

    fn serve_with(&self, ring: &mut Ring<'_>, worker: &mut Worker) -> io::Result<()> {
        let mut done = Vec::new();
        let mut stopping = false;
        let mut armed = false;
        loop {
            if !armed {
                // SAFETY: names no memory, and the eventfd lives as long as `self`.
                unsafe { ring.push(&poll_entry(&self.waker, Token::new(Kind::Wake, 0))) }?;
                armed = true;
            }
            let mut took = self.take_orders(ring, worker, &mut stopping)?;
            self.report(worker);
            if stopping && worker.is_idle() {
                return Ok(());
            }
            if !took {
                self.waker.prepare_sleep();
                took = self.take_orders(ring, worker, &mut stopping)?;
            }
            ring.enter(if took { Wait::No } else { Wait::Forever })?;
            self.waker.awake();
            ring.reap(&mut done);
            for entry in done.drain(..) {
                match entry.token.kind {
                    Kind::Wake => armed = io_uring::cqueue::more(entry.flags),
                    Kind::Disk => worker.finish(ring, entry)?,
                    _ => {}
                }
            }
        }
    }

    /// Carries out some of what was ordered; whether there was anything. Not all at once: writes that were queued
    /// meanwhile must reach the device before more plain calls are made.
    fn take_orders(
        &self,
        ring: &mut Ring<'_>,
        worker: &mut Worker,
        stopping: &mut bool,
    ) -> io::Result<bool> {
        for taken in 0..ORDERS_AT_ONCE {
            // A failure to receive means that nothing more can be ordered: the sender is ours, so it never does.
            match self.incoming.try_recv() {
                Ok(Order::Op(op)) => worker.start(ring, op)?,
                Ok(Order::SlowDone(done)) => worker.slow_done(done),
                Ok(Order::Stop) => *stopping = true,
                Err(_) => return Ok(taken > 0),
            }
        }
        Ok(true)
    }

    fn report(&self, worker: &mut Worker) {
        let mut any = false;
        while let Some(report) = worker.next_report() {
            // The shard may be gone while its last orders are finished.
            let _ = self.outgoing.send(report);
            any = true;
        }
        if any {
            self.shard.wake();
        }
    }
}

/// A report that needs no file.
pub(super) fn plain(completion: Completion) -> Report {
    Report {
        completion,
        opened: None,
    }
}

/// A report of an opened file.
pub(super) fn opening(
    id: crate::disk::OpId,
    file: FileId,
    opened: Result<RawFd, DiskError>,
) -> Report {
    Report {
        opened: opened.ok().map(|fd| (file, fd.as_raw_fd())),
        completion: Completion {
            id,
            result: opened.map(|_| ()),
            returned: crate::disk::Returned::Nothing,
        },
    }
}
