//! The blocking disk of recovery, recorded.

use std::sync::Arc;

use super::{RECOVERY, Recorder};
use crate::buf::AlignedBuf;
use crate::disk::{
    Disk, DiskError, DiskFile, EntryKind, FileId, OpId, OpKind, OpenMode, WriteData,
};

/// A disk whose changes are recorded.
#[derive(Debug)]
pub struct RecordedDisk<D> {
    disk: D,
    recorder: Option<Arc<Recorder>>,
    next_id: u64,
}

impl<D: Disk> RecordedDisk<D> {
    /// Records what is done to `disk`, if there is a recorder.
    pub fn new(disk: D, recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            disk,
            recorder,
            next_id: 0,
        }
    }

    /// Carries out `act`, which is `kind`, with an event before and one after.
    fn recorded<T>(
        &mut self,
        kind: impl FnOnce() -> OpKind,
        act: impl FnOnce(&mut D) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let Some(recorder) = &self.recorder else {
            return act(&mut self.disk);
        };
        self.next_id += 1;
        recorder.note(RECOVERY, OpId(self.next_id), &kind());
        let result = act(&mut self.disk);
        recorder.ended(RECOVERY, OpId(self.next_id), result.is_ok());
        result
    }
}

impl<D: Disk> Disk for RecordedDisk<D> {
    fn list(&mut self, dir: &str) -> Result<Vec<(String, EntryKind)>, DiskError> {
        self.disk.list(dir)
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> Result<DiskFile, DiskError> {
        let file = self.disk.open(path, mode)?;
        // Its number is known only now. Creating a file is volatile until a sync, which cannot come before.
        let open = || OpKind::Open {
            file: FileId(file.0.into()),
            path: path.into(),
            mode,
        };
        self.recorded(open, |_| Ok(file))
    }

    fn close(&mut self, file: DiskFile) {
        let close = || OpKind::Close {
            file: FileId(file.0.into()),
        };
        let _ = self.recorded(close, |disk| {
            disk.close(file);
            Ok(())
        });
    }

    fn size(&mut self, file: DiskFile) -> Result<u64, DiskError> {
        self.disk.size(file)
    }

    fn read_at(
        &mut self,
        file: DiskFile,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, DiskError> {
        self.disk.read_at(file, offset, into)
    }

    fn write_at(&mut self, file: DiskFile, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let write = || {
            let mut copy = AlignedBuf::zeroed(data.len());
            copy.copy_from_slice(data);
            OpKind::Write {
                file: FileId(file.0.into()),
                offset,
                data: WriteData::Owned(copy),
                sync: false,
            }
        };
        self.recorded(write, |disk| disk.write_at(file, offset, data))
    }

    fn sync(&mut self, file: DiskFile) -> Result<(), DiskError> {
        let sync = || OpKind::Sync {
            file: FileId(file.0.into()),
        };
        self.recorded(sync, |disk| disk.sync(file))
    }

    fn truncate(&mut self, file: DiskFile, len: u64) -> Result<(), DiskError> {
        let truncate = || OpKind::Truncate {
            file: FileId(file.0.into()),
            len,
        };
        self.recorded(truncate, |disk| disk.truncate(file, len))
    }

    fn sync_fs(&mut self) -> Result<(), DiskError> {
        self.recorded(|| OpKind::SyncFs, Disk::sync_fs)
    }

    fn create_dir(&mut self, path: &str) -> Result<(), DiskError> {
        let create = || OpKind::CreateDir { path: path.into() };
        self.recorded(create, |disk| disk.create_dir(path))
    }

    fn sync_dir(&mut self, path: &str) -> Result<(), DiskError> {
        let sync = || OpKind::SyncDir { path: path.into() };
        self.recorded(sync, |disk| disk.sync_dir(path))
    }

    fn unlink(&mut self, path: &str) -> Result<(), DiskError> {
        let unlink = || OpKind::Unlink { path: path.into() };
        self.recorded(unlink, |disk| disk.unlink(path))
    }

    fn remove_dir(&mut self, path: &str) -> Result<(), DiskError> {
        let remove = || OpKind::RemoveDir { path: path.into() };
        self.recorded(remove, |disk| disk.remove_dir(path))
    }
}
