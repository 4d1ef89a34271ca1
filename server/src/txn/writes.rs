//! Records on their way to the state topic, and what happens when they are durable or lost.

use std::collections::{BTreeMap, VecDeque};

use kafka_wire::InitProducerIdResponse;
use ringlog_engine::batch::{BatchBuilder, HEADER_LEN, NewRecord};
use ringlog_engine::id::Now;

use crate::groups::{Append, AppendFailure, AppendId};
use crate::message;
use crate::wire::{StrBytes, error};

use super::coordinator::{Coordinator, Response};
use super::record;
use super::transaction::{Change, Effect, Transaction};

/// Bytes of a record besides key and value, at most.
const RECORD_OVERHEAD: usize = 48;

/// Everything not durable yet.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Ids by partition, in the order their records must reach the log.
    unsent: BTreeMap<i32, VecDeque<StrBytes>>,
    in_flight: BTreeMap<AppendId, InFlight>,
    serial: u64,
}

#[derive(Debug)]
struct InFlight {
    partition: i32,
    /// Ownership of the partition when it was sent.
    ownership: u64,
    ids: Vec<StrBytes>,
}

impl Coordinator {
    /// A change goes to the log; until it is there, or lost, the transaction takes no other.
    pub(super) fn begin(&mut self, id: &StrBytes, change: Change) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        debug_assert!(transaction.change.is_none(), "one change at a time");
        transaction.change = Some(change);
        let unsent = self.writes.unsent.entry(transaction.partition);
        unsent.or_default().push_back(StrBytes::from(id.as_str()));
    }

    /// The next batch to append. Call it until it returns none, once a turn.
    pub fn next_append(&mut self, now: Now) -> Option<Append> {
        loop {
            let partition = *self.writes.unsent.first_key_value()?.0;
            let (ids, batch) = self.take_batch(now, partition);
            let ownership = self.owned.epoch(partition);
            let (Some(batch), Some(ownership)) = (batch, ownership) else {
                continue;
            };
            let id = AppendId(self.writes.serial);
            self.writes.serial += 1;
            let in_flight = InFlight {
                partition,
                ownership,
                ids,
            };
            self.writes.in_flight.insert(id, in_flight);
            return Some(Append {
                id,
                partition,
                batch,
            });
        }
    }

    /// The next records of one partition that fit into a batch.
    fn take_batch(&mut self, now: Now, partition: i32) -> (Vec<StrBytes>, Option<Vec<u8>>) {
        let mut taken = Vec::new();
        let mut bytes = HEADER_LEN;
        let mut builder = BatchBuilder::new();
        let Some(unsent) = self.writes.unsent.get_mut(&partition) else {
            return (taken, None);
        };
        while let Some(id) = unsent.front() {
            let change = self.transactions.get(id).and_then(|t| t.change.as_ref());
            if let Some(change) = change {
                let key = record::key(id);
                let value = change.value.as_ref().map(record::TxnValue::encode);
                bytes += key.len() + value.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD;
                if bytes > self.config.batch_bytes_max && !taken.is_empty() {
                    break;
                }
                builder.push(&NewRecord {
                    timestamp_ms: now.wall_ms,
                    key: Some(&key),
                    value: value.as_deref(),
                    headers: &[],
                });
                taken.push(id.clone());
            }
            unsent.pop_front();
        }
        if unsent.is_empty() {
            self.writes.unsent.remove(&partition);
        }
        let batch = if taken.is_empty() {
            None
        } else {
            builder.build().ok()
        };
        (taken, batch)
    }

    /// Whether every record is durable or has failed.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.writes.unsent.is_empty() && self.writes.in_flight.is_empty()
    }

    /// An append is durable, or failed. Successes of a partition are reported in the order of its log.
    pub fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>) {
        let Some(in_flight) = self.writes.in_flight.remove(&id) else {
            debug_assert!(false, "an append is reported once");
            return;
        };
        if self.owned.epoch(in_flight.partition) != Some(in_flight.ownership) {
            return;
        }
        let result = result.map_err(|failure| match failure {
            AppendFailure::Unavailable => error::COORDINATOR_NOT_AVAILABLE,
            AppendFailure::NotOwner => error::NOT_COORDINATOR,
            AppendFailure::TooLarge | AppendFailure::Fenced => error::UNKNOWN_SERVER_ERROR,
        });
        for id in in_flight.ids {
            self.change_ended(now, &id, result);
        }
    }

    fn change_ended(&mut self, now: Now, id: &StrBytes, result: Result<(), i16>) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        let Some(change) = transaction.change.take() else {
            return;
        };
        if result.is_ok() {
            match change.value {
                Some(value) => self.transactions.change(id, value, change.last_epoch),
                None => {
                    if let Some(gone) = self.transactions.remove(id) {
                        self.dismiss(gone, error::INVALID_PRODUCER_ID_MAPPING);
                    }
                    return;
                }
            }
        }
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        match (change.effect, result) {
            (Effect::Init(token), Ok(())) => {
                let value = &transaction.value;
                let response = message!(InitProducerIdResponse {
                    producer_id: value.producer_id,
                    producer_epoch: value.epoch,
                });
                self.respond(token, Response::Init(response));
            }
            (Effect::Init(token), Err(code)) => {
                if transaction.value.epoch == -1
                    && let Some(gone) = self.transactions.remove(id)
                {
                    self.dismiss(gone, code);
                }
                self.init_error(token, i16::MAX, code);
            }
            (Effect::Added { origin, count }, result) => {
                let code = result.err().unwrap_or(error::NONE);
                self.answer_add(origin, vec![code; count]);
            }
            (Effect::Prepared(asked), Ok(())) => self.prepared(id, asked),
            (Effect::Prepared(asked), Err(code)) => self.not_prepared(asked, code),
            (Effect::Completed, Err(_)) => self.not_completed(now, id.clone()),
            (Effect::Completed, Ok(())) | (Effect::Expired, _) => {}
        }
        self.go_on(now, id);
    }

    /// Takes up what waited for a change.
    fn go_on(&mut self, now: Now, id: &StrBytes) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        if transaction.change.is_none() && !transaction.value.state.is_prepared() {
            for add in std::mem::take(&mut transaction.waiting) {
                self.add(now, add);
            }
        }
    }

    /// Sends away whoever waits for a transaction that is gone.
    pub(super) fn dismiss(&mut self, transaction: Transaction, code: i16) {
        for add in transaction.waiting {
            let results = vec![code; add.partitions.len()];
            self.answer_add(add.origin, results);
        }
        let Some(change) = transaction.change else {
            return;
        };
        match change.effect {
            Effect::Init(token) => self.init_error(token, i16::MAX, code),
            Effect::Added { origin, count } => self.answer_add(origin, vec![code; count]),
            Effect::Prepared(asked) => self.not_prepared(asked, code),
            Effect::Completed | Effect::Expired => {}
        }
    }
}
