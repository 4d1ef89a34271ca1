//! A partition's log up to a cut of the journal: what lies in segment files, and the odd tail that does not yet.

use std::collections::VecDeque;

use crate::buf::{Slice, round_down};

use super::index::SparseIndex;
use super::names::SegmentName;
use super::stager::Advance;

/// One segment as of the last destage round.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Offset of its first record, and its file's name.
    pub base_offset: i64,
    /// Part of its files' names; 0 unless compaction made it.
    pub revision: u32,
    /// Offset after its last record, or, where compaction has dropped that, after the last that there was.
    pub next_offset: i64,
    /// Bytes of batches. A sealed segment's file has exactly these; an open one's whole blocks of them, and the
    /// rest is the log's odd tail.
    pub bytes: u64,
    /// Largest timestamp in it, milliseconds; `i64::MIN` while empty.
    pub max_timestamp: i64,
    /// Last offset of the batch that holds it.
    pub max_timestamp_offset: i64,
    /// Wall clock when its first batch was appended, milliseconds.
    pub created_ms: i64,
    /// It is complete: truncated to its exact size, its index files written.
    pub sealed: bool,
    /// Its index; always there while open, loaded on demand once sealed.
    pub index: Option<SparseIndex>,
}

impl Segment {
    /// An empty segment.
    #[must_use]
    pub fn new(base_offset: i64, created_ms: i64, index_interval: u32) -> Self {
        Self {
            base_offset,
            revision: 0,
            next_offset: base_offset,
            bytes: 0,
            max_timestamp: i64::MIN,
            max_timestamp_offset: base_offset,
            created_ms,
            sealed: false,
            index: Some(SparseIndex::new(index_interval)),
        }
    }

    /// What its files are called.
    #[must_use]
    pub fn name(&self) -> SegmentName {
        SegmentName {
            base_offset: self.base_offset,
            revision: self.revision,
        }
    }

    /// Time of its newest record, by which retention goes, milliseconds. Where no record has a time, or compaction has
    /// left none, it is the segment's creation, as Kafka falls back to the file's.
    #[must_use]
    pub fn newest_ms(&self) -> i64 {
        if self.max_timestamp >= 0 {
            self.max_timestamp
        } else {
            self.created_ms
        }
    }

    /// Bytes of it that lie in its file and can be read there.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        if self.sealed {
            self.bytes
        } else {
            round_down(self.bytes as usize) as u64
        }
    }
}

/// A partition's log up to the last finished destage round.
#[derive(Debug, Clone, Default)]
pub struct StoredLog {
    /// Segments in order; all but the last are sealed. None before the first round.
    pub segments: VecDeque<Segment>,
    /// Bytes of the last segment beyond its whole blocks; shorter than a block.
    pub odd: Option<Slice>,
    /// Compaction has looked at everything before this offset; 0 for nothing yet.
    pub cleaned_end: i64,
    /// The partition's directory exists durably.
    pub dir_exists: bool,
}

impl StoredLog {
    /// Offset after the last record in it.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.segments.back().map(|segment| segment.next_offset)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Place of the segment that contains `offset`, which must not lie before the first.
    #[must_use]
    pub fn segment_at(&self, offset: i64) -> Option<usize> {
        let after = self
            .segments
            .partition_point(|segment| segment.base_offset <= offset);
        let at = after.checked_sub(1)?;
        (offset < self.segments[at].next_offset).then_some(at)
    }

    /// Puts `segment` in the place of those called `old`, which it was made of. False, and nothing is changed, when not
    /// all of them are there any more.
    pub fn replace(&mut self, old: &[SegmentName], segment: Segment) -> bool {
        let Some(first) = old.first() else {
            return false;
        };
        let Some(at) = self.segments.iter().position(|s| s.name() == *first) else {
            return false;
        };
        let there = self.segments.range(at..).map(Segment::name);
        if !there.take(old.len()).eq(old.iter().copied()) {
            return false;
        }
        self.segments[at] = segment;
        self.segments.drain(at + 1..at + old.len());
        true
    }

    /// Takes over what a finished round has written; `dir_made` when that made the partition's directory.
    pub fn apply(&mut self, advance: Advance, dir_made: bool) {
        for segment in advance.segments {
            match self.segments.back_mut() {
                Some(last) if last.base_offset == segment.base_offset => *last = segment,
                _ => self.segments.push_back(segment),
            }
        }
        self.odd = advance.odd;
        self.dir_exists |= dir_made;
    }
}

/// Leader epochs of a partition: each with the offset at which it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs(Vec<(i32, i64)>);

impl Epochs {
    /// From stored entries, which must rise in both; others are dropped.
    #[must_use]
    pub fn from_entries(entries: Vec<(i32, i64)>) -> Self {
        let mut epochs = Self::default();
        for (epoch, start) in entries {
            epochs.append(epoch, start);
        }
        epochs
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[(i32, i64)] {
        &self.0
    }

    /// Notes that a batch of `epoch` starts at `offset`.
    pub fn append(&mut self, epoch: i32, offset: i64) {
        if self
            .0
            .last()
            .is_none_or(|&(last, start)| epoch > last && offset >= start)
        {
            self.0.push((epoch, offset));
        }
    }

    /// Drops epochs that ended before the log's start, keeping the one that reaches it.
    pub fn truncate_start(&mut self, log_start: i64) {
        let keep = self
            .0
            .partition_point(|&(_, start)| start <= log_start)
            .saturating_sub(1);
        self.0.drain(..keep);
        if let Some(first) = self.0.first_mut() {
            first.1 = first.1.max(log_start);
        }
    }

    /// Kafka's OffsetForLeaderEpoch for an `epoch` that has begun: the largest known one not above it and the offset where
    /// that ends, `log_end` when it is the newest.
    ///
    /// Of an epoch older than all known ones nothing is left, so it ended by where the first of them begins, or, when
    /// none is known, by the log's end: whoever stands at the log's start has lost nothing.
    #[must_use]
    pub fn end_of(&self, epoch: i32, log_end: i64) -> (i32, i64) {
        let after = self.0.partition_point(|&(e, _)| e <= epoch);
        let found = after.checked_sub(1).map_or(epoch, |at| self.0[at].0);
        let end = self.0.get(after).map_or(log_end, |&(_, start)| start);
        (found, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_end_where_the_next_begins() {
        let mut epochs = Epochs::from_entries(vec![(1, 0), (3, 100), (2, 50), (4, 200)]);
        assert_eq!(epochs.entries(), [(1, 0), (3, 100), (4, 200)]);
        assert_eq!(epochs.end_of(1, 300), (1, 100));
        assert_eq!(epochs.end_of(2, 300), (1, 100));
        assert_eq!(epochs.end_of(4, 300), (4, 300));
        assert_eq!(epochs.end_of(9, 300), (4, 300));
        epochs.truncate_start(150);
        assert_eq!(epochs.entries(), [(3, 150), (4, 200)]);
    }

    #[test]
    fn an_epoch_older_than_all_that_is_left_ended_where_the_log_starts() {
        let mut epochs = Epochs::from_entries(vec![(1, 0), (3, 100)]);
        assert_eq!(epochs.end_of(0, 300), (0, 0));
        epochs.truncate_start(150);
        assert_eq!(epochs.end_of(1, 300), (1, 150));
        assert_eq!(epochs.end_of(3, 300), (3, 300));
        assert_eq!(Epochs::default().end_of(5, 300), (5, 300));
    }
}
