//! Asynchronous disk operations. An operation owns its buffers and gives them back with its completion.

use crate::buf::{AlignedBuf, Slice};

use super::DiskError;

/// Names one operation from submission to completion; chosen by the core, never reused in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A file the core has opened or is opening; chosen by the core, never reused in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// Where an operation is carried out. Operations of one lane may be reordered unless the core waits for a
/// completion before it issues the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Journal commits: the shard's own ring; nothing else may delay them.
    Journal,
    /// Reads for consumers.
    Read,
    /// Destage, checkpoints and file-system metadata: a helper thread or ring of their own.
    Background,
}

/// How a file is opened. All writing is O_DIRECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// Existing file, reading through the page cache.
    ReadBuffered,
    /// Existing file, reading with O_DIRECT.
    ReadDirect,
    /// Writing with O_DIRECT, created when absent.
    WriteDirect,
}

/// The bytes of a write.
#[derive(Debug)]
pub enum WriteData {
    /// A shared slice (a journal frame).
    Slice(Slice),
    /// An owned buffer.
    Owned(AlignedBuf),
}

impl std::ops::Deref for WriteData {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Owned(buf) => buf,
        }
    }
}

/// What to do.
#[derive(Debug)]
pub enum OpKind {
    /// Open `path` as `file`.
    Open {
        /// The handle by which later operations name it.
        file: FileId,
        /// Relative to the data directory.
        path: Box<str>,
        /// How.
        mode: OpenMode,
    },
    /// Close `file`. Completes after the descriptor is gone; issued only when no other operation uses it.
    Close {
        /// The file.
        file: FileId,
    },
    /// Write all of `data` (whole blocks) at `offset` (a block boundary). A short write is an error to the
    /// core: the driver either continues it or reports `EIO`, but never reports success for part of it.
    Write {
        /// The file.
        file: FileId,
        /// Bytes from the file's start.
        offset: u64,
        /// What to write.
        data: WriteData,
        /// Follow the write with `fdatasync` and complete when both are done; fail if either fails, and do not
        /// sync after a short or failed write.
        sync: bool,
    },
    /// Read up to `len` bytes at `offset` into `buf`; fewer at the end of the file. For a file opened with
    /// [`OpenMode::ReadDirect`] both are whole blocks. The completion's buffer has the length that was read.
    Read {
        /// The file.
        file: FileId,
        /// Bytes from the file's start.
        offset: u64,
        /// Bytes wanted, at most the buffer's capacity.
        len: usize,
        /// Where they go.
        buf: AlignedBuf,
    },
    /// `fdatasync` of one file.
    Sync {
        /// The file.
        file: FileId,
    },
    /// `syncfs` of the data directory's file system: everything written and renamed so far is durable.
    SyncFs,
    /// `fallocate(KEEP_SIZE)`: blocks for `offset..offset + len` without a change of size. Best effort to the
    /// core except for a full disk.
    Allocate {
        /// The file.
        file: FileId,
        /// Bytes from the file's start.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// `ftruncate` to exactly `len` bytes.
    Truncate {
        /// The file.
        file: FileId,
        /// Bytes.
        len: u64,
    },
    /// Create a journal file at `path`, `len` bytes of zeros written (not only allocated), file and directory
    /// synced, and open it for direct writing as `file`.
    CreateZeroed {
        /// The handle by which later operations name it.
        file: FileId,
        /// Relative to the data directory.
        path: Box<str>,
        /// Bytes, whole blocks.
        len: u64,
    },
    /// Create the directory `path`; fine when it exists.
    CreateDir {
        /// Relative to the data directory.
        path: Box<str>,
    },
    /// `fsync` of the directory `path`: names in it are durable.
    SyncDir {
        /// Relative to the data directory.
        path: Box<str>,
    },
    /// Remove the file `path`; fine when it is gone already.
    Unlink {
        /// Relative to the data directory.
        path: Box<str>,
    },
    /// Remove the directory `path` and all in it; fine when it is gone already.
    RemoveDir {
        /// Relative to the data directory.
        path: Box<str>,
    },
}

/// One operation for the driver.
#[derive(Debug)]
pub struct Op {
    /// Comes back with the completion.
    pub id: OpId,
    /// Where to carry it out.
    pub lane: Lane,
    /// What to do.
    pub kind: OpKind,
}

/// The buffer an operation gives back.
#[derive(Debug)]
pub enum Returned {
    /// The operation had no buffer.
    Nothing,
    /// A write's data.
    Data(WriteData),
    /// A read's buffer, its length what was read.
    Buf(AlignedBuf),
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// As submitted.
    pub id: OpId,
    /// Whether all of it was done.
    pub result: Result<(), DiskError>,
    /// The operation's buffer.
    pub returned: Returned,
}
