//! The storage engine of one shard as a pure state machine: requests and completions in, disk operations and
//! acknowledgements out. No clock, no I/O, no threads.

mod api;

pub use api::{
    AppendError, Appended, Chunk, CoreStats, Durability, Event, Fatal, FetchData, FetchError,
    FetchSpec, FileSpan, LogConfig, LogOffsets, ReadId, Reply, TimedOffset,
};

use crate::disk::{Completion, Op};
use crate::id::{FrameSeq, Now, Part, PartitionKey};
use crate::recovery::{PartitionState, RunInfo};

/// Settings of one shard's core; bytes are bytes.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This shard's number, from 0.
    pub shard: u32,
    /// Acks wait for this.
    pub durability: Durability,
    /// Commits in flight at most.
    pub commits_in_flight: usize,
    /// Size of one journal file.
    pub journal_file_bytes: u64,
    /// Journal files at most; they are created as they are needed.
    pub journal_files: usize,
    /// Memory for log data: the journal's image and what stays cached behind it. At least the journal's size.
    pub memory_bytes: u64,
    /// The largest batch any topic may allow, header included.
    pub max_batch_bytes: usize,
    /// Files the core keeps open at most.
    pub open_files: usize,
    /// Reads in flight at most.
    pub reads_in_flight: usize,
    /// Wrong on purpose, to prove that tests notice.
    pub mutations: Mutations,
}

/// Faults that can be switched on to prove that the simulator and the crash tests bite. All off in production.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Acknowledge when a frame is written, before its sync.
    pub ack_before_sync: bool,
    /// Release journal files before the segments' sync.
    pub release_before_sync: bool,
    /// Accept frames of an earlier use of a journal file in recovery.
    pub accept_reused_frames: bool,
    /// Skip the sync of directories.
    pub skip_dir_sync: bool,
    /// Serve past the high watermark.
    pub serve_undurable: bool,
    /// Retry a failed journal sync instead of stopping.
    pub retry_failed_sync: bool,
}

/// The engine of one shard.
pub struct Core {}

#[allow(unused_variables, clippy::todo)]
impl Core {
    /// A core over what recovery found for this shard's partitions; `run` is what recovery returned.
    #[must_use]
    pub fn new(
        config: CoreConfig,
        run: RunInfo,
        partitions: Vec<PartitionState>,
        now: Now,
    ) -> Self {
        todo!()
    }

    // --- control ---

    /// Adds an empty partition (its directory is made by its first destage). Returns the existing one when the
    /// key is known.
    pub fn create_partition(
        &mut self,
        now: Now,
        key: PartitionKey,
        topic_name: &str,
        config: LogConfig,
    ) -> Part {
        todo!()
    }

    /// Removes a partition with its data; waiting fetches end with [`FetchError::UnknownPartition`].
    pub fn drop_partition(&mut self, now: Now, part: Part) {
        todo!()
    }

    /// Changes a partition's settings.
    pub fn set_config(&mut self, part: Part, config: LogConfig) {
        todo!()
    }

    /// The partition of `key` on this shard.
    #[must_use]
    pub fn lookup(&self, key: PartitionKey) -> Option<Part> {
        todo!()
    }

    // --- data ---

    /// Validates one record batch, assigns its offset, and puts it into the open journal frame.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn append(&mut self, now: Now, part: Part, batch: &[u8]) -> Result<Appended, AppendError> {
        todo!()
    }

    /// As [`Core::append`] for batches the broker writes itself: control batches are allowed.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn append_internal(
        &mut self,
        now: Now,
        part: Part,
        batch: &[u8],
    ) -> Result<Appended, AppendError> {
        todo!()
    }

    /// The newest frame that is durable with all before it.
    #[must_use]
    pub fn durable(&self) -> FrameSeq {
        todo!()
    }

    /// Where the log begins and ends.
    #[must_use]
    pub fn offsets(&self, part: Part) -> Option<LogOffsets> {
        todo!()
    }

    /// Reads from `spec.offset` up to the high watermark: from memory at once, else by an [`Event::Fetched`].
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(
        &mut self,
        now: Now,
        part: Part,
        spec: FetchSpec,
    ) -> Result<Reply<FetchData>, FetchError> {
        todo!()
    }

    /// Gives back the file of a span once it is sent or dropped; each span of a [`FetchData`] exactly once.
    pub fn release(&mut self, span: FileSpan) {
        todo!()
    }

    /// Asks for one [`Event::Advanced`] when the partition's high watermark next rises.
    pub fn watch(&mut self, part: Part) {
        todo!()
    }

    /// The first record whose timestamp is at least `timestamp_ms`, or [`Event::Timed`] later.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn offset_for_time(
        &mut self,
        now: Now,
        part: Part,
        timestamp_ms: i64,
    ) -> Result<Reply<Option<TimedOffset>>, FetchError> {
        todo!()
    }

    /// The record with the largest timestamp (ListOffsets -3), if the log is not empty; found by batch headers.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn max_timestamp(
        &mut self,
        now: Now,
        part: Part,
    ) -> Result<Reply<Option<TimedOffset>>, FetchError> {
        todo!()
    }

    /// OffsetForLeaderEpoch: the largest known epoch not above `epoch` and the offset where it ends.
    #[must_use]
    pub fn epoch_end(&self, part: Part, epoch: i32) -> Option<(i32, i64)> {
        todo!()
    }

    /// Log size in bytes (DescribeLogDirs).
    #[must_use]
    pub fn log_bytes(&self, part: Part) -> u64 {
        todo!()
    }

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> CoreStats {
        todo!()
    }

    // --- driver (through Shard) ---

    /// Starts commits, destage slices, retention: whatever is due.
    pub fn poll(&mut self, now: Now) {
        todo!()
    }

    /// The next operation to carry out.
    pub fn next_op(&mut self) -> Option<Op> {
        todo!()
    }

    /// An operation ended.
    pub fn complete(&mut self, now: Now, completion: Completion) {
        todo!()
    }

    /// The next piece of news.
    pub fn next_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When [`Core::poll`] is needed next without other input, monotonic nanoseconds; 0 is at once.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        todo!()
    }

    /// Stops accepting appends, destages everything and writes a final checkpoint. Idempotent.
    pub fn shutdown(&mut self, now: Now) {
        todo!()
    }

    /// Whether [`Core::shutdown`] is complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        todo!()
    }
}
