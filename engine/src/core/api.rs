//! What goes into a shard's core and comes out of it, besides disk operations.

use thiserror::Error;

use crate::batch::{BatchError, Compression, RecordError};
use crate::buf::Slice;
use crate::disk::{DiskError, FileId};
use crate::id::{FrameSeq, Part};
use crate::store::AbortedTransaction;

/// Settings of one partition's log; Kafka's topic configurations of the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow past this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment older than this is rolled by the next append.
    pub segment_ms: i64,
    /// `retention.ms`; negative keeps for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; negative keeps all.
    pub retention_bytes: i64,
    /// `index.interval.bytes`: bytes of log between two index entries at a segment's sealing.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest batch, header included.
    pub max_message_bytes: u32,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a producer's timestamp may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of it.
    pub timestamp_after_max_ms: i64,
    /// `compression.type` and its level: batches that come in another codec are compressed anew. None keeps them as sent.
    pub kept_codec: Option<KeptCodec>,
    /// Every record has a key: `cleanup.policy` contains `compact`.
    pub keys_wanted: bool,
    /// Of each key the newest record is enough: `cleanup.policy` contains `compact`.
    pub compaction: Option<CompactionPolicy>,
}

impl LogConfig {
    /// Age at which a segment is rolled, milliseconds: nothing waits for its compaction for ever.
    pub(super) fn roll_ms(&self) -> i64 {
        let lag_ms = self.compaction.map_or(i64::MAX, |policy| policy.max_lag_ms);
        self.segment_ms.min(lag_ms)
    }
}

/// When a log is compacted; Kafka's topic configurations of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// `min.cleanable.dirty.ratio`, millionths: of the bytes that could be cleaned so many must be new.
    pub dirty_ratio_ppm: u32,
    /// `min.compaction.lag.ms`: younger records stay as they are.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`: older records are cleaned whatever the ratio.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay after the first cleaning.
    pub delete_retention_ms: i64,
}

impl Default for CompactionPolicy {
    /// Kafka's defaults: when half of it is new, at any age; tombstones stay for a day.
    fn default() -> Self {
        Self {
            dirty_ratio_ppm: 500_000,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3600 * 1000,
        }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults: 1 GiB segments, 7 days, 1 MiB batches, timestamps at most an hour ahead.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: 7 * 24 * 3600 * 1000,
            retention_bytes: -1,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            kept_codec: None,
            keys_wanted: false,
            compaction: None,
        }
    }
}

/// Whose records are read before a batch is accepted. Headers are checked in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspect {
    /// Nobody's.
    Headers,
    /// Those of batches that are not compressed.
    Uncompressed,
    /// All, decompressed for it.
    All,
}

/// The codec that a topic keeps its batches in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptCodec {
    /// The codec.
    pub codec: Compression,
    /// Its level, as the codec counts; none is its default.
    pub level: Option<i32>,
}

/// When a batch counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync` returned: survives power loss.
    Fsync,
    /// After the write completed: survives the process, not power loss, which takes back what no checkpoint speaks of. For comparison.
    Write,
    /// The same, and a flush follows: what a loss of power takes back was acknowledged within this time, and within the flush.
    WriteThenFlush {
        /// Milliseconds from an acknowledgement to its flush at most, unless the flush before it takes longer.
        every_ms: u64,
    },
}

/// An accepted batch. It is durable once [`Core::durable`](super::Core::durable) reaches `frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The journal frame that holds the batch.
    pub frame: FrameSeq,
    /// Offset of the first record.
    pub base_offset: i64,
    /// The log's start.
    pub log_start_offset: i64,
    /// Broker's timestamp in milliseconds when the topic uses `LogAppendTime`, else -1.
    pub append_time_ms: i64,
    /// The batch was here already: the offsets are the original's, and so is the frame.
    pub duplicate: bool,
}

/// Why a batch was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The partition was deleted.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// Not exactly one good record batch.
    #[error(transparent)]
    Invalid(#[from] BatchError),
    /// The records are not what the header announces.
    #[error("{0}")]
    Records(#[from] RecordError),
    /// The records do not decompress, or to more than is allowed.
    #[error("the records cannot be decompressed within {limit} bytes")]
    Undecodable {
        /// Bytes allowed.
        limit: usize,
    },
    /// The topic's codec does not take the records.
    #[error("the records cannot be compressed anew")]
    NotCompressed,
    /// A timestamp lies too far from the broker's clock, or claims to be the broker's own.
    #[error("One or more records have been rejected due to invalid timestamp")]
    Timestamp,
    /// A record has no key and the topic is compacted.
    #[error(
        "One or more records have been rejected: compacted topic cannot accept message without key"
    )]
    KeyMissing,
    /// Larger than `max.message.bytes`.
    #[error("record batch of {bytes} bytes exceeds max.message.bytes {limit}")]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
        /// The topic's limit.
        limit: u32,
    },
    /// The sequence does not follow the producer's last.
    #[error("producer {producer_id} sent sequence {got}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// As in the batch.
        got: i32,
        /// What would follow.
        expected: i32,
    },
    /// The producer's epoch is older than the one known.
    #[error("producer {producer_id} has epoch {got}, {current} is current")]
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// As in the batch.
        got: i16,
        /// The newest seen.
        current: i16,
    },
    /// A batch outside the transaction that its producer has under way.
    #[error("producer {producer_id} has a transaction under way that the batch is no part of")]
    NotTransactional {
        /// The producer.
        producer_id: i64,
    },
    /// A marker of a coordinator that is no longer the one.
    #[error("the marker's coordinator has epoch {got}, {current} is current")]
    CoordinatorFenced {
        /// As in the marker.
        got: i32,
        /// The newest seen.
        current: i32,
    },
    /// A producer may not write control batches.
    #[error("control batches are written by the broker alone")]
    ControlBatch,
    /// Journal or memory are full for now: try again after [`Event::Room`].
    #[error("journal full")]
    Busy,
    /// Segments cannot be written, as a rule because the disk is full: producing resumes by itself when they can.
    #[error("disk full or failing")]
    StorageFull,
    /// The core is shutting down or its journal failed.
    #[error("the log is closed")]
    Closed,
}

/// What to fetch of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSpec {
    /// The batch that contains this offset comes first.
    pub offset: i64,
    /// Bytes wanted at most.
    pub max_bytes: usize,
    /// Return the first batch even when it is larger than `max_bytes`.
    pub min_one: bool,
    /// Answer what is read through the page cache as places in files instead of bytes, for `sendfile` and `splice`.
    pub spans: bool,
    /// Read up to the last stable offset only, not to the high watermark: `isolation.level` is `read_committed`.
    pub committed: bool,
}

/// A piece of a fetch answer, in order.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Slice),
    /// A range of an open segment file. The core keeps the file open until
    /// [`Core::release`](super::Core::release).
    Span(FileSpan),
}

impl Chunk {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(slice) => slice.len(),
            Self::Span(span) => span.len,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A range of a segment file, durable and never written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSpan {
    /// The file.
    pub file: FileId,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// What a fetch found. Whole batches first; the last may be cut, as from any Kafka broker, if others precede it.
#[derive(Debug, Clone, Default)]
pub struct FetchData {
    /// Pieces in order; none when the offset is at the high watermark.
    pub chunks: Vec<Chunk>,
    /// Their length in bytes.
    pub bytes: usize,
    /// No batch in it reaches this offset; the offset after the last whole batch where that is known.
    pub end: i64,
    /// Of a committed read: the aborted transactions that its batches may belong to, in the order of their markers. Later
    /// the log's start, or compaction, may have made the partition forget them.
    pub aborted: Vec<AbortedTransaction>,
}

/// Names a fetch or look-up that needs the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// An answer now, or later as an [`Event`].
#[derive(Debug)]
pub enum Reply<T> {
    /// Here it is.
    Ready(T),
    /// It comes as an event with this id.
    Pending(ReadId),
}

/// Why a fetch or look-up failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The partition was deleted.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// Below the log's start or above its end.
    #[error("offset {offset} is outside {log_start_offset}..={log_end_offset}")]
    OutOfRange {
        /// As asked.
        offset: i64,
        /// First offset there.
        log_start_offset: i64,
        /// Offset of the next record to be written.
        log_end_offset: i64,
    },
    /// The disk failed; the partition's other data may still be readable.
    #[error("reading a segment failed: {0}")]
    Disk(#[from] DiskError),
    /// What was read is not what was written.
    #[error("a segment is damaged at byte {position} of segment {segment}")]
    Damaged {
        /// Base offset of the segment.
        segment: i64,
        /// Byte in it.
        position: u64,
    },
    /// Too many reads are waiting for the disk: try again later.
    #[error("too many reads in flight")]
    Busy,
}

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Leader epoch of its batch.
    pub leader_epoch: i32,
}

/// Where a partition's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset that can be read.
    pub log_start: i64,
    /// First offset that cannot be read yet: the end of what is durable.
    pub high_watermark: i64,
    /// First offset that is not decided yet: where the oldest open transaction begins, or else the high watermark.
    pub last_stable: i64,
    /// Offset the next record gets.
    pub log_end: i64,
    /// Current leader epoch.
    pub leader_epoch: i32,
}

/// News from the core.
#[derive(Debug)]
pub enum Event {
    /// A watched partition's high watermark or log start rose (or the partition was deleted). The watch is spent.
    Advanced(Part),
    /// A fetch is answered.
    Fetched(ReadId, Result<FetchData, FetchError>),
    /// A look-up by time is answered; `None` when no record is that young.
    Timed(ReadId, Result<Option<TimedOffset>, FetchError>),
    /// There is room in the journal again after [`AppendError::Busy`] or [`AppendError::StorageFull`].
    Room,
    /// The process must end at once, acknowledging nothing more.
    Fatal(Fatal),
}

/// Failures after which acknowledging anything would be a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fatal {
    /// A journal write or its sync failed. Never retried: what reached the device is unknown.
    #[error(
        "journal write or sync failed: {0}; what reached the device is unknown, restart to recover what is there"
    )]
    Journal(DiskError),
    /// The journal could not be created or opened.
    #[error("journal file cannot be created: {0}")]
    JournalCreate(DiskError),
}

/// Counters of one shard since start; bytes are bytes, times nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Batches accepted.
    pub batches: u64,
    /// Records accepted.
    pub records: u64,
    /// Bytes of batches accepted.
    pub ingested_bytes: u64,
    /// Journal frames written, markers included.
    pub frames: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written to segment, index and checkpoint files.
    pub destaged_bytes: u64,
    /// Flushes asked of the device: fdatasync, fsync, syncfs.
    pub syncs: u64,
    /// Destage rounds finished.
    pub rounds: u64,
    /// Bytes in the journal that are not destaged yet: the backlog.
    pub backlog_bytes: u64,
    /// Bytes served from memory.
    pub read_memory_bytes: u64,
    /// Bytes served from files.
    pub read_file_bytes: u64,
    /// Duplicate batches recognised.
    pub duplicates: u64,
    /// Passes of compaction that ended well.
    pub compactions: u64,
    /// Passes that ended with an error or for want of space; the log stays as it was.
    pub compactions_failed: u64,
    /// Bytes of segments that compaction read, looking for keys and cleaning.
    pub compaction_read_bytes: u64,
    /// Bytes that it wrote.
    pub compaction_written_bytes: u64,
    /// Records that it dropped.
    pub compaction_dropped_records: u64,
    /// Time during which a pass was under way.
    pub compaction_ns: u64,
}
