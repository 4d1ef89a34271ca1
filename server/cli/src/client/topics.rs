//! Topics and their partitions, as Metadata has them.

use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::metadata_response::MetadataResponseTopic;
use kafka_wire::{MetadataRequest, MetadataResponse};
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::{ControlError, error_code};

use super::Client;
use crate::failure::{Failure, Outcome};

/// Highest version of Metadata used here.
const METADATA: i16 = 12;
/// Kafka's error for a topic that is not there.
const UNKNOWN_TOPIC: i16 = 3;
/// How alike a name must be to be offered instead, from 0 to 1.
const LIKENESS_MIN: f64 = 0.75;

/// A topic.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: String,
    /// Its id, zero if the broker has none.
    pub(crate) id: [u8; 16],
    /// It belongs to the broker.
    pub(crate) internal: bool,
    /// By index.
    pub(crate) partitions: Vec<TopicPartition>,
}

/// A partition of a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicPartition {
    /// Its number.
    pub(crate) index: i32,
    /// Node id of its leader, -1 for none.
    pub(crate) leader: i32,
    /// Node ids of those that keep a copy.
    pub(crate) replicas: Vec<i32>,
    /// Those of them that are up to date.
    pub(crate) in_sync: Vec<i32>,
}

impl Topic {
    fn read(topic: &MetadataResponseTopic) -> Self {
        let mut partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|partition| TopicPartition {
                index: partition.partition_index,
                leader: partition.leader_id,
                replicas: partition.replica_nodes.clone(),
                in_sync: partition.isr_nodes.clone(),
            })
            .collect();
        partitions.sort_unstable_by_key(|partition| partition.index);
        Self {
            name: topic
                .name
                .as_ref()
                .map_or("", |name| name.as_str())
                .to_owned(),
            id: topic.topic_id.to_bytes(),
            internal: topic.is_internal,
            partitions,
        }
    }

    /// The partitions called by their numbers, or all.
    pub(crate) fn choose(&self, numbers: &[i32]) -> Outcome<Vec<i32>> {
        let all = self.partitions.iter().map(|partition| partition.index);
        if numbers.is_empty() {
            return Ok(all.collect());
        }
        let mut chosen = numbers.to_vec();
        chosen.sort_unstable();
        chosen.dedup();
        match chosen
            .iter()
            .find(|&&number| !all.clone().any(|index| index == number))
        {
            None => Ok(chosen),
            Some(number) => Err(Failure::new(format!(
                "topic {} has no partition {number}",
                self.name
            ))
            .remedy(format!("it has {}, numbered from 0", self.partitions.len()))),
        }
    }

    /// Node id of a partition's leader, -1 for none.
    pub(crate) fn leader(&self, index: i32) -> i32 {
        let found = self
            .partitions
            .iter()
            .find(|partition| partition.index == index);
        found.map_or(-1, |partition| partition.leader)
    }
}

impl Client {
    /// Asks for topics, or all, and notes where the brokers are.
    fn metadata(&mut self, names: Option<&[&str]>) -> Outcome<MetadataResponse> {
        let mut request = MetadataRequest::default();
        request.allow_auto_topic_creation = false;
        request.topics = names.map(|names| {
            let topic = |name: &&str| {
                let mut topic = MetadataRequestTopic::default();
                topic.name = Some(StrBytes::from(*name));
                topic
            };
            names.iter().map(topic).collect()
        });
        let answer = self.call_any(&request, METADATA)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| {
                (
                    broker.node_id,
                    format!("{}:{}", broker.host.as_str(), broker.port),
                )
            })
            .collect();
        Ok(answer)
    }

    /// All topics, by name.
    pub(crate) fn topics(&mut self) -> Outcome<Vec<Topic>> {
        let answer = self.metadata(None)?;
        let mut topics: Vec<_> = answer.topics.iter().map(Topic::read).collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Notes where the brokers are.
    pub(crate) fn find_brokers(&mut self) -> Outcome {
        self.metadata(Some(&[])).map(drop)
    }

    /// The topic called `name`, or `None`.
    pub(crate) fn find_topic(&mut self, name: &str) -> Outcome<Option<Topic>> {
        let answer = self.metadata(Some(&[name]))?;
        let Some(topic) = answer.topics.first() else {
            return Ok(None);
        };
        match topic.error_code {
            UNKNOWN_TOPIC => Ok(None),
            code if code != 0 && !error_code::wants_metadata(code) => {
                Err(ControlError::refused(format!("topic {name:?}"), code, None).into())
            }
            _ => Ok(Some(Topic::read(topic))),
        }
    }

    /// The topic called `name`; if there is none, says which might be meant.
    pub(crate) fn topic(&mut self, name: &str) -> Outcome<Topic> {
        match self.find_topic(name)? {
            Some(topic) => Ok(topic),
            None => Err(self.unknown_topic(name)),
        }
    }

    /// There is no topic of this name.
    pub(crate) fn unknown_topic(&mut self, name: &str) -> Failure {
        let failure = Failure::new(format!("there is no topic {name:?}"));
        let topics = self.topics().unwrap_or_default();
        match alike(name, topics.iter().map(|topic| topic.name.as_str())) {
            Some(other) => failure.remedy(format!("did you mean {other:?}?")),
            None => failure.remedy("`ringlog topic list` shows what there is"),
        }
    }
}

/// The name that is most like `name`, if one is like it.
pub(crate) fn alike<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase();
    others
        .map(|other| (strsim::jaro_winkler(&folded, &other.to_lowercase()), other))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// Words of a broker about an error.
pub(crate) fn words(text: Option<&StrBytes>) -> Option<&str> {
    text.map(StrBytes::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_like_another_is_offered() {
        let names = ["orders", "payments", "clicks"];
        assert_eq!(alike("Order", names.into_iter()), Some("orders"));
        assert_eq!(alike("paymnets", names.into_iter()), Some("payments"));
        assert_eq!(alike("zzz", names.into_iter()), None);
    }
}
