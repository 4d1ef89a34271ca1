//! What coordinators keep in internal topics: their batches on the way into the log, and the log read back at the start.

mod append;
mod load;

use ringlog_engine::id::Now;

use crate::groups::{self, Append, AppendFailure, AppendId, OFFSETS_TOPIC, ReplayError};
use crate::txn::{self, STATE_TOPIC};

pub(crate) use append::Appends;
pub(crate) use load::Loads;

/// A coordinator that keeps its state in partitions of an internal topic.
pub(crate) trait Logged {
    /// The topic.
    const TOPIC: &'static str;

    /// Takes in the next batch of a partition's log.
    fn replay(&mut self, now: Now, partition: i32, batch: &[u8]) -> Result<(), ReplayError>;
    /// The shard owns a partition: its log is to be read.
    fn own(&mut self, partition: i32);
    /// The partition's log has been read to its end.
    fn loaded(&mut self, now: Now, partition: i32);
    /// The next batch to be appended.
    fn next_append(&mut self, now: Now) -> Option<Append>;
    /// A batch is durable, or will never be.
    fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>);
}

impl Logged for groups::Coordinator {
    const TOPIC: &'static str = OFFSETS_TOPIC;

    fn replay(&mut self, now: Now, partition: i32, batch: &[u8]) -> Result<(), ReplayError> {
        self.replay(now, partition, batch)
    }

    fn own(&mut self, partition: i32) {
        self.own(partition);
    }

    fn loaded(&mut self, now: Now, partition: i32) {
        self.loaded(now, partition);
    }

    fn next_append(&mut self, now: Now) -> Option<Append> {
        self.next_append(now)
    }

    fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>) {
        self.appended(now, id, result);
    }
}

impl Logged for txn::Coordinator {
    const TOPIC: &'static str = STATE_TOPIC;

    fn replay(&mut self, _now: Now, partition: i32, batch: &[u8]) -> Result<(), ReplayError> {
        self.replay(partition, batch)
    }

    fn own(&mut self, partition: i32) {
        self.own(partition);
    }

    fn loaded(&mut self, now: Now, partition: i32) {
        self.loaded(now, partition);
    }

    fn next_append(&mut self, now: Now) -> Option<Append> {
        self.next_append(now)
    }

    fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>) {
        self.appended(now, id, result);
    }
}
