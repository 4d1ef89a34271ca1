//! `sendfile(2)`, or a mapping and `send(2)`, on helper threads: a page that is not in memory blocks the caller, which
//! must not be the shard's thread.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::io::Errno;

use crate::shard::Wake;

use super::error::{ExitOnPanic, RingError};
use super::mapped::send_mapped;
use super::waker::ShardWaker;

/// Bytes sent by one job at most, so that connections take turns.
pub(super) const JOB_BYTES: usize = 1 << 20;

/// Niceness of the helper threads.
const NICE: i32 = 10;

/// Send a part of a file to a socket. Both descriptors stay open until the job's outcome has been taken.
pub(super) struct Job {
    pub(super) slot: u32,
    pub(super) socket: RawFd,
    pub(super) file: RawFd,
    pub(super) offset: u64,
    pub(super) len: usize,
    /// By way of a mapping.
    pub(super) mapped: bool,
}

/// What became of a [`Job`].
pub(super) struct Outcome {
    pub(super) slot: u32,
    /// Bytes sent.
    pub(super) sent: usize,
    pub(super) end: JobEnd,
}

/// Why a [`Job`] stopped.
pub(super) enum JobEnd {
    /// It had sent its share.
    Share,
    /// The socket takes nothing more for now.
    Full,
    /// The system failed, by error number; `EIO` when the file ended early.
    Failed(i32),
}

/// The helper threads of one shard.
pub(super) struct Senders {
    jobs: Option<Sender<Job>>,
    outcomes: Receiver<Outcome>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// Starts `threads` threads that wake `shard` when a job has ended.
    pub(super) fn start(
        number: u32,
        threads: usize,
        shard: &Arc<ShardWaker>,
    ) -> Result<Self, RingError> {
        let (jobs, incoming) = unbounded::<Job>();
        let (outgoing, outcomes) = unbounded();
        let mut senders = Self {
            jobs: Some(jobs),
            outcomes,
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
            let shard = shard.clone();
            let thread = std::thread::Builder::new()
                .name(format!("ringlog-send-{number}"))
                .spawn(move || {
                    let _guard = ExitOnPanic("sendfile");
                    // The shard's thread, on the same core, comes first. A system that refuses leaves them equal.
                    let _ = rustix::process::nice(NICE);
                    for job in incoming {
                        // The shard waits for every outcome before it goes.
                        let _ = outgoing.send(carry_out(&job));
                        shard.wake();
                    }
                })
                .map_err(RingError::setup("starting a sendfile thread"))?;
            senders.threads.push(thread);
        }
        Ok(senders)
    }

    /// Hands a job over; false when no thread is left to take it.
    pub(super) fn order(&self, job: Job) -> bool {
        self.jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// The next outcome, without waiting.
    pub(super) fn next_outcome(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends until the job is done or the socket takes nothing more.
pub(super) fn carry_out(job: &Job) -> Outcome {
    // SAFETY: the shard keeps both descriptors open until it has taken the outcome.
    let (socket, file) = unsafe {
        (
            BorrowedFd::borrow_raw(job.socket),
            BorrowedFd::borrow_raw(job.file),
        )
    };
    let (mut offset, mut sent) = (job.offset, 0);
    let end = loop {
        if sent == job.len {
            break JobEnd::Share;
        }
        let left = job.len - sent;
        let result = if job.mapped {
            send_mapped(socket, file, offset, left).inspect(|&n| offset += n as u64)
        } else {
            rustix::fs::sendfile(socket, file, Some(&mut offset), left)
        };
        match result {
            // The log ends before the span does: the core promised bytes that are not there.
            Ok(0) => break JobEnd::Failed(libc::EIO),
            Ok(n) => sent += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break JobEnd::Full,
            // What a mapping shows behind the file's end.
            Err(Errno::FAULT) => break JobEnd::Failed(libc::EIO),
            Err(error) => break JobEnd::Failed(error.raw_os_error()),
        }
    };
    Outcome {
        slot: job.slot,
        sent,
        end,
    }
}
