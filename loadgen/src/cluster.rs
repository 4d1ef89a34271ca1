//! The topics of a run, their partitions, and who leads them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kafka_wire::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_wire::delete_topics_request::DeleteTopicState;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse,
};
use kafka_wire_core::StrBytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::{ControlClient, ControlError, api, error_code, fetch, produce};

/// Longest wait for an answer to a control request.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for every partition of a new topic to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(60);
/// Metadata is asked for at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// Topics in one Metadata request.
const METADATA_TOPICS_MAX: usize = 1000;
/// Partitions that a CreateTopics request may ask for: Kafka's controller refuses more.
const CREATED_PARTITIONS_MAX: usize = 10_000;
/// Highest versions of the APIs this client knows.
mod version {
    pub(super) const METADATA: i16 = 12;
    pub(super) const CREATE_TOPICS: i16 = 7;
    pub(super) const DELETE_TOPICS: i16 = 6;
    pub(super) const LIST_OFFSETS: i16 = 7;
    pub(super) const INIT_PRODUCER_ID: i16 = 4;
}

/// Which topics a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// Brokers to ask first, `HOST:PORT` each.
    pub bootstrap: Vec<String>,
    /// Name of the topic; several topics are called `<name>-0`, `<name>-1` and so on.
    pub topic: String,
    /// Number of topics.
    pub topics: usize,
    /// Partitions of each topic; `None` takes what is there, or 1 for a new topic.
    pub partitions: Option<i32>,
    /// Replicas of a new topic, -1 for the broker's default.
    pub replication_factor: i16,
    /// Configuration of a new topic.
    pub configs: Vec<(String, String)>,
}

impl TopicSpec {
    /// Names of the topics, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        if self.topics <= 1 {
            return vec![self.topic.clone()];
        }
        (0..self.topics)
            .map(|index| format!("{}-{index}", self.topic))
            .collect()
    }
}

/// One partition of the run's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Index of the topic's name.
    pub topic: u32,
    /// Index within the topic.
    pub index: i32,
    /// Node id of the leader, -1 for none.
    pub leader: i32,
}

/// The run's topics as of some moment. Partitions keep their places from one moment to the next.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Names of the topics.
    pub topics: Vec<String>,
    /// All partitions, by topic and index.
    pub partitions: Vec<Partition>,
    /// Node id to `HOST:PORT`.
    pub brokers: BTreeMap<i32, String>,
    /// Rises with every change.
    pub revision: u64,
}

impl Cluster {
    /// Node ids that lead a partition, each once.
    #[must_use]
    pub fn leaders(&self) -> Vec<i32> {
        let mut leaders: Vec<_> = self
            .partitions
            .iter()
            .map(|partition| partition.leader)
            .filter(|leader| self.brokers.contains_key(leader))
            .collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// Name of a partition's topic.
    #[must_use]
    pub fn topic_name(&self, partition: &Partition) -> &str {
        &self.topics[partition.topic as usize]
    }
}

/// Why the topics are not ready.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A request failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The topic is there with another number of partitions.
    #[error(
        "topic {topic} has {have} partitions, not {wanted}: leave out --partitions or name another topic"
    )]
    Partitions {
        /// Its name.
        topic: String,
        /// Partitions it has.
        have: usize,
        /// Partitions asked for.
        wanted: i32,
    },
    /// The topic is not there.
    #[error("topic {0} does not exist")]
    NoTopic(String),
    /// The broker lacks an API of the hot path.
    #[error("{address} does not speak {api} version {version}")]
    NotSpoken {
        /// `HOST:PORT`.
        address: String,
        /// Kafka's name of the API.
        api: &'static str,
        /// The version this client needs.
        version: i16,
    },
    /// The broker's transactions are of the first generation.
    #[error(
        "the broker has no transactions of the second generation (feature transaction.version at 2, Produce 12, EndTxn 5): \
         --transaction-generation 1, or auto"
    )]
    Generation,
    /// No leaders in time.
    #[error("{missing} partitions have no leader after {} s", LEADER_WAIT.as_secs())]
    NoLeaders {
        /// How many.
        missing: usize,
    },
}

/// An end of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The first offset there is.
    First,
    /// The next one there will be.
    Next,
    /// The first one of a transaction that is not decided, or the next one.
    Stable,
}

/// Shared, replaceable view of the cluster.
#[derive(Debug)]
pub struct ClusterHandle {
    spec: TopicSpec,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cluster: Arc<Cluster>,
    refreshed: Instant,
}

impl ClusterHandle {
    /// Connects, creates the topics that are missing if `create` is set, and waits until all partitions have leaders.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn prepare(spec: TopicSpec, create: bool) -> Result<Self, ClusterError> {
        let mut client = connect_any(&spec.bootstrap)?;
        for (key, name, version) in [
            (api::PRODUCE, "Produce", produce::VERSION),
            (api::FETCH, "Fetch", fetch::VERSION),
        ] {
            if !client.speaks(key, version) {
                let address = spec.bootstrap.join(",");
                return Err(ClusterError::NotSpoken {
                    address,
                    api: name,
                    version,
                });
            }
        }
        let names = spec.names();
        create_missing(&mut client, &spec, &names, create)?;
        let deadline = Instant::now() + LEADER_WAIT;
        let cluster = loop {
            let cluster = load(&mut client, &names)?;
            let missing = cluster
                .partitions
                .iter()
                .filter(|partition| partition.leader < 0)
                .count();
            let complete = names.iter().enumerate().all(|(topic, _)| {
                let have = cluster
                    .partitions
                    .iter()
                    .filter(|p| p.topic as usize == topic)
                    .count();
                have > 0 && spec.partitions.is_none_or(|wanted| have >= wanted as usize)
            });
            if missing == 0 && complete {
                break cluster;
            }
            if Instant::now() > deadline {
                return Err(ClusterError::NoLeaders {
                    missing: missing.max(1),
                });
            }
            thread::sleep(Duration::from_millis(100));
        };
        if let Some(wanted) = spec.partitions {
            for (topic, name) in names.iter().enumerate() {
                let have = cluster
                    .partitions
                    .iter()
                    .filter(|p| p.topic as usize == topic)
                    .count();
                if have != wanted as usize {
                    return Err(ClusterError::Partitions {
                        topic: name.clone(),
                        have,
                        wanted,
                    });
                }
            }
        }
        let state = State {
            cluster: Arc::new(cluster),
            refreshed: Instant::now(),
        };
        let handle = Self {
            spec,
            state: Mutex::new(state),
        };
        // A leader that metadata names may not know of it yet: it does when it answers for its offsets.
        handle.patiently(|handle| handle.offsets(Edge::Next))?;
        Ok(handle)
    }

    /// A client of any broker that answers, those asked first before the others.
    ///
    /// # Errors
    /// [`ControlError`] of the last one tried.
    pub(crate) fn any_client(&self, timeout: Duration) -> Result<ControlClient, ControlError> {
        let cluster = self.current();
        let addresses = self.spec.bootstrap.iter().chain(cluster.brokers.values());
        let addresses: Vec<String> = addresses.cloned().collect();
        connect_within(&addresses, timeout)
    }

    /// Tries again, with fresh metadata, for as long as the broker says that it is not ready.
    pub(crate) fn patiently<T>(
        &self,
        mut attempt: impl FnMut(&Self) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            match attempt(self) {
                Err(ControlError::Refused { code, .. })
                    if error_code::passes(code) && Instant::now() < deadline =>
                {
                    thread::sleep(REFRESH_PAUSE);
                    self.refresh(self.current().revision);
                }
                result => return result,
            }
        }
    }

    /// The view as it stands.
    #[must_use]
    pub fn current(&self) -> Arc<Cluster> {
        Arc::clone(
            &self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .cluster,
        )
    }

    /// Asks for metadata again if nobody did since `seen` and not just now. Without an answer the old view stays.
    pub fn refresh(&self, seen: u64) -> Arc<Cluster> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.cluster.revision == seen && state.refreshed.elapsed() >= REFRESH_PAUSE {
            state.refreshed = Instant::now();
            let addresses: Vec<String> = state
                .cluster
                .brokers
                .values()
                .chain(&self.spec.bootstrap)
                .cloned()
                .collect();
            let fresh = connect_within(&addresses, Duration::from_secs(1))
                .and_then(|mut client| load(&mut client, &state.cluster.topics));
            if let Ok(mut fresh) = fresh
                && fresh.partitions.len() == state.cluster.partitions.len()
            {
                fresh.revision = seen + 1;
                state.cluster = Arc::new(fresh);
            }
        }
        Arc::clone(&state.cluster)
    }

    /// A producer id and epoch for an idempotent producer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn producer_id(&self) -> Result<(i64, i16), ControlError> {
        self.patiently(Self::new_producer_id)
    }

    fn new_producer_id(&self) -> Result<(i64, i16), ControlError> {
        let mut client = connect_any(&self.spec.bootstrap)?;
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        request.transaction_timeout_ms = 60_000;
        request.producer_id = -1;
        request.producer_epoch = -1;
        let answer = client.call(&request, version::INIT_PRODUCER_ID)?;
        if answer.error_code != 0 {
            return Err(ControlError::refused(
                "InitProducerId",
                answer.error_code,
                None,
            ));
        }
        Ok((answer.producer_id, answer.producer_epoch))
    }

    /// The offset at an edge of every partition, in the order of [`Cluster::partitions`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn offsets(&self, edge: Edge) -> Result<Vec<i64>, ControlError> {
        let cluster = self.current();
        let mut offsets = vec![-1; cluster.partitions.len()];
        for leader in cluster.leaders() {
            let mut client = ControlClient::connect(&cluster.brokers[&leader], CONTROL_TIMEOUT)?;
            let answer = client.call(
                &offsets_request(&cluster, leader, edge),
                version::LIST_OFFSETS,
            )?;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let name = topic.name.as_str();
                    if partition.error_code != 0 {
                        let what = format!("ListOffsets of {name}/{}", partition.partition_index);
                        return Err(ControlError::refused(what, partition.error_code, None));
                    }
                    let place = cluster.partitions.iter().position(|p| {
                        p.index == partition.partition_index && cluster.topic_name(p) == name
                    });
                    if let Some(place) = place {
                        offsets[place] = partition.offset;
                    }
                }
            }
        }
        if offsets.iter().any(|&offset| offset < 0) {
            return Err(ControlError::refused(
                "ListOffsets",
                5,
                Some("a partition was left out"),
            ));
        }
        Ok(offsets)
    }

    /// Deletes the run's topics.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn delete_topics(&self) -> Result<(), ControlError> {
        let mut client = connect_any(&self.spec.bootstrap)?;
        let names = self.spec.names();
        let mut request = DeleteTopicsRequest::default();
        request.timeout_ms = CONTROL_TIMEOUT.as_millis() as i32;
        request.topic_names = names
            .iter()
            .map(|name| StrBytes::from(name.as_str()))
            .collect();
        request.topics = names
            .iter()
            .map(|name| {
                let mut topic = DeleteTopicState::default();
                topic.name = Some(StrBytes::from(name.as_str()));
                topic
            })
            .collect();
        // Version 6 names topics in another field than the versions before, and refuses both at once.
        if client.speaks(20, version::DELETE_TOPICS) {
            request.topic_names.clear();
        } else {
            request.topics.clear();
        }
        let answer = client.call(&request, version::DELETE_TOPICS)?;
        for topic in &answer.responses {
            if topic.error_code != 0 {
                let name = topic.name.as_ref().map_or("", |name| name.as_str());
                let what = format!("deleting topic {name}");
                return Err(ControlError::refused(what, topic.error_code, None));
            }
        }
        Ok(())
    }
}

fn connect_any(addresses: &[String]) -> Result<ControlClient, ControlError> {
    connect_within(addresses, CONTROL_TIMEOUT)
}

fn connect_within(addresses: &[String], timeout: Duration) -> Result<ControlClient, ControlError> {
    let mut last = ControlError::refused("no bootstrap address", 8, None);
    for address in addresses {
        match ControlClient::connect(address, timeout) {
            Ok(client) => return Ok(client),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn metadata(
    client: &mut ControlClient,
    names: &[String],
) -> Result<MetadataResponse, ControlError> {
    let mut request = MetadataRequest::default();
    request.allow_auto_topic_creation = false;
    request.topics = Some(
        names
            .iter()
            .map(|name| {
                let mut topic = MetadataRequestTopic::default();
                topic.name = Some(StrBytes::from(name.as_str()));
                topic
            })
            .collect(),
    );
    client.call(&request, version::METADATA)
}

/// Reads the view of the named topics; a topic that is not there yet has no partitions.
fn load(client: &mut ControlClient, names: &[String]) -> Result<Cluster, ControlError> {
    let mut cluster = Cluster {
        topics: names.to_vec(),
        ..Cluster::default()
    };
    for (chunk_index, chunk) in names.chunks(METADATA_TOPICS_MAX).enumerate() {
        let answer = metadata(client, chunk)?;
        for broker in &answer.brokers {
            cluster.brokers.insert(
                broker.node_id,
                format!("{}:{}", broker.host.as_str(), broker.port),
            );
        }
        for topic in &answer.topics {
            let Some(place) = chunk.iter().position(|name| {
                topic
                    .name
                    .as_ref()
                    .is_some_and(|have| have.as_str() == name)
            }) else {
                continue;
            };
            if topic.error_code != 0 && !error_code::wants_metadata(topic.error_code) {
                let what = format!("metadata of topic {}", chunk[place]);
                return Err(ControlError::refused(what, topic.error_code, None));
            }
            let topic_index = (chunk_index * METADATA_TOPICS_MAX + place) as u32;
            cluster
                .partitions
                .extend(topic.partitions.iter().map(|partition| Partition {
                    topic: topic_index,
                    index: partition.partition_index,
                    leader: partition.leader_id,
                }));
        }
    }
    cluster
        .partitions
        .sort_unstable_by_key(|partition| (partition.topic, partition.index));
    Ok(cluster)
}

fn create_missing(
    client: &mut ControlClient,
    spec: &TopicSpec,
    names: &[String],
    create: bool,
) -> Result<(), ClusterError> {
    let cluster = load(client, names)?;
    let missing: Vec<&String> = names
        .iter()
        .enumerate()
        .filter(|(topic, _)| {
            !cluster
                .partitions
                .iter()
                .any(|p| p.topic as usize == *topic)
        })
        .map(|(_, name)| name)
        .collect();
    if let (Some(name), false) = (missing.first(), create) {
        return Err(ClusterError::NoTopic((*name).clone()));
    }
    let each = usize::try_from(spec.partitions.unwrap_or(1)).unwrap_or(0);
    let at_once = (CREATED_PARTITIONS_MAX / each.max(1)).clamp(1, METADATA_TOPICS_MAX);
    for chunk in missing.chunks(at_once) {
        let mut request = CreateTopicsRequest::default();
        request.timeout_ms = CONTROL_TIMEOUT.as_millis() as i32;
        request.topics = chunk.iter().map(|name| creatable(spec, name)).collect();
        let answer = client.call(&request, version::CREATE_TOPICS)?;
        for topic in &answer.topics {
            // 36: somebody else was quicker; 7: slow, the wait for leaders decides.
            if ![0, 36, 7].contains(&topic.error_code) {
                let message = topic.error_message.as_ref().map(|text| text.as_str());
                let what = format!("creating topic {}", topic.name.as_str());
                return Err(ControlError::refused(what, topic.error_code, message).into());
            }
        }
    }
    Ok(())
}

fn creatable(spec: &TopicSpec, name: &str) -> CreatableTopic {
    let mut topic = CreatableTopic::default();
    topic.name = StrBytes::from(name);
    topic.num_partitions = spec.partitions.unwrap_or(1);
    topic.replication_factor = spec.replication_factor;
    topic.configs = spec
        .configs
        .iter()
        .map(|(key, value)| {
            let mut config = CreatableTopicConfig::default();
            config.name = StrBytes::from(key.as_str());
            config.value = Some(StrBytes::from(value.as_str()));
            config
        })
        .collect();
    topic
}

fn offsets_request(cluster: &Cluster, leader: i32, edge: Edge) -> ListOffsetsRequest {
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.isolation_level = i8::from(edge == Edge::Stable);
    for (topic_index, name) in cluster.topics.iter().enumerate() {
        let mut topic = ListOffsetsTopic::default();
        topic.name = StrBytes::from(name.as_str());
        topic.partitions = cluster
            .partitions
            .iter()
            .filter(|p| p.topic as usize == topic_index && p.leader == leader)
            .map(|p| {
                let mut partition = ListOffsetsPartition::default();
                partition.partition_index = p.index;
                partition.current_leader_epoch = -1;
                partition.timestamp = if edge == Edge::First { -2 } else { -1 };
                partition
            })
            .collect();
        if !topic.partitions.is_empty() {
            request.topics.push(topic);
        }
    }
    request
}
