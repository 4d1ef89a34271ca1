//! Putting the batches that only the journal holds into segment files.

use std::collections::HashMap;

use crate::batch::{BatchHeader, Marker};
use crate::buf::BufPool;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::id::PartitionKey;
use crate::store::{
    SealedFiles, SegmentFile, StageStep, Stager, TOPICS, WRITE_MAX, partition_dir, segment_path,
};

use super::journals::{Replayed, ShardJournal};
use super::{PartitionState, RecoveryError, RecoveryOptions, at};

/// Files kept open for a sync each; with more, one `syncfs` does for all.
const SYNC_EACH_MAX: usize = 64;

/// The files of the partition that is being written.
struct Files<'a> {
    dir_name: &'a str,
    dir_exists: bool,
    /// The segment's log, by its base offset.
    open: Option<(i64, DiskFile)>,
}

/// Writes of a recovery, and what must be synced before they count.
pub(super) struct Replay<'a> {
    disk: &'a mut dyn Disk,
    options: &'a RecoveryOptions,
    touched: Vec<DiskFile>,
    dirs: Vec<String>,
    sync_all: bool,
    buffers: BufPool,
}

impl<'a> Replay<'a> {
    pub(super) fn new(disk: &'a mut dyn Disk, options: &'a RecoveryOptions) -> Self {
        Self {
            disk,
            options,
            touched: Vec::new(),
            dirs: Vec::new(),
            sync_all: false,
            // A partition is written at a time, a buffer at a time.
            buffers: BufPool::new(WRITE_MAX, 1),
        }
    }

    /// Writes what `journal` holds of the partitions in `states`; returns the bytes of batches replayed.
    pub(super) fn shard(
        &mut self,
        journal: &ShardJournal,
        states: &mut HashMap<PartitionKey, (PartitionState, i64)>,
    ) -> Result<u64, RecoveryError> {
        let mut by_partition: HashMap<PartitionKey, Vec<Replayed>> = HashMap::new();
        let mut bytes = 0;
        journal.batches(|key, replayed, batch| {
            // A partition that the catalog does not know was deleted.
            let Some((state, producers_end)) = states.get_mut(&key) else { return Ok(()) };
            let Some(header) = BatchHeader::read(batch) else { return Ok(()) };
            let list = by_partition.entry(key).or_default();
            let end = match list.last() {
                Some(last) => {
                    BatchHeader::read(journal.bytes(*last)).map_or(0, BatchHeader::next_offset)
                }
                None => state.log.next_offset().unwrap_or(state.log_start),
            };
            let base = header.base_offset.get();
            if base < end {
                return Ok(()); // in the checkpoint already
            }
            if base > end {
                return Err(RecoveryError::Damaged(format!(
                    "{}-{}: the journal continues at offset {base}, the stored log ends at {end}; restore the data \
                     directory from a backup",
                    state.meta.topic_name, key.partition
                )));
            }
            state.epochs.append(header.partition_leader_epoch.get(), base);
            if header.is_idempotent() && base >= *producers_end {
                let marker = Marker::read(batch);
                state.producers.note(header, marker, 0, self.options.now_ms);
                state.producers.advance(header.next_offset());
            }
            bytes += batch.len() as u64;
            list.push(replayed);
            Ok(())
        })?;
        let mut keys: Vec<_> = by_partition
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .collect();
        keys.sort_by_key(|(key, _)| *key);
        for (key, list) in keys {
            if let Some((state, _)) = states.get_mut(&key) {
                self.partition(journal, state, &list)?;
            }
        }
        Ok(bytes)
    }

    fn partition(
        &mut self,
        journal: &ShardJournal,
        state: &mut PartitionState,
        batches: &[Replayed],
    ) -> Result<(), RecoveryError> {
        let dir_name = state.meta.key.dir_name(&state.meta.topic_name);
        let expected = batches
            .iter()
            .map(|batch| journal.bytes(*batch).len())
            .sum();
        let interval = state.meta.config.index_interval_bytes;
        let mut stager = Stager::new(
            self.buffers.clone(),
            &state.log,
            interval,
            expected,
            self.options.now_ms,
        );
        let mut steps = Vec::new();
        let mut files = Files {
            dir_name: &dir_name,
            dir_exists: state.log.dir_exists,
            open: None,
        };
        for batch in batches {
            stager.push(journal.bytes(*batch), batch.roll, &mut steps);
            for step in steps.drain(..) {
                self.carry_out(&mut files, step)?;
            }
        }
        let advance = stager.finish(false, &mut steps);
        for step in steps {
            self.carry_out(&mut files, step)?;
        }
        if let Some((_, file)) = files.open {
            self.touch(file);
        }
        state.log.apply(advance, files.dir_exists);
        Ok(())
    }

    fn carry_out(&mut self, files: &mut Files<'_>, step: StageStep) -> Result<(), RecoveryError> {
        let dir_name = files.dir_name;
        if !files.dir_exists {
            let path = partition_dir(dir_name);
            self.disk.create_dir(&path).map_err(at(&path))?;
            self.note_dir(TOPICS);
            files.dir_exists = true;
        }
        self.note_dir(&partition_dir(dir_name));
        match step {
            StageStep::Write {
                base_offset,
                offset,
                data,
            } => {
                let path = segment_path(dir_name, base_offset, SegmentFile::Log);
                let file = match files.open {
                    Some((base, file)) if base == base_offset => file,
                    _ => {
                        if let Some((_, file)) = files.open.take() {
                            self.touch(file);
                        }
                        self.disk
                            .open(&path, OpenMode::WriteDirect)
                            .map_err(at(&path))?
                    }
                };
                files.open = Some((base_offset, file));
                self.disk.write_at(file, offset, &data).map_err(at(&path))
            }
            StageStep::Seal {
                base_offset,
                files: sealed,
            } => {
                if let Some((_, file)) = files.open.take() {
                    self.touch(file);
                }
                self.seal(dir_name, base_offset, sealed)
            }
        }
    }

    fn seal(&mut self, dir_name: &str, base: i64, files: SealedFiles) -> Result<(), RecoveryError> {
        for (kind, len, data) in files.into_files() {
            let path = segment_path(dir_name, base, kind);
            let file = self
                .disk
                .open(&path, OpenMode::WriteDirect)
                .map_err(at(&path))?;
            if let Some(data) = data {
                self.disk.write_at(file, 0, &data).map_err(at(&path))?;
            }
            self.disk.truncate(file, len).map_err(at(&path))?;
            self.touch(file);
        }
        Ok(())
    }

    fn touch(&mut self, file: DiskFile) {
        if self.touched.len() >= SYNC_EACH_MAX {
            self.sync_all = true;
        }
        if self.sync_all {
            for file in std::mem::take(&mut self.touched) {
                self.disk.close(file);
            }
            self.disk.close(file);
        } else {
            self.touched.push(file);
        }
    }

    fn note_dir(&mut self, dir: &str) {
        if self.dirs.last().is_none_or(|last| last != dir) {
            self.dirs.push(dir.to_owned());
        }
    }

    /// Makes everything written durable.
    pub(super) fn sync(mut self) -> Result<(), RecoveryError> {
        for file in std::mem::take(&mut self.touched) {
            if !self.sync_all {
                self.disk.sync(file).map_err(at("syncing a segment"))?;
            }
            self.disk.close(file);
        }
        if self.sync_all {
            return self.disk.sync_fs().map_err(at("syncing the file system"));
        }
        self.dirs.sort();
        self.dirs.dedup();
        if !self.options.mutations.skip_dir_sync {
            for dir in &self.dirs {
                self.disk.sync_dir(dir).map_err(at(dir))?;
            }
        }
        Ok(())
    }
}
