//! The exchange of segments: the partition's list names the new one from now on, and the next checkpoint does.

use crate::disk::{Lane, OpKind};
use crate::store::{SegmentFile, segment_path};

use super::SUPERSEDED_MAX;
use super::job::{Failure, Job, Stage};
use crate::core::Core;
use crate::core::outbox::Owner;
use crate::core::retention::Doomed;

impl Job {
    /// Aborted transactions of which nothing is left behind the group that was just cleaned.
    fn take_gone(&mut self) -> Vec<crate::store::AbortedTransaction> {
        match &mut self.stage {
            Some(Stage::Clean(cleaner)) => cleaner.transactions().take_gone(),
            _ => Vec::new(),
        }
    }
}

impl Core {
    /// Puts the group's output, complete and synced, in the place of its segments; false while a checkpoint is being
    /// written, which may have told of the old ones already.
    ///
    /// From now on readers find the new segment; those that are in an old one begin anew. The old files stay until a
    /// checkpoint without them is durable.
    pub(super) fn swap_segments(&mut self, job: &mut Job) -> bool {
        if self.destage.writes_checkpoint() {
            return false;
        }
        let Some(mut group) = job.group.take() else {
            return true;
        };
        let Some(partition) = self.parts[job.part as usize].as_mut() else {
            job.group = Some(group);
            return true; // the next turn sees that the partition is gone
        };
        let segment = group.output.segment.clone();
        let base = segment.base_offset;
        if !partition.stored.replace(&group.names, segment) {
            // Retention was faster. What the pass knows of transactions is of no use any more: the next one begins anew.
            job.group = Some(group);
            job.fail(Failure::Cancelled);
            return true;
        }
        if let Some((file, _)) = group.output.file.take() {
            self.files.release(&mut self.out, file);
        }
        job.progress = group.end;
        partition.forget_hints(&group.names);
        partition.drop_tail_before(group.end);
        let gone = job.take_gone();
        partition.producers.forget_aborted(&gone);
        if (base..group.end).contains(&partition.max_timestamp.1) {
            partition.max_timestamp = partition.newest_at_most(&self.journal);
        }
        let dir = &partition.dir;
        let old = group.names.iter().map(|&segment| Doomed {
            part: job.part,
            dir: dir.clone(),
            segment,
        });
        if self.config.mutations.remove_before_checkpoint {
            self.doomed.extend(old);
        } else {
            self.compaction.superseded.extend(old);
        }
        self.compaction.superseded_bytes += group.bytes;
        if self.compaction.superseded_bytes > SUPERSEDED_MAX {
            self.destage.forced = true;
        }
        job.dropped_records += group.dropped_records;
        self.stats.compaction_dropped_records += group.dropped_records;
        self.keep_index(job.part, base);
        true
    }

    /// Gives up the group's output: nothing names it.
    pub(super) fn drop_output(&mut self, job: &mut Job) {
        let Some(mut group) = job.group.take() else {
            return;
        };
        if let Some((file, _)) = group.output.file.take() {
            self.files.release(&mut self.out, file);
        }
        let (part, segment) = (job.part, group.output.segment.name());
        let ours = |key: &crate::core::files::FileKey| key.part == part && key.segment == segment;
        self.files.doom(&mut self.out, ours);
        if let Some(partition) = self.parts[part as usize].as_deref() {
            for file in SegmentFile::ALL {
                let path = segment_path(&partition.dir, segment, file).into();
                let kind = OpKind::Unlink { path };
                self.out.submit(Lane::Background, kind, Owner::Nobody);
            }
        }
    }
}
