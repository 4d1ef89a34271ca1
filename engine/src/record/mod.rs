//! A record of what a server does to its data directory: every operation when it is handed to the system and when it has
//! ended, with the bytes of writes. It serves to rebuild the directory as a loss of power would have left it at any moment
//! ([`Replay`](crate::sim::Replay)), for tests and the claims report. Off by default; then it costs a comparison.
//!
//! The file is a header of 16 bytes, then events of 48 bytes, each followed by its path and its data. An event reaches the
//! system before the operation is handed over, or before anybody hears of its end, so a killed process leaves a record that
//! lacks nothing that was acknowledged. All numbers are little-endian.

mod disk;
mod reader;
mod writer;

pub use disk::RecordedDisk;
pub use reader::{Event, RecordError, Records, What};
pub use writer::{RECOVERY, Recorder};

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How the file begins: what it is, and its version.
const MAGIC: [u8; 16] = *b"ringlog-record-2";

/// One event, before its path and its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    time_ns: U64,
    /// Names the operation within its shard.
    id: U64,
    /// Byte in the file of a write or an allocation, new length of a truncation, length of a zeroed file.
    place: U64,
    /// Bytes of data behind the path; bytes allocated.
    len: U64,
    /// [`RECOVERY`] before shards run.
    shard: U32,
    /// Bytes of the path.
    path_len: U16,
    /// One of [`Kind`].
    kind: u8,
    /// Opening: 1 for reading through the page cache, 2 for direct reading. Write: 1 with a sync. End: 1 without an error.
    flag: u8,
    /// The file's handle within its shard.
    file: U64,
}

const _: () = assert!(size_of::<Head>() == 48);

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    End = 1,
    Open,
    Close,
    Write,
    Sync,
    SyncFs,
    Allocate,
    Truncate,
    CreateZeroed,
    CreateDir,
    SyncDir,
    Unlink,
    RemoveDir,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::End,
        Self::Open,
        Self::Close,
        Self::Write,
        Self::Sync,
        Self::SyncFs,
        Self::Allocate,
        Self::Truncate,
        Self::CreateZeroed,
        Self::CreateDir,
        Self::SyncDir,
        Self::Unlink,
        Self::RemoveDir,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

#[cfg(test)]
mod tests;
