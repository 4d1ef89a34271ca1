//! What groups know of topics.

use ringlog_engine::id::TopicId;

use crate::catalog::Snapshot;

/// A topic that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its id.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
}

/// The topics there are.
pub trait Topics {
    /// Differs when the topics differ.
    fn version(&self) -> u64;

    /// The topic called `name`.
    fn topic(&self, name: &str) -> Option<TopicInfo>;

    /// The name of the topic with this id.
    fn name(&self, id: TopicId) -> Option<&str>;

    /// Hands over every topic's name, in any order.
    fn each_name(&self, f: &mut dyn FnMut(&str));
}

impl Topics for Snapshot {
    fn version(&self) -> u64 {
        self.version
    }

    fn topic(&self, name: &str) -> Option<TopicInfo> {
        let topic = Snapshot::topic(self, name)?;
        Some(TopicInfo {
            id: topic.id,
            partitions: topic.partitions,
        })
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.topic_by_id(id).map(|topic| &*topic.name)
    }

    fn each_name(&self, f: &mut dyn FnMut(&str)) {
        self.names().for_each(f);
    }
}
