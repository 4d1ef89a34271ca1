//! A shard's inputs and its thread, whichever driver runs on it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::shard::{MailSender, Mailbox, Wake};

use super::error::{ExitOnPanic, exit_process};
use super::{RingError, RingStats, Shutdown};

/// What reaches a shard from outside its driver; `W` rouses the driver.
pub struct Inputs<M, W> {
    pub(crate) listener: TcpListener,
    pub(crate) mailbox: Mailbox<M>,
    pub(crate) waker: Arc<W>,
    pub(crate) shutdown: Shutdown,
    pub(crate) stats: Arc<RingStats>,
}

impl<M: Send + 'static, W: Wake + 'static> Inputs<M, W> {
    /// Inputs of a shard that accepts from `listener`, and the sender of its mailbox.
    pub(crate) fn with_waker(
        listener: TcpListener,
        shutdown: Shutdown,
        waker: Arc<W>,
    ) -> (MailSender<M>, Self) {
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
        (sender, inputs)
    }

    /// The shard's counters, to keep. The glommio driver leaves those of the ring itself (enters, completions, other
    /// calls) and of spans at zero: its executor hides them.
    #[must_use]
    pub fn stats(&self) -> Arc<RingStats> {
        self.stats.clone()
    }
}

/// Runs a shard on a thread of its own; `run` is given what must be called first when it fails. A failure or a panic
/// there ends the whole process at once, with one line on standard error and the status of
/// [`exit_status`](super::exit_status).
pub(crate) fn spawn<F>(shard: u32, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce(&dyn Fn(&RingError)) -> Result<(), RingError> + Send + 'static,
{
    std::thread::Builder::new()
        .name(format!("ringlog-{shard}"))
        .spawn(move || {
            let _guard = ExitOnPanic("shard");
            let exit = |error: &RingError| exit_process(shard, error);
            if let Err(error) = run(&exit) {
                exit(&error);
            }
        })
}
