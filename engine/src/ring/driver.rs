//! The loop of one shard.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::id::Now;
use crate::shard::{App, MailSender, Mailbox, Shard};

use super::{RingConfig, RingError, RingStats, ShardWaker, Shutdown};

/// What reaches a shard besides its ring.
pub struct ShardInputs<M> {
    listener: TcpListener,
    mailbox: Mailbox<M>,
    waker: Arc<ShardWaker>,
    shutdown: Shutdown,
    stats: Arc<RingStats>,
}

impl<M: Send + 'static> ShardInputs<M> {
    /// Inputs of a shard that accepts from `listener`, and the sender of its mailbox.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(listener: TcpListener, shutdown: Shutdown) -> io::Result<(MailSender<M>, Self)> {
        let waker = ShardWaker::new()?;
        shutdown.register(waker.clone());
        let (sender, mailbox) = Mailbox::new(waker.clone());
        let stats = Arc::default();
        let inputs = Self {
            listener,
            mailbox,
            waker,
            shutdown,
            stats,
        };
        Ok((sender, inputs))
    }

    /// The shard's counters, to keep.
    #[must_use]
    pub fn stats(&self) -> Arc<RingStats> {
        self.stats.clone()
    }
}

/// Runs a shard on the calling thread until a shutdown is complete. `make_shard` runs on this thread once
/// everything is set up.
///
/// # Errors
/// [`RingError`]: after [`RingError::Fatal`] the process must exit at once; [`spawn_shard`] does that itself.
#[allow(unused_variables, clippy::todo)]
pub fn run_shard<A: App>(
    config: &RingConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: impl FnOnce(Now) -> Shard<A>,
) -> Result<(), RingError> {
    todo!()
}

/// Runs a shard on a thread of its own. A fatal error or a panic there ends the whole process at once, with one
/// line on standard error and the status of [`exit_status`](super::exit_status).
///
/// # Errors
/// The thread cannot be started.
#[allow(unused_variables, clippy::todo)]
pub fn spawn_shard<A: App>(
    config: RingConfig,
    inputs: ShardInputs<A::Mail>,
    make_shard: impl FnOnce(Now) -> Shard<A> + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    A: 'static,
{
    todo!()
}
