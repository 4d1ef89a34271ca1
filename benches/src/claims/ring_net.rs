//! A ring that splices and sends without copying, one operation after the other.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use ringlog_engine::buf::AlignedBuf;

/// `user_data` of the two halves of a splice; those of sends are indices of slots.
const INTO_PIPE: u64 = 1 << 32;
const OUT_OF_PIPE: u64 = 2 << 32;
/// Offset that says: wherever the pipe or socket is.
const NO_OFFSET: i64 = -1;

/// Splices, and sends whose buffers the kernel gives back later.
pub(super) struct NetRing {
    ring: IoUring,
    /// Buffers that the kernel may still read; it tells when it is done with each.
    held: Vec<Option<AlignedBuf>>,
    given_back: Vec<AlignedBuf>,
    enters: u64,
}

impl NetRing {
    /// A ring for `depth` buffers in the kernel's hands.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(2 * depth.max(2) as u32)?,
            held: (0..depth).map(|_| None).collect(),
            given_back: Vec::new(),
            enters: 0,
        })
    }

    /// System calls so far.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// Moves up to `len` bytes from `offset` of `file` through the pipe to `to`, and returns how many.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn splice(
        &mut self,
        file: &File,
        offset: u64,
        pipe: &(OwnedFd, OwnedFd),
        to: &TcpStream,
        len: usize,
    ) -> io::Result<usize> {
        let (out, into) = (Fd(pipe.0.as_raw_fd()), Fd(pipe.1.as_raw_fd()));
        let fill = opcode::Splice::new(
            Fd(file.as_raw_fd()),
            offset as i64,
            into,
            NO_OFFSET,
            len as u32,
        )
        .build()
        .flags(Flags::IO_LINK)
        .user_data(INTO_PIPE);
        let drain = |len: usize| {
            opcode::Splice::new(out, NO_OFFSET, Fd(to.as_raw_fd()), NO_OFFSET, len as u32)
                .build()
                .user_data(OUT_OF_PIPE)
        };
        self.push(&[fill, drain(len)]);
        let (mut filled, mut drained) = (None, None);
        while filled.is_none() || drained.is_none() {
            self.wait(&mut |data, result| match data {
                INTO_PIPE => filled = Some(result),
                OUT_OF_PIPE => drained = Some(result),
                _ => {}
            })?;
        }
        let filled = whole(filled)?;
        if filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A short first half cancels the second, and a full socket shortens it.
        let mut sent = drained.unwrap_or(0).max(0) as usize;
        while sent < filled {
            self.push(&[drain(filled - sent)]);
            let mut drained = None;
            while drained.is_none() {
                self.wait(&mut |data, result| {
                    if data == OUT_OF_PIPE {
                        drained = Some(result);
                    }
                })?;
            }
            sent += whole(drained)?;
        }
        Ok(filled)
    }

    /// Sends all of `buffer` and keeps it until the kernel gives it back.
    ///
    /// # Errors
    /// The system's; the buffer is then lost.
    ///
    /// # Panics
    /// With more buffers in the kernel's hands than the ring was made for.
    pub(super) fn send_zc(&mut self, to: &TcpStream, buffer: AlignedBuf) -> io::Result<()> {
        let free = self.held.iter().position(Option::is_none);
        let slot = free.expect("the caller has no more buffers than there are slots");
        let buffer = self.held[slot].insert(buffer);
        let send = opcode::SendZc::new(Fd(to.as_raw_fd()), buffer.as_ptr(), buffer.len() as u32)
            // The kernel goes on until all is sent.
            .flags(libc::MSG_WAITALL)
            .build()
            .user_data(slot as u64);
        let wanted = buffer.len();
        self.push(&[send]);
        let mut sent = None;
        while sent.is_none() {
            self.wait(&mut |data, result| {
                if data == slot as u64 {
                    sent = Some(result);
                }
            })?;
        }
        match whole(sent)? {
            bytes if bytes == wanted => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Waits until the kernel has given a buffer back and adds all such to `to`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn wait_for_buffer(&mut self, to: &mut Vec<AlignedBuf>) -> io::Result<()> {
        while self.given_back.is_empty() && self.held.iter().any(Option::is_some) {
            self.wait(&mut |_, _| {})?;
        }
        to.append(&mut self.given_back);
        Ok(())
    }

    fn push(&mut self, entries: &[Entry]) {
        // SAFETY: descriptors outlive the call that pushes them, which waits for their completions. The memory of a send
        // is that of a buffer in `held`: it neither moves nor is freed until the kernel has given it back, and `drop` waits
        // for that.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        pushed.expect("at most two operations are queued at a time");
    }

    /// Submits, waits for a completion, and hands on what is not a buffer given back.
    fn wait(&mut self, completed: &mut dyn FnMut(u64, i32)) -> io::Result<()> {
        self.enters += 1;
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let Self {
            ring,
            held,
            given_back,
            ..
        } = self;
        for completion in ring.completion() {
            let (data, flags) = (completion.user_data(), completion.flags());
            let is_send = (data as usize) < held.len();
            // The last completion of a send: no other one follows.
            if is_send && !cqueue::more(flags) {
                given_back.extend(held[data as usize].take());
            }
            if !cqueue::notif(flags) {
                completed(data, completion.result());
            }
        }
        Ok(())
    }
}

fn whole(result: Option<i32>) -> io::Result<usize> {
    match result {
        Some(result) if result >= 0 => Ok(result as usize),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Drop for NetRing {
    fn drop(&mut self) {
        while self.held.iter().any(Option::is_some) {
            if self.wait(&mut |_, _| {}).is_err() {
                // The kernel may still read these buffers: leaking them is the only safe way out.
                std::mem::forget(std::mem::take(&mut self.held));
                return;
            }
        }
    }
}
