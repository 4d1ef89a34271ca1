//! Reading a record.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use thiserror::Error;
use zerocopy::{FromZeros, IntoBytes};

use super::{Head, Kind, MAGIC};
use crate::buf::{AlignedBuf, BLOCK};
use crate::disk::{FileId, Op, OpId, OpKind, OpenMode, WriteData};

/// Longest data of one write; the engine's are far shorter.
const DATA_LEN_MAX: u64 = 256 << 20;

/// Why a record cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error("reading the record: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("no record of disk operations of version 2, or one that was discarded")]
    Header,
    /// An event that no recorder writes.
    #[error("event {0} of the record is damaged")]
    Damaged(u64),
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The shard, or [`RECOVERY`](super::RECOVERY).
    pub shard: u32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// An operation was about to be handed over; its lane is not recorded.
    Begin(Op),
    /// An operation has ended.
    End {
        /// Which.
        id: OpId,
        /// Whether all of it was done.
        is_ok: bool,
    },
}

/// The events of a record in order. A last one that was cut by the process' end is left out.
#[derive(Debug)]
pub struct Records {
    file: BufReader<File>,
    count: u64,
}

impl Records {
    /// Opens a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut magic = [0; MAGIC.len()];
        if !fill(&mut file, &mut magic)? || magic != MAGIC {
            return Err(RecordError::Header);
        }
        Ok(Self { file, count: 0 })
    }

    fn event(&mut self) -> Result<Option<Event>, RecordError> {
        let mut head = Head::new_zeroed();
        if !fill(&mut self.file, head.as_mut_bytes())? {
            return Ok(None);
        }
        self.count += 1;
        let damaged = RecordError::Damaged(self.count);
        let Some(kind) = Kind::of(head.kind) else {
            return Err(damaged);
        };
        let mut path = vec![0; usize::from(head.path_len.get())];
        if !fill(&mut self.file, &mut path)? {
            return Ok(None);
        }
        let Ok(path) = String::from_utf8(path) else {
            return Err(damaged);
        };
        let (file, path) = (FileId(head.file.get()), path.into_boxed_str());
        let (place, len) = (head.place.get(), head.len.get());
        let kind = match kind {
            Kind::End => {
                let what = What::End {
                    id: OpId(head.id.get()),
                    is_ok: head.flag == 1,
                };
                return Ok(Some(head.event(what)));
            }
            Kind::Open => OpKind::Open {
                file,
                path,
                mode: match head.flag {
                    0 => OpenMode::WriteDirect,
                    1 => OpenMode::ReadBuffered,
                    _ => OpenMode::ReadDirect,
                },
            },
            Kind::Close => OpKind::Close { file },
            Kind::Write => {
                let whole = len <= DATA_LEN_MAX
                    && len.is_multiple_of(BLOCK as u64)
                    && place.is_multiple_of(BLOCK as u64);
                if !whole {
                    return Err(damaged);
                }
                let mut data = AlignedBuf::zeroed(len as usize);
                if !fill(&mut self.file, &mut data)? {
                    return Ok(None);
                }
                OpKind::Write {
                    file,
                    offset: place,
                    data: WriteData::Owned(data),
                    sync: head.flag == 1,
                }
            }
            Kind::Sync => OpKind::Sync { file },
            Kind::SyncFs => OpKind::SyncFs,
            Kind::Allocate => OpKind::Allocate {
                file,
                offset: place,
                len,
            },
            Kind::Truncate => OpKind::Truncate { file, len: place },
            Kind::CreateZeroed => OpKind::CreateZeroed {
                file,
                path,
                len: place,
            },
            Kind::CreateDir => OpKind::CreateDir { path },
            Kind::SyncDir => OpKind::SyncDir { path },
            Kind::Unlink => OpKind::Unlink { path },
            Kind::RemoveDir => OpKind::RemoveDir { path },
        };
        let op = Op {
            id: OpId(head.id.get()),
            lane: crate::disk::Lane::Background,
            kind,
        };
        Ok(Some(head.event(What::Begin(op))))
    }
}

impl Iterator for Records {
    type Item = Result<Event, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

impl Head {
    fn event(&self, what: What) -> Event {
        Event {
            time_ns: self.time_ns.get(),
            shard: self.shard.get(),
            what,
        }
    }
}

/// Fills `bytes`; false when the file ends before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
