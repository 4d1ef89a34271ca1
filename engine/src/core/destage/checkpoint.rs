//! The checkpoint that ends a round: once it is durable, the journal's frames up to the cut are free.

use crate::buf::AlignedBuf;
use crate::disk::{DiskError, Lane, OpKind, OpenMode, WriteData};
use crate::id::{FrameSeq, Now};
use crate::store::{
    CheckpointHeader, CheckpointWriter, PartitionRecord, checkpoint_path, shard_dir,
};

use super::Phase;
use crate::core::Core;
use crate::core::outbox::Owner;

/// Partitions put into a checkpoint in one turn at most.
const TURN_RECORDS: usize = 256;

impl Core {
    /// Everything the round wrote is durable: a checkpoint may speak of it.
    pub(super) fn begin_checkpoint(&mut self) {
        self.destage.phase = Phase::Checkpoint;
        self.destage.next_record = 0;
        self.destage.checkpoint_bytes = 0;
        self.destage.log_starts.clear();
        self.destage.told = None;
        self.destage.awaits_flush = false;
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
        self.destage.writer = Some(CheckpointWriter::new(header, self.destage.buffers.clone()));
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

    pub(super) fn checkpoint_turn(&mut self) {
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
            self.push_records(&mut writer, &mut pieces);
            if self.destage.next_record == self.parts.len() && self.told_is_durable() {
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
            self.destage.checkpoint_bytes += bytes as u64;
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

    /// Puts the next partitions into the checkpoint: one, and more while the turn has time. A partition's record may have
    /// 200 bytes, or 80 KB with the index of its open segment.
    fn push_records(&mut self, writer: &mut CheckpointWriter, pieces: &mut Vec<(u64, AlignedBuf)>) {
        let end = (self.destage.next_record + TURN_RECORDS).min(self.parts.len());
        let mut bytes = 0;
        while self.destage.next_record < end && bytes < self.destage.pace.turn_bytes {
            let at = self.destage.next_record;
            self.destage.next_record += 1;
            let Some(partition) = &self.parts[at] else {
                continue;
            };
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
            bytes += writer.push(&record, pieces);
        }
    }

    /// Whether everything that the records tell is durable. Where acknowledgements do not wait for a flush it may not be: a
    /// checkpoint that outlived it would call its loss damage.
    fn told_is_durable(&mut self) -> bool {
        let newest = self.journal.durable().0;
        let told = *self.destage.told.get_or_insert(newest);
        let durable = self.journal.flushed_to(told);
        self.destage.awaits_flush = !durable;
        durable
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
    pub(in crate::core) fn checkpoint_written(
        &mut self,
        bytes: usize,
        result: Result<(), DiskError>,
    ) {
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
    pub(in crate::core) fn checkpoint_synced(&mut self, now: Now, result: Result<(), DiskError>) {
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
        self.journal.checkpointed(self.destage.generation);
        self.journal.release(&mut self.out, self.destage.cut);
        self.storage_full = false;
        let checkpoint_bytes = self.destage.checkpoint_bytes;
        self.reserve.round_ended(now, checkpoint_bytes);
        self.room_changed = true;
        let starts = std::mem::take(&mut self.destage.log_starts);
        self.doomed.extend(self.compaction.take_superseded());
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{CoreConfig, Inspect, LogConfig, Mutations};
    use crate::id::{PartitionKey, TopicId};
    use crate::recovery::{PartitionMeta, PartitionState, RunInfo};
    use crate::store::{Epochs, IndexEntry, Producers, Segment, SparseIndex, StoredLog};

    const NOW: Now = Now {
        mono_ns: 0,
        wall_ms: 0,
    };

    fn config() -> CoreConfig {
        CoreConfig {
            shard: 0,
            shards: 1,
            durability: crate::core::Durability::Fsync,
            commits_in_flight: 1,
            journal_file_bytes: 1 << 20,
            journal_files: 2,
            existing_journals: Vec::new(),
            memory_bytes: 1 << 20,
            max_batch_bytes: 4096,
            cold_reads: crate::core::ColdReads::Direct,
            producer_expiry_ms: 1 << 40,
            open_files: 16,
            reads_in_flight: 4,
            cleaner: Default::default(),
            inspect: Inspect::Headers,
            decompressed_bytes_max: 1 << 20,
            mutations: Mutations::default(),
        }
    }

    /// A partition whose open segment has this many index entries.
    fn partition(number: i32, entries: u32) -> PartitionState {
        let entry = |at| IndexEntry {
            relative_offset: at,
            position: at * 4096,
            max_timestamp: 0,
            max_timestamp_offset: at,
        };
        let index = SparseIndex::from_entries(4096, (0..entries).map(entry).collect());
        let mut log = StoredLog::default();
        log.segments.push_back(Segment {
            index: Some(index),
            ..Segment::new(0, 0, 4096)
        });
        PartitionState {
            meta: PartitionMeta {
                key: PartitionKey {
                    topic: TopicId([1; 16]),
                    partition: number,
                },
                topic_name: "logs".to_owned(),
                config: LogConfig::default(),
            },
            log_start: 0,
            log,
            epochs: Epochs::default(),
            producers: Producers::default(),
        }
    }

    /// How many partitions each turn of a checkpoint in no hurry takes.
    fn turns(partitions: Vec<PartitionState>) -> Vec<usize> {
        let run = RunInfo {
            run: 1,
            leader_epoch: 0,
            dir_id: [1; 16],
        };
        let count = partitions.len();
        let mut core = Core::new(config(), run, partitions, NOW);
        core.destage.pace = core.destage.pace(0, 1 << 30);
        core.begin_checkpoint();
        assert_eq!(core.destage.next_record, 0, "its file is not open yet");
        let mut turns = Vec::new();
        core.destage.slot_opening = false;
        while core.destage.next_record < count {
            let before = core.destage.next_record;
            core.checkpoint_turn();
            turns.push(core.destage.next_record - before);
        }
        turns
    }

    #[test]
    fn a_turn_puts_as_many_partitions_into_a_checkpoint_as_it_has_time_for() {
        let large = (0..5).map(|number| partition(number, 4_095)).collect();
        assert_eq!(turns(large), [1; 5], "of 80 KB each");
        let small = (0..300).map(|number| partition(number, 0)).collect();
        let turns = turns(small);
        assert!(turns.len() <= 3, "of some 100 bytes each: {turns:?}");
    }
}
