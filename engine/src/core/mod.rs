//! The storage engine of one shard as a pure state machine: requests and completions in, disk operations and
//! acknowledgements out. No clock, no I/O, no threads.

mod api;
mod append;
mod compact;
mod destage;
mod files;
mod flush;
mod inspect;
mod journal;
mod outbox;
mod partition;
mod read;
mod reserve;
mod retention;

pub use api::{
    AppendError, Appended, Chunk, CompactionPolicy, CoreStats, Durability, Event, Fatal, FetchData,
    FetchError, FetchSpec, FileSpan, Inspect, KeptCodec, LogConfig, LogOffsets, ReadId, Reply,
    TimedOffset,
};
pub use compact::CleanerConfig;
pub use inspect::RecordFault;

use std::collections::HashMap;

use crate::buf::{BLOCK, BufPool, round_up};
use crate::disk::{Completion, FileId, Op, Returned};
use crate::id::{FrameSeq, Now, Part, PartitionKey};
use crate::journal::{FrameHeader, entry_len};
use crate::recovery::{PartitionState, RunInfo};
use crate::store::{AbortedTransaction, Producers, Segment, SegmentName};

use compact::Compaction;
use destage::Destage;
use files::Files;
use journal::Journal;
use outbox::{Outbox, Owner};
use partition::{LiveSegment, Partition};
use read::Reads;
use reserve::Reserve;
use retention::Doomed;

/// Settings of one shard's core; bytes are bytes.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This shard's number, from 0.
    pub shard: u32,
    /// Shards of the run.
    pub shards: u32,
    /// Acks wait for this.
    pub durability: Durability,
    /// Commits in flight at most.
    pub commits_in_flight: usize,
    /// Size of one journal file.
    pub journal_file_bytes: u64,
    /// Journal files at most, at least 2; they are created as they are needed.
    pub journal_files: usize,
    /// Journal files of this shard that are there already, from
    /// [`Recovered::existing_journals`](crate::recovery::Recovered::existing_journals).
    pub existing_journals: Vec<u32>,
    /// Memory for log data: the journal's image and what stays cached behind it. At least the journal's size.
    pub memory_bytes: u64,
    /// The largest batch any topic may allow, header included.
    pub max_batch_bytes: usize,
    /// Whose records are read before a batch is accepted.
    pub inspect: Inspect,
    /// Bytes that the records of a batch may have once decompressed, where they are: for [`Inspect::All`], to be
    /// compressed anew, or to find a timestamp among them.
    pub decompressed_bytes_max: usize,
    /// Whether what is read from segments enters the page cache.
    pub cold_reads: ColdReads,
    /// `producer.id.expiration.ms`: an idempotent producer that has been silent for longer is forgotten.
    pub producer_expiry_ms: i64,
    /// Files the core keeps open at most.
    pub open_files: usize,
    /// Reads in flight at most.
    pub reads_in_flight: usize,
    /// Compaction.
    pub cleaner: CleanerConfig,
    /// Wrong on purpose, to prove that tests notice.
    pub mutations: Mutations,
}

/// How segments are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColdReads {
    /// Past the page cache, with `O_DIRECT`.
    Direct,
    /// Through the page cache.
    Cached,
    /// Past the page cache, and through it what is read again while no commits come.
    #[default]
    DirectOnce,
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
    /// Let compacted segments be named before they are synced.
    pub swap_before_sync: bool,
    /// Keep the oldest record of a key when compacting.
    pub drop_newest: bool,
    /// Remove compacted segments' predecessors before a checkpoint says so.
    pub remove_before_checkpoint: bool,
    /// Let records of aborted transactions supersede others when compacting.
    pub count_aborted_keys: bool,
    /// Forget at a start which transactions there are.
    pub forget_transactions: bool,
}

impl CoreConfig {
    /// Bytes of one slab: a frame with the largest batch fits. No larger than a small journal's files, so that
    /// tests can have tiny ones.
    pub(crate) fn slab_bytes(&self) -> usize {
        let usual = (4 << 20).min(self.journal_file_bytes) as usize;
        round_up(FrameHeader::LEN + entry_len(self.max_batch_bytes)).max(round_up(usual))
    }

    /// Slabs that the tail takes at most. A round of destage gives back many at once, and all of them are kept:
    /// memory that goes back to the system costs a page fault and two passes of zeros when it is wanted again.
    pub(crate) fn slabs_max(&self) -> usize {
        (self.tail_bytes_max() / self.slab_bytes() as u64) as usize + 2
    }

    /// Bytes of memory that the tail may take.
    pub(crate) fn tail_bytes_max(&self) -> u64 {
        self.memory_bytes.max(2 * self.journal_file_len())
    }

    /// Bytes of one journal file as it is really made: whole blocks, and room for the largest frame.
    #[must_use]
    pub fn journal_file_len(&self) -> u64 {
        let least = (self.slab_bytes() + BLOCK) as u64;
        self.journal_file_bytes
            .max(least)
            .next_multiple_of(BLOCK as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Accepts nothing more; a last round and a clean checkpoint are under way.
    Draining,
    Finished,
}

/// Who waits for a file to be open.
#[derive(Debug, Clone, Copy)]
enum OpenWaiter {
    Stage(u32),
    Read(ReadId),
    Compaction,
}

/// The engine of one shard.
pub struct Core {
    config: CoreConfig,
    run: RunInfo,
    state: State,
    parts: Vec<Option<Box<Partition>>>,
    by_key: HashMap<PartitionKey, Part>,
    journal: Journal,
    files: Files,
    waiting_opens: HashMap<FileId, Vec<OpenWaiter>>,
    destage: Destage,
    reserve: Reserve,
    reads: Reads,
    compaction: Compaction,
    doomed: Vec<Doomed>,
    /// Directories of dropped partitions, to be removed.
    dropped: Vec<(u32, String)>,
    retention_due_ns: u64,
    /// Decompressed records under inspection.
    scratch: Vec<u8>,
    storage_full: bool,
    /// The disk has less free space than it is to keep.
    space_short: bool,
    room_wanted: bool,
    room_changed: bool,
    out: Outbox,
    stats: CoreStats,
}

impl Core {
    /// A core over what recovery found for this shard's partitions; `run` is what recovery returned.
    #[must_use]
    pub fn new(
        config: CoreConfig,
        run: RunInfo,
        partitions: Vec<PartitionState>,
        now: Now,
    ) -> Self {
        let mut out = Outbox::default();
        let journal = Journal::new(&config, run, &mut out);
        let mut core = Self {
            files: Files::new(config.open_files),
            reserve: Reserve::new(&config),
            config,
            run,
            state: State::Running,
            parts: Vec::new(),
            by_key: HashMap::new(),
            journal,
            waiting_opens: HashMap::new(),
            destage: Destage::default(),
            reads: Reads::default(),
            compaction: Compaction::new(now),
            doomed: Vec::new(),
            dropped: Vec::new(),
            retention_due_ns: now.mono_ns,
            scratch: Vec::new(),
            storage_full: false,
            space_short: false,
            room_wanted: false,
            room_changed: false,
            out,
            stats: CoreStats::default(),
        };
        for state in partitions {
            core.adopt(state);
        }
        core
    }

    fn adopt(&mut self, state: PartitionState) {
        let meta = state.meta;
        let dir = meta.key.dir_name(&meta.topic_name);
        let mut partition = Partition::new(meta.key, dir, meta.config);
        let end = state.log.next_offset().unwrap_or(state.log_start);
        partition.log_start = state.log_start;
        partition.next_log_start = state.log_start;
        partition.log_end = end;
        partition.high_watermark = end;
        let newest = state
            .log
            .segments
            .iter()
            .max_by_key(|segment| segment.max_timestamp);
        partition.max_timestamp = newest.map_or((i64::MIN, -1), |s| {
            (s.max_timestamp, s.max_timestamp_offset)
        });
        let open = state.log.segments.back().filter(|segment| !segment.sealed);
        partition.live = open.map(|segment| LiveSegment {
            base_offset: segment.base_offset,
            bytes: segment.bytes,
            created_ms: segment.created_ms,
        });
        let revisions = state.log.segments.iter().map(|s| s.revision);
        partition.next_revision = revisions.max().unwrap_or(0) + 1;
        partition.stored = state.log;
        partition.epochs = state.epochs;
        partition.producers = if self.config.mutations.forget_transactions {
            state.producers.without_transactions()
        } else {
            state.producers
        };
        self.insert(partition);
    }

    fn insert(&mut self, partition: Partition) -> Part {
        let part = Part(self.parts.len() as u32);
        self.by_key.insert(partition.key, part);
        self.parts.push(Some(Box::new(partition)));
        part
    }

    fn partition(&self, part: Part) -> Result<&Partition, FetchError> {
        let slot = self.parts.get(part.0 as usize).and_then(Option::as_deref);
        slot.ok_or(FetchError::UnknownPartition)
    }

    // --- control ---

    /// Adds an empty partition (its directory is made by its first destage). Returns the existing one when the
    /// key is known.
    pub fn create_partition(
        &mut self,
        _now: Now,
        key: PartitionKey,
        topic_name: &str,
        config: LogConfig,
    ) -> Part {
        if let Some(&part) = self.by_key.get(&key) {
            return part;
        }
        self.insert(Partition::new(key, key.dir_name(topic_name), config))
    }

    /// Removes a partition with its data; waiting fetches end with [`FetchError::UnknownPartition`], a watch
    /// with [`Event::Advanced`].
    pub fn drop_partition(&mut self, _now: Now, part: Part) {
        let Some(partition) = self.parts.get_mut(part.0 as usize).and_then(Option::take) else {
            return;
        };
        self.by_key.remove(&partition.key);
        if partition.watched {
            self.out.events.push_back(Event::Advanced(part));
        }
        self.dropped.push((part.0, partition.dir.clone()));
    }

    /// Changes a partition's settings.
    pub fn set_config(&mut self, part: Part, config: LogConfig) {
        if let Some(Some(partition)) = self.parts.get_mut(part.0 as usize) {
            partition.config = config;
        }
    }

    /// The partition of `key` on this shard.
    #[must_use]
    pub fn lookup(&self, key: PartitionKey) -> Option<Part> {
        self.by_key.get(&key).copied()
    }

    // --- state ---

    /// The newest frame that is durable with all before it.
    #[must_use]
    pub fn durable(&self) -> FrameSeq {
        self.journal.durable()
    }

    /// Where the log begins and ends.
    #[must_use]
    pub fn offsets(&self, part: Part) -> Option<LogOffsets> {
        let partition = self.partition(part).ok()?;
        Some(LogOffsets {
            log_start: partition.log_start,
            high_watermark: partition.high_watermark,
            last_stable: partition.last_stable(),
            log_end: partition.log_end,
            leader_epoch: self.run.leader_epoch,
        })
    }

    /// Aborted transactions with records in `from..to`, in the order of their markers.
    #[must_use]
    pub fn aborted(&self, part: Part, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let Ok(partition) = self.partition(part) else {
            return Vec::new();
        };
        let aborted = partition.producers.aborted_between(from, to);
        aborted.copied().collect()
    }

    /// What the partition knows of its producers (DescribeProducers, and whether one's transaction has begun here).
    #[must_use]
    pub fn producers(&self, part: Part) -> Option<&Producers> {
        let partition = self.partition(part).ok()?;
        Some(&partition.producers)
    }

    /// Whether the disk is short of free space, as whoever watches it says: then nothing more is accepted, before
    /// segments or checkpoints would fail for want of space. What is there is served, and room comes back by itself.
    pub fn set_space_short(&mut self, short: bool) {
        self.room_changed |= self.space_short && !short;
        self.space_short = short;
    }

    /// Asks for one [`Event::Advanced`] when the partition's high watermark or log start next rises.
    pub fn watch(&mut self, part: Part) {
        if let Some(Some(partition)) = self.parts.get_mut(part.0 as usize) {
            partition.watched = true;
        }
    }

    /// OffsetForLeaderEpoch: the largest known epoch not above `epoch` and the offset where it ends; `epoch` itself and
    /// the offset by which it had ended, when the log holds nothing as old. None for an epoch that has not begun.
    #[must_use]
    pub fn epoch_end(&self, part: Part, epoch: i32) -> Option<(i32, i64)> {
        let partition = self.partition(part).ok()?;
        if epoch < 0 || epoch > self.run.leader_epoch {
            return None; // nobody has heard of it
        }
        if epoch == self.run.leader_epoch {
            return Some((epoch, partition.high_watermark));
        }
        Some(partition.epochs.end_of(epoch, partition.high_watermark))
    }

    /// What the partition's segments are called, oldest first.
    #[must_use]
    pub fn segments(&self, part: Part) -> Vec<SegmentName> {
        let segments = self.partition(part).map(|p| p.stored.segments.iter());
        segments.map_or_else(|_| Vec::new(), |s| s.map(Segment::name).collect())
    }

    /// Nothing from here on was compacted.
    #[must_use]
    pub fn compacted_end(&self, part: Part) -> i64 {
        let partition = self.partition(part);
        let segments = partition.iter().flat_map(|p| &p.stored.segments);
        let compacted = segments.filter(|s| s.revision > 0);
        compacted.map(|s| s.next_offset).max().unwrap_or(0)
    }

    /// Log size in bytes (DescribeLogDirs).
    #[must_use]
    pub fn log_bytes(&self, part: Part) -> u64 {
        let Ok(partition) = self.partition(part) else {
            return 0;
        };
        let sealed = partition.stored.segments.iter().filter(|s| {
            partition
                .live
                .is_none_or(|live| live.base_offset != s.base_offset)
        });
        sealed.map(|s| s.bytes).sum::<u64>() + partition.live.map_or(0, |live| live.bytes)
    }

    /// Bytes of memory that log data keeps in use: the tail, and whatever a reader still holds a piece of, whole.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.journal.pool().out_bytes() + self.reads.out_bytes()
    }

    /// Where the tail's memory comes from.
    pub(crate) fn tail_memory(&self) -> &BufPool {
        self.journal.pool()
    }

    /// Bytes of memory that the tail may take.
    #[must_use]
    pub fn tail_bytes_max(&self) -> u64 {
        self.config.tail_bytes_max()
    }

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> CoreStats {
        CoreStats {
            frames: self.journal.frames_written,
            journal_bytes: self.journal.bytes_written(),
            destaged_bytes: self.destage.bytes_written,
            syncs: self.out.syncs,
            rounds: self.destage.rounds,
            backlog_bytes: self.journal.backlog_bytes(),
            ..self.stats
        }
    }

    // --- driver (through Shard) ---

    /// Starts commits, destage slices, retention: whatever is due.
    pub fn poll(&mut self, now: Now) {
        if self.state == State::Finished {
            return;
        }
        self.journal.pump(now, &mut self.out);
        self.pump_destage(now);
        self.pump_reads(now);
        self.pump_compaction(now);
        if self.state == State::Running {
            self.pump_retention(now);
            self.reserve.pump(now, &mut self.out);
        }
        self.unlink_doomed();
        self.remove_dropped();
        self.evict();
        if self.room_wanted && self.room_changed {
            self.room_wanted = false;
            self.out.events.push_back(Event::Room);
        }
        self.room_changed = false;
        let written = self.destage.final_done && self.destage.is_idle() && self.reads.is_idle();
        let written = written && self.compaction.is_idle();
        if self.state == State::Draining && written && self.journal.is_quiet() {
            self.files.close_all(&mut self.out);
            if self.out.in_flight() == 0 {
                self.state = State::Finished;
            }
        }
    }

    fn evict(&mut self) {
        let limit = self.tail_bytes_max();
        while let Some(frame) = self.journal.evict(limit) {
            for (part, _) in frame.parts {
                if let Some(Some(partition)) = self.parts.get_mut(part as usize) {
                    partition.drop_tail(frame.seq);
                }
            }
        }
    }

    /// The next operation to carry out.
    pub fn next_op(&mut self) -> Option<Op> {
        self.out.next_op()
    }

    /// An operation ended.
    pub fn complete(&mut self, now: Now, completion: Completion) {
        let Completion {
            id,
            result,
            returned,
        } = completion;
        match self.out.owner(id) {
            Owner::JournalFile(slot) => self.journal.file_opened(&mut self.out, slot, result),
            Owner::JournalHeader(slot) => {
                self.journal.header_written(&mut self.out, slot, result);
                self.room_changed = true;
            }
            Owner::Commit(seq) => self.committed(seq, result),
            Owner::Flush => self.journal.flushed(&mut self.out, result),
            Owner::Opened(file) => {
                self.files.opened(&mut self.out, file, result.is_ok());
                for waiter in self.waiting_opens.remove(&file).unwrap_or_default() {
                    match waiter {
                        OpenWaiter::Stage(part) => self.stage_opened(now, part, file, result),
                        OpenWaiter::Read(read) => self.read_opened(read, result),
                        OpenWaiter::Compaction => self.compaction_opened(file, result),
                    }
                }
            }
            Owner::Stage(part) => {
                let bytes = if let Returned::Data(data) = &returned {
                    data.len()
                } else {
                    0
                };
                self.staged(part, bytes, result);
            }
            Owner::RoundSync => self.round_sync_done(result),
            Owner::CheckpointWrite(bytes) => self.checkpoint_written(bytes, result),
            Owner::CheckpointSync => self.checkpoint_synced(now, result),
            Owner::Reserve => {
                if self.reserve.done(now, &mut self.out, result) {
                    self.destage.retry_at_once(now);
                }
                self.room_changed = true;
            }
            Owner::Read(read) => match returned {
                Returned::Buf(buf) => self.read_done(read, result, buf),
                _ => self.read_done(
                    read,
                    Err(crate::disk::DiskError::IO),
                    crate::buf::AlignedBuf::with_capacity(1),
                ),
            },
            Owner::Compaction(action) => self.compaction_done(action, result, returned),
            Owner::Nobody => {
                if let Err(error) = result {
                    tracing::warn!(shard = self.config.shard, %error, "cleaning up failed");
                }
            }
        }
    }

    /// A commit ended: what became durable becomes visible.
    fn committed(&mut self, seq: u64, result: Result<(), crate::disk::DiskError>) {
        let before = self.journal.durable().0;
        self.journal.committed(&mut self.out, seq, result);
        for seq in before + 1..=self.journal.durable().0 {
            let Some(frame) = self.journal.frame(seq) else {
                continue;
            };
            for &(part, end) in &frame.parts {
                if let Some(Some(partition)) = self.parts.get_mut(part as usize) {
                    partition.high_watermark = end;
                    partition.producers.advance(end);
                    if std::mem::take(&mut partition.watched) {
                        self.out.events.push_back(Event::Advanced(Part(part)));
                    }
                }
            }
        }
    }

    /// The next piece of news.
    pub fn next_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// When [`Core::poll`] is needed next without other input, monotonic nanoseconds; 0 is at once.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        if self.state == State::Finished {
            return None;
        }
        if self.journal.has_work() || self.destage.has_work() || !self.out.events.is_empty() {
            return Some(0);
        }
        let running = self.state == State::Running;
        [
            self.reserve.deadline_ns().filter(|_| running),
            self.journal.deadline_ns(),
            self.destage.deadline_ns(),
            self.compaction
                .deadline_ns(running && self.config.cleaner.enabled),
            running.then_some(self.retention_due_ns),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Stops accepting appends, destages everything and writes a final checkpoint. Idempotent.
    pub fn shutdown(&mut self, _now: Now) {
        if self.state == State::Running {
            self.state = State::Draining;
            self.journal.close();
        }
    }

    /// Whether [`Core::shutdown`] is complete.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Whether the shutdown is complete and a durable checkpoint says so. Otherwise the disk failed meanwhile: the
    /// journal has everything, and the next start replays it.
    #[must_use]
    pub fn ended_clean(&self) -> bool {
        self.is_finished() && self.destage.ended_clean
    }
}
