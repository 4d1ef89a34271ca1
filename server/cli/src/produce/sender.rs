//! Batches on their way: several requests under way to each leader, answers checked, faults of the way mended.
//!
//! With acks=all the producer is idempotent: batches carry an id and a sequence, so that one which is sent again after a
//! lost connection is stored once. Without it nothing is sent again, and a lost connection is an error.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::produce_response::PartitionProduceResponse;
use kafka_wire::{InitProducerIdRequest, ProduceRequest};
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::control::Sent;
use ringlog_load::protocol::{ControlClient, ControlError, error_code};

use super::Acks;
use super::lines::Place;
use super::pending::Batch;
use crate::client::{Client, Topic, words};
use crate::failure::{Failure, Outcome};

/// Version of Produce: the last that names topics by their names and leaves transactions as they are.
const PRODUCE: i16 = 11;
const INIT_PRODUCER_ID: i16 = 4;
/// Longest a broker may wait for other copies, milliseconds.
const ACK_MS: i32 = 10_000;
/// Bytes of small batches that share a request.
const REQUEST_BYTES: usize = 1 << 20;
/// Pause before a broker that is gone is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Kafka's error for a batch that was stored before.
const DUPLICATE: i16 = 46;
/// Kafka's errors for copies that are missing: they may come back.
const NOT_ENOUGH_REPLICAS: [i16; 2] = [19, 20];

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) records: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
    pub(crate) partitions: BTreeMap<i32, StoredPartition>,
}

/// What was acknowledged of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredPartition {
    pub(crate) records: u64,
    /// `None` if the broker does not say.
    pub(crate) first_offset: Option<i64>,
    pub(crate) last_offset: Option<i64>,
}

/// A batch as it is sent, once or again.
#[derive(Debug)]
struct Built {
    /// Rises with every batch.
    number: u64,
    partition: i32,
    bytes: Bytes,
    record_bytes: u64,
    places: Vec<Place>,
    place: String,
}

struct Link {
    connection: ControlClient,
    under_way: VecDeque<(Sent<ProduceRequest>, Vec<Built>)>,
}

/// The way itself failed: what was on it may be sent again.
struct Lost(Failure);

/// Sends batches.
pub(crate) struct Sender {
    client: Client,
    topic: Topic,
    acks: Acks,
    in_flight_max: usize,
    /// Id and epoch.
    producer: Option<(i64, i16)>,
    sequences: HashMap<i32, i32>,
    next_number: u64,
    backlog: VecDeque<Built>,
    links: HashMap<i32, Link>,
    stored: Stored,
    failing_since: Option<Instant>,
}

impl Sender {
    /// Will send to `topic`.
    pub(crate) fn new(
        mut client: Client,
        topic: Topic,
        acks: Acks,
        in_flight_max: usize,
    ) -> Outcome<Self> {
        let producer = match acks {
            Acks::All => Some(producer_id(&mut client)?),
            Acks::None | Acks::Leader => None,
        };
        Ok(Self {
            client,
            topic,
            acks,
            in_flight_max,
            producer,
            sequences: HashMap::new(),
            next_number: 0,
            backlog: VecDeque::new(),
            links: HashMap::new(),
            stored: Stored::default(),
            failing_since: None,
        })
    }

    /// What was acknowledged so far; with acks=0, what was sent.
    pub(crate) fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// Sends batches as soon as there is room.
    pub(crate) fn send(&mut self, batches: Vec<Batch>) -> Outcome {
        for batch in batches {
            let built = self.build(batch)?;
            self.backlog.push_back(built);
        }
        self.send_backlog()
    }

    /// Waits until everything is acknowledged.
    pub(crate) fn drain(&mut self) -> Outcome {
        loop {
            self.send_backlog()?;
            let waiting = self
                .links
                .iter()
                .find(|(_, link)| !link.under_way.is_empty());
            let Some((&leader, _)) = waiting else {
                return Ok(());
            };
            self.receive_or_mend(leader)?;
        }
    }

    fn build(&mut self, batch: Batch) -> Outcome<Built> {
        let place = batch.place();
        let mut builder = batch.builder;
        if let Some((id, epoch)) = self.producer {
            let sequence = self.sequences.entry(batch.partition).or_insert(0);
            builder = builder.producer(id, epoch, *sequence);
            // Sequences go from the largest back to 0.
            *sequence = (i64::from(*sequence) + batch.records as i64).rem_euclid(1 << 31) as i32;
        }
        let bytes = builder
            .build()
            .map_err(|e| Failure::new(format!("{place}: {e}")))?;
        self.next_number += 1;
        Ok(Built {
            number: self.next_number,
            partition: batch.partition,
            bytes: bytes.into(),
            record_bytes: batch.bytes,
            places: batch.places,
            place,
        })
    }

    fn send_backlog(&mut self) -> Outcome {
        while let Some(first) = self.backlog.front() {
            let leader = self.topic.leader(first.partition);
            let full = |link: &Link| link.under_way.len() >= self.in_flight_max;
            if self.links.get(&leader).is_some_and(full) {
                self.receive_or_mend(leader)?;
                continue;
            }
            let batches = self.take_for(leader);
            if let Err(lost) = self.dispatch(leader, batches)? {
                self.mend(lost)?;
            }
        }
        Ok(())
    }

    /// The first of the backlog, and small ones behind it that go to the same broker, one a partition.
    fn take_for(&mut self, leader: i32) -> Vec<Built> {
        let mut taken: Vec<Built> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.backlog.front() {
            let other = self.topic.leader(next.partition) != leader
                || taken.iter().any(|batch| batch.partition == next.partition)
                || (!taken.is_empty() && bytes + next.bytes.len() > REQUEST_BYTES);
            if other {
                break;
            }
            bytes += next.bytes.len();
            taken.extend(self.backlog.pop_front());
        }
        taken
    }

    fn dispatch(&mut self, leader: i32, batches: Vec<Built>) -> Outcome<Result<(), Lost>> {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.links.entry(leader) {
            match self.client.connection(leader) {
                Ok(connection) => drop(entry.insert(Link {
                    connection,
                    under_way: VecDeque::new(),
                })),
                Err(failure) => {
                    self.put_back(batches);
                    return Ok(Err(Lost(failure)));
                }
            }
        }
        let request = self.request(&batches);
        let Some(link) = self.links.get_mut(&leader) else {
            return Ok(Ok(()));
        };
        match link.connection.send(&request, PRODUCE) {
            Ok(_) if self.acks == Acks::None => {
                batches.iter().for_each(|batch| self.note(batch, -1))
            }
            Ok(sent) => link.under_way.push_back((sent, batches)),
            Err(error @ ControlError::Io { .. }) => {
                self.put_back(batches);
                return Ok(Err(Lost(error.into())));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(()))
    }

    fn request(&self, batches: &[Built]) -> ProduceRequest {
        let mut topic = TopicProduceData::default();
        topic.name = StrBytes::from(self.topic.name.as_str());
        topic.partition_data = batches
            .iter()
            .map(|batch| {
                let mut partition = PartitionProduceData::default();
                partition.index = batch.partition;
                partition.records = Some(batch.bytes.clone());
                partition
            })
            .collect();
        let mut request = ProduceRequest::default();
        request.acks = match self.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        request.timeout_ms = ACK_MS;
        request.topic_data = vec![topic];
        request
    }

    fn receive_or_mend(&mut self, leader: i32) -> Outcome {
        match self.receive(leader)? {
            Ok(()) => Ok(()),
            Err(lost) => self.mend(lost),
        }
    }

    /// Takes the next answer of a broker.
    fn receive(&mut self, leader: i32) -> Outcome<Result<(), Lost>> {
        let Some(link) = self.links.get_mut(&leader) else {
            return Ok(Ok(()));
        };
        let Some((sent, batches)) = link.under_way.pop_front() else {
            return Ok(Ok(()));
        };
        let answer = match link.connection.receive(&sent) {
            Ok(answer) => answer,
            Err(error @ ControlError::Io { .. }) => {
                self.put_back(batches);
                return Ok(Err(Lost(error.into())));
            }
            Err(error) => return Err(error.into()),
        };
        let results: HashMap<i32, &PartitionProduceResponse> = answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .map(|result| (result.index, result))
            .collect();
        let mut lost = None;
        for batch in batches {
            let Some(result) = results.get(&batch.partition) else {
                return Err(Failure::new(format!(
                    "{}: the broker does not say what became of it",
                    batch.place
                )));
            };
            match result.error_code {
                0 => self.note(&batch, result.base_offset),
                DUPLICATE => self.note(&batch, -1),
                code if error_code::passes(code) || NOT_ENOUGH_REPLICAS.contains(&code) => {
                    lost = Some(Lost(refused(&batch, result)));
                    self.put_back(vec![batch]);
                }
                _ => return Err(refused(&batch, result)),
            }
        }
        if lost.is_none() {
            self.failing_since = None;
        }
        Ok(lost.map_or(Ok(()), Err))
    }

    fn note(&mut self, batch: &Built, base_offset: i64) {
        let records = batch.places.len() as u64;
        self.stored.records += records;
        self.stored.bytes += batch.record_bytes;
        let partition = self.stored.partitions.entry(batch.partition).or_default();
        partition.records += records;
        if base_offset >= 0 {
            partition.first_offset.get_or_insert(base_offset);
            partition.last_offset = Some(base_offset + records as i64 - 1);
        }
    }

    fn put_back(&mut self, batches: Vec<Built>) {
        self.backlog.extend(batches);
    }

    /// Takes back everything that is under way, asks who leads now, and has all of it sent again, in order.
    fn mend(&mut self, lost: Lost) -> Outcome {
        for (_, link) in self.links.drain() {
            let batches = link.under_way.into_iter().flat_map(|(_, batches)| batches);
            self.backlog.extend(batches);
        }
        self.backlog
            .make_contiguous()
            .sort_unstable_by_key(|batch| batch.number);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if self.producer.is_none() || since.elapsed() > self.client.timeout() {
            let place = self
                .backlog
                .front()
                .map_or(String::new(), |batch| batch.place.clone());
            return Err(lost
                .0
                .doing(&format!("{place} and later were not acknowledged")));
        }
        thread::sleep(PAUSE);
        if let Ok(topic) = self.client.topic(&self.topic.name) {
            self.topic = topic;
        }
        Ok(())
    }
}

fn producer_id(client: &mut Client) -> Outcome<(i64, i16)> {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    request.transaction_timeout_ms = 60_000;
    request.producer_id = -1;
    request.producer_epoch = -1;
    let deadline = Instant::now() + client.timeout();
    loop {
        let answer = client.call_any(&request, INIT_PRODUCER_ID)?;
        match answer.error_code {
            0 => return Ok((answer.producer_id, answer.producer_epoch)),
            code if error_code::passes(code) && Instant::now() < deadline => thread::sleep(PAUSE),
            code => return Err(ControlError::refused("a producer id", code, None).into()),
        }
    }
}

/// Why a batch was not stored: by the record that is at fault, if the broker says which.
fn refused(batch: &Built, result: &PartitionProduceResponse) -> Failure {
    let said = words(result.error_message.as_ref());
    let record = result.record_errors.first();
    let place = record
        .and_then(|record| batch.places.get(usize::try_from(record.batch_index).ok()?))
        .map_or_else(|| batch.place.clone(), ToString::to_string);
    let said = record
        .and_then(|r| words(r.batch_index_error_message.as_ref()))
        .or(said);
    ControlError::refused(place, result.error_code, said).into()
}
