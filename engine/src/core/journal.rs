//! Group commit: the open frame, the commits in flight, and the files they go to.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use crate::buf::{AlignedBuf, BLOCK, BufPool, SlabWriter, Slice, round_up};
use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode, WriteData};
use crate::id::{FrameSeq, Now, PartitionKey};
use crate::journal::{EntryHeader, FileHeader, FrameHeader, Incarnation, entry_len};
use crate::recovery::RunInfo;
use crate::store::journal_file;

use super::CoreConfig;
use super::api::{Durability, Event, Fatal};
use super::flush::Flush;
use super::outbox::{Outbox, Owner};

/// An idle journal writes a marker this long after its last commit, so that recovery can vouch for it.
const MARKER_DELAY_MS: u64 = 5;
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

/// A sealed frame, kept as long as memory allows: the image of the journal that consumers read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) seq: u64,
    pub(super) bytes: Slice,
    /// Partitions with a batch in it, each with the offset after its last, in order of appending.
    pub(super) parts: Vec<(u32, i64)>,
}

#[derive(Debug)]
struct Commit {
    seq: u64,
    file: FileId,
    offset: u64,
    batches: u32,
    done: bool,
}

/// A frame on its way to a commit.
#[derive(Debug)]
struct Sealed {
    seq: u64,
    file: FileId,
    offset: u64,
    batches: u32,
    bytes: Slice,
}

/// A batch's place in the journal's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) frame: u64,
    pub(super) at: u32,
}

/// Where an appended batch belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) key: PartitionKey,
    pub(super) part: u32,
    /// It starts a new segment.
    pub(super) roll: bool,
    /// Offset after its last record.
    pub(super) next_offset: i64,
}

/// One shard's journal.
pub(super) struct Journal {
    shard: u32,
    run: RunInfo,
    durability: Durability,
    /// Flushes behind acknowledgements, where these do not wait for one.
    flush: Option<Flush>,
    commits_max: usize,
    file_bytes: u64,
    files_max: usize,
    retry_failed_sync: bool,
    ack_before_sync: bool,
    slots: Vec<Slot>,
    /// Slots whose headers are written, in order of incarnation.
    ready: VecDeque<usize>,
    /// Slots whose headers are being written, in order of incarnation.
    preparing: VecDeque<usize>,
    current: Option<(usize, u64)>,
    uses: u32,
    pool: BufPool,
    writer: Option<SlabWriter>,
    open_entries: u32,
    open_parts: Vec<(u32, i64)>,
    next_seq: u64,
    previous_crc: u32,
    /// Sealed, not yet given to the disk.
    sealed: VecDeque<Sealed>,
    commits: VecDeque<Commit>,
    durable: u64,
    /// [`Journal::vouched`] as told by the newest sealed frame.
    announced: u64,
    /// Generation of the newest durable checkpoint, and as told by the newest sealed frame.
    checkpoint: u64,
    announced_checkpoint: u64,
    closing: bool,
    last_is_marker: bool,
    marker_due_ns: Option<u64>,
    frames: VecDeque<Frame>,
    /// The newest sealed frame that is no marker.
    newest_batch: u64,
    memory_bytes: u64,
    /// Frames up to this one are in segments and a checkpoint.
    released: u64,
    unreleased_bytes: u64,
    pub(super) frames_written: u64,
    pub(super) bytes_written: u64,
    failed: bool,
    /// A file could not be made for want of space; tried again at `create_at_ns`.
    disk_full: bool,
    create_at_ns: Option<u64>,
}

impl Journal {
    pub(super) fn new(config: &CoreConfig, run: RunInfo, out: &mut Outbox) -> Self {
        let slab_bytes = config.slab_bytes();
        let mut journal = Self {
            shard: config.shard,
            run,
            durability: config.durability,
            flush: match config.durability {
                Durability::Fsync => None,
                Durability::Write => Some(Flush::new(None)),
                Durability::WriteThenFlush { every_ms } => Some(Flush::new(Some(every_ms))),
            },
            commits_max: config.commits_in_flight.max(1),
            file_bytes: config.journal_file_len(),
            files_max: config.journal_files.max(2),
            retry_failed_sync: config.mutations.retry_failed_sync,
            ack_before_sync: config.mutations.ack_before_sync,
            slots: Vec::new(),
            ready: VecDeque::new(),
            preparing: VecDeque::new(),
            current: None,
            uses: 0,
            pool: BufPool::new(slab_bytes, config.slabs_max()),
            writer: None,
            open_entries: 0,
            open_parts: Vec::new(),
            next_seq: 1,
            previous_crc: 0,
            sealed: VecDeque::new(),
            commits: VecDeque::new(),
            durable: 0,
            announced: 0,
            checkpoint: 0,
            announced_checkpoint: 0,
            closing: false,
            last_is_marker: false,
            marker_due_ns: None,
            frames: VecDeque::new(),
            newest_batch: 0,
            memory_bytes: 0,
            released: 0,
            unreleased_bytes: 0,
            frames_written: 0,
            bytes_written: 0,
            failed: false,
            disk_full: false,
            create_at_ns: None,
        };
        for &number in config.existing_journals.iter().take(journal.files_max) {
            journal.open_slot(out, number, true);
        }
        journal.top_up(out);
        journal
    }

    /// Memory of slabs for reads, too.
    pub(super) fn pool(&self) -> &BufPool {
        &self.pool
    }

    fn open_slot(&mut self, out: &mut Outbox, number: u32, exists: bool) {
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
    fn top_up(&mut self, out: &mut Outbox) {
        let coming = self
            .slots
            .iter()
            .any(|slot| slot.state == SlotState::Opening);
        if !coming
            && !self.disk_full
            && self.ready.is_empty()
            && self.preparing.is_empty()
            && self.slots.len() < self.files_max
        {
            self.open_slot(out, self.slots.len() as u32, false);
        }
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
        self.bytes_written += BLOCK as u64;
        let kind = OpKind::Write {
            file: self.slots[slot].file,
            offset: 0,
            data: WriteData::Owned(block),
            sync: true,
        };
        out.submit(Lane::Background, kind, Owner::JournalHeader(slot));
    }

    pub(super) fn file_opened(
        &mut self,
        out: &mut Outbox,
        slot: usize,
        result: Result<(), DiskError>,
    ) {
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

    pub(super) fn header_written(
        &mut self,
        out: &mut Outbox,
        slot: usize,
        result: Result<(), DiskError>,
    ) {
        if let Err(error) = result {
            self.fail(out, error);
            return;
        }
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

    fn fail(&mut self, out: &mut Outbox, error: DiskError) {
        self.failed = true;
        out.events.push_back(Event::Fatal(Fatal::Journal(error)));
    }

    /// Whether a batch of `len` bytes can be taken now: its frame is sure to find a place in a file.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let open = self.writer.as_ref().map_or(0, SlabWriter::open_len);
        let entry = entry_len(len);
        let alone = round_up(FrameHeader::LEN + entry) as u64;
        if self.fits_slab(entry) {
            return self.files_hold(&[round_up(open.max(FrameHeader::LEN) + entry) as u64]);
        }
        // The slab is full: the open frame is sealed first, and the batch begins another.
        self.files_hold(&[round_up(open) as u64, alone])
    }

    fn fits_slab(&self, entry: usize) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|w| w.room() >= entry + 2 * BLOCK)
    }

    /// Whether frames of these lengths find room, in order, in the current file and the ready ones.
    fn files_hold(&self, frames: &[u64]) -> bool {
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

    /// Puts a batch, its offset assigned by `finish`, into the open frame.
    ///
    /// # Panics
    /// If [`Journal::has_room`] was not asked first.
    pub(super) fn append(
        &mut self,
        out: &mut Outbox,
        to: Target,
        batch: &[u8],
        finish: impl FnOnce(&mut [u8]),
    ) -> Place {
        let Target {
            key,
            part,
            roll,
            next_offset,
        } = to;
        let entry = entry_len(batch.len());
        if !self.fits_slab(entry) {
            self.seal(out);
            self.writer = None;
        }
        let pool = &self.pool;
        let writer = self.writer.get_or_insert_with(|| pool.writer());
        if writer.open_len() == 0 {
            writer.append_zeros(FrameHeader::LEN);
        }
        writer.append(EntryHeader::batch(key, batch.len() as u32, roll).as_bytes());
        let at = writer.append(batch);
        finish(&mut writer.open_mut()[at..]);
        self.open_entries += 1;
        match self.open_parts.last_mut() {
            Some(last) if last.0 == part => last.1 = next_offset,
            _ => self.open_parts.push((part, next_offset)),
        }
        Place {
            frame: self.next_seq,
            at: at as u32,
        }
    }

    /// Bytes of a batch, from the open frame or a sealed one.
    pub(super) fn slice(&self, place: Place, len: usize) -> Option<Slice> {
        let frame = self.frame(place.frame)?;
        let at = place.at as usize;
        Some(frame.bytes.cut(at, at + len))
    }

    /// A sealed frame that is still in memory.
    pub(super) fn frame(&self, seq: u64) -> Option<&Frame> {
        let first = self.frames.front()?.seq;
        self.frames
            .get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    /// Closes the open frame: gives it its place in a file and its header.
    fn seal(&mut self, out: &mut Outbox) {
        let vouched = self.vouched();
        let Some(writer) = &mut self.writer else {
            return;
        };
        if writer.open_len() == 0 {
            return;
        }
        let disk_len = round_up(writer.open_len()) as u64;
        if self
            .current
            .is_none_or(|(_, position)| position + disk_len > self.file_bytes)
        {
            let next = self
                .ready
                .pop_front()
                .expect("room was checked before appending");
            if let Some((full, _)) = self.current.take() {
                self.slots[full].state = SlotState::Full {
                    last: self.next_seq - 1,
                };
            }
            if let SlotState::Ready(incarnation) = self.slots[next].state {
                self.slots[next].state = SlotState::Current(incarnation);
            }
            self.current = Some((next, BLOCK as u64));
        }
        let Some((slot, position)) = &mut self.current else {
            return;
        };
        let SlotState::Current(incarnation) = self.slots[*slot].state else {
            return;
        };
        let seq = self.next_seq;
        let open = writer.open_mut();
        let (head, payload) = open.split_at_mut(FrameHeader::LEN);
        let header = FrameHeader::new(
            incarnation,
            FrameSeq(seq),
            FrameSeq(vouched),
            self.checkpoint,
            self.previous_crc,
            self.open_entries,
            payload,
        );
        head.copy_from_slice(header.as_bytes());
        let bytes = writer.freeze();
        let offset = *position;
        *position += disk_len;
        self.sealed.push_back(Sealed {
            seq,
            file: self.slots[*slot].file,
            offset,
            batches: self.open_entries,
            bytes: bytes.clone(),
        });
        self.previous_crc = header.crc();
        self.next_seq += 1;
        self.announced = vouched;
        self.announced_checkpoint = self.checkpoint;
        self.last_is_marker = self.open_entries == 0;
        if !self.last_is_marker {
            self.newest_batch = seq;
        }
        self.open_entries = 0;
        self.memory_bytes += disk_len;
        self.unreleased_bytes += disk_len;
        let parts = std::mem::take(&mut self.open_parts);
        self.frames.push_back(Frame { seq, bytes, parts });
        self.top_up(out);
    }

    /// Whether the next frame goes to the disk now. Beside commits that are under way only one with at least half as
    /// many batches as they have: many clients would otherwise be served in ever smaller frames, each with a flush
    /// of its own, and a single one does not wait.
    fn may_commit(&self) -> bool {
        if self.commits.len() >= self.commits_max {
            return false;
        }
        let under_way: u32 = self.commits.iter().map(|commit| commit.batches).sum();
        !self.sealed.is_empty() || self.open_entries > 0 && 2 * self.open_entries >= under_way
    }

    /// Starts as many commits as may be in flight; the open frame goes when nothing sealed waits before it.
    pub(super) fn pump(&mut self, now: Now, out: &mut Outbox) {
        if self.failed {
            return;
        }
        self.retry_create(now, out);
        if let Some(flush) = &mut self.flush {
            flush.pump(now, self.durable, out);
        }
        self.write_marker(now, out);
        while self.may_commit() {
            if self.sealed.is_empty() {
                self.seal(out);
            }
            let Some(frame) = self.sealed.pop_front() else {
                break;
            };
            self.commits.push_back(Commit {
                seq: frame.seq,
                file: frame.file,
                offset: frame.offset,
                batches: frame.batches,
                done: false,
            });
            self.submit(out, frame);
        }
    }

    fn retry_create(&mut self, now: Now, out: &mut Outbox) {
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

    /// The disk has no room for the first two files: with one alone, what it holds could never be released.
    pub(super) fn is_starved(&self) -> bool {
        self.disk_full && self.slots.len() < 2
    }

    fn submit(&mut self, out: &mut Outbox, frame: Sealed) {
        self.frames_written += 1;
        self.bytes_written += frame.bytes.len() as u64;
        let sync = self.durability == Durability::Fsync && !self.ack_before_sync;
        let kind = OpKind::Write {
            file: frame.file,
            offset: frame.offset,
            data: WriteData::Slice(frame.bytes),
            sync,
        };
        out.submit(Lane::Journal, kind, Owner::Commit(frame.seq));
    }

    fn write_marker(&mut self, now: Now, out: &mut Outbox) {
        let idle = self.open_entries == 0 && self.sealed.is_empty() && self.commits.is_empty();
        let untold_frames = !self.last_is_marker && self.announced < self.vouched();
        let untold_checkpoint = self.announced_checkpoint < self.checkpoint && !self.closing;
        if !idle || !(untold_frames || untold_checkpoint) {
            self.marker_due_ns = None;
            return;
        }
        let due = *self
            .marker_due_ns
            .get_or_insert(now.after_ms(MARKER_DELAY_MS));
        let left = self
            .current
            .map_or(0, |(_, position)| self.file_bytes - position);
        if now.mono_ns < due {
            return;
        }
        self.marker_due_ns = None;
        if left < BLOCK as u64 && self.ready.is_empty() {
            // No room for it in any file: the next frame will tell.
            self.last_is_marker = true;
            self.announced_checkpoint = self.checkpoint;
            return;
        }
        if self.writer.as_ref().is_some_and(|w| w.room() < BLOCK) {
            self.writer = None;
        }
        let pool = &self.pool;
        self.writer
            .get_or_insert_with(|| pool.writer())
            .append_zeros(FrameHeader::LEN);
        self.seal(out);
    }

    /// A commit ended. The durable prefix may grow; the new end is in [`Journal::durable`].
    pub(super) fn committed(&mut self, out: &mut Outbox, seq: u64, result: Result<(), DiskError>) {
        if let Err(error) = result {
            let again = self
                .commits
                .iter()
                .find(|c| c.seq == seq)
                .map(|c| (c.file, c.offset));
            match (again, self.frame(seq).map(|f| f.bytes.clone())) {
                (Some((file, offset)), Some(_)) if self.retry_failed_sync => {
                    // Wrong on purpose: the sync alone is repeated, as if the pages were still dirty.
                    let _ = offset;
                    out.submit(Lane::Journal, OpKind::Sync { file }, Owner::Commit(seq));
                }
                _ => self.fail(out, error),
            }
            return;
        }
        if let Some(commit) = self.commits.iter_mut().find(|commit| commit.seq == seq) {
            commit.done = true;
            if let Some(flush) = &mut self.flush {
                flush.written(commit.file);
            }
        }
        while let Some(commit) = self.commits.front()
            && commit.done
            && !self.failed
        {
            self.durable = commit.seq;
            self.commits.pop_front();
        }
    }

    /// Whether everything acknowledged up to the frame `wanted` is durable; if not, a flush begins as soon as may be.
    pub(super) fn flushed_to(&mut self, wanted: u64) -> bool {
        let flush = self.flush.as_mut();
        flush.is_none_or(|flush| flush.reaches(wanted))
    }

    /// A sync of a flush behind acknowledgements ended. A failed one is not repeated: nobody knows any more what the device has.
    pub(super) fn flushed(&mut self, out: &mut Outbox, result: Result<(), DiskError>) {
        match (result, &mut self.flush) {
            (Err(error), _) => self.fail(out, error),
            (Ok(()), Some(flush)) => flush.synced(),
            (Ok(()), None) => {}
        }
    }

    /// The newest frame that may be called durable to recovery: should it be missing then, the disk has lost it. Frames that
    /// are acknowledged before their flush do not count until then.
    fn vouched(&self) -> u64 {
        self.flush.as_ref().map_or(self.durable, Flush::covered)
    }

    pub(super) fn durable(&self) -> FrameSeq {
        FrameSeq(self.durable)
    }

    /// Nothing is appended any more: the checkpoint that is written last is not vouched for, since a frame behind its
    /// cut would outlive a clean end.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// The shard's checkpoint of this generation is durable: what is written next vouches for it.
    pub(super) fn checkpointed(&mut self, generation: u64) {
        self.checkpoint = generation;
    }

    /// Frames up to `cut` are in segments and a checkpoint: their files can be used again.
    pub(super) fn release(&mut self, out: &mut Outbox, cut: u64) {
        let from = self.frames.front().map_or(0, |frame| frame.seq);
        for seq in (self.released + 1).max(from)..=cut {
            if let Some(frame) = self.frame(seq) {
                self.unreleased_bytes -= frame.bytes.len() as u64;
            }
        }
        self.released = cut;
        for slot in 0..self.slots.len() {
            if let SlotState::Full { last } = self.slots[slot].state
                && last <= cut
            {
                self.prepare(out, slot);
            }
        }
    }

    /// Drops the oldest released frame while memory holds more than `limit` bytes.
    pub(super) fn evict(&mut self, limit: u64) -> Option<Frame> {
        let front = self.frames.front()?;
        if self.memory_bytes <= limit || front.seq > self.released {
            return None;
        }
        self.memory_bytes -= front.bytes.len() as u64;
        self.frames.pop_front()
    }

    /// Whether a sealed frame with batches is not released; a marker needs no round.
    pub(super) fn holds_batches(&self) -> bool {
        self.newest_batch > self.released
    }

    /// Bytes of frames that are not released.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.unreleased_bytes
    }

    /// Bytes all files together can hold when all exist.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.file_bytes * self.files_max as u64
    }

    /// Whether files run short: no full file more can be begun.
    pub(super) fn is_short(&self) -> bool {
        self.ready.is_empty()
            && self.preparing.is_empty()
            && (self.disk_full || self.slots.len() == self.files_max)
    }

    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Nothing open, sealed or in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.open_entries == 0
            && self.sealed.is_empty()
            && self.commits.is_empty()
            && self.preparing.is_empty()
            && self
                .slots
                .iter()
                .all(|slot| slot.state != SlotState::Opening)
    }

    /// Whether a frame is on its way to the disk.
    pub(super) fn is_committing(&self) -> bool {
        !self.commits.is_empty()
    }

    /// When [`Journal::pump`] is due by itself, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.marker_due_ns
            .into_iter()
            .chain(self.create_at_ns)
            .chain(self.flush.as_ref().and_then(Flush::deadline_ns))
            .min()
    }

    /// Whether there is something that [`Journal::pump`] would start at once.
    pub(super) fn has_work(&self) -> bool {
        !self.failed && self.may_commit()
    }
}
