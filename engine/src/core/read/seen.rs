//! What has been read before, so that only what is read again enters the page cache.

use std::collections::BTreeMap;

/// Bytes that are told apart.
const REGION: u64 = 256 << 10;
/// Segments remembered: of 1 GiB each they take 512 bytes.
const SEGMENTS_MAX: usize = 16_384;

/// Regions of segments whose end a reader has passed, by partition and base offset. Only an estimate: a forgotten
/// one is read past the cache once more.
#[derive(Debug, Default)]
pub(super) struct Seen {
    segments: BTreeMap<(u32, i64), Vec<u64>>,
}

impl Seen {
    /// `from..to` of a segment was read, which is `len` bytes long.
    pub(super) fn note(&mut self, part: u32, segment: i64, (from, to): (u64, u64), len: u64) {
        let first = from / REGION;
        let end = if to >= len {
            to.div_ceil(REGION)
        } else {
            to / REGION
        };
        if first >= end {
            return;
        }
        if self.segments.len() >= SEGMENTS_MAX && !self.segments.contains_key(&(part, segment)) {
            self.segments.pop_first();
        }
        let words = self.segments.entry((part, segment)).or_default();
        let needed = end.div_ceil(64) as usize;
        if words.len() < needed {
            words.resize(needed, 0);
        }
        for region in first..end {
            words[(region / 64) as usize] |= 1 << (region % 64);
        }
    }

    /// Whether what lies at `position` was read before.
    pub(super) fn has(&self, part: u32, segment: i64, position: u64) -> bool {
        let region = position / REGION;
        self.segments
            .get(&(part, segment))
            .and_then(|words| words.get((region / 64) as usize))
            .is_some_and(|word| word >> (region % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_does_not_meet_its_own_trace_but_the_next_one_does() {
        let mut seen = Seen::default();
        let len = 10 * REGION + 5;
        let step = REGION / 3;
        let mut at = 0;
        while at < len {
            assert!(!seen.has(1, 0, at), "{at}");
            let to = (at + step).min(len);
            seen.note(1, 0, (at, to), len);
            at = to;
        }
        for at in [0, REGION, 9 * REGION, len - 1] {
            assert!(seen.has(1, 0, at), "{at}");
        }
        assert!(!seen.has(1, 0, 70 * REGION));
        assert!(!seen.has(2, 0, 0) && !seen.has(1, 7, 0));
    }

    #[test]
    fn it_forgets_rather_than_grows() {
        let mut seen = Seen::default();
        for segment in 0..=SEGMENTS_MAX as i64 {
            seen.note(0, segment, (0, REGION), REGION);
        }
        assert_eq!(seen.segments.len(), SEGMENTS_MAX);
        assert!(!seen.has(0, 0, 0) && seen.has(0, SEGMENTS_MAX as i64, 0));
    }
}
