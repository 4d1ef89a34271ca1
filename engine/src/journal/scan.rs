//! Reading a journal back: what lies at a block, and the entries of a good frame.

use zerocopy::FromBytes;

use crate::batch::BatchHeader;
use crate::buf::{BLOCK, round_up};
use crate::id::PartitionKey;

use super::layout::{EntryHeader, FrameHeader, Incarnation};

/// Why a block does not start a good frame.
#[derive(Debug, Clone, Copy)]
pub enum FrameFault {
    /// No intact frame header, or one of another use of the file.
    NoHeader,
    /// The header is intact and announces more than the file holds.
    TooLong,
    /// The header is intact, the payload is not.
    Payload(FrameHeader),
}

/// A good frame and its length on disk.
#[derive(Debug, Clone, Copy)]
pub struct ScannedFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Bytes on disk, whole blocks.
    pub disk_len: usize,
}

/// Looks at the block that starts `rest`, the remainder of a journal file used as `incarnation` (`None`: take
/// frames of any use, which is only ever done to prove that tests notice).
///
/// # Errors
/// [`FrameFault`]: scanning goes on one block further, or behind the frame when its header is intact.
pub fn scan_block(
    rest: &[u8],
    incarnation: Option<Incarnation>,
) -> Result<ScannedFrame, FrameFault> {
    let header = FrameHeader::read(rest).ok_or(FrameFault::NoHeader)?;
    if incarnation.is_some_and(|wanted| wanted != header.incarnation()) {
        return Err(FrameFault::NoHeader);
    }
    let end = FrameHeader::LEN + header.payload_len();
    if end > rest.len() {
        return Err(FrameFault::TooLong);
    }
    if !header.matches(&rest[FrameHeader::LEN..end]) {
        return Err(FrameFault::Payload(header));
    }
    Ok(ScannedFrame {
        header,
        disk_len: round_up(end).max(BLOCK),
    })
}

/// An intact frame holds something this version cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("journal entry at byte {at} of a frame's payload cannot be read")]
pub struct EntryError {
    /// Position in the payload.
    pub at: usize,
}

/// One batch of a frame.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry {
    /// The partition.
    pub key: PartitionKey,
    /// Position of the batch in the payload.
    pub at: usize,
    /// Bytes of the batch.
    pub len: usize,
    /// It starts a new segment.
    pub roll: bool,
}

/// The batches of a good frame's payload, in order.
///
/// # Errors
/// [`EntryError`] when the payload is not whole entries of known kinds: a newer version wrote it, or a bug.
pub fn entries(payload: &[u8]) -> impl Iterator<Item = Result<BatchEntry, EntryError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == payload.len() {
            return None;
        }
        let entry = read_entry(payload, at);
        at = entry
            .as_ref()
            .map_or(payload.len(), |entry| entry.at + entry.len);
        Some(entry)
    })
}

fn read_entry(payload: &[u8], at: usize) -> Result<BatchEntry, EntryError> {
    let error = EntryError { at };
    let (header, rest) = EntryHeader::ref_from_prefix(&payload[at..]).map_err(|_| error)?;
    header.kind().ok_or(error)?;
    let batch = rest.get(..header.body_len()).ok_or(error)?;
    let parsed = BatchHeader::parse(batch).map_err(|_| error)?;
    if parsed.total_len() != batch.len() {
        return Err(error);
    }
    let at = at + EntryHeader::LEN;
    Ok(BatchEntry {
        key: header.key(),
        at,
        len: header.body_len(),
        roll: header.is_roll(),
    })
}
