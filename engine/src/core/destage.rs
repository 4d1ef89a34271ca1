//! Destage: what the journal holds goes to segment files, in rounds.
//!
//! A round writes whole blocks of every partition that has batches at or below the round's cut, syncs them
//! together, writes a checkpoint, and only then releases the journal's frames up to the cut. A failed round
//! changes nothing: the journal still holds everything, and the next one writes the same blocks again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::buf::{AlignedBuf, BLOCK, BufPool};
use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode, WriteData};
use crate::id::{FrameSeq, Now};
use crate::store::{
    Advance, CheckpointHeader, CheckpointWriter, PartitionRecord, SegmentFile, StageStep, Stager,
    WRITE_MAX, checkpoint_path, partition_dir, shard_dir,
};

use super::files::FileKey;
use super::outbox::Owner;
use super::{Core, State};

/// Partitions whose files are written at the same time.
const TASKS_MAX: usize = 32;
/// Bytes of writes under way when the journal needs the room soon.
const WRITING_MAX: usize = 8 << 20;
/// And when it does not: a commit waits behind what the device has in its queue, and its flush behind what the device
/// has in its cache.
const WRITING_MIN: usize = 256 << 10;
/// Bytes copied into write buffers in one turn at least.
const TURN_BYTES_MIN: usize = 32 << 10;
/// Partitions put into a checkpoint in one turn.
const TURN_RECORDS: usize = 256;
/// Up to this many files are synced one by one, more by one `syncfs`.
const SYNC_EACH_MAX: usize = 24;
/// Data waits in the journal alone this long at most.
const AGE_MAX_MS: u64 = 10_000;
/// Rest after a failed round.
const RETRY_MS: u64 = 1_000;

/// How far a round goes at once: background work yields to produce and fetch.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bytes of writes under way at most.
    writing_bytes: usize,
    /// Bytes copied into write buffers in one turn at most.
    turn_bytes: usize,
}

impl Pace {
    fn polite(writing_bytes: usize) -> Self {
        Self {
            writing_bytes,
            turn_bytes: (writing_bytes / 32).max(TURN_BYTES_MIN),
        }
    }

    /// Size of a write: several are under way.
    fn write_bytes(self) -> usize {
        (self.writing_bytes / 2).min(WRITE_MAX)
    }

    /// Appends are about to wait for this.
    const HURRY: Self = Self {
        writing_bytes: WRITING_MAX,
        turn_bytes: 1 << 20,
    };
}

/// One file operation of a task, in order.
#[derive(Debug)]
enum Action {
    Write {
        base: i64,
        file: SegmentFile,
        offset: u64,
        data: AlignedBuf,
    },
    Truncate {
        base: i64,
        file: SegmentFile,
        len: u64,
    },
    /// What follows waits until everything before is done.
    Barrier,
}

/// One partition in a round.
#[derive(Debug)]
struct Task {
    stager: Option<Stager>,
    seal: bool,
    /// Next entry to stage and the end, as the partition's tail counts them.
    next: u64,
    end: u64,
    actions: VecDeque<Action>,
    advance: Option<Advance>,
    file: Option<(FileKey, FileId, bool)>,
    dir_ready: bool,
    /// This round makes the partition's directory.
    dir_made: bool,
    outstanding: usize,
}

/// A partition whose writes are done and wait for the round's sync.
#[derive(Debug)]
struct Staged {
    part: u32,
    end: u64,
    dir_made: bool,
    advance: Advance,
}

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
    new_names: BTreeSet<String>,
    error: Option<DiskError>,
    retry_at_ns: u64,
    oldest_ns: Option<u64>,
    writer: Option<CheckpointWriter>,
    next_record: usize,
    /// New log starts in the checkpoint that is being written.
    log_starts: Vec<(u32, i64)>,
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
            new_names: BTreeSet::new(),
            error: None,
            retry_at_ns: 0,
            oldest_ns: None,
            writer: None,
            next_record: 0,
            log_starts: Vec::new(),
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
    /// Backlog that starts a round, of a `room` in bytes. Large rounds are cheap: fewer and longer writes, fewer
    /// syncs. But what comes in meanwhile must find room, and as much more as came in during the last round is
    /// likely to: the backlog is to end below three quarters.
    fn due_bytes(&self, room: u64) -> u64 {
        let (begun, ended) = self.last_round;
        let due = u128::from(room) * 3 / 4 * u128::from(begun) / u128::from(ended.max(1));
        u64::try_from(due).unwrap_or(room).clamp(room / 4, room / 2)
    }

    /// How fast to go: the slower, the less came in during the last round, compared with what it stored. A backlog
    /// that nears `room`, in bytes, ends the politeness.
    fn pace(&self, backlog: u64, room: u64) -> Pace {
        let (begun, ended) = self.last_round;
        if backlog > room / 4 * 3 {
            return Pace::HURRY;
        }
        let grown = u128::from(ended.saturating_sub(begun));
        let wanted = 4 * WRITING_MAX as u128 * grown / u128::from(begun.max(1));
        let writing_bytes = usize::try_from(wanted)
            .unwrap_or(WRITING_MAX)
            .clamp(WRITING_MIN, WRITING_MAX);
        Pace::polite(writing_bytes)
    }

    pub(super) fn note_append(&mut self, now: Now) {
        self.oldest_ns.get_or_insert(now.mono_ns);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a round may still use or sync the directories of its partitions.
    pub(super) fn uses_dirs(&self) -> bool {
        matches!(self.phase, Phase::Staging | Phase::Syncing | Phase::Failing)
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
                        || self.tasks.values().any(|task| {
                            task.dir_ready && task.stager.is_some() && task.actions.is_empty()
                        }))
            }
            Phase::Checkpoint => {
                self.writer.is_some()
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
    fn destage_room(&self) -> u64 {
        self.journal.capacity_bytes().min(self.memory_max())
    }

    fn round_due(&self, now: Now) -> bool {
        if now.mono_ns < self.destage.retry_at_ns {
            return false;
        }
        let backlog = self.journal.backlog_bytes();
        let room = self.destage_room();
        let draining = self.state == State::Draining && self.journal.is_quiet();
        draining
            || self.destage.forced
            || backlog > 0 && (backlog >= self.destage.due_bytes(room) || self.journal.is_short())
            || self
                .destage
                .oldest_ns
                .is_some_and(|ns| now.mono_ns >= ns + AGE_MAX_MS * 1_000_000)
    }

    fn start_round(&mut self, now: Now) {
        if self.destage.final_done || !self.round_due(now) {
            return;
        }
        let cut = self.journal.durable().0;
        if cut == self.journal.released() && !self.destage.forced && self.state == State::Running {
            // Nothing durable is left to destage, whatever its age said: a commit that takes its time, or a
            // partition that was deleted.
            let waits = self.journal.backlog_bytes() > 0 || !self.journal.is_quiet();
            self.destage.oldest_ns = waits.then_some(now.mono_ns);
            return;
        }
        let destage = &mut self.destage;
        destage.phase = Phase::Staging;
        destage.cut = cut;
        destage.begun_bytes = self.journal.backlog_bytes();
        destage.clean = self.state == State::Draining && self.journal.is_quiet();
        destage.forced = false;
        destage.oldest_ns = None;
        destage.error = None;
        destage.touched = Some(Vec::new());
        destage.queue = std::mem::take(&mut destage.dirty).into();
        self.stage_turn(now);
    }

    fn stage_turn(&mut self, now: Now) {
        let mut budget = self.destage.pace.turn_bytes;
        while budget > 0
            && self.destage.error.is_none()
            && self.destage.tasks.len() < TASKS_MAX
            && let Some(part) = self.destage.queue.pop_front()
        {
            self.begin_task(part, now);
            budget = budget.saturating_sub(self.run_task(part, budget));
        }
        let waiting: Vec<u32> = self.destage.tasks.keys().copied().collect();
        for part in waiting {
            budget = budget.saturating_sub(self.run_task(part, budget));
        }
        self.end_staging();
    }

    fn end_staging(&mut self) {
        if self.destage.error.is_some() && self.destage.outstanding == 0 {
            self.destage.phase = Phase::Failing;
        } else if self.destage.tasks.is_empty()
            && self.destage.queue.is_empty()
            && self.destage.outstanding == 0
            && self.destage.phase == Phase::Staging
        {
            self.sync_round();
        }
    }

    fn begin_task(&mut self, part: u32, now: Now) {
        let cut = self.destage.cut;
        let Some(partition) = self.parts[part as usize].as_mut() else {
            return;
        };
        partition.dirty = false;
        let first = partition.tail_stored;
        let skip = (first - partition.tail_dropped) as usize;
        let tail = &partition.tail;
        let count = tail
            .range(skip..)
            .take_while(|entry| entry.place.frame <= cut)
            .count();
        if skip + count < tail.len() {
            partition.dirty = true;
            self.destage.dirty.push(part);
        }
        // A segment whose records have all expired is completed although nothing follows it.
        let open = partition
            .stored
            .segments
            .back()
            .is_some_and(|segment| !segment.sealed);
        let seal = partition.roll_next && skip + count == tail.len() && (open || count > 0);
        if count == 0 && !seal {
            return;
        }
        let bytes: usize = tail
            .range(skip..skip + count)
            .map(|entry| entry.len())
            .sum();
        let odd = partition.stored.odd.as_ref().map_or(0, |odd| odd.len());
        let rolls = tail
            .range(skip..skip + count)
            .skip(1)
            .any(|entry| entry.roll());
        let makes_files =
            seal || odd + bytes >= BLOCK || rolls || open && count > 0 && tail[skip].roll();
        let interval = partition.config.index_interval_bytes;
        let created_ms = partition.live.map_or(now.wall_ms, |live| live.created_ms);
        let task = Task {
            stager: Some(
                Stager::new(
                    self.destage.buffers.clone(),
                    &partition.stored,
                    interval,
                    bytes,
                    created_ms,
                )
                .writing(self.destage.pace.write_bytes()),
            ),
            seal,
            next: first,
            end: first + count as u64,
            actions: VecDeque::new(),
            advance: None,
            file: None,
            dir_ready: partition.stored.dir_exists || !makes_files,
            dir_made: !partition.stored.dir_exists && makes_files,
            outstanding: 0,
        };
        if !task.dir_ready {
            let dir = partition_dir(&partition.dir);
            self.destage
                .new_names
                .insert(crate::store::TOPICS.to_owned());
            let kind = OpKind::CreateDir {
                path: dir.into_boxed_str(),
            };
            self.submit_stage(part, kind, 0);
            self.destage.tasks.insert(
                part,
                Task {
                    outstanding: 1,
                    ..task
                },
            );
        } else {
            self.destage.tasks.insert(part, task);
        }
    }

    fn submit_stage(&mut self, part: u32, kind: OpKind, bytes: usize) {
        self.destage.outstanding += 1;
        self.destage.writing_bytes += bytes;
        self.destage.bytes_written += bytes as u64;
        self.out.submit(Lane::Background, kind, Owner::Stage(part));
    }

    /// Moves one task as far as it goes; returns the bytes it copied.
    fn run_task(&mut self, part: u32, budget: usize) -> usize {
        let Some(mut task) = self.destage.tasks.remove(&part) else {
            return 0;
        };
        let mut copied = 0;
        let gone = self.parts[part as usize].is_none() || self.destage.error.is_some();
        if gone {
            task.actions.clear();
            task.stager = None;
            task.advance = None;
        }
        if task.dir_ready || gone {
            while self.run_actions(part, &mut task)
                && copied < budget
                && self.stage_some(part, &mut task, &mut copied)
            {}
        }
        let finished = task.stager.is_none() && task.actions.is_empty() && task.outstanding == 0;
        if finished {
            self.hold_file(task.file.take());
            match task.advance.take() {
                Some(advance) => {
                    let (end, dir_made) = (task.end, task.dir_made);
                    self.destage.advances.push(Staged {
                        part,
                        end,
                        dir_made,
                        advance,
                    });
                }
                None => self.redirty(part),
            }
        } else {
            self.destage.tasks.insert(part, task);
        }
        copied
    }

    /// Copies more batches into write buffers; false when there is nothing more to copy.
    fn stage_some(&mut self, part: u32, task: &mut Task, copied: &mut usize) -> bool {
        let Some(stager) = &mut task.stager else {
            return false;
        };
        if self.destage.writing_bytes >= self.destage.pace.writing_bytes {
            return false;
        }
        let Some(partition) = self.parts[part as usize].as_ref() else {
            return false;
        };
        let turn_bytes = self.destage.pace.turn_bytes;
        let mut steps = Vec::new();
        while task.next < task.end && steps.is_empty() && *copied < turn_bytes {
            let entry = partition.tail[(task.next - partition.tail_dropped) as usize];
            let Some(batch) = self.journal.slice(entry.place, entry.len()) else {
                return false;
            };
            stager.push(&batch, entry.roll(), &mut steps);
            *copied += entry.len();
            task.next += 1;
        }
        let ended = task.next == task.end;
        if ended && let Some(stager) = task.stager.take() {
            task.advance = Some(stager.finish(task.seal, &mut steps));
        }
        for step in steps {
            expand(step, &mut task.actions);
        }
        !task.actions.is_empty()
    }

    /// Submits actions until one must wait; true when none is left.
    fn run_actions(&mut self, part: u32, task: &mut Task) -> bool {
        while let Some(action) = task.actions.front() {
            let (base, file) = match action {
                Action::Barrier if task.outstanding > 0 => return false,
                Action::Barrier => {
                    task.actions.pop_front();
                    continue;
                }
                Action::Write { base, file, .. } | Action::Truncate { base, file, .. } => {
                    (*base, *file)
                }
            };
            let Some(id) = self.task_file(part, task, base, file) else {
                return false;
            };
            match task.actions.pop_front() {
                Some(Action::Write { offset, data, .. }) => {
                    let bytes = data.len();
                    let data = WriteData::Owned(data);
                    self.submit_stage(
                        part,
                        OpKind::Write {
                            file: id,
                            offset,
                            data,
                            sync: false,
                        },
                        bytes,
                    );
                    task.outstanding += 1;
                }
                Some(Action::Truncate { len, .. }) => {
                    self.submit_stage(part, OpKind::Truncate { file: id, len }, 0);
                    task.outstanding += 1;
                }
                _ => {}
            }
        }
        true
    }

    /// The task's file, once it is open.
    fn task_file(
        &mut self,
        part: u32,
        task: &mut Task,
        base_offset: i64,
        file: SegmentFile,
    ) -> Option<FileId> {
        let key = FileKey {
            part,
            base_offset,
            file,
            mode: OpenMode::WriteDirect,
        };
        match task.file {
            Some((open, id, ready)) if open == key => return ready.then_some(id),
            Some(_) if task.outstanding > 0 => return None,
            _ => {}
        }
        self.hold_file(task.file.take());
        let partition = self.parts[part as usize].as_ref()?;
        let known = partition
            .stored
            .segments
            .back()
            .is_some_and(|s| s.base_offset == base_offset && s.file_bytes() > 0);
        if !known || file != SegmentFile::Log {
            self.destage.new_names.insert(partition_dir(&partition.dir));
        }
        let (id, ready) = self.files.acquire(&mut self.out, key, &partition.dir);
        task.file = Some((key, id, ready));
        if !ready {
            self.waiting_opens
                .entry(id)
                .or_default()
                .push(super::OpenWaiter::Stage(part));
        }
        ready.then_some(id)
    }

    /// Keeps a written file open for its sync, or lets it go when one `syncfs` will do for all.
    fn hold_file(&mut self, file: Option<(FileKey, FileId, bool)>) {
        let Some((_, id, ready)) = file else { return };
        if !ready {
            // Its task was given up before the file was open: nothing was written to it.
            return self.files.release(&mut self.out, id);
        }
        match &mut self.destage.touched {
            Some(files) if files.len() < SYNC_EACH_MAX => files.push(id),
            _ => {
                for held in self.destage.touched.take().into_iter().flatten() {
                    self.files.release(&mut self.out, held);
                }
                self.files.release(&mut self.out, id);
            }
        }
    }

    /// A file that a task waits for is open, or cannot be opened.
    pub(super) fn stage_opened(
        &mut self,
        now: Now,
        part: u32,
        id: FileId,
        result: Result<(), DiskError>,
    ) {
        // A task that was given up meanwhile, its partition deleted, has no opinion on how the opening ended.
        if let Some(task) = self.destage.tasks.get_mut(&part)
            && let Some((_, open, ready)) = &mut task.file
            && *open == id
        {
            *ready = result.is_ok();
            if let Err(error) = result {
                self.destage.error.get_or_insert(error);
            }
        }
        self.run_task(part, 0);
        self.end_staging();
        self.pump_destage(now);
    }

    /// An operation of a task ended.
    pub(super) fn staged(&mut self, part: u32, bytes: usize, result: Result<(), DiskError>) {
        self.destage.outstanding -= 1;
        self.destage.writing_bytes -= bytes;
        if let Err(error) = result {
            self.destage.error.get_or_insert(error);
        }
        if let Some(task) = self.destage.tasks.get_mut(&part) {
            task.outstanding -= 1;
            task.dir_ready = true;
        }
        self.run_task(part, 0);
        self.end_staging();
    }

    fn sync_round(&mut self) {
        self.destage.phase = Phase::Syncing;
        let dirs = std::mem::take(&mut self.destage.new_names);
        let files = self.destage.touched.take();
        let mutations = self.config.mutations;
        if mutations.release_before_sync {
            self.journal.release(&mut self.out, self.destage.cut);
        }
        let mut ops = Vec::new();
        match files {
            Some(files) => {
                ops.extend(files.iter().map(|&file| OpKind::Sync { file }));
                if !mutations.skip_dir_sync {
                    ops.extend(dirs.into_iter().map(|d| OpKind::SyncDir { path: d.into() }));
                }
                self.round_files = files;
            }
            None => ops.push(OpKind::SyncFs),
        }
        self.destage.outstanding += ops.len();
        for op in ops {
            self.out.submit(Lane::Background, op, Owner::RoundSync);
        }
        if self.destage.outstanding == 0 {
            self.round_synced();
        }
    }

    /// One of the round's syncs ended.
    pub(super) fn round_sync_done(&mut self, result: Result<(), DiskError>) {
        self.destage.outstanding -= 1;
        if let Err(error) = result {
            self.destage.error.get_or_insert(error);
        }
        if self.destage.outstanding > 0 {
            return;
        }
        for file in std::mem::take(&mut self.round_files) {
            self.files.release(&mut self.out, file);
        }
        if self.destage.error.is_some() {
            self.destage.phase = Phase::Failing;
        } else {
            self.round_synced();
        }
    }

    /// Everything staged is durable: readers may use the files, and a checkpoint may speak of them.
    fn round_synced(&mut self) {
        let mut sealed = Vec::new();
        for staged in std::mem::take(&mut self.destage.advances) {
            let Staged {
                part,
                end,
                dir_made,
                advance,
            } = staged;
            if let Some(partition) = self.parts[part as usize].as_mut() {
                partition.stored.apply(advance, dir_made);
                partition.tail_stored = end;
                let fresh = partition.stored.segments.iter().rev();
                sealed.extend(
                    fresh
                        .take_while(|s| !s.sealed || s.index.is_some())
                        .filter(|s| s.sealed)
                        .map(|s| (part, s.base_offset)),
                );
            }
        }
        for (part, base) in sealed {
            self.keep_index(part, base);
        }
        self.destage.phase = Phase::Checkpoint;
        self.destage.next_record = 0;
        self.destage.log_starts.clear();
        let run = self.run;
        let header = CheckpointHeader::new(
            run.dir_id,
            self.config.shard,
            run.run,
            self.config.shards,
            run.leader_epoch,
        );
        let (cut, clean) = (FrameSeq(self.destage.cut), self.destage.clean);
        let header = header.with(self.destage.generation + 1, cut, clean);
        self.destage.writer = Some(CheckpointWriter::new(header));
        let slot = self.destage.slot;
        if self.destage.slots[slot].is_none() {
            let file = self.out.new_file();
            let path = checkpoint_path(self.config.shard, slot as u32).into();
            let kind = OpKind::Open {
                file,
                path,
                mode: OpenMode::WriteDirect,
            };
            self.destage.slots[slot] = Some(file);
            self.destage.slot_opening = true;
            self.destage.outstanding += 1;
            self.out
                .submit(Lane::Background, kind, Owner::CheckpointWrite(0));
        }
        self.checkpoint_turn();
    }

    fn checkpoint_turn(&mut self) {
        let Some(file) = self.destage.slots[self.destage.slot] else {
            return;
        };
        if self.destage.slot_opening || self.destage.error.is_some() {
            return self.end_checkpoint();
        }
        let mut pieces = Vec::new();
        if self.destage.writing_bytes < self.destage.pace.writing_bytes
            && let Some(mut writer) = self.destage.writer.take()
        {
            let end = (self.destage.next_record + TURN_RECORDS).min(self.parts.len());
            for at in self.destage.next_record..end {
                if let Some(partition) = &self.parts[at] {
                    let log_start = partition.storable_log_start();
                    if partition.sheds_at(log_start) {
                        self.destage.log_starts.push((at as u32, log_start));
                    }
                    let record = PartitionRecord {
                        key: partition.key,
                        log_start,
                        log: &partition.stored,
                        epochs: &partition.epochs,
                        producers: &partition.producers,
                        durable_end: partition.high_watermark,
                    };
                    writer.push(&record, &mut pieces);
                }
            }
            self.destage.next_record = end;
            if end == self.parts.len() {
                writer.finish(&mut pieces);
            } else {
                self.destage.writer = Some(writer);
            }
        }
        for (offset, data) in pieces {
            let bytes = data.len();
            self.destage.outstanding += 1;
            self.destage.writing_bytes += bytes;
            self.destage.bytes_written += bytes as u64;
            let data = WriteData::Owned(data);
            let kind = OpKind::Write {
                file,
                offset,
                data,
                sync: false,
            };
            self.out
                .submit(Lane::Background, kind, Owner::CheckpointWrite(bytes));
        }
        self.end_checkpoint();
    }

    fn end_checkpoint(&mut self) {
        if self.destage.outstanding > 0 {
            return;
        }
        if self.destage.error.is_some() {
            self.destage.phase = Phase::Failing;
            return;
        }
        if self.destage.writer.is_some() {
            return;
        }
        let Some(file) = self.destage.slots[self.destage.slot] else {
            return;
        };
        self.destage.phase = Phase::CheckpointSync;
        self.destage.outstanding = 1;
        self.out.submit(
            Lane::Background,
            OpKind::Sync { file },
            Owner::CheckpointSync,
        );
        if self.destage.generation < 2 && !self.config.mutations.skip_dir_sync {
            // Each slot's name is new once in a run at most.
            self.destage.outstanding += 1;
            let path = shard_dir(self.config.shard).into();
            self.out.submit(
                Lane::Background,
                OpKind::SyncDir { path },
                Owner::CheckpointSync,
            );
        }
    }

    /// A checkpoint's file was opened or a piece of it written.
    pub(super) fn checkpoint_written(&mut self, bytes: usize, result: Result<(), DiskError>) {
        self.destage.outstanding -= 1;
        self.destage.writing_bytes -= bytes;
        if self.destage.slot_opening {
            self.destage.slot_opening = false;
            if result.is_err() {
                self.destage.slots[self.destage.slot] = None;
            }
        }
        if let Err(error) = result {
            self.destage.error.get_or_insert(error);
            self.destage.writer = None;
            if self.destage.outstanding == 0 {
                self.destage.phase = Phase::Failing;
            }
            return;
        }
        self.checkpoint_turn();
    }

    /// The checkpoint is durable: the journal's frames up to the cut are free.
    pub(super) fn checkpoint_synced(&mut self, now: Now, result: Result<(), DiskError>) {
        self.destage.outstanding -= 1;
        if let Err(error) = result {
            self.destage.error.get_or_insert(error);
        }
        if self.destage.outstanding > 0 {
            return;
        }
        if self.destage.error.is_some() {
            self.destage.phase = Phase::Failing;
            return;
        }
        self.destage.generation += 1;
        self.destage.slot ^= 1;
        self.destage.rounds += 1;
        self.destage.phase = Phase::Idle;
        self.destage.final_done = self.destage.clean;
        self.destage.ended_clean = self.destage.clean;
        self.destage.last_round = (self.destage.begun_bytes, self.journal.backlog_bytes());
        self.journal.release(&mut self.out, self.destage.cut);
        self.storage_full = false;
        self.room_changed = true;
        let starts = std::mem::take(&mut self.destage.log_starts);
        self.raise_log_starts(starts);
        if !self.destage.dirty.is_empty() {
            self.destage.oldest_ns.get_or_insert(now.mono_ns);
        }
        tracing::debug!(
            shard = self.config.shard,
            cut = self.destage.cut,
            generation = self.destage.generation,
            "destage round finished"
        );
    }

    /// Forgets a failed round: everything it wrote will be written again.
    fn finish_failed(&mut self, now: Now) {
        if self.destage.outstanding > 0 {
            return;
        }
        let parts: Vec<u32> = self.destage.tasks.keys().copied().collect();
        for part in parts {
            // Also waits for files that are still being opened.
            self.run_task(part, 0);
        }
        for staged in std::mem::take(&mut self.destage.advances) {
            self.redirty(staged.part);
        }
        while let Some(part) = self.destage.queue.pop_front() {
            if let Some(partition) = self.parts[part as usize].as_mut() {
                partition.dirty = true;
                self.destage.dirty.push(part);
            }
        }
        for file in self.destage.touched.take().into_iter().flatten() {
            self.files.release(&mut self.out, file);
        }
        // The tasks that are done again name theirs again; a directory that is removed meanwhile must not be synced.
        self.destage.new_names.clear();
        self.destage.writer = None;
        self.destage.writing_bytes = 0;
        self.destage.phase = Phase::Idle;
        self.destage.retry_at_ns = now.after_ms(RETRY_MS);
        self.destage.oldest_ns.get_or_insert(now.mono_ns);
        self.destage.forced = true;
        if let Some(error) = self.destage.error.take() {
            self.storage_full = true;
            // A shutdown does not wait for a disk to recover: the journal has everything, the next start replays it.
            self.destage.final_done = self.state == State::Draining;
            tracing::error!(
                shard = self.config.shard,
                %error,
                "segments or checkpoint cannot be written; the journal keeps the data, retrying in {RETRY_MS} ms"
            );
        }
    }

    fn redirty(&mut self, part: u32) {
        if let Some(partition) = self.parts[part as usize].as_mut()
            && !partition.dirty
            // The seal of a segment that retention ended is to be done again, too, with nothing behind it.
            && (partition.has_unstored() || partition.roll_next)
        {
            partition.dirty = true;
            self.destage.dirty.push(part);
        }
    }
}

fn expand(step: StageStep, actions: &mut VecDeque<Action>) {
    match step {
        StageStep::Write {
            base_offset,
            offset,
            data,
        } => {
            actions.push_back(Action::Write {
                base: base_offset,
                file: SegmentFile::Log,
                offset,
                data,
            });
        }
        StageStep::Seal {
            base_offset: base,
            files,
        } => {
            for (file, len, data) in files.into_files() {
                if let Some(data) = data {
                    actions.push_back(Action::Write {
                        base,
                        file,
                        offset: 0,
                        data,
                    });
                }
                actions.push_back(Action::Barrier);
                actions.push_back(Action::Truncate { base, file, len });
                actions.push_back(Action::Barrier);
            }
        }
    }
}
