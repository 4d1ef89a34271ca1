//! Segments against their checkpoint's record: batches, offsets, leader epochs, indexes.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use ringlog_engine::id::PartitionKey;
use ringlog_engine::store::{
    OwnedRecord, Segment, SegmentFile, SegmentName, TOPICS, partition_dir, segment_path,
};
use ringlog_server::catalog::Snapshot;

use super::checkpoints::State;
use super::indexes::Indexes;
use super::names;
use super::report::Report;
use crate::disk::batches::{Batch, Found, batch_at};
use crate::disk::source::Source;
use crate::output::count;

/// What happens to records of a damaged segment.
const SERVES: &str =
    "a start does not read it; a consumer that comes there does, and its checksum fails";
const LOST: &str = "a start does not notice; reading there fails: restore the file from a backup";

/// A partition that is being looked at.
struct Partition<'a> {
    dir: String,
    record: &'a OwnedRecord,
    /// Compaction makes batches and indexes anew: they need not be what they would be without it.
    compacted: bool,
    /// Bytes between index entries, as the topic's settings have it now.
    index_interval: u32,
}

/// Checks every partition of the catalog; without one, every directory by its name.
pub(super) fn check(data: &Path, catalog: Option<&Snapshot>, state: &State, report: &mut Report) {
    let named = partitions(data, catalog);
    let known: BTreeSet<&String> = named.values().map(|(dir, ..)| dir).collect();
    for name in names(&data.join(TOPICS)) {
        if catalog.is_some() && !known.contains(&name) {
            report.note(
                &partition_dir(&name),
                None,
                "belongs to no topic of the catalog: its topic was deleted",
                "a start removes it",
            );
        }
    }
    let mut keys: Vec<_> = named.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| **key);
    let found: Vec<_> = keys
        .into_iter()
        .filter_map(|(key, (dir, compacted, index_interval))| {
            let record = state.records.get(key)?;
            Some(Partition {
                dir: dir.clone(),
                record,
                compacted: *compacted || record.log.cleaned_end > 0,
                index_interval: *index_interval,
            })
        })
        .collect();
    let live = |p: &Partition<'_>| -> u64 { live(p.record).map(Segment::file_bytes).sum() };
    report.expect(report.checked.bytes + found.iter().map(live).sum::<u64>());
    for partition in found {
        check_partition(data, &partition, report);
    }
}

/// Directory of every partition, whether it is compacted, and the bytes between its index entries.
fn partitions(
    data: &Path,
    catalog: Option<&Snapshot>,
) -> HashMap<PartitionKey, (String, bool, u32)> {
    match catalog {
        Some(catalog) => {
            let of_topic = |topic: &&std::sync::Arc<ringlog_server::catalog::Topic>| {
                let topic = (*topic).clone();
                let policy = topic.configs.get("cleanup.policy");
                let compacted = policy.is_some_and(|policy| policy.contains("compact"));
                let keys: Vec<_> = topic.keys(0).collect();
                let interval = topic.log.index_interval_bytes;
                keys.into_iter()
                    .map(move |key| (key, (key.dir_name(&topic.name), compacted, interval)))
            };
            catalog.topics().iter().flat_map(of_topic).collect()
        }
        // Without the catalog nobody knows what is compacted: what only that explains is let pass.
        None => names(&data.join(TOPICS))
            .into_iter()
            .filter_map(|name| Some((key_of(&name)?, (name, true, u32::MAX))))
            .collect(),
    }
}

/// The partition that a directory belongs to, by its name.
fn key_of(name: &str) -> Option<PartitionKey> {
    let (rest, id) = name.rsplit_once('.')?;
    let (_, partition) = rest.rsplit_once('-')?;
    Some(PartitionKey {
        topic: ringlog_engine::id::TopicId::parse(id)?,
        partition: partition.parse().ok()?,
    })
}

/// Segments that a reader may come to.
fn live(record: &OwnedRecord) -> impl Iterator<Item = &Segment> {
    let start = record.log_start;
    record
        .log
        .segments
        .iter()
        .filter(move |s| !s.sealed || s.next_offset > start)
}

fn check_partition(data: &Path, partition: &Partition<'_>, report: &mut Report) {
    let record = partition.record;
    let mut next = None;
    for segment in live(record) {
        if let Some(next) = next.filter(|&next| segment.base_offset != next) {
            report.fault(
                &partition_dir(&partition.dir),
                None,
                format!(
                    "segment {} follows one that ends at offset {next}",
                    segment.base_offset
                ),
                "a start does not notice; reading in between fails",
            );
        }
        next = Some(segment.next_offset);
        check_segment(data, partition, segment, report);
    }
    let known: BTreeSet<SegmentName> = live(record).map(Segment::name).collect();
    let end = record.log.next_offset().unwrap_or(record.log_start);
    let (mut begun, mut stale) = (0, 0);
    for name in names(&data.join(partition_dir(&partition.dir))) {
        match SegmentName::parse(&name) {
            Some(segment) if known.contains(&segment) => {}
            Some(segment) if segment.base_offset >= end => begun += 1,
            Some(_) => stale += 1,
            None => report.note(
                &format!("{}/{name}", partition_dir(&partition.dir)),
                None,
                "is nothing that ringlog makes",
                "a start passes over it",
            ),
        }
    }
    note_leftovers(&partition_dir(&partition.dir), begun, stale, report);
}

/// Files that a kill leaves behind, a note for a partition.
fn note_leftovers(dir: &str, begun: u64, stale: u64, report: &mut Report) {
    if begun > 0 {
        let what = format!(
            "holds {} of segments begun after the last checkpoint",
            count(begun, "file")
        );
        let start = "a start writes them anew from the journal";
        report.note(dir, None, what, start);
    }
    if stale > 0 {
        let what = format!(
            "holds {} below the log's start, or replaced since",
            count(stale, "file")
        );
        report.note(dir, None, what, "a start removes them");
    }
}

fn check_segment(data: &Path, partition: &Partition<'_>, segment: &Segment, report: &mut Report) {
    let path = segment_path(&partition.dir, segment.name(), SegmentFile::Log);
    let wanted = segment.file_bytes();
    let found = match fs::metadata(data.join(&path)) {
        Ok(meta) => meta.len(),
        // Nothing of it has filled a block yet.
        Err(_) if wanted == 0 => 0,
        Err(error) => {
            let what = format!("{error}; the checkpoint knows {wanted} bytes of it");
            return report.fault(&path, None, what, LOST);
        }
    };
    report.checked.segments += 1;
    if found < wanted {
        let what = format!("has {found} bytes, the checkpoint knows {wanted}: its end is lost");
        report.fault(&path, Some(found), what, LOST);
    } else if segment.sealed && found > wanted {
        let what =
            format!("has {found} bytes, {wanted} when it was sealed: what follows is none of it");
        report.fault(
            &path,
            Some(wanted),
            what,
            "a start does not notice; consumers never come there",
        );
    }
    let odd = partition.record.log.odd.as_deref().unwrap_or_default();
    let odd = if segment.sealed { &[] } else { odd };
    let Some(source) = open(data, &path, wanted, odd, report) else {
        return;
    };
    let mut walk = Walk {
        partition,
        segment,
        path,
        next: segment.base_offset,
        epoch: i32::MIN,
        index: if segment.sealed {
            Indexes::open(
                data,
                &partition.dir,
                partition.index_interval,
                segment,
                report,
            )
        } else {
            None
        },
        max_timestamp: i64::MIN,
    };
    let complete = walk.read(source, found, report);
    if complete {
        walk.check_end(report);
    }
}

fn open(data: &Path, path: &str, wanted: u64, odd: &[u8], report: &mut Report) -> Option<Source> {
    if wanted == 0 && !data.join(path).exists() {
        // All of it is in the checkpoint. Any open file serves for its bytes, of which none are taken.
        return Source::open(&data.join("catalog"))
            .ok()
            .map(|source| source.with_tail(0, odd));
    }
    match Source::open(&data.join(path)) {
        Ok(source) => Some(source.with_tail(wanted, odd)),
        Err(error) => {
            report.fault(path, None, error.to_string(), LOST);
            None
        }
    }
}

/// A segment from its beginning to its end.
struct Walk<'a> {
    partition: &'a Partition<'a>,
    segment: &'a Segment,
    path: String,
    /// The offset that the next batch has.
    next: i64,
    epoch: i32,
    index: Option<Indexes>,
    max_timestamp: i64,
}

impl Walk<'_> {
    /// Reads every batch; whether it came to the end.
    fn read(&mut self, mut source: Source, found: u64, report: &mut Report) -> bool {
        let mut at = 0;
        let mut told = 0;
        while let Some(item) = batch_at(&mut source, at) {
            let batch = match item {
                Found::Batch(batch) => batch,
                Found::Unreadable { at, bytes, why } => {
                    if let Some(error) = source.error() {
                        report.fault(&self.path, Some(at), error.to_string(), SERVES);
                    } else if found >= self.segment.file_bytes() {
                        report.fault(
                            &self.path,
                            Some(at),
                            format!("{why}; the batch of offset {} and the {bytes} bytes from there on cannot be read", self.next),
                            SERVES,
                        );
                    }
                    report.read(&self.path, at - told);
                    return false;
                }
            };
            report.checked.batches += 1;
            self.batch(&batch, report);
            at += batch.len();
            if at - told > 16 << 20 {
                report.read(&self.path, at - told);
                told = at;
            }
        }
        report.read(&self.path, at - told);
        true
    }

    fn batch(&mut self, batch: &Batch, report: &mut Report) {
        let base = batch.header.base_offset.get();
        if !batch.is_intact() {
            report.fault(
                &self.path,
                Some(batch.at),
                format!("the checksum of the batch of offset {base} does not match its bytes"),
                SERVES,
            );
        }
        // Compaction leaves gaps; a wrong offset that is too large shows at the next batch, or at the end.
        if base < self.next {
            report.fault(
                &self.path,
                Some(batch.at),
                format!(
                    "the batch says offset {base}, the one before it ends at {}",
                    self.next
                ),
                SERVES,
            );
        }
        self.check_epoch(batch, report);
        if let Some(index) = &mut self.index {
            index.batch(batch, self.segment.base_offset, report);
        }
        self.max_timestamp = self.max_timestamp.max(batch.header.max_timestamp.get());
        if let Some(index) = &mut self.index {
            index.behind(batch, self.segment.base_offset, self.max_timestamp, report);
            index.note(batch);
        }
        // After a wrong offset the right one goes on from where it should have been.
        let records = batch.next_offset().saturating_sub(base).max(1);
        self.next = self.next.max(base).saturating_add(records);
    }

    /// The leader epoch lies outside the checksum; the checkpoint knows which it must be.
    fn check_epoch(&mut self, batch: &Batch, report: &mut Report) {
        let found = batch.header.partition_leader_epoch.get();
        let entries = self.partition.record.epochs.entries();
        let known = entries
            .iter()
            .rev()
            .find(|&&(_, start)| start <= self.next)
            .map(|&(epoch, _)| epoch);
        let wrong = match known {
            Some(epoch) if !self.partition.compacted => found != epoch,
            Some(epoch) => found > epoch || found < self.epoch,
            None => found < self.epoch,
        };
        if wrong {
            report.fault(
                &self.path,
                Some(batch.at + 12),
                format!(
                    "the batch of offset {} says leader epoch {found}, {} is due",
                    self.next,
                    known.unwrap_or(self.epoch)
                ),
                "a start does not notice; consumers may take it for a change of leaders",
            );
        }
        self.epoch = self.epoch.max(found.min(known.unwrap_or(found)));
    }

    fn check_end(&mut self, report: &mut Report) {
        let segment = self.segment;
        if self.next > segment.next_offset {
            report.fault(
                &self.path,
                Some(segment.bytes),
                format!(
                    "it ends at offset {}, the checkpoint says {}",
                    self.next, segment.next_offset
                ),
                LOST,
            );
        }
        if let Some(index) = &mut self.index {
            index.end(report);
            if !self.partition.compacted {
                index.check_cut(report);
            }
        }
    }
}
