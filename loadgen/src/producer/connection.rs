//! One producing connection: building requests, reading acks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{LeaderPlan, ProduceOptions};
use crate::ack_log::AckLogBuffer;
use crate::cluster::{Cluster, Partition};
use crate::net::{INLINE_BODY_LEN_MAX, Link, Poller};
use crate::protocol::produce::{self, Ack, Acks};
use crate::protocol::{Malformed, error_code};
use crate::shared::{CONNECT_TIMEOUT, Clock, Counter, Shared, connection_error};
use crate::stats;
use crate::template::{Send, StampBatch, TemplateRing};

/// Acks are small; a burst of them is read at once.
const RECEIVE_CAPACITY: usize = 16 * 1024;

/// What the connections of a thread share.
pub(super) struct Context {
    pub(super) ring: Arc<TemplateRing>,
    pub(super) topics: Vec<String>,
    pub(super) counter: Counter,
    pub(super) ack_log: Option<AckLogBuffer>,
    pub(super) options: Arc<ProduceOptions>,
    pub(super) run_id: u64,
    pub(super) clock: Clock,
    pub(super) scratch: Vec<u8>,
    /// Set when an answer says that a leader moved.
    pub(super) wants_metadata: bool,
    pub(super) unacked_records: u64,
}

/// What a connection has sent to a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    sequence: u64,
    /// Sequence at which the present producer id began.
    producer_start: u64,
    template: u32,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
struct FlightPart {
    partition: Partition,
    template: u32,
    /// Length of the batch in bytes, as sent.
    batch_len: u32,
    first_sequence: u64,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    correlation: i32,
    intended: Instant,
    parts: SmallVec<[FlightPart; 1]>,
}

/// One producing connection; its slot is the stream id in stamps.
pub(super) struct Connection {
    pub(super) slot: usize,
    pub(super) token: usize,
    pub(super) retry_at: Instant,
    link: Option<Link>,
    plan: Option<Arc<LeaderPlan>>,
    /// The plan to go over to once nothing is on its way.
    next_plan: Option<Arc<LeaderPlan>>,
    next_group: usize,
    in_flight: VecDeque<Flight>,
    streams: Vec<Stream>,
    correlation: i32,
    /// Producer id and epoch, -1 for none.
    producer: (i64, i16),
    /// Set when the producer id is of no more use; a new one is had when nothing is on its way.
    renew: bool,
}

impl Connection {
    pub(super) fn new(slot: usize, token: usize, partitions: usize) -> Self {
        Self {
            slot,
            token,
            retry_at: Instant::now(),
            link: None,
            plan: None,
            next_plan: None,
            next_group: slot,
            in_flight: VecDeque::new(),
            streams: vec![Stream::default(); partitions],
            correlation: 0,
            producer: (-1, -1),
            renew: false,
        }
    }

    /// Takes over a plan: at once if it is for the same broker, else when nothing is on its way.
    pub(super) fn assign(&mut self, plan: Arc<LeaderPlan>) {
        match &self.plan {
            Some(present) if present.address == plan.address => self.plan = Some(plan),
            Some(present) if self.link.is_some() && *present != plan => self.next_plan = Some(plan),
            _ => self.plan = Some(plan),
        }
    }

    pub(super) fn wants_link(&self, now: Instant) -> bool {
        self.link.is_none() && self.plan.is_some() && now >= self.retry_at
    }

    /// Connects, and gets a producer id where one is needed. The error is a name for the tables.
    pub(super) fn connect(
        &mut self,
        shared: &Shared,
        poller: &Poller,
        options: &ProduceOptions,
    ) -> Result<(), String> {
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        if options.idempotent && self.producer.0 < 0 {
            self.producer = shared
                .cluster
                .producer_id()
                .map_err(|error| error.to_string())?;
            for stream in &mut self.streams {
                stream.producer_start = stream.sequence;
            }
        }
        let link = Link::connect(
            &plan.address,
            CONNECT_TIMEOUT,
            poller,
            self.token,
            RECEIVE_CAPACITY,
        )
        .map_err(|error| connection_error(&error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Whether another request may be sent now.
    pub(super) fn has_room(&self, options: &ProduceOptions) -> bool {
        let Some(link) = &self.link else { return false };
        if self.renew || self.next_plan.is_some() {
            return false;
        }
        match options.acks {
            Acks::None => link.send.is_empty(),
            Acks::Leader | Acks::All => self.in_flight.len() < options.in_flight,
        }
    }

    /// Whether acks are outstanding or bytes unsent.
    pub(super) fn is_waiting(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| !self.in_flight.is_empty() || !link.send.is_empty())
    }

    /// Closed loop: sends as many requests as there is room for.
    pub(super) fn fill(&mut self, context: &mut Context, cluster: &Cluster) {
        let options = Arc::clone(&context.options);
        if !self.has_room(&options) {
            return;
        }
        let now = Instant::now();
        while self.has_room(&options) {
            if let Err(name) = self.build(context, cluster, now) {
                return self.fail(context, name);
            }
            if options.acks == Acks::None {
                break;
            }
        }
        self.flush(context);
    }

    /// Open loop: sends one request meant for `intended`. Returns its number of records.
    pub(super) fn send_one(
        &mut self,
        context: &mut Context,
        cluster: &Cluster,
        intended: Instant,
    ) -> u64 {
        match self.build(context, cluster, intended) {
            Ok(records) => {
                stats::note(&mut context.counter.counts.send_lag, intended.elapsed());
                self.flush(context);
                records
            }
            Err(name) => {
                self.fail(context, name);
                0
            }
        }
    }

    /// Queues the next request. Returns its number of records; the error is a name for the tables.
    fn build(
        &mut self,
        context: &mut Context,
        cluster: &Cluster,
        intended: Instant,
    ) -> Result<u64, String> {
        let (Some(plan), Some(link)) = (&self.plan, &mut self.link) else {
            return Ok(0);
        };
        let group = &plan.groups[self.next_group % plan.groups.len()];
        self.next_group = self.next_group.wrapping_add(1);
        let members = &plan.partitions[group.clone()];
        let options = &context.options;
        let sent_unix_ns = context.clock.unix_ns(intended);

        link.send.claim();
        let start = link.send.bytes.len();
        self.correlation = self.correlation.wrapping_add(1);
        let topics = 1 + members
            .windows(2)
            .filter(|two| two[0].1.topic != two[1].1.topic)
            .count();
        let out = &mut link.send.bytes;
        produce::put_front(
            out,
            self.correlation,
            options.acks,
            options.timeout_ms,
            topics,
        );
        let mut parts = SmallVec::new();
        let mut elsewhere = 0;
        let mut records = 0;
        let mut topic_before = None;
        for (place, partition) in members {
            let out = &mut link.send.bytes;
            if topic_before != Some(partition.topic) {
                topic_before = Some(partition.topic);
                let count = members
                    .iter()
                    .filter(|m| m.1.topic == partition.topic)
                    .count();
                produce::put_topic(out, cluster.topic_name(partition), count);
            }
            let stream = &mut self.streams[*place as usize];
            let template = &context.ring.templates[stream.template as usize];
            let base_sequence = match self.producer.0 {
                -1 => -1,
                // Sequence numbers of producers go from 0 to i32::MAX and start again.
                _ => ((stream.sequence - stream.producer_start) & 0x7fff_ffff) as i32,
            };
            let send = Send {
                timestamp_ms: (sent_unix_ns / 1_000_000) as i64,
                producer: (self.producer.0, self.producer.1, base_sequence),
            };
            let batch_len = if options.payload.stamped {
                produce::put_partition(out, partition.index, 0);
                let at = out.len();
                let stamp = StampBatch {
                    run_id: context.run_id,
                    stream: self.slot as u32,
                    topic: partition.topic,
                    partition: partition.index as u32,
                    first_sequence: stream.sequence,
                    sent_unix_ns,
                };
                template
                    .put_stamped(out, send, &stamp, options.codec, &mut context.scratch)
                    .map_err(|error| format!("CODEC ({error})"))?;
                let length = out.len() - at;
                out[at - 4..at].copy_from_slice(&(length as i32).to_be_bytes());
                length
            } else {
                produce::put_partition(out, partition.index, template.batch_len());
                template.put_header(out, send);
                if template.body().len() <= INLINE_BODY_LEN_MAX {
                    out.extend_from_slice(template.body());
                } else {
                    link.send.push_body(stream.template as usize);
                    elsewhere += template.body().len();
                }
                template.batch_len()
            };
            parts.push(FlightPart {
                partition: *partition,
                template: stream.template,
                batch_len: batch_len as u32,
                first_sequence: stream.sequence,
            });
            records += u64::from(template.records);
            stream.sequence += u64::from(template.records);
            stream.template = (stream.template + 1) % context.ring.templates.len() as u32;
        }
        produce::finish(&mut link.send.bytes, start, elsewhere);
        self.in_flight.push_back(Flight {
            correlation: self.correlation,
            intended,
            parts,
        });
        Ok(records)
    }

    fn flush(&mut self, context: &mut Context) {
        let Some(link) = &mut self.link else { return };
        if let Err(error) = link.flush(Some(&context.ring)) {
            return self.fail(context, connection_error(&error));
        }
        if context.options.acks == Acks::None && link.send.is_empty() {
            let now = Instant::now();
            while let Some(flight) = self.in_flight.pop_front() {
                complete(context, &flight, now);
                for part in &flight.parts {
                    count_batch(context, part);
                }
            }
        }
    }

    /// The socket has news: sends what waits, reads what came.
    pub(super) fn on_ready(&mut self, context: &mut Context) {
        if self.link.as_ref().is_some_and(|link| !link.send.is_empty()) {
            self.flush(context);
        }
        while let Some(link) = &mut self.link {
            match link.fill() {
                Ok(None) => break,
                Ok(Some(more)) => {
                    if let Err(name) = self.read_acks(context) {
                        return self.fail(context, name);
                    }
                    if !more {
                        break;
                    }
                }
                Err(error) => return self.fail(context, connection_error(&error)),
            }
        }
        if self.in_flight.is_empty() && (self.renew || self.next_plan.is_some()) {
            self.link = None;
            if let Some(plan) = self.next_plan.take() {
                self.plan = Some(plan);
            }
            if std::mem::take(&mut self.renew) {
                self.producer = (-1, -1);
            }
        }
    }

    fn read_acks(&mut self, context: &mut Context) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let now = Instant::now();
        let mut refused = false;
        while let Some(place) = link
            .receive
            .next_frame()
            .map_err(|error| connection_error(&error))?
        {
            let frame = link.receive.frame(place);
            let Some((correlation, body)) = frame.split_first_chunk::<4>() else {
                return Err("PROTOCOL_VIOLATION (frame without a correlation id)".into());
            };
            let flight = self
                .in_flight
                .pop_front()
                .filter(|flight| flight.correlation.to_be_bytes() == *correlation)
                .ok_or("PROTOCOL_VIOLATION (answer out of turn)")?;
            refused |= read_ack(context, self.slot, &flight, body, now)
                .map_err(|error| format!("PROTOCOL_VIOLATION ({error})"))?;
        }
        // The broker expects a refused sequence next: only a new producer id gets past it, once all is answered.
        self.renew |= refused && context.options.idempotent;
        Ok(())
    }

    /// Gives the connection up: what is on its way counts as unacked.
    pub(super) fn fail(&mut self, context: &mut Context, name: String) {
        context.counter.counts.error(name);
        for flight in self.in_flight.drain(..) {
            context.counter.counts.error("REQUEST_UNANSWERED");
            for part in &flight.parts {
                context.unacked_records +=
                    u64::from(context.ring.templates[part.template as usize].records);
            }
        }
        self.link = None;
        if self.producer.0 >= 0 {
            // What was on its way may be stored or not, so the next sequence is not known.
            self.producer = (-1, -1);
        }
        self.renew = false;
        if let Some(plan) = self.next_plan.take() {
            self.plan = Some(plan);
        }
        self.retry_at = Instant::now() + Duration::from_millis(20);
        context.wants_metadata = true;
    }
}

/// Counts a request that was answered.
fn complete(context: &mut Context, flight: &Flight, now: Instant) {
    let latency = now.saturating_duration_since(flight.intended);
    let counts = &mut context.counter.counts;
    counts.latency.saturating_record(latency.as_nanos() as u64);
    counts.requests += 1;
}

/// Counts a batch that was acked.
fn count_batch(context: &mut Context, part: &FlightPart) {
    let template = &context.ring.templates[part.template as usize];
    let counts = &mut context.counter.counts;
    counts.batches += 1;
    counts.records += u64::from(template.records);
    counts.batch_bytes += u64::from(part.batch_len);
    counts.value_bytes += template.value_bytes;
}

/// Reads one answer. Returns whether a partition refused its batch.
fn read_ack(
    context: &mut Context,
    slot: usize,
    flight: &Flight,
    body: &[u8],
    now: Instant,
) -> Result<bool, Malformed> {
    let mut answered = 0;
    let mut refused = false;
    let mut astray = false;
    complete(context, flight, now);
    produce::read_response(body, |ack| {
        // Brokers mostly keep the request's order, but need not.
        let topics = &context.topics;
        let is_it = |part: &&FlightPart| {
            let topic = &topics[part.partition.topic as usize];
            part.partition.index == ack.partition && topic.as_bytes() == ack.topic
        };
        let guess = flight.parts.get(answered).filter(is_it);
        let Some(part) = guess.or_else(|| flight.parts.iter().find(is_it)) else {
            astray = true;
            return;
        };
        answered += 1;
        if ack.error == 0 {
            count_batch(context, part);
            let records = context.ring.templates[part.template as usize].records;
            if let Some(log) = &mut context.ack_log {
                log.note(
                    &part.partition,
                    slot,
                    ack.base_offset,
                    part.first_sequence,
                    records,
                );
            }
        } else {
            refused = true;
            refuse(context, part, ack);
        }
    })?;
    if astray {
        return Err(Malformed("ack of a partition that was not asked for"));
    }
    for _ in answered..flight.parts.len() {
        context.counter.counts.error("PARTITION_UNANSWERED");
    }
    Ok(refused)
}

fn refuse(context: &mut Context, part: &FlightPart, ack: Ack<'_>) {
    context.wants_metadata |= error_code::wants_metadata(ack.error);
    context.unacked_records += u64::from(context.ring.templates[part.template as usize].records);
    context.counter.counts.error(error_code::name(ack.error));
}
