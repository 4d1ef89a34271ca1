//! Buffers of one size that come back when they are dropped, so that steady load touches no new pages.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::area::Areas;
use super::slab::SlabWriter;
use super::{AlignedBuf, round_up};

/// Unused buffers. Drops may happen on any thread.
pub(super) struct Free {
    stock: Mutex<Stock>,
    /// The stock has fallen below what is to be kept ahead, or nobody keeps it any more.
    short: Condvar,
    keep: usize,
    /// Buffers that are out.
    out: AtomicUsize,
}

#[derive(Default)]
struct Stock {
    unused: Vec<AlignedBuf>,
    /// Buffers that a keeper has ready at any time.
    ahead: usize,
    /// Where new buffers below the size of a huge page lie.
    areas: Areas,
}

impl Free {
    pub(super) fn give(&self, buf: AlignedBuf) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        let mut stock = self.stock();
        if stock.unused.len() < self.keep {
            stock.unused.push(buf);
        }
    }

    fn take(&self) -> Option<AlignedBuf> {
        let mut stock = self.stock();
        let buf = stock.unused.pop();
        if stock.unused.len() < stock.ahead {
            self.short.notify_one();
        }
        buf
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out buffers of one size. Dropped, alone or inside a [`Slice`](super::Slice), they return to it. From 64 KiB on
/// they lie in huge pages, smaller ones than a huge page next to each other.
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
            stock: Mutex::default(),
            short: Condvar::new(),
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
        let buf = self.free.take().unwrap_or_else(|| self.make());
        buf.at_home(self.free.clone())
    }

    fn make(&self) -> AlignedBuf {
        let bytes = self.buf_bytes;
        let piece = Areas::serve(bytes)
            .then(|| self.free.stock().areas.piece(bytes))
            .flatten();
        match piece {
            Some(piece) => AlignedBuf::in_area(piece, bytes),
            None => AlignedBuf::with_capacity(bytes),
        }
    }

    /// Has at least `ahead` unused buffers made ahead, by whoever runs [`BufPool::keep`]; none ends that.
    pub(crate) fn stock(&self, ahead: usize) {
        self.free.stock().ahead = ahead;
        self.free.short.notify_all();
    }

    /// Makes buffers until as many are unused as [`BufPool::stock`] said, and again whenever some were taken, but never
    /// more in all than are kept; returns when it says none. For a thread that nobody waits for: memory that has never been touched costs the kernel
    /// milliseconds for each buffer, many on a virtual machine whose host has to find it first.
    pub(crate) fn keep(&self) {
        let mut stock = self.free.stock();
        while stock.ahead > 0 {
            let made = self.free.out.load(Ordering::Relaxed) + stock.unused.len();
            if stock.unused.len() < stock.ahead && made < self.free.keep {
                drop(stock);
                let buf = self.make();
                stock = self.free.stock();
                stock.unused.push(buf);
            } else {
                let waited = self.free.short.wait(stock);
                stock = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
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
        pool.free.stock().unused.len()
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
    fn buffers_are_made_ahead_and_again_when_taken_until_none_are_wanted() {
        let pool = BufPool::new(BLOCK, 5);
        pool.stock(2);
        let keeper = std::thread::spawn({
            let pool = pool.clone();
            move || pool.keep()
        });
        let stocked = || {
            let begun = std::time::Instant::now();
            while unused(&pool) != 2 {
                assert!(begun.elapsed().as_secs() < 30, "the stock stays short");
                std::thread::yield_now();
            }
        };
        stocked();
        let taken = [pool.take(), pool.take(), pool.take()];
        stocked();
        let last = [pool.take(), pool.take()];
        // Whoever looked would see no more than are kept in all.
        pool.stock(1);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!((unused(&pool), pool.out_bytes()), (0, 5 * BLOCK));
        drop((taken, last));
        assert_eq!(unused(&pool), 5);
        pool.stock(0);
        keeper.join().unwrap();
    }

    #[test]
    fn buffers_below_a_huge_page_lie_side_by_side_and_keep_their_place() {
        let pool = BufPool::new(1 << 20, 1);
        let mut pair = [pool.take(), pool.take()];
        for (byte, buf) in (b'a'..).zip(&mut pair) {
            buf.set_len(buf.capacity());
            assert!(buf.iter().all(|&b| b == 0), "new memory is not zero");
            buf.fill(byte);
        }
        let [first, second] = pair;
        let address = first.as_ptr() as usize;
        assert_eq!(second.as_ptr() as usize, address + (1 << 20));
        assert!(first.iter().all(|&b| b == b'a') && second.iter().all(|&b| b == b'b'));
        drop((first, second));
        // One is kept; the other's memory has gone back, and the next lies behind both.
        let again = [pool.take(), pool.take()].map(|buf| buf.as_ptr() as usize);
        assert_eq!(again, [address, address + (2 << 20)]);
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
