//! Flushes behind acknowledgements: with [`Durability::Write`](super::Durability::Write) and
//! [`Durability::WriteThenFlush`](super::Durability::WriteThenFlush) a batch is acknowledged when it is written, and becomes
//! durable later: by time, or because a checkpoint is to speak of it.

use crate::disk::{FileId, Lane, OpKind};
use crate::id::Now;

use super::outbox::{Outbox, Owner};

/// What is written and not flushed, and the flush under way. There is one at a time: its frames count together.
#[derive(Debug)]
pub(super) struct Flush {
    /// None waits for a checkpoint.
    every_ms: Option<u64>,
    /// Files with frames written since the last flush began: one or two.
    dirty: Vec<FileId>,
    /// When the oldest of those frames has waited long enough.
    due_ns: Option<u64>,
    /// Syncs under way, one for each file.
    syncs: usize,
    /// The newest frame that they make durable, with all before it.
    covering: u64,
    /// The newest frame that earlier ones have.
    covered: u64,
    /// A frame that somebody waits for.
    wanted: u64,
}

impl Flush {
    pub(super) fn new(every_ms: Option<u64>) -> Self {
        Self {
            every_ms,
            dirty: Vec::new(),
            due_ns: None,
            syncs: 0,
            covering: 0,
            covered: 0,
            wanted: 0,
        }
    }

    /// A frame was written to `file`.
    pub(super) fn written(&mut self, file: FileId) {
        if !self.dirty.contains(&file) {
            self.dirty.push(file);
        }
    }

    /// Starts a flush if one is due; all frames up to `written` are written.
    pub(super) fn pump(&mut self, now: Now, written: u64, out: &mut Outbox) {
        if self.dirty.is_empty() {
            return;
        }
        if let Some(every_ms) = self.every_ms {
            self.due_ns.get_or_insert(now.after_ms(every_ms));
        }
        let due = self.is_urgent() || self.due_ns.is_some_and(|due| due <= now.mono_ns);
        if self.syncs > 0 || !due {
            return;
        }
        self.due_ns = None;
        self.covering = written;
        for file in self.dirty.drain(..) {
            self.syncs += 1;
            out.submit(Lane::Journal, OpKind::Sync { file }, Owner::Flush);
        }
    }

    /// A sync of the flush ended well.
    pub(super) fn synced(&mut self) {
        self.syncs -= 1;
        if self.syncs == 0 {
            self.covered = self.covering;
        }
    }

    /// Whether all frames up to `wanted` are durable. If not, they are flushed as soon as may be.
    pub(super) fn reaches(&mut self, wanted: u64) -> bool {
        self.wanted = self.wanted.max(wanted);
        self.covered >= wanted
    }

    fn is_urgent(&self) -> bool {
        self.wanted > self.covered
    }

    /// The newest frame that is durable with all before it.
    pub(super) fn covered(&self) -> u64 {
        self.covered
    }

    /// When [`Flush::pump`] is due by itself, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        if self.syncs > 0 || self.dirty.is_empty() {
            return None;
        }
        if self.is_urgent() {
            return Some(0);
        }
        self.due_ns
    }
}
