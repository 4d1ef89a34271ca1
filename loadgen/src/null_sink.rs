//! A minimal server that takes batches and throws them away, and gives out one made batch again and again: what the
//! generator reaches against it is the generator's own ceiling.
//!
//! One thread, one node, no checks of what is in a batch. It speaks just what this crate's client needs.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_wire::api_versions_response::ApiVersion as ApiRange;
use kafka_wire::create_topics_response::CreatableTopicResult;
use kafka_wire::delete_topics_response::DeletableTopicResult;
use kafka_wire::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_wire::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_wire::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse,
};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, NewRecord, header::assign};

use crate::net::{Link, Poller};
use crate::protocol::{Cursor, Malformed, api, fetch, produce};

const LISTENER: usize = usize::MAX;
/// Longest sleep: bounds how late a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Room for a large produce request, so that it is read in few calls.
const RECEIVE_CAPACITY: usize = 1 << 20;
/// Most partitions of a topic.
const PARTITIONS_MAX: i32 = 100_000;

/// API keys, and the versions spoken: none of them flexible.
const APIS: [(i16, i16, i16); 8] = [
    (api::PRODUCE, 0, produce::VERSION),
    (api::FETCH, 4, fetch::VERSION),
    (2, 1, 5),
    (3, 1, 8),
    (18, 0, 0),
    (19, 2, 4),
    (20, 1, 3),
    (22, 0, 1),
];

/// What happens to batches.
pub trait Store {
    /// Takes a batch. Returns its base offset.
    fn append(&mut self, partition: PartitionId, batch: &[u8]) -> i64;
    /// Appends batches from `offset` on to `out`, about `max_bytes` of them. Returns the high watermark.
    fn read(
        &mut self,
        partition: PartitionId,
        offset: i64,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> i64;
    /// First and next offset.
    fn range(&mut self, partition: PartitionId) -> (i64, i64);
}

/// Number of the topic in order of creation, and index of the partition.
pub type PartitionId = (usize, i32);

/// Counts offsets and keeps nothing; reads give out one batch for ever.
#[derive(Debug)]
pub struct Discard {
    next_offsets: HashMap<PartitionId, i64>,
    batch: Vec<u8>,
    records: i64,
}

impl Discard {
    /// Gives out batches of `records` records of `record_size` bytes.
    ///
    /// # Panics
    /// Never: an uncompressed batch can always be built.
    #[must_use]
    pub fn new(records: usize, record_size: usize) -> Self {
        let mut builder = BatchBuilder::new();
        let value = vec![b'x'; record_size];
        for _ in 0..records.max(1) {
            builder.push(&NewRecord {
                value: Some(&value),
                ..NewRecord::default()
            });
        }
        let records = builder.record_count() as i64;
        let Ok(batch) = builder.build() else {
            unreachable!("no codec, no error")
        };
        Self {
            next_offsets: HashMap::new(),
            batch,
            records,
        }
    }
}

impl Store for Discard {
    fn append(&mut self, partition: PartitionId, batch: &[u8]) -> i64 {
        let count = BatchHeader::read(batch).map_or(0, |header| header.record_count.get());
        let next = self.next_offsets.entry(partition).or_default();
        let base = *next;
        *next += i64::from(count.max(0));
        base
    }

    fn read(&mut self, _: PartitionId, offset: i64, max_bytes: usize, out: &mut Vec<u8>) -> i64 {
        let mut base = offset.max(0);
        let limit = out.len() + max_bytes.max(self.batch.len());
        while out.len() + self.batch.len() <= limit {
            let at = out.len();
            out.extend_from_slice(&self.batch);
            assign(&mut out[at..], base, 0);
            base += self.records;
        }
        i64::MAX
    }

    fn range(&mut self, _: PartitionId) -> (i64, i64) {
        (0, 0)
    }
}

/// The server.
#[derive(Debug)]
pub struct NullSink<S> {
    listener: TcpListener,
    address: SocketAddr,
    poller: Poller,
    connections: Vec<Option<Link>>,
    core: Core<S>,
}

/// Everything but connections.
#[derive(Debug)]
struct Core<S> {
    address: SocketAddr,
    topics: Vec<(String, i32)>,
    by_name: HashMap<Bytes, usize>,
    store: S,
}

impl<S: Store> NullSink<S> {
    /// Listens at `HOST:PORT`; port 0 takes a free one.
    ///
    /// # Errors
    /// As the system says.
    pub fn bind(address: &str, store: S) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        let core = Core {
            address,
            topics: Vec::new(),
            by_name: HashMap::new(),
            store,
        };
        Ok(Self {
            listener,
            address,
            poller,
            connections: Vec::new(),
            core,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is set.
    ///
    /// # Errors
    /// If waiting fails; errors of a connection close that connection.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut accept = false;
            let (connections, core) = (&mut self.connections, &mut self.core);
            self.poller.wait(SLEEP_MAX, |token| {
                if token == LISTENER {
                    accept = true;
                } else if let Some(slot) = connections.get_mut(token)
                    && slot.as_mut().is_some_and(|link| core.serve(link).is_err())
                {
                    *slot = None;
                }
            })?;
            if accept {
                self.accept_all();
            }
        }
        Ok(())
    }

    fn accept_all(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let free = self.connections.iter().position(Option::is_none);
            let token = free.unwrap_or(self.connections.len());
            if token == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[token] =
                Link::adopt(stream, &self.poller, token, RECEIVE_CAPACITY).ok();
        }
    }
}

impl<S: Store> Core<S> {
    /// Reads and answers what a connection sent.
    fn serve(&mut self, link: &mut Link) -> io::Result<()> {
        loop {
            link.flush(None)?;
            let Some(more) = link.fill()? else {
                return Ok(());
            };
            while let Some(place) = link.receive.next_frame()? {
                let Link { send, receive, .. } = &mut *link;
                self.answer(receive.frame(place), &mut send.bytes)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            link.flush(None)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut cursor = Cursor::new(frame);
        let (key, version, correlation) = (cursor.i16()?, cursor.i16()?, cursor.i32()?);
        cursor.string()?;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&correlation.to_be_bytes());
        let spoken = APIS
            .iter()
            .any(|&(k, low, high)| k == key && (low..=high).contains(&version));
        match key {
            18 => encode(&api_versions(if spoken { 0 } else { 35 }), 0, out)?,
            _ if !spoken => return Err(Malformed("version of an API")),
            api::PRODUCE => {
                if !self.produce(cursor, out)? {
                    out.truncate(start);
                    return Ok(());
                }
            }
            api::FETCH => self.fetch(cursor, out)?,
            _ => {
                let body = Bytes::copy_from_slice(cursor.take(cursor.remaining())?);
                self.control(key, version, body, out)?;
            }
        }
        produce::finish(out, start, 0);
        Ok(())
    }

    fn control(
        &mut self,
        key: i16,
        version: i16,
        body: Bytes,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match key {
            2 => encode(&self.list_offsets(&decode(body, version)?), version, out),
            3 => encode(&self.metadata(&decode(body, version)?), version, out),
            19 => encode(&self.create(&decode(body, version)?), version, out),
            20 => encode(&self.delete(&decode(body, version)?), version, out),
            _ => encode(&InitProducerIdResponse::default(), version, out),
        }
    }

    fn topic(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Answers Produce; `false` if no answer is wanted.
    fn produce(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        cursor.string()?;
        let acks = cursor.i16()?;
        cursor.i32()?;
        let topics = cursor.count()?;
        out.extend_from_slice(&(topics as i32).to_be_bytes());
        for _ in 0..topics {
            let name = cursor.string()?.ok_or(Malformed("topic name"))?;
            let topic = self.topic(name);
            out.extend_from_slice(&(name.len() as i16).to_be_bytes());
            out.extend_from_slice(name);
            let partitions = cursor.count()?;
            out.extend_from_slice(&(partitions as i32).to_be_bytes());
            for _ in 0..partitions {
                let partition = cursor.i32()?;
                let batch = cursor.bytes()?.unwrap_or_default();
                let (error, base) = match topic {
                    Some(topic) => (0i16, self.store.append((topic, partition), batch)),
                    None => (3, -1),
                };
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(&error.to_be_bytes());
                out.extend_from_slice(&base.to_be_bytes());
                out.extend_from_slice(&(-1i64).to_be_bytes());
                out.extend_from_slice(&0i64.to_be_bytes());
                // No record errors, no message.
                out.extend_from_slice(&0i32.to_be_bytes());
                out.extend_from_slice(&(-1i16).to_be_bytes());
            }
        }
        out.extend_from_slice(&0i32.to_be_bytes());
        Ok(acks != 0)
    }

    fn fetch(&mut self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        // Replica, longest wait, fewest bytes.
        cursor.take(12)?;
        let max_bytes = cursor.i32()?.max(0) as usize;
        // Isolation, session id and epoch.
        cursor.take(9)?;
        // Throttle time, error, session id.
        out.extend_from_slice(&[0; 10]);
        let body = out.len();
        let topics = cursor.count()?;
        out.extend_from_slice(&(topics as i32).to_be_bytes());
        for _ in 0..topics {
            let name = cursor.string()?.ok_or(Malformed("topic name"))?;
            let topic = self.topic(name);
            out.extend_from_slice(&(name.len() as i16).to_be_bytes());
            out.extend_from_slice(name);
            let partitions = cursor.count()?;
            out.extend_from_slice(&(partitions as i32).to_be_bytes());
            for _ in 0..partitions {
                let partition = cursor.i32()?;
                cursor.i32()?;
                let offset = cursor.i64()?;
                cursor.i64()?;
                let partition_max = cursor.i32()?.max(0) as usize;
                let error: i16 = if topic.is_some() { 0 } else { 3 };
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(&error.to_be_bytes());
                let marks = out.len();
                out.extend_from_slice(&[0; 24]);
                // No aborted transactions, no preferred replica.
                out.extend_from_slice(&(-1i32).to_be_bytes());
                out.extend_from_slice(&(-1i32).to_be_bytes());
                let at = out.len();
                out.extend_from_slice(&[0; 4]);
                let room = max_bytes.saturating_sub(at - body).min(partition_max);
                if let Some(topic) = topic
                    && room > 0
                {
                    let high = self.store.read((topic, partition), offset, room, out);
                    out[marks..marks + 8].copy_from_slice(&high.to_be_bytes());
                    out[marks + 8..marks + 16].copy_from_slice(&high.to_be_bytes());
                }
                let length = (out.len() - at - 4) as i32;
                out[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    fn list_offsets(&mut self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut response = ListOffsetsResponse::default();
        for topic in &request.topics {
            let number = self.topic(topic.name.as_bytes());
            let mut answer = ListOffsetsTopicResponse::default();
            answer.name = topic.name.clone();
            for partition in &topic.partitions {
                let mut one = ListOffsetsPartitionResponse::default();
                one.partition_index = partition.partition_index;
                match number {
                    Some(number) => {
                        let (first, next) = self.store.range((number, partition.partition_index));
                        one.offset = if partition.timestamp == -2 {
                            first
                        } else {
                            next
                        };
                    }
                    None => one.error_code = 3,
                }
                answer.partitions.push(one);
            }
            response.topics.push(answer);
        }
        response
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let mut response = MetadataResponse::default();
        let mut broker = MetadataResponseBroker::default();
        broker.host = self.address.ip().to_string().into();
        broker.port = i32::from(self.address.port());
        response.brokers = vec![broker];
        let all = || {
            self.topics
                .iter()
                .map(|(name, _)| name.as_str().into())
                .collect()
        };
        let names: Vec<_> = request.topics.as_ref().map_or_else(all, |topics| {
            topics
                .iter()
                .filter_map(|topic| topic.name.clone())
                .collect()
        });
        response.topics = names
            .into_iter()
            .map(|name| {
                let mut topic = MetadataResponseTopic::default();
                match self.topic(name.as_bytes()) {
                    Some(number) => topic.partitions = leaders(self.topics[number].1),
                    None => topic.error_code = 3,
                }
                topic.name = Some(name);
                topic
            })
            .collect();
        response
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut response = CreateTopicsResponse::default();
        for topic in &request.topics {
            let mut result = CreatableTopicResult::default();
            result.name = topic.name.clone();
            if self.topic(topic.name.as_bytes()).is_some() {
                result.error_code = 36;
            } else if topic.num_partitions > PARTITIONS_MAX {
                result.error_code = 37;
            } else {
                let name = Bytes::copy_from_slice(topic.name.as_bytes());
                self.by_name.insert(name, self.topics.len());
                self.topics
                    .push((topic.name.to_string(), topic.num_partitions.max(1)));
            }
            response.topics.push(result);
        }
        response
    }

    fn delete(&mut self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut response = DeleteTopicsResponse::default();
        for name in &request.topic_names {
            let mut result = DeletableTopicResult::default();
            result.name = Some(name.clone());
            if self.by_name.remove(name.as_bytes()).is_none() {
                result.error_code = 3;
            }
            response.responses.push(result);
        }
        response
    }
}

fn leaders(partitions: i32) -> Vec<MetadataResponsePartition> {
    (0..partitions)
        .map(|index| {
            let mut partition = MetadataResponsePartition::default();
            partition.partition_index = index;
            partition
        })
        .collect()
}

fn api_versions(error_code: i16) -> ApiVersionsResponse {
    let mut response = ApiVersionsResponse::default();
    response.error_code = error_code;
    response.api_keys = APIS
        .iter()
        .map(|&(key, low, high)| {
            let mut range = ApiRange::default();
            range.api_key = key;
            range.min_version = low;
            range.max_version = high;
            range
        })
        .collect();
    response
}

fn decode<T: KafkaDecode>(body: Bytes, version: i16) -> Result<T, Malformed> {
    T::decode_from_bytes(body, ApiVersion::new(version), DecodeLimits::default())
        .map_err(|_| Malformed("request"))
}

fn encode<T: KafkaEncode>(response: &T, version: i16, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut bytes = BytesMut::new();
    response
        .encode_into(&mut bytes, ApiVersion::new(version))
        .map_err(|_| Malformed("response"))?;
    out.extend_from_slice(&bytes);
    Ok(())
}
