//! The files that a journal goes through: the one that frames are appended to, those that are ready to follow it, and full ones
//! whose frames are still needed.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use super::super::CoreConfig;
use super::super::api::{Event, Fatal};
use super::super::outbox::{Outbox, Owner};
use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode, WriteData};
use crate::id::{FrameSeq, Now};
use crate::journal::{FileHeader, Incarnation};
use crate::recovery::RunInfo;
use crate::store::journal_file;

/// Rest before a journal file that found no space is tried again.
const CREATE_RETRY_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// Being created or opened.
    Opening,
    /// Its header is being written for the next use.
    Preparing(Incarnation),
    /// Can become the current file.
    Ready(Incarnation),
    /// Frames are being appended to it.
    Current(Incarnation),
    /// Holds frames up to `last` that are still needed.
    Full { last: u64 },
}

#[derive(Debug)]
struct Slot {
    file: FileId,
    state: SlotState,
}

/// Where a frame goes.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) file: FileId,
    /// Where in the file, bytes.
    pub(super) offset: u64,
    /// The file's use.
    pub(super) incarnation: Incarnation,
}

/// One journal's files.
pub(super) struct Files {
    shard: u32,
    run: RunInfo,
    file_bytes: u64,
    files_max: usize,
    slots: Vec<Slot>,
    /// Slots whose headers are written, in order of incarnation.
    ready: VecDeque<usize>,
    /// Slots whose headers are being written, in order of incarnation.
    preparing: VecDeque<usize>,
    /// The slot that is appended to, and how far it is full.
    current: Option<(usize, u64)>,
    uses: u32,
    /// Frames up to this one are needed no more.
    released: u64,
    /// A file could not be made for want of space; tried again at `create_at_ns`.
    disk_full: bool,
    create_at_ns: Option<u64>,
    /// Bytes of headers written.
    pub(super) header_bytes: u64,
}

impl Files {
    /// Opens the files there are, and creates the first if there is none.
    pub(super) fn new(config: &CoreConfig, run: RunInfo, out: &mut Outbox) -> Self {
        let mut files = Self {
            shard: config.shard,
            run,
            file_bytes: config.journal_file_len(),
            files_max: config.journal_files.max(2),
            slots: Vec::new(),
            ready: VecDeque::new(),
            preparing: VecDeque::new(),
            current: None,
            uses: 0,
            released: 0,
            disk_full: false,
            create_at_ns: None,
            header_bytes: 0,
        };
        for &number in config.existing_journals.iter().take(files.files_max) {
            files.open(out, number, true);
        }
        files.top_up(out);
        files
    }

    fn open(&mut self, out: &mut Outbox, number: u32, exists: bool) {
        let file = out.new_file();
        let path = journal_file(self.shard, number, self.file_bytes).into_boxed_str();
        let kind = if exists {
            OpKind::Open {
                file,
                path,
                mode: OpenMode::WriteDirect,
            }
        } else {
            OpKind::CreateZeroed {
                file,
                path,
                len: self.file_bytes,
            }
        };
        out.submit(Lane::Background, kind, Owner::JournalFile(self.slots.len()));
        self.slots.push(Slot {
            file,
            state: SlotState::Opening,
        });
    }

    /// Creates one more file when none is in reserve and there may be more. Slot numbers are file numbers, and
    /// files that exist are always the first ones.
    pub(super) fn top_up(&mut self, out: &mut Outbox) {
        if !self.is_opening()
            && !self.disk_full
            && self.ready.is_empty()
            && self.preparing.is_empty()
            && self.slots.len() < self.files_max
        {
            self.open(out, self.slots.len() as u32, false);
        }
    }

    fn is_opening(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.state == SlotState::Opening)
    }

    fn prepare(&mut self, out: &mut Outbox, slot: usize) {
        self.uses += 1;
        let incarnation = Incarnation::new(self.run.run, self.uses);
        let header = FileHeader::new(
            self.run.dir_id,
            self.shard,
            incarnation,
            FrameSeq(self.released),
        );
        let mut block = AlignedBuf::with_capacity(BLOCK);
        block.extend_from_slice(header.as_bytes());
        block.pad_to_block();
        self.slots[slot].state = SlotState::Preparing(incarnation);
        self.preparing.push_back(slot);
        self.header_bytes += BLOCK as u64;
        let kind = OpKind::Write {
            file: self.slots[slot].file,
            offset: 0,
            data: WriteData::Owned(block),
            sync: true,
        };
        out.submit(Lane::Background, kind, Owner::JournalHeader(slot));
    }

    /// A file is open, or not.
    pub(super) fn opened(&mut self, out: &mut Outbox, slot: usize, result: Result<(), DiskError>) {
        match result {
            Ok(()) => self.prepare(out, slot),
            // A full disk means a smaller journal for now: what there is goes on being used.
            Err(error) if error.is_full() && slot + 1 == self.slots.len() => {
                self.slots.pop();
                self.disk_full = true;
            }
            Err(error) => out
                .events
                .push_back(Event::Fatal(Fatal::JournalCreate(error))),
        }
    }

    /// A file's header is durable.
    pub(super) fn prepared(&mut self, slot: usize) {
        if let SlotState::Preparing(incarnation) = self.slots[slot].state {
            self.slots[slot].state = SlotState::Ready(incarnation);
        }
        while let Some(&slot) = self.preparing.front()
            && matches!(self.slots[slot].state, SlotState::Ready(_))
        {
            self.preparing.pop_front();
            self.ready.push_back(slot);
        }
    }

    /// Whether frames of these lengths find room, in order, in the current file and the ready ones.
    pub(super) fn hold(&self, frames: &[u64]) -> bool {
        let mut left = self
            .current
            .map_or(0, |(_, position)| self.file_bytes - position);
        let mut ready = self.ready.len();
        for &frame in frames {
            if frame > left {
                if ready == 0 {
                    return false;
                }
                ready -= 1;
                left = self.file_bytes - BLOCK as u64;
            }
            left -= frame;
        }
        true
    }

    /// The place of the next frame, of `len` bytes; the one before it is `last`.
    ///
    /// # Panics
    /// If [`Files::hold`] was not asked first.
    pub(super) fn take(&mut self, len: u64, last: u64) -> Option<Position> {
        let fits = |(_, position): (usize, u64)| position + len <= self.file_bytes;
        if !self.current.is_some_and(fits) {
            self.turn_over(last);
        }
        let (slot, position) = self.current.as_mut()?;
        let slot = &self.slots[*slot];
        let SlotState::Current(incarnation) = slot.state else {
            return None;
        };
        let offset = *position;
        *position += len;
        Some(Position {
            file: slot.file,
            offset,
            incarnation,
        })
    }

    /// Goes on with the next file; the current one ends with frame `last`.
    fn turn_over(&mut self, last: u64) {
        let next = self
            .ready
            .pop_front()
            .expect("room was checked before appending");
        if let Some((full, _)) = self.current.take() {
            self.slots[full].state = SlotState::Full { last };
        }
        if let SlotState::Ready(incarnation) = self.slots[next].state {
            self.slots[next].state = SlotState::Current(incarnation);
        }
        self.current = Some((next, BLOCK as u64));
    }

    /// Frames up to `cut` are needed no more: files that hold no others are used again.
    pub(super) fn release(&mut self, out: &mut Outbox, cut: u64) {
        self.released = cut;
        for slot in 0..self.slots.len() {
            if let SlotState::Full { last } = self.slots[slot].state
                && last <= cut
            {
                self.prepare(out, slot);
            }
        }
    }

    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Tries again, after a rest, to make a file that found no space.
    pub(super) fn retry_create(&mut self, now: Now, out: &mut Outbox) {
        if !self.disk_full {
            return;
        }
        let due = *self
            .create_at_ns
            .get_or_insert(now.after_ms(CREATE_RETRY_MS));
        if now.mono_ns >= due {
            self.disk_full = false;
            self.create_at_ns = None;
            self.top_up(out);
        }
    }

    /// When [`Files::retry_create`] is due, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.create_at_ns
    }

    /// The disk has no room for the first two files: with one alone, what it holds could never be released.
    pub(super) fn is_starved(&self) -> bool {
        self.disk_full && self.slots.len() < 2
    }

    /// Whether files run short: no full file more can be begun.
    pub(super) fn is_short(&self) -> bool {
        self.ready.is_empty()
            && self.preparing.is_empty()
            && (self.disk_full || self.slots.len() == self.files_max)
    }

    /// Bytes all files together can hold when all exist.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.file_bytes * self.files_max as u64
    }

    /// Whether no file is being made or prepared.
    pub(super) fn is_quiet(&self) -> bool {
        self.preparing.is_empty() && !self.is_opening()
    }
}
