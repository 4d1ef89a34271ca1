//! Kafka's record batch, version 2 (magic 2): the unit that is produced, journalled, stored and fetched.
//!
//! Source of the layout: the Apache Kafka documentation, section "Record Batch", and KIP-98.

pub mod builder;
pub mod codec;
pub mod header;
pub mod inspect;
pub mod marker;
pub mod records;
pub mod varint;

pub use builder::{BatchBuilder, NewRecord};
pub use codec::CodecError;
pub use header::{BatchError, BatchHeader, Compression, HEADER_LEN};
pub use inspect::{Inspection, TimeWindow, inspect};
pub use marker::Marker;
pub use records::{Header, Headers, Record, RecordError, Records};

use thiserror::Error;

/// Why the records of a batch cannot be reached.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The header is wrong or the batch is cut short.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The body does not decompress, or to too much.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The records of the batch that starts `batch`, which may be followed by others. A compressed body is decompressed
/// into `scratch` (emptied first), at most `max_len` bytes; an uncompressed one is read where it lies.
///
/// # Errors
/// [`BodyError`]; the checksum is not looked at.
pub fn body<'a>(
    batch: &'a [u8],
    max_len: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<Records<'a>, BodyError> {
    let header = BatchHeader::parse(batch)?;
    let bytes = &batch[HEADER_LEN..header.total_len()];
    let attributes = header.attributes.get();
    let codec = Compression::from_attributes(attributes)
        .ok_or(BatchError::Codec(attributes & header::ATTR_COMPRESSION))?;
    let bytes = match codec {
        Compression::None => bytes,
        codec => {
            scratch.clear();
            codec::decompress(codec, bytes, max_len, scratch)?;
            scratch.as_slice()
        }
    };
    Ok(Records::new(bytes, header.record_count.get()))
}
