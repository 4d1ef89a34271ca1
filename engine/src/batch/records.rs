//! Reading the records of an uncompressed record body, without allocating.
//!
//! Source of the layout: the Apache Kafka documentation, section "Record".

use thiserror::Error;

use super::varint::{read_varint, read_varlong};

/// Fewest bytes a record takes: one each for length, attributes, both deltas, key and value length and header count.
pub const RECORD_LEN_MIN: usize = 7;

/// One record; key, value and headers borrow from the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused by the format so far, kept as sent.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp; may be negative.
    pub timestamp_delta: i64,
    /// Offset after the batch's base offset.
    pub offset_delta: i32,
    /// Key bytes, or `None` for a record without one.
    pub key: Option<&'a [u8]>,
    /// Value bytes, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, already checked.
    pub headers: Headers<'a>,
}

/// Why the bytes are not the records that were announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The body ends inside a record or before the announced count is reached.
    #[error("record {index}: the record body ends early")]
    Truncated {
        /// Which record, counted from 0.
        index: u32,
    },
    /// A varint is cut off or too long, or a length is negative or larger than its record.
    #[error("record {index}: {field} is malformed")]
    Field {
        /// Which record, counted from 0.
        index: u32,
        /// The field's name in the format.
        field: &'static str,
    },
    /// Bytes are left inside a record after its last field.
    #[error("record {index}: {extra} bytes follow its last field")]
    RecordTrailing {
        /// Which record, counted from 0.
        index: u32,
        /// Bytes left.
        extra: usize,
    },
    /// Bytes follow the last announced record.
    #[error("{extra} bytes follow the last record")]
    BodyTrailing {
        /// Bytes left.
        extra: usize,
    },
}

/// Iterator over the records of an uncompressed body. It ends after the announced count, or after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: u32,
    count: u32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Reads `count` records from `body`; a negative count is read as 0, so that any byte left over is an error.
    #[must_use]
    pub fn new(body: &'a [u8], count: i32) -> Self {
        Self {
            rest: body,
            index: 0,
            count: count.max(0) as u32,
            failed: false,
        }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Reads everything: how many records there are, with offset deltas 0, 1, 2 and so on.
    ///
    /// # Errors
    /// The first thing that is wrong, as the iterator says it, or an offset delta out of turn.
    pub fn check(self) -> Result<u32, RecordError> {
        let mut index = 0;
        for record in self {
            if record?.offset_delta != index as i32 {
                return Err(RecordError::Field {
                    index,
                    field: "offset delta",
                });
            }
            index += 1;
        }
        Ok(index)
    }

    /// As the iterator, for those who want to know only when a record was made and whether it has a key: quicker where
    /// records have no headers and usual lengths.
    #[inline]
    pub(super) fn skim(&mut self) -> Option<Result<Skimmed, RecordError>> {
        if !self.failed
            && self.index < self.count
            && let Some((skimmed, len)) = skim_short(self.rest)
        {
            self.rest = &self.rest[len..];
            self.index += 1;
            return Some(Ok(skimmed));
        }
        self.next().map(|record| {
            record.map(|record| Skimmed {
                timestamp_delta: record.timestamp_delta,
                has_key: record.key.is_some(),
            })
        })
    }

    #[inline]
    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let index = self.index;
        let field = |field| RecordError::Field { index, field };
        if self.rest.is_empty() {
            return Err(RecordError::Truncated { index });
        }
        let (length, rest) = read_varint(self.rest).ok_or(field("length"))?;
        let length = usize::try_from(length).map_err(|_| field("length"))?;
        if length > rest.len() {
            return Err(RecordError::Truncated { index });
        }
        let (record, rest) = rest.split_at(length);
        self.rest = rest;

        let (&attributes, record) = record.split_first().ok_or(field("attributes"))?;
        let (timestamp_delta, record) = read_varlong(record).ok_or(field("timestamp delta"))?;
        let (offset_delta, record) = read_varint(record).ok_or(field("offset delta"))?;
        let (key, record) = read_bytes(record).ok_or(field("key"))?;
        let (value, record) = read_bytes(record).ok_or(field("value"))?;
        let (header_count, record) = read_varint(record).ok_or(field("header count"))?;
        let headers = Headers {
            rest: record,
            count: u32::try_from(header_count).map_err(|_| field("header count"))?,
        };
        let record = headers.skip_all().ok_or(field("headers"))?;
        if !record.is_empty() {
            return Err(RecordError::RecordTrailing {
                index,
                extra: record.len(),
            });
        }
        Ok(Record {
            attributes: attributes as i8,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

/// What [`Records::skim`] tells of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skimmed {
    pub(super) timestamp_delta: i64,
    pub(super) has_key: bool,
}

/// Reads a good record without headers whose lengths and deltas take at most two bytes each, and its length with its
/// own length field; `None` for every other.
#[inline]
fn skim_short(bytes: &[u8]) -> Option<(Skimmed, usize)> {
    let (length, start) = short_varint(bytes, 0)?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let record = bytes.get(..end)?;
    // The attributes take one byte.
    let (timestamp_delta, at) = short_varint(record, start + 1)?;
    let (_, at) = short_varint(record, at)?;
    let (key_len, at) = short_varint(record, at)?;
    let (value_len, at) = short_varint(record, at + key_len.max(0) as usize)?;
    let at = at + value_len.max(0) as usize;
    // No headers, and the end.
    if at + 1 != end || record[at] != 0 {
        return None;
    }
    let skimmed = Skimmed {
        timestamp_delta: i64::from(timestamp_delta),
        has_key: key_len >= 0,
    };
    Some((skimmed, end))
}

/// A varint of one or two bytes at `at`, and where it ends.
#[inline]
fn short_varint(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    let first = *bytes.get(at)?;
    let (raw, end) = if first < 0x80 {
        (u32::from(first), at + 1)
    } else {
        let second = *bytes.get(at + 1)?;
        if second >= 0x80 {
            return None;
        }
        (u32::from(first & 0x7f) | u32::from(second) << 7, at + 2)
    };
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), end))
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.failed = true;
            return Some(Err(RecordError::BodyTrailing {
                extra: self.rest.len(),
            }));
        }
        let record = self.read();
        self.failed = record.is_err();
        self.index += 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count comes from the wire: what the bytes can hold bounds it. One more for a trailing error.
        let fit = self.rest.len() / RECORD_LEN_MIN;
        (
            0,
            Some(
                fit.min((self.count - self.index) as usize)
                    .saturating_add(1),
            ),
        )
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name; UTF-8 by convention, not checked.
    pub key: &'a [u8],
    /// Value, which may be absent.
    pub value: Option<&'a [u8]>,
}

/// Iterator over a record's headers, which were checked when the record was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: u32,
}

impl<'a> Headers<'a> {
    /// Number of headers left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes after the last header, or `None` if one is malformed. Ends at the latest when the bytes do.
    #[inline]
    fn skip_all(&self) -> Option<&'a [u8]> {
        let mut rest = self.rest;
        for _ in 0..self.count {
            rest = read_header(rest)?.1;
        }
        Some(rest)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let (header, rest) = read_header(self.rest)?;
        self.rest = rest;
        Some(header)
    }
}

fn read_header(bytes: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let (key, bytes) = read_bytes(bytes)?;
    let (value, bytes) = read_bytes(bytes)?;
    Some((Header { key: key?, value }, bytes))
}

/// A varint length and that many bytes; any negative length means absent, as Java's reader has it.
#[inline]
fn read_bytes(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = read_varint(bytes)?;
    let Ok(length) = usize::try_from(length) else {
        return Some((None, rest));
    };
    let (data, rest) = rest.split_at_checked(length)?;
    Some((Some(data), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchHeader, HEADER_LEN, NewRecord};
    use proptest::prelude::*;

    /// Attributes 0, timestamp delta 3, offset delta 0, key "k", value "vv", one header "h" without a value.
    const RECORD: [u8; 12] = [0x16, 0, 6, 0, 2, b'k', 4, b'v', b'v', 2, 2, b'h'];

    fn one_record() -> Vec<u8> {
        let mut bytes = RECORD.to_vec();
        bytes.push(1);
        bytes[0] = 2 * (bytes.len() as u8 - 1);
        bytes
    }

    #[test]
    fn a_record_laid_out_by_hand() {
        let body = one_record();
        let mut records = Records::new(&body, 1);
        let record = records.next().unwrap().unwrap();
        assert_eq!(record.timestamp_delta, 3);
        assert_eq!(record.offset_delta, 0);
        assert_eq!(record.key, Some(&b"k"[..]));
        assert_eq!(record.value, Some(&b"vv"[..]));
        let headers: Vec<_> = record.headers.collect();
        assert_eq!(
            headers,
            [Header {
                key: b"h",
                value: None
            }]
        );
        assert!(records.next().is_none());
    }

    #[test]
    fn counts_that_lie() {
        let body = one_record();
        assert_eq!(
            Records::new(&body, 2).check(),
            Err(RecordError::Truncated { index: 1 })
        );
        assert_eq!(
            Records::new(&body, 0).check(),
            Err(RecordError::BodyTrailing { extra: body.len() })
        );
        assert_eq!(
            Records::new(&body, i32::MIN).check(),
            Err(RecordError::BodyTrailing { extra: body.len() })
        );
    }

    #[test]
    fn every_shortened_record_is_an_error() {
        let body = one_record();
        for length in 0..body.len() {
            assert!(
                Records::new(&body[..length], 1).check().is_err(),
                "{length} bytes"
            );
        }
        // The same with a length field that agrees: now a field inside is cut.
        for length in 1..body.len() {
            let mut cut = body[..length].to_vec();
            cut[0] = 2 * (length as u8 - 1);
            assert!(
                matches!(
                    Records::new(&cut, 1).check(),
                    Err(RecordError::Field { .. })
                ),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_header_without_a_key_and_a_longer_record_are_errors() {
        let mut body = one_record();
        body[10] = 1;
        assert_eq!(
            Records::new(&body, 1).check(),
            Err(RecordError::Field {
                index: 0,
                field: "headers"
            })
        );
        let mut body = one_record();
        body.push(0);
        body[0] += 2;
        assert_eq!(
            Records::new(&body, 1).check(),
            Err(RecordError::RecordTrailing { index: 0, extra: 1 })
        );
    }

    fn walk(body: &[u8], count: i32) -> usize {
        let mut seen = 0;
        let records = Records::new(body, count);
        let most = records.size_hint().1.unwrap();
        for record in records {
            seen += 1;
            if let Ok(record) = record {
                let expected = record.headers.len();
                assert_eq!(record.headers.count(), expected);
            }
        }
        assert!(seen <= most);
        seen
    }

    proptest! {
        #[test]
        fn skimming_sees_what_reading_sees(bytes in proptest::collection::vec(0u8..40, 0..60), count in 0i32..6) {
            let mut skimmed = Records::new(&bytes, count);
            let mut read = Records::new(&bytes, count);
            loop {
                let (quick, slow) = (skimmed.skim(), read.next());
                let slow = slow.map(|r| r.map(|r| Skimmed {
                    timestamp_delta: r.timestamp_delta,
                    has_key: r.key.is_some(),
                }));
                prop_assert_eq!(&quick, &slow);
                prop_assert_eq!(skimmed.remaining_bytes(), read.remaining_bytes());
                if quick.is_none() { break; }
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(body: Vec<u8>, count: i32) {
            let seen = walk(&body, count);
            prop_assert!(seen <= body.len() / RECORD_LEN_MIN + 1);
        }

        #[test]
        fn mutated_batches_never_panic(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut: prop::sample::Index,
        ) {
            let mut builder = BatchBuilder::new();
            for (index, value) in values.iter().enumerate() {
                builder.push(&NewRecord {
                    timestamp_ms: index as i64,
                    key: (index % 2 == 0).then_some(&b"key"[..]),
                    value: Some(value),
                    headers: &[("a", Some(value)), ("b", None)],
                });
            }
            let batch = builder.build().unwrap();
            let count = BatchHeader::validate(&batch).unwrap().record_count.get();
            let mut body = batch[HEADER_LEN..].to_vec();
            prop_assert_eq!(Records::new(&body, count).check(), Ok(count as u32));
            for (at, byte) in edits {
                let at = at.index(body.len());
                body[at] = byte;
            }
            walk(&body, count);
            let cut = cut.index(body.len());
            walk(&body[..cut], count);
            prop_assert!(Records::new(&body[..cut], count).check().is_err());
        }
    }
}
