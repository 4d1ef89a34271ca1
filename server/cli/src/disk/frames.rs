//! The frames of a journal file.

use ringlog_engine::batch::{BatchHeader, HEADER_LEN};
use ringlog_engine::buf::BLOCK;
use ringlog_engine::id::PartitionKey;
use ringlog_engine::journal::{EntryHeader, FileHeader, FrameHeader, Incarnation};
use zerocopy::FromBytes;

use super::source::Source;

/// A frame whose header is intact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Where it begins, bytes.
    pub(crate) at: u64,
    pub(crate) header: FrameHeader,
    pub(crate) payload: Payload,
}

/// What a frame's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// What was written.
    Whole,
    /// Something else.
    Damaged,
    /// The file ends before it.
    Cut,
}

/// The header of a journal file, if it is intact.
pub(crate) fn file_header(source: &mut Source) -> Option<FileHeader> {
    let len = source.len().min(BLOCK as u64) as usize;
    FileHeader::read(source.bytes(0, len)?)
}

/// Calls `each` for every frame of `incarnation`, or of any; goes on behind what is none, block by block, as a start
/// of the server does.
pub(crate) fn frames(
    source: &mut Source,
    incarnation: Option<Incarnation>,
    mut each: impl FnMut(&mut Source, Frame),
) {
    let mut at = BLOCK as u64;
    while at + FrameHeader::LEN as u64 <= source.len() {
        let header = source
            .bytes(at, FrameHeader::LEN)
            .and_then(FrameHeader::read);
        let wanted = |header: &FrameHeader| incarnation.is_none_or(|i| i == header.incarnation());
        let Some(header) = header.filter(wanted) else {
            at += BLOCK as u64;
            continue;
        };
        let (start, len) = (at + FrameHeader::LEN as u64, header.payload_len() as u64);
        let mut hasher = crc32fast::Hasher::new();
        let payload = match source.pieces(start, len, |piece| hasher.update(piece)) {
            false => Payload::Cut,
            true if hasher.finalize() == header.payload_crc() => Payload::Whole,
            true => Payload::Damaged,
        };
        each(
            source,
            Frame {
                at,
                header,
                payload,
            },
        );
        at += match payload {
            Payload::Whole => (FrameHeader::LEN as u64 + len).next_multiple_of(BLOCK as u64),
            Payload::Damaged | Payload::Cut => BLOCK as u64,
        };
    }
}

/// A batch in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Where the batch begins in the file, bytes.
    pub(crate) at: u64,
    pub(crate) key: PartitionKey,
    /// It starts a new segment.
    pub(crate) roll: bool,
    pub(crate) batch: BatchHeader,
}

/// Calls `each` for the batches of a whole frame; the place of the first that cannot be read, if there is one.
pub(crate) fn entries(
    source: &mut Source,
    frame: &Frame,
    mut each: impl FnMut(Entry),
) -> Option<u64> {
    let mut at = frame.at + FrameHeader::LEN as u64;
    let end = at + frame.header.payload_len() as u64;
    while at < end {
        let both = EntryHeader::LEN + HEADER_LEN;
        let read = source
            .bytes(at, both)
            .filter(|_| at + both as u64 <= end)
            .and_then(|bytes| {
                let (entry, batch) = EntryHeader::read_from_prefix(bytes).ok()?;
                entry.kind()?;
                Some((entry, BatchHeader::read_from_bytes(batch).ok()?))
            });
        let Some((entry, batch)) = read else {
            return Some(at);
        };
        let next = at + (EntryHeader::LEN + entry.body_len()) as u64;
        if batch.total_len() != entry.body_len() || next > end {
            return Some(at);
        }
        each(Entry {
            at: at + EntryHeader::LEN as u64,
            key: entry.key(),
            roll: entry.is_roll(),
            batch,
        });
        at = next;
    }
    None
}
