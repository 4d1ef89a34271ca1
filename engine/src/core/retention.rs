//! Retention by time and size, whole segments at a time, and the removal of what is gone.

use crate::disk::{Lane, OpKind};
use crate::id::{Now, Part};
use crate::store::{SegmentFile, SegmentName, partition_dir, segment_path};

use super::Core;
use super::api::{Event, FetchError};
use super::outbox::Owner;

/// Between two looks at all partitions.
const CHECK_MS: u64 = 5_000;

/// A segment below its log's start, or one that compaction replaced, as the newest checkpoint says: its files go once
/// nobody reads them.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) part: u32,
    pub(super) dir: String,
    pub(super) segment: SegmentName,
}

impl Core {
    /// Drops segments past their topic's retention, now and then.
    pub(super) fn pump_retention(&mut self, now: Now) {
        if now.mono_ns < self.retention_due_ns {
            return;
        }
        self.retention_due_ns = now.after_ms(CHECK_MS);
        for part in 0..self.parts.len() {
            self.retain(part as u32, now.wall_ms);
        }
        let forget = now.wall_ms - self.config.producer_expiry_ms;
        for (part, partition) in self.parts.iter_mut().enumerate() {
            let Some(partition) = partition else { continue };
            if !partition.producers.is_empty() {
                partition.producers.expire(forget);
            }
            // A segment that is full only of expired records is ended, so that it can go.
            let keep_ms = partition.config.retention_ms;
            let newest = partition.newest_live_ms();
            if newest.is_some_and(|newest| keep_ms >= 0 && now.wall_ms - newest > keep_ms)
                && !partition.roll_next
            {
                partition.roll_next = true;
                self.destage.forced = true;
                if !partition.dirty {
                    partition.dirty = true;
                    self.destage.dirty.push(part as u32);
                }
            }
        }
    }

    /// Decides the partition's next log start. It counts, and the segments below it go, when a checkpoint with
    /// it is durable: a log start that consumers have seen never goes back.
    fn retain(&mut self, part: u32, wall_ms: i64) {
        let Some(partition) = self.parts[part as usize].as_mut() else {
            return;
        };
        let config = &partition.config;
        let mut bytes = partition.stored.bytes();
        let mut start = partition.log_start;
        for segment in &partition.stored.segments {
            let expired =
                config.retention_ms >= 0 && wall_ms - segment.newest_ms() > config.retention_ms;
            let excess = config.retention_bytes >= 0
                && bytes.saturating_sub(segment.bytes) >= config.retention_bytes as u64;
            if !segment.sealed || !(expired || excess) {
                break;
            }
            bytes -= segment.bytes;
            start = segment.next_offset;
        }
        if start > partition.next_log_start {
            partition.next_log_start = start;
            self.destage.forced = true;
        }
    }

    /// Lets the log begin at `offset`, at most the high watermark (Kafka's DeleteRecords). It counts, and cannot be
    /// undone by a crash, once [`Core::offsets`] shows it: a round is asked for that writes a checkpoint with it.
    ///
    /// # Errors
    /// [`FetchError::UnknownPartition`], or [`FetchError::OutOfRange`] past the high watermark.
    pub fn delete_records(&mut self, part: Part, offset: i64) -> Result<(), FetchError> {
        let partition = self.parts.get_mut(part.0 as usize).and_then(Option::as_mut);
        let partition = partition.ok_or(FetchError::UnknownPartition)?;
        if offset > partition.high_watermark || offset < 0 {
            return Err(FetchError::OutOfRange {
                offset,
                log_start_offset: partition.log_start,
                log_end_offset: partition.high_watermark,
            });
        }
        if offset <= partition.next_log_start {
            return Ok(());
        }
        partition.next_log_start = offset;
        self.destage.forced = true;
        let live = partition.live.is_some_and(|live| live.bytes > 0);
        if offset == partition.log_end && live && !partition.roll_next {
            // Nothing of the open segment is left: it ends, so that it can go.
            partition.roll_next = true;
            if !partition.dirty {
                partition.dirty = true;
                self.destage.dirty.push(part.0);
            }
        }
        Ok(())
    }

    /// A durable checkpoint has these log starts: they count from now on.
    pub(super) fn raise_log_starts(&mut self, starts: Vec<(u32, i64)>) {
        for (part, start) in starts {
            let Some(partition) = self.parts[part as usize].as_mut() else {
                continue;
            };
            if start > partition.log_start && std::mem::take(&mut partition.watched) {
                self.out.events.push_back(Event::Advanced(Part(part)));
            }
            partition.log_start = start;
            partition.epochs.truncate_start(start);
            partition.producers.trim(start);
            while let Some(first) = partition.stored.segments.front()
                && first.sealed
                && first.next_offset <= start
            {
                let (dir, segment) = (partition.dir.clone(), first.name());
                if partition
                    .live
                    .is_some_and(|live| live.base_offset == segment.base_offset)
                {
                    partition.live = None; // it had ended, and nothing came after it
                }
                partition.stored.segments.pop_front();
                self.doomed.push(Doomed { part, dir, segment });
            }
        }
        self.unlink_doomed();
    }

    /// Removes the files of doomed segments that nobody reads any more.
    pub(super) fn unlink_doomed(&mut self) {
        let mut waiting = Vec::new();
        for doomed in std::mem::take(&mut self.doomed) {
            let (part, segment) = (doomed.part, doomed.segment);
            let of_segment =
                |key: &super::files::FileKey| key.part == part && key.segment == segment;
            if !self.files.doom(&mut self.out, of_segment) {
                waiting.push(doomed);
                continue;
            }
            if self.parts[part as usize].is_some() {
                for file in SegmentFile::ALL {
                    let path = segment_path(&doomed.dir, segment, file).into();
                    self.out
                        .submit(Lane::Background, OpKind::Unlink { path }, Owner::Nobody);
                }
            }
        }
        self.doomed = waiting;
    }

    /// Removes directories of dropped partitions once no file of theirs is open and no round works on them.
    pub(super) fn remove_dropped(&mut self) {
        let mut waiting = Vec::new();
        for (part, dir) in std::mem::take(&mut self.dropped) {
            let busy = self.destage.uses_dirs()
                || self.compaction.works_on(part)
                || !self.files.doom(&mut self.out, |key| key.part == part);
            if busy {
                waiting.push((part, dir));
                continue;
            }
            let path = partition_dir(&dir).into();
            self.out
                .submit(Lane::Background, OpKind::RemoveDir { path }, Owner::Nobody);
        }
        self.dropped = waiting;
    }
}
