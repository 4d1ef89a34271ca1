//! A start of the server, tried: the recovery itself, on a disk that takes no writes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ringlog_engine::disk::{Disk, DiskError, DiskFile, EntryKind, OpenMode};
use ringlog_engine::recovery::{RecoveryOptions, recover};
use ringlog_engine::store::journal_dir;
use ringlog_server::catalog::Snapshot;

use super::checkpoints::State;
use super::names;
use super::report::Report;
use crate::output::count;

/// Journals are read into memory, as a start does; more than this is not tried.
const JOURNAL_BYTES_MAX: u64 = 64 << 30;

/// Says what a start would do.
pub(super) fn try_it(data: &Path, catalog: &Snapshot, state: Option<&State>, report: &mut Report) {
    let shards = state.map_or(1, |state| state.merged.shards().clamp(1, 256));
    let bytes: u64 = (0..shards)
        .map(|shard| journal_bytes(&data.join(journal_dir(shard))))
        .sum();
    if bytes > JOURNAL_BYTES_MAX {
        let what = format!("the journals have {bytes} bytes");
        return report.note(
            "shard-0/journal",
            None,
            what,
            "what a start would do was not tried",
        );
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let options = RecoveryOptions {
        shards,
        journal_file_len: 64 << 20,
        new_dir_id: [1; 16],
        now_ms: since.map_or(0, |since| since.as_millis() as i64),
        mutations: Default::default(),
    };
    let outcome = recover(&mut Frozen::new(data), &catalog.metas(), options);
    report.start(match outcome {
        Ok(recovered) => Ok(format!(
            "{} replayed from the journals{}",
            count(recovered.frames, "frame"),
            match recovered.unclean {
                true => ", after an unclean stop: the leader epoch rises",
                false => "",
            }
        )),
        Err(error) => Err(error.to_string()),
    });
}

fn journal_bytes(directory: &Path) -> u64 {
    let len = |name: &String| std::fs::metadata(directory.join(name)).map_or(0, |meta| meta.len());
    names(directory).iter().map(len).sum()
}

/// A data directory that is read and never written: writes are taken for done.
struct Frozen {
    root: PathBuf,
    open: HashMap<u32, Option<File>>,
    next: u32,
    /// Directories that would be there.
    made: HashSet<String>,
}

impl Frozen {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            open: HashMap::new(),
            next: 0,
            made: HashSet::new(),
        }
    }

    fn file(&self, file: DiskFile) -> Result<Option<&File>, DiskError> {
        self.open
            .get(&file.0)
            .map(Option::as_ref)
            .ok_or(DiskError::INVALID)
    }
}

fn error(error: &io::Error) -> DiskError {
    error.raw_os_error().map_or(DiskError::IO, DiskError)
}

impl Disk for Frozen {
    fn list(&mut self, dir: &str) -> Result<Vec<(String, EntryKind)>, DiskError> {
        let entries = match std::fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries,
            Err(_) if self.made.contains(dir) => return Ok(Vec::new()),
            Err(e) => return Err(error(&e)),
        };
        entries
            .map(|entry| {
                let entry = entry.map_err(|e| error(&e))?;
                let is_dir = entry.file_type().map_err(|e| error(&e))?.is_dir();
                let kind = if is_dir {
                    EntryKind::Dir
                } else {
                    EntryKind::File
                };
                Ok((entry.file_name().to_string_lossy().into_owned(), kind))
            })
            .collect()
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> Result<DiskFile, DiskError> {
        let file = match mode {
            OpenMode::WriteDirect => None,
            OpenMode::ReadBuffered | OpenMode::ReadDirect => {
                Some(File::open(self.root.join(path)).map_err(|e| error(&e))?)
            }
        };
        self.next += 1;
        self.open.insert(self.next, file);
        Ok(DiskFile(self.next))
    }

    fn close(&mut self, file: DiskFile) {
        self.open.remove(&file.0);
    }

    fn size(&mut self, file: DiskFile) -> Result<u64, DiskError> {
        match self.file(file)? {
            Some(file) => file
                .metadata()
                .map(|meta| meta.len())
                .map_err(|e| error(&e)),
            None => Ok(0),
        }
    }

    fn read_at(
        &mut self,
        file: DiskFile,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, DiskError> {
        let Some(file) = self.file(file)? else {
            return Ok(0);
        };
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error(&e)),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, _: DiskFile, _: u64, _: &[u8]) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync(&mut self, _: DiskFile) -> Result<(), DiskError> {
        Ok(())
    }

    fn truncate(&mut self, _: DiskFile, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_fs(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn create_dir(&mut self, path: &str) -> Result<(), DiskError> {
        self.made.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn unlink(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove_dir(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }
}
