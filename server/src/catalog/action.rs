//! Changes that can be asked of the catalog, and what became of them.

use std::sync::Arc;

use ringlog_engine::id::TopicId;

use super::Topic;

/// What to change. Items of one action are independent: each succeeds or fails by itself.
#[derive(Debug, Clone)]
pub enum Action {
    /// Create topics.
    CreateTopics {
        /// Which.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics(Vec<TopicId>),
    /// Add partitions.
    CreatePartitions {
        /// To which, and how many.
        topics: Vec<NewPartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Change settings of topics.
    AlterConfigs {
        /// Which.
        topics: Vec<NewConfigs>,
        /// Only say what would happen.
        validate_only: bool,
    },
}

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions, -1 for the default.
    pub partitions: i32,
    /// Number of replicas, -1 for the default. There is one replica whatever is asked for.
    pub replication_factor: i16,
    /// Brokers of each partition by hand, instead of the two numbers.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings.
    pub configs: Vec<(String, Option<String>)>,
    /// Belongs to the broker.
    pub internal: bool,
}

/// Partitions to add.
#[derive(Debug, Clone)]
pub struct NewPartitions {
    /// The topic.
    pub name: String,
    /// How many it shall have.
    pub count: i32,
    /// Brokers of the new ones by hand.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Settings to change.
#[derive(Debug, Clone)]
pub struct NewConfigs {
    /// The topic.
    pub name: String,
    /// Start from no settings (AlterConfigs) instead of those there are (IncrementalAlterConfigs).
    pub replace: bool,
    /// What to change.
    pub ops: Vec<ConfigOp>,
}

/// One change of a setting.
#[derive(Debug, Clone)]
pub struct ConfigOp {
    /// The setting.
    pub name: String,
    /// What to do.
    pub kind: ConfigOpKind,
    /// The value; `None` unless the kind needs one.
    pub value: Option<String>,
}

/// Kinds of changes, as in IncrementalAlterConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigOpKind {
    /// Set the value.
    Set,
    /// Go back to the default.
    Delete,
    /// Add to a list.
    Append,
    /// Remove from a list.
    Subtract,
}

/// Longest message for people: it may quote a name as long as the request, and old responses take 32 KiB of text.
const MESSAGE_BYTES_MAX: usize = 1000;

/// Why an item was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error code.
    pub code: i16,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal with Kafka's error `code`; what is too long of the message is cut off.
    #[must_use]
    pub fn new(code: i16, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
        Self { code, message }
    }
}

/// What became of an action: an entry for each item, in order. A topic is as it is after the change, or before its
/// deletion.
#[derive(Debug)]
pub struct Outcome(pub Vec<Result<Arc<Topic>, Refusal>>);

impl Outcome {
    /// Turns every success into `refusal`.
    pub(crate) fn fail_all(&mut self, refusal: &Refusal) {
        for item in &mut self.0 {
            if item.is_ok() {
                *item = Err(refusal.clone());
            }
        }
    }
}
