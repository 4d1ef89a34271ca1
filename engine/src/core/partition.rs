//! One partition of a shard: the live end of its log in memory, and what is stored behind it.

use std::collections::VecDeque;

use crate::batch::BatchHeader;
use crate::id::PartitionKey;
use crate::store::{Epochs, Producers, SegmentName, StoredLog};

use super::api::LogConfig;
use super::journal::{Journal, Place};

/// A batch in the journal's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailEntry {
    pub(super) base_offset: i64,
    pub(super) place: Place,
    len_and_roll: u32,
}

impl TailEntry {
    const ROLL: u32 = 1 << 31;

    pub(super) fn new(base_offset: i64, place: Place, len: usize, roll: bool) -> Self {
        debug_assert!(len < Self::ROLL as usize);
        Self {
            base_offset,
            place,
            len_and_roll: len as u32 | if roll { Self::ROLL } else { 0 },
        }
    }

    pub(super) fn len(&self) -> usize {
        (self.len_and_roll & !Self::ROLL) as usize
    }

    pub(super) fn roll(&self) -> bool {
        self.len_and_roll & Self::ROLL != 0
    }
}

/// The segment that appends go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveSegment {
    pub(super) base_offset: i64,
    pub(super) bytes: u64,
    pub(super) created_ms: i64,
}

/// Where a sequential reader will go on in the files: the batch at `offset` starts at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadHint {
    pub(super) offset: i64,
    pub(super) segment: SegmentName,
    pub(super) position: u64,
}

/// Readers of one partition whose places are remembered.
const HINTS: usize = 8;

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) key: PartitionKey,
    pub(super) dir: String,
    pub(super) config: LogConfig,
    pub(super) log_start: i64,
    /// What the log start becomes when a checkpoint has it.
    pub(super) next_log_start: i64,
    pub(super) log_end: i64,
    pub(super) high_watermark: i64,
    pub(super) stored: StoredLog,
    pub(super) live: Option<LiveSegment>,
    /// The next append starts a new segment.
    pub(super) roll_next: bool,
    /// Batches in memory, oldest first; the newest are the log's end.
    pub(super) tail: VecDeque<TailEntry>,
    /// Entries dropped from the front of `tail` so far.
    pub(super) tail_dropped: u64,
    /// Entries, counted as `tail_dropped` counts, that `stored` covers.
    pub(super) tail_stored: u64,
    /// Largest timestamp appended and the last offset of its batch. What is left of the log has none that is larger, and
    /// may have lost this one.
    pub(super) max_timestamp: (i64, i64),
    pub(super) producers: Producers,
    pub(super) epochs: Epochs,
    pub(super) watched: bool,
    /// It is in the destager's list.
    pub(super) dirty: bool,
    hints: VecDeque<ReadHint>,
    /// The revision that the next segment of a compaction gets.
    pub(super) next_revision: u32,
    /// Compaction leaves the partition alone until then, monotonic nanoseconds.
    pub(super) compact_after_ns: u64,
}

impl Partition {
    pub(super) fn new(key: PartitionKey, dir: String, config: LogConfig) -> Self {
        Self {
            key,
            dir,
            config,
            log_start: 0,
            next_log_start: 0,
            log_end: 0,
            high_watermark: 0,
            stored: StoredLog::default(),
            live: None,
            roll_next: false,
            tail: VecDeque::new(),
            tail_dropped: 0,
            tail_stored: 0,
            max_timestamp: (i64::MIN, -1),
            producers: Producers::default(),
            epochs: Epochs::default(),
            watched: false,
            dirty: false,
            hints: VecDeque::new(),
            next_revision: 1,
            compact_after_ns: 0,
        }
    }

    /// Whether a batch of `len` bytes with `records` records must start a new segment.
    pub(super) fn must_roll(&self, len: usize, records: i64, wall_ms: i64) -> bool {
        let Some(live) = self.live else { return true };
        if self.roll_next {
            return true;
        }
        live.bytes > 0
            && (live.bytes + len as u64 > u64::from(self.config.segment_bytes)
                || wall_ms - live.created_ms > self.config.roll_ms()
                || self.log_end + records - live.base_offset > i64::from(i32::MAX))
    }

    /// The tail entry whose batch contains `offset`, if it is in memory.
    pub(super) fn tail_at(&self, offset: i64) -> Option<usize> {
        let after = self
            .tail
            .partition_point(|entry| entry.base_offset <= offset);
        after.checked_sub(1)
    }

    /// Drops entries of frames up to `frame` from the front.
    pub(super) fn drop_tail(&mut self, frame: u64) {
        while self
            .tail
            .front()
            .is_some_and(|entry| entry.place.frame <= frame)
        {
            self.tail.pop_front();
            self.tail_dropped += 1;
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    /// The log start that a checkpoint may have now: never beyond what is stored, so that replay goes on where the
    /// stored log ends even when no segment is left.
    pub(super) fn storable_log_start(&self) -> i64 {
        let stored_end = self.stored.next_offset().unwrap_or(self.log_start);
        self.next_log_start.min(stored_end).max(self.log_start)
    }

    /// Whether a checkpoint with this log start changes anything: the start itself, or segments that it frees.
    pub(super) fn sheds_at(&self, log_start: i64) -> bool {
        let first = self.stored.segments.front();
        log_start > self.log_start || first.is_some_and(|s| s.sealed && s.next_offset <= log_start)
    }

    /// First offset that is not decided yet; never below the log's start, never past the high watermark.
    pub(super) fn last_stable(&self) -> i64 {
        let unstable = self.producers.first_unstable();
        unstable.map_or(self.high_watermark, |first| {
            first.max(self.log_start).min(self.high_watermark)
        })
    }

    /// Time by which the newest record of the segment that appends go to expires, at the latest; none while it is empty.
    /// Records without a time expire by its creation: ended earlier, it would wait for that all the same.
    pub(super) fn newest_live_ms(&self) -> Option<i64> {
        let live = self.live.filter(|live| live.bytes > 0)?;
        let (newest, offset) = self.max_timestamp;
        let stored = self.stored.segments.back();
        let stored = stored.filter(|s| s.base_offset == live.base_offset);
        let known = if offset >= live.base_offset {
            newest
        } else {
            stored.map_or(i64::MIN, |s| s.max_timestamp)
        };
        Some(if known >= 0 {
            newest
        } else {
            newest.max(live.created_ms)
        })
    }

    /// Where in the tail what is not in files yet begins.
    ///
    /// # Panics
    /// If something left the tail before it was in files: acknowledged records would be gone.
    pub(super) fn tail_unstored(&self) -> usize {
        let skip = self.tail_stored.checked_sub(self.tail_dropped);
        skip.expect("invariant: what has left the tail is in files") as usize
    }

    /// The largest timestamp that is left before `end` and the last offset of its batch, after DeleteRecords has passed
    /// the largest of all. Of a segment that was cut, only what memory holds is known.
    pub(super) fn newest_left(&self, journal: &Journal, end: i64) -> (i64, i64) {
        let known = self.timestamps(journal, end);
        newest(known.filter(|&(_, offset)| offset >= self.log_start))
    }

    /// A timestamp that nothing left exceeds, and the last offset of its batch. That may lie before the log's start: of
    /// a segment that was cut it is not known how much less the largest behind the cut is.
    pub(super) fn newest_at_most(&self, journal: &Journal) -> (i64, i64) {
        newest(self.timestamps(journal, i64::MAX))
    }

    /// The largest timestamp of each segment, and of each batch in memory from the log's start to `end`.
    fn timestamps<'a>(
        &'a self,
        journal: &'a Journal,
        end: i64,
    ) -> impl Iterator<Item = (i64, i64)> + 'a {
        let segments = self.stored.segments.iter();
        let stored = segments.map(|s| (s.max_timestamp, s.max_timestamp_offset));
        let from = self.tail_at(self.log_start).unwrap_or(0);
        let visible = self.tail.range(from..);
        let tail = visible
            .take_while(move |entry| entry.base_offset < end)
            .filter_map(|entry| {
                let batch = journal.slice(entry.place, entry.len())?;
                let header = BatchHeader::read(&batch)?;
                Some((header.max_timestamp.get(), header.last_offset()))
            });
        stored.chain(tail)
    }

    /// Batches that are not stored yet.
    pub(super) fn has_unstored(&self) -> bool {
        self.tail_stored < self.tail_dropped + self.tail.len() as u64
    }

    pub(super) fn hint(&self, offset: i64) -> Option<ReadHint> {
        self.hints
            .iter()
            .copied()
            .find(|hint| hint.offset == offset)
    }

    /// Forgets places in these segments.
    pub(super) fn forget_hints(&mut self, segments: &[SegmentName]) {
        self.hints.retain(|hint| !segments.contains(&hint.segment));
    }

    /// Drops entries before `offset` from the front: segments hold them in another form.
    pub(super) fn drop_tail_before(&mut self, offset: i64) {
        while self.tail_dropped < self.tail_stored
            && self.tail.front().is_some_and(|e| e.base_offset < offset)
        {
            self.tail.pop_front();
            self.tail_dropped += 1;
        }
    }

    pub(super) fn remember(&mut self, used: i64, hint: ReadHint) {
        self.hints
            .retain(|known| known.offset != used && known.offset != hint.offset);
        if self.hints.len() == HINTS {
            self.hints.pop_front();
        }
        self.hints.push_back(hint);
    }
}

/// The largest of timestamps with their offsets; the smallest there may be, and -1, where there are none.
fn newest(known: impl Iterator<Item = (i64, i64)>) -> (i64, i64) {
    known
        .max_by_key(|&(timestamp, _)| timestamp)
        .unwrap_or((i64::MIN, -1))
}
