//! Groups of the consumer protocol, by hand: members of a group of one topic with six partitions, unless a test has others.

mod embedded;
mod failures;
mod membership;
mod migration;
mod sim;

use std::cell::RefCell;
use std::collections::BTreeMap;

use kafka_wire::consumer_group_heartbeat_request::TopicPartitions;
use kafka_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::topics::{TopicInfo, Topics};
use super::*;
use crate::wire::{topic_id, uuid};

pub(super) const TOPIC: TopicId = TopicId([9; 16]);

/// Topics that a test makes and changes.
pub(super) struct FakeTopics {
    version: u64,
    by_name: BTreeMap<String, TopicInfo>,
}

impl FakeTopics {
    pub(super) fn new() -> Self {
        let mut topics = Self {
            version: 0,
            by_name: BTreeMap::new(),
        };
        topics.put("topic", TOPIC, 6);
        topics
    }

    pub(super) fn put(&mut self, name: &str, id: TopicId, partitions: i32) {
        self.version += 1;
        self.by_name
            .insert(name.to_owned(), TopicInfo { id, partitions });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.version += 1;
        self.by_name.remove(name);
    }
}

impl Topics for FakeTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.by_name.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        let mut all = self.by_name.iter();
        all.find(|(_, topic)| topic.id == id)
            .map(|(name, _)| name.as_str())
    }

    fn each_name(&self, f: &mut dyn FnMut(&str)) {
        self.by_name.keys().for_each(|name| f(name));
    }
}

thread_local! {
    static TOPICS: RefCell<FakeTopics> = RefCell::new(FakeTopics::new());
}

/// Lets `f` see the topics.
pub(super) fn with_topics<R>(f: impl FnOnce(&FakeTopics) -> R) -> R {
    TOPICS.with_borrow(f)
}

/// A member as its client has it.
pub(super) struct Client {
    pub(super) id: StrBytes,
    pub(super) instance: Option<StrBytes>,
    pub(super) epoch: i32,
    /// Partitions of [`TOPIC`] that it reads.
    pub(super) reads: Vec<i32>,
    /// What it was told to read.
    pub(super) told: Vec<i32>,
}

impl Client {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            instance: None,
            epoch: 0,
            reads: Vec::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn with_instance(id: &str, instance: &str) -> Self {
        Self {
            instance: Some(instance.into()),
            ..Self::new(id)
        }
    }

    /// A whole request, as a member sends when it joins or after an error.
    pub(super) fn full(&self) -> ConsumerGroupHeartbeatRequest {
        let mut request = self.short();
        request.rebalance_timeout_ms = 30_000;
        request.subscribed_topic_names = Some(vec!["topic".into()]);
        request.topic_partitions = Some(self.owned());
        request
    }

    /// A request that says nothing new.
    pub(super) fn short(&self) -> ConsumerGroupHeartbeatRequest {
        let mut request = ConsumerGroupHeartbeatRequest::default();
        request.group_id = "g".into();
        request.member_id = self.id.clone();
        request.instance_id = self.instance.clone();
        request.member_epoch = self.epoch;
        request
    }

    pub(super) fn owned(&self) -> Vec<TopicPartitions> {
        let mut of_topic = TopicPartitions::default();
        of_topic.topic_id = uuid(TOPIC);
        of_topic.partitions = self.reads.clone();
        match self.reads.is_empty() {
            true => Vec::new(),
            false => vec![of_topic],
        }
    }

    /// Takes an answer in: gives up and takes on partitions at once.
    pub(super) fn take(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        self.epoch = response.member_epoch;
        if let Some(told) = partitions(response) {
            self.told = told.clone();
            self.reads = told;
        }
    }
}

/// The partitions of [`TOPIC`] in an answer, if it has an assignment.
pub(super) fn partitions(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    let mut of_topic = topics.filter(|of| topic_id(of.topic_id) == TOPIC);
    Some(
        of_topic
            .next()
            .map_or_else(Vec::new, |of| of.partitions.clone()),
    )
}

impl Rig {
    pub(super) fn topics(&mut self, f: impl FnOnce(&mut FakeTopics)) {
        TOPICS.with_borrow_mut(f);
    }

    pub(super) fn consumer(&mut self, request: &ConsumerGroupHeartbeatRequest) -> u64 {
        self.request(1, |c, now, call| {
            with_topics(|topics| c.consumer_heartbeat(now, call, request, topics));
        })
    }

    pub(super) fn consumer_answer(&mut self, slot: u64) -> ConsumerGroupHeartbeatResponse {
        match self.answer(slot) {
            Some(Response::ConsumerHeartbeat(response)) => response,
            other => panic!("no answer to a ConsumerGroupHeartbeat: {other:?}"),
        }
    }

    /// Sends a request and returns its answer.
    pub(super) fn ask(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let slot = self.consumer(request);
        self.consumer_answer(slot)
    }

    pub(super) fn refused(&mut self, request: &ConsumerGroupHeartbeatRequest) -> i16 {
        let response = self.ask(request);
        assert_ne!(response.error_code, 0);
        assert!(response.error_message.is_some());
        response.error_code
    }

    /// A heartbeat of a client that says what it reads, taken in.
    pub(super) fn beat(&mut self, client: &mut Client) {
        let request = match client.epoch {
            0 => client.full(),
            _ => {
                let mut request = client.short();
                request.topic_partitions = Some(client.owned());
                request
            }
        };
        let response = self.ask(&request);
        client.take(&response);
    }

    /// Heartbeats of all, five seconds apart, until nothing more is to come.
    pub(super) fn settle(&mut self, clients: &mut [Client]) {
        for _ in 0..4 {
            self.pass(5_000);
            clients.iter_mut().for_each(|client| self.beat(client));
        }
    }
}
