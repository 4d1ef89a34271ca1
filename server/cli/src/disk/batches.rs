//! The record batches of a segment.

use crc_fast::{CrcAlgorithm, Digest};
use ringlog_engine::batch::header::CRC_START;
use ringlog_engine::batch::{BatchError, BatchHeader, HEADER_LEN};
use zerocopy::FromBytes;

use super::source::Source;

/// What lies at a place of a segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// A batch.
    Batch(Batch),
    /// Something that is no batch; what follows cannot be told.
    Unreadable {
        /// Where.
        at: u64,
        /// Bytes from there to the end.
        bytes: u64,
        /// Why.
        why: BatchError,
    },
}

/// A batch by its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    /// Where it begins, bytes.
    pub(crate) at: u64,
    pub(crate) header: BatchHeader,
    /// The checksum of its bytes.
    pub(crate) crc: u32,
}

impl Batch {
    /// Bytes of it.
    pub(crate) fn len(&self) -> u64 {
        self.header.total_len() as u64
    }

    /// Whether its checksum is that of its bytes.
    pub(crate) fn is_intact(&self) -> bool {
        self.crc == self.header.crc.get()
    }

    /// The offset behind it.
    pub(crate) fn next_offset(&self) -> i64 {
        next_offset(&self.header)
    }

    /// The offset of its last record.
    pub(crate) fn last_offset(&self) -> i64 {
        let delta = i64::from(self.header.last_offset_delta.get());
        self.header.base_offset.get().saturating_add(delta)
    }
}

/// The offset behind a batch, whatever its header says.
pub(crate) fn next_offset(header: &BatchHeader) -> i64 {
    let records = i64::from(header.last_offset_delta.get()) + 1;
    header.base_offset.get().saturating_add(records)
}

/// What lies at `at`; `None` at the end.
pub(crate) fn batch_at(source: &mut Source, at: u64) -> Option<Found> {
    let left = source.len().saturating_sub(at);
    if left == 0 {
        return None;
    }
    let unreadable = |why| {
        Some(Found::Unreadable {
            at,
            bytes: left,
            why,
        })
    };
    let short = left.min(HEADER_LEN as u64) as usize;
    let Some(start) = source.bytes(at, short) else {
        // The disk refused; the source knows why.
        return unreadable(BatchError::Truncated {
            have: 0,
            need: HEADER_LEN,
        });
    };
    let header = match BatchHeader::parse(start) {
        // The rest of it is not in these bytes.
        Err(BatchError::Truncated { need, .. }) if need as u64 <= left && short == HEADER_LEN => {
            BatchHeader::read_from_bytes(start).ok()
        }
        Err(BatchError::Truncated { need, .. }) => {
            return unreadable(BatchError::Truncated {
                have: left as usize,
                need,
            });
        }
        Err(why) => return unreadable(why),
        Ok(header) => Some(*header),
    };
    let Some(header) = header else {
        return unreadable(BatchError::Truncated {
            have: short,
            need: HEADER_LEN,
        });
    };
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let body = header.total_len() as u64 - CRC_START as u64;
    if !source.pieces(at + CRC_START as u64, body, |piece| digest.update(piece)) {
        return unreadable(BatchError::Truncated {
            have: left as usize,
            need: header.total_len(),
        });
    }
    Some(Found::Batch(Batch {
        at,
        header,
        crc: digest.finalize() as u32,
    }))
}
