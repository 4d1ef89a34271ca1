//! A checkpoint's file: whether it counts, and its partitions.

use ringlog_engine::buf::BLOCK;
use ringlog_engine::store::{CheckpointHeader, OwnedRecord};

use super::source::Source;

/// Largest record of a partition that is read.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// What a slot holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// Nothing: the first block is zero, or there is none.
    Empty,
    /// A header of another version of the format.
    Foreign(u16),
    /// Something that is no header.
    NoHeader,
    /// A header, and a body that is not the one it describes.
    NotWhole(CheckpointHeader),
    /// A whole checkpoint.
    Whole(CheckpointHeader),
}

/// Looks at a slot.
pub(crate) fn slot(source: &mut Source) -> Slot {
    let first = source.len().min(BLOCK as u64) as usize;
    let Some(block) = source.bytes(0, first) else {
        return Slot::NoHeader;
    };
    if block.iter().all(|&byte| byte == 0) {
        return Slot::Empty;
    }
    if let Some(version) = CheckpointHeader::foreign_version(block) {
        return Slot::Foreign(version);
    }
    let Some(header) = CheckpointHeader::read(block) else {
        return Slot::NoHeader;
    };
    let mut hasher = crc32fast::Hasher::new();
    let there = source.pieces(BLOCK as u64, header.body_len(), |piece| {
        hasher.update(piece)
    });
    match there && hasher.finalize() == header.body_crc() {
        true => Slot::Whole(header),
        false => Slot::NotWhole(header),
    }
}

/// Calls `each` with the partitions of a whole checkpoint and their places; the place of the first that cannot be read,
/// if there is one.
pub(crate) fn records(
    source: &mut Source,
    header: &CheckpointHeader,
    mut each: impl FnMut(u64, OwnedRecord),
) -> Option<u64> {
    let mut at = BLOCK as u64;
    let end = at.saturating_add(header.body_len());
    for _ in 0..header.record_count() {
        let len = source
            .bytes(at, 4)
            .and_then(|bytes| bytes.first_chunk().copied());
        let record = len.map(u32::from_le_bytes).map(u64::from).and_then(|len| {
            if at + 4 + len > end {
                return None;
            }
            let bytes = source.copy(at + 4, len, RECORD_BYTES_MAX)?;
            Some((len, OwnedRecord::read(&bytes, header.version())?))
        });
        let Some((len, record)) = record else {
            return Some(at);
        };
        each(at, record);
        at += 4 + len;
    }
    (at != end).then_some(at)
}
