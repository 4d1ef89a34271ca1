//! Counters of a shard's driver, readable from other threads.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since start. Written by the shard's thread alone; reading them disturbs nobody.
        #[derive(Debug, Default)]
        pub struct RingStats { $(pub(crate) $name: Counter),* }

        /// The values of [`RingStats`] at one moment. Bytes are bytes, times nanoseconds.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct RingStatsSnapshot { $($(#[$doc])* pub $name: u64),* }

        impl RingStats {
            /// The counters now.
            #[must_use]
            pub fn snapshot(&self) -> RingStatsSnapshot {
                RingStatsSnapshot { $($name: self.$name.get()),* }
            }
        }
    };
}

counters! {
    /// Times `io_uring_enter` was called.
    enters,
    /// Other system calls the shard's thread made: one or two per accepted connection, and a few at start.
    other_calls,
    /// Turns of the loop.
    turns,
    /// Completions taken from the ring.
    completions,
    /// Journal writes completed with their sync.
    commits,
    /// Time from submitting a journal write to its durable completion, summed.
    commit_ns,
    /// Time not spent waiting.
    busy_ns,
    /// Connections accepted.
    accepted,
    /// Connections refused because of the limit.
    refused,
    /// Connections open now.
    connections,
    /// Bytes received.
    received_bytes,
    /// Bytes sent, those from files included.
    sent_bytes,
    /// Bytes sent straight from files.
    span_bytes,
    /// Receives that found no free buffer and were tried again.
    recv_starved,
    /// Times the shard was woken by another thread.
    wakes,
}

/// One counter with a single writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        // A single writer: no read-modify-write is needed.
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
