//! A thread that has memory ready before a shard wants it.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::buf::BufPool;

use super::RingError;

/// Slabs ready at any time.
const AHEAD: usize = 2;
/// The least urgent there is: the shard, which may share the processor, goes first.
const NICE: i32 = 19;

/// Keeps a shard's pool of slabs stocked while it lives. A slab that nobody has touched takes the kernel a
/// millisecond or more to find and to clear, and acknowledgements would wait for it.
pub(crate) struct Stock {
    pools: Option<Sender<BufPool>>,
    pool: Option<BufPool>,
    thread: Option<JoinHandle<()>>,
}

impl Stock {
    /// Starts the thread of shard `number`, with nothing to do yet.
    pub(crate) fn start(number: u32) -> Result<Self, RingError> {
        let (pools, incoming) = channel::<BufPool>();
        let thread = std::thread::Builder::new()
            .name(format!("ringlog-mem-{number}"))
            .spawn(move || {
                // Without it everything works, only less smoothly.
                let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
                if let Ok(pool) = incoming.recv() {
                    pool.keep();
                }
            })
            .map_err(RingError::setup("starting the memory thread"))?;
        Ok(Self {
            pools: Some(pools),
            pool: None,
            thread: Some(thread),
        })
    }

    /// Keeps `pool` stocked from now on.
    ///
    /// # Errors
    /// The thread is gone.
    pub(crate) fn keep(&mut self, pool: &BufPool) -> Result<(), RingError> {
        pool.stock(AHEAD);
        self.pool = Some(pool.clone());
        match self.pools.take().map(|pools| pools.send(pool.clone())) {
            Some(Ok(())) => Ok(()),
            _ => Err(RingError::Helper("memory")),
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.pools = None;
        if let Some(pool) = &self.pool {
            pool.stock(0);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
