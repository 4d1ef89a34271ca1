//! Batches made once and sent many times. What changes from send to send (time, producer, sequence) lies in the
//! header, whose part of the checksum is recomputed alone; only batches with stamps, or with more keys than there are
//! records, are copied and patched inside.

mod ring;
mod shift;

use std::io;
use std::sync::Arc;

use ringlog_engine::batch::header::ATTR_TRANSACTIONAL;
use ringlog_engine::batch::{BatchHeader, CodecError, Compression, HEADER_LEN, codec};
use ringlog_engine::checksum::crc32c;
use thiserror::Error;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::payload::{KEY_DIGITS, PayloadError};
use crate::stamp::{STAMP_LEN, Stamp};

pub use ring::TemplateRing;
use shift::CrcShift;

/// Bodies from this size on are sent from a memory file.
pub const SENDFILE_LEN_MIN: usize = 32 << 10;
/// Where the checksum's range starts in a batch.
const CRC_START: usize = ringlog_engine::batch::header::CRC_START;

/// Why there are no templates.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// No payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A batch does not compress.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// No memory file for large bodies.
    #[error("memory file for batches: {0}")]
    MemoryFile(#[from] io::Error),
}

/// What changes from send to send.
#[derive(Debug, Clone, Copy)]
pub struct Send {
    /// Base and largest timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Producer id, epoch and base sequence; -1 each for a producer that is not idempotent.
    pub producer: (i64, i16, i32),
    /// Whether the batch is part of a transaction.
    pub transactional: bool,
}

/// The part of stamps that is the same for a whole batch.
#[derive(Debug, Clone, Copy)]
pub struct StampBatch {
    /// See [`Stamp`].
    pub run_id: u64,
    /// See [`Stamp`].
    pub stream: u32,
    /// See [`Stamp`].
    pub topic: u32,
    /// See [`Stamp`].
    pub partition: u32,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// See [`Stamp`].
    pub sent_unix_ns: u64,
}

/// A batch made once.
#[derive(Debug)]
pub struct Template {
    header: BatchHeader,
    /// Everything after the header, compressed unless something inside changes from send to send.
    body: Vec<u8>,
    body_crc: u32,
    shift: Arc<CrcShift>,
    /// Where stamps start in `body`.
    stamps: Vec<u32>,
    /// Where the digits of keys start in `body`, if there are more keys than records.
    keys: Vec<u32>,
    /// Number of different keys.
    different_keys: u32,
    /// Number of records.
    pub records: u32,
    /// Bytes of the records' values.
    pub value_bytes: u64,
    /// Bytes of the body before compression.
    pub uncompressed_len: usize,
    /// Where `body` begins in [`TemplateRing::bodies`].
    file_offset: u64,
}

impl Template {
    /// Where the body begins in [`TemplateRing::bodies`].
    #[must_use]
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// Everything after the header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Length of the batch in bytes, header included.
    #[must_use]
    pub fn batch_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Appends the batch's header, right for `send` and the body as it stands.
    pub fn put_header(&self, out: &mut Vec<u8>, send: Send) {
        let mut header = self.header;
        patch(&mut header, send);
        let front = crc32c(&header.as_bytes()[CRC_START..]);
        header.crc = U32::new(self.shift.apply(front) ^ self.body_crc);
        out.extend_from_slice(header.as_bytes());
    }

    /// Whether every send has the same body.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.stamps.is_empty() && self.keys.is_empty()
    }

    /// Appends the whole batch with its stamps and keys filled in.
    ///
    /// # Errors
    /// If the codec refuses.
    pub fn put_filled(
        &self,
        out: &mut Vec<u8>,
        send: Send,
        stamp: &StampBatch,
        codec: Compression,
        scratch: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let start = out.len();
        let mut header = self.header;
        patch(&mut header, send);
        out.extend_from_slice(header.as_bytes());
        if codec == Compression::None {
            let at = out.len();
            out.extend_from_slice(&self.body);
            self.fill(&mut out[at..], stamp);
        } else {
            scratch.clear();
            scratch.extend_from_slice(&self.body);
            self.fill(scratch, stamp);
            codec::compress(codec, None, scratch, out)?;
            header.batch_length = ((out.len() - start - 12) as i32).into();
        }
        let front = header.as_bytes().len();
        out[start..start + front].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c(&out[start + CRC_START..]));
        out[start..start + front].copy_from_slice(header.as_bytes());
        Ok(())
    }

    fn fill(&self, body: &mut [u8], batch: &StampBatch) {
        for (sequence, &at) in (batch.first_sequence..).zip(&self.keys) {
            let mut number = sequence % u64::from(self.different_keys);
            for digit in body[at as usize..][..KEY_DIGITS].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        for (index, &at) in self.stamps.iter().enumerate() {
            let at = at as usize;
            let Ok(stamp) = Stamp::mut_from_bytes(&mut body[at..at + STAMP_LEN]) else {
                unreachable!("a stamp has no alignment and the range has its length");
            };
            stamp.run_id = U64::new(batch.run_id);
            stamp.stream = U32::new(batch.stream);
            stamp.topic = U32::new(batch.topic);
            stamp.partition = U32::new(batch.partition);
            stamp.sequence = U64::new(batch.first_sequence + index as u64);
            stamp.sent_unix_ns = U64::new(batch.sent_unix_ns);
        }
    }
}

fn patch(header: &mut BatchHeader, send: Send) {
    header.base_timestamp = send.timestamp_ms.into();
    header.max_timestamp = send.timestamp_ms.into();
    header.producer_id = send.producer.0.into();
    header.producer_epoch = send.producer.1.into();
    header.base_sequence = send.producer.2.into();
    if send.transactional {
        header.attributes = (header.attributes.get() | ATTR_TRANSACTIONAL).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{BatchSize, PayloadSpec};
    use ringlog_engine::batch::body;

    fn spec() -> PayloadSpec {
        PayloadSpec {
            record_size: 100,
            files: Vec::new(),
            compressibility: 0.5,
            seed: 3,
            keys: 2,
            batch: BatchSize::Records(7),
            stamped: false,
        }
    }

    const SEND: Send = Send {
        transactional: false,
        timestamp_ms: 1_700_000_000_123,
        producer: (9, 1, 70),
    };
    #[test]
    fn patched_headers_have_the_right_checksum() {
        for codec in Compression::ALL {
            let ring = TemplateRing::new(&spec(), codec).unwrap();
            assert_eq!(ring.payloads.len(), 7 * ring.templates.len());
            for (index, template) in ring.templates.iter().enumerate() {
                let mut batch = Vec::new();
                template.put_header(&mut batch, SEND);
                batch.extend_from_slice(template.body());
                assert_eq!(batch.len(), template.batch_len());
                let header = BatchHeader::validate(&batch).unwrap();
                assert_eq!(header.base_timestamp.get(), SEND.timestamp_ms);
                assert_eq!(header.base_sequence.get(), 70);
                assert_eq!(header.record_count.get(), 7);
                let mut scratch = Vec::new();
                for (at, record) in body(&batch, 1 << 20, &mut scratch).unwrap().enumerate() {
                    let record = record.unwrap();
                    assert_eq!(record.value, Some(ring.payload((index * 7 + at) as u64)));
                }
                assert_eq!(template.value_bytes, 700);
            }
        }
    }

    #[test]
    fn stamps_are_filled_in_under_every_codec() {
        let spec = PayloadSpec {
            stamped: true,
            ..spec()
        };
        let stamp = StampBatch {
            run_id: 11,
            stream: 12,
            topic: 13,
            partition: 14,
            first_sequence: 700,
            sent_unix_ns: 15,
        };
        for codec in Compression::ALL {
            let ring = TemplateRing::new(&spec, codec).unwrap();
            let mut batch = b"before".to_vec();
            ring.templates[1]
                .put_filled(&mut batch, SEND, &stamp, codec, &mut Vec::new())
                .unwrap();
            let batch = &batch[6..];
            let header = BatchHeader::validate(batch).unwrap();
            assert_eq!(header.attributes.get(), codec as i16);
            let mut scratch = Vec::new();
            let mut seen = 0;
            for (at, record) in body(batch, 1 << 20, &mut scratch).unwrap().enumerate() {
                let value = record.unwrap().value.unwrap();
                assert_eq!(value.len(), 100);
                let (read, payload) = Stamp::read(value).unwrap();
                assert_eq!(read.sequence.get(), 700 + at as u64);
                assert_eq!((read.run_id.get(), read.stream.get()), (11, 12));
                assert_eq!((read.topic.get(), read.partition.get()), (13, 14));
                assert!(read.covers(payload));
                assert_eq!(payload, ring.payloads[7 + at]);
                seen += 1;
            }
            assert_eq!(seen, 7);
        }
    }

    #[test]
    fn more_keys_than_records_are_filled_in_under_every_codec() {
        let spec = PayloadSpec {
            keys: 1_000_000,
            ..spec()
        };
        let stamp = StampBatch {
            run_id: 0,
            stream: 0,
            topic: 0,
            partition: 0,
            first_sequence: 2_999_997,
            sent_unix_ns: 0,
        };
        for codec in Compression::ALL {
            let ring = TemplateRing::new(&spec, codec).unwrap();
            assert!(ring.templates.iter().all(|template| !template.is_fixed()));
            let mut batch = Vec::new();
            ring.templates[1]
                .put_filled(&mut batch, SEND, &stamp, codec, &mut Vec::new())
                .unwrap();
            BatchHeader::validate(&batch).unwrap();
            let mut scratch = Vec::new();
            let records = body(&batch, 1 << 20, &mut scratch).unwrap();
            let records: Vec<_> = records.map(|record| record.unwrap()).collect();
            let numbers = [999_997, 999_998, 999_999, 0, 1, 2, 3];
            let keys = numbers.map(|number: u32| format!("key-{number:08}"));
            assert!(
                records
                    .iter()
                    .map(|r| r.key.unwrap())
                    .eq(keys.iter().map(String::as_bytes))
            );
            let values = &ring.payloads[7..14];
            assert!(
                records
                    .iter()
                    .map(|r| r.value.unwrap())
                    .eq(values.iter().map(Vec::as_slice))
            );
        }
        let few = TemplateRing::new(&PayloadSpec { keys: 2, ..spec }, Compression::None).unwrap();
        assert!(few.templates.iter().all(Template::is_fixed));
    }

    #[test]
    fn batches_stay_within_their_bytes() {
        for bytes in [200, 1000, 16_384] {
            let spec = PayloadSpec {
                batch: BatchSize::Bytes(bytes),
                keys: 0,
                ..spec()
            };
            let ring = TemplateRing::new(&spec, Compression::None).unwrap();
            for template in &ring.templates {
                assert!(template.batch_len() <= bytes);
                assert!(
                    template.batch_len() > bytes - 110,
                    "{}",
                    template.batch_len()
                );
            }
        }
        let one = PayloadSpec {
            batch: BatchSize::Bytes(1),
            ..spec()
        };
        let ring = TemplateRing::new(&one, Compression::None).unwrap();
        assert!(ring.templates.iter().all(|template| template.records == 1));
    }

    #[test]
    fn a_shift_is_what_appending_does() {
        for length in [0, 1, 57, 4096, 262_144] {
            let tail: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
            let whole = [b"some header".as_slice(), &tail].concat();
            let joined = CrcShift::new(length).apply(crc32c(b"some header")) ^ crc32c(&tail);
            assert_eq!(joined, crc32c(&whole), "{length} bytes");
        }
    }
}
