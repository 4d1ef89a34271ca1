//! Loss, duplicates and order, found from the sequence numbers of streams.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// What the check of a stream, a partition or a whole run found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Records of the run that were read and are right.
    pub verified: u64,
    /// Records below the highest sequence read of their stream that never came.
    pub missing: u64,
    /// Records that came more than once.
    pub duplicates: u64,
    /// Records that came after a later one of their stream.
    pub out_of_order: u64,
    /// Records whose payload is not what was sent, or that lie in a partition they were not sent to.
    pub corrupt: u64,
    /// Records without a stamp or of another run.
    pub foreign: u64,
}

impl Findings {
    /// Whether nothing is wrong; foreign records are not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.out_of_order == 0 && self.corrupt == 0
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.verified += other.verified;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
    }
}

/// How a sequence number relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or one after a gap.
    InOrder,
    /// Seen before.
    Duplicate,
    /// New, but below one that was seen.
    Late,
}

/// The sequence numbers seen of one stream, as ranges: one range for as long as all is well.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    /// First of a range to one past its last; ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
    /// The range that grows, kept out of the map: (first, one past the last).
    head: Option<(u64, u64)>,
    duplicates: u64,
    late: u64,
}

impl Sequences {
    /// Notes that `sequence` was read.
    #[inline]
    pub fn note(&mut self, sequence: u64) -> Arrival {
        match &mut self.head {
            Some((_, end)) if sequence == *end => {
                *end += 1;
                Arrival::InOrder
            }
            None => {
                self.head = Some((sequence, sequence + 1));
                Arrival::InOrder
            }
            Some((start, end)) if sequence > *end => {
                self.ranges.insert(*start, *end);
                self.head = Some((sequence, sequence + 1));
                Arrival::InOrder
            }
            Some((start, _)) if sequence >= *start => {
                self.duplicates += 1;
                Arrival::Duplicate
            }
            Some(_) => self.note_below(sequence),
        }
    }

    /// A sequence below the growing range: in a closed range it is a duplicate, in a gap it is late.
    fn note_below(&mut self, sequence: u64) -> Arrival {
        let before = self
            .ranges
            .range(..=sequence)
            .next_back()
            .map(|(&start, &end)| (start, end));
        if let Some((_, end)) = before
            && sequence < end
        {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.late += 1;
        let (mut start, mut end) = (sequence, sequence + 1);
        if let Some((before_start, before_end)) = before
            && before_end == sequence
        {
            start = before_start;
        }
        if let Some(after_end) = self.ranges.remove(&end) {
            end = after_end;
        }
        match &mut self.head {
            Some((head_start, _)) if *head_start == end => {
                self.ranges.remove(&start);
                *head_start = start;
            }
            _ => {
                self.ranges.insert(start, end);
            }
        }
        Arrival::Late
    }

    /// Sequences below the highest that were not seen, counted from `first`.
    #[must_use]
    pub fn missing_from(&self, first: u64) -> u64 {
        self.gaps(first).map(|(start, end)| end - start).sum()
    }

    /// The gaps from `first` to the highest sequence seen, as (first missing, one past the last missing).
    pub fn gaps(&self, first: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut next = first;
        self.ranges
            .iter()
            .map(|(&start, &end)| (start, end))
            .chain(self.head)
            .filter_map(move |(start, end)| {
                let gap = (next, start);
                next = next.max(end);
                (gap.0 < gap.1).then_some(gap)
            })
    }

    /// Duplicates and late ones so far, and what is missing from sequence 0 on.
    #[must_use]
    pub fn findings(&self) -> Findings {
        Findings {
            missing: self.missing_from(0),
            duplicates: self.duplicates,
            out_of_order: self.late,
            ..Findings::default()
        }
    }

    /// Lowest sequence seen.
    #[must_use]
    pub fn lowest(&self) -> Option<u64> {
        self.ranges
            .first_key_value()
            .map(|(&start, _)| start)
            .or(self.head.map(|(start, _)| start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn after(sequences: &[u64]) -> Sequences {
        let mut state = Sequences::default();
        for &sequence in sequences {
            state.note(sequence);
        }
        state
    }

    #[test]
    fn a_whole_stream_is_clean() {
        let state = after(&(0..1000).collect::<Vec<_>>());
        assert_eq!(state.findings(), Findings::default());
        assert!(state.ranges.is_empty());
    }

    #[test]
    fn loss_is_found_in_the_middle_and_at_the_start() {
        assert_eq!(after(&[0, 1, 4, 5, 9]).findings().missing, 2 + 3);
        assert_eq!(after(&[3, 4]).findings().missing, 3);
        assert_eq!(after(&[3, 4]).missing_from(3), 0);
        assert_eq!(
            after(&[0, 1, 4, 9]).gaps(0).collect::<Vec<_>>(),
            [(2, 4), (5, 9)]
        );
    }

    #[test]
    fn duplicates_are_found_near_and_far() {
        let state = after(&[0, 1, 1, 2, 5, 6, 0, 5]);
        assert_eq!((state.duplicates, state.late), (3, 0));
        assert_eq!(state.findings().missing, 2);
    }

    #[test]
    fn a_late_record_is_out_of_order_and_not_missing() {
        let state = after(&[0, 2, 1, 3]);
        assert_eq!(
            state.findings(),
            Findings {
                out_of_order: 1,
                ..Findings::default()
            }
        );
        let mut swapped = after(&[1]);
        assert_eq!(swapped.note(0), Arrival::Late);
        assert_eq!(swapped.note(0), Arrival::Duplicate);
    }

    proptest! {
        #[test]
        fn the_ranges_agree_with_a_plain_set(input in prop::collection::vec(0u64..40, 1..120)) {
            let mut state = Sequences::default();
            let mut seen = BTreeSet::new();
            for &sequence in &input {
                let highest = seen.last().copied();
                let expected = if seen.contains(&sequence) {
                    Arrival::Duplicate
                } else if highest.is_some_and(|highest| sequence < highest) {
                    Arrival::Late
                } else {
                    Arrival::InOrder
                };
                prop_assert_eq!(state.note(sequence), expected);
                seen.insert(sequence);
            }
            let highest = seen.last().copied().unwrap();
            prop_assert_eq!(state.missing_from(0), highest + 1 - seen.len() as u64);
            prop_assert_eq!(state.lowest(), seen.first().copied());
        }
    }
}
