//! Building a whole record batch, header and CRC included.

use std::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};

use super::codec::{self, CodecError};
use super::header::{
    ATTR_CONTROL, ATTR_TRANSACTIONAL, BatchHeader, CRC_START, Compression, HEADER_LEN,
    LOG_OVERHEAD, MAGIC_V2,
};
use super::varint::{varint_len, write_varint};
use crate::checksum::crc32c;

/// A record to append to a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Header names and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Collects records and makes a batch of them. Records are encoded as they come, behind the space for the header, so
/// that an uncompressed batch is finished in place. The first record's timestamp is the batch's base timestamp.
///
/// Callers keep a batch below 2 GiB: the format's length field has 31 bits.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Header space, then the encoded records.
    buffer: Vec<u8>,
    base_offset: i64,
    leader_epoch: i32,
    attributes: i16,
    compression: Compression,
    level: Option<i32>,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch: base offset 0, leader epoch -1, not idempotent, uncompressed.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; HEADER_LEN],
            base_offset: 0,
            leader_epoch: -1,
            attributes: 0,
            compression: Compression::None,
            level: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
        }
    }

    /// Reserves room for `bytes` more bytes of encoded records.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.buffer.reserve(bytes);
        self
    }

    /// Sets the offset of the first record; producers leave 0.
    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.base_offset = offset;
        self
    }

    /// Sets the partition leader epoch; producers leave -1.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// Sets the codec of the record body.
    #[must_use]
    pub fn compression(mut self, codec: Compression) -> Self {
        self.compression = codec;
        self
    }

    /// Sets the codec's level; without it the codec's default holds.
    #[must_use]
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Makes the batch one of an idempotent producer.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets or clears the transactional bit.
    #[must_use]
    pub fn transactional(mut self, on: bool) -> Self {
        self.set(ATTR_TRANSACTIONAL, on);
        self
    }

    /// Sets or clears the control bit.
    #[must_use]
    pub fn control(mut self, on: bool) -> Self {
        self.set(ATTR_CONTROL, on);
        self
    }

    fn set(&mut self, bit: i16, on: bool) {
        self.attributes = if on {
            self.attributes | bit
        } else {
            self.attributes & !bit
        };
    }

    /// Number of records so far.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.count as usize
    }

    /// Length in bytes the batch would have without compression.
    #[must_use]
    pub fn uncompressed_len(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a record. Returns where its value will lie in the batch if it is built without compression (empty for
    /// a tombstone), so that a caller may patch it.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Range<usize> {
        let NewRecord {
            timestamp_ms,
            key,
            value,
            headers,
        } = *record;
        let (timestamp_delta, offset_delta) = self.deltas(timestamp_ms);
        let body_len = 1
            + varint_len(timestamp_delta)
            + varint_len(offset_delta)
            + bytes_len(key)
            + bytes_len(value)
            + varint_len(headers.len() as i64)
            + headers
                .iter()
                .map(|&(name, value)| bytes_len(Some(name.as_bytes())) + bytes_len(value))
                .sum::<usize>();
        let out = &mut self.buffer;
        out.reserve(body_len + varint_len(body_len as i64));
        write_varint(out, body_len as i64);
        out.push(0);
        write_varint(out, timestamp_delta);
        write_varint(out, offset_delta);
        write_bytes(out, key);
        write_bytes(out, value);
        let end = out.len();
        write_varint(out, headers.len() as i64);
        for &(name, value) in headers {
            write_bytes(out, Some(name.as_bytes()));
            write_bytes(out, value);
        }
        end - value.map_or(0, <[u8]>::len)..end
    }

    /// Appends records without keys and headers that share a timestamp: the quick way to a large batch.
    pub fn push_values<'a>(
        &mut self,
        timestamp_ms: i64,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut head = Vec::with_capacity(32);
        for value in values {
            let (timestamp_delta, offset_delta) = self.deltas(timestamp_ms);
            head.clear();
            head.push(0);
            write_varint(&mut head, timestamp_delta);
            write_varint(&mut head, offset_delta);
            write_varint(&mut head, -1);
            write_varint(&mut head, value.len() as i64);
            write_varint(&mut self.buffer, (head.len() + value.len() + 1) as i64);
            self.buffer.extend_from_slice(&head);
            self.buffer.extend_from_slice(value);
            self.buffer.push(0);
        }
    }

    /// Counts one record more and returns its timestamp and offset delta.
    fn deltas(&mut self, timestamp_ms: i64) -> (i64, i64) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let offset_delta = i64::from(self.count);
        self.count += 1;
        (
            timestamp_ms.wrapping_sub(self.base_timestamp_ms),
            offset_delta,
        )
    }

    /// Makes the batch.
    ///
    /// # Errors
    /// [`CodecError`] if the codec refuses.
    pub fn build(mut self) -> Result<Vec<u8>, CodecError> {
        if self.compression == Compression::None {
            let mut batch = std::mem::take(&mut self.buffer);
            self.finish(&mut batch);
            return Ok(batch);
        }
        let mut batch = Vec::with_capacity(HEADER_LEN + self.buffer.len() / 2);
        self.build_into(&mut batch)?;
        Ok(batch)
    }

    /// Appends the batch to `out` and leaves the builder as it is.
    ///
    /// # Errors
    /// [`CodecError`] if the codec refuses; `out` is then as before.
    pub fn build_into(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        out.resize(start + HEADER_LEN, 0);
        if let Err(error) = codec::compress(
            self.compression,
            self.level,
            &self.buffer[HEADER_LEN..],
            out,
        ) {
            out.truncate(start);
            return Err(error);
        }
        self.finish(&mut out[start..]);
        Ok(())
    }

    /// Empties the batch; settings stay.
    pub fn clear(&mut self) {
        self.buffer.truncate(HEADER_LEN);
        self.count = 0;
        self.base_timestamp_ms = -1;
        self.max_timestamp_ms = -1;
    }

    /// Writes the header in front of the body.
    fn finish(&self, batch: &mut [u8]) {
        let mut header = BatchHeader {
            base_offset: I64::new(self.base_offset),
            batch_length: I32::new((batch.len() - LOG_OVERHEAD) as i32),
            partition_leader_epoch: I32::new(self.leader_epoch),
            magic: MAGIC_V2,
            crc: U32::new(0),
            attributes: I16::new(self.attributes | self.compression as i16),
            last_offset_delta: I32::new(self.count - 1),
            base_timestamp: I64::new(self.base_timestamp_ms),
            max_timestamp: I64::new(self.max_timestamp_ms),
            producer_id: I64::new(self.producer_id),
            producer_epoch: I16::new(self.producer_epoch),
            base_sequence: I32::new(self.base_sequence),
            record_count: I32::new(self.count),
        };
        batch[..HEADER_LEN].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c(&batch[CRC_START..]));
        batch[..HEADER_LEN].copy_from_slice(header.as_bytes());
    }
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint_len(-1), |bytes| {
        varint_len(bytes.len() as i64) + bytes.len()
    })
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varint(out, -1),
        Some(bytes) => {
            write_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Records, body};
    use proptest::prelude::*;

    #[test]
    fn fields_land_where_they_belong() {
        let mut builder = BatchBuilder::new()
            .base_offset(1000)
            .leader_epoch(3)
            .producer(7, 2, 41)
            .transactional(true)
            .control(true);
        builder.push(&NewRecord {
            timestamp_ms: 500,
            value: Some(b"a"),
            ..NewRecord::default()
        });
        builder.push(&NewRecord {
            timestamp_ms: 900,
            ..NewRecord::default()
        });
        builder.push(&NewRecord {
            timestamp_ms: 100,
            ..NewRecord::default()
        });
        let batch = builder.build().unwrap();
        let header = BatchHeader::validate(&batch).unwrap();
        assert_eq!(header.base_offset.get(), 1000);
        assert_eq!(header.last_offset(), 1002);
        assert_eq!(header.partition_leader_epoch.get(), 3);
        assert_eq!(header.base_timestamp.get(), 500);
        assert_eq!(header.max_timestamp.get(), 900);
        assert_eq!(
            (
                header.producer_id.get(),
                header.producer_epoch.get(),
                header.base_sequence.get()
            ),
            (7, 2, 41)
        );
        assert!(header.is_transactional() && header.is_control() && header.is_idempotent());
        let deltas: Vec<_> = Records::new(&batch[HEADER_LEN..], 3)
            .map(|record| record.unwrap().timestamp_delta)
            .collect();
        assert_eq!(deltas, [0, 400, -400]);
    }

    #[test]
    fn the_range_returned_is_the_value() {
        let mut builder = BatchBuilder::new();
        let first = builder.push(&NewRecord {
            value: Some(b"first"),
            ..NewRecord::default()
        });
        let none = builder.push(&NewRecord {
            key: Some(b"key"),
            ..NewRecord::default()
        });
        let last = builder.push(&NewRecord {
            value: Some(b"last"),
            headers: &[("name", Some(b"value"))],
            ..NewRecord::default()
        });
        let batch = builder.build().unwrap();
        assert_eq!(
            (&batch[first], &batch[none], &batch[last]),
            (&b"first"[..], &b""[..], &b"last"[..])
        );
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            records in prop::collection::vec(
                (
                    0i64..1 << 40,
                    prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
                    prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
                    prop::collection::vec(("[a-z]{0,5}", prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..3),
                ),
                1..30,
            ),
            codec in 0i16..5,
        ) {
            let mut builder =
                BatchBuilder::new().compression(Compression::from_attributes(codec).unwrap());
            for (timestamp_ms, key, value, headers) in &records {
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
                builder.push(&NewRecord {
                    timestamp_ms: *timestamp_ms,
                    key: key.as_deref(),
                    value: value.as_deref(),
                    headers: &headers,
                });
            }
            let mut appended = b"before".to_vec();
            builder.build_into(&mut appended).unwrap();
            let batch = builder.build().unwrap();
            prop_assert_eq!(&appended[6..], &batch[..]);
            let header = BatchHeader::validate(&batch).unwrap();
            let mut scratch = Vec::new();
            let read: Vec<_> =
                body(&batch, 1 << 20, &mut scratch).unwrap().map(|record| record.unwrap()).collect();
            prop_assert_eq!(read.len(), records.len());
            for (index, (read, (timestamp_ms, key, value, headers))) in
                read.into_iter().zip(&records).enumerate()
            {
                prop_assert_eq!(read.offset_delta, index as i32);
                prop_assert_eq!(header.base_timestamp.get() + read.timestamp_delta, *timestamp_ms);
                prop_assert_eq!(read.key, key.as_deref());
                prop_assert_eq!(read.value, value.as_deref());
                prop_assert_eq!(read.headers.len(), headers.len());
                for (read, (name, value)) in read.headers.zip(headers) {
                    prop_assert_eq!(read.key, name.as_bytes());
                    prop_assert_eq!(read.value, value.as_deref());
                }
            }
        }

        #[test]
        fn the_quick_way_makes_the_same_batch(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..200),
        ) {
            let mut quick = BatchBuilder::new();
            quick.push_values(5, values.iter().map(Vec::as_slice));
            let mut slow = BatchBuilder::new();
            for value in &values {
                slow.push(&NewRecord { timestamp_ms: 5, value: Some(value), ..NewRecord::default() });
            }
            prop_assert_eq!(quick.build().unwrap(), slow.build().unwrap());
        }
    }
}
