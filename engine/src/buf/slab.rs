//! Slabs: large aligned regions that one writer fills from front to back and any number of readers share.
//!
//! The journal's open frame grows at the end of a slab; when it is committed its bytes are frozen into a
//! [`Slice`], which the journal write, the tail memory and consumers' responses share without copying. When the
//! last slice of a slab goes, its memory returns to the pool.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{AlignedBuf, BLOCK, round_up};

/// Memory of one slab. Bytes below the writer's frozen mark never change again; bytes above belong to the
/// writer alone.
struct Region {
    start: *mut u8,
    capacity: usize,
    /// Owns the memory; returns it where it belongs.
    _memory: AlignedBuf,
}

// SAFETY: slices read only frozen bytes, which nobody writes; the single writer is the only one to touch the
// rest. The memory itself is owned by `_memory` and outlives every slice through the Arc.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The one writer of a slab. Bytes from `frozen` to `end` are open: they can still be changed. Freezing turns
/// them into a [`Slice`] and goes on behind them.
pub struct SlabWriter {
    region: Arc<Region>,
    frozen: usize,
    end: usize,
}

impl SlabWriter {
    /// A writer at the start of `memory`.
    #[must_use]
    pub fn new(mut memory: AlignedBuf) -> Self {
        let (start, capacity) = (memory.as_mut_ptr(), memory.capacity());
        let region = Region {
            start,
            capacity,
            _memory: memory,
        };
        Self {
            region: Arc::new(region),
            frozen: 0,
            end: 0,
        }
    }

    /// Bytes still free in the slab.
    #[must_use]
    pub fn room(&self) -> usize {
        self.region.capacity - self.end
    }

    /// Open bytes: appended and not yet frozen.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.end - self.frozen
    }

    /// The open bytes, to patch headers that are known last.
    pub fn open_mut(&mut self) -> &mut [u8] {
        let len = self.open_len();
        // SAFETY: `frozen..end` lies in the region, is initialised (slabs are zeroed when made), and no slice
        // covers it: slices end at `frozen`. `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.region.start.add(self.frozen), len) }
    }

    /// Appends `bytes` to the open part; returns their position in it.
    ///
    /// # Panics
    /// If they exceed [`SlabWriter::room`].
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let at = self.grow(bytes.len());
        self.open_mut()[at..].copy_from_slice(bytes);
        at
    }

    /// Appends `len` zero bytes; returns their position in the open part.
    ///
    /// # Panics
    /// If they exceed [`SlabWriter::room`].
    pub fn append_zeros(&mut self, len: usize) -> usize {
        let at = self.grow(len);
        self.open_mut()[at..].fill(0);
        at
    }

    fn grow(&mut self, len: usize) -> usize {
        assert!(
            len <= self.room(),
            "slab overflow: {len} bytes, {} free",
            self.room()
        );
        let at = self.open_len();
        self.end += len;
        at
    }

    /// Pads the open part with zeros to whole blocks and freezes it. The slice starts on a block boundary.
    pub fn freeze(&mut self) -> Slice {
        let padding = round_up(self.end) - self.end;
        self.append_zeros(padding);
        let slice = Slice {
            region: self.region.clone(),
            start: self.frozen,
            len: self.open_len(),
        };
        self.frozen = self.end;
        slice
    }
}

/// A shared, read-only piece of a slab or of a buffer that was read; cloning and cutting copy nothing.
#[derive(Clone)]
pub struct Slice {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Slice {
    /// The part `from..to` of this slice.
    ///
    /// # Panics
    /// If the range lies outside the slice.
    #[must_use]
    pub fn cut(&self, from: usize, to: usize) -> Self {
        assert!(
            from <= to && to <= self.len,
            "{from}..{to} outside a slice of {}",
            self.len
        );
        Self {
            region: self.region.clone(),
            start: self.start + from,
            len: to - from,
        }
    }

    /// Whether the slice can be written with direct I/O: starts on a block boundary and holds whole blocks.
    #[must_use]
    pub fn is_block_aligned(&self) -> bool {
        self.start.is_multiple_of(BLOCK) && self.len.is_multiple_of(BLOCK)
    }

    /// Address of the first byte, for the kernel.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.deref().as_ptr()
    }
}

impl From<AlignedBuf> for Slice {
    fn from(buf: AlignedBuf) -> Self {
        let len = buf.len();
        let writer = SlabWriter::new(buf);
        Self {
            region: writer.region,
            start: 0,
            len,
        }
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start..start + len` is frozen: initialised, inside the region, never written again while
        // this slice keeps the region alive.
        unsafe { std::slice::from_raw_parts(self.region.start.add(self.start), self.len) }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;

    #[test]
    fn frames_freeze_behind_each_other_and_the_memory_comes_back() {
        let pool = BufPool::new(3 * BLOCK, 1);
        let mut writer = pool.writer();
        assert_eq!(writer.append(b"one"), 0);
        assert_eq!(writer.append(b"two"), 3);
        writer.open_mut()[0] = b'O';
        let first = writer.freeze();
        writer.append(b"second");
        let second = writer.freeze();
        assert_eq!(&first[..6], b"Onetwo");
        assert_eq!(first.len(), BLOCK);
        assert_eq!(&second[..7], b"second\0");
        assert!(first.is_block_aligned() && second.is_block_aligned());
        assert_eq!(writer.room(), BLOCK);
        let address = first.as_ptr();
        let part = first.cut(3, 6);
        drop((first, second, writer));
        assert_eq!(&part[..], b"two");
        drop(part);
        let mut again = pool.writer();
        again.append(b"x");
        assert_eq!(again.freeze().as_ptr(), address);
    }

    #[test]
    fn a_reused_slab_pads_with_zeros_not_with_old_bytes() {
        let pool = BufPool::new(BLOCK, 1);
        let mut writer = pool.writer();
        writer.append(&[0xff; BLOCK]);
        drop(writer);
        let mut writer = pool.writer();
        writer.append(b"x");
        let slice = writer.freeze();
        assert!(slice[1..].iter().all(|&b| b == 0));
    }

    #[test]
    fn a_read_buffer_becomes_a_slice() {
        let mut buf = AlignedBuf::with_capacity(10);
        buf.extend_from_slice(b"0123456789");
        let slice = Slice::from(buf);
        assert_eq!(&slice.cut(2, 5)[..], b"234");
    }
}
