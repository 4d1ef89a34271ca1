//! One batch on its way through a cleaning pass: dropped, kept as it is, or built anew from what is left of it.

use std::ops::Range;

use zerocopy::IntoBytes;

use super::map::KeyMap;
use super::transactions::CleanTransactions;
use crate::batch::header::{
    ATTR_COMPRESSION, ATTR_DELETE_HORIZON, ATTR_LOG_APPEND_TIME, CRC_START, LOG_OVERHEAD, MAGIC_V2,
};
use crate::batch::varint::{varint_len, write_varint};
use crate::batch::{BatchError, BatchHeader, Compression, HEADER_LEN, Marker, Records, codec};
use crate::checksum::crc32c;

/// Decompressed records of one batch at most, bytes; a batch with more is kept as it is.
const INFLATED_MAX: usize = 128 << 20;
/// Memory for decompressed records that is kept from batch to batch, bytes.
const SCRATCH_KEPT: usize = 4 << 20;

/// What a pass needs to know besides the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
    /// `delete.retention.ms`: tombstones and markers of nothing stay so long after the first pass that met them.
    pub delete_retention_ms: i64,
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaned {
    /// Nothing of it stays.
    Dropped,
    /// It stays as it is, byte by byte.
    Kept,
    /// What stays was appended to the output.
    Rewritten,
}

/// The outcome for one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanedBatch {
    /// What becomes of it.
    pub cleaned: Cleaned,
    /// Records that go.
    pub dropped_records: u64,
}

/// Whole batches in a row of bytes that may end inside one.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// The batches of `bytes`, which begins with one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes behind the last whole batch that was returned.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes that the batch that is not whole needs, as far as is known.
    #[must_use]
    pub fn needed(&self) -> usize {
        BatchHeader::read(self.rest).map_or(HEADER_LEN, BatchHeader::total_len)
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<&'a [u8], BatchError>;

    /// The next whole batch, its checksum verified; `None` when what is left is not whole.
    fn next(&mut self) -> Option<Self::Item> {
        let header = BatchHeader::read(self.rest)?;
        if header.magic != MAGIC_V2 {
            return Some(Err(BatchError::Magic(header.magic)));
        }
        let length = header.batch_length.get();
        if length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Some(Err(BatchError::Length(length)));
        }
        let (batch, rest) = self.rest.split_at_checked(header.total_len())?;
        let (stored, computed) = (header.crc.get(), crc32c(&batch[CRC_START..]));
        if stored != computed {
            return Some(Err(BatchError::Crc { stored, computed }));
        }
        self.rest = rest;
        Some(Ok(batch))
    }
}

/// The records of a batch, decompressed into `scratch` where they have to be; `None` if they cannot be.
fn records_of<'a>(batch: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<Records<'a>> {
    let header = BatchHeader::read(batch)?;
    let body = batch.get(HEADER_LEN..)?;
    let body = match Compression::from_attributes(header.attributes.get())? {
        Compression::None => body,
        // An empty batch has no body, whatever its producer's codec was.
        _ if header.record_count.get() == 0 => body,
        codec => {
            scratch.clear();
            scratch.shrink_to(SCRATCH_KEPT);
            codec::decompress(codec, body, INFLATED_MAX, scratch).ok()?;
            scratch.as_slice()
        }
    };
    Some(Records::new(body, header.record_count.get()))
}

/// Puts the keys of a batch's records from offset `from` on into `map`; false when the map is full, and then it knows
/// how far it came. Records of aborted transactions, and batches that cannot be read, have no keys.
pub fn index_batch(
    map: &mut KeyMap,
    transactions: &mut CleanTransactions,
    batch: &[u8],
    from: i64,
    scratch: &mut Vec<u8>,
) -> bool {
    let Some(header) = BatchHeader::read(batch) else {
        return true;
    };
    if header.is_control() {
        transactions.control(header, Marker::read(batch));
    } else if !transactions.data(header) {
        let base = header.base_offset.get();
        for record in records_of(batch, scratch).into_iter().flatten() {
            // What cannot be read is kept as it is, whatever the map says.
            let Ok(record) = record else { break };
            let offset = base.saturating_add(i64::from(record.offset_delta));
            if let Some(key) = record.key
                && offset >= from
                && !map.put(key, offset)
            {
                return false;
            }
        }
    }
    map.seen_to(header.next_offset());
    true
}

/// A record that stays.
#[derive(Debug)]
struct Retained {
    /// Its bytes, length included, in the decompressed body.
    bytes: Range<usize>,
    timestamp_delta: i64,
}

/// Cleans batch after batch, in the order of their offsets.
#[derive(Debug)]
pub struct Cleaner {
    map: KeyMap,
    policy: Policy,
    transactions: CleanTransactions,
    scratch: Vec<u8>,
    body: Vec<u8>,
    retained: Vec<Retained>,
}

impl Cleaner {
    /// A pass with the keys of `map`; `transactions` are those of the whole log.
    #[must_use]
    pub fn new(map: KeyMap, policy: Policy, transactions: CleanTransactions) -> Self {
        Self {
            map,
            policy,
            transactions,
            scratch: Vec::new(),
            body: Vec::new(),
            retained: Vec::new(),
        }
    }

    /// The keys.
    #[must_use]
    pub fn map(&self) -> &KeyMap {
        &self.map
    }

    /// The pass's transactions.
    pub fn transactions(&mut self) -> &mut CleanTransactions {
        &mut self.transactions
    }

    /// Decides about one batch, whose checksum was verified. `holds_producer` says that it is what is known of its
    /// producer by: such a batch stays, if need be without records. What is built anew is appended to `out`.
    pub fn clean(&mut self, batch: &[u8], holds_producer: bool, out: &mut Vec<u8>) -> CleanedBatch {
        let kept = CleanedBatch {
            cleaned: Cleaned::Kept,
            dropped_records: 0,
        };
        let Some(&header) = BatchHeader::read(batch) else {
            return kept;
        };
        let control = header.is_control();
        let useless = if control {
            self.transactions.control(&header, Marker::read(batch))
        } else {
            self.transactions.data(&header)
        };
        let horizon = header.delete_horizon_ms();
        let past_horizon = horizon.is_some_and(|ms| ms <= self.policy.now_ms);
        let discard = useless && (!control || past_horizon);
        let count = u64::from(header.record_count.get().max(0).unsigned_abs());
        self.retained.clear();
        let mut tombstones = false;
        if !discard {
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = self.select(batch, &mut scratch);
            self.scratch = scratch;
            match read {
                Some(found) => tombstones = found,
                // Only whoever cannot be read is kept unread.
                None => return kept,
            }
        }
        if self.retained.is_empty() {
            let dropped_records = count;
            if !holds_producer {
                return CleanedBatch {
                    cleaned: Cleaned::Dropped,
                    dropped_records,
                };
            }
            if count == 0 {
                return kept;
            }
            put_empty(&header, out);
            return CleanedBatch {
                cleaned: Cleaned::Rewritten,
                dropped_records,
            };
        }
        let sets_horizon = horizon.is_none() && (tombstones || control && useless);
        let dropped_records = count - self.retained.len() as u64;
        if dropped_records == 0 && !sets_horizon {
            return kept;
        }
        let new_horizon = sets_horizon.then(|| {
            self.policy
                .now_ms
                .saturating_add(self.policy.delete_retention_ms)
        });
        if !self.put_rest(batch, &header, new_horizon, out) {
            return kept;
        }
        CleanedBatch {
            cleaned: Cleaned::Rewritten,
            dropped_records,
        }
    }

    /// Selects the records that stay; whether there are tombstones among them. `None` if they cannot be read.
    fn select(&mut self, batch: &[u8], scratch: &mut Vec<u8>) -> Option<bool> {
        let header = BatchHeader::read(batch)?;
        let past_horizon = header
            .delete_horizon_ms()
            .is_some_and(|ms| ms <= self.policy.now_ms);
        let mut records = records_of(batch, scratch)?;
        let len = records.remaining_bytes();
        let mut tombstones = false;
        loop {
            let start = len - records.remaining_bytes();
            let Some(record) = records.next() else {
                return Some(tombstones);
            };
            let record = record.ok()?;
            let offset = header
                .base_offset
                .get()
                .saturating_add(i64::from(record.offset_delta));
            let stays = header.is_control()
                || offset >= self.map.end()
                || record.key.is_some_and(|key| {
                    !self.map.supersedes(key, offset) && (record.value.is_some() || !past_horizon)
                });
            if stays {
                tombstones |= !header.is_control() && record.value.is_none();
                self.retained.push(Retained {
                    bytes: start..len - records.remaining_bytes(),
                    timestamp_delta: record.timestamp_delta,
                });
            }
        }
    }

    /// Appends a batch of the records that stay: same base and last offset, same codec, same producer. False if the
    /// codec refuses.
    fn put_rest(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        new_horizon: Option<i64>,
        out: &mut Vec<u8>,
    ) -> bool {
        let attributes = header.attributes.get();
        let Some(codec) = Compression::from_attributes(attributes) else {
            return false;
        };
        let source = match codec {
            Compression::None => &batch[HEADER_LEN..],
            _ => self.scratch.as_slice(),
        };
        let mut rest = *header;
        rest.record_count = (self.retained.len() as i32).into();
        // The broker's time counts for all records as long as one is left.
        if attributes & ATTR_LOG_APPEND_TIME == 0 {
            let base_ms = header.base_timestamp.get();
            let newest = self.retained.iter().map(|r| r.timestamp_delta).max();
            rest.max_timestamp = base_ms.saturating_add(newest.unwrap_or(0)).into();
        }
        self.body.clear();
        if let Some(horizon_ms) = new_horizon {
            rest.attributes = (attributes | ATTR_DELETE_HORIZON).into();
            let shift = header.base_timestamp.get().wrapping_sub(horizon_ms);
            rest.base_timestamp = horizon_ms.into();
            for record in &self.retained {
                put_shifted(&source[record.bytes.clone()], shift, &mut self.body);
            }
        } else {
            for record in &self.retained {
                self.body.extend_from_slice(&source[record.bytes.clone()]);
            }
        }
        let start = out.len();
        out.resize(start + HEADER_LEN, 0);
        if codec::compress(codec, None, &self.body, out).is_err() {
            out.truncate(start);
            return false;
        }
        finish(rest, &mut out[start..]);
        true
    }
}

/// Appends a record whose timestamp delta grows by `shift`; its length may change with it.
fn put_shifted(record: &[u8], shift: i64, out: &mut Vec<u8>) {
    let parts = || {
        let (_, body) = crate::batch::varint::read_varint(record)?;
        let (&attributes, rest) = body.split_first()?;
        let (delta, rest) = crate::batch::varint::read_varlong(rest)?;
        Some((attributes, delta, rest))
    };
    let Some((attributes, delta, rest)) = parts() else {
        return out.extend_from_slice(record); // it was read before
    };
    let delta = delta.wrapping_add(shift);
    write_varint(out, (1 + varint_len(delta) + rest.len()) as i64);
    out.push(attributes);
    write_varint(out, delta);
    out.extend_from_slice(rest);
}

/// Appends the batch without its records. (`DefaultRecordBatch.writeEmptyHeader`)
fn put_empty(header: &BatchHeader, out: &mut Vec<u8>) {
    let mut empty = *header;
    let attributes = header.attributes.get() & !(ATTR_COMPRESSION | ATTR_DELETE_HORIZON);
    empty.attributes = attributes.into();
    empty.base_timestamp = (-1).into();
    empty.record_count = 0.into();
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    finish(empty, &mut out[start..]);
}

/// Puts the header in front of its batch's body, with length and checksum.
fn finish(mut header: BatchHeader, batch: &mut [u8]) {
    header.batch_length = ((batch.len() - LOG_OVERHEAD) as i32).into();
    batch[..HEADER_LEN].copy_from_slice(header.as_bytes());
    header.crc = crc32c(&batch[CRC_START..]).into();
    batch[..HEADER_LEN].copy_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests;
