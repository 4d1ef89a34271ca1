//! The open files as the shard's ring sees them. The background thread owns the descriptors.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;

use crate::disk::FileId;

use super::uring::{Ring, Target};

/// Places in the ring's table of registered files: more than a shard has journal files.
const SLOTS: u32 = 64;

struct OpenFile {
    fd: RawFd,
    slot: Option<u32>,
}

/// Open files by the core's names. A file is here from the completion of its opening until its close is asked
/// for; the descriptor stays open at least that long.
pub(super) struct FileTable {
    files: HashMap<FileId, OpenFile>,
    free: Vec<u32>,
}

impl FileTable {
    pub(super) fn register(ring: &Ring<'_>) -> io::Result<Self> {
        ring.submitter().register_files_sparse(SLOTS)?;
        Ok(Self {
            files: HashMap::new(),
            free: (0..SLOTS).rev().collect(),
        })
    }

    pub(super) fn opened(&mut self, file: FileId, fd: RawFd) {
        self.files.insert(file, OpenFile { fd, slot: None });
    }

    pub(super) fn fd(&self, file: FileId) -> Option<RawFd> {
        self.files.get(&file).map(|open| open.fd)
    }

    /// The file for reading: journal files are registered, others need not be.
    pub(super) fn target(&self, file: FileId) -> Option<Target> {
        let open = self.files.get(&file)?;
        Some(match open.slot {
            Some(slot) => Target {
                number: slot as i32,
                registered: true,
            },
            None => Target {
                number: open.fd,
                registered: false,
            },
        })
    }

    /// The file for commits; registered at its first, which costs one system call in a journal file's life and
    /// saves a look-up and a reference count at every commit.
    pub(super) fn journal_target(&mut self, ring: &Ring<'_>, file: FileId) -> Option<Target> {
        let open = self.files.get_mut(&file)?;
        if open.slot.is_none()
            && let Some(slot) = self.free.pop()
        {
            match ring.submitter().register_files_update(slot, &[open.fd]) {
                Ok(_) => open.slot = Some(slot),
                // The plain descriptor does as well, only slower.
                Err(_) => self.free.push(slot),
            }
        }
        self.target(file)
    }

    /// Forgets a file whose close was asked for.
    pub(super) fn close(&mut self, ring: &Ring<'_>, file: FileId) {
        let slot = self.files.remove(&file).and_then(|open| open.slot);
        // A slot that cannot be emptied is not used again: it would name the old file.
        if let Some(slot) = slot
            && ring.submitter().register_files_update(slot, &[-1]).is_ok()
        {
            self.free.push(slot);
        }
    }
}
