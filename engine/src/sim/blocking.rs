//! The simulated disk as recovery sees it: blocking calls, any of which may be the last before a crash.

use std::collections::BTreeMap;

use super::disk::SimDisk;
use super::rules::assert_blocks;
use super::tree::NodeId;
use crate::buf::BLOCK;
use crate::disk::{Disk, DiskError, DiskFile, EntryKind, OpenMode};

/// A [`Disk`] over a [`SimDisk`].
#[derive(Debug)]
pub struct BlockingDisk<'a> {
    disk: &'a mut SimDisk,
    files: BTreeMap<u32, (NodeId, OpenMode)>,
    next: u32,
    calls: u64,
    crash_after: Option<u64>,
}

impl SimDisk {
    /// The disk for blocking use. After `crash_after` calls every call fails; the caller then loses power or not.
    pub fn blocking(&mut self, crash_after: Option<u64>) -> BlockingDisk<'_> {
        BlockingDisk {
            disk: self,
            files: BTreeMap::new(),
            next: 0,
            calls: 0,
            crash_after,
        }
    }
}

impl BlockingDisk<'_> {
    /// Calls so far that could crash.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Whether the crash has come.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.crash_after.is_some_and(|limit| self.calls > limit)
    }

    /// Counts a call; an error when the process is gone. The call at which it goes is carried out in part or
    /// whole in half the cases: the second value says so.
    fn call(&mut self) -> (Result<(), DiskError>, bool) {
        let was = self.crashed();
        self.calls += 1;
        if self.crashed() {
            return (Err(DiskError::IO), !was && self.disk.rng.percent(50));
        }
        (Ok(()), true)
    }

    fn read_call(&mut self) -> Result<(), DiskError> {
        self.call().0?;
        let failed = self.disk.rng.ppm(self.disk.faults.read_ppm);
        if failed { Err(DiskError::IO) } else { Ok(()) }
    }

    fn change(
        &mut self,
        act: impl FnOnce(&mut SimDisk) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        if self.disk.stopped && !self.crashed() {
            self.calls += 1;
            return Err(super::disk::READ_ONLY);
        }
        let (result, act_anyway) = self.call();
        if result.is_ok() && self.disk.rng.ppm(self.disk.faults.meta_ppm) {
            return Err(DiskError::IO);
        }
        if act_anyway {
            let done = act(self.disk);
            result.and(done)
        } else {
            result
        }
    }

    fn node(&self, file: DiskFile) -> (NodeId, OpenMode) {
        match self.files.get(&file.0) {
            Some(&handle) => handle,
            None => panic!("disk rule: {file:?} is not open"),
        }
    }

    fn to_write(&self, file: DiskFile) -> NodeId {
        let (node, mode) = self.node(file);
        assert_eq!(
            mode,
            OpenMode::WriteDirect,
            "disk rule: change of a file opened to read"
        );
        node
    }
}

impl Disk for BlockingDisk<'_> {
    fn list(&mut self, dir: &str) -> Result<Vec<(String, EntryKind)>, DiskError> {
        self.read_call()?;
        self.disk.tree.list(dir)
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> Result<DiskFile, DiskError> {
        let node = match mode {
            OpenMode::ReadBuffered | OpenMode::ReadDirect => {
                self.read_call()?;
                self.disk.tree.resolve_file(path)?
            }
            OpenMode::WriteDirect => {
                self.change(|disk| disk.tree.open_or_create(path).map(|_| ()))?;
                self.disk.tree.resolve_file(path)?
            }
        };
        self.next += 1;
        self.files.insert(self.next, (node, mode));
        Ok(DiskFile(self.next))
    }

    fn close(&mut self, file: DiskFile) {
        let closed = self.files.remove(&file.0);
        assert!(closed.is_some(), "disk rule: {file:?} closed twice");
    }

    fn size(&mut self, file: DiskFile) -> Result<u64, DiskError> {
        self.read_call()?;
        Ok(self.disk.tree.file(self.node(file).0).size())
    }

    fn read_at(
        &mut self,
        file: DiskFile,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, DiskError> {
        self.read_call()?;
        let (node, mode) = self.node(file);
        if mode == OpenMode::ReadDirect {
            assert_blocks(offset, into.len());
            assert!(
                into.as_ptr().addr().is_multiple_of(BLOCK),
                "disk rule: direct read into unaligned memory"
            );
        }
        Ok(self.disk.tree.file(node).read(offset, into))
    }

    fn write_at(&mut self, file: DiskFile, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let node = self.to_write(file);
        assert_blocks(offset, data.len());
        assert!(
            data.as_ptr().addr().is_multiple_of(BLOCK),
            "disk rule: direct write of unaligned memory"
        );
        match self.call() {
            (Ok(()), _) => self.disk.write(node, offset, data, false, 0),
            (Err(error), part) => {
                if part {
                    self.disk.write_part(node, offset, data);
                }
                Err(error)
            }
        }
    }

    fn sync(&mut self, file: DiskFile) -> Result<(), DiskError> {
        // Any descriptor will do to sync a file, one that reads as well.
        let node = self.node(file).0;
        self.change(|disk| disk.sync(Some(node), disk.tree.stamp()))
    }

    fn truncate(&mut self, file: DiskFile, len: u64) -> Result<(), DiskError> {
        let node = self.to_write(file);
        self.change(|disk| {
            let (file, stamp) = disk.tree.change_file(node);
            file.truncate(stamp, len);
            Ok(())
        })
    }

    fn sync_fs(&mut self) -> Result<(), DiskError> {
        self.change(|disk| disk.sync(None, disk.tree.stamp()))
    }

    fn create_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.change(|disk| disk.tree.create_dir(path))
    }

    fn sync_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.change(|disk| {
            let node = disk.tree.resolve(path)?;
            disk.sync(Some(node), disk.tree.stamp())
        })
    }

    fn unlink(&mut self, path: &str) -> Result<(), DiskError> {
        self.change(|disk| disk.tree.unlink(path))
    }

    fn remove_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.change(|disk| disk.tree.remove_dir(path))
    }
}
