//! From what a crash left to partitions that can be served. Blocking, before any shard runs, on a
//! [`Disk`](crate::disk::Disk): the real one, or the simulator's, which may crash in the middle.

mod checkpoints;
mod journals;
mod replay;

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use crate::core::{LogConfig, Mutations};
use crate::disk::{Disk, DiskError, OpenMode};
use crate::id::{FrameSeq, PartitionKey};
use crate::store::{
    CheckpointHeader, Epochs, OwnedRecord, Producers, Segment, SegmentName, StoredLog, TOPICS,
    checkpoint_path, journal_dir, journal_file_parse, partition_dir, reserve_path, shard_dir,
};

use checkpoints::{load_merged, load_shard, write_merged};
use journals::ShardJournal;
use replay::Replay;

/// A partition the catalog knows; what is on disk of any other is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Its key.
    pub key: PartitionKey,
    /// The topic's name.
    pub topic_name: String,
    /// Its settings.
    pub config: LogConfig,
}

/// What identifies this run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInfo {
    /// Counts the starts of this data directory from 1; part of every journal file's incarnation.
    pub run: u32,
    /// Leader epoch of this run: rises with each unclean start.
    pub leader_epoch: i32,
    /// The data directory's own id; journal files and checkpoints of another directory are refused.
    pub dir_id: [u8; 16],
}

/// One partition as recovery found it, ready for a [`Core`](crate::core::Core).
#[derive(Debug)]
pub struct PartitionState {
    /// What the catalog says.
    pub meta: PartitionMeta,
    /// First offset that can be read.
    pub log_start: i64,
    /// What the files hold: everything, after recovery.
    pub log: StoredLog,
    /// Leader epochs.
    pub epochs: Epochs,
    /// Idempotent producers.
    pub producers: Producers,
}

/// What recovery found and did.
#[derive(Debug)]
pub struct Recovered {
    /// Identifies the run.
    pub run: RunInfo,
    /// Every partition of the catalog.
    pub partitions: Vec<PartitionState>,
    /// The last run ended without a clean shutdown.
    pub unclean: bool,
    /// Journal frames replayed.
    pub frames: u64,
    /// Bytes of batches replayed from the journal.
    pub replayed_bytes: u64,
    /// Journal files that can be used again: shard and number.
    existing: Vec<(u32, u32)>,
}

impl Recovered {
    /// Numbers of the journal files of `shard` that are there already, for its
    /// [`CoreConfig`](crate::core::CoreConfig).
    #[must_use]
    pub fn existing_journals(&self, shard: u32) -> Vec<u32> {
        self.existing
            .iter()
            .filter(|(s, _)| *s == shard)
            .map(|&(_, number)| number)
            .collect()
    }
}

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{what}: {error}")]
    Disk {
        /// What was being done.
        what: String,
        /// What the system says.
        error: DiskError,
    },
    /// Data that had been acknowledged is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The directory belongs to something else or to another version.
    #[error("{0}")]
    Format(String),
}

/// Settings of a recovery.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryOptions {
    /// Shards of the run that begins.
    pub shards: u32,
    /// Size of the run's journal files, from
    /// [`CoreConfig::journal_file_len`](crate::core::CoreConfig::journal_file_len).
    pub journal_file_len: u64,
    /// Id of the data directory should it be a new one; random.
    pub new_dir_id: [u8; 16],
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Wrong on purpose, for tests.
    pub mutations: Mutations,
}

/// Names what was being done when the disk failed.
fn at(what: &str) -> impl FnOnce(DiskError) -> RecoveryError + '_ {
    move |error| RecoveryError::Disk {
        what: what.to_owned(),
        error,
    }
}

/// Opens a data directory: reads checkpoints and journals, writes what the journals hold into segments, and
/// records the merged state durably, so that any number of shards can start from it. A crash anywhere in it
/// leaves a directory that recovers to the same.
///
/// # Errors
/// [`RecoveryError`]; nothing acknowledged is lost by failing.
pub fn recover(
    disk: &mut dyn Disk,
    catalog: &[PartitionMeta],
    options: RecoveryOptions,
) -> Result<Recovered, RecoveryError> {
    disk.create_dir(TOPICS).map_err(at(TOPICS))?;
    disk.sync_dir("").map_err(at("data directory"))?;
    let merged = load_merged(disk)?;
    if merged.is_none() {
        refuse_orphans(disk)?;
    }
    free_reserves(disk)?;
    let last = merged.as_ref().map(|m| (m.header, run_of(&m.header)));
    let mut records = merged.map(|m| m.records).unwrap_or_default();
    let mut journals = Vec::new();
    let (mut unclean, mut frames) = (false, 0);
    if let Some((header, run)) = last {
        for shard in 0..header.shards() {
            let checkpoint = load_shard(disk, shard, run)?;
            let cut = checkpoint.as_ref().map_or(FrameSeq(0), |c| c.header.cut());
            let generation = checkpoint.as_ref().map_or(0, |c| c.header.generation());
            unclean |= !checkpoint.as_ref().is_some_and(|c| c.header.is_clean());
            if let Some(checkpoint) = checkpoint {
                records.extend(checkpoint.records);
            }
            let journal = ShardJournal::read(disk, shard, run, cut, &options)?;
            refuse_older(shard, generation, journal.checkpoint())?;
            frames += journal.frame_count();
            journals.push(journal);
        }
    }
    let run = match last {
        None => RunInfo {
            run: 1,
            leader_epoch: 0,
            dir_id: options.new_dir_id,
        },
        Some((_, last)) => RunInfo {
            run: last.run + 1,
            leader_epoch: last.leader_epoch + i32::from(unclean),
            dir_id: last.dir_id,
        },
    };
    let mut states = states(catalog, records);
    let mut replay = Replay::new(disk, &options);
    let mut replayed_bytes = 0;
    for journal in &journals {
        replayed_bytes += replay.shard(journal, &mut states)?;
    }
    refuse_short(&states)?;
    replay.sync()?;
    drop(journals);
    let mut partitions: Vec<_> = states.into_values().map(|(state, _)| state).collect();
    partitions.sort_by_key(|state| state.meta.key);
    write_merged(disk, run, options.shards, &partitions)?;
    let existing = tidy(disk, &partitions, &options)?;
    Ok(Recovered {
        run,
        partitions,
        unclean,
        frames,
        replayed_bytes,
        existing,
    })
}

fn run_of(header: &CheckpointHeader) -> RunInfo {
    RunInfo {
        run: header.run(),
        leader_epoch: header.leader_epoch(),
        dir_id: header.dir_id(),
    }
}

/// What shards kept in reserve is for what their journals hold, and that is written now.
fn free_reserves(disk: &mut dyn Disk) -> Result<(), RecoveryError> {
    for (name, _) in disk.list("").map_err(at("data directory"))? {
        let shard = name.strip_prefix("shard-").map(str::parse::<u32>);
        if let Some(Ok(shard)) = shard {
            let path = reserve_path(shard);
            disk.unlink(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Without a checkpoint a directory must be new: one that has shards has lost its checkpoint.
fn refuse_orphans(disk: &mut dyn Disk) -> Result<(), RecoveryError> {
    let names = disk.list("").map_err(at("data directory"))?;
    match names.iter().find(|(name, _)| name.starts_with("shard-")) {
        Some((name, _)) => Err(RecoveryError::Damaged(format!(
            "the data directory has {name} but neither checkpoint-0 nor checkpoint-1 is intact: restore them from a backup"
        ))),
        None => Ok(()),
    }
}

/// The partitions of the catalog, each with the offset up to which its producers are known.
fn states(
    catalog: &[PartitionMeta],
    mut records: HashMap<PartitionKey, OwnedRecord>,
) -> HashMap<PartitionKey, (PartitionState, i64)> {
    let state = |meta: &PartitionMeta| {
        let record = records.remove(&meta.key);
        let (log_start, log, epochs, producers, end) = match record {
            Some(r) => (r.log_start, r.log, r.epochs, r.producers, r.durable_end),
            None => (
                0,
                StoredLog::default(),
                Epochs::default(),
                Producers::default(),
                0,
            ),
        };
        let end = if end == i64::MAX {
            log.next_offset().unwrap_or(log_start)
        } else {
            end
        };
        (
            meta.key,
            (
                PartitionState {
                    meta: meta.clone(),
                    log_start,
                    log,
                    epochs,
                    producers,
                },
                end,
            ),
        )
    };
    catalog.iter().map(state).collect()
}

/// An older checkpoint knows less than was promised: segments that retention has removed since, and records that a
/// user has deleted, would be back.
fn refuse_older(shard: u32, found: u64, vouched: u64) -> Result<(), RecoveryError> {
    if found >= vouched {
        return Ok(());
    }
    Err(RecoveryError::Damaged(format!(
        "{}, {}: generation {vouched} had been written, and {} is damaged; nothing was changed: restore the data \
         directory from a backup",
        checkpoint_path(shard, 0),
        checkpoint_path(shard, 1),
        match found {
            0 => "each of them".to_owned(),
            found => format!("the one that is newer than generation {found}"),
        }
    )))
}

/// A checkpoint knows producers up to an offset that was durable. A log that ends before it has lost batches, and
/// sent again they would be taken for duplicates.
fn refuse_short(
    states: &HashMap<PartitionKey, (PartitionState, i64)>,
) -> Result<(), RecoveryError> {
    for (key, (state, known)) in states {
        let end = state.log.next_offset().unwrap_or(state.log_start);
        if end < *known {
            return Err(RecoveryError::Damaged(format!(
                "{}-{}: the checkpoint knows of offset {}, and the journal ends at {end}: a frame that had been \
                 acknowledged is damaged; restore the data directory from a backup",
                state.meta.topic_name,
                key.partition,
                known - 1
            )));
        }
    }
    Ok(())
}

/// After the switch to the new run: directories for its shards, and nothing of deleted topics or other layouts.
fn tidy(
    disk: &mut dyn Disk,
    partitions: &[PartitionState],
    options: &RecoveryOptions,
) -> Result<Vec<(u32, u32)>, RecoveryError> {
    let known: HashMap<String, &PartitionState> = partitions
        .iter()
        .map(|p| (p.meta.key.dir_name(&p.meta.topic_name), p))
        .collect();
    for (name, _) in disk.list(TOPICS).map_err(at(TOPICS))? {
        let path = partition_dir(&name);
        match known.get(&name) {
            Some(state) => remove_unrecorded(disk, &path, state)?,
            None => disk.remove_dir(&path).map_err(at(&path))?,
        }
    }
    for (name, _) in disk.list("").map_err(at("data directory"))? {
        let shard = name
            .strip_prefix("shard-")
            .and_then(|number| number.parse::<u32>().ok());
        if shard.is_some_and(|shard| shard >= options.shards) {
            disk.remove_dir(&name).map_err(at(&name))?;
        }
    }
    let mut existing = Vec::new();
    for shard in 0..options.shards {
        for dir in [shard_dir(shard), journal_dir(shard)] {
            disk.create_dir(&dir).map_err(at(&dir))?;
        }
        disk.sync_dir(&shard_dir(shard))
            .map_err(at(&shard_dir(shard)))?;
        existing.extend(
            journal_files(disk, shard, options.journal_file_len)?
                .into_iter()
                .map(|n| (shard, n)),
        );
    }
    disk.sync_dir("").map_err(at("data directory"))?;
    Ok(existing)
}

/// Removes the segments in `dir` that are not part of the partition's log: those that retention had dropped or compaction
/// replaced and that a crash has brought back (an unlink is volatile, too), those that a compaction had not finished, and
/// those of a replay whose frames a second crash took away (a journal need not be durable to be replayed).
fn remove_unrecorded(
    disk: &mut dyn Disk,
    dir: &str,
    state: &PartitionState,
) -> Result<(), RecoveryError> {
    let kept: HashSet<SegmentName> = state.log.segments.iter().map(Segment::name).collect();
    for (name, _) in disk.list(dir).map_err(at(dir))? {
        if SegmentName::parse(&name).is_some_and(|name| !kept.contains(&name)) {
            let path = format!("{dir}/{name}");
            disk.unlink(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Whole journal files of the wanted size, numbered from 0 without a gap; others are removed.
fn journal_files(disk: &mut dyn Disk, shard: u32, len: u64) -> Result<Vec<u32>, RecoveryError> {
    let dir = journal_dir(shard);
    let mut whole = Vec::new();
    let mut others = Vec::new();
    for (name, _) in disk.list(&dir).map_err(at(&dir))? {
        let path = format!("{dir}/{name}");
        let size = match disk.open(&path, OpenMode::ReadDirect) {
            Ok(file) => {
                let size = disk.size(file).map_err(at(&path))?;
                disk.close(file);
                size
            }
            Err(error) => return Err(at(&path)(error)),
        };
        match journal_file_parse(&name) {
            Some((number, bytes)) if bytes == len && size == len => whole.push((number, path)),
            _ => others.push(path),
        }
    }
    whole.sort();
    let gap = whole
        .iter()
        .enumerate()
        .position(|(at, (number, _))| at as u32 != *number);
    let kept = gap.unwrap_or(whole.len());
    others.extend(whole.drain(kept..).map(|(_, path)| path));
    for path in others {
        disk.unlink(&path).map_err(at(&path))?;
    }
    disk.sync_dir(&dir).map_err(at(&dir))?;
    Ok(whole.into_iter().map(|(number, _)| number).collect())
}
