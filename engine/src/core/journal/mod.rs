//! Group commit: the open frame, the commits in flight, and the files they go to.

mod files;

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use crate::buf::{BLOCK, BufPool, SlabWriter, Slice, round_up};
use crate::disk::{DiskError, FileId, Lane, OpKind, WriteData};
use crate::id::{FrameSeq, Now, PartitionKey};
use crate::journal::{EntryHeader, FrameHeader, entry_len};
use crate::recovery::RunInfo;

use super::CoreConfig;
use super::api::{Durability, Event, Fatal};
use super::flush::Flush;
use super::outbox::{Outbox, Owner};
use files::Files;

/// An idle journal writes a marker this long after its last commit, so that recovery can vouch for it.
const MARKER_DELAY_MS: u64 = 5;
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
    durability: Durability,
    /// Flushes behind acknowledgements, where these do not wait for one.
    flush: Option<Flush>,
    commits_max: usize,
    retry_failed_sync: bool,
    ack_before_sync: bool,
    files: Files,
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
    unreleased_bytes: u64,
    pub(super) frames_written: u64,
    bytes_written: u64,
    failed: bool,
}

impl Journal {
    pub(super) fn new(config: &CoreConfig, run: RunInfo, out: &mut Outbox) -> Self {
        let slab_bytes = config.slab_bytes();
        Self {
            durability: config.durability,
            flush: match config.durability {
                Durability::Fsync => None,
                Durability::Write => Some(Flush::new(None)),
                Durability::WriteThenFlush { every_ms } => Some(Flush::new(Some(every_ms))),
            },
            commits_max: config.commits_in_flight.max(1),
            retry_failed_sync: config.mutations.retry_failed_sync,
            ack_before_sync: config.mutations.ack_before_sync,
            files: Files::new(config, run, out),
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
            unreleased_bytes: 0,
            frames_written: 0,
            bytes_written: 0,
            failed: false,
        }
    }

    /// Memory of slabs for reads, too.
    pub(super) fn pool(&self) -> &BufPool {
        &self.pool
    }

    pub(super) fn file_opened(
        &mut self,
        out: &mut Outbox,
        slot: usize,
        result: Result<(), DiskError>,
    ) {
        self.files.opened(out, slot, result);
    }

    pub(super) fn header_written(
        &mut self,
        out: &mut Outbox,
        slot: usize,
        result: Result<(), DiskError>,
    ) {
        match result {
            Ok(()) => self.files.prepared(slot),
            Err(error) => self.fail(out, error),
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
            let joined = round_up(open.max(FrameHeader::LEN) + entry) as u64;
            return self.files.hold(&[joined]);
        }
        // The slab is full: the open frame is sealed first, and the batch begins another.
        self.files.hold(&[round_up(open) as u64, alone])
    }

    fn fits_slab(&self, entry: usize) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|w| w.room() >= entry + 2 * BLOCK)
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
        let Some(position) = self.files.take(disk_len, self.next_seq - 1) else {
            return;
        };
        let seq = self.next_seq;
        let open = writer.open_mut();
        let (head, payload) = open.split_at_mut(FrameHeader::LEN);
        let header = FrameHeader::new(
            position.incarnation,
            FrameSeq(seq),
            FrameSeq(vouched),
            self.checkpoint,
            self.previous_crc,
            self.open_entries,
            payload,
        );
        head.copy_from_slice(header.as_bytes());
        let bytes = writer.freeze();
        self.sealed.push_back(Sealed {
            seq,
            file: position.file,
            offset: position.offset,
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
        self.files.top_up(out);
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
        self.files.retry_create(now, out);
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

    /// The disk has no room for the first two files: with one alone, what it holds could never be released.
    pub(super) fn is_starved(&self) -> bool {
        self.files.is_starved()
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
        if now.mono_ns < due {
            return;
        }
        self.marker_due_ns = None;
        if !self.files.hold(&[BLOCK as u64]) {
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

    /// Bytes written to the journal's files, headers and padding included.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written + self.files.header_bytes
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
        for seq in (self.released() + 1).max(from)..=cut {
            if let Some(frame) = self.frame(seq) {
                self.unreleased_bytes -= frame.bytes.len() as u64;
            }
        }
        self.files.release(out, cut);
    }

    /// Drops the oldest released frame while memory holds more than `limit` bytes.
    pub(super) fn evict(&mut self, limit: u64) -> Option<Frame> {
        let front = self.frames.front()?;
        if self.memory_bytes <= limit || front.seq > self.released() {
            return None;
        }
        self.memory_bytes -= front.bytes.len() as u64;
        self.frames.pop_front()
    }

    /// Whether a sealed frame with batches is not released; a marker needs no round.
    pub(super) fn holds_batches(&self) -> bool {
        self.newest_batch > self.released()
    }

    /// Bytes of frames that are not released.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.unreleased_bytes
    }

    /// Bytes all files together can hold when all exist.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.files.capacity_bytes()
    }

    /// Whether files run short: no full file more can be begun.
    pub(super) fn is_short(&self) -> bool {
        self.files.is_short()
    }

    /// Frames up to this one are in segments and a checkpoint.
    pub(super) fn released(&self) -> u64 {
        self.files.released()
    }

    /// Nothing open, sealed or in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.open_entries == 0
            && self.sealed.is_empty()
            && self.commits.is_empty()
            && self.files.is_quiet()
    }

    /// Whether a frame is on its way to the disk.
    pub(super) fn is_committing(&self) -> bool {
        !self.commits.is_empty()
    }

    /// When [`Journal::pump`] is due by itself, monotonic nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.marker_due_ns
            .into_iter()
            .chain(self.files.deadline_ns())
            .chain(self.flush.as_ref().and_then(Flush::deadline_ns))
            .min()
    }

    /// Whether there is something that [`Journal::pump`] would start at once.
    pub(super) fn has_work(&self) -> bool {
        !self.failed && self.may_commit()
    }
}
