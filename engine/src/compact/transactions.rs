//! Transactions as a cleaning pass meets them: what of aborted ones goes at once, and which markers are of no use any
//! more. Source: `CleanedTransactionMetadata` of Apache Kafka.

use std::collections::{HashMap, HashSet};

use crate::batch::{BatchHeader, Marker};
use crate::store::AbortedTransaction;

/// An aborted transaction whose marker has not come yet.
#[derive(Debug, Clone, Copy)]
struct Ongoing {
    aborted: AbortedTransaction,
    /// A batch of it is still in the log.
    seen: bool,
}

/// State of one pass over a log in the order of its offsets.
#[derive(Debug, Default)]
pub struct CleanTransactions {
    /// By first offset, the last one first.
    aborted: Vec<AbortedTransaction>,
    ongoing_aborted: HashMap<i64, Ongoing>,
    ongoing_committed: HashSet<i64>,
    /// Aborted ones of which nothing but the marker was left.
    gone: Vec<AbortedTransaction>,
}

impl CleanTransactions {
    /// For a pass over a log with these aborted transactions.
    #[must_use]
    pub fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|t| std::cmp::Reverse(t.first_offset));
        Self {
            aborted,
            ..Self::default()
        }
    }

    fn advance(&mut self, header: &BatchHeader) {
        let (base_offset, last_offset) = (header.base_offset.get(), header.last_offset());
        while let Some(aborted) = self.aborted.pop_if(|t| t.first_offset <= last_offset) {
            // A pass that begins behind its marker is not concerned.
            if aborted.last_offset < base_offset {
                continue;
            }
            let ongoing = Ongoing {
                aborted,
                seen: false,
            };
            self.ongoing_aborted.insert(aborted.producer_id, ongoing);
        }
    }

    /// Meets a batch of records; true if its transaction was aborted.
    pub fn data(&mut self, header: &BatchHeader) -> bool {
        self.advance(header);
        if !header.is_transactional() {
            return false;
        }
        let producer_id = header.producer_id.get();
        if let Some(ongoing) = self.ongoing_aborted.get_mut(&producer_id) {
            ongoing.seen = true;
            return true;
        }
        self.ongoing_committed.insert(producer_id);
        false
    }

    /// Meets a control batch; true if nothing of what it ended is left. `marker` is what [`Marker::read`] says.
    pub fn control(&mut self, header: &BatchHeader, marker: Option<Marker>) -> bool {
        self.advance(header);
        if header.record_count.get() == 0 {
            return true; // kept for its producer's sake, once
        }
        let producer_id = header.producer_id.get();
        match marker {
            Some(Marker {
                committed: true, ..
            }) => !self.ongoing_committed.remove(&producer_id),
            Some(_) => match self.ongoing_aborted.remove(&producer_id) {
                Some(ongoing) if ongoing.seen => false,
                Some(ongoing) => {
                    self.gone.push(ongoing.aborted);
                    true
                }
                None => true,
            },
            None => false,
        }
    }

    /// Aborted transactions, met so far, that consumers need not be told of any more: nothing of them is left.
    pub fn take_gone(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.gone)
    }
}
