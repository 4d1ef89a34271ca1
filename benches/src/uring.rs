//! A small ring for file I/O: every operation owns its file and buffer until it completes.
//!
//! The only place with `unsafe` in this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use ringlog_engine::buf::AlignedBuf;
use rustix::io::Errno;

/// Low bit of a submission's `user_data`: the sync that follows the write of the slot in the other bits.
const SYNC: u64 = 1;

/// What the kernel may still touch; stays in its slot until the last completion of the operation has come.
struct Slot {
    file: Arc<File>,
    buf: AlignedBuf,
    tag: u64,
    is_read: bool,
    /// Completions to come.
    pending: u8,
    result: io::Result<usize>,
}

/// An operation that ended.
pub struct Done {
    /// As submitted.
    pub tag: u64,
    /// The operation's buffer; after a read its length is what was read.
    pub buf: AlignedBuf,
    /// Bytes written or read. A short write is an error.
    pub result: io::Result<usize>,
}

/// What this kernel's io_uring offers.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    /// Features of a ring.
    pub features: Vec<&'static str>,
    /// Operations, of those this project uses or measures.
    pub operations: Vec<&'static str>,
}

/// Asks the kernel.
///
/// # Errors
/// The system's, for example `EPERM` where containers forbid io_uring.
pub fn abilities() -> io::Result<Abilities> {
    let ring = IoUring::new(2)?;
    let parameters = ring.params();
    let mut abilities = Abilities::default();
    for (has, name) in [
        (parameters.is_feature_single_mmap(), "single mmap"),
        (parameters.is_feature_nodrop(), "no dropped completions"),
        (parameters.is_feature_fast_poll(), "fast poll"),
        (parameters.is_feature_ext_arg(), "timeouts while waiting"),
        (parameters.is_feature_native_workers(), "native workers"),
        (parameters.is_feature_linked_file(), "linked files"),
    ] {
        if has {
            abilities.features.push(name);
        }
    }
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for (code, name) in [
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Splice::CODE, "splice"),
        (opcode::Send::CODE, "send"),
        (opcode::SendZc::CODE, "send_zc"),
        (opcode::RecvMulti::CODE, "recv"),
        (opcode::AcceptMulti::CODE, "accept"),
    ] {
        if probe.is_supported(code) {
            abilities.operations.push(name);
        }
    }
    Ok(abilities)
}

/// Reads, writes and writes with a linked `fdatasync`, by one thread, at most as many at once as it was made for.
pub struct Ring {
    ring: IoUring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    done: Vec<Done>,
    /// The ring belongs to the thread that made it.
    _one_thread: PhantomData<*const ()>,
}

impl Ring {
    /// A ring for `depth` operations at once.
    ///
    /// # Errors
    /// The system's, for example `EPERM` where containers forbid io_uring.
    pub fn new(depth: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .build((2 * depth.max(1)) as u32)?;
        Ok(Self {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            done: Vec::new(),
            _one_thread: PhantomData,
        })
    }

    /// Whether another operation may be started.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Operations under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues a write of all of `buf` at `offset`, with an `fdatasync` linked behind it if `sync`.
    ///
    /// # Panics
    /// Without room.
    pub fn write(&mut self, file: &Arc<File>, offset: u64, buf: AlignedBuf, sync: bool, tag: u64) {
        let (index, slot) = self.occupy(file, buf, tag, false, 1 + u8::from(sync));
        let fd = Fd(slot.file.as_raw_fd());
        let (start, len) = (slot.buf.as_mut_ptr(), slot.buf.len() as u32);
        let write = opcode::Write::new(fd, start, len)
            .offset(offset)
            .build()
            .user_data((index as u64) << 1);
        if sync {
            let sync = opcode::Fsync::new(fd)
                .flags(FsyncFlags::DATASYNC)
                .build()
                .user_data((index as u64) << 1 | SYNC);
            self.push(&[write.flags(Flags::IO_LINK), sync]);
        } else {
            self.push(&[write]);
        }
    }

    /// Queues a read at `offset` of as many bytes as `buf` has room for.
    ///
    /// # Panics
    /// Without room.
    pub fn read(&mut self, file: &Arc<File>, offset: u64, buf: AlignedBuf, tag: u64) {
        let (index, slot) = self.occupy(file, buf, tag, true, 1);
        let capacity = slot.buf.capacity();
        slot.buf.set_len(capacity);
        let fd = Fd(slot.file.as_raw_fd());
        let read = opcode::Read::new(fd, slot.buf.as_mut_ptr(), capacity as u32)
            .offset(offset)
            .build()
            .user_data((index as u64) << 1);
        self.push(&[read]);
    }

    fn occupy(
        &mut self,
        file: &Arc<File>,
        buf: AlignedBuf,
        tag: u64,
        is_read: bool,
        pending: u8,
    ) -> (usize, &mut Slot) {
        assert!(
            u32::try_from(buf.capacity()).is_ok(),
            "an operation moves less than 4 GiB"
        );
        let index = self
            .free
            .pop()
            .expect("the caller asked for room before it started an operation");
        let slot = self.slots[index].insert(Slot {
            file: Arc::clone(file),
            buf,
            tag,
            is_read,
            pending,
            result: Ok(0),
        });
        (index, slot)
    }

    fn push(&mut self, entries: &[Entry]) {
        // SAFETY: the entries name the descriptor and memory of a slot. Both stay in the slot, neither moved nor freed
        // (an AlignedBuf's memory does not move with it), until every completion of the slot has come: `reap` empties a
        // slot only then, and `drop` waits for all of them.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        // Two entries for each of `depth` slots fit, and a slot is used again only after its completions.
        pushed.expect("the submission queue has room for every slot");
    }

    /// Submits what is queued and waits until at least one operation completed, if any is under way.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self) -> io::Result<()> {
        while self.done.is_empty() && self.in_flight() > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.reap();
        }
        Ok(())
    }

    /// As [`Ring::wait`], but for at most `patience`.
    ///
    /// # Errors
    /// The system's.
    pub fn wait_for(&mut self, patience: Duration) -> io::Result<()> {
        if self.done.is_empty() && self.in_flight() > 0 {
            let timeout = Timespec::from(patience);
            let args = SubmitArgs::new().timespec(&timeout);
            match self.ring.submitter().submit_with_args(1, &args) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::TIME.raw_os_error()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.reap();
        }
        Ok(())
    }

    /// Submits what is queued and takes what completed, without waiting.
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&mut self) -> io::Result<()> {
        // With deferred task work completions are only seen by a call that asks for events.
        self.ring.submitter().submit_and_wait(0)?;
        self.reap();
        Ok(())
    }

    /// An operation that ended.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.pop()
    }

    fn reap(&mut self) {
        let Self {
            ring,
            slots,
            free,
            done,
            ..
        } = self;
        for completion in ring.completion() {
            let index = (completion.user_data() >> 1) as usize;
            let Some(slot) = &mut slots[index] else {
                continue;
            };
            let is_sync = completion.user_data() & SYNC != 0;
            note(slot, is_sync, completion.result());
            slot.pending -= 1;
            if slot.pending == 0
                && let Some(slot) = slots[index].take()
            {
                free.push(index);
                done.push(finish(slot));
            }
        }
    }
}

/// Records one completion of an operation; the first error stays.
fn note(slot: &mut Slot, is_sync: bool, result: i32) {
    if result < 0 {
        // A sync is cancelled because its write failed or was short: the write's own result says which.
        if slot.result.is_ok() {
            slot.result = Err(io::Error::from_raw_os_error(-result));
        }
    } else if !is_sync && slot.result.is_ok() {
        slot.result = Ok(result as usize);
    }
}

fn finish(slot: Slot) -> Done {
    let Slot {
        mut buf,
        tag,
        is_read,
        result,
        ..
    } = slot;
    let result = result.and_then(|bytes| {
        if is_read {
            buf.set_len(bytes);
        } else if bytes < buf.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(bytes)
    });
    Done { tag, buf, result }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            self.done.clear();
            if self.wait().is_err() {
                // The kernel may still write into these buffers: leaking them is the only safe way out.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_written_is_read_and_buffers_come_back() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = Arc::new(file.unwrap());
        let mut ring = Ring::new(2).unwrap();
        for tag in 0..2 {
            let mut buf = AlignedBuf::zeroed(8192);
            buf.fill(b'a' + tag as u8);
            ring.write(&file, tag * 8192, buf, tag == 1, tag);
        }
        assert!(!ring.has_room());
        let mut tags = Vec::new();
        while ring.in_flight() > 0 {
            ring.wait().unwrap();
            while let Some(done) = ring.next_done() {
                assert_eq!((done.result.unwrap(), done.buf.len()), (8192, 8192));
                tags.push(done.tag);
            }
        }
        tags.sort_unstable();
        assert_eq!(tags, [0, 1]);
        let mut whole = vec![0; 16384];
        file.read_exact_at(&mut whole, 0).unwrap();
        assert!(
            whole[..8192].iter().all(|&b| b == b'a') && whole[8192..].iter().all(|&b| b == b'b')
        );

        ring.read(&file, 8192, AlignedBuf::with_capacity(4096), 7);
        ring.wait().unwrap();
        let done = ring.next_done().unwrap();
        assert_eq!((done.result.unwrap(), done.tag), (4096, 7));
        assert!(done.buf.iter().all(|&b| b == b'b'));
    }

    #[test]
    fn a_failed_write_says_so_and_its_sync_does_not_hide_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let read_only = Arc::new(File::open(&path).unwrap());
        let mut ring = Ring::new(1).unwrap();
        ring.write(&read_only, 0, AlignedBuf::zeroed(4096), true, 0);
        ring.wait().unwrap();
        let error = ring.next_done().unwrap().result.unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::BADF.raw_os_error())
        );
        assert!(ring.has_room());
    }
}
