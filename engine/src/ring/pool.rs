//! Receive buffers that the kernel picks when bytes arrive, so that idle connections hold none.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::buf::AlignedBuf;

use super::uring::Ring;

/// The group's id in receive operations.
pub(super) const GROUP: u16 = 0;

/// A ring of provided buffers, registered with one io_uring. The memory must stay until the last receive on that
/// ring has completed.
pub(super) struct RecvPool {
    /// Entries shared with the kernel; page-aligned as the interface demands.
    ring: AlignedBuf,
    memory: AlignedBuf,
    buffer_bytes: usize,
    entries: u16,
    tail: u16,
}

impl RecvPool {
    /// Registers `entries` buffers (a power of two) of `buffer_bytes` each.
    pub(super) fn register(ring: &Ring<'_>, entries: u16, buffer_bytes: u32) -> io::Result<Self> {
        if !entries.is_power_of_two() || entries > 1 << 15 || buffer_bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let buffer_bytes = buffer_bytes as usize;
        let mut pool = Self {
            ring: AlignedBuf::zeroed(usize::from(entries) * size_of::<BufRingEntry>()),
            memory: AlignedBuf::zeroed(usize::from(entries) * buffer_bytes),
            buffer_bytes,
            entries,
            tail: 0,
        };
        let address = pool.ring.as_mut_ptr() as u64;
        // SAFETY: the memory is large enough for the entries, page-aligned, and outlives the io_uring's use of
        // it: the driver drains every receive before it drops the pool.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, entries, GROUP, 0)?;
        }
        for id in 0..entries {
            pool.give_back(id);
        }
        Ok(pool)
    }

    /// The first `len` bytes of buffer `id`, which a completion has just handed over.
    pub(super) fn bytes(&mut self, id: u16, len: usize) -> &[u8] {
        assert!(id < self.entries && len <= self.buffer_bytes);
        // SAFETY: inside the memory by the assertion, initialised (zeroed when made), and the kernel does not
        // touch a buffer between its completion and `give_back`. Only this buffer's bytes are borrowed, because
        // the kernel may be writing to its neighbours.
        unsafe {
            let start = self
                .memory
                .as_mut_ptr()
                .add(usize::from(id) * self.buffer_bytes);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Offers buffer `id` to the kernel again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < self.entries);
        let slot = usize::from(self.tail & (self.entries - 1));
        let entries = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot` is below `entries`, for which the ring has room; the kernel reads an entry only after
        // the tail has passed it. The tail lies in the first entry as `BufRingEntry::tail` says, is aligned, and
        // is written by us alone.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry.set_addr(
                self.memory
                    .as_mut_ptr()
                    .add(usize::from(id) * self.buffer_bytes) as u64,
            );
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
