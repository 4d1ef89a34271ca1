//! The ring itself: pushing submissions, entering the kernel, taking completions.

use std::io;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter};

/// What a submission's `user_data` says: who gets the completion, and which of his operations it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) index: u32,
}

/// Who gets a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nobody: cancellations.
    Ignore,
    /// The eventfd became readable.
    Wake,
    /// A connection arrived.
    Accept,
    /// Bytes arrived on connection `index`.
    Recv,
    /// Bytes left connection `index`.
    Send,
    /// Connection `index` can take bytes again.
    Writable,
    /// A splice from a file to connection `index`'s pipe.
    SpliceIn,
    /// A splice from connection `index`'s pipe to its socket.
    SpliceOut,
    /// The socket of connection `index` is closed.
    Closed,
    /// Disk operation `index`: the write, the read, or a sync alone.
    Disk,
    /// Disk operation `index`: the sync linked to its write.
    LinkedSync,
}

impl Token {
    pub(super) const IGNORE: u64 = Self::new(Kind::Ignore, 0).pack();

    pub(super) const fn new(kind: Kind, index: u32) -> Self {
        Self { kind, index }
    }

    pub(super) const fn pack(self) -> u64 {
        (self.kind as u64) << 32 | self.index as u64
    }

    pub(super) fn unpack(user_data: u64) -> Self {
        const KINDS: [Kind; 11] = [
            Kind::Ignore,
            Kind::Wake,
            Kind::Accept,
            Kind::Recv,
            Kind::Send,
            Kind::Writable,
            Kind::SpliceIn,
            Kind::SpliceOut,
            Kind::Closed,
            Kind::Disk,
            Kind::LinkedSync,
        ];
        // Only what `pack` made comes back.
        Self {
            kind: KINDS[(user_data >> 32) as usize],
            index: user_data as u32,
        }
    }
}

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) token: Token,
    /// As the system call would return: negative is an error number.
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// A file as an operation names it: a descriptor, or a slot of the ring's table of registered files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) number: i32,
    pub(super) registered: bool,
}

impl Target {
    /// For the operation's descriptor field; [`Target::mark`] the entry too.
    pub(super) fn field(self) -> io_uring::types::Fd {
        io_uring::types::Fd(self.number)
    }

    pub(super) fn mark(self, entry: Entry) -> Entry {
        if self.registered {
            entry.flags(Flags::FIXED_FILE)
        } else {
            entry
        }
    }
}

/// Attempts to make room in the submission queue.
const ROUNDS_FOR_ROOM: usize = 8;

/// Completions that end a wait for several: half as many as there are receive buffers, one of which each may hold.
const GATHERED_MAX: u32 = 32;

/// How long [`Ring::enter`] waits for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all.
    No,
    /// This many nanoseconds at most.
    For(u64),
    /// This many nanoseconds, unless [`GATHERED_MAX`] are there before.
    Gather(u64),
    /// Until there is one.
    Forever,
}

/// Creates a ring for use by the calling thread alone.
pub(super) fn create(entries: u32, completions: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions)
        .build(entries)
}

/// A ring in use by its thread.
pub(super) struct Ring<'a> {
    submitter: Submitter<'a>,
    sq: SubmissionQueue<'a>,
    cq: CompletionQueue<'a>,
    no_iowait: bool,
    enters: u64,
    /// Completions taken while room was made for submissions.
    early: Vec<Done>,
}

impl<'a> Ring<'a> {
    /// Takes a ring made by [`create`] into use; registers its descriptor, where the kernel can, to save a look-up
    /// each time.
    pub(super) fn new(ring: &'a mut IoUring) -> Self {
        let no_iowait = ring.params().is_feature_no_iowait();
        let (mut submitter, sq, cq) = ring.split();
        // Without registration every call pays a look-up; nothing else changes.
        let _ = submitter.register_ring_fd();
        Self {
            submitter,
            sq,
            cq,
            no_iowait,
            enters: 0,
            early: Vec::new(),
        }
    }

    pub(super) fn submitter(&self) -> &Submitter<'a> {
        &self.submitter
    }

    /// Calls of `io_uring_enter` so far.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// Queues one operation.
    ///
    /// # Safety
    /// All memory and descriptors the entry names stay valid, and the memory untouched where the kernel writes,
    /// until its completion has been taken.
    pub(super) unsafe fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.make_room(1)?;
        // SAFETY: passed on to the caller.
        unsafe { self.sq.push(entry) }.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Queues a chain: all of it goes to the kernel in one call, as links require.
    ///
    /// # Safety
    /// As [`Ring::push`], for every entry.
    pub(super) unsafe fn push_chain(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.make_room(entries.len())?;
        // SAFETY: passed on to the caller.
        unsafe { self.sq.push_multiple(entries) }
            .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))
    }

    fn make_room(&mut self, entries: usize) -> io::Result<()> {
        // The kernel refuses submissions as long as it has no place for completions. A few rounds are enough
        // unless it refuses for good, which the push then reports.
        for _ in 0..ROUNDS_FOR_ROOM {
            if self.has_room(entries) {
                return Ok(());
            }
            self.enter(Wait::No)?;
            if !self.has_room(entries) {
                let mut early = std::mem::take(&mut self.early);
                self.take(&mut early);
                self.early = early;
            }
        }
        Ok(())
    }

    fn has_room(&self, entries: usize) -> bool {
        self.sq.capacity() - self.sq.len() >= entries
    }

    /// Submits what is queued and waits for a completion as `wait` says. Returns early when interrupted.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.sq.sync();
        let queued = self.sq.len() as u32;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if self.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        let (want, timeout) = match wait {
            _ if !self.early.is_empty() => (0, None),
            Wait::No => (0, None),
            Wait::For(ns) => (1, Some(timespec(ns))),
            Wait::Gather(ns) => (GATHERED_MAX, Some(timespec(ns))),
            Wait::Forever => (1, None),
        };
        let mut args = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        self.enters += 1;
        // SAFETY: the extended argument is of the type the flag announces and lives through the call; entries
        // were vouched for when pushed.
        let entered = unsafe {
            self.submitter
                .enter(queued, want, flags.bits(), Some(&args))
        };
        self.sq.sync();
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or completions must be taken first: the caller looks and comes back.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Appends all completions there are to `into`.
    pub(super) fn reap(&mut self, into: &mut Vec<Done>) {
        into.append(&mut self.early);
        self.take(into);
    }

    fn take(&mut self, into: &mut Vec<Done>) {
        self.cq.sync();
        into.extend((&mut self.cq).map(|entry| Done {
            token: Token::unpack(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
        self.cq.sync();
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec::new()
        .sec(ns / 1_000_000_000)
        .nsec((ns % 1_000_000_000) as u32)
}

/// Error number of a completion, when it is one.
pub(super) fn errno(result: i32) -> Option<i32> {
    (result < 0).then_some(-result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn nothing_is_lost_when_both_queues_are_full() {
        let mut ring = create(4, 8).unwrap();
        let mut ring = Ring::new(&mut ring);
        for index in 0..5000 {
            let token = Token::new(Kind::Disk, index).pack();
            let entries = [
                opcode::Nop::new().build().user_data(token),
                opcode::Nop::new().build().user_data(token),
            ];
            // SAFETY: names no memory.
            unsafe { ring.push_chain(&entries) }.unwrap();
        }
        let mut done = Vec::new();
        while done.len() < 10_000 {
            let before = done.len();
            ring.enter(Wait::For(1_000_000_000)).unwrap();
            ring.reap(&mut done);
            assert!(done.len() > before, "{before} of 10000");
        }
        let mut seen: Vec<u32> = done.iter().map(|done| done.token.index).collect();
        seen.sort_unstable();
        assert!(
            seen.iter()
                .enumerate()
                .all(|(n, &index)| n as u32 / 2 == index)
        );
    }

    #[test]
    fn tokens_survive_the_kernel_and_waits_end() {
        let mut ring = create(4, 16).unwrap();
        let mut ring = Ring::new(&mut ring);
        let mut done = Vec::new();
        for index in 0..10 {
            let entry = opcode::Nop::new()
                .build()
                .user_data(Token::new(Kind::LinkedSync, index).pack());
            // SAFETY: names no memory.
            unsafe { ring.push(&entry) }.unwrap();
        }
        ring.enter(Wait::Forever).unwrap();
        ring.reap(&mut done);
        let seen: Vec<u32> = done.iter().map(|d| d.token.index).collect();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert!(done.iter().all(|d| d.token.kind == Kind::LinkedSync));

        let start = std::time::Instant::now();
        ring.enter(Wait::For(20_000_000)).unwrap();
        assert!(start.elapsed().as_millis() >= 19);
        done.clear();
        ring.reap(&mut done);
        assert!(done.is_empty());
    }
}
