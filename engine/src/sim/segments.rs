//! After a clean stop: what lies in the partitions' directories must be Kafka's format, and the model's bytes.

use super::model::{Entry, PartitionModel};
use super::world::World;
use crate::batch::BatchHeader;
use crate::buf::round_down;
use crate::disk::EntryKind;

impl World {
    /// Parses every segment file of the catalog's partitions and holds it, and its indexes, against the model.
    pub(super) fn check_segments(&mut self) {
        for (key, meta) in &self.catalog {
            let dir = format!("topics/{}", key.dir_name(&meta.topic_name));
            let Some(model) = self.models.get(key) else {
                continue;
            };
            if model.compacts {
                self.check_compacted_segments(model, &dir);
                continue;
            }
            // A partition that never stored a whole block has no directory.
            let Ok(names) = self.disk.tree.list(&dir) else {
                continue;
            };
            let mut bases: Vec<i64> = names
                .iter()
                .filter(|(_, kind)| *kind == EntryKind::File)
                .filter_map(|(name, _)| name.strip_suffix(".log")?.parse().ok())
                // The removal of what lies below may have been undone; nobody reads it.
                .filter(|&base: &i64| base >= model.log_start)
                .collect();
            bases.sort_unstable();
            for (i, &base) in bases.iter().enumerate() {
                let next = bases.get(i + 1).copied();
                let disturbed = self.summary.crashes + self.disk.failed_changes > 0;
                let unsealed = next.is_none() && disturbed;
                let read = |ext: &str| self.disk.contents(&format!("{dir}/{base:020}.{ext}"));
                let log = read("log").unwrap_or_default();
                let entries = model.check_segment(base, next, &log, unsealed);
                // Nobody reads the index files of a segment that is not sealed.
                if unsealed {
                    continue;
                }
                check_index(base, entries, &read("index").unwrap_or_default());
                check_time_index(base, entries, &read("timeindex").unwrap_or_default());
            }
        }
    }
}

impl PartitionModel {
    /// A segment holds the model's batches from its base offset on: all of them up to the next segment, or, in
    /// the last one, the whole blocks of them.
    /// A seal that failed or was cut short has left an index and something in the last block, which later batches or
    /// the next seal write anew and nobody reads: allowed where `unsealed` says that the segment may have seen one.
    fn check_segment(&self, base: i64, next: Option<i64>, log: &[u8], unsealed: bool) -> &[Entry] {
        let first = self.entry_at(base);
        let end = next.map_or(self.entries.len(), |next| self.entry_at(next));
        let entries = &self.entries[first..end];
        let sure = if unsealed {
            round_down(log.len().saturating_sub(1))
        } else {
            log.len()
        };
        let log = &log[..sure];
        let mut at = 0;
        for entry in entries {
            assert!(
                entry.base_offset >= base,
                "invariant: segment {base} of {:?} begins inside a batch",
                self.key
            );
            let stored = &log[at..log.len().min(at + entry.bytes.len())];
            assert!(
                stored == &entry.bytes[..stored.len()],
                "invariant: segment {base} of {:?} differs at byte {at}",
                self.key
            );
            let whole = stored.len() == entry.bytes.len();
            assert!(
                whole || next.is_none(),
                "invariant: sealed segment {base} of {:?} is cut at byte {}",
                self.key,
                log.len()
            );
            if whole {
                let checked = BatchHeader::validate(stored);
                assert!(checked.is_ok(), "invariant: {checked:?} at byte {at}");
            }
            at += stored.len();
        }
        assert!(
            at == log.len(),
            "invariant: segment {base} of {:?} has {} bytes behind its last batch",
            self.key,
            log.len() - at
        );
        entries
    }
}

/// Offset index entries: offset relative to the base and position, four bytes each, big-endian.
fn check_index(base: i64, entries: &[Entry], index: &[u8]) {
    assert!(
        index.len().is_multiple_of(8),
        "invariant: index of segment {base} is cut"
    );
    let mut last = (-1, -1);
    for entry in index.chunks_exact(8) {
        let (offset, position) = (be32(&entry[..4]), be32(&entry[4..]));
        assert!(
            offset > last.0 && position > last.1,
            "invariant: index of segment {base} does not rise at {offset}"
        );
        last = (offset, position);
        let mut at = 0;
        let starts_at = |e: &&Entry| {
            let here = at == position;
            at += e.bytes.len() as i64;
            here
        };
        let batch = entries.iter().find(starts_at);
        assert!(
            batch.is_some_and(|e| (e.base_offset..e.end()).contains(&(base + offset))),
            "invariant: index of segment {base}: offset {offset} is not at byte {position}"
        );
    }
}

/// Time index entries: largest time stamp so far, eight bytes, and the offset relative to the base, four.
fn check_time_index(base: i64, entries: &[Entry], index: &[u8]) {
    assert!(
        index.len().is_multiple_of(12),
        "invariant: time index of segment {base} is cut"
    );
    let mut last = (i64::MIN, -1);
    for entry in index.chunks_exact(12) {
        let timestamp = i64::from_be_bytes(entry[..8].try_into().unwrap_or_default());
        let offset = be32(&entry[8..]);
        assert!(
            timestamp > last.0 && offset > last.1,
            "invariant: time index of segment {base} does not rise at {offset}"
        );
        last = (timestamp, offset);
        let until = entries
            .iter()
            .take_while(|e| e.base_offset <= base + offset);
        let largest = until.map(Entry::max_timestamp).max();
        assert_eq!(
            largest,
            Some(timestamp),
            "invariant: time index of segment {base} at offset {offset}"
        );
    }
}

fn be32(bytes: &[u8]) -> i64 {
    i64::from(u32::from_be_bytes(bytes.try_into().unwrap_or_default()))
}
