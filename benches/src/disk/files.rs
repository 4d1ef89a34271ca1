//! A scratch folder that is gone at the end, and files as the engine opens and prepares them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringlog_engine::buf::{AlignedBuf, BufPool};
use rustix::fs::{Advice, OFlags, fadvise, statvfs};
use tempfile::TempDir;

use super::BenchError;

/// Size of the writes that prepare files, bytes.
const PIECE: usize = 1 << 20;
/// Space left alone, bytes: a file system that fills up measures something else.
pub const SPARE: u64 = 256 << 20;

/// A folder of our own on the file system to be measured, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    stop: Arc<AtomicBool>,
}

impl Scratch {
    /// Makes the folder in `parent`; `stop` is raised when a signal asks to end.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn new(parent: &Path, stop: Arc<AtomicBool>) -> Result<Self, BenchError> {
        Self::named(parent, ".ringlog-disk-", stop)
    }

    /// The same with a name that begins with `prefix`.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn named(parent: &Path, prefix: &str, stop: Arc<AtomicBool>) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .map_err(BenchError::file(format!(
                "a folder in {}",
                parent.display()
            )))?;
        Ok(Self { folder, stop })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fails once a signal has asked to end.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub fn check(&self) -> Result<(), BenchError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }

    /// Fails unless `bytes` more fit.
    ///
    /// # Errors
    /// [`BenchError::Space`].
    pub fn needs(&self, bytes: u64) -> Result<(), BenchError> {
        let system =
            statvfs(self.path()).map_err(|error| BenchError::file("space left")(error.into()))?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if free < bytes.saturating_add(SPARE) {
            return Err(BenchError::Space {
                folder: self.path().display().to_string(),
                needed_mib: (bytes + SPARE) >> 20,
                free_mib: free >> 20,
            });
        }
        Ok(())
    }

    /// Opens `name` for reading and writing, created when absent; past the page cache if `direct`.
    ///
    /// # Errors
    /// [`BenchError::File`]; `EINVAL` where the file system has no O_DIRECT.
    pub fn open(&self, name: &str, direct: bool) -> Result<Arc<File>, BenchError> {
        let flags = if direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags.bits() as i32)
            .open(self.path().join(name))
            .map(Arc::new)
            .map_err(BenchError::file(name))
    }

    /// Writes `bytes` whole blocks of `fill` through `file` and syncs it: from then on an overwrite allocates nothing.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn fill(&self, file: &File, bytes: u64, fill: Fill) -> Result<(), BenchError> {
        let mut piece = AlignedBuf::zeroed(PIECE);
        let mut at = 0;
        while at < bytes {
            self.check()?;
            let len = PIECE.min((bytes - at) as usize);
            if fill == Fill::Noise {
                noise(&mut piece, at);
            }
            file.write_all_at(&piece[..len], at)
                .map_err(BenchError::file("preparing a file"))?;
            at += len as u64;
        }
        file.sync_all()
            .map_err(BenchError::file("syncing a prepared file"))
    }

    /// Makes `name` of `bytes` that do not repeat, written from end to end: overwrites allocate nothing, reads find data.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn make(&self, name: &str, bytes: u64) -> Result<Arc<File>, BenchError> {
        self.needs(bytes)?;
        let file = self.open(name, true)?;
        self.fill(&file, bytes, Fill::Noise)?;
        Ok(file)
    }

    /// Removes `name`; fine when it is not there.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn remove(&self, name: &str) -> Result<(), BenchError> {
        match std::fs::remove_file(self.path().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BenchError::file(name)(error))
            }
            _ => Ok(()),
        }
    }
}

/// What a file is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Zeros, as the engine's journal.
    Zeros,
    /// Bytes that do not repeat, for files that are read.
    Noise,
}

/// `count` empty buffers of at least `bytes` each, from the pool that the engine's come from: next to each other in huge
/// pages. Single ones would lie in scattered pages, and a device would be given large requests in parts.
pub(crate) fn buffers(count: usize, bytes: usize) -> Vec<AlignedBuf> {
    let pool = BufPool::new(bytes, 0);
    (0..count).map(|_| pool.take()).collect()
}

/// `count` buffers of `bytes` of noise, each another.
pub(crate) fn noisy_buffers(count: usize, bytes: usize, seed: u64) -> Vec<AlignedBuf> {
    let mut buffers = buffers(count, bytes);
    for (n, buf) in buffers.iter_mut().enumerate() {
        buf.set_len(bytes);
        noise(buf, seed ^ n as u64);
    }
    buffers
}

/// Fills `bytes` with what no device can guess from `seed`.
pub(crate) fn noise(bytes: &mut [u8], seed: u64) {
    let mut state = seed ^ 0x2545_f491_4f6c_dd1d;
    for word in bytes.chunks_exact_mut(8) {
        // xorshift64: quick, and that is all that is asked of it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Drops a file's clean pages from the page cache; needs no privilege.
///
/// # Errors
/// [`BenchError::File`].
pub(crate) fn drop_pages(file: &File) -> Result<(), BenchError> {
    fadvise(file, 0, None, Advice::DontNeed)
        .map_err(|error| BenchError::file("dropping pages")(error.into()))
}
