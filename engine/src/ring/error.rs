//! Why a shard's driver ends other than by a shutdown, and the exit status for each reason.

use std::io;

use thiserror::Error;

use crate::core::Fatal;

/// A failure of a shard's driver.
#[derive(Debug, Error)]
pub enum RingError {
    /// The core demands that the process end.
    #[error("{0}")]
    Fatal(#[from] Fatal),
    /// Setting up the ring, a thread or the listener failed.
    #[error("{what}: {error}")]
    Setup {
        /// What was being done.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The ring itself failed while running.
    #[error("io_uring_enter: {0}")]
    Enter(io::Error),
    /// A helper thread is gone.
    #[error("the {0} thread ended")]
    Helper(&'static str),
}

impl RingError {
    pub(crate) fn setup(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Setup { what, error }
    }
}

/// Exit status of a process that ends for `error`: one per reason, so that a supervisor can tell them apart.
#[must_use]
pub fn exit_status(error: &RingError) -> i32 {
    match error {
        RingError::Fatal(Fatal::Journal(_)) => 10,
        RingError::Fatal(Fatal::JournalCreate(_)) => 12,
        RingError::Setup { .. } => 20,
        RingError::Enter(_) => 21,
        RingError::Helper(_) => 22,
    }
}

/// Exit status after a panic on a thread of a shard.
const PANIC_STATUS: i32 = 101;

/// Ends the process when its thread panics. Declared after everything that owns memory the kernel may be using,
/// so that it is dropped first: unwinding further would free that memory.
pub(crate) struct ExitOnPanic(pub(crate) &'static str);

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ringlog: the {} thread panicked, the process ends", self.0);
            std::process::exit(PANIC_STATUS);
        }
    }
}

/// Ends the process: one line on standard error, then the status. Nothing is flushed or joined, because another
/// shard must not acknowledge anything meanwhile.
pub(crate) fn exit_process(shard: u32, error: &RingError) -> ! {
    eprintln!("ringlog: shard {shard}: {error}");
    std::process::exit(exit_status(error));
}
