//! What a transactional connection keeps of its transaction, and its link to the coordinator.
//!
//! One transaction at a time: its batches go out like any others, are acked, and count when EndTxn is answered. What is
//! refused or lost dooms it: then it is aborted, and the next one begins with a new epoch.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_wire::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_wire::{AddPartitionsToTxnRequest, EndTxnRequest, RequestResponsePair};
use kafka_wire_core::StrBytes;

use super::ack::refuse;
use super::connection::Context;
use super::request::{FlightPart, Identity};
use crate::cluster::{Cluster, Partition};
use crate::coordinator::{BACK_OFF_MAX, BACK_OFF_MIN, Generation, TransactionOptions};
use crate::net::{Link, Poller};
use crate::protocol::produce::Ack;
use crate::protocol::{control, error_code};
use crate::shared::{CONNECT_TIMEOUT, RECONNECT_PAUSE, Shared, connection_error};

/// Answers of the coordinator are small.
const RECEIVE_CAPACITY: usize = 4096;
/// The newest AddPartitionsToTxn that clients send; later ones are for brokers.
const ADD_PARTITIONS_VERSION: i16 = 3;

/// What a transaction is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Batches may be sent.
    Open,
    /// The coordinator is told of partitions, by their places, that are written to next.
    Adding(Vec<(u32, Partition)>),
    /// The coordinator is told how it ends.
    Ending {
        committed: bool,
        /// When that was first due.
        since: Instant,
    },
    /// Another producer has the id: the connection has done its work.
    Fenced,
}

/// A transaction and its coordinator.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) generation: Generation,
    pub(super) phase: Phase,
    /// Set before the first transaction, and after one that left the producer's epoch of no use.
    pub(super) wants_producer: bool,
    /// Records sent in it.
    pub(super) sent: u64,
    /// When the first of them should have been sent.
    pub(super) begun: Option<Instant>,
    /// Batches with an ack, with their base offsets.
    pub(super) acked: Vec<(FlightPart, i64)>,
    /// Places of partitions that the coordinator knows of, in the first generation.
    pub(super) added: BTreeSet<u32>,
    /// Batches that came too early, to be sent again as they were, in order.
    pub(super) again: VecDeque<(Instant, FlightPart)>,
    /// When the request was due that waits for its partitions to be added.
    pub(super) held: Option<Instant>,
    /// It can only be aborted.
    pub(super) doomed: bool,
    /// The run is over: no new transaction, and what there is of this one is committed.
    pub(super) closing: bool,
    /// When what is next may be sent.
    pub(super) due: Instant,
    token: usize,
    link: Option<Link>,
    address: Option<String>,
    correlation: i32,
    /// Whether the coordinator has a request to answer.
    asked: bool,
    pause: Duration,
}

impl Transaction {
    /// No transaction yet; `token` is for the link to the coordinator.
    pub(super) fn new(options: &TransactionOptions, slot: usize, token: usize) -> Self {
        Self {
            id: options.id_of(slot),
            generation: options.generation.unwrap_or(Generation::First),
            phase: Phase::Open,
            wants_producer: true,
            sent: 0,
            begun: None,
            acked: Vec::new(),
            added: BTreeSet::new(),
            again: VecDeque::new(),
            held: None,
            doomed: false,
            closing: false,
            due: Instant::now(),
            token,
            link: None,
            address: None,
            correlation: 0,
            asked: false,
            pause: BACK_OFF_MIN,
        }
    }

    /// Whether the coordinator or a broker may know of it.
    pub(super) fn has_begun(&self) -> bool {
        self.sent > 0 || !self.added.is_empty()
    }

    /// Whether batches may be sent, as far as the transaction goes.
    pub(super) fn has_room(&self, records_max: u64) -> bool {
        self.phase == Phase::Open
            && !self.wants_producer
            && !self.doomed
            && !self.closing
            && self.held.is_none()
            && self.again.is_empty()
            && self.sent < records_max
    }

    /// When there is something to do again without anything being heard, if so.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let waits = match self.phase {
            Phase::Fenced => false,
            Phase::Open => self.wants_producer || !self.again.is_empty(),
            Phase::Adding(_) | Phase::Ending { .. } => !self.asked,
        };
        waits.then_some(self.due)
    }

    /// Whether a request to the coordinator is to be sent now.
    pub(super) fn wants_to_ask(&self, now: Instant) -> bool {
        !self.asked
            && now >= self.due
            && matches!(self.phase, Phase::Adding(_) | Phase::Ending { .. })
    }

    /// Goes over to a phase whose request is due at once.
    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.due = now;
        self.pause = BACK_OFF_MIN;
    }

    /// Waits a little longer than the last time.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(BACK_OFF_MAX);
    }

    /// Gives the link up; what was asked is asked again. With `lost`, the coordinator is looked for anew.
    pub(super) fn disconnect(&mut self, now: Instant, lost: bool) {
        self.link = None;
        self.asked = false;
        if lost {
            self.address = None;
        }
        self.due = now + RECONNECT_PAUSE;
    }

    /// Asks the coordinator what the phase asks for. The error is a name for the tables.
    pub(super) fn ask(
        &mut self,
        shared: &Shared,
        poller: &Poller,
        cluster: &Cluster,
        identity: &Identity,
    ) -> Result<(), String> {
        if self.link.is_none() {
            let address = match self.address.take() {
                Some(address) => address,
                None => shared
                    .cluster
                    .coordinator(&self.id)
                    .map_err(|error| error.to_string())?,
            };
            let link = Link::connect(
                &address,
                CONNECT_TIMEOUT,
                poller,
                self.token,
                RECEIVE_CAPACITY,
            );
            self.link = Some(link.map_err(|error| connection_error(&error))?);
            self.address = Some(address);
        }
        self.correlation = self.correlation.wrapping_add(1);
        let frame = match &self.phase {
            Phase::Adding(partitions) => {
                let request = self.add_partitions(cluster, identity, partitions);
                control::encode(self.correlation, &request, ADD_PARTITIONS_VERSION)
            }
            Phase::Ending { committed, .. } => {
                let mut request = EndTxnRequest::default();
                request.transactional_id = StrBytes::from(self.id.as_str());
                (request.producer_id, request.producer_epoch) = identity.producer;
                request.committed = *committed;
                let version = self.generation.end_txn_version();
                control::encode(self.correlation, &request, version)
            }
            Phase::Open | Phase::Fenced => return Ok(()),
        };
        let frame = frame.map_err(|error| format!("ENCODING ({error})"))?;
        if let Some(link) = &mut self.link {
            link.send.bytes.extend_from_slice(&frame);
            link.flush(None).map_err(|error| connection_error(&error))?;
        }
        self.asked = true;
        Ok(())
    }

    fn add_partitions(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        partitions: &[(u32, Partition)],
    ) -> AddPartitionsToTxnRequest {
        let mut request = AddPartitionsToTxnRequest::default();
        request.v3_and_below_transactional_id = StrBytes::from(self.id.as_str());
        (
            request.v3_and_below_producer_id,
            request.v3_and_below_producer_epoch,
        ) = identity.producer;
        let topics = partitions.chunk_by(|a, b| a.1.topic == b.1.topic);
        request.v3_and_below_topics = topics
            .map(|members| {
                let mut topic = AddPartitionsToTxnTopic::default();
                topic.name = StrBytes::from(cluster.topic_name(&members[0].1));
                topic.partitions = members.iter().map(|member| member.1.index).collect();
                topic
            })
            .collect();
        request
    }

    /// Sends what waits and reads what came: the coordinator's answer, if it is whole. The error is a name for the
    /// tables.
    pub(super) fn hear(&mut self) -> Result<Option<Bytes>, String> {
        let Some(link) = &mut self.link else {
            return Ok(None);
        };
        link.flush(None).map_err(|error| connection_error(&error))?;
        // Edge-triggered: until there is nothing more. One answer at most is under way.
        while link
            .fill()
            .map_err(|error| connection_error(&error))?
            .is_some_and(|more| more)
        {}
        let place = link
            .receive
            .next_frame()
            .map_err(|error| connection_error(&error))?;
        let Some(place) = place else { return Ok(None) };
        let frame = link.receive.frame(place);
        if !self.asked || frame.get(..4) != Some(&self.correlation.to_be_bytes()[..]) {
            return Err("PROTOCOL_VIOLATION (answer out of turn)".into());
        }
        self.asked = false;
        Ok(Some(Bytes::copy_from_slice(frame)))
    }

    /// An answer to a batch.
    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        intended: Instant,
        part: &FlightPart,
        ack: Ack<'_>,
    ) {
        let mut before = self.again.iter();
        let follows = before.any(|(_, earlier)| earlier.place == part.place);
        match ack.error {
            0 => self.acked.push((*part, ack.base_offset)),
            error_code::CONCURRENT_TRANSACTIONS => {
                context.counter.counts.transactions.waits += 1;
                if self.again.is_empty() {
                    self.back_off(Instant::now());
                }
                self.again.push_back((intended, *part));
            }
            // What it follows is sent again before it.
            error_code::OUT_OF_ORDER_SEQUENCE_NUMBER if follows => {
                self.again.push_back((intended, *part));
            }
            error => {
                self.doomed = true;
                refuse(context, part, error);
            }
        }
    }

    /// Forgets the transaction that is over.
    pub(super) fn clear(&mut self, now: Instant) {
        self.enter(Phase::Open, now);
        self.sent = 0;
        self.begun = None;
        self.acked.clear();
        self.added.clear();
        self.again.clear();
        self.held = None;
        self.doomed = false;
    }
}

/// The response in a coordinator's answer. The error is a name for the tables.
fn response<R: RequestResponsePair>(frame: Bytes, version: i16) -> Result<R::Response, String> {
    control::decode::<R>(frame, version)
        .map_err(|error| format!("PROTOCOL_VIOLATION ({} {error})", R::NAME))
}

/// Error code of an EndTxn's answer, with the producer id and epoch it gives from the second generation on.
pub(super) fn read_end(
    frame: Bytes,
    generation: Generation,
) -> Result<(i16, Option<(i64, i16)>), String> {
    let answer = response::<EndTxnRequest>(frame, generation.end_txn_version())?;
    let next = (answer.producer_id, answer.producer_epoch);
    Ok((
        answer.error_code,
        (generation == Generation::Second).then_some(next),
    ))
}

/// Error code of an AddPartitionsToTxn's answer: that of the first partition that has one of its own.
pub(super) fn read_added(frame: Bytes) -> Result<i16, String> {
    /// Another partition's error kept this one from being tried.
    const OPERATION_NOT_ATTEMPTED: i16 = 55;
    let answer = response::<AddPartitionsToTxnRequest>(frame, ADD_PARTITIONS_VERSION)?;
    let topics = &answer.results_by_topic_v3_and_below;
    let codes = topics
        .iter()
        .flat_map(|topic| &topic.results_by_partition)
        .map(|partition| partition.partition_error_code);
    let errors: Vec<i16> = codes.filter(|&code| code != 0).collect();
    let own = errors.iter().find(|&&code| code != OPERATION_NOT_ATTEMPTED);
    Ok(own.or(errors.first()).copied().unwrap_or(0))
}
