//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, and the same for partitions that write before they ask.

use std::collections::BTreeMap;

use kafka_wire::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_wire::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse,
};
use ringlog_engine::id::Now;

use crate::conn::Token;
use crate::message;
use crate::wire::{StrBytes, error};

use super::coordinator::{Coordinator, Output, Response};
use super::record::{Partitions, TxnValue};
use super::transaction::{Asked, Change, Effect, Transaction, TxnState};

/// Who wants partitions added, or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Part of an AddPartitionsToTxn request.
    Request {
        /// From [`Coordinator::expect`].
        waiter: u64,
        /// Which of its transactions.
        index: usize,
    },
    /// An AddOffsetsToTxn request.
    Offsets(Token, i16),
    /// A shard whose partition is written to.
    Shard {
        /// The shard.
        shard: u32,
        /// Its number for it.
        id: u64,
    },
}

/// Partitions to be added to a transaction, or only looked for in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Who asks.
    pub origin: Origin,
    /// The transaction's id.
    pub transactional_id: StrBytes,
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// Only say whether the transaction has them.
    pub verify_only: bool,
    /// Topics and partitions.
    pub partitions: Vec<(StrBytes, i32)>,
}

/// Topic, partition, error code.
pub type PartitionCode = (StrBytes, i32, i16);

/// AddPartitionsToTxn requests that are answered when all their transactions are.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    table: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    token: Token,
    version: i16,
    /// What was asked, and each partition's error code.
    transactions: Vec<(StrBytes, Vec<PartitionCode>)>,
    left: usize,
}

impl Coordinator {
    // --- InitProducerId ---

    /// InitProducerId with a transactional id, versions 0 to 5. `new_id` gives producer ids that nobody had.
    pub fn init(
        &mut self,
        now: Now,
        token: Token,
        version: i16,
        request: &InitProducerIdRequest,
        new_id: impl FnMut() -> Option<i64>,
    ) {
        if let Err(code) = self.start_init(now, token, request, new_id) {
            self.init_error(token, version, code);
        }
    }

    pub(super) fn init_error(&mut self, token: Token, version: i16, code: i16) {
        let code = match code {
            error::PRODUCER_FENCED if version < 4 => error::INVALID_PRODUCER_EPOCH,
            code => code,
        };
        let response = message!(InitProducerIdResponse {
            error_code: code,
            producer_id: -1,
            producer_epoch: -1,
        });
        self.respond(token, Response::Init(response));
    }

    fn start_init(
        &mut self,
        now: Now,
        token: Token,
        request: &InitProducerIdRequest,
        mut new_id: impl FnMut() -> Option<i64>,
    ) -> Result<(), i16> {
        let id = request.transactional_id.as_ref();
        let id = id.ok_or(error::INVALID_REQUEST)?;
        if id.is_empty() {
            return Err(error::INVALID_REQUEST);
        }
        let timeout_ms = request.transaction_timeout_ms;
        if !(1..=self.config.timeout_ms_max).contains(&timeout_ms) {
            return Err(error::INVALID_TRANSACTION_TIMEOUT);
        }
        let partition = self.admit(id)?;
        if !self.transactions.contains_key(id) {
            if self.transactions.len() >= self.config.ids_max || self.is_full() {
                return Err(error::POLICY_VIOLATION);
            }
            let producer_id = new_id().ok_or(error::UNKNOWN_SERVER_ERROR)?;
            let new = Transaction::new(partition, producer_id, timeout_ms, now.wall_ms);
            self.transactions.insert(StrBytes::from(id.as_str()), new);
        }
        let expected =
            (request.producer_id >= 0).then_some((request.producer_id, request.producer_epoch));
        let Some(transaction) = self.transactions.get(id) else {
            return Err(error::UNKNOWN_SERVER_ERROR);
        };
        if transaction.change.is_some() {
            return Err(error::CONCURRENT_TRANSACTIONS);
        }
        if !expected.is_none_or(|expected| transaction.may_go_on(expected)) {
            return Err(error::PRODUCER_FENCED);
        }
        match transaction.value.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort => Err(error::CONCURRENT_TRANSACTIONS),
            TxnState::Ongoing => {
                self.fence(now, id, Asked::Successor(token));
                Ok(())
            }
            _ => {
                let expected = expected.map(|(_, epoch)| epoch);
                let (value, last_epoch) =
                    transaction.next_epoch(now, expected, timeout_ms, new_id)?;
                let change = Change {
                    value: Some(value),
                    last_epoch,
                    effect: Effect::Init(token),
                };
                self.begin(id, change);
                Ok(())
            }
        }
    }

    /// Whether ids and partitions take as much memory as they may.
    fn is_full(&self) -> bool {
        self.transactions.bytes() >= self.config.bytes_max
    }

    // --- partitions ---

    /// An AddPartitionsToTxn request with `transactions`, in order: ids and, for each partition, the error code it has
    /// already. [`Coordinator::add`] follows for those that `left` counts.
    pub fn expect(
        &mut self,
        token: Token,
        version: i16,
        transactions: Vec<(StrBytes, Vec<PartitionCode>)>,
        left: usize,
    ) -> u64 {
        self.serial += 1;
        let waiter = Waiter {
            token,
            version,
            transactions,
            left,
        };
        if left == 0 {
            let response = waiter.response();
            self.respond(token, Response::AddPartitions(response));
        } else {
            self.waiters.table.insert(self.serial, waiter);
        }
        self.serial
    }

    /// Adds partitions to a transaction, or verifies that it has them. The answer comes when they are durably part of it.
    pub fn add(&mut self, now: Now, add: Add) {
        match self.start_add(now, &add) {
            Ok(Some(())) => {}
            Ok(None) => {
                // A producer that is quicker than the end of its last transaction.
                if let Some(transaction) = self.transactions.get_mut(&add.transactional_id) {
                    transaction.waiting.push_back(add);
                }
            }
            Err(results) => self.answer_add(add.origin, results),
        }
    }

    /// `None` if it has to wait; an error code for each partition if it is answered at once.
    fn start_add(&mut self, now: Now, add: &Add) -> Result<Option<()>, Vec<i16>> {
        let all = |code| vec![code; add.partitions.len()];
        let waiting_max = self.config.waiting_max;
        self.admit(&add.transactional_id).map_err(all)?;
        let transaction = self.transactions.get(&add.transactional_id);
        let transaction = transaction.filter(|t| t.value.producer_id == add.producer_id);
        let Some(transaction) = transaction else {
            return Err(all(error::INVALID_PRODUCER_ID_MAPPING));
        };
        if transaction.value.epoch != add.epoch || !Transaction::is_given(add.epoch) {
            return Err(all(error::PRODUCER_FENCED));
        }
        if add.verify_only {
            if transaction.value.state.is_prepared() {
                return Err(all(error::CONCURRENT_TRANSACTIONS));
            }
            let verify = |partition| match transaction.has(partition) {
                true => error::NONE,
                false => error::TRANSACTION_ABORTABLE,
            };
            return Err(add.partitions.iter().map(verify).collect());
        }
        if transaction.change.is_some() || transaction.value.state.is_prepared() {
            return if transaction.waiting.len() < waiting_max {
                Ok(None)
            } else {
                Err(all(error::CONCURRENT_TRANSACTIONS))
            };
        }
        let ongoing = transaction.value.state == TxnState::Ongoing;
        if ongoing && add.partitions.iter().all(|p| transaction.has(p)) {
            return Err(all(error::NONE));
        }
        if self.is_full() {
            return Err(all(error::POLICY_VIOLATION));
        }
        let mut value = transaction.value.clone();
        if !ongoing {
            value.started_ms = now.wall_ms;
            value.partitions = Partitions::new();
        }
        value.state = TxnState::Ongoing;
        value.updated_ms = now.wall_ms;
        for (topic, partition) in &add.partitions {
            let topic = StrBytes::from(topic.as_str());
            value
                .partitions
                .entry(topic)
                .or_default()
                .insert(*partition);
        }
        let change = Change {
            value: Some(value),
            last_epoch: transaction.last_epoch,
            effect: Effect::Added {
                origin: add.origin,
                count: add.partitions.len(),
            },
        };
        self.begin(&add.transactional_id, change);
        Ok(Some(()))
    }

    pub(super) fn answer_add(&mut self, origin: Origin, results: Vec<i16>) {
        match origin {
            Origin::Shard { shard, id } => {
                self.out.push_back(Output::Answer { shard, id, results });
            }
            Origin::Offsets(token, version) => {
                let code = results.first().copied().unwrap_or(error::NONE);
                let response = message!(AddOffsetsToTxnResponse {
                    error_code: fenced_as(code, version),
                });
                self.respond(token, Response::AddOffsets(response));
            }
            Origin::Request { waiter, index } => self.answer_part(waiter, index, &results),
        }
    }

    fn answer_part(&mut self, id: u64, index: usize, results: &[i16]) {
        let Some(waiter) = self.waiters.table.get_mut(&id) else {
            return;
        };
        if let Some((_, partitions)) = waiter.transactions.get_mut(index) {
            for (partition, code) in partitions.iter_mut().zip(results) {
                partition.2 = *code;
            }
        }
        waiter.left -= 1;
        if waiter.left == 0
            && let Some(waiter) = self.waiters.table.remove(&id)
        {
            let response = waiter.response();
            self.respond(waiter.token, Response::AddPartitions(response));
        }
    }
}

impl Waiter {
    fn response(&self) -> AddPartitionsToTxnResponse {
        let topics = |partitions: &[PartitionCode]| {
            let topics = partitions.chunk_by(|a, b| a.0 == b.0);
            let topic = |partitions: &[PartitionCode]| {
                let result = |&(_, index, code): &PartitionCode| {
                    message!(AddPartitionsToTxnPartitionResult {
                        partition_index: index,
                        partition_error_code: self.code(code),
                    })
                };
                message!(AddPartitionsToTxnTopicResult {
                    name: partitions[0].0.clone(),
                    results_by_partition: partitions.iter().map(result).collect(),
                })
            };
            topics.map(topic).collect()
        };
        if self.version < 4 {
            let partitions = self.transactions.first().map_or(&[][..], |(_, p)| p);
            return message!(AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: topics(partitions),
            });
        }
        let result = |(id, partitions): &(StrBytes, Vec<PartitionCode>)| {
            message!(AddPartitionsToTxnResult {
                transactional_id: id.clone(),
                topic_results: topics(partitions),
            })
        };
        message!(AddPartitionsToTxnResponse {
            results_by_transaction: self.transactions.iter().map(result).collect(),
        })
    }

    fn code(&self, code: i16) -> i16 {
        match code {
            error::TRANSACTION_ABORTABLE if self.version < 5 => error::INVALID_TXN_STATE,
            code => fenced_as(code, self.version),
        }
    }
}

/// What a fenced producer is told by requests up to version 1 of most APIs.
pub(super) fn fenced_as(code: i16, version: i16) -> i16 {
    match code {
        error::PRODUCER_FENCED if version < 2 => error::INVALID_PRODUCER_EPOCH,
        code => code,
    }
}

impl Transaction {
    /// Whether a producer that says which id and epoch it has may be given the next epoch. (KIP-360)
    fn may_go_on(&self, (producer_id, epoch): (i64, i16)) -> bool {
        self.value.epoch == -1
            || producer_id == self.value.producer_id
            || producer_id == self.value.previous_producer_id && Self::is_last(epoch)
    }

    /// The state with the next epoch, or with a new producer id when epochs are used up.
    fn next_epoch(
        &self,
        now: Now,
        expected: Option<i16>,
        timeout_ms: i32,
        mut new_id: impl FnMut() -> Option<i64>,
    ) -> Result<(TxnValue, i16), i16> {
        let current = self.value.epoch;
        let mut value = TxnValue {
            timeout_ms,
            state: TxnState::Empty,
            partitions: Partitions::new(),
            updated_ms: now.wall_ms,
            started_ms: -1,
            client_version: 0,
            next_producer_id: -1,
            previous_producer_id: self.value.producer_id,
            ..self.value.clone()
        };
        if self.is_exhausted() && expected.is_none_or(|epoch| epoch == current) {
            value.producer_id = new_id().ok_or(error::UNKNOWN_SERVER_ERROR)?;
            value.epoch = 0;
            return Ok((value, expected.map_or(-1, |_| current)));
        }
        let (epoch, last_epoch) = match expected {
            None => (current + 1, -1),
            Some(epoch) if current == -1 || epoch == current => (current + 1, current),
            // It asks again: the answer was lost.
            Some(epoch) if epoch == self.last_epoch => (current, self.last_epoch),
            Some(_) => return Err(error::PRODUCER_FENCED),
        };
        value.epoch = epoch;
        Ok((value, last_epoch))
    }
}
