//! What compaction may do to a log: drop a record when its key has a newer durable one, when it has no key, or when it
//! is a tombstone that has been there for long enough; and nothing else. The rest keeps its offsets and its order.

use std::rc::Rc;

use super::model::{Entry, PartitionModel};
use super::plan::NEVER_MS;
use super::traffic::Kind;
use super::transactions::Fate;
use super::world::{TimeQuery, World};
use crate::batch::header::{ATTR_COMPRESSION, ATTR_LOG_APPEND_TIME};
use crate::batch::{BatchHeader, body};
use crate::compact::Batches;
use crate::core::{FetchSpec, TimedOffset};
use crate::store::{SegmentFile, segment_path};

/// A record as it is read: offset, time stamp, key, value.
type Seen = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

impl PartitionModel {
    /// Notes the keys of the entry at `index`, which is durable and counts.
    pub(super) fn note_keys(&mut self, index: usize) {
        let entry = &self.entries[index];
        for (offset, (key, _)) in (entry.base_offset..).zip(entry.keys.iter()) {
            if let Some(key) = key {
                let newest = self.newest.entry(Rc::clone(key)).or_insert(offset);
                *newest = offset.max(*newest);
            }
        }
    }

    /// Whether compaction may have dropped the entry's record at `at`.
    pub(super) fn may_go(&self, entry: &Entry, at: usize) -> bool {
        let (key, has_value) = &entry.keys[at];
        let offset = entry.base_offset + at as i64;
        let mut settings = self.earlier_configs.iter().chain([&self.config]);
        let mut policies = settings.clone().filter_map(|c| c.compaction);
        if let Kind::Marker { .. } = entry.kind {
            return policies.any(|p| p.delete_retention_ms < NEVER_MS) && self.is_all_to_go(entry);
        }
        match self.fate(entry) {
            Fate::Undecided => return false,
            Fate::Aborted => return policies.next().is_some(),
            Fate::Committed => {}
        }
        let Some(key) = key else {
            return settings.any(|c| c.compaction.is_some());
        };
        let superseded = self.newest.get(key).is_some_and(|&newest| newest > offset);
        superseded && policies.clone().next().is_some()
            || !has_value && policies.any(|p| p.delete_retention_ms < NEVER_MS)
    }

    /// Largest time stamp among the entry's records that must be there.
    pub(super) fn newest_left(&self, entry: &Entry) -> i64 {
        let times = entry.timestamps.iter().enumerate();
        let left = times.filter(|&(at, _)| !self.may_go(entry, at));
        left.map(|(_, &time)| time).max().unwrap_or(i64::MIN)
    }

    /// Holds fetched bytes against the log; returns the offset to go on at. Nothing from `compacted_end` on may differ
    /// from what was written.
    pub(super) fn check_compacted(
        &self,
        spec: &FetchSpec,
        bytes: &[u8],
        (high_watermark, compacted_end): (i64, i64),
    ) -> i64 {
        let mut next = spec.offset;
        let mut batches = Batches::new(bytes);
        let mut count = 0;
        for batch in batches.by_ref() {
            let Ok(batch) = batch else {
                panic!("invariant: {:?} serves {batch:?}", self.key)
            };
            next = self.check_batch(batch, next, compacted_end);
            assert!(
                next <= high_watermark,
                "invariant: fetch at {} passed high watermark {high_watermark}",
                spec.offset
            );
            count += 1;
        }
        assert!(
            bytes.len() <= spec.max_bytes
                || count == 1 && batches.rest().is_empty() && spec.min_one,
            "invariant: {} bytes answer {spec:?}",
            bytes.len()
        );
        assert!(
            batches.rest().is_empty() || count > 0,
            "invariant: the first batch of an answer is cut"
        );
        next
    }

    /// One batch read behind `from`: it is one that was written, or what was left of it, and so is the gap before it.
    fn check_batch(&self, batch: &[u8], from: i64, compacted_end: i64) -> i64 {
        let Some(header) = BatchHeader::read(batch) else {
            panic!("a whole batch has a header")
        };
        let base = header.base_offset.get();
        let at = self.entry_at(base);
        let Some(entry) = self.entries.get(at).filter(|e| e.base_offset == base) else {
            panic!("invariant: {:?} has no batch at {base}", self.key)
        };
        for gone in &self.entries[self.entry_at(from)..at] {
            self.check_gone(gone, &[], from, compacted_end);
        }
        if batch == &entry.bytes[..] {
            return entry.end();
        }
        let (was, is) = (records(&entry.bytes), records(batch));
        let kept: Vec<i64> = is.iter().map(|r| r.0).collect();
        assert!(
            is.iter().all(|r| was.contains(r)) && kept.is_sorted_by(|a, b| a < b),
            "invariant: compaction of {:?} changed records at {base}",
            self.key
        );
        self.check_gone(entry, &kept, base, compacted_end);
        self.check_header(entry, header, &is);
        entry.end()
    }

    /// Every record of the entry from `from` on that is not in `kept` was allowed to go.
    fn check_gone(&self, entry: &Entry, kept: &[i64], from: i64, compacted_end: i64) {
        for (at, offset) in (entry.base_offset..entry.end()).enumerate() {
            assert!(
                offset < from || kept.contains(&offset) || self.may_go(entry, at),
                "invariant: compaction of {:?} dropped offset {offset}, the newest of its key",
                self.key
            );
            assert!(
                offset < from || kept.contains(&offset) || offset < compacted_end,
                "invariant: {:?} has no offset {offset}, and is compacted to {compacted_end}",
                self.key
            );
        }
    }

    fn check_header(&self, entry: &Entry, is: &BatchHeader, left: &[Seen]) {
        let Some(was) = BatchHeader::read(&entry.bytes) else {
            panic!("an entry has a header")
        };
        let identity = |h: &BatchHeader| {
            (
                h.last_offset(),
                h.producer_id.get(),
                h.producer_epoch.get(),
                h.base_sequence.get(),
                h.partition_leader_epoch.get(),
            )
        };
        let codec = |h: &BatchHeader| h.attributes.get() & ATTR_COMPRESSION;
        // What is kept for its producer's sake has the time stamp of what was left before.
        if left.is_empty() {
            assert!(is.max_timestamp.get() <= was.max_timestamp.get());
        }
        let newest = match was.attributes.get() & ATTR_LOG_APPEND_TIME {
            0 => left.iter().map(|r| r.1).max(),
            _ => None,
        };
        assert!(
            identity(was) == identity(is)
                && (codec(was) == codec(is) || left.is_empty())
                && (left.is_empty()
                    || newest.unwrap_or(was.max_timestamp.get()) == is.max_timestamp.get()),
            "invariant: compaction of {:?} made {is:?} of {was:?}",
            self.key
        );
    }

    /// A look-up by time found the first record that is left, or none if none is.
    pub(super) fn check_time(&self, query: &TimeQuery, found: Option<TimedOffset>, log_start: i64) {
        let end = found.map_or(query.high_watermark, |f| f.offset);
        for entry in &self.entries[self.entry_at(log_start)..] {
            for (at, &time) in entry.timestamps.iter().enumerate() {
                let offset = entry.base_offset + at as i64;
                assert!(
                    offset < log_start
                        || offset >= end
                        || time < query.timestamp_ms
                        || self.may_go(entry, at),
                    "invariant: {query:?}: found {found:?}, {offset} is before it"
                );
            }
        }
        let Some(found) = found else { return };
        let entry = self.entries.get(self.entry_at(found.offset));
        let is_there = entry.is_some_and(|entry| {
            let at = (found.offset - entry.base_offset) as usize;
            entry.timestamps.get(at) == Some(&found.timestamp_ms)
                && entry.leader_epoch == found.leader_epoch
        });
        assert!(
            is_there && found.timestamp_ms >= query.timestamp_ms,
            "invariant: {query:?}: there is no {found:?}"
        );
    }
}

fn records(batch: &[u8]) -> Vec<Seen> {
    let Some(header) = BatchHeader::read(batch) else {
        return Vec::new();
    };
    let stamped = header.attributes.get() & ATTR_LOG_APPEND_TIME != 0;
    if header.record_count.get() == 0 {
        return Vec::new();
    }
    let mut scratch = Vec::new();
    let Ok(records) = body(batch, 1 << 30, &mut scratch) else {
        panic!(
            "invariant: a batch at {} cannot be read",
            header.base_offset
        )
    };
    let seen = records.map(|record| {
        let Ok(record) = record else {
            panic!("invariant: {record:?} at {}", header.base_offset)
        };
        let time = if stamped {
            header.max_timestamp.get()
        } else {
            header.base_timestamp.get() + record.timestamp_delta
        };
        (
            header.base_offset.get() + i64::from(record.offset_delta),
            time,
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
        )
    });
    seen.collect()
}

impl World {
    /// Every partition's segments are noted before the shards are gone.
    pub(super) fn note_segments(&mut self) {
        self.segments.clear();
        for (key, model) in self.models.iter().filter(|(_, m)| !m.deleted) {
            let core = &self.shards[model.shard as usize].core;
            self.segments.insert(*key, core.segments(model.part));
        }
    }

    /// Parses the segments of a compacted partition and holds them, and their indexes, against the model.
    pub(super) fn check_compacted_segments(&self, model: &PartitionModel, dir: &str) {
        let names = self.segments.get(&model.key).into_iter().flatten();
        let dir_name = dir.strip_prefix("topics/").unwrap_or(dir);
        // Of the last segment only whole blocks count.
        let count = names.clone().count();
        let mut next = model.log_start;
        for &name in names.take(count.saturating_sub(1)) {
            let read = |file| self.disk.contents(&segment_path(dir_name, name, file));
            let Some(log) = read(SegmentFile::Log) else {
                panic!("invariant: {name:?} of {:?} is not there", model.key)
            };
            let (mut batches, mut starts, mut at) = (Batches::new(&log), Vec::new(), 0);
            for batch in batches.by_ref() {
                let Ok(batch) = batch else {
                    panic!("invariant: {name:?} of {:?}: {batch:?}", model.key)
                };
                if let Some(header) = BatchHeader::read(batch) {
                    starts.push((at, *header));
                    if header.last_offset() >= next {
                        next = model.check_batch(batch, next, i64::MAX);
                    }
                }
                at += batch.len();
            }
            assert!(
                batches.rest().is_empty(),
                "invariant: {name:?} of {:?} ends in {} bytes",
                model.key,
                batches.rest().len()
            );
            let base = name.base_offset;
            check_index(base, &starts, &read(SegmentFile::Index).unwrap_or_default());
            check_time_index(
                base,
                &starts,
                &read(SegmentFile::TimeIndex).unwrap_or_default(),
            );
        }
    }
}

/// Offset index entries point at batches, by their last offsets as Kafka's do.
fn check_index(base: i64, starts: &[(usize, BatchHeader)], index: &[u8]) {
    for entry in index.chunks(8) {
        let [a, b, c, d, e, f, g, h] = *entry else {
            panic!("invariant: index of segment {base} is cut")
        };
        let offset = base + i64::from(u32::from_be_bytes([a, b, c, d]));
        let position = u32::from_be_bytes([e, f, g, h]) as usize;
        let start = starts.binary_search_by_key(&position, |&(at, _)| at);
        assert!(
            start.is_ok_and(|at| starts[at].1.last_offset() == offset),
            "invariant: index of segment {base}: no batch at byte {position} ends with offset {offset}"
        );
    }
}

/// Time index entries tell the largest time stamp so far.
fn check_time_index(base: i64, starts: &[(usize, BatchHeader)], index: &[u8]) {
    for entry in index.chunks(12) {
        let (time, offset) = entry.split_at(8);
        let time = i64::from_be_bytes(time.try_into().unwrap_or_default());
        let offset = base + i64::from(u32::from_be_bytes(offset.try_into().unwrap_or_default()));
        let until = starts.iter().map(|(_, header)| header);
        let until = until.take_while(|header| header.last_offset() <= offset);
        let largest = until.map(|header| header.max_timestamp.get()).max();
        assert_eq!(
            largest,
            Some(time),
            "invariant: time index of segment {base} at offset {offset}"
        );
    }
}
