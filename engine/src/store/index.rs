//! The sparse index of one segment: in memory while the segment grows, in Kafka's two files once it is sealed.

/// Entries kept for one segment at most; past it, every other one is dropped and the interval doubles.
const ENTRIES_MAX: usize = 4096;
/// Bytes of log between entries at least, whatever the topic asks: bounds what checkpoints repeat.
const INTERVAL_MIN: u32 = 4 * 1024;

/// Points at one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Last offset of the batch, relative to the segment's base offset, as in Kafka's index. Earlier builds put the
    /// first one there, which finds the same batches.
    pub relative_offset: u32,
    /// Where the batch starts in the segment, bytes.
    pub position: u32,
    /// Largest timestamp before the batch in the segment, milliseconds; `i64::MIN` when nothing is before it.
    pub max_timestamp: i64,
    /// Last offset of the batch that holds it, relative to the segment's.
    pub max_timestamp_offset: u32,
}

/// Index entries in order, at most one per interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseIndex {
    entries: Vec<IndexEntry>,
    interval: u32,
}

impl SparseIndex {
    /// An empty index with `interval` bytes of log between entries (raised to an inner minimum).
    #[must_use]
    pub fn new(interval: u32) -> Self {
        Self {
            entries: Vec::new(),
            interval: interval.max(INTERVAL_MIN),
        }
    }

    /// An index as read from a checkpoint or from Kafka's files.
    #[must_use]
    pub fn from_entries(interval: u32, entries: Vec<IndexEntry>) -> Self {
        Self {
            entries,
            interval: interval.max(INTERVAL_MIN),
        }
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Bytes of log between entries.
    #[must_use]
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// Whether a batch at `position` deserves an entry.
    #[must_use]
    pub fn wants(&self, position: u32) -> bool {
        let last = self.entries.last().map_or(0, |entry| entry.position);
        position >= last.saturating_add(self.interval)
    }

    /// Adds an entry; thins the index when it is full.
    pub fn push(&mut self, entry: IndexEntry) {
        self.entries.push(entry);
        if self.entries.len() >= ENTRIES_MAX {
            let mut n = 0;
            self.entries.retain(|_| {
                n += 1;
                n % 2 == 0
            });
            self.interval = self.interval.saturating_mul(2);
        }
    }

    /// Where to start scanning for `relative_offset`, bytes: at or before its batch.
    #[must_use]
    pub fn position_of(&self, relative_offset: u32) -> u32 {
        let after = self
            .entries
            .partition_point(|entry| entry.relative_offset <= relative_offset);
        after
            .checked_sub(1)
            .map_or(0, |at| self.entries[at].position)
    }

    /// Where to start scanning for the first record at or after `timestamp_ms`, bytes: at or before its batch.
    #[must_use]
    pub fn position_of_time(&self, timestamp_ms: i64) -> u32 {
        let after = self
            .entries
            .partition_point(|entry| entry.max_timestamp < timestamp_ms);
        after
            .checked_sub(1)
            .map_or(0, |at| self.entries[at].position)
    }

    /// Bytes of Kafka's offset index: (relative offset, position), 8 bytes each, big-endian.
    #[must_use]
    pub fn to_offset_index(&self) -> Vec<u8> {
        let pair = |entry: &IndexEntry| [entry.relative_offset, entry.position];
        self.entries
            .iter()
            .flat_map(pair)
            .flat_map(u32::to_be_bytes)
            .collect()
    }

    /// Bytes of Kafka's time index: (largest timestamp so far, relative offset of it), 12 bytes each,
    /// big-endian, both rising; `last` is that of the whole segment.
    #[must_use]
    pub fn to_time_index(&self, last: (i64, u32)) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.entries.len() + 1) * 12);
        let mut newest = i64::MIN;
        let so_far = self
            .entries
            .iter()
            .map(|e| (e.max_timestamp, e.max_timestamp_offset));
        for (timestamp, offset) in so_far.chain([last]) {
            if timestamp > newest && timestamp >= 0 {
                newest = timestamp;
                bytes.extend_from_slice(&timestamp.to_be_bytes());
                bytes.extend_from_slice(&offset.to_be_bytes());
            }
        }
        bytes
    }

    /// An index from the bytes of Kafka's two files. Times between two entries of the time index are taken as
    /// those of the older one, which only makes a scan start earlier. Trailing odd bytes are ignored.
    #[must_use]
    pub fn from_files(interval: u32, offsets: &[u8], times: &[u8]) -> Self {
        let be32 = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let mut times = times
            .chunks_exact(12)
            .map(|c| {
                (
                    i64::from_be_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]),
                    be32(&c[8..]),
                )
            })
            .peekable();
        let mut newest = (i64::MIN, 0);
        let entries = offsets
            .chunks_exact(8)
            .map(|chunk| {
                let relative_offset = be32(chunk);
                while let Some(time) = times.next_if(|&(_, offset)| offset < relative_offset) {
                    newest = time;
                }
                IndexEntry {
                    relative_offset,
                    position: be32(&chunk[4..]),
                    max_timestamp: newest.0,
                    max_timestamp_offset: newest.1,
                }
            })
            .collect();
        Self::from_entries(interval, entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u32) -> SparseIndex {
        let mut index = SparseIndex::new(4096);
        for n in 1..=count {
            let position = n * 16 * 1024;
            if index.wants(position) {
                index.push(IndexEntry {
                    relative_offset: n * 10,
                    position,
                    max_timestamp: i64::from(n) * 100,
                    max_timestamp_offset: n * 10 - 1,
                });
            }
        }
        index
    }

    #[test]
    fn looks_up_at_or_before() {
        let index = filled(3);
        assert_eq!(index.position_of(0), 0);
        assert_eq!(index.position_of(9), 0);
        assert_eq!(index.position_of(10), 16 * 1024);
        assert_eq!(index.position_of(u32::MAX), 48 * 1024);
        // Everything before entry 2 is at most 200: the first record of 200 lies before that entry.
        assert_eq!(index.position_of_time(200), 16 * 1024);
        assert_eq!(index.position_of_time(201), 32 * 1024);
        assert_eq!(index.position_of_time(0), 0);
    }

    #[test]
    fn stays_bounded_and_sorted() {
        let index = filled(60_000);
        assert!(index.entries().len() < ENTRIES_MAX);
        assert!(index.entries().len() > ENTRIES_MAX / 4);
        assert!(index.entries().is_sorted_by(|a, b| a.position < b.position));
        assert!(index.position_of(300_005) <= 30_000 * 16 * 1024);
        assert!(index.position_of(300_005) > 29_900 * 16 * 1024);
    }

    #[test]
    fn survives_kafkas_files() {
        let index = filled(50);
        let read = SparseIndex::from_files(
            4096,
            &index.to_offset_index(),
            &index.to_time_index((9_000, 505)),
        );
        assert_eq!(read, index);
    }
}
