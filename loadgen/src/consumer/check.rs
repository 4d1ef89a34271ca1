//! Checking stamped records as they are read.

use std::collections::HashMap;

use crate::cluster::Partition;
use crate::stamp::Stamp;
use crate::verify::{Findings, Sequences};

/// Which stream a record belongs to: run, topic, partition, producing connection.
type Key = (u64, u32, u32, u32);

/// Follows the sequence numbers of all streams it sees.
#[derive(Debug)]
pub struct Checker {
    run_id: Option<u64>,
    /// Whether reading began at the first record, so that what is missing before the first seen counts.
    whole: bool,
    places: HashMap<Key, usize>,
    sequences: Vec<Sequences>,
    /// Records of a batch mostly belong to one stream.
    last: Option<(Key, usize)>,
    counted: Findings,
}

impl Checker {
    /// Checks the records of one run, or of all. `whole` says whether reading begins at the first record.
    #[must_use]
    pub fn new(run_id: Option<u64>, whole: bool) -> Self {
        Self {
            run_id,
            whole,
            places: HashMap::new(),
            sequences: Vec::new(),
            last: None,
            counted: Findings::default(),
        }
    }

    /// Checks a record read from `partition`. Returns its stamp if it has one that counts.
    pub fn check<'a>(
        &mut self,
        partition: &Partition,
        value: Option<&'a [u8]>,
    ) -> Option<&'a Stamp> {
        let wanted = value.and_then(Stamp::read).filter(|(stamp, _)| {
            self.run_id
                .is_none_or(|run_id| stamp.run_id.get() == run_id)
        });
        let Some((stamp, payload)) = wanted else {
            self.counted.foreign += 1;
            return None;
        };
        let here =
            stamp.topic.get() == partition.topic && stamp.partition.get() == partition.index as u32;
        if !here || !stamp.covers(payload) {
            self.counted.corrupt += 1;
            return None;
        }
        self.counted.verified += 1;
        let key = (
            stamp.run_id.get(),
            stamp.topic.get(),
            stamp.partition.get(),
            stamp.stream.get(),
        );
        let place = self.place(key);
        self.sequences[place].note(stamp.sequence.get());
        Some(stamp)
    }

    fn place(&mut self, key: Key) -> usize {
        if let Some((last, place)) = self.last
            && last == key
        {
            return place;
        }
        let next = self.sequences.len();
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.sequences.push(Sequences::default());
        }
        self.last = Some((key, place));
        place
    }

    /// What was found so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let mut findings = self.counted;
        for sequences in &self.sequences {
            let mut found = sequences.findings();
            if !self.whole {
                found.missing = sequences.missing_from(sequences.lowest().unwrap_or(0));
            }
            findings += found;
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::STAMP_MAGIC;
    use ringlog_engine::checksum::crc32c;
    use zerocopy::IntoBytes;

    const HERE: Partition = Partition {
        topic: 0,
        index: 3,
        leader: 0,
    };

    fn value(run_id: u64, partition: u32, sequence: u64) -> Vec<u8> {
        let stamp = Stamp {
            magic: STAMP_MAGIC,
            payload_crc: crc32c(b"payload").into(),
            run_id: run_id.into(),
            stream: 0.into(),
            topic: 0.into(),
            partition: partition.into(),
            sequence: sequence.into(),
            sent_unix_ns: 0.into(),
        };
        [stamp.as_bytes(), b"payload"].concat()
    }

    fn findings(sequences: &[u64], whole: bool) -> Findings {
        let mut checker = Checker::new(Some(1), whole);
        for &sequence in sequences {
            checker.check(&HERE, Some(&value(1, 3, sequence)));
        }
        checker.findings()
    }

    #[test]
    fn loss_duplicate_and_reorder_are_each_found() {
        assert!(findings(&[0, 1, 2, 3], true).is_clean());
        let lost = findings(&[0, 1, 3], true);
        assert_eq!(
            (lost.missing, lost.duplicates, lost.out_of_order),
            (1, 0, 0)
        );
        let twice = findings(&[0, 1, 1, 2], true);
        assert_eq!(
            (twice.missing, twice.duplicates, twice.out_of_order),
            (0, 1, 0)
        );
        let swapped = findings(&[0, 2, 1, 3], true);
        assert_eq!(
            (swapped.missing, swapped.duplicates, swapped.out_of_order),
            (0, 0, 1)
        );
        for wrong in [lost, twice, swapped] {
            assert!(!wrong.is_clean());
        }
        assert_eq!(findings(&[5, 6], true).missing, 5);
        assert_eq!(findings(&[5, 6], false).missing, 0);
    }

    #[test]
    fn a_changed_payload_and_a_wrong_partition_are_corrupt() {
        let mut checker = Checker::new(Some(1), true);
        let mut changed = value(1, 3, 0);
        *changed.last_mut().unwrap() ^= 1;
        checker.check(&HERE, Some(&changed));
        checker.check(&HERE, Some(&value(1, 4, 0)));
        assert_eq!(checker.findings().corrupt, 2);
        assert!(!checker.findings().is_clean());
    }

    #[test]
    fn other_runs_and_other_records_are_foreign() {
        let mut checker = Checker::new(Some(1), true);
        assert!(checker.check(&HERE, Some(&value(2, 3, 9))).is_none());
        assert!(checker.check(&HERE, Some(b"a log line")).is_none());
        assert!(checker.check(&HERE, None).is_none());
        assert_eq!(
            checker.findings(),
            Findings {
                foreign: 3,
                ..Findings::default()
            }
        );
        let mut all = Checker::new(None, true);
        for run_id in [1, 2] {
            for sequence in 0..3 {
                assert!(
                    all.check(&HERE, Some(&value(run_id, 3, sequence)))
                        .is_some()
                );
            }
        }
        assert_eq!(
            all.findings(),
            Findings {
                verified: 6,
                ..Findings::default()
            }
        );
    }
}
