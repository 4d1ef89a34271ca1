//! From fetched bytes to the records that are to be seen.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use ringlog_engine::batch::header::{ATTR_LOG_APPEND_TIME, CRC_START};
use ringlog_engine::batch::{BatchHeader, Marker, Record, body};
use ringlog_engine::checksum::crc32c;

use crate::client::Isolation;

/// Largest body of a batch once decompressed, bytes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// What a broker sent of one partition.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The partition's number.
    pub(crate) partition: i32,
    /// Batches, the last of which may be cut off.
    pub(crate) bytes: Bytes,
    /// First offset and producer id of aborted transactions in it, when committed records were asked for.
    pub(crate) aborted: Vec<(i64, i64)>,
}

/// A record and where it is.
#[derive(Debug)]
pub(crate) struct Fetched<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) record: Record<'a>,
}

/// The offset behind a batch. Its base lies outside the checksum and may be anything.
fn behind(header: &BatchHeader) -> i64 {
    let records = i64::from(header.last_offset_delta.get()) + 1;
    header.base_offset.get().saturating_add(records)
}

/// The offset behind the last whole batch of `bytes`, or `None` if there is none.
pub(crate) fn next_offset(bytes: &[u8]) -> Option<i64> {
    let mut rest = bytes;
    let mut next = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        next = Some(behind(header));
        rest = &rest[header.total_len()..];
    }
    next
}

/// Calls `each` for the records from `position` on that `isolation` shows, until it says that it has enough. Returns
/// the offset behind the last batch that was read, and whether there was enough.
///
/// # Errors
/// What is wrong with a batch, and its offset.
pub(crate) fn read<E: From<String>>(
    chunk: &Chunk,
    position: i64,
    isolation: Isolation,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&Fetched<'_>) -> Result<bool, E>,
) -> Result<(i64, bool), E> {
    let mut aborted = Aborted::new(&chunk.aborted);
    let mut position = position;
    let mut rest = &chunk.bytes[..];
    while let Ok(header) = BatchHeader::parse(rest) {
        let (batch, others) = rest.split_at(header.total_len());
        rest = others;
        let base = header.base_offset.get();
        let wrong = |what: String| {
            E::from(format!(
                "partition {}, the batch at offset {base}: {what}",
                chunk.partition
            ))
        };
        if header.crc.get() != crc32c(&batch[CRC_START..]) {
            return Err(wrong("its checksum does not match its bytes".into()));
        }
        let hidden = isolation == Isolation::ReadCommitted && aborted.hides(header, batch);
        if !header.is_control() && !hidden {
            let append_time = header.attributes.get() & ATTR_LOG_APPEND_TIME != 0;
            let (first_ms, last_ms) = (header.base_timestamp.get(), header.max_timestamp.get());
            let records = body(batch, BODY_BYTES_MAX, scratch).map_err(|e| wrong(e.to_string()))?;
            for record in records {
                let record = record.map_err(|e| wrong(e.to_string()))?;
                let offset = base.saturating_add(i64::from(record.offset_delta));
                if offset < position {
                    continue;
                }
                let timestamp_ms = match append_time {
                    true => last_ms,
                    false => first_ms.saturating_add(record.timestamp_delta),
                };
                let fetched = Fetched {
                    partition: chunk.partition,
                    offset,
                    timestamp_ms,
                    record,
                };
                if !each(&fetched)? {
                    return Ok((offset.saturating_add(1), true));
                }
            }
        }
        position = position.max(behind(header));
    }
    Ok((position, false))
}

/// Which transactions of a chunk were aborted.
struct Aborted {
    /// By first offset.
    coming: VecDeque<(i64, i64)>,
    open: HashSet<i64>,
}

impl Aborted {
    fn new(all: &[(i64, i64)]) -> Self {
        let mut all = all.to_vec();
        all.sort_unstable();
        Self {
            coming: all.into(),
            open: HashSet::new(),
        }
    }

    /// Whether the batch belongs to an aborted transaction. To be asked for each batch in order.
    fn hides(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        while let Some(&(first, producer)) = self.coming.front()
            && first < behind(header)
        {
            self.coming.pop_front();
            self.open.insert(producer);
        }
        if !header.is_transactional() {
            return false;
        }
        if header.is_control() {
            if Marker::read(batch).is_some_and(|marker| !marker.committed) {
                self.open.remove(&header.producer_id.get());
            }
            return false;
        }
        self.open.contains(&header.producer_id.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::batch::{BatchBuilder, Compression, NewRecord};

    fn batch(base: i64, producer: i64, values: &[&str]) -> Vec<u8> {
        let mut builder = BatchBuilder::new()
            .base_offset(base)
            .compression(Compression::Zstd);
        if producer >= 0 {
            builder = builder.producer(producer, 0, 0).transactional(true);
        }
        for value in values {
            builder.push(&NewRecord {
                timestamp_ms: 1000 + base,
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            });
        }
        builder.build().unwrap()
    }

    fn marker(base: i64, producer: i64, committed: bool) -> Vec<u8> {
        let marker = Marker {
            committed,
            coordinator_epoch: 0,
        };
        let mut batch = marker.batch(producer, 0, 1000);
        ringlog_engine::batch::header::assign(&mut batch, base, 0);
        batch
    }

    fn values(
        chunk: &Chunk,
        position: i64,
        isolation: Isolation,
    ) -> Result<(Vec<String>, i64), String> {
        let mut seen = Vec::new();
        let (next, _) = read(chunk, position, isolation, &mut Vec::new(), |fetched| {
            let value = fetched.record.value.unwrap_or_default();
            seen.push(format!(
                "{}={}",
                fetched.offset,
                String::from_utf8_lossy(value)
            ));
            Ok::<_, String>(true)
        })?;
        Ok((seen, next))
    }

    fn log() -> Chunk {
        // Producer 7 aborts once and commits once; producer 8 commits.
        let parts = [
            batch(0, -1, &["a", "b"]),
            batch(2, 7, &["no"]),
            batch(3, 8, &["yes"]),
            marker(4, 7, false),
            batch(5, 7, &["again"]),
            marker(6, 7, true),
            marker(7, 8, true),
        ];
        Chunk {
            partition: 3,
            bytes: parts.concat().into(),
            aborted: vec![(2, 7)],
        }
    }

    #[test]
    fn aborted_records_are_shown_only_to_those_who_want_all() {
        let (seen, next) = values(&log(), 0, Isolation::ReadUncommitted).unwrap();
        assert_eq!(seen, ["0=a", "1=b", "2=no", "3=yes", "5=again"]);
        assert_eq!(next, 8);
        let (seen, next) = values(&log(), 1, Isolation::ReadCommitted).unwrap();
        assert_eq!(seen, ["1=b", "3=yes", "5=again"]);
        assert_eq!(next, 8);
        assert_eq!(next_offset(&log().bytes), Some(8));
    }

    #[test]
    fn a_batch_cut_off_at_the_end_waits_for_the_next_fetch() {
        let mut chunk = log();
        chunk.bytes.truncate(chunk.bytes.len() - 1);
        let (_, next) = values(&chunk, 0, Isolation::ReadUncommitted).unwrap();
        assert_eq!((next, next_offset(&chunk.bytes)), (7, Some(7)));
        chunk.bytes.truncate(5);
        assert_eq!(next_offset(&chunk.bytes), None);
    }

    #[test]
    fn flipped_bits_are_named_with_their_offset() {
        let chunk = log();
        let mut bytes = chunk.bytes.to_vec();
        let second = batch(0, -1, &["a", "b"]).len();
        bytes[second + 70] ^= 1;
        let chunk = Chunk {
            bytes: bytes.into(),
            ..chunk
        };
        let error = values(&chunk, 0, Isolation::ReadUncommitted).unwrap_err();
        assert_eq!(
            error,
            "partition 3, the batch at offset 2: its checksum does not match its bytes"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, aborted: Vec<(i64, i64)>, flips: Vec<(usize, u8)>) {
            let chunk = Chunk { partition: 0, bytes: bytes.into(), aborted: aborted.clone() };
            let _ = values(&chunk, 0, Isolation::ReadCommitted);
            let mut bytes = log().bytes.to_vec();
            for (at, with) in flips {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
            let chunk = Chunk { partition: 0, bytes: bytes.into(), aborted };
            let _ = values(&chunk, 0, Isolation::ReadCommitted);
            let _ = next_offset(&chunk.bytes);
        }
    }
}
