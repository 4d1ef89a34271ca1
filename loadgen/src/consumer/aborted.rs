//! Which batches of a fetch belong to aborted transactions: brokers send them along with a list, and consumers that read
//! committed records leave them out.
//!
//! Source: KIP-98, the consumer's part.

use std::collections::BTreeSet;

use ringlog_engine::batch::BatchHeader;

/// The aborted transactions of one partition in one answer.
#[derive(Debug)]
pub struct Aborted {
    /// First offset and producer id of those that are still to come, the next one last.
    ahead: Vec<(i64, i64)>,
    /// Producers whose aborted transaction is under way at the present batch.
    open: BTreeSet<i64>,
}

impl Aborted {
    /// Reads the list as a fetch has it: producer id and first offset, 16 bytes each.
    #[must_use]
    pub fn new(list: &[u8]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &b| n << 8 | i64::from(b));
        let entries = list.chunks_exact(16);
        let mut ahead: Vec<(i64, i64)> = entries
            .map(|entry| (number(&entry[8..]), number(&entry[..8])))
            .collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            ahead,
            open: BTreeSet::new(),
        }
    }

    /// Whether a batch is to be left out. To be asked of every batch, in order.
    pub fn hides(&mut self, header: &BatchHeader) -> bool {
        while let Some((_, producer_id)) = self
            .ahead
            .pop_if(|(first_offset, _)| *first_offset < header.next_offset())
        {
            self.open.insert(producer_id);
        }
        let producer_id = header.producer_id.get();
        if header.is_control() {
            self.open.remove(&producer_id);
            return false;
        }
        header.is_transactional() && self.open.contains(&producer_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::batch::{BatchBuilder, Marker, NewRecord, header::assign};

    fn batch(producer_id: i64, transactional: bool, offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord::default());
        let mut batch = builder
            .producer(producer_id, 0, 0)
            .transactional(transactional)
            .build()
            .unwrap();
        assign(&mut batch, offset, 0);
        batch
    }

    fn marker(producer_id: i64, committed: bool, offset: i64) -> Vec<u8> {
        let marker = Marker {
            committed,
            coordinator_epoch: 0,
        };
        let mut batch = marker.batch(producer_id, 0, 0).to_vec();
        assign(&mut batch, offset, 0);
        batch
    }

    #[test]
    fn batches_from_an_aborted_transactions_first_to_its_marker_are_hidden() {
        let list: Vec<u8> = [(7i64, 6i64), (7, 1)]
            .iter()
            .flat_map(|(id, first)| [id.to_be_bytes(), first.to_be_bytes()].concat())
            .collect();
        let mut aborted = Aborted::new(&list);
        let log = [
            (batch(7, true, 0), false),
            (batch(7, true, 1), true),
            (batch(8, true, 2), false),
            (batch(-1, false, 3), false),
            (marker(7, false, 4), false),
            (batch(7, true, 5), false),
            (batch(7, true, 6), true),
            (marker(8, true, 7), false),
            (batch(7, true, 8), true),
            (marker(7, false, 9), false),
            (batch(7, true, 10), false),
        ];
        for (offset, (batch, hidden)) in log.iter().enumerate() {
            let header = BatchHeader::parse(batch).unwrap();
            assert_eq!(aborted.hides(header), *hidden, "offset {offset}");
        }
        assert!(!Aborted::new(&[]).hides(BatchHeader::parse(&log[1].0).unwrap()));
    }
}
