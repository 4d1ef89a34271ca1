//! One partition's part in a round: its batches become whole-block writes, its ended segments are sealed.

use std::collections::VecDeque;

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode, WriteData};
use crate::id::Now;
use crate::store::{Advance, SegmentFile, StageStep, Stager, partition_dir};

use super::round::Staged;
use crate::core::files::FileKey;
use crate::core::outbox::Owner;
use crate::core::{Core, OpenWaiter};

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
pub(super) struct Task {
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

impl Task {
    /// Whether more batches can be copied into write buffers at once.
    pub(super) fn can_copy(&self) -> bool {
        self.dir_ready && self.stager.is_some() && self.actions.is_empty()
    }
}

impl Core {
    pub(super) fn begin_task(&mut self, part: u32, now: Now) {
        let cut = self.destage.cut;
        let Some(partition) = self.parts[part as usize].as_mut() else {
            return;
        };
        partition.dirty = false;
        let first = partition.tail_stored;
        let skip = partition.tail_unstored();
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
    pub(super) fn run_task(&mut self, part: u32, budget: usize) -> usize {
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
            segment: base_offset.into(),
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
                .push(OpenWaiter::Stage(part));
        }
        ready.then_some(id)
    }

    /// A file that a task waits for is open, or cannot be opened.
    pub(in crate::core) fn stage_opened(
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
    pub(in crate::core) fn staged(
        &mut self,
        part: u32,
        bytes: usize,
        result: Result<(), DiskError>,
    ) {
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
