//! Loading and writing checkpoints with blocking I/O.

use std::collections::HashMap;

use crate::buf::{AlignedBuf, BLOCK, BufPool, round_up};
use crate::disk::{Disk, DiskError, OpenMode};
use crate::id::{FrameSeq, PartitionKey};
use crate::store::{
    CHECKPOINT_VERSION, CheckpointHeader, CheckpointReader, CheckpointWriter, OwnedRecord,
    PartitionRecord, WRITE_MAX, checkpoint_path, merged_path,
};

use super::{PartitionState, RecoveryError, RunInfo, at};

/// A checkpoint as read: its header and its partitions.
pub(super) struct Loaded {
    pub(super) header: CheckpointHeader,
    pub(super) records: HashMap<PartitionKey, OwnedRecord>,
}

/// The merged checkpoint of the newest run, if there is one.
///
/// Both slots are synced before they are believed: a start that was killed may have left one in the system's memory
/// alone, and this start is about to overwrite the other.
pub(super) fn load_merged(disk: &mut dyn Disk) -> Result<Option<Loaded>, RecoveryError> {
    let mut newest: Option<Loaded> = None;
    for slot in 0..2 {
        let path = merged_path(slot);
        match disk.open(&path, OpenMode::ReadDirect) {
            Ok(file) => {
                disk.sync(file).map_err(at(&path))?;
                disk.close(file);
            }
            Err(DiskError::NOT_FOUND) => continue,
            Err(error) => return Err(at(&path)(error)),
        }
        if let Some(loaded) = load(disk, &merged_path(slot))?
            && loaded.header.scope() == CheckpointHeader::MERGED
            && newest
                .as_ref()
                .is_none_or(|n| n.header.run() < loaded.header.run())
        {
            newest = Some(loaded);
        }
    }
    Ok(newest)
}

/// A shard's newest checkpoint of `run`, if it has written one.
pub(super) fn load_shard(
    disk: &mut dyn Disk,
    shard: u32,
    run: RunInfo,
) -> Result<Option<Loaded>, RecoveryError> {
    let mut newest: Option<Loaded> = None;
    for slot in 0..2 {
        if let Some(loaded) = load(disk, &checkpoint_path(shard, slot))?
            && loaded.header.scope() == shard
            && loaded.header.run() == run.run
            && loaded.header.dir_id() == run.dir_id
            && newest
                .as_ref()
                .is_none_or(|n| n.header.generation() < loaded.header.generation())
        {
            newest = Some(loaded);
        }
    }
    Ok(newest)
}

/// One slot, if it holds a whole checkpoint. One that was being written when the power went is none.
fn load(disk: &mut dyn Disk, path: &str) -> Result<Option<Loaded>, RecoveryError> {
    let file = match disk.open(path, OpenMode::ReadDirect) {
        Ok(file) => file,
        Err(DiskError::NOT_FOUND) => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let mut block = AlignedBuf::zeroed(BLOCK);
    let mut loaded = None;
    let read = disk.read_at(file, 0, &mut block).map_err(at(path))?;
    if let Some(version) = CheckpointHeader::foreign_version(&block) {
        return Err(RecoveryError::Format(format!(
            "{path} has version {version} of the checkpoint format, this is version {CHECKPOINT_VERSION}: open the data \
             directory with the release that wrote it, and copy its topics"
        )));
    }
    if read == BLOCK
        && let Some(header) = CheckpointHeader::read(&block)
    {
        let size = disk.size(file).map_err(at(path))?;
        if header.body_len() <= size.saturating_sub(BLOCK as u64) {
            let len = header.body_len() as usize;
            let mut body = AlignedBuf::zeroed(round_up(len));
            let read = disk
                .read_at(file, BLOCK as u64, &mut body)
                .map_err(at(path))?;
            body.set_len(len.min(read));
            if let Ok(reader) = CheckpointReader::new(&header, &body) {
                loaded = Some(Loaded {
                    header,
                    records: records(reader, path)?,
                });
            }
        }
    }
    disk.close(file);
    Ok(loaded)
}

fn records(
    mut reader: CheckpointReader<'_>,
    path: &str,
) -> Result<HashMap<PartitionKey, OwnedRecord>, RecoveryError> {
    let mut records = HashMap::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.insert(record.key, record),
            Ok(None) => return Ok(records),
            Err(error) => {
                return Err(RecoveryError::Format(format!(
                    "{path}: {error}; another version wrote it"
                )));
            }
        };
    }
}

/// Writes the merged checkpoint that starts `run`, durably. Once it is, journals and checkpoints of earlier runs
/// no longer count, and the merged checkpoint of the run before is struck out: should this one be damaged one day,
/// the next start must not take the older one for the newest.
pub(super) fn write_merged(
    disk: &mut dyn Disk,
    run: RunInfo,
    shards: u32,
    partitions: &[PartitionState],
) -> Result<(), RecoveryError> {
    let header = CheckpointHeader::new(
        run.dir_id,
        CheckpointHeader::MERGED,
        run.run,
        shards,
        run.leader_epoch,
    );
    let mut writer = CheckpointWriter::new(
        header.with(1, FrameSeq(0), false),
        BufPool::new(WRITE_MAX, 1),
    );
    let mut pieces = Vec::new();
    for state in partitions {
        let record = PartitionRecord {
            key: state.meta.key,
            log_start: state.log_start,
            log: &state.log,
            epochs: &state.epochs,
            producers: &state.producers,
            durable_end: i64::MAX,
        };
        writer.push(&record, &mut pieces);
    }
    writer.finish(&mut pieces);
    let path = merged_path(run.run % 2);
    let file = disk.open(&path, OpenMode::WriteDirect).map_err(at(&path))?;
    for (offset, piece) in pieces {
        disk.write_at(file, offset, &piece).map_err(at(&path))?;
    }
    if let Err(error) = disk.sync(file) {
        // It may be in the system's memory alone, where a start after this one would read it and believe it. Should
        // this fail, too, there is nothing left to do.
        let _ = disk.write_at(file, 0, &AlignedBuf::zeroed(BLOCK));
        return Err(at(&path)(error));
    }
    disk.close(file);
    disk.sync_dir("").map_err(at("data directory"))?;
    strike_out(disk, &merged_path((run.run + 1) % 2))
}

/// Makes a merged checkpoint of an earlier run unreadable, durably.
fn strike_out(disk: &mut dyn Disk, path: &str) -> Result<(), RecoveryError> {
    let file = match disk.open(path, OpenMode::ReadDirect) {
        Ok(file) => file,
        Err(DiskError::NOT_FOUND) => return Ok(()),
        Err(error) => return Err(at(path)(error)),
    };
    disk.close(file);
    let file = disk.open(path, OpenMode::WriteDirect).map_err(at(path))?;
    disk.write_at(file, 0, &AlignedBuf::zeroed(BLOCK))
        .map_err(at(path))?;
    disk.sync(file).map_err(at(path))?;
    disk.close(file);
    Ok(())
}
