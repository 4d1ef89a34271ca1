//! Which partitions of an internal topic a coordinator owns, and how far it is with them.

use std::collections::BTreeMap;

/// What a partition is to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its log is being read.
    Loading,
    /// Requests are answered.
    Active,
}

#[derive(Debug)]
struct Owned {
    stage: Stage,
    /// Tells this time from other times the shard owned the partition.
    epoch: u64,
}

/// The partitions that are owned.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    partitions: BTreeMap<i32, Owned>,
    epochs: u64,
}

impl Ownership {
    /// From now on the partition is owned, and being read.
    pub(crate) fn begin(&mut self, partition: i32) {
        self.epochs += 1;
        let owned = Owned {
            stage: Stage::Loading,
            epoch: self.epochs,
        };
        self.partitions.insert(partition, owned);
    }

    /// The partition has been read; false if it is not owned any more.
    pub(crate) fn activate(&mut self, partition: i32) -> bool {
        let owned = self.partitions.get_mut(&partition);
        owned.map(|owned| owned.stage = Stage::Active).is_some()
    }

    /// The partition is no longer owned; false if it was not.
    pub(crate) fn end(&mut self, partition: i32) -> bool {
        self.partitions.remove(&partition).is_some()
    }

    pub(crate) fn stage(&self, partition: i32) -> Option<Stage> {
        self.partitions.get(&partition).map(|owned| owned.stage)
    }

    /// Which time of owning the partition this is.
    pub(crate) fn epoch(&self, partition: i32) -> Option<u64> {
        self.partitions.get(&partition).map(|owned| owned.epoch)
    }

    /// Whether some partition is still being read.
    pub(crate) fn is_loading(&self) -> bool {
        let mut owned = self.partitions.values();
        owned.any(|owned| owned.stage == Stage::Loading)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}
