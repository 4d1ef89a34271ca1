//! How transactions end: by their producer, by its successor, or by the clock; then markers, then the end's record.

use kafka_wire::{EndTxnRequest, EndTxnResponse};
use ringlog_engine::id::Now;

use crate::conn::Token;
use crate::message;
use crate::wire::{StrBytes, error};

use super::coordinator::{Coordinator, MarkJob, Output, Response};
use super::record::Partitions;
use super::requests::fenced_as;
use super::transaction::{Asked, Change, Effect, Transaction, TxnState};

/// EndTxn from this version on is the second generation of the protocol: each end raises the epoch. (KIP-890)
const SECOND_GENERATION: i16 = 5;
/// How long after a failed write of an end it is tried again, in milliseconds.
const RETRY_MS: u64 = 500;

/// What becomes of an EndTxn.
enum Verdict {
    /// It was carried out before.
    Again,
    /// To this state; `fresh` if the transaction has no partitions.
    To { state: TxnState, fresh: bool },
}

impl Coordinator {
    /// EndTxn, versions 0 to 5. The answer comes when the decision is durable. `new_id` gives producer ids that nobody had.
    pub fn end(
        &mut self,
        now: Now,
        token: Token,
        version: i16,
        request: &EndTxnRequest,
        new_id: impl FnMut() -> Option<i64>,
    ) {
        if let Err(code) = self.start_end(now, token, version, request, new_id) {
            self.end_response(token, fenced_as(code, version), None);
        }
    }

    /// Answers an EndTxn with the producer id and epoch to go on with.
    fn end_response(&mut self, token: Token, code: i16, producer: Option<(i64, i16)>) {
        let (producer_id, epoch) = producer.unwrap_or((-1, -1));
        let response = message!(EndTxnResponse {
            error_code: code,
            producer_id: producer_id,
            producer_epoch: epoch,
        });
        self.respond(token, Response::End(response));
    }

    fn start_end(
        &mut self,
        now: Now,
        token: Token,
        version: i16,
        request: &EndTxnRequest,
        mut new_id: impl FnMut() -> Option<i64>,
    ) -> Result<(), i16> {
        let id = &request.transactional_id;
        self.admit(id)?;
        let transaction = self.transactions.get(id);
        let transaction = transaction.ok_or(error::INVALID_PRODUCER_ID_MAPPING)?;
        let second = version >= SECOND_GENERATION;
        let (state, fresh) = match transaction.judge(request, second)? {
            Verdict::Again => {
                let next = transaction.told();
                self.end_response(token, error::NONE, Some(next));
                return Ok(());
            }
            Verdict::To { state, fresh } => (state, fresh),
        };
        let mut value = transaction.value.clone();
        let mut last_epoch = transaction.last_epoch;
        value.state = state;
        value.updated_ms = now.wall_ms;
        value.client_version = if second { 2 } else { 0 };
        if fresh {
            value.started_ms = now.wall_ms;
            value.partitions = Partitions::new();
        }
        if second {
            if transaction.is_exhausted() {
                value.next_producer_id = new_id().ok_or(error::UNKNOWN_SERVER_ERROR)?;
            }
            last_epoch = value.epoch;
            value.epoch = value.epoch.saturating_add(1);
        }
        let change = Change {
            value: Some(value),
            last_epoch,
            effect: Effect::Prepared(Asked::Producer(token)),
        };
        self.begin(id, change);
        Ok(())
    }

    /// Aborts a transaction under way and fences its producer.
    pub(super) fn fence(&mut self, now: Now, id: &StrBytes, asked: Asked) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        let mut value = transaction.value.clone();
        value.state = TxnState::PrepareAbort;
        value.updated_ms = now.wall_ms;
        value.client_version = 0;
        // Epochs given to producers end before the largest, so there is always one more.
        value.epoch = value.epoch.saturating_add(1);
        let change = Change {
            value: Some(value),
            last_epoch: -1,
            effect: Effect::Prepared(asked),
        };
        self.begin(id, change);
    }

    /// Aborts transactions that take too long.
    pub(super) fn abort_late(&mut self, now: Now) {
        let late = self.transactions.iter().filter(|(_, transaction)| {
            transaction.change.is_none()
                && transaction.due_ms().is_some_and(|due| due <= now.wall_ms)
                && self.admit_partition(transaction.partition)
        });
        let late: Vec<StrBytes> = late.map(|(id, _)| id.clone()).collect();
        for id in late {
            tracing::info!(
                transactional_id = id.as_str(),
                "aborting a transaction that takes too long"
            );
            self.fence(now, &id, Asked::Clock);
        }
    }

    /// Forgets ids that were not used for long.
    pub(super) fn expire(&mut self, now: Now) {
        let expiry_ms = self.config.expiry_ms;
        let old = self.transactions.iter().filter(|(_, transaction)| {
            transaction.change.is_none()
                && transaction
                    .expires_ms(expiry_ms)
                    .is_some_and(|at| at <= now.wall_ms)
                && self.admit_partition(transaction.partition)
        });
        let old: Vec<StrBytes> = old.map(|(id, _)| id.clone()).collect();
        for id in old {
            let change = Change {
                value: None,
                last_epoch: -1,
                effect: Effect::Expired,
            };
            self.begin(&id, change);
        }
    }

    /// The decision is durable: the asker is told, and markers go out.
    pub(super) fn prepared(&mut self, id: &StrBytes, asked: Asked) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        match asked {
            Asked::Producer(token) => {
                let next = transaction.told();
                self.end_response(token, error::NONE, Some(next));
            }
            Asked::Successor(token) => {
                // A later version knows no other code for it either.
                self.init_error(token, i16::MAX, error::CONCURRENT_TRANSACTIONS);
            }
            Asked::Clock => {}
        }
        self.mark(id);
    }

    /// Why a decision could not be written.
    pub(super) fn not_prepared(&mut self, asked: Asked, code: i16) {
        match asked {
            Asked::Producer(token) => self.end_response(token, code, None),
            Asked::Successor(token) => self.init_error(token, i16::MAX, code),
            Asked::Clock => {}
        }
    }

    /// Has the markers of a decided transaction written.
    pub(super) fn mark(&mut self, id: &StrBytes) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        let Some(ownership) = self.owned.epoch(transaction.partition) else {
            return;
        };
        self.serial += 1;
        let value = &transaction.value;
        let job = MarkJob {
            job: self.serial,
            producer_id: value.producer_id,
            epoch: value.epoch,
            committed: value.state == TxnState::PrepareCommit,
            coordinator_epoch: self.config.coordinator_epoch,
            partitions: value.partitions.clone(),
        };
        self.jobs.insert(self.serial, (id.clone(), ownership));
        self.out.push_back(Output::Mark(job));
    }

    /// All markers of a job are durable, or their partitions are gone.
    pub fn marked(&mut self, now: Now, job: u64) {
        let Some((id, ownership)) = self.jobs.remove(&job) else {
            return;
        };
        let partition = self.transactions.get(&id).map(|t| t.partition);
        if partition.and_then(|partition| self.owned.epoch(partition)) == Some(ownership) {
            self.complete(now, &id);
        }
    }

    /// Writes that a transaction has ended.
    pub(super) fn complete(&mut self, now: Now, id: &StrBytes) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        if transaction.change.is_some() || !transaction.value.state.is_prepared() {
            return;
        }
        let mut value = transaction.value.clone();
        let mut last_epoch = transaction.last_epoch;
        value.state = match value.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            _ => TxnState::CompleteAbort,
        };
        value.partitions = Partitions::new();
        value.updated_ms = now.wall_ms;
        if value.next_producer_id != -1 {
            // Epochs are used up: from now on the producer has the id it was told of.
            last_epoch = value.epoch;
            value.previous_producer_id = value.producer_id;
            value.producer_id = value.next_producer_id;
            value.next_producer_id = -1;
            value.epoch = 0;
        }
        let change = Change {
            value: Some(value),
            last_epoch,
            effect: Effect::Completed,
        };
        self.begin(id, change);
    }

    /// An end could not be written: it is tried again.
    pub(super) fn not_completed(&mut self, now: Now, id: StrBytes) {
        self.unwritten.push((now.after_ms(RETRY_MS), id));
    }

    fn admit_partition(&self, partition: i32) -> bool {
        self.owned.epoch(partition).is_some() && !self.owned.is_loading()
    }
}

impl Transaction {
    /// Producer id and epoch that the producer goes on with after an EndTxn.
    fn told(&self) -> (i64, i16) {
        match self.value.next_producer_id {
            -1 => (self.value.producer_id, self.value.epoch),
            next => (next, 0),
        }
    }

    /// What Kafka makes of an EndTxn in this state; the second generation tells a repeated request by its old epoch.
    fn judge(&self, request: &EndTxnRequest, second: bool) -> Result<Verdict, i16> {
        let value = &self.value;
        // First of all, since the producer has its next epoch before the markers are written, and may end another
        // transaction with it.
        if second && (self.change.is_some() || value.state.is_prepared()) {
            return Err(error::CONCURRENT_TRANSACTIONS);
        }
        let raises = value.client_version >= 2;
        let repeated = raises && i32::from(value.epoch) == i32::from(request.producer_epoch) + 1;
        let repeated_last = raises
            && value.previous_producer_id == request.producer_id
            && Self::is_last(request.producer_epoch)
            && value.epoch == 0;
        if value.producer_id != request.producer_id && !repeated_last {
            return Err(error::INVALID_PRODUCER_ID_MAPPING);
        }
        let same =
            value.epoch == request.producer_epoch && value.producer_id == request.producer_id;
        if !Self::is_given(request.producer_epoch) {
            return Err(error::PRODUCER_FENCED);
        }
        let known = match value.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort if raises => repeated,
            TxnState::CompleteCommit | TxnState::CompleteAbort if raises => {
                repeated || repeated_last || same
            }
            _ => same,
        };
        if !known {
            return Err(error::PRODUCER_FENCED);
        }
        if self.change.is_some() {
            return Err(error::CONCURRENT_TRANSACTIONS);
        }
        let commit = request.committed;
        let again = repeated || repeated_last;
        let fresh_abort = Verdict::To {
            state: TxnState::PrepareAbort,
            fresh: true,
        };
        match value.state {
            TxnState::Ongoing => Ok(Verdict::To {
                state: match commit {
                    true => TxnState::PrepareCommit,
                    false => TxnState::PrepareAbort,
                },
                fresh: false,
            }),
            TxnState::PrepareCommit if commit => Err(error::CONCURRENT_TRANSACTIONS),
            TxnState::PrepareAbort if !commit => Err(error::CONCURRENT_TRANSACTIONS),
            TxnState::CompleteCommit if commit && (again || !raises) => Ok(Verdict::Again),
            TxnState::CompleteAbort if !commit && (again || !raises) => Ok(Verdict::Again),
            // A transaction without partitions may be aborted, for the sake of the new epoch.
            TxnState::CompleteCommit | TxnState::CompleteAbort
                if raises && second && !commit && !again =>
            {
                Ok(fresh_abort)
            }
            TxnState::Empty if second && !commit => Ok(fresh_abort),
            _ => Err(error::INVALID_TXN_STATE),
        }
    }
}
