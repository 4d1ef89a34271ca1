//! What the core has for the outside, and who waits for which operation.

use std::collections::{HashMap, VecDeque};

use crate::disk::{FileId, Lane, Op, OpId, OpKind};

use super::api::{Event, ReadId};

/// Who gets an operation's completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A journal file was created or opened.
    JournalFile(usize),
    /// A journal file's header was written for its next use.
    JournalHeader(usize),
    /// A journal frame was written and synced.
    Commit(u64),
    /// A journal file was synced, for frames that are acknowledged already.
    Flush,
    /// A file of the file table was opened.
    Opened(FileId),
    /// A partition's directory, write or truncation in a destage round.
    Stage(u32),
    /// A sync at the end of a destage round.
    RoundSync,
    /// A piece of a checkpoint, so many bytes.
    CheckpointWrite(usize),
    /// The sync of a checkpoint.
    CheckpointSync,
    /// The reserve was opened, allocated or removed.
    Reserve,
    /// A read for a consumer.
    Read(ReadId),
    /// Compaction.
    Compaction(super::compact::Action),
    /// Nobody: clean-up whose failure only costs space.
    Nobody,
}

/// Queues towards the driver and the application.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ops: VecDeque<Op>,
    owners: HashMap<OpId, Owner>,
    next_op: u64,
    next_file: u64,
    pub(super) events: VecDeque<Event>,
    pub(super) syncs: u64,
}

impl Outbox {
    pub(super) fn submit(&mut self, lane: Lane, kind: OpKind, owner: Owner) {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.syncs += u64::from(matches!(
            kind,
            OpKind::Write { sync: true, .. }
                | OpKind::Sync { .. }
                | OpKind::SyncFs
                | OpKind::SyncDir { .. }
        ));
        self.owners.insert(id, owner);
        self.ops.push_back(Op { id, lane, kind });
    }

    pub(super) fn new_file(&mut self) -> FileId {
        let id = FileId(self.next_file);
        self.next_file += 1;
        id
    }

    pub(super) fn next_op(&mut self) -> Option<Op> {
        self.ops.pop_front()
    }

    /// Whose operation this was.
    ///
    /// # Panics
    /// If the driver completes an operation twice: state would be corrupt.
    pub(super) fn owner(&mut self, id: OpId) -> Owner {
        self.owners
            .remove(&id)
            .expect("each operation completes once")
    }

    pub(super) fn in_flight(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_numbers_go_on_behind_32_bits() {
        // A shard that opens 10,000 files a second is there after five days.
        let mut out = Outbox {
            next_file: u32::MAX.into(),
            ..Outbox::default()
        };
        let last = out.new_file();
        assert!(out.new_file() > last);
    }
}
