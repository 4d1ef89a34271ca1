//! When the patience of requests that wait ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries of requests that are over may stay while there are no more than this, and no more than there are requests.
const STALE_MAX: usize = 1024;

/// Deadlines by time, each once. A request that is answered early leaves its entry behind: to look for it in the heap
/// would cost more than it takes.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Monotonic nanoseconds, request.
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Deadlines {
    /// The next one, monotonic nanoseconds.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((ns, _))| *ns)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn add(&mut self, ns: u64, id: u64) {
        self.heap.push(Reverse((ns, id)));
    }

    /// Takes the next request whose time has come.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id))| id)
    }

    /// Drops entries of requests that are over, once they are more than the `waiting` ones: waits of weeks are allowed,
    /// and a client that asks and leaves again and again would fill the memory. It takes time for each entry, at least
    /// half of which go, so no more than a few steps for each that was added.
    pub(super) fn tidy(&mut self, waiting: usize, waits: impl Fn(u64) -> bool) {
        if self.heap.len() > 2 * waiting + STALE_MAX {
            self.heap.retain(|Reverse((_, id))| waits(*id));
        }
    }
}
