//! The blocking disk that recovery runs on, before any shard serves.

use super::{DiskError, OpenMode};

/// An open file of a [`Disk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DiskFile(pub u32);

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
}

/// Blocking disk operations, all relative to the data directory. Implemented by the real file system and by the
/// simulator, which may crash inside any of them (every later call then fails too).
pub trait Disk {
    /// Names in a directory, in any order.
    ///
    /// # Errors
    /// [`DiskError::NOT_FOUND`] when it is absent, or what the system says.
    fn list(&mut self, dir: &str) -> Result<Vec<(String, EntryKind)>, DiskError>;
    /// Opens a file; [`OpenMode::WriteDirect`] creates it.
    ///
    /// # Errors
    /// [`DiskError::NOT_FOUND`] when a file to read is absent, or what the system says.
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<DiskFile, DiskError>;
    /// Closes a file.
    fn close(&mut self, file: DiskFile);
    /// Size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&mut self, file: DiskFile) -> Result<u64, DiskError>;
    /// Reads at `offset` until `into` is full or the file ends; returns the bytes read. Offset, length and
    /// memory of a direct read must be whole blocks.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&mut self, file: DiskFile, offset: u64, into: &mut [u8])
    -> Result<usize, DiskError>;
    /// Writes all of `data` (whole, aligned blocks) at `offset` (a block boundary).
    ///
    /// # Errors
    /// What the system says; part of the data may then have been written.
    fn write_at(&mut self, file: DiskFile, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    /// `fdatasync`.
    ///
    /// # Errors
    /// What the system says; the data written since the last sync must then be taken for lost.
    fn sync(&mut self, file: DiskFile) -> Result<(), DiskError>;
    /// `ftruncate`.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, file: DiskFile, len: u64) -> Result<(), DiskError>;
    /// `syncfs` of the data directory's file system.
    ///
    /// # Errors
    /// What the system says.
    fn sync_fs(&mut self) -> Result<(), DiskError>;
    /// Creates a directory; fine when it exists.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&mut self, path: &str) -> Result<(), DiskError>;
    /// `fsync` of a directory; `""` is the data directory itself.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&mut self, path: &str) -> Result<(), DiskError>;
    /// Removes a file; fine when it is gone already.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&mut self, path: &str) -> Result<(), DiskError>;
    /// Removes a directory with all in it; fine when it is gone already.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir(&mut self, path: &str) -> Result<(), DiskError>;
}
