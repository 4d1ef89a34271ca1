//! Buffers of one size that come back when they are dropped, so that steady load touches no new pages.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::slab::SlabWriter;
use super::{AlignedBuf, round_up};

/// Unused buffers. Drops may happen on any thread.
pub(super) struct Free {
    buffers: Mutex<Vec<AlignedBuf>>,
    keep: usize,
    /// Buffers that are out.
    out: AtomicUsize,
}

impl Free {
    pub(super) fn give(&self, buf: AlignedBuf) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < self.keep {
            buffers.push(buf);
        }
    }

    fn take(&self) -> Option<AlignedBuf> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop()
    }
}

/// Hands out buffers of one size. Dropped, alone or inside a [`Slice`](super::Slice), they return to it.
#[derive(Clone)]
pub struct BufPool {
    free: Arc<Free>,
    buf_bytes: usize,
}

impl BufPool {
    /// A pool of buffers of `buf_bytes` (rounded up to blocks) that keeps at most `keep` unused ones.
    #[must_use]
    pub fn new(buf_bytes: usize, keep: usize) -> Self {
        let free = Free {
            buffers: Mutex::new(Vec::new()),
            keep,
            out: AtomicUsize::new(0),
        };
        Self {
            free: Arc::new(free),
            buf_bytes: round_up(buf_bytes),
        }
    }

    /// Capacity of each buffer, in bytes.
    #[must_use]
    pub fn buf_bytes(&self) -> usize {
        self.buf_bytes
    }

    /// Bytes of the buffers that are out. The smallest slice of one keeps all of it out.
    #[must_use]
    pub fn out_bytes(&self) -> usize {
        self.free.out.load(Ordering::Relaxed) * self.buf_bytes
    }

    /// An empty buffer.
    #[must_use]
    pub fn take(&self) -> AlignedBuf {
        self.free.out.fetch_add(1, Ordering::Relaxed);
        let buf = self
            .free
            .take()
            .unwrap_or_else(|| AlignedBuf::with_capacity(self.buf_bytes));
        buf.at_home(self.free.clone())
    }

    /// A writer at the start of an empty buffer.
    #[must_use]
    pub fn writer(&self) -> SlabWriter {
        SlabWriter::new(self.take())
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufPool(buffers of {} bytes)", self.buf_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{BLOCK, Slice};

    fn unused(pool: &BufPool) -> usize {
        pool.free.buffers.lock().unwrap().len()
    }

    #[test]
    fn buffers_come_back_from_wherever_they_are_dropped_and_no_more_are_kept_than_said() {
        let pool = BufPool::new(10, 2);
        let mut first = pool.take();
        first.extend_from_slice(b"0123456789");
        let address = first.as_ptr();
        let slice = Slice::from(first);
        let (cut, others) = (slice.cut(2, 4), [pool.take(), pool.take()]);
        assert_eq!(pool.out_bytes(), 3 * BLOCK);
        drop(slice);
        assert_eq!((unused(&pool), &cut[..]), (0, &b"23"[..]));
        drop(cut);
        assert_eq!(unused(&pool), 1);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        drop((again, others));
        assert_eq!(pool.out_bytes(), 0);
        assert_eq!(unused(&pool), 2);
    }

    #[test]
    fn a_buffer_may_outlive_its_pool() {
        let pool = BufPool::new(1, 1);
        let mut buf = pool.take();
        drop(pool);
        buf.extend_from_slice(b"x");
        assert_eq!(&buf[..], b"x");
    }
}
