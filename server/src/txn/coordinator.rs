//! The coordinator of one shard: which transactional ids there are, what may be asked of them now, what comes out.

use std::collections::{BTreeMap, VecDeque};

use kafka_wire::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, DescribeTransactionsResponse,
    EndTxnResponse, InitProducerIdResponse, ListTransactionsResponse,
};
use ringlog_engine::batch::{self, BatchHeader};
use ringlog_engine::id::Now;

use crate::conn::Token;
use crate::groups::{ReplayError, partition_of};
use crate::ownership::{Ownership, Stage};
use crate::wire::{StrBytes, error};

use super::config::TxnConfig;
use super::record::{self, Partitions, TxnValue};
use super::requests::Waiters;
use super::table::Table;
use super::transaction::Transaction;
use super::writes::Writes;

/// The longest transactional id, in bytes: what the log's format can hold.
const ID_BYTES_MAX: usize = i16::MAX as usize;
/// The most a compressed batch of the state topic may decompress to, in bytes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// A response, ready to be encoded in the version of its request.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Response {
    Init(InitProducerIdResponse),
    AddPartitions(AddPartitionsToTxnResponse),
    AddOffsets(AddOffsetsToTxnResponse),
    End(EndTxnResponse),
    Describe(DescribeTransactionsResponse),
    List(ListTransactionsResponse),
}

/// Markers to be written to every partition of a transaction; [`Coordinator::marked`] once they are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkJob {
    /// Comes back when all are durable.
    pub job: u64,
    /// Whose transaction.
    pub producer_id: i64,
    /// Epoch of the markers.
    pub epoch: i16,
    /// Whether it is committed.
    pub committed: bool,
    /// Epoch of the coordinator.
    pub coordinator_epoch: i32,
    /// Where.
    pub partitions: Partitions,
}

/// What a coordinator wants done.
#[derive(Debug)]
pub enum Output {
    /// Answer a request.
    Respond(Token, Response),
    /// Answer another shard, with an error code for each partition it asked about.
    Answer {
        /// The shard.
        shard: u32,
        /// As it asked.
        id: u64,
        /// Error codes.
        results: Vec<i16>,
    },
    /// Write markers.
    Mark(MarkJob),
}

/// The transactional ids whose partition of the state topic this shard owns.
pub struct Coordinator {
    pub(super) config: TxnConfig,
    pub(super) owned: Ownership,
    pub(super) transactions: Table,
    pub(super) out: VecDeque<Output>,
    pub(super) writes: Writes,
    pub(super) waiters: Waiters,
    /// Transactions whose markers are being written: id, and the ownership it belongs to.
    pub(super) jobs: BTreeMap<u64, (StrBytes, u64)>,
    /// Ends whose record could not be written, and when they are tried again.
    pub(super) unwritten: Vec<(u64, StrBytes)>,
    pub(super) serial: u64,
    next_abort_ns: Option<u64>,
    next_expiry_ns: u64,
}

impl Coordinator {
    /// A coordinator that owns nothing yet.
    #[must_use]
    pub fn new(config: TxnConfig) -> Self {
        Self {
            config,
            owned: Ownership::default(),
            transactions: Table::default(),
            out: VecDeque::new(),
            writes: Writes::default(),
            waiters: Waiters::default(),
            jobs: BTreeMap::new(),
            unwritten: Vec::new(),
            serial: 0,
            next_abort_ns: None,
            next_expiry_ns: 0,
        }
    }

    // --- ownership ---

    /// How many partitions the state topic has.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        self.config.state_partitions
    }

    /// The state topic was created, with this many partitions.
    pub fn set_partitions(&mut self, partitions: i32) {
        self.config.state_partitions = partitions;
    }

    /// The shard owns a partition of the state topic: its log is to be read up to its end, then [`Coordinator::loaded`].
    pub fn own(&mut self, partition: i32) {
        self.owned.begin(partition);
    }

    /// Takes in the next batch of a partition's log, in order.
    ///
    /// # Errors
    /// [`ReplayError`]; reading may go on with the next batch.
    pub fn replay(&mut self, partition: i32, bytes: &[u8]) -> Result<(), ReplayError> {
        let header = BatchHeader::parse(bytes).map_err(batch::BodyError::from)?;
        if header.is_control() {
            return Ok(());
        }
        let mut scratch = Vec::new();
        for found in batch::body(bytes, BODY_BYTES_MAX, &mut scratch)? {
            let found = found?;
            let Some(id) = record::read_key(found.key.unwrap_or_default())? else {
                continue;
            };
            match found.value {
                Some(value) => {
                    let value = TxnValue::decode(value)?;
                    let transaction = Transaction::from_value(partition, value);
                    self.transactions.insert(id, transaction);
                }
                None => {
                    self.transactions.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// The partition's log has been read to its end: transactions that were decided are ended.
    pub fn loaded(&mut self, now: Now, partition: i32) {
        if !self.owned.activate(partition) {
            return;
        }
        let abort_ns = now.after_ms(self.config.abort_interval_ms);
        self.next_abort_ns.get_or_insert(abort_ns);
        let decided = self.transactions.iter();
        let decided =
            decided.filter(|(_, t)| t.partition == partition && t.value.state.is_prepared());
        let decided: Vec<StrBytes> = decided.map(|(id, _)| id.clone()).collect();
        for id in decided {
            self.mark(&id);
        }
    }

    /// The shard no longer owns the partition: its ids go from memory, and whoever waits is sent elsewhere.
    pub fn disown(&mut self, partition: i32) {
        if !self.owned.end(partition) {
            return;
        }
        let ids = self.transactions.iter();
        let ids = ids.filter(|(_, transaction)| transaction.partition == partition);
        let ids: Vec<StrBytes> = ids.map(|(id, _)| id.clone()).collect();
        for id in ids {
            if let Some(transaction) = self.transactions.remove(&id) {
                self.dismiss(transaction, error::NOT_COORDINATOR);
            }
        }
    }

    /// The partition of an id if requests for it are answered here and now, else an error code.
    pub(super) fn admit(&self, id: &str) -> Result<i32, i16> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(error::INVALID_REQUEST);
        }
        let partition = partition_of(id, self.config.state_partitions);
        match self.owned.stage(partition) {
            Some(Stage::Active) => Ok(partition),
            Some(Stage::Loading) => Err(error::COORDINATOR_LOAD_IN_PROGRESS),
            None => Err(error::NOT_COORDINATOR),
        }
    }

    // --- out ---

    /// The next thing to do.
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(super) fn respond(&mut self, token: Token, response: Response) {
        self.out.push_back(Output::Respond(token, response));
    }

    /// Transactional ids in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// When [`Coordinator::tick`] is needed next, monotonic nanoseconds.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let retry = self.unwritten.iter().map(|(at_ns, _)| *at_ns).min();
        [retry, self.next_abort_ns].into_iter().flatten().min()
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Now) {
        for (at_ns, id) in std::mem::take(&mut self.unwritten) {
            if at_ns <= now.mono_ns {
                self.complete(now, &id);
            } else {
                self.unwritten.push((at_ns, id));
            }
        }
        if self.next_abort_ns.is_some_and(|at_ns| at_ns <= now.mono_ns) {
            self.next_abort_ns = Some(now.after_ms(self.config.abort_interval_ms));
            self.abort_late(now);
            if now.mono_ns >= self.next_expiry_ns {
                self.next_expiry_ns = now.after_ms(self.config.expiry_interval_ms);
                self.expire(now);
            }
        }
    }
}
