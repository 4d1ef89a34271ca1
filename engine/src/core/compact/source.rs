//! Reading a segment from its beginning to its end, a piece ahead of what is being looked at.

use crate::buf::{AlignedBuf, round_up};
use crate::disk::FileId;
use crate::store::{Segment, SegmentName};

use super::PIECE;

/// One segment's batches.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: SegmentName,
    /// Offset behind it.
    pub(super) end: i64,
    pub(super) file: FileId,
    /// The file is open.
    pub(super) ready: bool,
    /// Bytes of batches in it.
    len: u64,
    /// The next read begins here, a block boundary.
    next: u64,
    reading: bool,
    /// What was read; before `at` it is done with.
    bytes: Vec<u8>,
    at: usize,
}

impl Source {
    pub(super) fn new(segment: &Segment, file: FileId, ready: bool) -> Self {
        Self {
            name: segment.name(),
            end: segment.next_offset,
            file,
            ready,
            len: segment.bytes,
            next: 0,
            reading: false,
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// Where to read now, and how many bytes, should more be wanted.
    pub(super) fn next_read(&mut self) -> Option<(u64, usize)> {
        let wanted = self.ready && !self.reading && self.next < self.len;
        if !wanted || self.bytes.len() - self.at >= PIECE && !self.is_starved() {
            return None;
        }
        self.reading = true;
        let left = usize::try_from(self.len - self.next).unwrap_or(PIECE);
        Some((self.next, round_up(left.min(PIECE))))
    }

    /// No whole batch is here.
    fn is_starved(&self) -> bool {
        let rest = &self.bytes[self.at..];
        crate::compact::Batches::new(rest).needed() > rest.len()
    }

    /// A piece was read; false if the file is shorter than it should be.
    pub(super) fn read(&mut self, piece: &AlignedBuf) -> bool {
        self.reading = false;
        let left = self.len - self.next;
        let len = (piece.len() as u64).min(left);
        if len < left.min(PIECE as u64) {
            return false;
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(&piece[..len as usize]);
        self.next += len;
        true
    }

    /// What is here and not done with.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// So many bytes more are done with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// All of it has been read.
    pub(super) fn is_read(&self) -> bool {
        self.next >= self.len && !self.reading
    }
}
