//! From what a crash left to partitions that can be served. Blocking, before any shard runs, on a
//! [`Disk`](crate::disk::Disk): the real one, or the simulator's, which may crash in the middle.

use thiserror::Error;

use crate::core::{LogConfig, Mutations};
use crate::disk::{Disk, DiskError};
use crate::id::PartitionKey;
use crate::store::{Epochs, Producers, StoredLog};

/// A partition the catalog knows; what is on disk of any other is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Its key.
    pub key: PartitionKey,
    /// The topic's name.
    pub topic_name: String,
    /// Its settings.
    pub config: LogConfig,
}

/// What identifies this run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInfo {
    /// Counts the starts of this data directory from 1; part of every journal file's incarnation.
    pub run: u32,
    /// Leader epoch of this run: rises with each unclean start.
    pub leader_epoch: i32,
    /// The data directory's own id; journal files and checkpoints of another directory are refused.
    pub dir_id: [u8; 16],
}

/// One partition as recovery found it, ready for a [`Core`](crate::core::Core).
#[derive(Debug)]
pub struct PartitionState {
    /// What the catalog says.
    pub meta: PartitionMeta,
    /// First offset that can be read.
    pub log_start: i64,
    /// What the files hold: everything, after recovery.
    pub log: StoredLog,
    /// Leader epochs.
    pub epochs: Epochs,
    /// Idempotent producers.
    pub producers: Producers,
}

/// What recovery found and did.
#[derive(Debug)]
pub struct Recovered {
    /// Identifies the run.
    pub run: RunInfo,
    /// Every partition of the catalog.
    pub partitions: Vec<PartitionState>,
    /// The last run ended without a clean shutdown.
    pub unclean: bool,
    /// Journal frames replayed.
    pub frames: u64,
    /// Bytes of batches replayed from the journal.
    pub replayed_bytes: u64,
}

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{what}: {error}")]
    Disk {
        /// What was being done.
        what: String,
        /// What the system says.
        error: DiskError,
    },
    /// Data that had been acknowledged is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The directory belongs to something else or to another version.
    #[error("{0}")]
    Format(String),
}

/// Settings of a recovery.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecoveryOptions {
    /// Wrong on purpose, for tests.
    pub mutations: Mutations,
}

/// Opens a data directory: reads checkpoints and journals, writes what the journals hold into segments, and
/// records the merged state durably, so that any number of shards can start from it.
///
/// # Errors
/// [`RecoveryError`]; nothing acknowledged is lost by failing.
#[allow(unused_variables, clippy::todo)]
pub fn recover(
    disk: &mut dyn Disk,
    catalog: &[PartitionMeta],
    options: RecoveryOptions,
) -> Result<Recovered, RecoveryError> {
    todo!()
}
