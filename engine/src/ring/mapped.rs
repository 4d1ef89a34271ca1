//! Sending a mapped part of a file: the path that claims about `mmap` speak of.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{SendFlags, send};

/// Bytes of a page; mappings begin at one.
const PAGE: u64 = 4096;

/// A part of a file in memory.
struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes from `offset`, a page's beginning, and reads them in at once.
    fn new(file: BorrowedFd<'_>, offset: u64, len: usize) -> rustix::io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                flags,
                file,
                offset,
            )
        }?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// Sends up to `len` bytes of `file` from `offset` by way of a mapping; the bytes the socket took. It must not block.
///
/// # Errors
/// As `mmap(2)` and `send(2)`; `EFAULT` for what lies behind the file's end or cannot be read, `EAGAIN` when the socket
/// takes nothing.
pub(super) fn send_mapped(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    len: usize,
) -> rustix::io::Result<usize> {
    // A mapping shows zeros behind the file's end, up to the next page.
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let len = len.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
    if len == 0 {
        return Err(Errno::FAULT);
    }
    let skip = (offset % PAGE) as usize;
    let mapping = Mapping::new(file, offset - skip as u64, skip + len)?;
    let mut sent = 0;
    while sent < len {
        // SAFETY: within the mapping, which lives longer than the call. Pages that cannot be read are met by the kernel
        // alone, in its copy to the socket, and fail the call. The file's bytes may not change: segments are written
        // once, behind what was ever promised to a reader.
        let bytes = unsafe {
            let start = mapping.start.cast::<u8>().add(skip + sent);
            std::slice::from_raw_parts(start.cast_const(), len - sent)
        };
        match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(n) => sent += n,
            Err(Errno::INTR) => {}
            Err(_) if sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
