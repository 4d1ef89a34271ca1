//! One producing connection: building requests, reading acks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::{self, accept, complete, count_batch, refuse};
use super::request::{Flight, Identity, Parts, Sender, Stream, next_parts, records_of};
use super::transaction::{Phase, Transaction};
use super::{LeaderPlan, ProduceOptions};
use crate::ack_log::AckLogBuffer;
use crate::cluster::{Cluster, Partition};
use crate::net::{Link, Poller};
use crate::protocol::produce::{Acks, Format};
use crate::shared::{CONNECT_TIMEOUT, Clock, Counter, Shared, connection_error};
use crate::stats;
use crate::template::TemplateRing;

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
    /// A stamped batch before it is queued.
    pub(super) batch: Vec<u8>,
    /// Set when an answer says that a leader moved.
    pub(super) wants_metadata: bool,
    pub(super) unacked_records: u64,
}

impl Context {
    /// Records after which a transaction ends; without transactions there is no end.
    pub(super) fn records_per_transaction(&self) -> u64 {
        let transactions = self.options.transactions.as_ref();
        transactions.map_or(u64::MAX, |settings| settings.records)
    }
}

/// One producing connection; its slot is the stream id in stamps.
pub(super) struct Connection {
    pub(super) slot: usize,
    pub(super) token: usize,
    pub(super) retry_at: Instant,
    pub(super) link: Option<Link>,
    pub(super) plan: Option<Arc<LeaderPlan>>,
    /// The plan to go over to once nothing is on its way.
    next_plan: Option<Arc<LeaderPlan>>,
    pub(super) next_group: usize,
    pub(super) in_flight: VecDeque<Flight>,
    streams: Vec<Stream>,
    correlation: i32,
    pub(super) identity: Identity,
    /// Set when the producer id is of no more use; a new one is had when nothing is on its way.
    renew: bool,
    pub(super) transaction: Option<Box<Transaction>>,
}

impl Connection {
    /// A connection of its own number and token; `partitions` are those of the run.
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
            identity: Identity::new(None, Format::Plain),
            renew: false,
            transaction: None,
        }
    }

    /// Makes it send transactions; `token` is for its link to the coordinator.
    pub(super) fn transactional(&mut self, options: &ProduceOptions, token: usize) {
        let Some(settings) = &options.transactions else {
            return;
        };
        let transaction = Transaction::new(settings, self.slot, token);
        let format = transaction.generation.produce_format();
        self.identity = Identity::new(Some(transaction.id.clone()), format);
        self.transaction = Some(Box::new(transaction));
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
        let fenced = |transaction: &Transaction| transaction.phase == Phase::Fenced;
        self.link.is_none()
            && self.plan.is_some()
            && now >= self.retry_at
            && !self.transaction.as_deref().is_some_and(fenced)
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
        if options.idempotent && self.transaction.is_none() && self.identity.producer.0 < 0 {
            let producer = shared
                .cluster
                .producer_id()
                .map_err(|error| error.to_string())?;
            self.identity.renew(producer);
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
        let transaction = self
            .transaction
            .as_deref()
            .zip(options.transactions.as_ref());
        if self.renew
            || self.next_plan.is_some()
            || transaction.is_some_and(|(state, settings)| !state.has_room(settings.records))
        {
            return false;
        }
        match options.acks {
            Acks::None => link.send.is_empty(),
            Acks::Leader | Acks::All => self.in_flight.len() < options.in_flight,
        }
    }

    /// Whether acks are outstanding, bytes unsent or a transaction open.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_in_transaction()
            || self
                .link
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
            if let Err(name) = self.submit(context, cluster, now) {
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
        match self.submit(context, cluster, intended) {
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

    /// Queues the next request, or holds it back until its partitions are part of the transaction. Returns its number of
    /// records; the error is a name for the tables.
    fn submit(
        &mut self,
        context: &mut Context,
        cluster: &Cluster,
        intended: Instant,
    ) -> Result<u64, String> {
        let missing = self.partitions_to_add(context);
        let Some(transaction) = self.transaction.as_mut().filter(|_| !missing.is_empty()) else {
            return self.build(context, cluster, intended);
        };
        transaction.held = Some(intended);
        transaction.enter(Phase::Adding(missing), Instant::now());
        let mut streams = self.streams.clone();
        let parts = next_parts(context, &mut streams, &self.identity, self.next_members());
        Ok(records_of(context, &parts))
    }

    /// Partitions of the next request.
    fn next_members(&self) -> &[(u32, Partition)] {
        let Some(plan) = &self.plan else { return &[] };
        &plan.partitions[plan.groups[self.next_group % plan.groups.len()].clone()]
    }

    /// Queues the next request. Returns its number of records; the error is a name for the tables.
    pub(super) fn build(
        &mut self,
        context: &mut Context,
        cluster: &Cluster,
        intended: Instant,
    ) -> Result<u64, String> {
        let Some(plan) = self.plan.as_ref().filter(|_| self.link.is_some()) else {
            return Ok(0);
        };
        let members = &plan.partitions[plan.groups[self.next_group % plan.groups.len()].clone()];
        let parts = next_parts(context, &mut self.streams, &self.identity, members);
        self.next_group = self.next_group.wrapping_add(1);
        let records = records_of(context, &parts);
        if let Some(transaction) = &mut self.transaction {
            transaction.sent += records;
            transaction.begun.get_or_insert(intended);
        }
        self.queue(context, cluster, intended, parts)?;
        Ok(records)
    }

    /// Queues a request with these batches. The error is a name for the tables.
    pub(super) fn queue(
        &mut self,
        context: &mut Context,
        cluster: &Cluster,
        intended: Instant,
        parts: Parts,
    ) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        self.correlation = self.correlation.wrapping_add(1);
        let mut flight = Flight {
            correlation: self.correlation,
            intended,
            parts,
        };
        let sender = Sender {
            slot: self.slot,
            identity: &self.identity,
            streams: &self.streams,
        };
        let put = sender.put(context, cluster, link, &mut flight);
        self.in_flight.push_back(flight);
        put
    }

    pub(super) fn flush(&mut self, context: &mut Context) {
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
                self.identity.producer = (-1, -1);
            }
        }
    }

    fn read_acks(&mut self, context: &mut Context) -> Result<(), String> {
        let mut refused = false;
        while let Some(link) = &mut self.link {
            let next = link.receive.next_frame();
            let Some(place) = next.map_err(|error| connection_error(&error))? else {
                break;
            };
            let frame = link.receive.frame(place);
            let Some((correlation, body)) = frame.split_first_chunk::<4>() else {
                return Err("PROTOCOL_VIOLATION (frame without a correlation id)".into());
            };
            let flight = self
                .in_flight
                .pop_front()
                .filter(|flight| flight.correlation.to_be_bytes() == *correlation)
                .ok_or("PROTOCOL_VIOLATION (answer out of turn)")?;
            let (slot, format, intended) = (self.slot, self.identity.format, flight.intended);
            let transaction = &mut self.transaction;
            let whole = ack::read(context, format, &flight, body, |context, part, ack| match (
                transaction.as_mut(),
                ack.error,
            ) {
                (Some(transaction), _) => transaction.answered(context, intended, part, ack),
                (None, 0) => accept(context, slot, part, ack.base_offset),
                (None, error) => {
                    refused = true;
                    refuse(context, part, error);
                }
            })
            .map_err(|error| format!("PROTOCOL_VIOLATION ({error})"))?;
            if let (Some(transaction), false) = (&mut self.transaction, whole) {
                transaction.doomed = true;
            }
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
            context.unacked_records += records_of(context, &flight.parts);
        }
        self.link = None;
        // What was on its way may be stored or not, so the next sequence is not known.
        match self.transaction {
            Some(_) => self.doom(context),
            None => self.identity.producer = (-1, -1),
        }
        self.renew = false;
        if let Some(plan) = self.next_plan.take() {
            self.plan = Some(plan);
        }
        self.retry_at = Instant::now() + Duration::from_millis(20);
        context.wants_metadata = true;
    }
}
