//! The turns of a connection that sends transactions.

use std::sync::Arc;
use std::time::Instant;

use super::ack::accept;
use super::connection::{Connection, Context};
use super::request::{Parts, records_of};
use super::transaction::{Phase, read_added, read_end};
use crate::cluster::{Cluster, Partition};
use crate::coordinator::Generation;
use crate::net::Poller;
use crate::protocol::ControlError;
use crate::protocol::error_code;
use crate::shared::{RECONNECT_PAUSE, Shared};
use crate::stats::note;

impl Connection {
    /// When there is something to do again without anything being heard, if so.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.transaction.as_ref().and_then(|t| t.wakes_at())
    }

    /// No new transaction; what there is of the present one is committed.
    pub(super) fn close(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.closing = true;
        }
    }

    /// Whether a transaction is not over.
    pub(super) fn is_in_transaction(&self) -> bool {
        let transaction = self.transaction.as_ref();
        transaction.is_some_and(|t| t.phase != Phase::Fenced && t.has_begun())
    }

    /// Does what is due: gets a producer id, ends the transaction, asks the coordinator, sends again. Returns whether
    /// batches may be sent that might not have been before.
    pub(super) fn turn(
        &mut self,
        context: &mut Context,
        shared: &Shared,
        poller: &Poller,
        cluster: &Cluster,
        now: Instant,
    ) -> bool {
        let Some(transaction) = &mut self.transaction else {
            return false;
        };
        let mut fresh = false;
        if transaction.phase == Phase::Open {
            if transaction.wants_producer && now >= transaction.due && !transaction.closing {
                fresh = self.become_producer(context, shared, now);
            } else if self.in_flight.is_empty() {
                self.decide(context, cluster, now);
            }
        }
        let Some(transaction) = &mut self.transaction else {
            return false;
        };
        if transaction.wants_to_ask(now)
            && let Err(name) = transaction.ask(shared, poller, cluster, &self.identity)
        {
            context.counter.counts.error(name);
            transaction.disconnect(now, true);
        }
        fresh
    }

    /// Asks for a producer id, or for the next epoch of the one there is.
    fn become_producer(&mut self, context: &mut Context, shared: &Shared, now: Instant) -> bool {
        let options = Arc::clone(&context.options);
        let (Some(transaction), Some(settings)) = (&mut self.transaction, &options.transactions)
        else {
            return false;
        };
        let before = (self.identity.producer.0 >= 0).then_some(self.identity.producer);
        match shared
            .cluster
            .init_transactional(settings, &transaction.id, before)
        {
            Ok((producer, waits)) => {
                context.counter.counts.transactions.waits += waits;
                self.identity.renew(producer);
                transaction.wants_producer = false;
                true
            }
            Err(ControlError::Refused { code, .. }) if error_code::is_fenced(code) => {
                self.fenced(context);
                false
            }
            Err(error) => {
                transaction.due = now + RECONNECT_PAUSE;
                context.counter.counts.error(error.to_string());
                false
            }
        }
    }

    /// All that was sent is answered: sends again what came too early, or ends the transaction that is full or doomed.
    fn decide(&mut self, context: &mut Context, cluster: &Cluster, now: Instant) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        if transaction.doomed {
            for (_, part) in transaction.again.drain(..) {
                context.unacked_records += records_of(context, &[part]);
            }
            transaction.held = None;
            if !transaction.has_begun() {
                transaction.doomed = false;
                return;
            }
            let phase = Phase::Ending {
                committed: false,
                since: now,
            };
            return transaction.enter(phase, now);
        }
        if !transaction.again.is_empty() {
            if now >= transaction.due && self.link.is_some() {
                self.send_again(context, cluster);
            }
            return;
        }
        let full = transaction.sent >= context.records_per_transaction();
        if full || transaction.closing && transaction.has_begun() && transaction.held.is_none() {
            let phase = Phase::Ending {
                committed: true,
                since: now,
            };
            transaction.enter(phase, now);
        }
    }

    fn send_again(&mut self, context: &mut Context, cluster: &Cluster) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let batches = std::mem::take(&mut transaction.again);
        for (intended, part) in batches {
            let parts = Parts::from_elem(part, 1);
            if let Err(name) = self.queue(context, cluster, intended, parts) {
                return self.fail(context, name);
            }
        }
        self.flush(context);
    }

    /// The link to the coordinator has news.
    pub(super) fn hear(&mut self, context: &mut Context, cluster: &Cluster) {
        let now = Instant::now();
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let heard = match transaction.hear() {
            Ok(None) => return,
            Ok(Some(frame)) => match transaction.phase {
                Phase::Ending { committed, since } => read_end(frame, transaction.generation)
                    .map(|(code, next)| self.ended(context, (committed, since), code, next, now)),
                Phase::Adding(_) => {
                    read_added(frame).map(|code| self.added(context, cluster, code, now))
                }
                Phase::Open | Phase::Fenced => Ok(()),
            },
            Err(name) => Err(name),
        };
        if let (Err(name), Some(transaction)) = (heard, &mut self.transaction) {
            context.counter.counts.error(name);
            transaction.disconnect(now, true);
        }
    }

    /// Whether the coordinator is to be asked again, for a reason that passes.
    fn passes(&mut self, context: &mut Context, code: i16, now: Instant) -> bool {
        let Some(transaction) = &mut self.transaction else {
            return false;
        };
        if code == error_code::CONCURRENT_TRANSACTIONS {
            context.counter.counts.transactions.waits += 1;
            transaction.back_off(now);
            return true;
        }
        if error_code::wants_coordinator(code) {
            context.counter.counts.error(error_code::name(code));
            transaction.disconnect(now, true);
            return true;
        }
        false
    }

    fn added(&mut self, context: &mut Context, cluster: &Cluster, code: i16, now: Instant) {
        if code != 0 && self.passes(context, code, now) {
            return;
        }
        if error_code::is_fenced(code) {
            return self.fenced(context);
        }
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let Phase::Adding(partitions) = std::mem::replace(&mut transaction.phase, Phase::Open)
        else {
            return;
        };
        // Refused or not: some of them may be part of it.
        transaction.added.extend(partitions.iter().map(|p| p.0));
        let held = transaction.held.take();
        if code != 0 {
            transaction.doomed = true;
            return context.counter.counts.error(error_code::name(code));
        }
        if let (Some(intended), true) = (held, self.link.is_some()) {
            match self.build(context, cluster, intended) {
                Ok(_) => self.flush(context),
                Err(name) => self.fail(context, name),
            }
        }
    }

    fn ended(
        &mut self,
        context: &mut Context,
        (committed, since): (bool, Instant),
        code: i16,
        next: Option<(i64, i16)>,
        now: Instant,
    ) {
        if code != 0 && self.passes(context, code, now) {
            return;
        }
        if error_code::is_fenced(code) {
            return self.fenced(context);
        }
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let counts = &mut context.counter.counts;
        if code != 0 {
            counts.error(error_code::name(code));
        }
        if committed && code == 0 {
            counts.transactions.committed += 1;
            let began = transaction.begun.unwrap_or(since);
            let latency = now.saturating_duration_since(began);
            note(&mut counts.transactions.latency, latency);
            let latency = now.saturating_duration_since(since);
            note(&mut counts.transactions.end_latency, latency);
            for (part, base_offset) in &transaction.acked {
                accept(context, self.slot, part, *base_offset);
            }
        } else {
            counts.transactions.aborted += 1;
            self.disown(context);
        }
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        // Sequences of refused batches are not expected any more: only another epoch goes on.
        transaction.wants_producer = code != 0 || !committed && next.is_none();
        transaction.clear(now);
        if let (0, Some(next)) = (code, next) {
            self.identity.renew(next);
        }
    }

    /// Acked batches that are not committed count as not acked.
    fn disown(&mut self, context: &mut Context) {
        if let Some(transaction) = &mut self.transaction {
            for (part, _) in transaction.acked.drain(..) {
                context.unacked_records += records_of(context, &[part]);
            }
        }
    }

    /// Another producer has the id.
    fn fenced(&mut self, context: &mut Context) {
        self.disown(context);
        if let Some(transaction) = &mut self.transaction {
            transaction.clear(Instant::now());
            transaction.phase = Phase::Fenced;
            context.counter.counts.transactions.fenced += 1;
        }
        // What is on its way will be refused.
        self.fail(context, "PRODUCER_FENCED".into());
    }

    /// What was on its way is lost: only an abort tells where it went.
    pub(super) fn doom(&mut self, context: &mut Context) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        for (_, part) in transaction.again.drain(..) {
            context.unacked_records += records_of(context, &[part]);
        }
        let ending = matches!(transaction.phase, Phase::Ending { .. } | Phase::Fenced);
        transaction.held = None;
        transaction.doomed = !ending && transaction.has_begun();
    }

    /// Gives the transaction up for good, at the end of a run.
    pub(super) fn forsake(&mut self, context: &mut Context) {
        if self.is_in_transaction() {
            context.counter.counts.transactions.aborted += 1;
        }
        self.disown(context);
    }

    /// Partitions of the next requests of this transaction that the coordinator does not know of, if the next one
    /// needs any: they are added together.
    pub(super) fn partitions_to_add(&self, context: &Context) -> Vec<(u32, Partition)> {
        let (Some(transaction), Some(plan)) = (&self.transaction, &self.plan) else {
            return Vec::new();
        };
        if transaction.generation == Generation::Second {
            return Vec::new();
        }
        let groups = (0..plan.groups.len())
            .map(|step| self.next_group.wrapping_add(step) % plan.groups.len())
            .map(|index| &plan.partitions[plan.groups[index].clone()]);
        let mut sent = transaction.sent;
        let mut missing = Vec::new();
        for members in groups {
            let before = missing.len();
            let unknown = members.iter().filter(|m| !transaction.added.contains(&m.0));
            missing.extend(unknown.copied());
            if sent == transaction.sent && missing.len() == before {
                // The next request needs none: those after it can wait.
                return Vec::new();
            }
            sent += (members.len() as f64 * context.ring.mean_records()) as u64;
            if sent >= context.records_per_transaction() {
                break;
            }
        }
        missing.sort_unstable_by_key(|m| (m.1.topic, m.1.index));
        missing
    }
}
