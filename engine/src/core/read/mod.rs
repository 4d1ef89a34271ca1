//! Reading: from the journal's memory at once, from segment files by tasks that wait for the disk.

mod buffers;
mod search;
mod seen;
mod task;

use std::collections::{BTreeMap, VecDeque};

use crate::batch::BatchHeader;
use crate::id::{Now, Part};
use crate::store::AbortedTransaction;

use super::Core;
use super::api::{
    Chunk, Event, FetchData, FetchError, FetchSpec, FileSpan, ReadId, Reply, TimedOffset,
};
use buffers::Buffers;
use search::{find_record, youngest};
use seen::Seen;
use task::{Goal, Task};

/// Reads that may wait for their turn.
const QUEUE_MAX: usize = 10_000;
/// Sealed segments whose index stays in memory.
const INDEXES_KEPT: usize = 256;
/// Reads are gentle for so long after a commit, nanoseconds.
const GENTLE_NS: u64 = 10_000_000;

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    tasks: BTreeMap<ReadId, Task>,
    waiting: VecDeque<ReadId>,
    active: usize,
    next_id: u64,
    indexes: VecDeque<(u32, i64)>,
    /// What has been read past the page cache.
    seen: Seen,
    buffers: Buffers,
    /// When a commit was last under way, monotonic nanoseconds.
    commit_ns: Option<u64>,
    /// Commits come: they wait behind what the device is reading.
    gentle: bool,
}

impl Reads {
    /// Whether commits come, which background work must not delay.
    pub(super) fn is_gentle(&self) -> bool {
        self.gentle
    }

    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Bytes of memory with what was read, still waiting to be sent.
    pub(super) fn out_bytes(&self) -> usize {
        self.buffers.out_bytes()
    }
}

impl Core {
    /// Reads from `spec.offset` up to the high watermark: from memory at once, else by an [`Event::Fetched`].
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(
        &mut self,
        _now: Now,
        part: Part,
        spec: FetchSpec,
    ) -> Result<Reply<FetchData>, FetchError> {
        let serve_undurable = self.config.mutations.serve_undurable;
        let partition = self.partition(part)?;
        let end = if serve_undurable {
            partition.log_end
        } else if spec.committed {
            partition.last_stable()
        } else {
            partition.high_watermark
        };
        if spec.offset < partition.log_start || spec.offset > partition.log_end {
            return Err(FetchError::OutOfRange {
                offset: spec.offset,
                log_start_offset: partition.log_start,
                log_end_offset: partition.log_end,
            });
        }
        if spec.offset >= end {
            return Ok(Reply::Ready(FetchData::default()));
        }
        if let Some(at) = partition.tail_at(spec.offset) {
            let data = self.collect(part, at, end, spec);
            let data = FetchData {
                aborted: self.aborted_for(part, spec, &data)?,
                ..data
            };
            self.stats.read_memory_bytes += data.bytes as u64;
            return Ok(Reply::Ready(data));
        }
        let at = partition.stored.segment_at(spec.offset);
        let segment = at.map(|at| partition.stored.segments[at].name());
        let Some(segment) = segment else {
            return Err(FetchError::Damaged {
                segment: spec.offset,
                position: 0,
            });
        };
        let hint = partition
            .hint(spec.offset)
            .filter(|hint| hint.segment == segment);
        let id = self.start_read(part, Goal::Fetch(spec), segment, hint)?;
        Ok(self.reply_now(id, |event| match event {
            Event::Fetched(_, Ok(data)) => Some(data),
            _ => None,
        }))
    }

    /// A read that ended without waiting is answered at once.
    fn reply_now<T>(&mut self, id: ReadId, take: impl Fn(Event) -> Option<T>) -> Reply<T> {
        let done = match self.out.events.back() {
            Some(Event::Fetched(last, Ok(_))) | Some(Event::Timed(last, Ok(_))) => *last == id,
            _ => false,
        };
        if done && let Some(value) = self.out.events.pop_back().and_then(take) {
            return Reply::Ready(value);
        }
        Reply::Pending(id)
    }

    /// What a committed read is told of aborted transactions, with what was read for `spec`.
    ///
    /// # Errors
    /// The log begins behind the offset by now: what is known of transactions before its start is not complete.
    fn aborted_for(
        &self,
        part: Part,
        spec: FetchSpec,
        data: &FetchData,
    ) -> Result<Vec<AbortedTransaction>, FetchError> {
        if !spec.committed || data.bytes == 0 {
            return Ok(Vec::new());
        }
        let partition = self.partition(part)?;
        if spec.offset < partition.log_start {
            return Err(FetchError::OutOfRange {
                offset: spec.offset,
                log_start_offset: partition.log_start,
                log_end_offset: partition.log_end,
            });
        }
        Ok(self.aborted(part, spec.offset, data.end))
    }

    /// Batches in memory from tail entry `at` on, up to `end`.
    fn collect(&self, part: Part, at: usize, end: i64, spec: FetchSpec) -> FetchData {
        let mut data = FetchData::default();
        let Some(partition) = self.parts.get(part.0 as usize).and_then(Option::as_ref) else {
            return data;
        };
        for entry in partition.tail.range(at..) {
            let first = data.chunks.is_empty() && spec.min_one;
            if entry.base_offset >= end || !first && data.bytes + entry.len() > spec.max_bytes {
                data.end = entry.base_offset;
                return data;
            }
            let Some(slice) = self.journal.slice(entry.place, entry.len()) else {
                break;
            };
            data.bytes += entry.len();
            data.chunks.push(Chunk::Bytes(slice));
        }
        data.end = end;
        data
    }

    /// Gives back the file of a span once it is sent or dropped; each span of a [`FetchData`] exactly once.
    pub fn release(&mut self, span: FileSpan) {
        self.files.release(&mut self.out, span.file);
    }

    /// The first record whose timestamp is at least `timestamp_ms`, or [`Event::Timed`] later. Batches that are
    /// not in files yet are looked at one by one.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn offset_for_time(
        &mut self,
        _now: Now,
        part: Part,
        timestamp_ms: i64,
    ) -> Result<Reply<Option<TimedOffset>>, FetchError> {
        let partition = self.partition(part)?;
        if partition.max_timestamp.0 < timestamp_ms
            || partition.log_start == partition.high_watermark
        {
            return Ok(Reply::Ready(None));
        }
        // One that ends at the log's start is about to go.
        let log_start = partition.log_start;
        let mut segments = partition.stored.segments.iter();
        let found = segments.find(|s| s.max_timestamp >= timestamp_ms && s.next_offset > log_start);
        let Some(segment) = found else {
            return Ok(Reply::Ready(self.time_in_memory(part, timestamp_ms)));
        };
        let name = segment.name();
        let id = self.start_read(part, Goal::Time(timestamp_ms), name, None)?;
        Ok(self.reply_now(id, |event| match event {
            Event::Timed(_, Ok(found)) => Some(found),
            _ => None,
        }))
    }

    fn time_in_memory(&self, part: Part, timestamp_ms: i64) -> Option<TimedOffset> {
        let partition = self.parts.get(part.0 as usize)?.as_ref()?;
        let skip = partition.tail_unstored();
        let mut room = self.config.decompressed_bytes_max;
        for entry in partition.tail.range(skip..) {
            if entry.base_offset >= partition.high_watermark {
                return None;
            }
            let batch = self.journal.slice(entry.place, entry.len())?;
            let header = BatchHeader::read(&batch)?;
            if header.max_timestamp.get() >= timestamp_ms {
                let log_start = partition.log_start;
                let found = find_record(&batch, log_start, &mut room, |ts| ts >= timestamp_ms);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// The record with the largest timestamp (ListOffsets -3), if the log is not empty.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn max_timestamp(
        &mut self,
        _now: Now,
        part: Part,
    ) -> Result<Reply<Option<TimedOffset>>, FetchError> {
        let partition = self.partition(part)?;
        let mut largest = partition.max_timestamp;
        if largest.1 < partition.log_start {
            largest = partition.newest_left(&self.journal, partition.high_watermark);
        }
        let (newest, offset) = largest;
        if newest < 0 || partition.log_start == partition.high_watermark {
            return Ok(Reply::Ready(None));
        }
        let end = partition.high_watermark;
        if let Some(at) = partition.tail_at(offset.min(end - 1)) {
            let entry = partition.tail[at];
            let log_start = partition.log_start;
            let batch = self.journal.slice(entry.place, entry.len());
            let room = self.config.decompressed_bytes_max;
            return Ok(Reply::Ready(
                batch.and_then(|batch| youngest(&batch, log_start, room)),
            ));
        }
        let at = partition.stored.segment_at(offset);
        let Some(segment) = at.map(|at| partition.stored.segments[at].name()) else {
            return Ok(Reply::Ready(None));
        };
        let id = self.start_read(part, Goal::Newest(offset), segment, None)?;
        Ok(self.reply_now(id, |event| match event {
            Event::Timed(_, Ok(found)) => Some(found),
            _ => None,
        }))
    }
}
