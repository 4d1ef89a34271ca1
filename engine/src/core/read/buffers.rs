//! Buffers for what is read from segments.

use crate::buf::{AlignedBuf, BLOCK, BufPool};

use super::search::PROBE;
use super::task::{GENTLE_MAX, READ_MAX};

/// Shorter buffers come from the allocator, which keeps memory of that size.
const POOLED_MIN: usize = 64 << 10;
/// Unused buffers kept, of each size: what a few readers have under way.
const KEEP: usize = 16;

/// Pools for reads of the two usual lengths. Memory of that size would go back to the system every time, and the
/// pages that come for the next read have to be found and cleared first.
#[derive(Debug)]
pub(super) struct Buffers {
    gentle: BufPool,
    full: BufPool,
}

impl Default for Buffers {
    fn default() -> Self {
        // A search reads a little more, from and to whole blocks, and the odd tail goes behind.
        let pool = |most: usize| BufPool::new(most + PROBE + 2 * BLOCK, KEEP);
        Self {
            gentle: pool(GENTLE_MAX),
            full: pool(READ_MAX),
        }
    }
}

impl Buffers {
    /// An empty buffer with room for `len` bytes.
    pub(super) fn take(&self, len: usize) -> AlignedBuf {
        let fits = |pool: &&BufPool| len > POOLED_MIN && len <= pool.buf_bytes();
        match [&self.gentle, &self.full].into_iter().find(fits) {
            Some(pool) => pool.take(),
            None => AlignedBuf::with_capacity(len),
        }
    }

    /// Bytes of the pooled buffers that are out.
    pub(super) fn out_bytes(&self) -> usize {
        self.gentle.out_bytes() + self.full.out_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_lengths_come_from_the_pool_that_is_just_large_enough() {
        let buffers = Buffers::default();
        let small = buffers.take(POOLED_MIN);
        let huge = buffers.take(2 * READ_MAX);
        assert_eq!(buffers.out_bytes(), 0);
        let gentle = buffers.take(GENTLE_MAX + BLOCK);
        let full = buffers.take(GENTLE_MAX + PROBE + 2 * BLOCK + 1);
        assert!(gentle.capacity() < full.capacity());
        assert_eq!(buffers.out_bytes(), gentle.capacity() + full.capacity());
        assert!(small.capacity() >= POOLED_MIN && huge.capacity() >= 2 * READ_MAX);
    }
}
