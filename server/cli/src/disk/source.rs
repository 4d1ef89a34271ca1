//! Bytes of a file, read piece by piece: memory stays the same however large the file or the lengths in it are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes kept in memory.
const WINDOW_BYTES: usize = 1 << 20;

/// A file's bytes, and some that come behind them (the odd tail of a log, which lies in the checkpoint).
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    /// Bytes of the file that count.
    file_len: u64,
    tail: Vec<u8>,
    window: Vec<u8>,
    window_at: u64,
    /// The first error of the disk; what it concerned reads as if the file ended there.
    error: Option<io::Error>,
}

impl Source {
    /// Opens a file for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        Ok(Self {
            file,
            file_len: meta.len(),
            tail: Vec::new(),
            window: Vec::new(),
            window_at: 0,
            error: None,
        })
    }

    /// The first `len` bytes of the file, followed by `tail`.
    pub(crate) fn with_tail(mut self, len: u64, tail: &[u8]) -> Self {
        self.file_len = self.file_len.min(len);
        self.tail = tail.to_vec();
        self
    }

    /// Bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.file_len + self.tail.len() as u64
    }

    /// What the disk refused to give.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// `len` bytes from `at` on; `None` if they are not there, or are more than a window.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Option<&[u8]> {
        let end = at.checked_add(len as u64)?;
        if len > WINDOW_BYTES || end > self.len() {
            return None;
        }
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || end > window_end {
            self.slide(at);
        }
        let start = (at - self.window_at) as usize;
        self.window.get(start..start + len)
    }

    /// Calls `each` with the `len` bytes from `at` on, a piece at a time; false if they are not all there.
    pub(crate) fn pieces(&mut self, at: u64, len: u64, mut each: impl FnMut(&[u8])) -> bool {
        let mut at = at;
        let mut left = len;
        while left > 0 {
            let piece = left.min(WINDOW_BYTES as u64 / 4) as usize;
            let Some(bytes) = self.bytes(at, piece) else {
                return false;
            };
            each(bytes);
            at += piece as u64;
            left -= piece as u64;
        }
        true
    }

    /// All of `len` bytes from `at` on, at most `max`.
    pub(crate) fn copy(&mut self, at: u64, len: u64, max: usize) -> Option<Vec<u8>> {
        let in_bounds = at.checked_add(len).is_some_and(|end| end <= self.len());
        if !in_bounds || len > max as u64 {
            return None;
        }
        let mut copy = Vec::with_capacity(len as usize);
        self.pieces(at, len, |piece| copy.extend_from_slice(piece))
            .then_some(copy)
    }

    /// Fills the window from `at` on.
    fn slide(&mut self, at: u64) {
        self.window_at = at;
        let len = (self.len() - at).min(WINDOW_BYTES as u64) as usize;
        self.window.resize(len, 0);
        let from_file = self.file_len.saturating_sub(at).min(len as u64) as usize;
        if let Err(error) = self.file.read_exact_at(&mut self.window[..from_file], at) {
            self.error.get_or_insert(error);
            self.window.clear();
            return;
        }
        let tail_at = (at + from_file as u64).saturating_sub(self.file_len) as usize;
        let rest = len - from_file;
        self.window[from_file..].copy_from_slice(&self.tail[tail_at..tail_at + rest]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_tail_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let all: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
        std::fs::write(&path, &all[..2_500_000]).unwrap();
        let mut source = Source::open(&path)
            .unwrap()
            .with_tail(2_400_000, &all[2_400_000..]);
        assert_eq!(source.len(), 3_000_000);
        for (at, len) in [
            (0, 10),
            (2_399_990, 20),
            (2_999_990, 10),
            (1_000_000, 1 << 20),
            (5, 100),
        ] {
            assert_eq!(
                source.bytes(at, len),
                Some(&all[at as usize..at as usize + len])
            );
        }
        assert_eq!(source.bytes(2_999_990, 11), None);
        assert_eq!(source.bytes(0, (1 << 20) + 1), None);
        assert_eq!(source.copy(0, 3_000_000, usize::MAX), Some(all));
        assert_eq!(source.copy(0, u64::MAX, usize::MAX), None);
        assert!(!source.pieces(2_999_999, 2, |_| ()));
    }
}
