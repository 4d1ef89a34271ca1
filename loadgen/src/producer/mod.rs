//! Threads that send batches: closed loop (a new request for every answer) or open loop (at a rate, whatever comes
//! back).

mod ack;
mod connection;
mod plan;
mod request;
mod transaction;
mod transactional;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ringlog_engine::batch::Compression;
use serde::Serialize;

pub use plan::LeaderPlan;

use crate::ack_log::{AckLog, AckLogBuffer};
use crate::cluster::Cluster;
use crate::coordinator::TransactionOptions;
use crate::net::Poller;
use crate::payload::PayloadSpec;
use crate::protocol::produce::Acks;
use crate::shared::{Counter, Message, Outcome, RECONNECT_PAUSE, Role, Shared};
use crate::template::TemplateRing;
use connection::{Connection, Context};

/// Longest wait for outstanding acks after the last send.
const DRAIN_WAIT: Duration = Duration::from_secs(15);
/// Longest sleep: bounds how late a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How to produce.
#[derive(Debug, Clone, Serialize)]
pub struct ProduceOptions {
    /// Connections over all threads.
    pub connections: usize,
    /// Requests without an answer on a connection.
    pub in_flight: usize,
    /// When the broker answers: 0, 1 or -1.
    #[serde(serialize_with = "acks_number")]
    pub acks: Acks,
    /// How long the broker may take for an ack, in milliseconds.
    pub timeout_ms: i32,
    /// Records per second over all threads; `None` for a closed loop.
    pub rate: Option<f64>,
    /// Partitions that get a batch in one request.
    pub partitions_per_request: usize,
    /// Whether every connection is an idempotent producer.
    pub idempotent: bool,
    /// Whether, and how, every connection sends transactions.
    pub transactions: Option<TransactionOptions>,
    /// Codec of the batches.
    #[serde(serialize_with = "codec_name")]
    pub codec: Compression,
    /// What the records hold.
    pub payload: PayloadSpec,
    /// Threads.
    pub threads: usize,
    /// How long before a send is due an open loop stops sleeping and polls, in microseconds.
    pub spin_us: u64,
}

fn acks_number<S: serde::Serializer>(acks: &Acks, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_i16(*acks as i16)
}

fn codec_name<S: serde::Serializer>(codec: &Compression, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{codec:?}").to_lowercase())
}

/// When an open loop sends: every record has its moment, a batch is due with its first.
#[derive(Debug)]
struct Pace {
    next_due: Instant,
    ns_per_record: f64,
    /// Part of a nanosecond not yet added.
    remainder_ns: f64,
}

impl Pace {
    fn advance(&mut self, records: u64) {
        let step = records as f64 * self.ns_per_record + self.remainder_ns;
        let whole = step.floor();
        self.remainder_ns = step - whole;
        self.next_due += Duration::from_nanos(whole as u64);
    }
}

/// One producing thread.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    options: Arc<ProduceOptions>,
    poller: Poller,
    connections: Vec<Connection>,
    context: Context,
    pace: Option<Pace>,
    cluster: Arc<Cluster>,
    plans: Vec<Arc<LeaderPlan>>,
    next_connection: usize,
    ready: Vec<usize>,
}

impl Producer {
    /// The thread at `index` with its share of connections.
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: Arc<ProduceOptions>,
        ring: Arc<TemplateRing>,
        ack_log: Option<&Arc<AckLog>>,
        index: usize,
        to: Sender<Message>,
    ) -> std::io::Result<Self> {
        let cluster = shared.cluster.current();
        let plans = plan::plans(&cluster, options.partitions_per_request);
        let slots = (index..options.connections).step_by(options.threads);
        let mut connections: Vec<_> = slots
            .enumerate()
            .map(|(token, slot)| Connection::new(slot, token, cluster.partitions.len()))
            .collect();
        // Tokens after the connections' own are those of their links to coordinators.
        let count = connections.len();
        for connection in &mut connections {
            connection.transactional(&options, count + connection.token);
        }
        let pace = options.rate.map(|rate| Pace {
            // Threads take turns rather than send at the same moment.
            next_due: shared.schedule.start
                + Duration::from_secs_f64(index as f64 / rate.max(1e-6)),
            ns_per_record: 1e9 * options.connections as f64
                / (rate.max(1e-6) * connections.len().max(1) as f64),
            remainder_ns: 0.0,
        });
        let counter = Counter::new(Role::Produce, to);
        Ok(Self {
            poller: Poller::new()?,
            context: Context {
                ring,
                topics: cluster.topics.clone(),
                counter,
                ack_log: ack_log.map(|log| AckLogBuffer::new(Arc::clone(log))),
                options: Arc::clone(&options),
                run_id: shared.run_id,
                clock: shared.clock,
                scratch: Vec::new(),
                batch: Vec::new(),
                wants_metadata: false,
                unacked_records: 0,
            },
            shared,
            options,
            connections,
            pace,
            cluster,
            plans,
            next_connection: 0,
            ready: Vec::new(),
        })
    }

    /// Runs until the schedule ends and outstanding acks are in.
    pub(crate) fn run(mut self) {
        if self.pace.is_some() {
            // Without this, waits end up to 50 µs late.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        }
        self.assign();
        let end = self.shared.schedule.end();
        loop {
            let now = Instant::now();
            self.context.counter.turn(&self.shared.schedule, now);
            if now >= end || self.shared.stopped() {
                break;
            }
            self.reconnect(now);
            self.turn_transactions();
            match &self.pace {
                Some(_) => self.send_due(),
                None => self.send_all(),
            }
            if self.wait(now).is_err() {
                break;
            }
            self.follow_metadata();
        }
        let behind_s = self.pace.as_ref().map_or(0.0, |pace| {
            Instant::now()
                .min(end)
                .saturating_duration_since(pace.next_due)
                .as_secs_f64()
        });
        self.drain();
        let outcome = Outcome {
            unacked_records: self.context.unacked_records,
            behind_s,
            complete: true,
            ..Outcome::default()
        };
        if let Some(log) = &mut self.context.ack_log {
            log.flush();
        }
        self.context.counter.finish(outcome);
    }

    /// Gives every connection its leader.
    fn assign(&mut self) {
        for connection in &mut self.connections {
            if !self.plans.is_empty() {
                let plan = &self.plans[connection.slot % self.plans.len()];
                connection.assign(Arc::clone(plan));
            }
        }
    }

    fn reconnect(&mut self, now: Instant) {
        for connection in &mut self.connections {
            if connection.wants_link(now) {
                match connection.connect(&self.shared, &self.poller, &self.options) {
                    Ok(()) => self.ready.push(connection.token),
                    Err(name) => {
                        self.context.counter.counts.error(name);
                        connection.retry_at = now + RECONNECT_PAUSE;
                        // The address may be out of date.
                        self.context.wants_metadata = true;
                    }
                }
            }
        }
    }

    /// Does what transactions have to do, whoever was heard from.
    fn turn_transactions(&mut self) {
        if self.options.transactions.is_none() {
            return;
        }
        let now = Instant::now();
        for connection in &mut self.connections {
            let (context, shared) = (&mut self.context, &self.shared);
            if connection.turn(context, shared, &self.poller, &self.cluster, now) {
                self.ready.push(connection.token);
            }
        }
    }

    /// Waits for news of sockets, `timeout` at most, and takes them in.
    fn listen(&mut self, timeout: Duration) -> std::io::Result<()> {
        let (connections, context, ready, cluster) = (
            &mut self.connections,
            &mut self.context,
            &mut self.ready,
            &self.cluster,
        );
        let count = connections.len();
        self.poller.wait(timeout, |token| {
            let Some(connection) = connections.get_mut(token % count.max(1)) else {
                return;
            };
            match token < count {
                true => connection.on_ready(context),
                false => connection.hear(context, cluster),
            }
            ready.push(connection.token);
        })
    }

    /// The earliest moment at which a transaction has something to do again.
    fn wakes_at(&self) -> Option<Instant> {
        let connections = self.connections.iter();
        connections.filter_map(Connection::wakes_at).min()
    }

    /// Closed loop: every connection that was heard from is filled up again.
    fn send_all(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for token in ready.drain(..) {
            self.connections[token].fill(&mut self.context, &self.cluster);
        }
        self.ready = ready;
        // Without acks nothing is heard; a full socket is the only brake.
        if self.options.acks == Acks::None {
            for connection in &mut self.connections {
                connection.fill(&mut self.context, &self.cluster);
            }
        }
    }

    /// Open loop: sends what is due, as far as connections have room.
    fn send_due(&mut self) {
        self.ready.clear();
        let Some(pace) = &mut self.pace else { return };
        let count = self.connections.len();
        while pace.next_due <= Instant::now() && pace.next_due < self.shared.schedule.end() {
            let free = (0..count)
                .map(|step| (self.next_connection + step) % count)
                .find(|&token| self.connections[token].has_room(&self.options));
            let Some(token) = free else { break };
            self.next_connection = (token + 1) % count;
            let intended = pace.next_due;
            let records =
                self.connections[token].send_one(&mut self.context, &self.cluster, intended);
            pace.advance(records.max(1));
        }
    }

    /// Sleeps until there is something to do, and does what sockets offer.
    fn wait(&mut self, now: Instant) -> std::io::Result<()> {
        let mut until = now + SLEEP_MAX;
        if let Some(end) = self.context.counter.interval_end(&self.shared.schedule) {
            until = until.min(end);
        }
        if let Some(pace) = &self.pace
            && self
                .connections
                .iter()
                .any(|connection| connection.has_room(&self.options))
        {
            let spin = Duration::from_micros(self.options.spin_us);
            until = until.min(pace.next_due.checked_sub(spin).unwrap_or(now));
        }
        if let Some(at) = self.wakes_at() {
            until = until.min(at);
        }
        let busy = self.options.acks == Acks::None
            && self
                .connections
                .iter()
                .any(|connection| connection.has_room(&self.options));
        let now = Instant::now();
        let timeout = if busy {
            Duration::ZERO
        } else {
            until.saturating_duration_since(now)
        };
        self.listen(timeout)
    }

    /// Asks for metadata if an answer said that leaders moved, and moves connections.
    fn follow_metadata(&mut self) {
        if !std::mem::take(&mut self.context.wants_metadata) {
            return;
        }
        let seen = self.cluster.revision;
        self.cluster = self.shared.cluster.refresh(seen);
        if self.cluster.revision != seen {
            self.plans = plan::plans(&self.cluster, self.options.partitions_per_request);
            self.assign();
        }
        self.ready.extend(0..self.connections.len());
    }

    /// Waits for outstanding acks.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_WAIT;
        self.connections.iter_mut().for_each(Connection::close);
        while self.connections.iter().any(Connection::is_waiting) && Instant::now() < deadline {
            self.turn_transactions();
            let until = self.wakes_at().unwrap_or(deadline);
            let left = until.saturating_duration_since(Instant::now());
            let waited = self.listen(left.min(SLEEP_MAX));
            self.context
                .counter
                .turn(&self.shared.schedule, Instant::now());
            if waited.is_err() {
                break;
            }
        }
        for connection in &mut self.connections {
            if connection.is_waiting() {
                connection.forsake(&mut self.context);
                connection.fail(&mut self.context, "ACK_NOT_RECEIVED_IN_TIME".into());
            }
        }
        // Intervals that end while waiting belong to the schedule, too.
        self.context
            .counter
            .turn(&self.shared.schedule, Instant::now());
    }
}
