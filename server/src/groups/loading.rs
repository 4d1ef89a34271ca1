//! What comes up for a partition while its log is read, and has to wait until it has been.
//!
//! A log is read up to where it ended when reading began. A marker that is written meanwhile lies behind that, and what it
//! decides may not have been read yet.

use std::collections::HashSet;

use ringlog_engine::id::Now;

use super::coordinator::Coordinator;

/// What waits until a partition's log has been read.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    /// Producers whose transactions were decided, and whether they were committed, in the order of the log.
    decisions: Vec<(i64, bool)>,
    decided: HashSet<i64>,
}

impl Postponed {
    /// The log is read from its start, anew perhaps: the markers of an earlier time are in what is read now.
    pub(super) fn begin(&mut self) {
        self.decisions.clear();
        self.decided.clear();
    }

    /// A producer has one open transaction at most, and no group takes offsets of the next one while the log is read: its
    /// first marker decides, and those after it have nothing to decide.
    fn decide(&mut self, producer_id: i64, committed: bool) {
        if self.decided.insert(producer_id) {
            self.decisions.push((producer_id, committed));
        }
    }
}

impl Coordinator {
    /// A marker is durable in a partition of the offsets topic: what the producer's transaction has there is decided, once
    /// the partition's log has been read.
    pub fn decided(&mut self, now: Now, partition: i32, producer_id: i64, committed: bool) {
        match self.postponed.get_mut(&partition) {
            Some(postponed) => postponed.decide(producer_id, committed),
            None => self.decide(now, partition, producer_id, committed),
        }
    }

    /// Does what has waited until the partition's log has been read. Where that went past the end it had at first, a marker
    /// may have been read as well; then there is nothing left to decide.
    pub(super) fn catch_up(&mut self, now: Now, partition: i32) {
        let Some(postponed) = self.postponed.remove(&partition) else {
            return;
        };
        for (producer_id, committed) in postponed.decisions {
            self.decide(now, partition, producer_id, committed);
        }
    }
}
