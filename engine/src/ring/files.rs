//! The blocking disk that recovery runs on.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, statat};

use crate::disk::{Disk, DiskError, DiskFile, EntryKind, OpenMode};

use super::root::Root;

/// The data directory on the real file system. Direct I/O throughout, except for files opened with
/// [`OpenMode::ReadBuffered`].
#[derive(Debug)]
pub struct RealDisk {
    root: Root,
    /// By [`DiskFile`]; a closed file leaves a free place.
    files: Vec<Option<OwnedFd>>,
}

impl RealDisk {
    /// The disk whose paths are relative to `data_dir`, which must exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(data_dir: &Path) -> Result<Self, DiskError> {
        Ok(Self {
            root: Root::open(data_dir)?,
            files: Vec::new(),
        })
    }

    fn file(&self, file: DiskFile) -> Result<&OwnedFd, DiskError> {
        let place = self.files.get(file.0 as usize).and_then(Option::as_ref);
        place.ok_or(DiskError(libc::EBADF))
    }
}

impl Disk for RealDisk {
    fn list(&mut self, dir: &str) -> Result<Vec<(String, EntryKind)>, DiskError> {
        let mut names = Vec::new();
        let dir = self.root.subdirectory(dir)?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            // A name of ours is always UTF-8; others are shown with replacement marks and match nothing.
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                kind = FileType::from_raw_mode(statat(&dir, entry.file_name(), flags)?.st_mode);
            }
            match kind {
                FileType::Directory if name == "." || name == ".." => {}
                FileType::Directory => names.push((name, EntryKind::Dir)),
                _ => names.push((name, EntryKind::File)),
            }
        }
        Ok(names)
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> Result<DiskFile, DiskError> {
        let file = Some(self.root.file(path, mode)?);
        let place = match self.files.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.files.push(None);
                self.files.len() - 1
            }
        };
        self.files[place] = file;
        Ok(DiskFile(place as u32))
    }

    fn close(&mut self, file: DiskFile) {
        if let Some(place) = self.files.get_mut(file.0 as usize) {
            *place = None;
        }
    }

    fn size(&mut self, file: DiskFile) -> Result<u64, DiskError> {
        Ok(rustix::fs::fstat(self.file(file)?)?.st_size as u64)
    }

    fn read_at(
        &mut self,
        file: DiskFile,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, DiskError> {
        let file = self.file(file)?;
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(file, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                // A direct read that stopped inside a block stopped at the file's end.
                Err(rustix::io::Errno::INVAL) if done % crate::buf::BLOCK != 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, file: DiskFile, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let file = self.file(file)?;
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(file, &data[done..], offset + done as u64) {
                Ok(0) => return Err(DiskError::IO),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&mut self, file: DiskFile) -> Result<(), DiskError> {
        Ok(rustix::fs::fdatasync(self.file(file)?)?)
    }

    fn truncate(&mut self, file: DiskFile, len: u64) -> Result<(), DiskError> {
        Ok(rustix::fs::ftruncate(self.file(file)?, len)?)
    }

    fn sync_fs(&mut self) -> Result<(), DiskError> {
        self.root.sync_fs()
    }

    fn create_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.root.create_dir(path)
    }

    fn sync_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.root.sync_dir(path)
    }

    fn unlink(&mut self, path: &str) -> Result<(), DiskError> {
        self.root.unlink(path)
    }

    fn remove_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.root.remove_dir(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{AlignedBuf, BLOCK};

    #[test]
    fn writes_come_back_and_names_behave() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut disk = RealDisk::new(dir.path()).unwrap();
        disk.create_dir("shard-0").unwrap();
        disk.create_dir("shard-0").unwrap();
        let file = disk.open("shard-0/a", OpenMode::WriteDirect).unwrap();
        let mut data = AlignedBuf::zeroed(3 * BLOCK);
        data[BLOCK] = 7;
        disk.write_at(file, BLOCK as u64, &data).unwrap();
        disk.sync(file).unwrap();
        assert_eq!(disk.size(file).unwrap(), 4 * BLOCK as u64);
        let mut back = AlignedBuf::zeroed(8 * BLOCK);
        assert_eq!(disk.read_at(file, 0, &mut back).unwrap(), 4 * BLOCK);
        assert_eq!(back[2 * BLOCK], 7);

        // A direct read of a file that ends inside a block stops there.
        disk.truncate(file, 2 * BLOCK as u64 + 1).unwrap();
        disk.close(file);
        let file = disk.open("shard-0/a", OpenMode::ReadDirect).unwrap();
        assert_eq!(disk.read_at(file, 0, &mut back).unwrap(), 2 * BLOCK + 1);
        assert_eq!(
            disk.write_at(file, 0, &data),
            Err(DiskError(libc::EBADF)),
            "opened for reading"
        );

        assert_eq!(
            disk.list("shard-0").unwrap(),
            [("a".to_owned(), EntryKind::File)]
        );
        assert_eq!(
            disk.list("").unwrap(),
            [("shard-0".to_owned(), EntryKind::Dir)]
        );
        assert_eq!(
            disk.open("absent", OpenMode::ReadBuffered).unwrap_err(),
            DiskError::NOT_FOUND
        );
        assert_eq!(disk.list("absent").unwrap_err(), DiskError::NOT_FOUND);
        disk.sync_dir("shard-0").unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_fs().unwrap();
        disk.unlink("shard-0/a").unwrap();
        disk.unlink("shard-0/a").unwrap();
        disk.remove_dir("shard-0").unwrap();
        disk.remove_dir("shard-0").unwrap();
        assert!(disk.list("").unwrap().is_empty());
    }
}
