//! The index files of a sealed segment against its batches.

use std::path::Path;

use ringlog_engine::store::{Segment, SegmentFile, note_batch, segment_path};

use super::report::Report;
use crate::disk::batches::Batch;
use crate::disk::index::{OFFSET_ENTRY, TIME_ENTRY, offset_entry, time_entry};
use crate::disk::source::Source;

/// What happens to look-ups in a damaged index.
const INDEX: &str = "a start does not read it; lookups in it go astray: delete both index files of the segment and restart on a copy, \
     or restore them";

/// The index files of a sealed segment, read beside its batches.
pub(super) struct Indexes {
    offsets: Option<(String, Source)>,
    times: Option<(String, Source)>,
    /// Entries that were met so far.
    offset_entry: u64,
    time_entry: u64,
    made_anew: MadeAnew,
}

/// The index that the server would make of the batches now; none once a batch was wrong.
struct MadeAnew(Option<Segment>);

impl MadeAnew {
    fn note(&mut self, batch: &Batch) {
        let Some(segment) = &mut self.0 else { return };
        let relative = batch
            .header
            .base_offset
            .get()
            .checked_sub(segment.base_offset);
        let in_reach =
            relative.is_some_and(|relative| (0..=i64::from(i32::MAX)).contains(&relative));
        match in_reach && batch.is_intact() {
            true => note_batch(segment, &batch.header),
            false => self.0 = None,
        }
    }
}

impl Indexes {
    /// Those of a segment in `dir`, with an entry each `interval` bytes.
    pub(super) fn open(
        data: &Path,
        dir: &str,
        interval: u32,
        segment: &Segment,
        report: &mut Report,
    ) -> Option<Self> {
        let mut one = |kind, entry_len: u64| {
            let path = segment_path(dir, segment.name(), kind);
            let source = match Source::open(&data.join(&path)) {
                Ok(source) => source,
                Err(error) => {
                    report.fault(&path, None, error.to_string(), INDEX);
                    return None;
                }
            };
            if source.len() % entry_len != 0 {
                let what = format!("has {} bytes, entries have {entry_len}", source.len());
                report.fault(
                    &path,
                    Some(source.len() / entry_len * entry_len),
                    what,
                    INDEX,
                );
            }
            Some((path, source))
        };
        Some(Self {
            offsets: one(SegmentFile::Index, OFFSET_ENTRY as u64),
            times: one(SegmentFile::TimeIndex, TIME_ENTRY as u64),
            offset_entry: 0,
            time_entry: 0,
            made_anew: MadeAnew(Some(Segment::new(segment.base_offset, 0, interval))),
        })
    }

    /// Takes a batch into the index that would be made of all.
    pub(super) fn note(&mut self, batch: &Batch) {
        self.made_anew.note(batch);
    }

    /// Entries of the offset index up to this batch: one that points to it, or one that points nowhere.
    pub(super) fn batch(&mut self, batch: &Batch, segment: i64, report: &mut Report) {
        let Some((path, source)) = &mut self.offsets else {
            return;
        };
        while let Some(entry) = offset_entry(source, self.offset_entry)
            && u64::from(entry.position) <= batch.at
        {
            let offset = segment.saturating_add(i64::from(entry.relative_offset));
            // Earlier builds noted a batch's first offset, which finds it as well.
            let first = batch.header.base_offset.get();
            let is_its = offset == batch.last_offset() || offset == first;
            if u64::from(entry.position) != batch.at || !is_its {
                report.fault(
                    path,
                    Some(self.offset_entry * OFFSET_ENTRY as u64),
                    format!(
                        "an entry says that offset {offset} is at byte {}, where it is not",
                        entry.position
                    ),
                    INDEX,
                );
            }
            report.checked.index_entries += 1;
            self.offset_entry += 1;
        }
    }

    /// Entries of the time index up to this batch's last record: the largest timestamp until then, which it has.
    pub(super) fn behind(
        &mut self,
        batch: &Batch,
        segment: i64,
        max_timestamp: i64,
        report: &mut Report,
    ) {
        let Some((path, source)) = &mut self.times else {
            return;
        };
        while let Some(entry) = time_entry(source, self.time_entry) {
            let offset = segment.saturating_add(i64::from(entry.relative_offset));
            if offset > batch.last_offset() {
                return;
            }
            if offset != batch.last_offset() || entry.timestamp_ms != max_timestamp {
                report.fault(
                    path,
                    Some(self.time_entry * TIME_ENTRY as u64),
                    format!(
                        "an entry says that {} is the largest timestamp up to offset {offset}, which it is not",
                        entry.timestamp_ms
                    ),
                    INDEX,
                );
            }
            report.checked.index_entries += 1;
            self.time_entry += 1;
        }
    }

    /// Entries that point behind the last batch.
    pub(super) fn end(&mut self, report: &mut Report) {
        let rest = [
            (&self.offsets, self.offset_entry, OFFSET_ENTRY as u64),
            (&self.times, self.time_entry, TIME_ENTRY as u64),
        ];
        for (file, met, entry_len) in rest {
            let Some((path, source)) = file else { continue };
            if source.len() / entry_len > met {
                let what = "an entry points behind the segment's end, or is out of order";
                report.fault(path, Some(met * entry_len), what, INDEX);
            }
        }
    }

    /// An index that ends early is good in each entry: it is known by what follows in the one that would be made now.
    pub(super) fn check_cut(&mut self, report: &mut Report) {
        let Some(segment) = &self.made_anew.0 else {
            return;
        };
        let Some(index) = &segment.index else { return };
        let relative = segment
            .max_timestamp_offset
            .saturating_sub(segment.base_offset);
        let times = index.to_time_index((segment.max_timestamp, relative as u32));
        for (file, whole) in [
            (&mut self.offsets, index.to_offset_index()),
            (&mut self.times, times),
        ] {
            let Some((path, source)) = file else { continue };
            let len = source.len();
            if len >= whole.len() as u64 {
                continue;
            }
            if source.bytes(0, len as usize) == Some(&whole[..len as usize]) {
                let what = format!(
                    "ends after {len} bytes of {}: the rest is missing",
                    whole.len()
                );
                report.fault(path, Some(len), what, INDEX);
            }
        }
    }
}
