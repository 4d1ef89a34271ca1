//! Memory that O_DIRECT accepts, and shared read-only slices of it.
//!
//! With the ring driver this is the only place with `unsafe`.
#![allow(unsafe_code)]

mod aligned;
mod area;
mod pool;
mod slab;
mod stream;

pub use aligned::AlignedBuf;
pub use pool::BufPool;
pub use slab::{SlabWriter, Slice};

/// Alignment, in bytes, of every buffer, file offset and length of direct I/O.
pub const BLOCK: usize = 4096;

/// Buffers of at least this size start on such a boundary and ask for pages of this size, bytes.
const HUGE_PAGE: usize = 2 << 20;

/// `len` rounded up to whole blocks, in bytes.
#[must_use]
pub const fn round_up(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

/// `len` rounded down to whole blocks, in bytes.
#[must_use]
pub const fn round_down(len: usize) -> usize {
    len - len % BLOCK
}
