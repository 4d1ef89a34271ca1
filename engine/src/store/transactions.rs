//! Transactions of one partition: which are open, so where the last stable offset lies, and which were aborted
//! (KIP-98).
//!
//! A transaction counts as ended when its marker is durable. Until then it stays open for readers, who see it as
//! [`Transactions::first_unstable`], and for checkpoints, which describe the durable log.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A transaction that was aborted, as consumers are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
    /// Its marker's offset.
    pub last_offset: i64,
    /// The last stable offset once it had ended: no transaction aborted later begins before it.
    pub stable_offset: i64,
}

/// A transaction whose marker is in the log, but not durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    producer_id: i64,
    first_offset: i64,
    marker_offset: i64,
    aborted: bool,
}

/// Transactions of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transactions {
    /// Those without a durable marker: producer by first offset.
    open: BTreeMap<i64, i64>,
    /// Those without a marker: first offset by producer.
    ongoing: HashMap<i64, i64>,
    /// In the order of their markers.
    ended: VecDeque<Ended>,
    /// Durable ones, in the order of their markers.
    aborted: VecDeque<AbortedTransaction>,
}

impl Transactions {
    /// From a checkpoint: producers and first offsets of open ones, and the aborted ones in order.
    #[must_use]
    pub fn from_parts(open: Vec<(i64, i64)>, aborted: VecDeque<AbortedTransaction>) -> Self {
        Self {
            open: open.iter().map(|&(id, first)| (first, id)).collect(),
            ongoing: open.into_iter().collect(),
            ended: VecDeque::new(),
            aborted,
        }
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.aborted.is_empty()
    }

    /// First offset of the producer's transaction, if one is under way.
    #[must_use]
    pub fn ongoing(&self, producer_id: i64) -> Option<i64> {
        self.ongoing.get(&producer_id).copied()
    }

    /// The first offset of the oldest transaction whose end is not durable.
    #[must_use]
    pub fn first_unstable(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Those that a checkpoint of the log before `end` calls open: producer and first offset.
    pub fn open_before(&self, end: i64) -> impl Iterator<Item = (i64, i64)> + Clone {
        self.open.range(..end).map(|(&first, &id)| (id, first))
    }

    /// Aborted ones, in the order of their markers.
    #[must_use]
    pub fn aborted(&self) -> &VecDeque<AbortedTransaction> {
        &self.aborted
    }

    /// A transactional batch of the producer was appended at `offset`.
    pub fn wrote(&mut self, producer_id: i64, offset: i64) {
        if let Entry::Vacant(entry) = self.ongoing.entry(producer_id) {
            entry.insert(offset);
            self.open.insert(offset, producer_id);
        }
    }

    /// A marker of the producer was appended at `offset`.
    pub fn end(&mut self, producer_id: i64, offset: i64, aborted: bool) {
        if let Some(first_offset) = self.ongoing.remove(&producer_id) {
            self.ended.push_back(Ended {
                producer_id,
                first_offset,
                marker_offset: offset,
                aborted,
            });
        }
    }

    /// The log is durable up to `end`.
    pub fn advance(&mut self, end: i64) {
        while let Some(&ended) = self.ended.front()
            && ended.marker_offset < end
        {
            self.ended.pop_front();
            self.open.remove(&ended.first_offset);
            if ended.aborted {
                let behind = ended.marker_offset + 1;
                self.aborted.push_back(AbortedTransaction {
                    producer_id: ended.producer_id,
                    first_offset: ended.first_offset,
                    last_offset: ended.marker_offset,
                    stable_offset: self.first_unstable().map_or(behind, |o| o.min(behind)),
                });
            }
        }
    }

    /// Aborted transactions with records in `from..to`.
    pub fn aborted_between(
        &self,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = &AbortedTransaction> + Clone {
        let first = self.aborted.partition_point(|t| t.last_offset < from);
        let candidates = self.aborted.range(first..);
        // The first that left everything before `to` decided is the last of interest.
        let mut complete = false;
        candidates
            .take_while(move |t| !std::mem::replace(&mut complete, t.stable_offset >= to))
            .filter(move |t| t.first_offset < to)
    }

    /// Forgets these.
    pub fn forget_aborted(&mut self, gone: &[AbortedTransaction]) {
        self.aborted.retain(|t| !gone.contains(t));
    }

    /// Forgets what was aborted before the log's start.
    pub fn trim(&mut self, log_start: i64) {
        let gone = self.aborted.partition_point(|t| t.last_offset < log_start);
        self.aborted.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(transactions: &Transactions, from: i64, to: i64) -> Vec<(i64, i64)> {
        let found = transactions.aborted_between(from, to);
        found.map(|t| (t.producer_id, t.first_offset)).collect()
    }

    #[test]
    fn a_marker_counts_when_it_is_durable() {
        let mut transactions = Transactions::default();
        transactions.wrote(1, 10);
        transactions.wrote(2, 20);
        transactions.wrote(1, 30);
        transactions.end(1, 40, true);
        assert_eq!(transactions.ongoing(1), None);
        assert_eq!(transactions.first_unstable(), Some(10));
        transactions.advance(40);
        assert_eq!(transactions.first_unstable(), Some(10));
        assert!(listed(&transactions, 0, 100).is_empty());
        transactions.advance(41);
        assert_eq!(transactions.first_unstable(), Some(20));
        assert_eq!(listed(&transactions, 0, 100), [(1, 10)]);
        assert_eq!(transactions.aborted()[0].stable_offset, 20);
        transactions.end(2, 50, false);
        transactions.advance(51);
        assert_eq!(transactions.first_unstable(), None);
        assert_eq!(listed(&transactions, 0, 100), [(1, 10)]);
    }

    #[test]
    fn a_producer_may_begin_again_before_its_marker_is_durable() {
        let mut transactions = Transactions::default();
        transactions.wrote(1, 0);
        transactions.end(1, 1, true);
        transactions.wrote(1, 2);
        assert_eq!(transactions.open_before(1).collect::<Vec<_>>(), [(1, 0)]);
        transactions.advance(3);
        assert_eq!(transactions.open_before(3).collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!(
            (transactions.ongoing(1), listed(&transactions, 0, 3)),
            (Some(2), vec![(1, 0)])
        );
    }

    #[test]
    fn only_what_touches_the_range_is_listed() {
        let mut transactions = Transactions::default();
        // A long one that is aborted last, and short ones meanwhile.
        transactions.wrote(9, 5);
        for n in 0..10 {
            transactions.wrote(n + 100, 10 * n + 10);
            transactions.end(n + 100, 10 * n + 11, true);
        }
        transactions.end(9, 200, true);
        transactions.wrote(7, 201);
        transactions.end(7, 202, true);
        transactions.advance(203);
        assert_eq!(
            listed(&transactions, 30, 41),
            [(102, 30), (103, 40), (9, 5)]
        );
        assert_eq!(listed(&transactions, 32, 40), [(9, 5)]);
        assert_eq!(listed(&transactions, 0, 5), []);
        assert_eq!(listed(&transactions, 201, 300), [(7, 201)]);
        transactions.trim(201);
        assert_eq!(listed(&transactions, 0, 300), [(7, 201)]);
        assert!(!transactions.is_empty());
    }

    #[test]
    fn markers_of_nothing_change_nothing() {
        let mut transactions = Transactions::default();
        transactions.end(1, 0, true);
        transactions.advance(1);
        assert!(transactions.is_empty() && transactions.first_unstable().is_none());
    }
}
