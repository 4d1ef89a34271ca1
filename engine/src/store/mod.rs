//! A partition's log as files hold it: segments, their sparse index, producers, and the checkpoint that
//! remembers all of it. Pure data; the core and recovery both work on it.

mod checkpoint;
mod index;
mod log;
mod names;
mod producers;
mod stager;
mod transactions;

pub use checkpoint::{
    CHECKPOINT_VERSION, CheckpointError, CheckpointHeader, CheckpointReader, CheckpointWriter,
    OwnedRecord, PartitionRecord,
};
pub use index::{IndexEntry, SparseIndex};
pub use log::{Epochs, Segment, StoredLog};
pub use names::{
    SegmentFile, SegmentName, TOPICS, checkpoint_path, journal_dir, journal_file,
    journal_file_parse, merged_path, partition_dir, reserve_path, segment_path, shard_dir,
};
pub use producers::{Producer, ProducerCheck, ProducerError, Producers};
pub use stager::{Advance, SealedFiles, StageStep, Stager, WRITE_MAX, note_batch};
pub use transactions::{AbortedTransaction, Transactions};
