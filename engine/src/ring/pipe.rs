//! Pipes that splice needs between a file and a socket.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Bytes wanted in a pipe: the most an unprivileged process may ask for.
const PIPE_BYTES: usize = 1 << 20;
/// Empty pipes kept for reuse.
const KEEP: usize = 32;

/// A pipe used by one connection at a time.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes it can hold.
    pub(super) bytes: usize,
}

impl Pipe {
    pub(super) fn read_end(&self) -> RawFd {
        self.read.as_raw_fd()
    }

    pub(super) fn write_end(&self) -> RawFd {
        self.write.as_raw_fd()
    }
}

/// Empty pipes.
#[derive(Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
}

impl Pipes {
    /// An empty pipe; fails when descriptors are used up.
    pub(super) fn take(&mut self) -> rustix::io::Result<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // A user's pipes may take only so much memory in all; a small one works too.
        let bytes = fcntl_setpipe_size(&write, PIPE_BYTES).unwrap_or(16 * 4096);
        Ok(Pipe { read, write, bytes })
    }

    /// Takes back a pipe that is empty.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        if self.free.len() < KEEP {
            self.free.push(pipe);
        }
    }
}
