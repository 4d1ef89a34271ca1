//! Filling a journal file with zeros.
//!
//! `fallocate` alone would leave unwritten extents: every later commit would convert some and drag file-system
//! metadata into its `fdatasync`. Written zeros make a commit a plain overwrite.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::opcode;
use io_uring::types::Fd;

use crate::buf::AlignedBuf;
use crate::disk::DiskError;

use super::root::allocate;
use super::uring::{Done, Kind, Ring, Token, Wait, create, errno};

/// Bytes of one write.
const CHUNK: u64 = 1 << 20;
/// Writes in flight.
const DEPTH: u64 = 8;

/// Writes `len` bytes of zeros from the file's start, with direct I/O, several writes in flight. Blocks until all
/// are written; the caller syncs.
pub(super) fn fill_with_zeros(file: BorrowedFd<'_>, len: u64) -> Result<(), DiskError> {
    match allocate(file, 0, len) {
        // One extent if there is one; a full disk is told before anything is written.
        Ok(()) | Err(DiskError(libc::EOPNOTSUPP)) => {}
        Err(error) => return Err(error),
    }
    let mut ring = create(DEPTH as u32, 2 * DEPTH as u32)?;
    let mut ring = Ring::new(&mut ring);
    let zeros = AlignedBuf::zeroed(CHUNK as usize);
    let mut fill = Fill {
        file,
        len,
        next: 0,
        in_flight: 0,
        failed: None,
    };
    let outcome = fill.run(&mut ring, &zeros);
    if outcome.is_err() && fill.in_flight > 0 {
        // The ring itself failed with writes outstanding: they may still read the zeros.
        std::mem::forget(zeros);
    }
    outcome
}

struct Fill<'a> {
    file: BorrowedFd<'a>,
    len: u64,
    next: u64,
    in_flight: u64,
    failed: Option<DiskError>,
}

impl Fill<'_> {
    fn run(&mut self, ring: &mut Ring<'_>, zeros: &AlignedBuf) -> Result<(), DiskError> {
        let mut done = Vec::new();
        loop {
            while self.failed.is_none() && self.next < self.len && self.in_flight < DEPTH {
                self.write(ring, zeros)?;
            }
            if self.in_flight == 0 {
                return self.failed.map_or(Ok(()), Err);
            }
            ring.enter(Wait::Forever)?;
            ring.reap(&mut done);
            for write in done.drain(..) {
                self.written(write);
            }
        }
    }

    fn write(&mut self, ring: &mut Ring<'_>, zeros: &AlignedBuf) -> io::Result<()> {
        let bytes = CHUNK.min(self.len - self.next) as u32;
        let entry = opcode::Write::new(Fd(self.file.as_raw_fd()), zeros.as_ptr(), bytes)
            .offset(self.next)
            .build()
            .user_data(Token::new(Kind::Disk, bytes).pack());
        // SAFETY: the zeros outlive every write in flight: `fill_with_zeros` drops them only when none is.
        unsafe { ring.push(&entry) }?;
        self.next += u64::from(bytes);
        self.in_flight += 1;
        Ok(())
    }

    fn written(&mut self, write: Done) {
        self.in_flight -= 1;
        if let Some(error) = errno(write.result) {
            self.failed = Some(DiskError(error));
        } else if write.result as u32 != write.token.index {
            // The system stops short only when it cannot go on, and does not say why until asked again.
            self.failed.get_or_insert(DiskError::NO_SPACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OpenMode;
    use crate::ring::root::Root;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_are_written_not_only_allocated() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, vec![0xff; 100_000]).unwrap();
        let file = root.file("journal", OpenMode::WriteDirect).unwrap();
        let len = 5 * CHUNK + 8192;
        fill_with_zeros(file.as_fd(), len).unwrap();
        rustix::fs::fsync(&file).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), len, "allocation alone would leave the size");
        assert!(meta.blocks() * 512 >= len);
        assert!(std::fs::read(&path).unwrap().iter().all(|&b| b == 0));
    }

    #[test]
    fn a_failing_write_is_reported() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("read-only");
        std::fs::write(&path, b"").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(
            fill_with_zeros(file.as_fd(), 8192),
            Err(DiskError(libc::EBADF))
        );
    }
}
