//! Rousing a thread that sleeps in its ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use io_uring::opcode::PollAdd;
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use rustix::event::{EventfdFlags, eventfd};

use crate::shard::Wake;

use super::uring::Token;

/// Wakes one ring's thread. The thread says when it is about to sleep; only then does a wake cost a system call,
/// and only the first of several.
///
/// Protocol: a sender makes its message visible, then calls [`Wake::wake`]. The sleeper calls `prepare_sleep`,
/// looks for messages once more, sleeps only if there is none, and calls `awake` afterwards. Both sides have a
/// full fence between their store and their load, so at least one sees the other.
#[derive(Debug)]
pub struct ShardWaker {
    event: OwnedFd,
    sleeping: AtomicBool,
}

impl ShardWaker {
    /// A waker of a thread that is awake.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            event,
            sleeping: AtomicBool::new(false),
        }))
    }

    /// Says that the thread is about to sleep: it must look for messages once more before it does.
    pub(super) fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the thread is awake.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

/// The poll by which a ring hears of wakes. It is edge-triggered and stays armed, so that nobody needs to read
/// the counter. The waker must outlive the ring.
pub(super) fn poll_entry(waker: &ShardWaker, token: Token) -> Entry {
    PollAdd::new(Fd(waker.event.as_raw_fd()), libc::POLLIN as u32)
        .multi(true)
        .build()
        .user_data(token.pack())
}

impl Wake for ShardWaker {
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            // The counter overflows after 2^64 wakes; the write cannot fail otherwise.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}
