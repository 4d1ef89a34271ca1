//! Tasks: a read of one partition's segment files, step by step.

use crate::batch::BatchHeader;
use crate::buf::{AlignedBuf, BLOCK, Slice, round_down, round_up};
use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode};
use crate::id::{Now, Part};
use crate::store::{Segment, SegmentFile, SegmentName, SparseIndex};

use super::search::{Look, PROBE, find_record, look, whole_batches, youngest};
use super::{GENTLE_NS, INDEXES_KEPT, QUEUE_MAX, Reads};
use crate::core::api::{
    Chunk, Event, FetchData, FetchError, FetchSpec, FileSpan, ReadId, TimedOffset,
};
use crate::core::files::FileKey;
use crate::core::outbox::Owner;
use crate::core::partition::{Partition, ReadHint};
use crate::core::{ColdReads, Core, OpenWaiter};

/// An index file is at most this long, bytes: entries are bounded when a segment is sealed.
const INDEX_FILE_MAX: usize = 64 << 10;
/// A single read is at most this long, bytes, unless one batch is longer.
pub(super) const READ_MAX: usize = 1 << 20;
/// And while commits come.
pub(super) const GENTLE_MAX: usize = 256 << 10;

/// What a task is looking for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    Fetch(FetchSpec),
    /// First record at or after a time.
    Time(i64),
    /// The youngest record of the batch that holds this offset.
    Newest(i64),
}

#[derive(Debug)]
pub(super) enum Step {
    /// Waiting for a file to be opened, or for a turn.
    Opening,
    /// The offset index, then the time index, of a sealed segment.
    Index { offsets: Option<Vec<u8>> },
    /// Batches from `position` of the segment.
    Scan { from: u64 },
}

#[derive(Debug)]
pub(super) struct Task {
    part: u32,
    goal: Goal,
    segment: SegmentName,
    step: Step,
    /// A batch starts here.
    position: u64,
    /// Bytes to read from there.
    want: usize,
    file: Option<(FileKey, FileId)>,
    exact: bool,
    /// Reads go through the page cache.
    cached: bool,
}

impl Task {
    /// Whether what is found is answered as a place in the file.
    fn lends(&self, spec: FetchSpec) -> bool {
        spec.spans && self.cached
    }

    /// The partition and its segment that the task reads, unless one was removed or replaced meanwhile.
    fn stored<'p>(
        &self,
        parts: &'p [Option<Box<Partition>>],
    ) -> Option<(&'p Partition, &'p Segment)> {
        let partition = parts[self.part as usize].as_deref()?;
        let at = partition.stored.segment_at(self.segment.base_offset)?;
        let segment = &partition.stored.segments[at];
        (segment.name() == self.segment).then_some((partition, segment))
    }

    /// The segment to look in, in a partition where the task's own is no more.
    fn segment_now(&self, partition: &Partition) -> Result<SegmentName, FetchError> {
        let stored = &partition.stored;
        let found = match self.goal {
            Goal::Fetch(spec) => stored.segment_at(spec.offset),
            Goal::Newest(offset) => stored.segment_at(offset),
            Goal::Time(ms) => stored
                .segments
                .iter()
                .position(|s| s.max_timestamp >= ms && s.next_offset > partition.log_start),
        };
        let gone = FetchError::OutOfRange {
            offset: match self.goal {
                Goal::Fetch(spec) => spec.offset,
                Goal::Time(_) | Goal::Newest(_) => -1,
            },
            log_start_offset: partition.log_start,
            log_end_offset: partition.log_end,
        };
        found.map(|at| stored.segments[at].name()).ok_or(gone)
    }
}

impl Reads {
    /// Bytes of a read at most.
    fn most_bytes(&self) -> usize {
        if self.gentle { GENTLE_MAX } else { READ_MAX }
    }

    /// Reads under way at most.
    fn most_active(&self, configured: usize) -> usize {
        if self.gentle { 1 } else { configured.max(1) }
    }

    /// What a commit waits behind is small while commits come.
    fn note_commit(&mut self, now: Now, committing: bool) {
        if committing {
            self.commit_ns = Some(now.mono_ns);
        }
        self.gentle = self
            .commit_ns
            .is_some_and(|at| now.mono_ns < at + GENTLE_NS);
    }
}

impl Core {
    pub(super) fn start_read(
        &mut self,
        part: Part,
        goal: Goal,
        segment: SegmentName,
        hint: Option<ReadHint>,
    ) -> Result<ReadId, FetchError> {
        if self.reads.waiting.len() >= QUEUE_MAX {
            return Err(FetchError::Busy);
        }
        let id = ReadId(self.reads.next_id);
        self.reads.next_id += 1;
        let task = Task {
            part: part.0,
            goal,
            segment,
            step: Step::Opening,
            position: hint.map_or(0, |hint| hint.position),
            want: 0,
            file: None,
            exact: hint.is_some(),
            cached: false,
        };
        self.reads.tasks.insert(id, task);
        self.reads.waiting.push_back(id);
        self.start_waiting();
        Ok(id)
    }

    /// Starts waiting reads while few enough are under way.
    pub(in crate::core) fn pump_reads(&mut self, now: Now) {
        self.reads.note_commit(now, self.journal.is_committing());
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        while self.reads.active < self.reads.most_active(self.config.reads_in_flight)
            && let Some(id) = self.reads.waiting.pop_front()
        {
            self.reads.active += 1;
            self.begin_read(id);
        }
    }

    /// Finds out where to read: by hint, by the index in memory, or by reading the index first.
    fn begin_read(&mut self, id: ReadId) {
        let most = self.reads.most_bytes();
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let (goal, segment) = (task.goal, task.segment.base_offset);
        let Some((_, found)) = task.stored(&self.parts) else {
            return self.segment_gone(id);
        };
        if !task.exact {
            let Some(index) = &found.index else {
                task.step = Step::Index { offsets: None };
                return self.open_for(id, SegmentFile::Index);
            };
            let relative = |offset: i64| (offset - segment).clamp(0, i64::from(u32::MAX)) as u32;
            task.position = u64::from(match goal {
                Goal::Fetch(spec) => index.position_of(relative(spec.offset)),
                Goal::Newest(offset) => index.position_of(relative(offset)),
                Goal::Time(ms) => index.position_of_time(ms),
            });
            let gap = found.bytes / (index.entries().len() as u64 + 1);
            task.want = (gap as usize).clamp(PROBE, READ_MAX);
        }
        task.cached = match self.config.cold_reads {
            ColdReads::Direct => false,
            ColdReads::Cached => true,
            // Filling the page cache takes the shard's core and the device from commits.
            ColdReads::DirectOnce => {
                !self.reads.gentle && self.reads.seen.has(task.part, segment, task.position)
            }
        };
        task.want = match goal {
            Goal::Fetch(spec) if !task.lends(spec) => {
                (task.want + spec.max_bytes).clamp(BLOCK, most + PROBE)
            }
            _ => task.want.clamp(PROBE, READ_MAX),
        };
        self.read_batches(id);
    }

    /// Reads from the task's position, through the file or, when all of it is there, from the odd tail.
    fn read_batches(&mut self, id: ReadId) {
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let Some((_, segment)) = task.stored(&self.parts) else {
            return self.segment_gone(id);
        };
        let from = round_down(task.position as usize) as u64;
        task.step = Step::Scan { from };
        if task.position >= segment.file_bytes() {
            let buf = AlignedBuf::with_capacity(BLOCK);
            let from = segment.file_bytes();
            task.step = Step::Scan { from };
            return self.scanned(id, buf);
        }
        let wants_file = task
            .file
            .is_none_or(|(key, _)| key.file != SegmentFile::Log || key.segment != task.segment);
        if wants_file {
            return self.open_for(id, SegmentFile::Log);
        }
        let Some((_, file)) = task.file else { return };
        let end = segment.file_bytes().min(task.position + task.want as u64);
        let len = round_up((end - from) as usize);
        // Room for the odd tail behind what the file has.
        let buf = self.reads.buffers.take(len + BLOCK);
        self.out.submit(
            Lane::Read,
            OpKind::Read {
                file,
                offset: from,
                len,
                buf,
            },
            Owner::Read(id),
        );
    }

    fn open_for(&mut self, id: ReadId, file: SegmentFile) {
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let Some(partition) = self.parts[task.part as usize].as_ref() else {
            return self.end_read(id, Err(FetchError::UnknownPartition));
        };
        let mode = if task.cached {
            OpenMode::ReadBuffered
        } else {
            OpenMode::ReadDirect
        };
        let key = FileKey {
            part: task.part,
            segment: task.segment,
            file,
            mode,
        };
        if let Some((_, old)) = task.file.take() {
            self.files.release(&mut self.out, old);
        }
        let (opened, ready) = self.files.acquire(&mut self.out, key, &partition.dir);
        task.file = Some((key, opened));
        if ready {
            self.read_opened(id, Ok(()));
        } else {
            self.waiting_opens
                .entry(opened)
                .or_default()
                .push(OpenWaiter::Read(id));
        }
    }

    /// A file that a read waits for is open, or cannot be opened.
    pub(in crate::core) fn read_opened(&mut self, id: ReadId, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.end_read(id, Err(FetchError::Disk(error)));
        }
        let Some(task) = self.reads.tasks.get(&id) else {
            return;
        };
        match (&task.step, task.file) {
            (Step::Index { .. }, Some((_, file))) => {
                let buf = AlignedBuf::with_capacity(INDEX_FILE_MAX);
                let kind = OpKind::Read {
                    file,
                    offset: 0,
                    len: INDEX_FILE_MAX,
                    buf,
                };
                self.out.submit(Lane::Read, kind, Owner::Read(id));
            }
            _ => self.read_batches(id),
        }
    }

    /// A read of a task ended.
    pub(in crate::core) fn read_done(
        &mut self,
        id: ReadId,
        result: Result<(), DiskError>,
        buf: AlignedBuf,
    ) {
        if let Err(error) = result {
            return self.end_read(id, Err(FetchError::Disk(error)));
        }
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        match &mut task.step {
            Step::Index {
                offsets: offsets @ None,
            } => {
                *offsets = Some(buf.to_vec());
                self.open_for(id, SegmentFile::TimeIndex);
            }
            Step::Index {
                offsets: Some(offsets),
            } => {
                let offsets = std::mem::take(offsets);
                let (part, base) = (task.part, task.segment.base_offset);
                if task.stored(&self.parts).is_some()
                    && let Some(partition) = self.parts[part as usize].as_mut()
                    && let Some(at) = partition.stored.segment_at(base)
                {
                    let interval = partition.config.index_interval_bytes;
                    let index = SparseIndex::from_files(interval, &offsets, &buf);
                    partition.stored.segments[at].index = Some(index);
                    self.keep_index(part, base);
                }
                self.begin_read(id);
            }
            Step::Scan { .. } => self.scanned(id, buf),
            Step::Opening => {}
        }
    }

    /// Notes that a sealed segment's index is in memory, and drops the oldest such.
    pub(in crate::core) fn keep_index(&mut self, part: u32, base: i64) {
        self.reads.indexes.push_back((part, base));
        if self.reads.indexes.len() > INDEXES_KEPT
            && let Some((part, base)) = self.reads.indexes.pop_front()
            && !self.reads.indexes.contains(&(part, base))
            && let Some(partition) = self.parts[part as usize].as_mut()
            && let Some(at) = partition.stored.segment_at(base)
            && partition.stored.segments[at].sealed
        {
            partition.stored.segments[at].index = None;
        }
    }

    /// Bytes from the segment are here: looks for the batch, reads on, or answers.
    fn scanned(&mut self, id: ReadId, mut buf: AlignedBuf) {
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let Some((partition, segment)) = task.stored(&self.parts) else {
            return self.segment_gone(id);
        };
        let Step::Scan { from } = task.step else {
            return;
        };
        // What lies beyond the whole blocks in the file is in memory. The file may have grown since the read.
        let file_end = segment.file_bytes();
        if from + buf.len() as u64 >= file_end {
            buf.set_len((file_end - from) as usize);
            if let Some(odd) = partition.stored.odd.as_ref().filter(|_| !segment.sealed) {
                buf.extend_from_slice(odd);
            }
        }
        let start = (task.position - from) as usize;
        let damaged = FetchError::Damaged {
            segment: task.segment.base_offset,
            position: task.position,
        };
        let Some(bytes) = buf.get(start..) else {
            return self.end_read(id, Err(damaged));
        };
        let last = from + buf.len() as u64 >= segment.bytes;
        let log_start = partition.log_start;
        let mut room = self.config.decompressed_bytes_max;
        let verdict = match task.goal {
            Goal::Fetch(spec) => look(bytes, |header| header.last_offset() >= spec.offset),
            Goal::Newest(offset) => look(bytes, |header| header.last_offset() >= offset),
            Goal::Time(ms) => look(bytes, |header| {
                header.max_timestamp.get() >= ms && header.last_offset() >= log_start
            }),
        };
        match verdict {
            Look::Damaged(at) => {
                let position = task.position + at as u64;
                let damaged = FetchError::Damaged {
                    segment: task.segment.base_offset,
                    position,
                };
                self.end_read(id, Err(damaged));
            }
            Look::More { at, need } => {
                if last && at == bytes.len() {
                    return self.not_in_segment(id);
                }
                if last {
                    return self.end_read(id, Err(damaged));
                }
                task.position += at as u64;
                task.want = need.max(task.want.min(READ_MAX));
                self.read_batches(id);
            }
            Look::Found { at, len } => match task.goal {
                Goal::Fetch(spec) => {
                    let position = task.position + at as u64;
                    let bytes = Slice::from(buf);
                    self.found_batch(id, spec, bytes, start + at, position);
                }
                Goal::Time(ms) => {
                    let batch = &bytes[at..at + len];
                    match find_record(batch, log_start, &mut room, |ts| ts >= ms) {
                        Some(record) => self.end_timed(id, Some(record)),
                        None => {
                            task.position += (at + len) as u64;
                            self.read_batches(id);
                        }
                    }
                }
                Goal::Newest(_) => {
                    let record = youngest(&bytes[at..at + len], log_start, room);
                    self.end_timed(id, record);
                }
            },
        }
    }

    /// The task's segment was removed, or replaced by one that compaction made: the search begins anew, in what is there.
    fn segment_gone(&mut self, id: ReadId) {
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let partition = self.parts[task.part as usize].as_deref();
        let now = partition
            .ok_or(FetchError::UnknownPartition)
            .and_then(|partition| task.segment_now(partition));
        match (now, task.goal) {
            (Ok(segment), _) => {
                task.segment = segment;
                task.exact = false;
                self.begin_read(id);
            }
            // What was left of that time is in memory, or nowhere.
            (Err(FetchError::OutOfRange { .. }), Goal::Time(ms)) => {
                let part = Part(task.part);
                let found = self.time_in_memory(part, ms);
                self.end_timed(id, found);
            }
            (Err(error), _) => self.end_read(id, Err(error)),
        }
    }

    /// The search goes on in the next segment, or in memory behind the last: compaction may have dropped whatever was at
    /// the segment's end.
    fn not_in_segment(&mut self, id: ReadId) {
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let at_least = match task.goal {
            Goal::Time(ms) => ms,
            Goal::Fetch(_) | Goal::Newest(_) => i64::MIN,
        };
        let base = task.segment.base_offset;
        let next = self.parts[task.part as usize]
            .as_ref()
            .and_then(|partition| {
                let mut segments = partition.stored.segments.iter();
                segments.find(|s| s.base_offset > base && s.max_timestamp >= at_least)
            });
        if let Some(next) = next {
            task.segment = next.name();
            task.exact = false;
            return self.begin_read(id);
        }
        let part = Part(task.part);
        match task.goal {
            Goal::Time(ms) => {
                let found = self.time_in_memory(part, ms);
                self.end_timed(id, found);
            }
            Goal::Newest(_) => self.end_timed(id, None),
            Goal::Fetch(spec) => {
                let data = self.fetch_behind_gap(part, spec);
                self.end_read(id, Ok(data));
            }
        }
    }

    /// What memory holds behind a gap that reaches to the end of the segments.
    fn fetch_behind_gap(&self, part: Part, spec: FetchSpec) -> FetchData {
        let Ok(partition) = self.partition(part) else {
            return FetchData::default();
        };
        let end = if spec.committed {
            partition.last_stable()
        } else {
            partition.high_watermark
        };
        let first = partition.tail.front().map(|entry| entry.base_offset);
        let at = first.and_then(|first| partition.tail_at(spec.offset.max(first)));
        at.map_or_else(FetchData::default, |at| self.collect(part, at, end, spec))
    }

    /// The wanted batch starts at `start` of `bytes`, which is `position` in the segment.
    fn found_batch(
        &mut self,
        id: ReadId,
        spec: FetchSpec,
        bytes: Slice,
        start: usize,
        position: u64,
    ) {
        let most = self.reads.most_bytes();
        let Some(task) = self.reads.tasks.get_mut(&id) else {
            return;
        };
        let Some((partition, segment)) = task.stored(&self.parts) else {
            return self.segment_gone(id);
        };
        let (end, file_end) = (segment.bytes, segment.file_bytes());
        let first = BatchHeader::read(&bytes[start..]).map_or(0, BatchHeader::total_len);
        if first > spec.max_bytes && !spec.min_one {
            return self.end_read(id, Ok(FetchData::default()));
        }
        let wanted = spec.max_bytes.max(first).min((end - position) as usize);
        // Where the undecided begins is found batch by batch. All before it may be gone by compaction.
        let bound = if spec.committed {
            partition.last_stable()
        } else {
            i64::MAX
        };
        if BatchHeader::read(&bytes[start..]).is_some_and(|h| h.base_offset.get() >= bound) {
            return self.end_read(id, Ok(FetchData::default()));
        }
        let segment_end = segment.next_offset;
        if task.lends(spec) && position < file_end && segment_end <= bound {
            let len = wanted.min((file_end - position) as usize);
            let mut data = FetchData::default();
            if let Some((_, file)) = task.file.take() {
                data.chunks.push(Chunk::Span(FileSpan {
                    file,
                    offset: position,
                    len,
                }));
            }
            if wanted > len
                && let Some(odd) = partition.stored.odd.as_ref().filter(|_| !segment.sealed)
            {
                data.chunks
                    .push(Chunk::Bytes(odd.cut(0, (wanted - len).min(odd.len()))));
            }
            data.bytes = data.chunks.iter().map(Chunk::len).sum();
            data.end = segment_end;
            return self.end_read(id, Ok(data));
        }
        let here = bytes.len() - start;
        if here < wanted.min(most).max(first) && here < (end - position) as usize {
            // The search ended near the end of what was read: read again from the batch itself.
            task.position = position;
            task.exact = true;
            task.want = wanted.min(most).max(first);
            return self.read_batches(id);
        }
        let (len, next) = whole_batches(&bytes[start..], wanted.min(here), bound);
        let segment_base = task.segment.base_offset;
        let hint = ReadHint {
            offset: next,
            segment: task.segment,
            position: position + len as u64,
        };
        let (part, cached) = (task.part, task.cached);
        if let Some(partition) = self.parts[part as usize].as_mut() {
            partition.remember(spec.offset, hint);
        }
        if !cached && self.config.cold_reads == ColdReads::DirectOnce {
            let read = (position, hint.position);
            self.reads.seen.note(part, segment_base, read, end);
        }
        let chunks = vec![Chunk::Bytes(bytes.cut(start, start + len))];
        let data = FetchData {
            chunks,
            bytes: len,
            end: next,
            ..FetchData::default()
        };
        self.end_read(id, Ok(data));
    }

    fn end_timed(&mut self, id: ReadId, found: Option<TimedOffset>) {
        self.close_read(id);
        self.out.events.push_back(Event::Timed(id, Ok(found)));
    }

    fn end_read(&mut self, id: ReadId, result: Result<FetchData, FetchError>) {
        let part = self.reads.tasks.get(&id).map(|task| Part(task.part));
        let (Some(goal), Some(part)) = (self.close_read(id), part) else {
            return;
        };
        let result = match (goal, result) {
            (Goal::Fetch(spec), Ok(data)) => self.complete_fetch(part, spec, data),
            (_, result) => result,
        };
        if let Ok(data) = &result {
            self.stats.read_file_bytes += data.bytes as u64;
        }
        self.out.events.push_back(match (goal, result) {
            (Goal::Fetch(_), result) => Event::Fetched(id, result),
            (_, Err(error)) => Event::Timed(id, Err(error)),
            (_, Ok(_)) => Event::Timed(id, Ok(None)),
        });
    }

    /// The data with its aborted transactions; what it lends is given back if it is of no use any more.
    fn complete_fetch(
        &mut self,
        part: Part,
        spec: FetchSpec,
        mut data: FetchData,
    ) -> Result<FetchData, FetchError> {
        match self.aborted_for(part, spec, &data) {
            Ok(aborted) => Ok(FetchData { aborted, ..data }),
            Err(error) => {
                for chunk in data.chunks.drain(..) {
                    if let Chunk::Span(span) = chunk {
                        self.release(span);
                    }
                }
                Err(error)
            }
        }
    }

    fn close_read(&mut self, id: ReadId) -> Option<Goal> {
        let task = self.reads.tasks.remove(&id)?;
        if let Some((_, file)) = task.file {
            self.files.release(&mut self.out, file);
        }
        self.reads.active -= 1;
        Some(task.goal)
    }
}
