//! Asking all shards to end.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::shard::Wake;

use super::signals::on_signals;

#[derive(Default)]
struct State {
    requested: AtomicBool,
    wakers: Mutex<Vec<Arc<dyn Wake>>>,
}

/// A request to end, shared by all shards of a process. Cloning shares it.
#[derive(Clone, Default)]
pub struct Shutdown {
    state: Arc<State>,
}

impl Shutdown {
    /// Not requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every shard to finish what is under way and end. Again has no further effect.
    pub fn request(&self) {
        self.state.requested.store(true, Ordering::SeqCst);
        for waker in self.wakers().iter() {
            waker.wake();
        }
    }

    /// Whether it was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.state.requested.load(Ordering::SeqCst)
    }

    /// Wakes `waker` too when the request comes.
    pub fn register(&self, waker: Arc<dyn Wake>) {
        self.wakers().push(waker);
    }

    /// From now on the first SIGTERM or SIGINT requests the shutdown; a second one ends the process at once, as
    /// it would without us.
    ///
    /// # Errors
    /// The handlers or the thread that waits for them cannot be set up.
    pub fn on_signals(&self) -> io::Result<()> {
        let shutdown = self.clone();
        on_signals("signals", &[SIGTERM, SIGINT], move |signal| {
            if shutdown.is_requested() {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            shutdown.request();
        })
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn Wake>>> {
        self.state
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
