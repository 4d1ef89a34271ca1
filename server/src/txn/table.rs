//! The transactional ids of a shard, and what they take of its memory.

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::wire::StrBytes;

use super::record::{Partitions, TxnValue};
use super::transaction::Transaction;

/// What an entry takes besides the names in it, in bytes, about.
const ENTRY_BYTES: usize = 256;
/// And a partition.
const PARTITION_BYTES: usize = 16;

/// Transactions by id. Read like the map that it is; entries come, change and go by its own functions, which count their bytes.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_id: BTreeMap<StrBytes, Transaction>,
    bytes: usize,
}

impl Table {
    /// Memory of all entries, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn insert(&mut self, id: StrBytes, transaction: Transaction) {
        self.remove(&id);
        self.bytes += entry_bytes(&id, &transaction.value.partitions);
        self.by_id.insert(id, transaction);
    }

    pub(super) fn remove(&mut self, id: &StrBytes) -> Option<Transaction> {
        let (id, transaction) = self.by_id.remove_entry(id)?;
        self.bytes -= entry_bytes(&id, &transaction.value.partitions);
        Some(transaction)
    }

    /// A transaction's change has become durable.
    pub(super) fn change(&mut self, id: &StrBytes, value: TxnValue, last_epoch: i16) {
        let Some(transaction) = self.by_id.get_mut(id) else {
            return;
        };
        self.bytes += partitions_bytes(&value.partitions);
        self.bytes -= partitions_bytes(&transaction.value.partitions);
        transaction.value = value;
        transaction.last_epoch = last_epoch;
    }

    /// For everything but its value.
    pub(super) fn get_mut(&mut self, id: &StrBytes) -> Option<&mut Transaction> {
        self.by_id.get_mut(id)
    }
}

impl Deref for Table {
    type Target = BTreeMap<StrBytes, Transaction>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

fn entry_bytes(id: &str, partitions: &Partitions) -> usize {
    ENTRY_BYTES + id.len() + partitions_bytes(partitions)
}

fn partitions_bytes(partitions: &Partitions) -> usize {
    let topics = partitions.iter();
    topics
        .map(|(topic, partitions)| ENTRY_BYTES + topic.len() + partitions.len() * PARTITION_BYTES)
        .sum()
}
