//! Destage: what the journal holds goes to segment files, in rounds.
//!
//! A round writes whole blocks of every partition that has batches at or below the round's cut, syncs them
//! together, writes a checkpoint, and only then releases the journal's frames up to the cut. A failed round
//! changes nothing: the journal still holds everything, and the next one writes the same blocks again.

mod checkpoint;
mod pace;
mod round;
mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::buf::BufPool;
use crate::disk::{DiskError, FileId};
use crate::id::Now;
use crate::store::{CheckpointWriter, WRITE_MAX};

use super::Core;
use pace::{Pace, WRITING_MAX};
use round::Staged;
use task::Task;

/// Partitions whose files are written at the same time.
const TASKS_MAX: usize = 32;
/// Up to this many files are synced one by one, more by one `syncfs`.
const SYNC_EACH_MAX: usize = 24;
/// Data waits in the journal alone this long at most.
const AGE_MAX_MS: u64 = 10_000;
/// Rest after a failed round.
const RETRY_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Staging,
    Syncing,
    Checkpoint,
    CheckpointSync,
    /// A failed round waits for its last operations.
    Failing,
}

/// The destager's state.
#[derive(Debug)]
pub(super) struct Destage {
    /// Partitions with batches that are not stored, each once.
    pub(super) dirty: Vec<u32>,
    phase: Phase,
    cut: u64,
    queue: VecDeque<u32>,
    /// In a fixed order: the same input leads to the same operations in the same order.
    tasks: BTreeMap<u32, Task>,
    advances: Vec<Staged>,
    outstanding: usize,
    writing_bytes: usize,
    /// As of this turn.
    pace: Pace,
    buffers: BufPool,
    /// Files written and still held, to be synced one by one; `None` once there are too many.
    touched: Option<Vec<FileId>>,
    /// Files of the round that wait for their sync.
    syncing: Vec<FileId>,
    new_names: BTreeSet<String>,
    error: Option<DiskError>,
    retry_at_ns: u64,
    oldest_ns: Option<u64>,
    writer: Option<CheckpointWriter>,
    next_record: usize,
    /// Bytes of the checkpoint that is being written, so far.
    checkpoint_bytes: u64,
    /// New log starts in the checkpoint that is being written.
    log_starts: Vec<(u32, i64)>,
    /// The newest frame acknowledged when its last record was made, and whether it waits for that one's flush.
    told: Option<u64>,
    awaits_flush: bool,
    slots: [Option<FileId>; 2],
    slot: usize,
    generation: u64,
    slot_opening: bool,
    clean: bool,
    /// A round is wanted even without data: for new log starts, or at shutdown.
    pub(super) forced: bool,
    pub(super) final_done: bool,
    /// The checkpoint that says so is durable.
    pub(super) ended_clean: bool,
    pub(super) rounds: u64,
    pub(super) bytes_written: u64,
    /// Backlog when the running round began, bytes.
    begun_bytes: u64,
    /// Backlog at the last round's beginning and just before its release, bytes.
    last_round: (u64, u64),
}

impl Default for Destage {
    fn default() -> Self {
        Self {
            dirty: Vec::new(),
            phase: Phase::Idle,
            cut: 0,
            queue: VecDeque::new(),
            tasks: BTreeMap::new(),
            advances: Vec::new(),
            outstanding: 0,
            writing_bytes: 0,
            pace: Pace::HURRY,
            // Each task may fill one more than is being written.
            buffers: BufPool::new(WRITE_MAX, WRITING_MAX / WRITE_MAX + TASKS_MAX),
            touched: None,
            syncing: Vec::new(),
            new_names: BTreeSet::new(),
            error: None,
            retry_at_ns: 0,
            oldest_ns: None,
            writer: None,
            next_record: 0,
            checkpoint_bytes: 0,
            log_starts: Vec::new(),
            told: None,
            awaits_flush: false,
            slots: [None; 2],
            slot: 0,
            generation: 0,
            slot_opening: false,
            clean: false,
            forced: false,
            final_done: false,
            ended_clean: false,
            rounds: 0,
            bytes_written: 0,
            begun_bytes: 0,
            last_round: (1, 1),
        }
    }
}

impl Destage {
    pub(super) fn note_append(&mut self, now: Now) {
        self.oldest_ns.get_or_insert(now.mono_ns);
    }

    /// What made the last round fail is mended.
    pub(super) fn retry_at_once(&mut self, now: Now) {
        self.retry_at_ns = now.mono_ns;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a round may still use or sync the directories of its partitions.
    pub(super) fn uses_dirs(&self) -> bool {
        matches!(self.phase, Phase::Staging | Phase::Syncing | Phase::Failing)
    }

    /// Whether a checkpoint is being written, which may have described any partition already.
    pub(super) fn writes_checkpoint(&self) -> bool {
        matches!(self.phase, Phase::Checkpoint | Phase::CheckpointSync)
    }

    /// When a round is due by age or retry, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        if self.phase != Phase::Idle || self.final_done {
            return None;
        }
        let wanted = if self.forced {
            Some(0)
        } else {
            self.oldest_ns.map(|ns| ns + AGE_MAX_MS * 1_000_000)
        };
        wanted.map(|due| due.max(self.retry_at_ns))
    }

    /// Whether the next turn can go on at once, without waiting for a completion.
    pub(super) fn has_work(&self) -> bool {
        match self.phase {
            Phase::Staging => {
                self.outstanding < TASKS_MAX
                    && self.writing_bytes < self.pace.writing_bytes
                    && (!self.queue.is_empty() && self.tasks.len() < TASKS_MAX
                        || self.tasks.values().any(Task::can_copy))
            }
            Phase::Checkpoint => {
                self.writer.is_some()
                    && !self.awaits_flush
                    && self.writing_bytes < self.pace.writing_bytes
                    && !self.slot_opening
            }
            _ => false,
        }
    }
}

impl Core {
    /// Starts a round when one is due and moves the running one on.
    pub(super) fn pump_destage(&mut self, now: Now) {
        self.destage.pace = self
            .destage
            .pace(self.journal.backlog_bytes(), self.destage_room());
        match self.destage.phase {
            Phase::Idle => self.start_round(now),
            Phase::Staging => self.stage_turn(now),
            Phase::Checkpoint => self.checkpoint_turn(),
            Phase::Syncing | Phase::CheckpointSync => {}
            Phase::Failing => self.finish_failed(now),
        }
    }

    /// What the backlog may grow to before appends must wait, in bytes.
    pub(super) fn destage_room(&self) -> u64 {
        self.journal.capacity_bytes().min(self.tail_bytes_max())
    }
}
