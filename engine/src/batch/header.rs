//! The 61-byte header of a record batch: reading, checking, and the two fields a broker rewrites.

use thiserror::Error;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;

/// Length of the batch header in bytes, up to and including the record count.
pub const HEADER_LEN: usize = size_of::<BatchHeader>();
/// Bytes before the `batch_length` field's own count begins: base offset (8) and batch length (4).
pub const LOG_OVERHEAD: usize = 12;
/// Where the range covered by the CRC starts: the attributes field.
pub const CRC_START: usize = 21;
/// The only magic value Kafka 4.x brokers accept.
pub const MAGIC_V2: i8 = 2;

/// Attribute bits 0..=2: the compression codec.
pub const ATTR_COMPRESSION: i16 = 0x07;
/// Attribute bit 3: the timestamps were set by the broker (`LogAppendTime`).
pub const ATTR_LOG_APPEND_TIME: i16 = 0x08;
/// Attribute bit 4: the batch belongs to a transaction.
pub const ATTR_TRANSACTIONAL: i16 = 0x10;
/// Attribute bit 5: the batch is a control batch (a transaction marker).
pub const ATTR_CONTROL: i16 = 0x20;
/// Attribute bit 6: the base timestamp is the delete horizon of the batch's tombstones, or of the marker (KIP-534).
pub const ATTR_DELETE_HORIZON: i16 = 0x40;

/// The header as it lies on the wire and on disk, big-endian, unaligned.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    /// Offset of the first record; outside the CRC, the broker assigns it.
    pub base_offset: I64,
    /// Bytes that follow this field.
    pub batch_length: I32,
    /// Epoch of the leader that appended; outside the CRC, the broker assigns it.
    pub partition_leader_epoch: I32,
    /// Format version, 2.
    pub magic: i8,
    /// CRC-32C of everything from `attributes` to the end of the batch.
    pub crc: U32,
    /// Codec, timestamp type, transactional and control bits.
    pub attributes: I16,
    /// Offset of the last record relative to `base_offset`.
    pub last_offset_delta: I32,
    /// Timestamp of the first record, milliseconds since 1970.
    pub base_timestamp: I64,
    /// Largest timestamp in the batch, milliseconds since 1970.
    pub max_timestamp: I64,
    /// Producer id, or -1 for a producer that is not idempotent.
    pub producer_id: I64,
    /// Epoch of the producer id, or -1.
    pub producer_epoch: I16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: I32,
    /// Number of records.
    pub record_count: I32,
}

const _: () = assert!(size_of::<BatchHeader>() == 61);

/// Compression codec of a batch, attribute bits 0..=2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Records follow as they are.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy, in the framing of the Java library (xerial) or raw.
    Snappy = 2,
    /// LZ4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Compression {
    /// Every codec, by its bits.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of attribute bits 0..=2, or `None` for a value Kafka does not define.
    #[must_use]
    pub fn from_attributes(attributes: i16) -> Option<Self> {
        Some(match attributes & ATTR_COMPRESSION {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }
}

/// Why a byte string is not exactly one acceptable record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header's length announces.
    #[error("record batch is cut short: {have} bytes, {need} needed")]
    Truncated {
        /// Bytes present.
        have: usize,
        /// Bytes the header needs or announces.
        need: usize,
    },
    /// Bytes follow the first batch: Kafka accepts exactly one batch per partition.
    #[error("{extra} bytes follow the record batch")]
    Trailing {
        /// Bytes after the batch.
        extra: usize,
    },
    /// A message format older or newer than version 2.
    #[error("record batch has magic {0}, only 2 is supported")]
    Magic(i8),
    /// The checksum does not match the bytes.
    #[error("record batch checksum {computed:#010x} does not match its header's {stored:#010x}")]
    Crc {
        /// As in the header.
        stored: u32,
        /// Of the bytes received.
        computed: u32,
    },
    /// `record_count` and `last_offset_delta` disagree, or the count is not positive.
    #[error("record batch announces {count} records and last offset delta {last_offset_delta}")]
    Count {
        /// As in the header.
        count: i32,
        /// As in the header.
        last_offset_delta: i32,
    },
    /// Codec bits that Kafka does not define.
    #[error("record batch has unknown compression codec {0}")]
    Codec(i16),
    /// A negative or too small batch length.
    #[error("record batch has length field {0}")]
    Length(i32),
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; nothing but its presence is checked.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Reads and checks the header of the batch that starts `bytes`, which may be followed by others. Checks
    /// length, magic and completeness, not the checksum.
    ///
    /// # Errors
    /// [`BatchError`] names the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<&Self, BatchError> {
        let Some(header) = Self::read(bytes) else {
            // Magic sits at the same place in every format version: a short old message is told as such.
            if let Some(&magic) = bytes.get(16)
                && magic as i8 != MAGIC_V2
            {
                return Err(BatchError::Magic(magic as i8));
            }
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: HEADER_LEN,
            });
        };
        if header.magic != MAGIC_V2 {
            return Err(BatchError::Magic(header.magic));
        }
        let length = header.batch_length.get();
        if length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::Length(length));
        }
        if bytes.len() < header.total_len() {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: header.total_len(),
            });
        }
        Ok(header)
    }

    /// Checks that `bytes` is exactly one batch a producer may send: length, magic, codec, count, CRC.
    ///
    /// # Errors
    /// [`BatchError`] names the first thing that is wrong.
    pub fn validate(bytes: &[u8]) -> Result<&Self, BatchError> {
        let header = Self::parse(bytes)?;
        let (bytes, behind) = bytes.split_at(header.total_len());
        let trailing = BatchError::Trailing {
            extra: behind.len(),
        };
        if Self::parse(behind).is_ok() {
            return Err(trailing);
        }
        let computed = crc32c(&bytes[CRC_START..]);
        if computed != header.crc.get() {
            return Err(BatchError::Crc {
                stored: header.crc.get(),
                computed,
            });
        }
        // Bytes that are no batch count only behind a good one: a length that is too small is damage, not order.
        if !behind.is_empty() {
            return Err(trailing);
        }
        let attributes = header.attributes.get();
        if Compression::from_attributes(attributes).is_none() {
            return Err(BatchError::Codec(attributes & ATTR_COMPRESSION));
        }
        let (count, last) = (header.record_count.get(), header.last_offset_delta.get());
        if count <= 0 || last != count - 1 {
            return Err(BatchError::Count {
                count,
                last_offset_delta: last,
            });
        }
        Ok(header)
    }

    /// Length in bytes of the whole batch, header included. Meaningful after [`BatchHeader::parse`].
    #[must_use]
    pub fn total_len(&self) -> usize {
        LOG_OVERHEAD + self.batch_length.get().max(0) as usize
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.get() + i64::from(self.last_offset_delta.get())
    }

    /// Offset of the record after the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Whether the batch comes from an idempotent producer.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.producer_id.get() >= 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & ATTR_TRANSACTIONAL != 0
    }

    /// When the batch's tombstones, or the marker it is, may go, milliseconds since 1970; set by the first cleaning
    /// that meets them.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        let is_set = self.attributes.get() & ATTR_DELETE_HORIZON != 0;
        is_set.then(|| self.base_timestamp.get())
    }

    /// Whether the batch is a control batch.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes.get() & ATTR_CONTROL != 0
    }
}

/// Writes the two fields a broker owns into a stored batch; both lie outside the CRC.
///
/// # Panics
/// If `batch` is shorter than a header: callers pass what [`BatchHeader::validate`] accepted.
pub fn assign(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}
