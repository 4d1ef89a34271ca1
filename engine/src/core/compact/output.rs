//! The segment that a group becomes: whole blocks while there is more to come, then its exact size, its index files,
//! and everything synced, the directory last.

use std::collections::VecDeque;

use crate::batch::BatchHeader;
use crate::buf::{AlignedBuf, BufPool};
use crate::disk::FileId;
use crate::store::{SealedFiles, Segment, SegmentFile, note_batch};

use super::PIECE;

/// One operation of the completion; each waits for the one before.
#[derive(Debug)]
pub(super) enum Step {
    Open(SegmentFile),
    Write(AlignedBuf),
    Truncate(u64),
    Sync,
    SyncDir,
}

/// A segment being written.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) segment: Segment,
    pub(super) file: Option<(FileId, bool)>,
    /// Full buffers with their places.
    full: VecDeque<(u64, AlignedBuf)>,
    buf: Option<AlignedBuf>,
    start: u64,
    pool: BufPool,
    /// What is left to do once every batch is in.
    pub(super) steps: Option<VecDeque<Step>>,
}

impl Output {
    pub(super) fn new(segment: Segment, pool: BufPool) -> Self {
        Self {
            segment,
            file: None,
            full: VecDeque::new(),
            buf: None,
            start: 0,
            pool,
            steps: None,
        }
    }

    /// Appends a batch.
    pub(super) fn push(&mut self, batch: &[u8]) {
        let Some(header) = BatchHeader::read(batch) else {
            return;
        };
        note_batch(&mut self.segment, header);
        let mut rest = batch;
        while !rest.is_empty() {
            let buf = self.buf.get_or_insert_with(|| self.pool.take());
            let fits = rest.len().min(PIECE - buf.len());
            buf.extend_from_slice(&rest[..fits]);
            rest = &rest[fits..];
            if buf.len() == PIECE {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if let Some(buf) = self.buf.take() {
            let at = self.start;
            self.start += buf.len() as u64;
            self.full.push_back((at, buf));
        }
    }

    /// The next write of the log, if there is one.
    pub(super) fn next_write(&mut self) -> Option<(u64, AlignedBuf)> {
        self.full.pop_front()
    }

    /// Whether writes wait for their turn.
    pub(super) fn has_writes(&self) -> bool {
        !self.full.is_empty()
    }

    /// Every batch is in: the segment ends at `end`.
    pub(super) fn finish(&mut self, end: i64) {
        if let Some(buf) = &mut self.buf {
            buf.pad_to_block();
        }
        self.flush();
        self.segment.next_offset = end;
        self.segment.sealed = true;
        let mut steps = VecDeque::new();
        for (file, len, data) in SealedFiles::of(&self.segment)
            .into_iter()
            .flat_map(SealedFiles::into_files)
        {
            if file != SegmentFile::Log {
                steps.push_back(Step::Open(file));
            }
            steps.extend(data.map(Step::Write));
            steps.push_back(Step::Truncate(len));
            steps.push_back(Step::Sync);
        }
        steps.push_back(Step::SyncDir);
        self.steps = Some(steps);
    }
}
