//! File-system calls relative to the data directory, plain and blocking.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::{DiskError, OpenMode};

/// The data directory.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl From<Errno> for DiskError {
    fn from(error: Errno) -> Self {
        Self(error.raw_os_error())
    }
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, DiskError> {
        let dir = rustix::fs::open(path, directory(), Mode::empty())?;
        Ok(Self {
            dir,
            path: path.to_owned(),
        })
    }

    pub(crate) fn file(&self, path: &str, mode: OpenMode) -> Result<OwnedFd, DiskError> {
        let flags = match mode {
            OpenMode::ReadBuffered => OFlags::RDONLY,
            OpenMode::ReadDirect => OFlags::RDONLY | OFlags::DIRECT,
            OpenMode::WriteDirect => OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT,
        };
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        Ok(rustix::fs::openat(
            &self.dir,
            inside(path)?,
            flags | OFlags::CLOEXEC,
            mode,
        )?)
    }

    pub(crate) fn subdirectory(&self, path: &str) -> Result<OwnedFd, DiskError> {
        let path = if path.is_empty() { "." } else { inside(path)? };
        Ok(rustix::fs::openat(
            &self.dir,
            path,
            directory(),
            Mode::empty(),
        )?)
    }

    pub(crate) fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        match rustix::fs::mkdirat(
            &self.dir,
            inside(path)?,
            Mode::RWXU | Mode::RGRP | Mode::XGRP,
        ) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        Ok(rustix::fs::fsync(self.subdirectory(path)?)?)
    }

    pub(crate) fn sync_fs(&self) -> Result<(), DiskError> {
        Ok(rustix::fs::syncfs(&self.dir)?)
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<(), DiskError> {
        match rustix::fs::unlinkat(&self.dir, inside(path)?, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn remove_dir(&self, path: &str) -> Result<(), DiskError> {
        match std::fs::remove_dir_all(self.path.join(inside(path)?)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The directory that holds `path`, as [`Root::sync_dir`] takes it.
    pub(crate) fn parent(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Refuses paths that could leave the data directory, whoever made them.
fn inside(path: &str) -> Result<&str, DiskError> {
    let plain = |part| matches!(part, Component::Normal(_));
    if !path.is_empty() && Path::new(path).components().all(plain) {
        Ok(path)
    } else {
        Err(DiskError::INVALID)
    }
}

/// `fallocate` without a change of size.
pub(crate) fn allocate(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), DiskError> {
    Ok(rustix::fs::fallocate(
        file,
        FallocateFlags::KEEP_SIZE,
        offset,
        len,
    )?)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_the_directory() {
        for path in ["", "/etc", "../x", "a/../../x", "a/.."] {
            assert_eq!(inside(path), Err(DiskError::INVALID), "{path}");
        }
        assert_eq!(inside("topics/a-0.ff/0.log"), Ok("topics/a-0.ff/0.log"));
        assert_eq!(Root::parent("a/b/c"), "a/b");
        assert_eq!(Root::parent("a"), "");
    }
}
