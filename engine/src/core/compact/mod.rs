//! Compaction: sealed segments of compacted partitions are read, and written anew without the records that newer ones
//! have made superfluous.
//!
//! One partition of a shard at a time. A pass looks for keys in what is new since the last one, as far as the map holds
//! them; then it writes the log's segments up to there anew, group by group, small neighbours as one. A new segment is
//! complete and synced before the partition's list names it; the old ones' files go when a checkpoint with that list is
//! durable. So a crash leaves either, whole, and recovery removes the other.

mod choose;
mod io;
mod job;
mod output;
mod source;
mod swap;

use crate::buf::BufPool;
use crate::id::Now;

use super::retention::Doomed;
use super::{Core, State};
use job::Job;

/// Size of a read and of a write, bytes.
const PIECE: usize = 256 << 10;
/// Writes under way at most, and while commits come.
const WRITES_MAX: usize = 4;
const WRITES_GENTLE: usize = 1;
/// Bytes looked at in one turn, and while commits come.
const SLICE: usize = 256 << 10;
const SLICE_GENTLE: usize = 32 << 10;
/// Bytes a second that are read at most while commits come.
const RATE_GENTLE: u64 = 96 << 20;
/// And while the journal waits for destage.
const RATE_HURRIED: u64 = 16 << 20;
/// Rest at most while the disk is full or the shard begins.
const UNHEALTHY_MS: u64 = 1_000;
/// Rest for a partition whose pass failed.
const RETRY_MS: u64 = 15_000;
/// Bytes of replaced segments that wait for a checkpoint at most, before one is asked for.
const SUPERSEDED_MAX: u64 = 256 << 20;

/// Settings of compaction; Kafka's broker configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// Memory for the keys of a pass, bytes (`log.cleaner.dedupe.buffer.size` over the shards).
    pub dedupe_bytes: usize,
    /// `log.cleaner.backoff.ms`: rest when nothing is to be done.
    pub backoff_ms: u64,
    /// `log.cleaner.io.max.bytes.per.second`, read and written together.
    pub bytes_per_second: u64,
}

impl Default for CleanerConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            enabled: true,
            dedupe_bytes: 128 << 20,
            backoff_ms: 15_000,
            bytes_per_second: u64::MAX,
        }
    }
}

/// Who waits for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A read of the source.
    Read,
    /// A write of the output's log.
    Write,
    /// A step of the output's completion.
    Step,
}

/// A shard's compaction.
#[derive(Debug)]
pub(super) struct Compaction {
    job: Option<Job>,
    /// When to look for something to do.
    due_ns: u64,
    /// When the pass may go on.
    slice_ns: u64,
    /// It could go on at once.
    can_go_on: bool,
    buffers: BufPool,
    /// Segments that were replaced, until a checkpoint says so.
    superseded: Vec<Doomed>,
    superseded_bytes: u64,
}

impl Compaction {
    pub(super) fn new(now: Now) -> Self {
        Self {
            job: None,
            due_ns: now.mono_ns,
            slice_ns: 0,
            can_go_on: false,
            buffers: BufPool::new(PIECE, WRITES_MAX + 3),
            superseded: Vec::new(),
            superseded_bytes: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none()
    }

    /// Whether a pass uses the partition's directory.
    pub(super) fn works_on(&self, part: u32) -> bool {
        self.job.as_ref().is_some_and(|job| job.part == part)
    }

    /// A checkpoint that names no replaced segment any more is durable.
    pub(super) fn take_superseded(&mut self) -> Vec<Doomed> {
        self.superseded_bytes = 0;
        std::mem::take(&mut self.superseded)
    }

    /// When the core is to be polled for it, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self, enabled: bool) -> Option<u64> {
        match self.job {
            Some(_) => self.can_go_on.then_some(self.slice_ns),
            None => enabled.then_some(self.due_ns),
        }
    }
}

impl Core {
    /// Begins a pass when one is due, and moves the running one on.
    pub(super) fn pump_compaction(&mut self, now: Now) {
        if self.compaction.job.is_none() {
            let healthy = !self.storage_full && self.reserve.is_held();
            let due = self.config.cleaner.enabled && now.mono_ns >= self.compaction.due_ns;
            if self.state != State::Running || !due || !healthy {
                if due {
                    // The reserve of a shard that begins is on its way.
                    let rest_ms = self.config.cleaner.backoff_ms.clamp(1, UNHEALTHY_MS);
                    self.compaction.due_ns = now.after_ms(rest_ms);
                }
                return;
            }
            match self.choose_compaction(now) {
                Some(job) => self.compaction.job = Some(job),
                None => {
                    self.compaction.due_ns = now.after_ms(self.config.cleaner.backoff_ms);
                    return;
                }
            }
        }
        let Some(job) = self.compaction.job.take() else {
            return;
        };
        self.run_compaction(now, job);
    }

    /// Bytes that the pass may look at in this turn; `None` when it has to rest.
    fn compaction_slice(&self, now: Now) -> Option<usize> {
        let slice = if self.reads.is_gentle() {
            SLICE_GENTLE
        } else {
            SLICE
        };
        (now.mono_ns >= self.compaction.slice_ns).then_some(slice)
    }

    /// The pass has read and written so many bytes in this turn: it rests so that produce and fetch come first.
    fn pace_compaction(&mut self, now: Now, bytes: usize) {
        let hurried = self.journal.backlog_bytes() > self.destage_room() / 2;
        let polite = match (hurried, self.reads.is_gentle()) {
            (true, _) => RATE_HURRIED,
            (false, true) => RATE_GENTLE,
            (false, false) => u64::MAX,
        };
        let rate = polite.min(self.config.cleaner.bytes_per_second.max(1));
        let rest_ns = bytes as u128 * 1_000_000_000 / u128::from(rate);
        let rest_ns = u64::try_from(rest_ns).unwrap_or(u64::MAX);
        self.compaction.slice_ns = now.mono_ns.saturating_add(rest_ns);
    }
}
