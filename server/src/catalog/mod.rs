//! The catalog: which topics there are. The control thread keeps the master copy and its durable store; shards hold
//! an immutable snapshot that is replaced as a whole.

pub mod action;
mod copy;
pub mod name;
mod plan;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use ringlog_engine::core::{Core, LogConfig};
use ringlog_engine::id::{Now, PartitionKey, TopicId};
use ringlog_engine::recovery::PartitionMeta;

pub use plan::{Catalog, Plan, Write};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, which no other topic ever has.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Settings made for this topic, by Kafka's names.
    pub configs: BTreeMap<String, String>,
    /// Belongs to the broker: clients may not write to it.
    pub internal: bool,
    /// The settings that hold, defaults included.
    pub log: LogConfig,
}

impl Topic {
    /// The key of partition `index`, if the topic has it.
    #[must_use]
    pub fn key(&self, index: i32) -> Option<PartitionKey> {
        (0..self.partitions)
            .contains(&index)
            .then_some(PartitionKey {
                topic: self.id,
                partition: index,
            })
    }

    /// Keys of the partitions from `first` on.
    pub fn keys(&self, first: i32) -> impl Iterator<Item = PartitionKey> {
        let topic = self.id;
        (first..self.partitions).map(move |partition| PartitionKey { topic, partition })
    }
}

/// The topics at one time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts the changes of this run.
    pub version: u64,
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    /// Names by what metrics make of them, where that may be another name's.
    by_folded: HashMap<Arc<str>, Arc<str>>,
    partitions: usize,
}

impl Snapshot {
    /// A snapshot of `topics`.
    #[must_use]
    pub fn new(topics: impl IntoIterator<Item = Arc<Topic>>) -> Self {
        let mut snapshot = Self::default();
        for topic in topics {
            snapshot.put(topic);
        }
        snapshot
    }

    /// The topic called `name`.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with id `id`.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<&Arc<Topic>> {
        let mut all: Vec<_> = self.by_name.values().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The names of all topics, in any order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// The topic whose name differs from `name` in '.' and '_' alone.
    fn collision(&self, name: &str) -> Option<&Arc<str>> {
        let other = self.by_folded.get(&*name::folded(name)?)?;
        (**other != *name).then_some(other)
    }

    /// Partitions of all topics.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Every partition, as recovery wants them.
    #[must_use]
    pub fn metas(&self) -> Vec<PartitionMeta> {
        let metas = |topic: &&Arc<Topic>| {
            let topic = (*topic).clone();
            let keys: Vec<_> = topic.keys(0).collect();
            keys.into_iter().map(move |key| PartitionMeta {
                key,
                topic_name: topic.name.to_string(),
                config: topic.log.clone(),
            })
        };
        self.topics().iter().flat_map(metas).collect()
    }

    fn put(&mut self, topic: Arc<Topic>) {
        self.partitions += topic.partitions as usize;
        self.by_id.insert(topic.id, topic.clone());
        if let Some(folded) = name::folded(&topic.name) {
            self.by_folded.insert(folded.into(), topic.name.clone());
        }
        if let Some(old) = self.by_name.insert(topic.name.clone(), topic) {
            self.partitions -= old.partitions as usize;
        }
    }

    fn remove(&mut self, topic: &Topic) {
        if self.by_name.remove(&topic.name).is_some() {
            self.partitions -= topic.partitions as usize;
        }
        self.by_id.remove(&topic.id);
        if let Some(folded) = name::folded(&topic.name) {
            self.by_folded.remove(&*folded);
        }
    }
}

/// One change, as shards carry it out.
#[derive(Debug, Clone)]
pub enum Change {
    /// Partitions from `first` on are new.
    Created {
        /// The topic as it is now.
        topic: Arc<Topic>,
        /// First new partition.
        first: i32,
    },
    /// The topic is gone.
    Deleted {
        /// As it was.
        topic: Arc<Topic>,
    },
    /// The topic's settings changed.
    Configured {
        /// The topic as it is now.
        topic: Arc<Topic>,
    },
}

impl Change {
    /// Brings the partitions of `shard` in line.
    pub(crate) fn carry_out(&self, core: &mut Core, now: Now, shard: u32, shards: u32) {
        let mine = |key: &PartitionKey| key.shard(shards) == shard;
        match self {
            Self::Created { topic, first } => {
                for key in topic.keys(*first).filter(mine) {
                    core.create_partition(now, key, &topic.name, topic.log.clone());
                }
            }
            Self::Deleted { topic } => {
                for key in topic.keys(0).filter(mine) {
                    if let Some(part) = core.lookup(key) {
                        core.drop_partition(now, part);
                    }
                }
            }
            Self::Configured { topic } => {
                for key in topic.keys(0).filter(mine) {
                    if let Some(part) = core.lookup(key) {
                        core.set_config(part, topic.log.clone());
                    }
                }
            }
        }
    }
}

/// A new snapshot and what is different in it.
#[derive(Debug, Clone)]
pub struct Update {
    /// The snapshot's version.
    pub version: u64,
    /// The topics now.
    pub snapshot: Arc<Snapshot>,
    /// What changed, in order.
    pub changes: Vec<Change>,
}
