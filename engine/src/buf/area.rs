//! Memory in huge pages that several buffers share.
//!
//! A buffer smaller than a huge page would lie in 4 KiB pages scattered over memory: direct I/O pins each of them,
//! and a block device that takes, say, 254 segments a request gets 1 MiB in two.

use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{BLOCK, HUGE_PAGE};

/// Bytes of an area. Only what buffers have touched is in memory.
const AREA_BYTES: usize = 4 * HUGE_PAGE;

/// A mapping of [`AREA_BYTES`] that starts on a huge page's boundary.
struct Mapping {
    start: NonNull<u8>,
}

// SAFETY: the mapping is memory of this process alone; whoever holds a piece of it has that piece to itself.
unsafe impl Send for Mapping {}
// SAFETY: as above; the mapping itself is only kept and, in the end, removed.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New zeroed memory, or none where the system has no more address space.
    fn new() -> Option<Self> {
        let mapped = AREA_BYTES + HUGE_PAGE;
        // SAFETY: a new private mapping where the kernel likes touches no other memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let start = start.ok()?.cast::<u8>();
        let before = start.align_offset(HUGE_PAGE);
        let after = mapped - before - AREA_BYTES;
        // SAFETY: both lie within the mapping, before and behind the part that is kept; `before` is a whole number of
        // pages because a mapping begins on one and a huge page is many. An unmapping that fails leaves address space
        // taken, nothing more. The advice changes no contents, and without huge pages all works, only slower.
        unsafe {
            if before > 0 {
                let _ = rustix::mm::munmap(start.cast(), before);
            }
            let start = start.add(before);
            if after > 0 {
                let _ = rustix::mm::munmap(start.add(AREA_BYTES).cast(), after);
            }
            let _ = rustix::mm::madvise(start.cast(), AREA_BYTES, Advice::LinuxHugepage);
            Some(Self {
                start: NonNull::new(start)?,
            })
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and every piece has gone: each holds the mapping.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), AREA_BYTES) };
    }
}

/// Hands out pieces of areas, front to back.
#[derive(Default)]
pub(super) struct Areas {
    current: Option<(Arc<Mapping>, usize)>,
}

impl Areas {
    /// Whether buffers of `bytes` are worth a place in an area: smaller ones are few pages, larger ones have huge pages
    /// of their own.
    pub(super) fn serve(bytes: usize) -> bool {
        (BLOCK * 16..HUGE_PAGE).contains(&bytes)
    }

    /// A zeroed piece of `bytes`, a whole number of blocks; none where the system has no more address space.
    pub(super) fn piece(&mut self, bytes: usize) -> Option<Piece> {
        let (mapping, at) = match self.current.take() {
            Some((mapping, used)) if used + bytes <= AREA_BYTES => (mapping, used),
            _ => (Arc::new(Mapping::new()?), 0),
        };
        self.current = Some((mapping.clone(), at + bytes));
        // SAFETY: `at + bytes` lies within the mapping.
        let start = unsafe { mapping.start.add(at) };
        Some(Piece {
            start,
            bytes,
            _mapping: mapping,
        })
    }
}

/// A part of an area that one buffer owns. Dropped, its memory goes back to the system, and its addresses with the
/// area's last piece.
pub(super) struct Piece {
    pub(super) start: NonNull<u8>,
    bytes: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: the piece owns its part of the mapping, like a Vec<u8>.
unsafe impl Send for Piece {}
// SAFETY: shared access only reads.
unsafe impl Sync for Piece {}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: whole pages that belong to this piece alone, which nobody uses any more.
        let _ = unsafe {
            rustix::mm::madvise(
                self.start.as_ptr().cast(),
                self.bytes,
                Advice::LinuxDontNeed,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_behind_each_other_in_one_area_until_it_is_full() {
        let mut areas = Areas::default();
        let bytes = HUGE_PAGE / 2;
        let pieces: Vec<Piece> = (0..9)
            .map(|_| areas.piece(bytes).expect("address space"))
            .collect();
        let address = |n: usize| pieces[n].start.as_ptr() as usize;
        assert_eq!(address(0) % HUGE_PAGE, 0);
        for n in 1..8 {
            assert_eq!(address(n), address(n - 1) + bytes);
        }
        assert_eq!(address(8) % HUGE_PAGE, 0);
        assert!(!(address(0)..address(0) + AREA_BYTES).contains(&address(8)));
    }

    #[test]
    fn small_and_huge_buffers_have_no_place_in_an_area() {
        assert!(!Areas::serve(BLOCK));
        assert!(Areas::serve(1 << 20));
        assert!(!Areas::serve(HUGE_PAGE));
    }
}
