//! Entry points, and what is set up before its loop runs.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use crate::id::Now;
use crate::shard::{App, Driven, MailSender, Shard};

use super::background::Background;
use super::error::ExitOnPanic;
use super::lanes::{FILE_WORKERS, Lanes};
use super::net::{Net, send_at_once};
use super::pool::RecvPool;
use super::sendfile::Senders;
use super::spawn::{Inputs, spawn};
use super::stock::Stock;
use super::table::FileTable;
use super::turns::Turns;
use super::uring::{Ring, create};
use super::{RingConfig, RingError, ShardWaker, Shutdown, SpanPath, now};

/// Entries of the submission queue: more than that are submitted in several calls.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: more than that wait in the kernel.
const COMPLETIONS: u32 = 8192;

/// What reaches a shard besides its ring.
pub type ShardInputs<M> = Inputs<M, ShardWaker>;

impl<M: Send + 'static> Inputs<M, ShardWaker> {
    /// Inputs of a shard that accepts from `listener`, and the sender of its mailbox.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(listener: TcpListener, shutdown: Shutdown) -> io::Result<(MailSender<M>, Self)> {
        Ok(Self::with_waker(listener, shutdown, ShardWaker::new()?))
    }
}

/// Runs a shard on the calling thread until a shutdown is complete. `make_shard` runs on this thread once
/// everything is set up.
///
/// # Errors
/// [`RingError`]: after [`RingError::Fatal`] the process must exit at once; [`spawn_shard`] does that itself.
pub fn run_shard<A: App>(
    config: &RingConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: impl FnOnce(Now) -> Shard<A>,
) -> Result<(), RingError> {
    run(config, inputs, make_shard, |_| {})
}

/// Runs a shard on a thread of its own. A fatal error or a panic there ends the whole process at once, with one
/// line on standard error and the status of [`exit_status`](super::exit_status).
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_shard<A, F>(
    config: RingConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: F,
) -> io::Result<JoinHandle<()>>
where
    A: App,
    F: FnOnce(Now) -> Shard<A> + Send + 'static,
{
    spawn(config.shard, move |on_fatal| {
        run(&config, inputs, make_shard, on_fatal)
    })
}

/// [`run_shard`] for anything that can be driven; `on_fatal` is told of a fatal failure before anything else is
/// done.
pub(super) fn run<D: Driven>(
    config: &RingConfig,
    inputs: ShardInputs<D::Mail>,
    make_shard: impl FnOnce(Now) -> D,
    on_fatal: impl Fn(&RingError),
) -> Result<(), RingError> {
    let mut uring = create(SUBMISSIONS, COMPLETIONS).map_err(RingError::setup("io_uring_setup"))?;
    let ring = Ring::new(&mut uring);
    let registering = RingError::setup("io_uring_register");
    // The second is for sockets and pipes, which need few: unchanged.
    ring.submitter()
        .register_iowq_max_workers(&mut [FILE_WORKERS, 0])
        .map_err(&registering)?;
    let files = FileTable::register(&ring).map_err(&registering)?;
    let pool = RecvPool::register(&ring, config.recv_buffers, config.recv_buffer_bytes)
        .map_err(&registering)?;
    // Helpers first: they would inherit the pinning.
    let background = Background::start(&config.data_dir, config.shard, inputs.waker.clone())?;
    let senders = match config.span_path {
        SpanPath::Sendfile | SpanPath::Mmap => config.sendfile_threads.max(1),
        SpanPath::Splice => 0,
    };
    let senders = Senders::start(config.shard, senders, &inputs.waker)?;
    let mut stock = Stock::start(config.shard)?;
    pin(config.cpu)?;
    send_at_once(&inputs.listener).map_err(RingError::setup("TCP_NODELAY on the listener"))?;

    let net = Net::new(config, inputs.listener.as_raw_fd(), pool, senders);
    let lanes = Lanes::new(config.commit_sync);
    let shard = make_shard(now());
    stock.keep(shard.memory())?;
    let mut turns = Turns::new(
        config,
        &inputs,
        ring,
        shard,
        (net, lanes, files, background),
    );
    let _guard = ExitOnPanic("shard");
    let ended = turns.run(&inputs.mailbox);
    if let Err(error) = &ended {
        on_fatal(error);
    }
    if !turns.drain() {
        // The kernel may still use the memory of what did not complete in time.
        std::mem::forget(turns);
    }
    ended
}

fn pin(cpu: Option<usize>) -> Result<(), RingError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let failed = RingError::setup("pinning the shard to its core");
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| failed(error.into()))
}
