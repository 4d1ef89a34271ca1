//! What the page cache holds of a file.

use std::os::fd::RawFd;

/// `cachestat(2)`, the same number on every architecture (Linux 6.5).
pub(super) const SYS_CACHESTAT: libc::c_long = 451;
/// Bytes of a page: cachestat counts them, whatever the size of the folios.
const PAGE: u64 = 4096;

/// As in `linux/mman.h`.
#[repr(C)]
struct Range {
    off: u64,
    len: u64,
}

/// As in `linux/mman.h`: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all of `len` bytes from `offset` are in the page cache. False as well where the kernel cannot tell.
pub(super) fn is_cached(file: RawFd, offset: u64, len: usize) -> bool {
    let first = offset / PAGE * PAGE;
    let wanted = (offset + len as u64).div_ceil(PAGE) - first / PAGE;
    let range = Range {
        off: first,
        len: wanted * PAGE,
    };
    let mut pages = Pages::default();
    // SAFETY: both structures are laid out as the kernel's, and outlive the call.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file, &raw const range, &raw mut pages, 0_u32) };
    result == 0 && pages.cached >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn written_pages_are_cached_and_what_lies_behind_the_end_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 100_000]).unwrap();
        let fd = file.as_raw_fd();
        let kernel_can_tell = is_cached(fd, 0, 1);
        assert_eq!(is_cached(fd, 5_000, 90_000), kernel_can_tell);
        assert!(!is_cached(fd, 50_000, 100_000));
        assert!(!is_cached(-1, 0, 1));
    }
}
