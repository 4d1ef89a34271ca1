//! The merged checkpoint that began the last run, and those of its shards.

use std::collections::HashMap;
use std::path::Path;

use ringlog_engine::id::PartitionKey;
use ringlog_engine::store::{
    CHECKPOINT_VERSION, CheckpointHeader, OwnedRecord, checkpoint_path, merged_path,
};

use super::names;
use super::report::Report;
use crate::disk::checkpoint::{Slot, records, slot};
use crate::disk::source::Source;

/// What the checkpoints say.
pub(super) struct State {
    /// Of the newest merged checkpoint.
    pub(super) merged: CheckpointHeader,
    /// Of each shard, with the slots that are not whole.
    pub(super) shards: Vec<Shard>,
    /// Of every partition, as of its newest checkpoint.
    pub(super) records: HashMap<PartitionKey, OwnedRecord>,
}

/// A shard's checkpoints.
pub(super) struct Shard {
    pub(super) newest: Option<CheckpointHeader>,
    pub(super) broken: Vec<String>,
}

impl Shard {
    /// The newest journal frame that need not be read.
    pub(super) fn cut(&self) -> u64 {
        self.newest.map_or(0, |header| header.cut().0)
    }
}

/// Reads them; `None` if there is no run to look at.
pub(super) fn check(data: &Path, report: &mut Report) -> Option<State> {
    let mut merged: Option<(String, CheckpointHeader)> = None;
    let mut broken = Vec::new();
    for number in 0..2 {
        let path = merged_path(number);
        match look(data, &path, report) {
            Some(Slot::Whole(header)) if header.scope() == CheckpointHeader::MERGED => {
                if merged
                    .as_ref()
                    .is_none_or(|(_, newest)| newest.run() < header.run())
                {
                    merged = Some((path, header));
                }
            }
            Some(Slot::Whole(_)) => report.fault(
                &path,
                Some(0),
                "is the checkpoint of a shard, not of the directory",
                "a start passes over it",
            ),
            Some(Slot::NoHeader | Slot::NotWhole(_)) => broken.push(path),
            Some(Slot::Empty | Slot::Foreign(_)) | None => {}
        }
    }
    let Some((path, header)) = merged else {
        no_merged(data, &broken, report);
        return None;
    };
    for path in broken {
        report.note(
            &path,
            Some(0),
            "is no whole checkpoint: a start was killed while it wrote it, or it is damaged",
            "a start takes the other one, which is whole",
        );
    }
    let mut state = State {
        merged: header,
        shards: Vec::new(),
        records: HashMap::new(),
    };
    take_records(data, &path, &header, &mut state.records, report);
    // A shard is a core: what a damaged number may ask for is bounded.
    for shard in 0..header.shards().min(256) {
        let shard = check_shard(data, shard, &mut state, report);
        state.shards.push(shard);
    }
    Some(state)
}

fn no_merged(data: &Path, broken: &[String], report: &mut Report) {
    let holds_shards = names(data).iter().any(|name| name.starts_with("shard-"));
    for path in broken {
        report.fault(
            path,
            Some(0),
            "is no whole checkpoint, and there is no other: which partitions there are, and what of the journals \
             counts, is lost",
            "a start refuses until it is restored from a backup",
        );
    }
    if broken.is_empty() && holds_shards {
        report.fault(
            "checkpoint-0",
            None,
            "is not there, nor is checkpoint-1, although shards have run",
            "a start refuses until they are restored from a backup",
        );
    }
}

/// A shard's newest checkpoint of the run; its records replace those of the merged one.
fn check_shard(data: &Path, shard: u32, state: &mut State, report: &mut Report) -> Shard {
    let mut newest: Option<(String, CheckpointHeader)> = None;
    let mut broken = Vec::new();
    for number in 0..2 {
        let path = checkpoint_path(shard, number);
        match look(data, &path, report) {
            Some(Slot::Whole(header))
                if header.scope() == shard
                    && header.run() == state.merged.run()
                    && header.dir_id() == state.merged.dir_id() =>
            {
                if newest
                    .as_ref()
                    .is_none_or(|(_, n)| n.generation() < header.generation())
                {
                    newest = Some((path, header));
                }
            }
            Some(Slot::NoHeader | Slot::NotWhole(_)) => broken.push(path),
            // Of an earlier run.
            Some(Slot::Whole(_) | Slot::Empty | Slot::Foreign(_)) | None => {}
        }
    }
    if let Some((path, header)) = &newest {
        take_records(data, path, header, &mut state.records, report);
    }
    Shard {
        newest: newest.map(|(_, header)| header),
        broken,
    }
}

/// What a slot holds; `None` if it is not there.
fn look(data: &Path, path: &str, report: &mut Report) -> Option<Slot> {
    let mut source = match Source::open(&data.join(path)) {
        Ok(source) => source,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            report.fault(path, None, error.to_string(), "a start refuses");
            return None;
        }
    };
    let found = slot(&mut source);
    report.read(path, source.len());
    if let Some(error) = source.error() {
        report.fault(path, None, error.to_string(), "a start refuses");
    }
    match found {
        Slot::Whole(_) => report.checked.checkpoints += 1,
        Slot::Foreign(version) => report.fault(
            path,
            Some(4),
            format!("has version {version} of the format, this program reads version {CHECKPOINT_VERSION}"),
            "a start refuses; the release that wrote it opens it",
        ),
        Slot::Empty | Slot::NoHeader | Slot::NotWhole(_) => {}
    }
    Some(found)
}

fn take_records(
    data: &Path,
    path: &str,
    header: &CheckpointHeader,
    into: &mut HashMap<PartitionKey, OwnedRecord>,
    report: &mut Report,
) {
    let Ok(mut source) = Source::open(&data.join(path)) else {
        return;
    };
    let mut taken = 0u64;
    let stopped = records(&mut source, header, |_, record| {
        taken += 1;
        into.insert(record.key, record);
    });
    if let Some(at) = stopped {
        report.fault(
            path,
            Some(at),
            format!(
                "record {taken} of {} cannot be read, although the checksum holds",
                header.record_count()
            ),
            "a start refuses; another version wrote it",
        );
    }
}
