//! Requests that wait for the catalog: they are answered once the change is durable and every shard knows it.

use hashbrown::HashMap;

use crate::api::{
    alter_configs, create_partitions, create_topics, delete_topics, find_coordinator, metadata,
};
use crate::app::Mail;
use crate::control::{Action, Controller};

/// What to do when a request to the catalog is carried out.
#[derive(Debug)]
pub enum Waiting {
    /// A CreateTopics request.
    CreateTopics(create_topics::Waiting),
    /// An AlterConfigs or IncrementalAlterConfigs request.
    AlterConfigs(alter_configs::Waiting),
    /// A DeleteTopics request.
    DeleteTopics(delete_topics::Waiting),
    /// A CreatePartitions request.
    CreatePartitions(create_partitions::Waiting),
    /// A FindCoordinator request that waits for the offsets topic.
    FindCoordinator(find_coordinator::Waiting),
    /// A Metadata request whose topics are being created.
    Metadata(metadata::Waiting),
}

/// What waits for the catalog on this shard.
#[derive(Debug)]
pub struct Ops {
    controller: Controller,
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

impl Ops {
    pub(crate) fn new(controller: Controller) -> Self {
        Self {
            controller,
            next: 0,
            waiting: HashMap::new(),
        }
    }

    /// Sends `action` to the catalog; `waiting` comes back with the outcome.
    pub fn submit(&mut self, action: Action, waiting: Waiting) {
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.controller.submit(self.next, action);
    }

    /// What waited for `op`.
    pub(crate) fn take(&mut self, op: u64) -> Option<Waiting> {
        self.waiting.remove(&op)
    }

    /// Passes mail on to another shard.
    pub(crate) fn post(&self, to: u32, mail: Mail) {
        self.controller.post(to, mail);
    }

    /// Tells the catalog that this shard knows `version`.
    pub(crate) fn applied(&self, version: u64) {
        self.controller.applied(version);
    }
}
