//! Entry points, and what is set up before its turns begin.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::process::{Resource, getrlimit};

use crate::id::Now;
use crate::ring::{ExitOnPanic, Inputs, RingError, Root, Shutdown, Stock, now, spawn};
use crate::shard::{App, Driven, MailSender, Shard};

use super::accept::Acceptor;
use super::disk::Files;
use super::state::State;
use super::turns::{Progress, Turns};
use super::{ExecutorWaker, GlommioConfig};

/// What reaches a shard besides its executor.
pub type ShardInputs<M> = Inputs<M, ExecutorWaker>;

impl<M: Send + 'static> Inputs<M, ExecutorWaker> {
    /// Inputs of a shard that accepts from `listener`, and the sender of its mailbox.
    ///
    /// # Errors
    /// None; it has the shape of the ring driver's.
    pub fn new(listener: TcpListener, shutdown: Shutdown) -> io::Result<(MailSender<M>, Self)> {
        Ok(Self::with_waker(listener, shutdown, ExecutorWaker::new()))
    }
}

/// Runs a shard on the calling thread until a shutdown is complete. `make_shard` runs on this thread once everything
/// is set up. The thread must not run another glommio executor.
///
/// # Errors
/// [`RingError`]: after [`RingError::Fatal`] the process must exit at once; [`spawn_shard`] does that itself.
pub fn run_shard<A: App + 'static>(
    config: &GlommioConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: impl FnOnce(Now) -> Shard<A>,
) -> Result<(), RingError> {
    run(config, inputs, make_shard, |_| {})
}

/// Runs a shard on a thread of its own. A fatal error or a panic there ends the whole process at once, with one
/// line on standard error and the status of [`exit_status`](crate::ring::exit_status).
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_shard<A, F>(
    config: GlommioConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: F,
) -> io::Result<JoinHandle<()>>
where
    A: App + 'static,
    F: FnOnce(Now) -> Shard<A> + Send + 'static,
{
    spawn(config.shard, move |on_fatal| {
        run(&config, inputs, make_shard, on_fatal)
    })
}

/// [`run_shard`] for anything that can be driven; `on_fatal` is told of a fatal failure before anything else is
/// done.
pub(super) fn run<D: Driven + 'static>(
    config: &GlommioConfig,
    inputs: ShardInputs<D::Mail>,
    make_shard: impl FnOnce(Now) -> D,
    on_fatal: impl Fn(&RingError),
) -> Result<(), RingError> {
    let root = Root::open(&config.data_dir)
        .map_err(|error| io::Error::from_raw_os_error(error.0))
        .map_err(RingError::setup("opening the data directory"))?;
    // Before the executor, which pins this thread: helpers would inherit that.
    let waker = inputs.waker.clone();
    let acceptor = Acceptor::start(inputs.listener, config.shard, waker.clone())?;
    let mut stock = Stock::start(config.shard)?;
    let executor = executor(config)?;
    let _guard = ExitOnPanic("shard");
    let (ended, drained) = executor.run(async {
        let shard = make_shard(now());
        if let Err(error) = stock.keep(shard.memory()) {
            return (Err(error), true);
        }
        let files = Files::new(root);
        let state = State::new(shard, files, inputs.stats, config.recv_buffer_bytes);
        let mut turns = Turns {
            state,
            mailbox: inputs.mailbox,
            acceptor,
            waker,
            shutdown: inputs.shutdown,
            max_connections: config.max_connections,
            flush_ns: config.flush_ms.saturating_mul(1_000_000),
            progress: Progress::default(),
        };
        let ended = turns.run().await;
        if let Err(error) = &ended {
            on_fatal(error);
        }
        let drained = turns.drain().await;
        (ended, drained)
    });
    if !drained {
        // The kernel may still use the memory of what did not complete in time.
        std::mem::forget(executor);
    }
    ended
}

/// Memory that must be lockable for an executor to start, bytes: glommio's own minimum.
const LOCKED_BYTES: u64 = 512 * 1024;

fn executor(config: &GlommioConfig) -> Result<LocalExecutor, RingError> {
    let failed = RingError::setup("starting a glommio executor");
    enough_locked_memory().map_err(&failed)?;
    let placement = config.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let threads = PoolPlacement::Unbound(config.blocking_threads.max(1));
    LocalExecutorBuilder::new(placement)
        .name(&format!("ringlog-{}", config.shard))
        .io_memory(config.io_memory_bytes)
        .blocking_thread_pool_placement(threads)
        .make()
        .map_err(|error| match error {
            GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })
        .map_err(failed)
}

/// Looks at the limit first: the executor's own error does not say what to do.
fn enough_locked_memory() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock).current;
    match limit {
        Some(limit) if limit < LOCKED_BYTES => Err(io::Error::other(format!(
            "{limit} bytes may be locked in memory, it needs {LOCKED_BYTES}: raise the limit (`ulimit -l {}`, \
             LimitMEMLOCK= of a systemd unit, --ulimit memlock= of a container) or use --driver ring",
            LOCKED_BYTES / 1024
        ))),
        _ => Ok(()),
    }
}
