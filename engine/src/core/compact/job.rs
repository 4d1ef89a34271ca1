//! One pass over one partition: keys first, then group after group of its segments.

use crate::batch::BatchHeader;
use crate::compact::{Batches, CleanTransactions, Cleaned, Cleaner, KeyMap, Policy, index_batch};
use crate::disk::{DiskError, Lane, OpKind, WriteData};
use crate::id::Now;
use crate::store::{AbortedTransaction, Segment, SegmentFile, SegmentName, partition_dir};

use super::choose::Dirty;
use super::output::{Output, Step};
use super::source::Source;
use super::{Action, RETRY_MS};
use crate::core::outbox::Owner;
use crate::core::partition::Partition;
use crate::core::{Core, State};

/// No batch is longer, bytes: a length beyond it is damage, and is not read for.
const BATCH_MAX: usize = 256 << 20;

/// Why a pass ends early.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure {
    /// The disk failed, or is full.
    Disk(DiskError),
    /// A segment is not what was written; the partition is left alone from now on.
    Damaged(SegmentName),
    /// Nothing is wrong: the partition is gone, or the shard ends.
    Cancelled,
}

/// What has been found while looking for keys.
#[derive(Debug)]
pub(super) struct Keys {
    map: KeyMap,
    transactions: CleanTransactions,
}

/// Looking for keys, or cleaning with them.
#[derive(Debug)]
pub(super) enum Stage {
    Index(Box<Keys>),
    Clean(Box<Cleaner>),
}

/// Segments that become one.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) names: Vec<SegmentName>,
    pub(super) end: i64,
    pub(super) bytes: u64,
    /// Records that are not in the output.
    pub(super) dropped_records: u64,
    pub(super) output: Output,
}

/// A pass.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) part: u32,
    begun_ns: u64,
    pub(super) stage: Option<Stage>,
    dirty: Dirty,
    /// The map is full, with the keys up to here.
    full_at: Option<i64>,
    /// Cleaned up to here once the pass is over; known when the keys are.
    pub(super) end: i64,
    /// Segments before this offset are done with in this stage.
    pub(super) progress: i64,
    pub(super) source: Option<Source>,
    pub(super) group: Option<Group>,
    pub(super) outstanding: usize,
    pub(super) writes: usize,
    failure: Option<Failure>,
    scratch: Vec<u8>,
    rebuilt: Vec<u8>,
    read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) dropped_records: u64,
}

/// How a turn of the pass ended.
enum Turn {
    /// There is more to do at once.
    Again,
    /// A completion has to come first.
    Waits,
    /// The pass is over.
    Done,
}

fn aborted(partition: &Partition) -> Vec<AbortedTransaction> {
    let transactions = partition.producers.transactions();
    transactions.map_or_else(Vec::new, |t| t.aborted().iter().copied().collect())
}

impl Job {
    pub(super) fn new(
        part: u32,
        dirty: Dirty,
        partition: &Partition,
        core: &Core,
        now: Now,
    ) -> Self {
        let bytes = core.config.cleaner.dedupe_bytes;
        let map = KeyMap::new(bytes, dirty.records, core.run.dir_id);
        let stage = Stage::Index(Box::new(Keys {
            map: map.keeping_oldest(core.config.mutations.drop_newest),
            transactions: if core.config.mutations.count_aborted_keys {
                CleanTransactions::default()
            } else {
                CleanTransactions::new(aborted(partition))
            },
        }));
        Self {
            part,
            begun_ns: now.mono_ns,
            stage: Some(stage),
            dirty,
            full_at: None,
            end: dirty.from,
            progress: dirty.from,
            source: None,
            group: None,
            outstanding: 0,
            writes: 0,
            failure: None,
            scratch: Vec::new(),
            rebuilt: Vec::new(),
            read_bytes: 0,
            written_bytes: 0,
            dropped_records: 0,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

impl Core {
    /// Moves the pass on as far as this turn allows.
    pub(super) fn run_compaction(&mut self, now: Now, mut job: Job) {
        let partition = self.parts[job.part as usize].as_deref();
        let wanted = partition.is_some_and(|p| p.config.compaction.is_some());
        if self.state != State::Running || !wanted {
            job.fail(Failure::Cancelled);
        }
        let turn = match (job.failure, &job.stage) {
            (Some(_), _) if job.outstanding == 0 => Turn::Done,
            (Some(_), _) => Turn::Waits,
            (None, Some(Stage::Index(_))) => self.index_turn(now, &mut job),
            (None, _) => self.clean_turn(now, &mut job),
        };
        self.compaction.can_go_on = matches!(turn, Turn::Again);
        match turn {
            Turn::Again | Turn::Waits => self.compaction.job = Some(job),
            Turn::Done => self.end_compaction(now, job),
        }
    }

    // --- keys ---

    fn index_turn(&mut self, now: Now, job: &mut Job) -> Turn {
        if let Some(end) = job.full_at {
            // The piece that was read ahead may still be under way.
            if job.outstanding > 0 {
                return Turn::Waits;
            }
            self.close_source(job);
            return self.begin_cleaning(now, job, end);
        }
        if job.source.is_none() {
            let until = job.dirty.until;
            if !self.open_source(job, until) {
                return self.begin_cleaning(now, job, until);
            }
        }
        self.read_on(job);
        let Some(slice) = self.compaction_slice(now) else {
            return Turn::Again;
        };
        let (Some(source), Some(Stage::Index(keys))) = (&mut job.source, &mut job.stage) else {
            return Turn::Waits;
        };
        let Keys { map, transactions } = keys.as_mut();
        let mut batches = Batches::new(source.bytes());
        let (all, mut full, mut damaged) = (source.bytes().len(), false, false);
        while !full && all - batches.rest().len() < slice {
            match batches.next() {
                None => break,
                Some(Err(_)) => damaged = true,
                Some(Ok(batch)) => {
                    let is_old = BatchHeader::read(batch)
                        .is_some_and(|header| header.last_offset() < job.dirty.from);
                    full = !is_old
                        && !index_batch(map, transactions, batch, job.dirty.from, &mut job.scratch);
                }
            }
            if damaged {
                break;
            }
        }
        let used = all - batches.rest().len();
        source.consume(used);
        let end = map.end();
        self.looked_at(now, job, used);
        if full {
            job.full_at = Some(end);
            return Turn::Again;
        }
        self.source_turn(job, damaged, used)
    }

    /// The keys up to `end` are known.
    fn begin_cleaning(&mut self, now: Now, job: &mut Job, end: i64) -> Turn {
        let Some(partition) = self.parts[job.part as usize].as_deref() else {
            return Turn::Waits;
        };
        let policy = partition.config.compaction.unwrap_or_default();
        let policy = Policy {
            now_ms: now.wall_ms,
            delete_retention_ms: policy.delete_retention_ms,
        };
        if let Some(Stage::Index(keys)) = job.stage.take() {
            let mut map = keys.map;
            map.seen_to(end);
            let transactions = CleanTransactions::new(aborted(partition));
            job.stage = Some(Stage::Clean(Box::new(Cleaner::new(
                map,
                policy,
                transactions,
            ))));
        }
        job.end = end;
        job.progress = i64::MIN;
        Turn::Again
    }

    // --- cleaning ---

    fn clean_turn(&mut self, now: Now, job: &mut Job) -> Turn {
        if job.group.is_none() && !self.plan_group(job) {
            return Turn::Done;
        }
        let Some(group) = &mut job.group else {
            return Turn::Waits;
        };
        if group.output.steps.is_some() {
            return self.finish_turn(job);
        }
        if group.output.file.is_none() {
            self.open_output(job, SegmentFile::Log);
        }
        self.write_on(job);
        let end = job.group.as_ref().map_or(0, |group| group.end);
        if job.source.is_none() && !self.open_source(job, end) {
            if let Some(group) = &mut job.group {
                group.output.finish(end);
            }
            return Turn::Again;
        }
        self.read_on(job);
        let Some(slice) = self.compaction_slice(now) else {
            return Turn::Again;
        };
        // What was cleaned waits in memory for its write: not more than so much.
        if job.group.as_ref().is_some_and(|g| g.output.has_writes()) {
            return Turn::Waits;
        }
        let (used, damaged) = self.clean_slice(job, slice);
        self.looked_at(now, job, used);
        self.write_on(job);
        self.source_turn(job, damaged, used)
    }

    /// Cleans what is here, about `slice` bytes; how many it was, and whether something is damaged.
    fn clean_slice(&mut self, job: &mut Job, slice: usize) -> (usize, bool) {
        let partition = self.parts[job.part as usize].as_deref();
        let (Some(source), Some(Stage::Clean(cleaner)), Some(group), Some(partition)) =
            (&mut job.source, &mut job.stage, &mut job.group, partition)
        else {
            return (0, false);
        };
        let all = source.bytes().len();
        let mut batches = Batches::new(source.bytes());
        let mut damaged = false;
        while all - batches.rest().len() < slice {
            let batch = match batches.next() {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(_)) => {
                    damaged = true;
                    break;
                }
            };
            let holds = BatchHeader::read(batch)
                .is_some_and(|h| h.is_idempotent() && partition.producers.is_known_by(h));
            job.rebuilt.clear();
            let cleaned = cleaner.clean(batch, holds, &mut job.rebuilt);
            group.dropped_records += cleaned.dropped_records;
            match cleaned.cleaned {
                Cleaned::Dropped => {}
                Cleaned::Kept => group.output.push(batch),
                Cleaned::Rewritten => group.output.push(&job.rebuilt),
            }
        }
        let used = all - batches.rest().len();
        source.consume(used);
        (used, damaged)
    }

    /// The segments from the pass's progress on that become one: as many as fit into a segment by their present size.
    fn plan_group(&mut self, job: &mut Job) -> bool {
        let Some(partition) = self.parts[job.part as usize].as_mut() else {
            return false;
        };
        let segments = partition.stored.segments.iter();
        let mut todo = segments
            .skip_while(|s| s.base_offset < job.progress)
            .take_while(|s| s.base_offset < job.end && s.sealed);
        let Some(first) = todo.next() else {
            return false;
        };
        let most = u64::from(partition.config.segment_bytes);
        let (mut names, mut bytes, mut end) = (vec![first.name()], first.bytes, first.next_offset);
        for next in todo {
            let fits = bytes + next.bytes <= most
                && next.next_offset - first.base_offset <= i64::from(i32::MAX);
            if !fits {
                break;
            }
            names.push(next.name());
            bytes += next.bytes;
            end = next.next_offset;
        }
        let interval = partition.config.index_interval_bytes;
        let segment = Segment {
            revision: partition.next_revision,
            ..Segment::new(first.base_offset, first.created_ms, interval)
        };
        partition.next_revision += 1;
        job.progress = first.base_offset;
        job.group = Some(Group {
            names,
            end,
            bytes,
            dropped_records: 0,
            output: Output::new(segment, self.compaction.buffers.clone()),
        });
        true
    }

    /// Goes on to the next segment at a segment's end.
    fn source_turn(&mut self, job: &mut Job, damaged: bool, used: usize) -> Turn {
        let Some(source) = &job.source else {
            return Turn::Again;
        };
        let (name, end) = (source.name, source.end);
        if damaged || source.is_read() && used == 0 && !source.bytes().is_empty() {
            job.fail(Failure::Damaged(name));
            return Turn::Again;
        }
        if source.is_read() && source.bytes().is_empty() {
            job.progress = end;
            self.close_source(job);
            return Turn::Again;
        }
        if used > 0 {
            return Turn::Again;
        }
        if Batches::new(source.bytes()).needed() > BATCH_MAX {
            job.fail(Failure::Damaged(name));
            return Turn::Again;
        }
        self.read_on(job);
        Turn::Waits
    }

    fn looked_at(&mut self, now: Now, job: &mut Job, used: usize) {
        if used == 0 {
            return;
        }
        job.read_bytes += used as u64;
        self.stats.compaction_read_bytes += used as u64;
        self.pace_compaction(now, used);
    }

    /// Completes the output, step by step; then the segments are exchanged.
    fn finish_turn(&mut self, job: &mut Job) -> Turn {
        self.write_on(job);
        if job.outstanding > 0 {
            return Turn::Waits;
        }
        let Some(group) = &mut job.group else {
            return Turn::Waits;
        };
        let Some(step) = group.output.steps.as_mut().and_then(|s| s.pop_front()) else {
            return if self.swap_segments(job) {
                Turn::Again
            } else {
                Turn::Waits
            };
        };
        let mutations = self.config.mutations;
        let Some((file, true)) = group.output.file else {
            return Turn::Waits;
        };
        let kind = match step {
            Step::Open(kind) => {
                self.open_output(job, kind);
                return if job.outstanding == 0 {
                    Turn::Again
                } else {
                    Turn::Waits
                };
            }
            Step::Write(data) => OpKind::Write {
                file,
                offset: 0,
                data: WriteData::Owned(data),
                sync: false,
            },
            Step::Truncate(len) => OpKind::Truncate { file, len },
            Step::Sync if mutations.swap_before_sync => return Turn::Again,
            Step::Sync => OpKind::Sync { file },
            Step::SyncDir if mutations.skip_dir_sync => return Turn::Again,
            Step::SyncDir => {
                let Some(partition) = self.parts[job.part as usize].as_deref() else {
                    return Turn::Waits;
                };
                OpKind::SyncDir {
                    path: partition_dir(&partition.dir).into(),
                }
            }
        };
        job.outstanding += 1;
        let owner = Owner::Compaction(Action::Step);
        self.out.submit(Lane::Background, kind, owner);
        Turn::Waits
    }

    // --- end ---

    fn end_compaction(&mut self, now: Now, mut job: Job) {
        self.close_source(&mut job);
        self.drop_output(&mut job);
        self.stats.compaction_ns += now.mono_ns - job.begun_ns;
        self.compaction.can_go_on = false;
        self.compaction.due_ns = now.mono_ns;
        if !self.compaction.superseded.is_empty() {
            self.destage.forced = true;
        }
        let shard = self.config.shard;
        let partition = self.parts[job.part as usize].as_mut();
        let dir = partition.as_ref().map_or("", |p| p.dir.as_str());
        let Some(failure) = job.failure else {
            self.stats.compactions += 1;
            let (read, written) = (job.read_bytes, job.written_bytes);
            let dropped = job.dropped_records;
            tracing::info!(
                shard,
                dir,
                end = job.end,
                read,
                written,
                dropped,
                "compacted"
            );
            if let Some(partition) = partition {
                let stored = &mut partition.stored;
                stored.cleaned_end = stored.cleaned_end.max(job.end);
                self.destage.forced = true;
            }
            return;
        };
        let after_ns = match failure {
            Failure::Cancelled => now.mono_ns,
            Failure::Disk(error) => {
                tracing::warn!(shard, dir, %error, "compaction failed, the log stays as it was");
                self.stats.compactions_failed += 1;
                now.after_ms(RETRY_MS)
            }
            Failure::Damaged(segment) => {
                tracing::error!(
                    shard,
                    dir,
                    ?segment,
                    "a segment is damaged: the log is not compacted any more"
                );
                self.stats.compactions_failed += 1;
                u64::MAX
            }
        };
        if let Some(partition) = partition {
            partition.compact_after_ns = after_ns;
        }
        self.compaction.due_ns = now.after_ms(self.config.cleaner.backoff_ms);
    }
}
