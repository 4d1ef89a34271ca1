//! Journal commits and reads on the executor's ring, through files of glommio's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use glommio::GlommioError;
use glommio::io::{BufferedFile, DmaFile, OpenOptions};

use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{Completion, DiskError, FileId, Lane, Op, OpKind, OpenMode, Returned};
use crate::ring::{Root, mono_ns};
use crate::shard::Driven;

use super::blocking;
use super::state::State;

/// A file the core has opened: a descriptor for the blocking threads, and glommio's file for its ring.
pub(super) struct File {
    pub(super) fd: Arc<OwnedFd>,
    mode: OpenMode,
    handle: RefCell<Option<Handle>>,
}

#[derive(Clone)]
enum Handle {
    Direct(Rc<DmaFile>),
    Buffered(Rc<BufferedFile>),
}

/// The open files of a shard.
pub(super) struct Files {
    pub(super) root: Arc<Root>,
    files: RefCell<HashMap<FileId, Rc<File>>>,
    /// Deleting many topics at once must not occupy every blocking thread.
    pub(super) removals: glommio::sync::Semaphore,
}

impl Files {
    pub(super) fn new(root: Root) -> Rc<Self> {
        Rc::new(Self {
            root: Arc::new(root),
            files: RefCell::default(),
            removals: glommio::sync::Semaphore::new(1),
        })
    }

    pub(super) fn get(&self, file: FileId) -> Result<Rc<File>, DiskError> {
        let files = self.files.borrow();
        files.get(&file).cloned().ok_or(DiskError(libc::EBADF))
    }

    /// Knows `fd` as `file` from now on. A file to be read gets glommio's handle at once, one to be written when
    /// the journal first uses it: most never meet the ring.
    pub(super) async fn opened(
        &self,
        file: FileId,
        fd: OwnedFd,
        mode: OpenMode,
        for_journal: bool,
    ) -> Result<(), DiskError> {
        let open = Rc::new(File {
            fd: Arc::new(fd),
            mode,
            handle: RefCell::new(None),
        });
        if for_journal || mode != OpenMode::WriteDirect {
            open.handle().await?;
        }
        self.files.borrow_mut().insert(file, open);
        Ok(())
    }

    /// Forgets `file` and closes both its descriptors: the last may free the blocks of an unlinked file, so that
    /// is left to a blocking thread.
    pub(super) async fn close(&self, file: FileId) -> Result<(), DiskError> {
        let known = self.files.borrow_mut().remove(&file);
        let open = known.ok_or(DiskError(libc::EBADF))?;
        match open.handle.take() {
            // Only a file that nothing uses is closed, so these are the last references.
            Some(Handle::Direct(handle)) => {
                handle.close_rc().await.map_err(errno)?;
            }
            Some(Handle::Buffered(handle)) => {
                if let Ok(handle) = Rc::try_unwrap(handle) {
                    handle.close().await.map_err(errno)?;
                }
            }
            None => {}
        }
        let fd = open.fd.clone();
        drop(open);
        glommio::executor().spawn_blocking(move || drop(fd)).await;
        Ok(())
    }
}

impl File {
    /// Glommio's file over the same file as the descriptor. It is opened through the descriptor, so that a name
    /// removed or reused meanwhile makes no difference.
    async fn handle(&self) -> Result<Handle, DiskError> {
        if let Some(handle) = &*self.handle.borrow() {
            return Ok(handle.clone());
        }
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let mut options = OpenOptions::new();
        options.read(true).write(self.mode == OpenMode::WriteDirect);
        let handle = match self.mode {
            OpenMode::ReadBuffered => {
                Handle::Buffered(Rc::new(options.buffered_open(&path).await.map_err(errno)?))
            }
            OpenMode::ReadDirect | OpenMode::WriteDirect => {
                Handle::Direct(Rc::new(options.dma_open(&path).await.map_err(errno)?))
            }
        };
        *self.handle.borrow_mut() = Some(handle.clone());
        Ok(handle)
    }

    async fn direct(&self) -> Result<Rc<DmaFile>, DiskError> {
        match self.handle().await? {
            Handle::Direct(file) => Ok(file),
            Handle::Buffered(_) => Err(DiskError(libc::EBADF)),
        }
    }

    /// Writes all of `data`, then syncs if asked: two operations, one after the other.
    async fn write(&self, offset: u64, data: &[u8], sync: bool) -> Result<(), DiskError> {
        let file = self.direct().await?;
        if !data.is_empty() {
            let mut copy = file.alloc_dma_buffer(data.len());
            copy.as_bytes_mut().copy_from_slice(data);
            let written = file.write_at(copy, offset).await.map_err(errno)?;
            if written != data.len() {
                return Err(DiskError::IO);
            }
        }
        if sync {
            file.fdatasync().await.map_err(errno)?;
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let file = self.direct().await?;
        file.fdatasync().await.map_err(errno)
    }

    /// Reads up to `len` bytes into `buf`, behind nothing; it ends up as long as what was read.
    async fn read(&self, offset: u64, len: usize, buf: &mut AlignedBuf) -> Result<(), DiskError> {
        buf.set_len(0);
        if len > buf.capacity() {
            return Err(DiskError::INVALID);
        }
        let handle = self.handle().await?;
        while buf.len() < len {
            let (at, left) = (offset + buf.len() as u64, len - buf.len());
            let got = match &handle {
                Handle::Direct(file) => file.read_at_aligned(at, left).await,
                Handle::Buffered(file) => file.read_at(at, left).await,
            };
            let got = got.map_err(errno)?;
            buf.extend_from_slice(&got);
            // Stopping at a block boundary may or may not be the file's end: only reading on tells.
            if got.is_empty() || !buf.len().is_multiple_of(BLOCK) {
                break;
            }
        }
        Ok(())
    }
}

/// Starts one operation, on the ring or on a blocking thread. Its completion reaches the shard in a later turn.
pub(super) fn start<D: Driven + 'static>(state: &Rc<State<D>>, op: Op) {
    state.in_flight.set(state.in_flight.get() + 1);
    let state = state.clone();
    let task = async move {
        let completion = match op.lane {
            Lane::Journal | Lane::Read => carry_out(&state, op).await,
            Lane::Background => blocking::carry_out(&state.files, op).await,
        };
        state.completed(completion);
    };
    glommio::spawn_local(task).detach();
}

async fn carry_out<D: Driven>(state: &State<D>, op: Op) -> Completion {
    let files = &state.files;
    let (result, returned) = match op.kind {
        OpKind::Write {
            file,
            offset,
            data,
            sync,
        } => {
            let started_ns = mono_ns();
            let result = match files.get(file) {
                Ok(file) => file.write(offset, &data, sync).await,
                Err(error) => Err(error),
            };
            if sync && result.is_ok() {
                state.stats.commits.add(1);
                state
                    .stats
                    .commit_ns
                    .add(mono_ns().saturating_sub(started_ns));
            }
            (result, Returned::Data(data))
        }
        OpKind::Sync { file } => match files.get(file) {
            Ok(file) => (file.sync().await, Returned::Nothing),
            Err(error) => (Err(error), Returned::Nothing),
        },
        OpKind::Read {
            file,
            offset,
            len,
            mut buf,
        } => {
            let result = match files.get(file) {
                Ok(file) => file.read(offset, len, &mut buf).await,
                Err(error) => Err(error),
            };
            (result, Returned::Buf(buf))
        }
        kind => {
            let op = Op { kind, ..op };
            return blocking::carry_out(files, op).await;
        }
    };
    Completion {
        id: op.id,
        result,
        returned,
    }
}

/// The system's number for an error, which glommio wraps in its own.
fn errno<T>(error: GlommioError<T>) -> DiskError {
    match error {
        GlommioError::IoError(error) | GlommioError::EnhancedIoError { source: error, .. } => {
            error.into()
        }
        _ => DiskError::IO,
    }
}
