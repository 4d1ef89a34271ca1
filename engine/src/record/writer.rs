//! Writing a record.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use zerocopy::IntoBytes;

use super::{Head, Kind, MAGIC};
use crate::disk::{Completion, Op, OpId, OpKind, OpenMode, Returned};

/// The shard's number of what happens before shards run.
pub const RECOVERY: u32 = u32::MAX;

/// The record of a process, shared by its shards.
#[derive(Debug)]
pub struct Recorder {
    /// The file and what is written next; `None` after a failure.
    file: Mutex<(Option<File>, Vec<u8>)>,
}

impl Recorder {
    /// Makes the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Arc<Self>> {
        let mut file = File::create(path)?;
        file.write_all(&MAGIC)?;
        Ok(Arc::new(Self {
            file: Mutex::new((Some(file), Vec::new())),
        }))
    }

    /// Notes an operation; the caller hands it over afterwards. Reads leave no trace.
    pub fn begin(&self, shard: u32, op: &Op) {
        self.note(shard, op.id, &op.kind);
    }

    /// Notes the end of an operation; the caller tells of it afterwards.
    pub fn end(&self, shard: u32, completion: &Completion) {
        if !matches!(completion.returned, Returned::Buf(_)) {
            self.ended(shard, completion.id, completion.result.is_ok());
        }
    }

    pub(super) fn note(&self, shard: u32, id: OpId, kind: &OpKind) {
        let mut head = Head {
            time_ns: 0.into(),
            id: id.0.into(),
            place: 0.into(),
            len: 0.into(),
            shard: shard.into(),
            path_len: 0.into(),
            kind: 0,
            flag: 0,
            file: 0.into(),
        };
        let (mut name, mut bytes) = ("", &[][..]);
        let kind = match kind {
            OpKind::Read { .. } => return,
            OpKind::Open { file, path, mode } => {
                head.file = file.0.into();
                head.flag = match mode {
                    OpenMode::WriteDirect => 0,
                    OpenMode::ReadBuffered => 1,
                    OpenMode::ReadDirect => 2,
                };
                name = path;
                Kind::Open
            }
            OpKind::Close { file } => {
                head.file = file.0.into();
                Kind::Close
            }
            OpKind::Write {
                file,
                offset,
                data,
                sync,
            } => {
                head.file = file.0.into();
                head.place = (*offset).into();
                head.flag = u8::from(*sync);
                bytes = data;
                Kind::Write
            }
            OpKind::Sync { file } => {
                head.file = file.0.into();
                Kind::Sync
            }
            OpKind::SyncFs => Kind::SyncFs,
            OpKind::Allocate { file, offset, len } => {
                head.file = file.0.into();
                head.place = (*offset).into();
                head.len = (*len).into();
                Kind::Allocate
            }
            OpKind::Truncate { file, len } => {
                head.file = file.0.into();
                head.place = (*len).into();
                Kind::Truncate
            }
            OpKind::CreateZeroed { file, path, len } => {
                head.file = file.0.into();
                head.place = (*len).into();
                name = path;
                Kind::CreateZeroed
            }
            OpKind::CreateDir { path } => {
                name = path;
                Kind::CreateDir
            }
            OpKind::SyncDir { path } => {
                name = path;
                Kind::SyncDir
            }
            OpKind::Unlink { path } => {
                name = path;
                Kind::Unlink
            }
            OpKind::RemoveDir { path } => {
                name = path;
                Kind::RemoveDir
            }
        };
        if kind == Kind::Write {
            head.len = (bytes.len() as u64).into();
        }
        self.append(head, kind, name, bytes);
    }

    pub(super) fn ended(&self, shard: u32, id: OpId, is_ok: bool) {
        let head = Head {
            time_ns: 0.into(),
            id: id.0.into(),
            place: 0.into(),
            len: 0.into(),
            shard: shard.into(),
            path_len: 0.into(),
            kind: 0,
            flag: u8::from(is_ok),
            file: 0.into(),
        };
        self.append(head, Kind::End, "", &[]);
    }

    /// Writes an event at once: what a killed process had in memory would be lost.
    fn append(&self, mut head: Head, kind: Kind, path: &str, data: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *file;
        let Some(open) = file else { return };
        let now = clock_gettime(ClockId::Monotonic);
        head.time_ns = (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64).into();
        head.kind = kind as u8;
        buffer.clear();
        let written = u16::try_from(path.len())
            .map_err(io::Error::other)
            .and_then(|len| {
                head.path_len = len.into();
                buffer.extend_from_slice(head.as_bytes());
                buffer.extend_from_slice(path.as_bytes());
                buffer.extend_from_slice(data);
                open.write_all(buffer)
            });
        if let Err(error) = written {
            tracing::error!("recording disk operations: {error}; the record is discarded");
            // A record with a gap would show losses that never were: without its header nobody takes it.
            let _ = open.set_len(0);
            *file = None;
        }
    }
}
