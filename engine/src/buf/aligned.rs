//! An owned, block-aligned, always initialised buffer.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::area::Piece;
use super::pool::Free;
use super::{BLOCK, HUGE_PAGE, round_up, stream};

/// A buffer whose memory starts on a 4 KiB boundary and holds whole blocks; dereferences to its first `len`
/// bytes. All of its capacity is initialised from the start, so no operation exposes garbage. One that came from
/// a [`BufPool`](super::BufPool) returns there when it is dropped.
pub struct AlignedBuf {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
    home: Option<Arc<Free>>,
    /// The memory is part of an area; otherwise the allocator's.
    piece: Option<Piece>,
}

// SAFETY: the buffer owns its memory exclusively, like a Vec<u8>.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes, rounded up to whole blocks (at least one).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = round_up(capacity.max(1));
        let layout = Self::layout(capacity);
        let huge = capacity >= HUGE_PAGE;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe {
            if huge {
                alloc(layout)
            } else {
                alloc_zeroed(layout)
            }
        };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        if huge {
            prefer_huge_pages(memory, capacity);
            // SAFETY: `capacity` bytes from `memory` were allocated just now.
            unsafe { memory.write_bytes(0, capacity) };
        }
        Self {
            memory,
            capacity,
            len: 0,
            home: None,
            piece: None,
        }
    }

    /// An empty buffer in a piece of `capacity` bytes.
    pub(super) fn in_area(piece: Piece, capacity: usize) -> Self {
        Self {
            memory: piece.start,
            capacity,
            len: 0,
            home: None,
            piece: Some(piece),
        }
    }

    /// The same memory, empty, that returns to `home` in the end.
    pub(super) fn at_home(mut self, home: Arc<Free>) -> Self {
        self.len = 0;
        self.home = Some(home);
        self
    }

    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.len = len;
        buf
    }

    fn layout(capacity: usize) -> Layout {
        let align = if capacity >= HUGE_PAGE {
            HUGE_PAGE
        } else {
            BLOCK
        };
        Layout::from_size_align(capacity, align).expect("a buffer's size fits isize")
    }

    /// Bytes of room in all, a multiple of the block size.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they do not fit: callers size the buffer first.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `bytes` past the caches: for what the device reads next and the processor does not.
    ///
    /// # Panics
    /// If they do not fit: callers size the buffer first.
    pub fn extend_streaming(&mut self, bytes: &[u8]) {
        stream::copy(self.grow(bytes.len()), bytes);
    }

    /// The next `len` bytes, made part of the buffer.
    fn grow(&mut self, len: usize) -> &mut [u8] {
        let (start, end) = (self.len, self.len + len);
        assert!(
            end <= self.capacity,
            "aligned buffer overflow: {end} of {}",
            self.capacity
        );
        self.len = end;
        &mut self[start..]
    }

    /// Appends zeros up to the next block boundary, so that the whole can be written.
    pub fn pad_to_block(&mut self) {
        let (start, end) = (self.len, round_up(self.len));
        self.len = end;
        self[start..].fill(0);
    }

    /// Sets the length; bytes that come into view hold whatever was last written there, never garbage.
    ///
    /// # Panics
    /// If `len` exceeds the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity,
            "length {len} beyond capacity {}",
            self.capacity
        );
        self.len = len;
    }

    /// Address of the first byte, for the kernel.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes from `memory` are owned and initialised.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let (memory, capacity, piece) = (self.memory, self.capacity, self.piece.take());
            // The memory has a new owner: nothing is freed here.
            return home.give(Self {
                memory,
                capacity,
                len: 0,
                home: None,
                piece,
            });
        }
        if self.piece.is_some() {
            return;
        }
        // SAFETY: allocated in `with_capacity` with this layout, freed once.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

/// Asks for huge pages before the memory is touched: a copy then misses the TLB less, and direct I/O pins one page
/// in place of 512. Without them everything works as well, only slower, so an answer of no is no error.
fn prefer_huge_pages(memory: NonNull<u8>, capacity: usize) {
    // SAFETY: whole pages of one allocation, starting on a huge page's boundary; advice changes no contents.
    let _ = unsafe {
        rustix::mm::madvise(
            memory.as_ptr().cast(),
            capacity,
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_padded_and_zeroed() {
        let mut buf = AlignedBuf::with_capacity(5000);
        assert_eq!(buf.capacity(), 8192);
        assert_eq!(buf.as_mut_ptr() as usize % BLOCK, 0);
        buf.extend_from_slice(b"abc");
        buf.pad_to_block();
        assert_eq!(buf.len(), 4096);
        assert_eq!(&buf[..4], b"abc\0");
        buf.set_len(8192);
        assert!(buf[3..].iter().all(|&b| b == 0));
    }

    #[test]
    #[should_panic(expected = "overflow")]
    fn refuses_more_than_fits() {
        AlignedBuf::with_capacity(1).extend_from_slice(&[0; 4097]);
    }
}
