//! Space kept on the disk for what the journal holds, so that a full disk, whoever filled it, keeps no accepted batch
//! from its segment.
//!
//! The reserve is a file of allocated blocks that nobody writes. A round that finds the disk full gives it away and is
//! done again in its place; until there is a new one, nothing is accepted.

use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode};
use crate::id::Now;
use crate::store::reserve_path;

use super::CoreConfig;
use super::outbox::{Outbox, Owner};

/// Rest before it is tried again.
const RETRY_MS: u64 = 1_000;
/// Besides the journal's bytes: last blocks, indexes and names of segments; and the least for checkpoints.
const EXTRA_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be made, or made larger, at this monotonic nanosecond.
    Due(u64),
    Opening(FileId),
    Allocating(FileId),
    Removing,
    /// Given away: the round that needed it comes first.
    Given,
    Held,
}

/// One shard's reserve.
#[derive(Debug)]
pub(super) struct Reserve {
    path: String,
    journal_bytes: u64,
    /// What it is to have.
    bytes: u64,
    state: State,
    /// It has what it needs.
    held: bool,
    /// The last attempt found no room.
    failed: bool,
}

impl Reserve {
    pub(super) fn new(config: &CoreConfig) -> Self {
        let journal_bytes = config.journal_file_len() * config.journal_files.max(2) as u64;
        let mut reserve = Self {
            path: reserve_path(config.shard),
            journal_bytes,
            bytes: 0,
            state: State::Due(0),
            held: false,
            failed: false,
        };
        reserve.bytes = reserve.wanted(0);
        reserve
    }

    /// Each slot of the checkpoint may be written anew beside what segments take.
    fn wanted(&self, checkpoint_bytes: u64) -> u64 {
        let extra = EXTRA_BYTES.min(self.journal_bytes);
        self.journal_bytes + (extra + 2 * checkpoint_bytes).next_multiple_of(extra)
    }

    /// Whether what is accepted is sure to find its place.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the disk had no room for it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// When [`Reserve::pump`] is due by itself, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Due(at_ns) => Some(at_ns),
            _ => None,
        }
    }

    pub(super) fn pump(&mut self, now: Now, out: &mut Outbox) {
        if self.deadline_ns().is_some_and(|due| due <= now.mono_ns) {
            let file = out.new_file();
            self.state = State::Opening(file);
            let kind = OpKind::Open {
                file,
                path: self.path.clone().into_boxed_str(),
                mode: OpenMode::WriteDirect,
            };
            out.submit(Lane::Background, kind, Owner::Reserve);
        }
    }

    /// Its blocks become free for the round that needs them; whether there were any.
    pub(super) fn give(&mut self, out: &mut Outbox) -> bool {
        if self.state != State::Held {
            return false;
        }
        self.held = false;
        self.failed = true;
        self.state = State::Given;
        self.remove(out);
        true
    }

    fn remove(&self, out: &mut Outbox) {
        let path = self.path.clone().into_boxed_str();
        out.submit(Lane::Background, OpKind::Unlink { path }, Owner::Reserve);
    }

    /// A round has ended well, with a checkpoint of this size.
    pub(super) fn round_ended(&mut self, now: Now, checkpoint_bytes: u64) {
        let wanted = self.wanted(checkpoint_bytes);
        match self.state {
            State::Given => self.state = State::Due(now.mono_ns),
            State::Held if wanted > self.bytes => self.state = State::Due(now.mono_ns),
            _ => {}
        }
        self.bytes = wanted.max(self.bytes);
    }

    /// An operation on its file ended; true when its blocks are there for the round that needs them.
    pub(super) fn done(
        &mut self,
        now: Now,
        out: &mut Outbox,
        result: Result<(), DiskError>,
    ) -> bool {
        match (self.state, result) {
            (State::Opening(file), Ok(())) => {
                self.state = State::Allocating(file);
                let kind = OpKind::Allocate {
                    file,
                    offset: 0,
                    len: self.bytes,
                };
                out.submit(Lane::Background, kind, Owner::Reserve);
            }
            (State::Allocating(file), result) => {
                out.submit(Lane::Background, OpKind::Close { file }, Owner::Nobody);
                match result {
                    Ok(()) => self.hold(),
                    Err(error) if error.is_unsupported() => {
                        tracing::warn!("this file system cannot reserve space: {error}");
                        self.hold();
                    }
                    Err(_) => {
                        // What it has so far is of use to others.
                        self.state = State::Removing;
                        (self.held, self.failed) = (false, true);
                        self.remove(out);
                    }
                }
            }
            (State::Opening(_) | State::Removing, _) => {
                self.failed = true;
                self.state = State::Due(now.after_ms(RETRY_MS));
            }
            (State::Given, result) => return result.is_ok(),
            (State::Due(_) | State::Held, _) => {}
        }
        false
    }

    fn hold(&mut self) {
        (self.held, self.failed) = (true, false);
        self.state = State::Held;
    }
}
