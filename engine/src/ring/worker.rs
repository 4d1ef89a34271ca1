//! What the background thread does with an operation.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use io_uring::opcode;
use io_uring::types::Fd;
use slab::Slab;

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Completion, DiskError, FileId, Op, OpId, OpKind, Returned, WriteData};
use crate::shard::Wake;

use super::background::{Order, Report, opening, plain};
use super::lanes::fsync;
use super::root::{Root, allocate};
use super::slow;
use super::uring::{Done, Kind, Ring, Target, Token, errno};
use super::waker::ShardWaker;

/// Data operations in flight, and worker threads of the kernel for them: with more, destage to many files takes the
/// shard's core from it, and commits wait.
pub(super) const DEPTH: usize = 8;

/// The end of an operation that ran on a thread of its own.
pub(super) struct SlowDone {
    id: OpId,
    /// The file it was to open.
    file: Option<FileId>,
    removal: bool,
    result: Result<Option<OwnedFd>, DiskError>,
}

/// A data operation the kernel is working on.
struct Flight {
    id: OpId,
    fd: RawFd,
    offset: u64,
    /// Bytes done so far.
    done: usize,
    work: Work,
}

enum Work {
    Write { data: WriteData, sync: bool },
    Syncing { returned: Returned },
    SyncDir { _dir: OwnedFd },
    Read { buf: AlignedBuf, len: usize },
}

/// State of the background thread.
pub(super) struct Worker {
    root: Arc<Root>,
    files: HashMap<FileId, OwnedFd>,
    flights: Slab<Flight>,
    waiting: VecDeque<Op>,
    slow: usize,
    removals: VecDeque<Op>,
    removing: bool,
    reports: VecDeque<Report>,
    orders: Sender<Order>,
    waker: Arc<ShardWaker>,
}

impl Worker {
    pub(super) fn new(root: Arc<Root>, orders: Sender<Order>, waker: Arc<ShardWaker>) -> Self {
        Self {
            root,
            files: HashMap::new(),
            flights: Slab::with_capacity(DEPTH),
            waiting: VecDeque::new(),
            slow: 0,
            removals: VecDeque::new(),
            removing: false,
            reports: VecDeque::new(),
            orders,
            waker,
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.waiting.is_empty() && self.slow == 0
    }

    pub(super) fn next_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Gives up the memory the kernel may still be using.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flights));
    }

    /// Carries out a plain call at once; starts or queues anything else.
    pub(super) fn start(&mut self, ring: &mut Ring<'_>, op: Op) -> io::Result<()> {
        if slow::is_slow(&op.kind) {
            self.start_slow(op);
            return Ok(());
        }
        let data = matches!(
            op.kind,
            OpKind::Write { .. }
                | OpKind::Sync { .. }
                | OpKind::SyncDir { .. }
                | OpKind::Read { .. }
        );
        if !data {
            let report = self.metadata(op);
            self.reports.push_back(report);
            Ok(())
        } else if self.flights.len() == DEPTH {
            self.waiting.push_back(op);
            Ok(())
        } else {
            self.fly(ring, op)
        }
    }

    fn metadata(&mut self, op: Op) -> Report {
        let result = match op.kind {
            OpKind::Open { file, path, mode } => {
                let opened = self.root.file(&path, mode).map(|fd| self.keep(file, fd));
                return opening(op.id, file, opened);
            }
            OpKind::Close { file } => {
                let known = self.files.remove(&file).map(drop);
                known.ok_or(DiskError(libc::EBADF))
            }
            OpKind::Allocate { file, offset, len } => {
                self.file(file).and_then(|fd| allocate(fd, offset, len))
            }
            OpKind::Truncate { file, len } => self
                .file(file)
                .and_then(|fd| Ok(rustix::fs::ftruncate(fd, len)?)),
            OpKind::CreateDir { path } => self.root.create_dir(&path),
            OpKind::Unlink { path } => self.root.unlink(&path),
            _ => Err(DiskError::INVALID),
        };
        plain(Completion {
            id: op.id,
            result,
            returned: Returned::Nothing,
        })
    }

    fn keep(&mut self, file: FileId, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.files.insert(file, fd);
        number
    }

    fn file(&self, file: FileId) -> Result<std::os::fd::BorrowedFd<'_>, DiskError> {
        let open = self.files.get(&file).ok_or(DiskError(libc::EBADF))?;
        Ok(open.as_fd())
    }

    // --- slow operations ---

    fn start_slow(&mut self, op: Op) {
        let removal = matches!(op.kind, OpKind::RemoveDir { .. });
        // Deleting many topics at once must not start as many threads.
        if removal && std::mem::replace(&mut self.removing, true) {
            self.removals.push_back(op);
            return;
        }
        self.slow += 1;
        let file = match op.kind {
            OpKind::CreateZeroed { file, .. } => Some(file),
            _ => None,
        };
        let (id, orders, waker) = (op.id, self.orders.clone(), self.waker.clone());
        slow::start(&self.root, op.kind, move |result| {
            let done = SlowDone {
                id,
                file,
                removal,
                result,
            };
            // The thread that listens ends only after all of these.
            let _ = orders.send(Order::SlowDone(done));
            waker.wake();
        });
    }

    pub(super) fn slow_done(&mut self, done: SlowDone) {
        self.slow -= 1;
        if done.removal {
            self.removing = false;
            if let Some(next) = self.removals.pop_front() {
                self.start_slow(next);
            }
        }
        let report = match (done.file, done.result) {
            (Some(file), Ok(Some(fd))) => {
                let number = self.keep(file, fd);
                opening(done.id, file, Ok(number))
            }
            (_, result) => plain(Completion {
                id: done.id,
                result: result.map(|_| ()),
                returned: Returned::Nothing,
            }),
        };
        self.reports.push_back(report);
    }

    // --- data operations ---

    fn fly(&mut self, ring: &mut Ring<'_>, op: Op) -> io::Result<()> {
        let id = op.id;
        let (fd, offset, work) = match op.kind {
            OpKind::Write {
                file,
                offset,
                data,
                sync,
            } => (self.file(file), offset, Work::Write { data, sync }),
            OpKind::Sync { file } => (self.file(file), 0, syncing(Returned::Nothing)),
            OpKind::Read {
                file,
                offset,
                len,
                buf,
            } if len <= buf.capacity() => (self.file(file), offset, Work::Read { buf, len }),
            OpKind::SyncDir { path } => match self.root.subdirectory(&path) {
                Ok(dir) => return self.push_sync_dir(ring, id, dir),
                Err(error) => (Err(error), 0, syncing(Returned::Nothing)),
            },
            _ => (Err(DiskError::INVALID), 0, syncing(Returned::Nothing)),
        };
        match fd.map(|fd| fd.as_raw_fd()) {
            Ok(fd) => self.push_new(
                ring,
                Flight {
                    id,
                    fd,
                    offset,
                    done: 0,
                    work,
                },
            ),
            Err(error) => {
                self.report(id, Err(error), work.into_returned(0));
                Ok(())
            }
        }
    }

    fn push_sync_dir(&mut self, ring: &mut Ring<'_>, id: OpId, dir: OwnedFd) -> io::Result<()> {
        let flight = Flight {
            id,
            fd: dir.as_raw_fd(),
            offset: 0,
            done: 0,
            work: Work::SyncDir { _dir: dir },
        };
        self.push_new(ring, flight)
    }

    fn push_new(&mut self, ring: &mut Ring<'_>, flight: Flight) -> io::Result<()> {
        let index = self.flights.insert(flight);
        self.push(ring, index)
    }

    /// Submits what flight `index` still has to do.
    fn push(&mut self, ring: &mut Ring<'_>, index: usize) -> io::Result<()> {
        let flight = &mut self.flights[index];
        let (fd, at) = (Fd(flight.fd), flight.offset + flight.done as u64);
        let entry = match &mut flight.work {
            Work::Write { data, .. } => {
                let rest = &data[flight.done..];
                let len = u32::try_from(rest.len()).unwrap_or(1 << 30);
                opcode::Write::new(fd, rest.as_ptr(), len)
                    .offset(at)
                    .build()
            }
            Work::Read { buf, len } => {
                let bytes = u32::try_from(*len - flight.done).unwrap_or(1 << 30);
                // SAFETY: `done <= len <= capacity`.
                let into = unsafe { buf.as_mut_ptr().add(flight.done) };
                opcode::Read::new(fd, into, bytes).offset(at).build()
            }
            Work::SyncDir { .. } => opcode::Fsync::new(fd).build(),
            Work::Syncing { .. } => fsync(Target {
                number: flight.fd,
                registered: false,
            }),
        };
        let entry = entry.user_data(Token::new(Kind::Disk, index as u32).pack());
        // SAFETY: the flight owns the memory, and a directory's descriptor, until its completion has been taken;
        // files stay open because the core closes only what nothing uses.
        unsafe { ring.push(&entry) }
    }

    /// Takes a completion: continues the operation or reports its end, and starts one that waits.
    pub(super) fn finish(&mut self, ring: &mut Ring<'_>, done: Done) -> io::Result<()> {
        let index = done.token.index as usize;
        let result = match self.advance(index, done.result) {
            Step::Again => return self.push(ring, index),
            Step::End(result) => result,
        };
        let flight = self.flights.remove(index);
        let returned = flight.work.into_returned(flight.done);
        self.report(flight.id, result, returned);
        if let Some(op) = self.waiting.pop_front() {
            self.fly(ring, op)?;
        }
        Ok(())
    }

    fn advance(&mut self, index: usize, result: i32) -> Step {
        let flight = &mut self.flights[index];
        if let Some(error) = errno(result) {
            return Step::End(Err(DiskError(error)));
        }
        let n = result as usize;
        match &mut flight.work {
            Work::Write { data, sync } => {
                flight.done += n;
                if flight.done < data.len() {
                    // A full disk stops a write short and says so at the next attempt.
                    return if n > 0 {
                        Step::Again
                    } else {
                        Step::End(Err(DiskError::IO))
                    };
                }
                if !*sync {
                    return Step::End(Ok(()));
                }
                let work = std::mem::replace(&mut flight.work, syncing(Returned::Nothing));
                flight.work = syncing(work.into_returned(flight.done));
                Step::Again
            }
            Work::Read { len, .. } => {
                flight.done += n;
                if n > 0 && flight.done < *len && flight.done.is_multiple_of(BLOCK) {
                    Step::Again
                } else {
                    Step::End(Ok(()))
                }
            }
            Work::Syncing { .. } | Work::SyncDir { .. } => Step::End(Ok(())),
        }
    }

    fn report(&mut self, id: OpId, result: Result<(), DiskError>, returned: Returned) {
        self.reports.push_back(plain(Completion {
            id,
            result,
            returned,
        }));
    }
}

enum Step {
    /// There is more to do.
    Again,
    /// It is over.
    End(Result<(), DiskError>),
}

fn syncing(returned: Returned) -> Work {
    Work::Syncing { returned }
}

impl Work {
    fn into_returned(self, done: usize) -> Returned {
        match self {
            Self::Write { data, .. } => Returned::Data(data),
            Self::Syncing { returned } => returned,
            Self::SyncDir { .. } => Returned::Nothing,
            Self::Read { mut buf, .. } => {
                buf.set_len(done);
                Returned::Buf(buf)
            }
        }
    }
}
