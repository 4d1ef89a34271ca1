//! Transactions outside the load: which generation of the protocol, who coordinates an id, and its producer id.
//!
//! Source: KIP-98, KIP-360 (producer ids that are kept), KIP-890 (the second generation).

use std::thread;
use std::time::{Duration, Instant};

use kafka_wire::{FindCoordinatorRequest, InitProducerIdRequest};
use kafka_wire_core::StrBytes;
use serde::Serialize;

use crate::cluster::{ClusterError, ClusterHandle};
use crate::protocol::{ControlClient, ControlError, api, error_code, produce};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest a coordinator that is not ready is asked again before the thread goes on with its other connections.
const PATIENCE: Duration = Duration::from_secs(2);
/// First and longest pause before a request is sent again.
pub(crate) const BACK_OFF_MIN: Duration = Duration::from_millis(1);
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_millis(100);
/// The feature by which brokers say which generation they are at.
const FEATURE: &str = "transaction.version";
/// Keys of coordinators: a transactional id, not a group.
const TRANSACTION: i8 = 1;
mod version {
    pub(super) const FIND_COORDINATOR: i16 = 4;
    pub(super) const INIT_PRODUCER_ID: i16 = 5;
}

/// Generation of the transaction protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Partitions are announced with AddPartitionsToTxn before they are written to.
    First,
    /// Partitions join when they are written to, and every end raises the producer's epoch (KIP-890).
    Second,
}

impl Serialize for Generation {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(match self {
            Self::First => 1,
            Self::Second => 2,
        })
    }
}

/// How a producer does transactions.
#[derive(Debug, Clone, Serialize)]
pub struct TransactionOptions {
    /// Records after which a transaction is committed: with the batch that reaches them.
    pub records: u64,
    /// Start of the transactional ids; a connection's number follows. `None` takes one that nobody has.
    pub id: Option<String>,
    /// How long the coordinator leaves a transaction open, in milliseconds.
    pub timeout_ms: i32,
    /// Generation of the protocol; `None` takes what the broker's feature says.
    pub generation: Option<Generation>,
}

impl TransactionOptions {
    /// The transactional id of the connection with this number.
    #[must_use]
    pub fn id_of(&self, slot: usize) -> String {
        format!("{}-{slot}", self.id.as_deref().unwrap_or("ringlog-load"))
    }
}

impl ClusterHandle {
    /// Fills in what was left to the broker and to chance, and waits until there is a coordinator.
    ///
    /// # Errors
    /// [`ClusterError`]: the broker does not speak the generation asked for, or names no coordinator.
    pub fn settle(
        &self,
        options: &mut TransactionOptions,
        run_id: u64,
    ) -> Result<(), ClusterError> {
        let mut client = self.any_client(TIMEOUT)?;
        let has_second = client.feature(FEATURE)? >= 2
            && client.speaks(api::PRODUCE, produce::FLEXIBLE_VERSION)
            && client.speaks(api::END_TXN, Generation::Second.end_txn_version());
        match options.generation {
            Some(Generation::Second) if !has_second => return Err(ClusterError::Generation),
            Some(_) => {}
            None if has_second => options.generation = Some(Generation::Second),
            None => options.generation = Some(Generation::First),
        }
        let id = options.id.take();
        options.id = Some(id.unwrap_or_else(|| format!("ringlog-load-{run_id:016x}")));
        self.patiently(|cluster| cluster.coordinator(&options.id_of(0)))?;
        Ok(())
    }

    /// Who coordinates a transactional id, as `HOST:PORT`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn coordinator(&self, id: &str) -> Result<String, ControlError> {
        let mut client = self.any_client(TIMEOUT)?;
        let mut request = FindCoordinatorRequest::default();
        request.key_type = TRANSACTION;
        // Version 4 asks for many keys in another field than the versions before.
        let many = client.speaks(api::FIND_COORDINATOR, version::FIND_COORDINATOR);
        match many {
            true => request.coordinator_keys = vec![StrBytes::from(id)],
            false => request.key = StrBytes::from(id),
        }
        let answer = client.call(&request, version::FIND_COORDINATOR)?;
        let (code, host, port) = match answer.coordinators.first() {
            Some(found) => (found.error_code, &found.host, found.port),
            None => (answer.error_code, &answer.host, answer.port),
        };
        match code {
            0 => Ok(format!("{}:{port}", host.as_str())),
            code => Err(ControlError::refused("FindCoordinator", code, None)),
        }
    }

    /// A producer id and epoch for a transactional id, which fences whoever had it; `before` is what this producer has,
    /// and makes it fail where another has fenced it. Returns how often it had to ask again, too.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn init_transactional(
        &self,
        options: &TransactionOptions,
        id: &str,
        before: Option<(i64, i16)>,
    ) -> Result<((i64, i16), u64), ControlError> {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = Some(StrBytes::from(id));
        request.transaction_timeout_ms = options.timeout_ms;
        (request.producer_id, request.producer_epoch) = before.unwrap_or((-1, -1));
        let deadline = Instant::now() + PATIENCE;
        let mut pause = BACK_OFF_MIN;
        let mut waits = 0;
        loop {
            let mut client = ControlClient::connect(&self.coordinator(id)?, TIMEOUT)?;
            let answer = client.call(&request, version::INIT_PRODUCER_ID)?;
            match answer.error_code {
                0 => return Ok(((answer.producer_id, answer.producer_epoch), waits)),
                code if error_code::passes(code) && Instant::now() < deadline => {
                    waits += 1;
                    thread::sleep(pause);
                    pause = (pause * 2).min(BACK_OFF_MAX);
                }
                code => return Err(ControlError::refused("InitProducerId", code, None)),
            }
        }
    }
}

impl Generation {
    /// Layout of Produce.
    pub(crate) fn produce_format(self) -> produce::Format {
        match self {
            Self::First => produce::Format::Plain,
            Self::Second => produce::Format::Flexible,
        }
    }

    /// Version of EndTxn: from 5 on its answer holds the next epoch.
    pub(crate) fn end_txn_version(self) -> i16 {
        match self {
            Self::First => 3,
            Self::Second => 5,
        }
    }
}
