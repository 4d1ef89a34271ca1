//! Turns batches of one partition into whole-block writes of its segment files.
//!
//! The only place that decides which byte of a segment lands where; the destager and recovery both use it, so
//! that a crash between them rewrites the same bytes.

use crate::batch::BatchHeader;
use crate::buf::{AlignedBuf, BLOCK, BufPool, Slice, round_down, round_up};

use super::index::IndexEntry;
use super::log::{Segment, StoredLog};
use super::names::SegmentFile;

/// Largest single write, bytes: the size of a [`Stager`]'s pooled buffers.
pub const WRITE_MAX: usize = 1 << 20;
/// Smaller buffers come from the allocator, which reuses them, too.
const POOLED_MIN: usize = 128 << 10;

/// A sealed segment's index files, in Kafka's formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFiles {
    /// Exact size of the log file, bytes.
    pub log_bytes: u64,
    /// Contents of the offset index.
    pub offset_index: Vec<u8>,
    /// Contents of the time index.
    pub time_index: Vec<u8>,
}

impl SealedFiles {
    /// Those of a segment that is complete and has its index in memory.
    #[must_use]
    pub fn of(segment: &Segment) -> Option<Self> {
        let index = segment.index.as_ref()?;
        let relative = (segment.max_timestamp_offset - segment.base_offset) as u32;
        Some(Self {
            log_bytes: segment.bytes,
            offset_index: index.to_offset_index(),
            time_index: index.to_time_index((segment.max_timestamp, relative)),
        })
    }

    /// Each of the segment's files with its exact size and, where the whole of it is still to be written, its
    /// contents padded to whole blocks.
    #[must_use]
    pub fn into_files(self) -> [(SegmentFile, u64, Option<AlignedBuf>); 3] {
        let index = |file, bytes: Vec<u8>| {
            let data = (!bytes.is_empty()).then(|| {
                let mut data = AlignedBuf::with_capacity(bytes.len());
                data.extend_from_slice(&bytes);
                data.pad_to_block();
                data
            });
            (file, bytes.len() as u64, data)
        };
        [
            (SegmentFile::Log, self.log_bytes, None),
            index(SegmentFile::Index, self.offset_index),
            index(SegmentFile::TimeIndex, self.time_index),
        ]
    }
}

/// What is to be done next with a segment's files.
#[derive(Debug)]
pub enum StageStep {
    /// Write whole blocks.
    Write {
        /// The segment.
        base_offset: i64,
        /// Bytes from the log file's start, a block boundary.
        offset: u64,
        /// Whole blocks.
        data: AlignedBuf,
    },
    /// All of the segment is written: truncate the log to its exact size, write the index files.
    Seal {
        /// The segment.
        base_offset: i64,
        /// Sizes and contents.
        files: SealedFiles,
    },
}

/// What a round adds to a [`StoredLog`], once everything it wrote is synced.
#[derive(Debug)]
pub struct Advance {
    /// Segments that changed, in order; the first may replace the log's last.
    pub(super) segments: Vec<Segment>,
    /// The new odd tail.
    pub(super) odd: Option<Slice>,
}

impl Advance {
    /// Offset after the last batch staged.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.segments.last().map(|segment| segment.next_offset)
    }
}

/// Stages the batches of one partition behind what a [`StoredLog`] holds.
#[derive(Debug)]
pub struct Stager {
    pool: BufPool,
    done: Vec<Segment>,
    current: Option<Segment>,
    /// Bytes of the current segment from `start` on that are not in a write yet.
    buf: Option<AlignedBuf>,
    start: u64,
    expected_bytes: usize,
    write_bytes: usize,
    index_interval: u32,
    now_ms: i64,
}

impl Stager {
    /// A stager for about `expected_bytes` of batches; segments that begin are dated `now_ms`. Large buffers come
    /// from `pool`, whose buffers have [`WRITE_MAX`] bytes.
    #[must_use]
    pub fn new(
        pool: BufPool,
        stored: &StoredLog,
        index_interval: u32,
        expected_bytes: usize,
        now_ms: i64,
    ) -> Self {
        let current = stored
            .segments
            .back()
            .filter(|segment| !segment.sealed)
            .cloned();
        let mut stager = Self {
            pool,
            done: Vec::new(),
            start: current.as_ref().map_or(0, Segment::file_bytes),
            current,
            buf: None,
            expected_bytes,
            write_bytes: WRITE_MAX,
            index_interval,
            now_ms,
        };
        if let Some(odd) = stored.odd.as_ref().filter(|_| stager.current.is_some()) {
            stager.fresh_buf(odd.len()).extend_from_slice(odd);
        }
        stager
    }

    /// The same with writes of at most `write_bytes`, rounded down to blocks: at least one, at most [`WRITE_MAX`].
    #[must_use]
    pub fn writing(mut self, write_bytes: usize) -> Self {
        self.write_bytes = round_down(write_bytes).clamp(BLOCK, WRITE_MAX);
        self
    }

    fn fresh_buf(&mut self, least: usize) -> &mut AlignedBuf {
        let wanted = round_up(self.expected_bytes + least).clamp(
            round_up(least.max(1)),
            self.write_bytes.max(round_up(least)),
        );
        let pooled = wanted > POOLED_MIN && wanted <= self.pool.buf_bytes();
        self.buf.insert(if pooled {
            self.pool.take()
        } else {
            AlignedBuf::with_capacity(wanted)
        })
    }

    /// Adds a batch; full buffers and the seal of a segment that `roll` ends become steps.
    ///
    /// # Panics
    /// If `batch` has no whole header: only validated batches reach a log.
    pub fn push(&mut self, batch: &[u8], roll: bool, steps: &mut Vec<StageStep>) {
        let header = BatchHeader::read(batch).expect("a validated batch has a header");
        let base = header.base_offset.get();
        if roll || self.current.is_none() {
            self.seal(steps);
            self.current = Some(Segment::new(base, self.now_ms, self.index_interval));
            self.start = 0;
        }
        if let Some(segment) = &mut self.current {
            note_batch(segment, header);
        }
        self.expected_bytes = self.expected_bytes.saturating_sub(batch.len());
        let write_bytes = self.write_bytes;
        let mut rest = batch;
        while !rest.is_empty() {
            let buf = match &mut self.buf {
                Some(buf) => buf,
                None => self.fresh_buf(rest.len().min(write_bytes)),
            };
            let full = buf.capacity().min(write_bytes);
            let fits = rest.len().min(full - buf.len());
            buf.extend_streaming(&rest[..fits]);
            rest = &rest[fits..];
            if buf.len() == full {
                self.emit(steps);
            }
        }
    }

    /// Turns the full buffer (whole blocks) into a write.
    fn emit(&mut self, steps: &mut Vec<StageStep>) {
        if let (Some(data), Some(segment)) = (self.buf.take(), &self.current) {
            let offset = self.start;
            self.start += data.len() as u64;
            steps.push(StageStep::Write {
                base_offset: segment.base_offset,
                offset,
                data,
            });
        }
    }

    fn seal(&mut self, steps: &mut Vec<StageStep>) {
        if self.current.is_none() {
            return;
        }
        if let Some(buf) = &mut self.buf {
            buf.pad_to_block();
            self.emit(steps);
        }
        let Some(mut segment) = self.current.take() else {
            return;
        };
        segment.sealed = true;
        if let Some(files) = SealedFiles::of(&segment) {
            steps.push(StageStep::Seal {
                base_offset: segment.base_offset,
                files,
            });
        }
        self.done.push(segment);
    }

    /// Ends the round: whole blocks become a last write, the rest is the new odd tail. With `seal` the last
    /// segment is completed instead, and nothing is left over.
    #[must_use]
    pub fn finish(mut self, seal: bool, steps: &mut Vec<StageStep>) -> Advance {
        if seal {
            self.seal(steps);
        }
        let mut odd = None;
        if let Some(mut buf) = self.buf.take() {
            let (len, whole) = (buf.len(), round_down(buf.len()));
            if len > whole {
                let mut rest = AlignedBuf::with_capacity(len - whole);
                rest.extend_from_slice(&buf[whole..]);
                odd = Some(Slice::from(rest));
            }
            if whole > 0 {
                buf.set_len(whole);
                self.buf = Some(buf);
                self.emit(steps);
            }
        }
        let mut segments = self.done;
        segments.extend(self.current);
        Advance { segments, odd }
    }
}

/// Accounts for a batch that is appended to `segment`, index entry included.
pub fn note_batch(segment: &mut Segment, header: &BatchHeader) {
    let position = segment.bytes as u32;
    if let Some(index) = &mut segment.index
        && index.wants(position)
    {
        index.push(IndexEntry {
            relative_offset: (header.last_offset() - segment.base_offset) as u32,
            position,
            max_timestamp: segment.max_timestamp,
            max_timestamp_offset: (segment.max_timestamp_offset - segment.base_offset) as u32,
        });
    }
    if header.max_timestamp.get() > segment.max_timestamp {
        segment.max_timestamp = header.max_timestamp.get();
        segment.max_timestamp_offset = header.last_offset();
    }
    segment.bytes += header.total_len() as u64;
    segment.next_offset = header.next_offset();
}
