//! Journal commits and reads on the shard's own ring.

use std::collections::VecDeque;
use std::io;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::FsyncFlags;
use slab::Slab;

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Completion, DiskError, FileId, Op, OpId, OpKind, Returned, WriteData};

use super::CommitSync;
use super::stats::RingStats;
use super::table::FileTable;
use super::uring::{Done, Kind, Ring, Target, Token, errno};

/// Reads the ring carries out at a time; further ones wait in the driver. A read through the page cache takes a
/// worker thread of the kernel, and a commit's sync needs one too.
const READS_IN_FLIGHT: usize = 64;

/// Worker threads the kernel may use for files: all reads, and syncs on top.
pub(super) const FILE_WORKERS: u32 = READS_IN_FLIGHT as u32 + 16;

/// An operation the kernel is working on. It owns the memory until the last completion has been taken.
struct Flight {
    id: OpId,
    work: Work,
    /// Completions still to come.
    waiting: u8,
    /// What failed in the operation itself.
    error: Option<DiskError>,
    /// What failed in the linked sync.
    sync_error: Option<DiskError>,
    started_ns: u64,
}

enum Work {
    Write {
        data: WriteData,
        durable: bool,
    },
    Sync,
    Read {
        target: Target,
        offset: u64,
        len: usize,
        done: usize,
        buf: AlignedBuf,
    },
}

/// The disk operations of a shard's ring.
pub(super) struct Lanes {
    flights: Slab<Flight>,
    commit_sync: CommitSync,
    reads: usize,
    reads_waiting: VecDeque<Op>,
    /// Completions known without the kernel.
    ready: VecDeque<Completion>,
}

impl Lanes {
    pub(super) fn new(commit_sync: CommitSync) -> Self {
        Self {
            flights: Slab::new(),
            commit_sync,
            reads: 0,
            reads_waiting: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Whether `op` is for this ring rather than for the background thread.
    pub(super) fn takes(op: &Op) -> bool {
        use crate::disk::Lane;
        matches!(
            (op.lane, &op.kind),
            (
                Lane::Journal | Lane::Read,
                OpKind::Write { .. } | OpKind::Sync { .. } | OpKind::Read { .. }
            )
        )
    }

    /// Operations the kernel still works on.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether a journal write or its sync is under way.
    pub(super) fn is_committing(&self) -> bool {
        self.flights.len() > self.reads
    }

    /// A completion that needed no kernel.
    pub(super) fn next_ready(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    /// Whether [`Lanes::next_ready`] has one.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts one operation that [`Lanes::takes`].
    pub(super) fn start(
        &mut self,
        ring: &mut Ring<'_>,
        files: &mut FileTable,
        op: Op,
        now_ns: u64,
    ) -> io::Result<()> {
        let id = op.id;
        match op.kind {
            OpKind::Write {
                file,
                offset,
                data,
                sync,
            } => match files.journal_target(ring, file) {
                Some(target) => self.write(ring, id, target, (offset, data, sync), now_ns),
                None => self.refuse(id, Returned::Data(data)),
            },
            OpKind::Sync { file } => match files.journal_target(ring, file) {
                Some(target) => self.sync(ring, id, target, now_ns),
                None => self.refuse(id, Returned::Nothing),
            },
            OpKind::Read { .. } if self.reads == READS_IN_FLIGHT => {
                self.reads_waiting.push_back(op);
                Ok(())
            }
            OpKind::Read {
                file,
                offset,
                len,
                buf,
            } => self.read(ring, files, id, (file, offset, len, buf), now_ns),
            _ => self.refuse(id, Returned::Nothing),
        }
    }

    /// The core named a file that is not open: a mistake of ours that it hears as an error.
    fn refuse(&mut self, id: OpId, returned: Returned) -> io::Result<()> {
        self.ready.push_back(Completion {
            id,
            result: Err(DiskError(libc::EBADF)),
            returned,
        });
        Ok(())
    }

    fn fly(&mut self, id: OpId, work: Work, waiting: u8, started_ns: u64) -> u32 {
        let flight = Flight {
            id,
            work,
            waiting,
            error: None,
            sync_error: None,
            started_ns,
        };
        self.flights.insert(flight) as u32
    }

    fn write(
        &mut self,
        ring: &mut Ring<'_>,
        id: OpId,
        target: Target,
        (offset, data, sync): (u64, WriteData, bool),
        now_ns: u64,
    ) -> io::Result<()> {
        let Ok(len) = u32::try_from(data.len()) else {
            return self.refuse(id, Returned::Data(data));
        };
        let start = data.as_ptr();
        let dsync = sync && self.commit_sync == CommitSync::Dsync;
        let linked = sync && !dsync;
        let work = Work::Write {
            data,
            durable: sync,
        };
        let index = self.fly(id, work, 1 + u8::from(linked), now_ns);
        let write = opcode::Write::new(target.field(), start, len)
            .offset(offset)
            .rw_flags(if dsync { libc::RWF_DSYNC } else { 0 })
            .build()
            .user_data(Token::new(Kind::Disk, index).pack());
        let write = target.mark(write);
        // SAFETY: the data is owned by the flight, which stays until all its completions have been taken; frozen
        // slices and owned buffers do not move or change meanwhile. The descriptor stays open: the core closes
        // a file only when nothing uses it.
        unsafe {
            if linked {
                let sync = fsync(target).user_data(Token::new(Kind::LinkedSync, index).pack());
                ring.push_chain(&[write.flags(Flags::IO_LINK), sync])
            } else {
                ring.push(&write)
            }
        }
    }

    fn sync(
        &mut self,
        ring: &mut Ring<'_>,
        id: OpId,
        target: Target,
        now_ns: u64,
    ) -> io::Result<()> {
        let index = self.fly(id, Work::Sync, 1, now_ns);
        let entry = fsync(target).user_data(Token::new(Kind::Disk, index).pack());
        // SAFETY: names no memory; the descriptor stays open as above.
        unsafe { ring.push(&entry) }
    }

    fn read(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        id: OpId,
        (file, offset, len, buf): (FileId, u64, usize, AlignedBuf),
        now_ns: u64,
    ) -> io::Result<()> {
        let target = files.target(file);
        let (Some(target), true) = (target, len <= buf.capacity() && u32::try_from(len).is_ok())
        else {
            return self.refuse(id, Returned::Buf(buf));
        };
        let work = Work::Read {
            target,
            offset,
            len,
            done: 0,
            buf,
        };
        let index = self.fly(id, work, 1, now_ns);
        self.reads += 1;
        self.push_read(ring, index)
    }

    /// Reads what flight `index` still misses.
    fn push_read(&mut self, ring: &mut Ring<'_>, index: u32) -> io::Result<()> {
        let Work::Read {
            target,
            offset,
            len,
            done,
            buf,
        } = &mut self.flights[index as usize].work
        else {
            unreachable!("only reads are continued");
        };
        // SAFETY: `done <= len <= capacity`.
        let at = unsafe { buf.as_mut_ptr().add(*done) };
        let entry = opcode::Read::new(target.field(), at, (*len - *done) as u32)
            .offset(*offset + *done as u64)
            .build()
            .user_data(Token::new(Kind::Disk, index).pack());
        let entry = target.mark(entry);
        // SAFETY: the buffer has room for `len` bytes and is owned by the flight until its completion has been
        // taken; nobody looks into it meanwhile.
        unsafe { ring.push(&entry) }
    }

    /// Takes a completion of [`Kind::Disk`] or [`Kind::LinkedSync`]; returns the operation's when it was its last.
    pub(super) fn finish(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        done: Done,
        stats: &RingStats,
        now_ns: u64,
    ) -> io::Result<Option<Completion>> {
        let index = done.token.index;
        let flight = &mut self.flights[index as usize];
        flight.waiting -= 1;
        let failed = errno(done.result).map(DiskError);
        if done.token.kind == Kind::LinkedSync {
            flight.sync_error = failed;
        } else if failed.is_some() {
            flight.error = failed;
        } else {
            match &mut flight.work {
                // A short write broke the chain: the sync did not happen, and part of the frame is missing.
                Work::Write { data, .. } if done.result as usize != data.len() => {
                    flight.error = Some(DiskError::IO);
                }
                Work::Write { .. } | Work::Sync => {}
                Work::Read {
                    len, done: read, ..
                } => {
                    *read += done.result as usize;
                    // Stopping at a block boundary may or may not be the file's end: only reading on tells.
                    if done.result > 0 && *read < *len && read.is_multiple_of(BLOCK) {
                        flight.waiting = 1;
                        return self.push_read(ring, index).map(|()| None);
                    }
                }
            }
        }
        if flight.waiting > 0 {
            return Ok(None);
        }
        let flight = self.flights.remove(index as usize);
        let failed = flight.error.or(flight.sync_error).is_some();
        if let (Work::Write { durable: true, .. }, false) = (&flight.work, failed) {
            stats.commits.add(1);
            stats
                .commit_ns
                .add(now_ns.saturating_sub(flight.started_ns));
        }
        if let Work::Read { .. } = flight.work {
            self.reads -= 1;
            self.start_waiting_read(ring, files, now_ns)?;
        }
        Ok(Some(flight.land()))
    }

    fn start_waiting_read(
        &mut self,
        ring: &mut Ring<'_>,
        files: &FileTable,
        now_ns: u64,
    ) -> io::Result<()> {
        if let Some(Op {
            id,
            kind:
                OpKind::Read {
                    file,
                    offset,
                    len,
                    buf,
                },
            ..
        }) = self.reads_waiting.pop_front()
        {
            self.read(ring, files, id, (file, offset, len, buf), now_ns)?;
        }
        Ok(())
    }
}

impl Flight {
    fn land(self) -> Completion {
        // A sync that was cancelled because its write failed says nothing: the write's error is the cause.
        let error = self.error.or(self.sync_error);
        let returned = match self.work {
            Work::Write { data, .. } => Returned::Data(data),
            Work::Sync => Returned::Nothing,
            Work::Read { mut buf, done, .. } => {
                buf.set_len(done);
                Returned::Buf(buf)
            }
        };
        Completion {
            id: self.id,
            result: error.map_or(Ok(()), Err),
            returned,
        }
    }
}

/// `fdatasync`.
pub(super) fn fsync(target: Target) -> Entry {
    let entry = opcode::Fsync::new(target.field())
        .flags(FsyncFlags::DATASYNC)
        .build();
    target.mark(entry)
}
