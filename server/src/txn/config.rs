//! The coordinator's settings.

/// Settings of one shard's coordinator; Kafka's broker properties where a name is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnConfig {
    /// `transaction.state.log.num.partitions`: partitions of the state topic, fixed once it exists.
    pub state_partitions: i32,
    /// `transaction.max.timeout.ms`: the longest time-out a producer may ask for.
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`: an id that was not used for longer is forgotten.
    pub expiry_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiry_interval_ms: u64,
    /// Epoch of this coordinator, written into markers.
    pub coordinator_epoch: i32,
    /// Transactional ids one shard keeps; past it new ones are refused.
    pub ids_max: usize,
    /// What all ids of a shard and the partitions of their transactions may take; past it ids and partitions are refused.
    pub bytes_max: usize,
    /// Requests of one transaction that wait for a record of it.
    pub waiting_max: usize,
    /// The largest batch written to the state topic, header included.
    pub batch_bytes_max: usize,
}

impl Default for TxnConfig {
    /// Kafka's defaults, and bounds where Kafka has none.
    fn default() -> Self {
        Self {
            state_partitions: 50,
            timeout_ms_max: 900_000,
            expiry_ms: 7 * 24 * 3_600 * 1_000,
            abort_interval_ms: 10_000,
            expiry_interval_ms: 3_600_000,
            coordinator_epoch: 0,
            ids_max: 200_000,
            bytes_max: 256 << 20,
            waiting_max: 1_000,
            batch_bytes_max: 1_048_588,
        }
    }
}
