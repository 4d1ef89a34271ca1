//! The catalog's master copy: decides what an action changes. Free of I/O; whoever holds it commits the plan and
//! then adopts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;
use ringlog_engine::id::TopicId;

use super::action::{Action, ConfigOpKind, NewConfigs, NewPartitions, NewTopic, Outcome, Refusal};
use super::{Change, Snapshot, Topic, Update, name};
use crate::config::{Config, topic as topic_config};
use crate::groups::OFFSETS_TOPIC;
use crate::repeats::repeated;
use crate::txn::STATE_TOPIC;
use crate::wire::error;

/// A durable change.
#[derive(Debug, Clone)]
pub enum Write {
    /// Store a topic.
    Put(Arc<Topic>),
    /// Forget a topic.
    Remove(TopicId),
}

/// Partitions that one request may create (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH` of Apache Kafka 4).
const PARTITIONS_A_REQUEST_MAX: usize = 10_000;

/// What an action comes to.
#[derive(Debug)]
pub struct Plan {
    /// For the client.
    pub outcome: Outcome,
    /// To commit.
    pub writes: Vec<Write>,
    /// For the shards; `None` when nothing changes.
    pub update: Option<Update>,
}

/// The master copy.
pub struct Catalog {
    snapshot: Arc<Snapshot>,
    config: Arc<Config>,
    shards: u32,
    new_id: Box<dyn FnMut() -> [u8; 16] + Send>,
}

type Item = Result<Arc<Topic>, Refusal>;

impl Catalog {
    /// A master copy of `snapshot`; `new_id` gives 16 random bytes.
    #[must_use]
    pub fn new(
        snapshot: Arc<Snapshot>,
        config: Arc<Config>,
        shards: u32,
        new_id: Box<dyn FnMut() -> [u8; 16] + Send>,
    ) -> Self {
        Self {
            snapshot,
            config,
            shards,
            new_id,
        }
    }

    /// The topics as of the last adopted update.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Makes a committed update the state.
    pub fn adopt(&mut self, update: &Update) {
        self.snapshot = update.snapshot.clone();
    }

    /// Decides what `action` changes; nothing is changed yet.
    pub fn plan(&mut self, action: &Action) -> Plan {
        let mut draft = Draft {
            snapshot: (*self.snapshot).clone(),
            changes: Vec::new(),
            writes: Vec::new(),
        };
        let (items, validate_only) = match action {
            Action::CreateTopics {
                topics,
                validate_only,
            } => (self.create_topics(&mut draft, topics), *validate_only),
            Action::DeleteTopics(ids) => (ids.iter().map(|id| draft.delete(*id)).collect(), false),
            Action::CreatePartitions {
                topics,
                validate_only,
            } => {
                let twice = repeated(topics.iter().map(|topic| &*topic.name));
                let grow = |topic: &NewPartitions| {
                    if twice.contains(&*topic.name) {
                        return Err(named_twice());
                    }
                    self.grow(&mut draft, topic)
                };
                (topics.iter().map(grow).collect(), *validate_only)
            }
            Action::AlterConfigs {
                topics,
                validate_only,
            } => {
                let alter = |t| self.alter(&mut draft, t);
                (topics.iter().map(alter).collect(), *validate_only)
            }
        };
        let outcome = Outcome(items);
        if validate_only || draft.changes.is_empty() {
            return Plan {
                outcome,
                writes: Vec::new(),
                update: None,
            };
        }
        draft.snapshot.version += 1;
        Plan {
            outcome,
            writes: draft.writes,
            update: Some(Update {
                version: draft.snapshot.version,
                snapshot: Arc::new(draft.snapshot),
                changes: draft.changes,
            }),
        }
    }

    fn create_topics(&mut self, draft: &mut Draft, topics: &[NewTopic]) -> Vec<Item> {
        let twice = repeated(topics.iter().map(|topic| &*topic.name));
        let once = |topic: &&NewTopic| !twice.contains(&*topic.name);
        let partitions = topics
            .iter()
            .filter(once)
            .map(|topic| self.asked_for(topic));
        if partitions.sum::<usize>() > PARTITIONS_A_REQUEST_MAX {
            let why = format!("a request may create {PARTITIONS_A_REQUEST_MAX} partitions");
            let refused = |_| Err(Refusal::new(error::POLICY_VIOLATION, why.as_str()));
            return topics.iter().map(refused).collect();
        }
        let create = |topic: &NewTopic| {
            if twice.contains(&*topic.name) {
                return Err(named_twice());
            }
            self.create(draft, topic)
        };
        topics.iter().map(create).collect()
    }

    /// Partitions that a topic would have, as Kafka counts them before it looks any closer.
    fn asked_for(&self, new: &NewTopic) -> usize {
        match new.partitions {
            _ if !new.assignments.is_empty() => new.assignments.len(),
            -1 => self.config.num_partitions.max(0) as usize,
            n => n.max(0) as usize,
        }
    }

    fn create(&mut self, draft: &mut Draft, new: &NewTopic) -> Item {
        let is_internal = matches!(&*new.name, OFFSETS_TOPIC | STATE_TOPIC);
        if is_internal && !new.internal {
            return self.create(draft, &self.internal_topic(new));
        }
        if let Some(why) = name::invalid(&new.name) {
            return Err(Refusal::new(error::INVALID_TOPIC_EXCEPTION, why));
        }
        if draft.snapshot.topic(&new.name).is_some() {
            return Err(Refusal::new(
                error::TOPIC_ALREADY_EXISTS,
                format!("topic {:?} already exists", new.name),
            ));
        }
        if let Some(other) = draft.snapshot.collision(&new.name) {
            return Err(Refusal::new(
                error::INVALID_TOPIC_EXCEPTION,
                format!(
                    "topic {:?} collides with existing topic {other:?}",
                    new.name
                ),
            ));
        }
        let mut id = TopicId((self.new_id)());
        let partitions = self.partitions_of(new, &mut id)?;
        self.check_total(draft, partitions as usize)?;
        let mut configs = BTreeMap::new();
        for (name, value) in &new.configs {
            let checked = match value {
                Some(value) => {
                    topic_config::check_for(&self.config, name, value).map(|()| value.clone())
                }
                None => Err(format!(
                    "null value not supported for topic configs: {name}"
                )),
            };
            let value = checked.map_err(|why| Refusal::new(error::INVALID_CONFIG, why))?;
            configs.insert(name.clone(), value);
        }
        let topic = Arc::new(Topic {
            name: new.name.as_str().into(),
            id,
            partitions,
            log: topic_config::log_config(&self.config, &configs),
            configs,
            internal: new.internal,
        });
        draft.put(topic.clone());
        draft.changes.push(Change::Created {
            topic: topic.clone(),
            first: 0,
        });
        Ok(topic)
    }

    /// The topics of groups and of transactions are the same whoever creates them.
    fn internal_topic(&self, new: &NewTopic) -> NewTopic {
        let mut topic = new.clone();
        topic.internal = true;
        let (partitions, segment_bytes) = match &*new.name {
            OFFSETS_TOPIC => (
                "offsets.topic.num.partitions",
                "offsets.topic.segment.bytes",
            ),
            _ => (
                "transaction.state.log.num.partitions",
                "transaction.state.log.segment.bytes",
            ),
        };
        if topic.partitions == -1 && topic.assignments.is_empty() {
            topic.partitions = self.config.number(partitions) as i32;
        }
        let defaults = [
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", self.config.text(segment_bytes)),
        ];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        topic.configs.splice(0..0, defaults);
        topic
    }

    /// The number of partitions asked for. The topic's id decides which broker leads the first one and so, counting
    /// on, every other: an assignment by hand is honoured by choosing the id.
    fn partitions_of(&self, new: &NewTopic, id: &mut TopicId) -> Result<i32, Refusal> {
        if new.assignments.is_empty() {
            if new.partitions == 0 || new.partitions < -1 {
                return Err(Refusal::new(
                    error::INVALID_PARTITIONS,
                    "the number of partitions must be above 0, or -1 for the default",
                ));
            }
            if new.replication_factor == 0 || new.replication_factor < -1 {
                return Err(Refusal::new(
                    error::INVALID_REPLICATION_FACTOR,
                    "the replication factor must be above 0, or -1 for the default",
                ));
            }
            return Ok(match new.partitions {
                -1 => self.config.num_partitions,
                n => n,
            });
        }
        if new.partitions != -1 || new.replication_factor != -1 {
            return Err(Refusal::new(
                error::INVALID_REQUEST,
                "both replica assignments and a number of partitions or replicas are given",
            ));
        }
        let mut sorted: Vec<_> = new.assignments.iter().collect();
        sorted.sort_by_key(|(index, _)| *index);
        let leaders = sorted
            .iter()
            .enumerate()
            .map(|(at, (index, brokers))| {
                if *index != at as i32 {
                    return Err(assignment(
                        "partitions must be numbered from 0 without gaps",
                    ));
                }
                self.leader(brokers)
            })
            .collect::<Result<Vec<u32>, _>>()?;
        let first = leaders[0];
        for (at, leader) in leaders.iter().enumerate() {
            if (first + at as u32) % self.shards != *leader {
                return Err(placement());
            }
        }
        let prefix = u32::from_be_bytes([0, id.0[0], id.0[1], id.0[2]]) / self.shards.max(1)
            * self.shards
            + first;
        let prefix = if prefix < 1 << 24 {
            prefix
        } else {
            prefix - self.shards
        };
        id.0[..3].copy_from_slice(&prefix.to_be_bytes()[1..]);
        Ok(leaders.len() as i32)
    }

    fn leader(&self, brokers: &[i32]) -> Result<u32, Refusal> {
        let Some(&leader) = brokers.first() else {
            return Err(assignment("a partition without brokers"));
        };
        let mut seen = HashSet::new();
        for broker in brokers {
            if !(0..self.shards as i32).contains(broker) {
                return Err(assignment(&format!("there is no broker {broker}")));
            }
            if !seen.insert(*broker) {
                return Err(assignment(&format!("broker {broker} occurs twice")));
            }
        }
        Ok(leader as u32)
    }

    fn check_total(&self, draft: &Draft, more: usize) -> Result<(), Refusal> {
        let limit = self.config.partitions_max;
        if draft.snapshot.partitions() + more > limit {
            return Err(Refusal::new(
                error::INVALID_PARTITIONS,
                format!("all topics together may have {limit} partitions (ringlog.partitions.max)"),
            ));
        }
        Ok(())
    }

    fn grow(&self, draft: &mut Draft, new: &NewPartitions) -> Item {
        let old = draft.existing(&new.name)?;
        if old.internal {
            // A group's partition follows from their number.
            return Err(internal());
        }
        if new.count <= old.partitions {
            return Err(Refusal::new(
                error::INVALID_PARTITIONS,
                format!(
                    "the topic has {} partitions, {} would not be an increase",
                    old.partitions, new.count
                ),
            ));
        }
        let more = new.count - old.partitions;
        self.check_total(draft, more as usize)?;
        if let Some(assignments) = &new.assignments {
            if assignments.len() != more as usize {
                return Err(assignment(&format!(
                    "{} assignments for {more} new partitions",
                    assignments.len()
                )));
            }
            for (at, brokers) in assignments.iter().enumerate() {
                let partition = old.partitions + at as i32;
                let key = ringlog_engine::id::PartitionKey {
                    topic: old.id,
                    partition,
                };
                if self.leader(brokers)? != key.shard(self.shards) {
                    return Err(placement());
                }
            }
        }
        let topic = Arc::new(Topic {
            partitions: new.count,
            ..(*old).clone()
        });
        draft.put(topic.clone());
        draft.changes.push(Change::Created {
            topic: topic.clone(),
            first: old.partitions,
        });
        Ok(topic)
    }

    fn alter(&self, draft: &mut Draft, new: &NewConfigs) -> Item {
        let old = draft.existing(&new.name)?;
        let mut configs = if new.replace {
            BTreeMap::new()
        } else {
            old.configs.clone()
        };
        for op in &new.ops {
            let invalid = |why| Refusal::new(error::INVALID_CONFIG, why);
            topic_config::known(&op.name).map_err(invalid)?;
            let value = op.value.as_deref().unwrap_or_default();
            let current = configs
                .get(&op.name)
                .cloned()
                .unwrap_or_else(|| topic_config::default_text(&self.config, &op.name));
            match op.kind {
                ConfigOpKind::Delete => {
                    configs.remove(&op.name);
                    continue;
                }
                ConfigOpKind::Set => configs.insert(op.name.clone(), value.into()),
                ConfigOpKind::Append | ConfigOpKind::Subtract => {
                    let list = topic_config::edit_list(&op.name, &current, value, op.kind)
                        .map_err(invalid)?;
                    configs.insert(op.name.clone(), list)
                }
            };
            topic_config::check_for(&self.config, &op.name, &configs[&op.name]).map_err(invalid)?;
        }
        let topic = Arc::new(Topic {
            log: topic_config::log_config(&self.config, &configs),
            configs,
            ..(*old).clone()
        });
        draft.put(topic.clone());
        draft.changes.push(Change::Configured {
            topic: topic.clone(),
        });
        Ok(topic)
    }
}

fn named_twice() -> Refusal {
    Refusal::new(
        error::INVALID_REQUEST,
        "the topic occurs more than once in the request",
    )
}

fn assignment(why: &str) -> Refusal {
    Refusal::new(error::INVALID_REPLICA_ASSIGNMENT, why)
}

fn internal() -> Refusal {
    Refusal::new(
        error::INVALID_TOPIC_EXCEPTION,
        "the topic belongs to the broker",
    )
}

fn placement() -> Refusal {
    assignment("partitions lie on the brokers in turn: each on the broker after its predecessor's")
}

/// A change in the making.
struct Draft {
    snapshot: Snapshot,
    changes: Vec<Change>,
    writes: Vec<Write>,
}

impl Draft {
    fn existing(&self, name: &str) -> Item {
        self.snapshot.topic(name).cloned().ok_or_else(|| {
            Refusal::new(
                error::UNKNOWN_TOPIC_OR_PARTITION,
                format!("topic {name:?} does not exist"),
            )
        })
    }

    fn put(&mut self, topic: Arc<Topic>) {
        self.snapshot.put(topic.clone());
        self.writes.push(Write::Put(topic));
    }

    fn delete(&mut self, id: TopicId) -> Item {
        let Some(topic) = self.snapshot.topic_by_id(id).cloned() else {
            return Err(Refusal::new(
                error::UNKNOWN_TOPIC_ID,
                "the topic does not exist",
            ));
        };
        if topic.internal {
            return Err(internal());
        }
        self.snapshot.remove(&topic);
        self.writes.push(Write::Remove(id));
        self.changes.push(Change::Deleted {
            topic: topic.clone(),
        });
        Ok(topic)
    }
}
