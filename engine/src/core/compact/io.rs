//! Files of a pass: what it reads, what it writes, and what becomes of its operations.

use crate::disk::{DiskError, FileId, Lane, OpKind, OpenMode, Returned, WriteData};
use crate::store::SegmentFile;

use super::job::{Failure, Job};
use super::source::Source;
use super::{Action, WRITES_GENTLE, WRITES_MAX};
use crate::core::files::FileKey;
use crate::core::outbox::Owner;
use crate::core::{Core, OpenWaiter};

impl Core {
    /// Opens the segment at the pass's progress; false when there is none before `until`.
    pub(super) fn open_source(&mut self, job: &mut Job, until: i64) -> bool {
        let Some(partition) = self.parts[job.part as usize].as_deref() else {
            return false;
        };
        let mut segments = partition.stored.segments.iter();
        let next = segments.find(|s| s.next_offset > job.progress);
        let Some(segment) = next.filter(|s| s.base_offset < until && s.sealed) else {
            return false;
        };
        let key = FileKey {
            part: job.part,
            segment: segment.name(),
            file: SegmentFile::Log,
            mode: OpenMode::ReadDirect,
        };
        let (file, ready) = self.files.acquire(&mut self.out, key, &partition.dir);
        job.source = Some(Source::new(segment, file, ready));
        if !ready {
            self.wait_for(job, file);
        }
        true
    }

    fn wait_for(&mut self, job: &mut Job, file: FileId) {
        job.outstanding += 1;
        let waiters = self.waiting_opens.entry(file).or_default();
        waiters.push(OpenWaiter::Compaction);
    }

    pub(super) fn close_source(&mut self, job: &mut Job) {
        if let Some(source) = job.source.take() {
            self.files.release(&mut self.out, source.file);
        }
    }

    pub(super) fn open_output(&mut self, job: &mut Job, file: SegmentFile) {
        let Some(partition) = self.parts[job.part as usize].as_deref() else {
            return;
        };
        let Some(group) = &mut job.group else { return };
        if let Some((old, _)) = group.output.file.take() {
            self.files.release(&mut self.out, old);
        }
        let key = FileKey {
            part: job.part,
            segment: group.output.segment.name(),
            file,
            mode: OpenMode::WriteDirect,
        };
        let (id, ready) = self.files.acquire(&mut self.out, key, &partition.dir);
        group.output.file = Some((id, ready));
        if !ready {
            self.wait_for(job, id);
        }
    }

    /// Reads the next piece, should it be time.
    pub(super) fn read_on(&mut self, job: &mut Job) {
        let Some(source) = &mut job.source else {
            return;
        };
        let Some((offset, len)) = source.next_read() else {
            return;
        };
        let kind = OpKind::Read {
            file: source.file,
            offset,
            len,
            buf: self.compaction.buffers.take(),
        };
        job.outstanding += 1;
        let owner = Owner::Compaction(Action::Read);
        self.out.submit(Lane::Background, kind, owner);
    }

    /// Writes what is full, a few at a time.
    pub(super) fn write_on(&mut self, job: &mut Job) {
        let most = if self.reads.is_gentle() {
            WRITES_GENTLE
        } else {
            WRITES_MAX
        };
        let Some(group) = &mut job.group else { return };
        let Some((file, true)) = group.output.file else {
            return;
        };
        while job.writes < most
            && let Some((offset, data)) = group.output.next_write()
        {
            job.writes += 1;
            job.outstanding += 1;
            job.written_bytes += data.len() as u64;
            self.stats.compaction_written_bytes += data.len() as u64;
            let kind = OpKind::Write {
                file,
                offset,
                data: WriteData::Owned(data),
                sync: false,
            };
            let owner = Owner::Compaction(Action::Write);
            self.out.submit(Lane::Background, kind, owner);
        }
    }

    /// A file that the pass waits for is open, or cannot be opened.
    pub(in crate::core) fn compaction_opened(
        &mut self,
        file: FileId,
        result: Result<(), DiskError>,
    ) {
        let Some(job) = &mut self.compaction.job else {
            return;
        };
        job.outstanding -= 1;
        match result {
            Ok(()) => {
                if let Some(source) = job.source.as_mut().filter(|s| s.file == file) {
                    source.ready = true;
                }
                if let Some((id, ready)) = job.group.as_mut().and_then(|g| g.output.file.as_mut())
                    && *id == file
                {
                    *ready = true;
                }
            }
            Err(error) => job.fail(Failure::Disk(error)),
        }
        self.compaction.can_go_on = true;
    }

    /// An operation of the pass ended.
    pub(in crate::core) fn compaction_done(
        &mut self,
        what: Action,
        result: Result<(), DiskError>,
        returned: Returned,
    ) {
        let Some(job) = &mut self.compaction.job else {
            return;
        };
        job.outstanding -= 1;
        job.writes -= usize::from(what == Action::Write);
        if let Err(error) = result {
            job.fail(Failure::Disk(error));
        } else if let (Action::Read, Returned::Buf(piece), Some(source)) =
            (what, &returned, &mut job.source)
            && !source.read(piece)
        {
            let name = source.name;
            job.fail(Failure::Damaged(name));
        }
        self.compaction.can_go_on = true;
    }
}
