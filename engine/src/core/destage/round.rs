//! A round: which partitions take part, how it ends well, how it fails.

use crate::disk::{DiskError, FileId, Lane, OpKind};
use crate::id::Now;
use crate::store::Advance;

use super::{AGE_MAX_MS, Phase, RETRY_MS, SYNC_EACH_MAX, TASKS_MAX};
use crate::core::files::FileKey;
use crate::core::outbox::Owner;
use crate::core::{Core, State};

/// A partition whose writes are done and wait for the round's sync.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) part: u32,
    pub(super) end: u64,
    pub(super) dir_made: bool,
    pub(super) advance: Advance,
}

impl Core {
    fn round_due(&self, now: Now) -> bool {
        if now.mono_ns < self.destage.retry_at_ns {
            return false;
        }
        let backlog = self.journal.backlog_bytes();
        let room = self.destage_room();
        let draining = self.state == State::Draining && self.journal.is_quiet();
        draining
            || self.destage.forced
            || self.journal.holds_batches()
                && (backlog >= self.destage.due_bytes(room) || self.journal.is_short())
            || self
                .destage
                .oldest_ns
                .is_some_and(|ns| now.mono_ns >= ns + AGE_MAX_MS * 1_000_000)
    }

    pub(super) fn start_round(&mut self, now: Now) {
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

    pub(super) fn stage_turn(&mut self, now: Now) {
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

    pub(super) fn end_staging(&mut self) {
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

    /// Keeps a written file open for its sync, or lets it go when one `syncfs` will do for all.
    pub(super) fn hold_file(&mut self, file: Option<(FileKey, FileId, bool)>) {
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
                self.destage.syncing = files;
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
    pub(in crate::core) fn round_sync_done(&mut self, result: Result<(), DiskError>) {
        self.destage.outstanding -= 1;
        if let Err(error) = result {
            self.destage.error.get_or_insert(error);
        }
        if self.destage.outstanding > 0 {
            return;
        }
        for file in std::mem::take(&mut self.destage.syncing) {
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
        self.begin_checkpoint();
    }

    /// Forgets a failed round: everything it wrote will be written again.
    pub(super) fn finish_failed(&mut self, now: Now) {
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
            let given = error.is_full() && self.reserve.give(&mut self.out);
            // A shutdown does not wait for a disk to recover: the journal has everything, the next start replays it.
            self.destage.final_done = self.state == State::Draining && !given;
            tracing::error!(
                shard = self.config.shard,
                %error,
                "segments or checkpoint cannot be written; the journal keeps the data, retrying in {RETRY_MS} ms"
            );
        }
    }

    pub(super) fn redirty(&mut self, part: u32) {
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
