//! Searching through batches.

use crate::batch::{BatchHeader, BodyError, CodecError, Records, body};
use crate::core::api::TimedOffset;

/// Read to find a batch when only its place is wanted, bytes.
pub(super) const PROBE: usize = 64 << 10;

/// What a search through batches came to.
pub(super) enum Look {
    /// The batch, whole.
    Found { at: usize, len: usize },
    /// Not among the whole batches; the next begins at `at` and is `need` bytes long as far as is known.
    More { at: usize, need: usize },
    /// No batch begins there.
    Damaged(usize),
}

/// Looks through whole batches for the first that `wanted` selects.
pub(super) fn look(bytes: &[u8], wanted: impl Fn(&BatchHeader) -> bool) -> Look {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(header) = BatchHeader::read(rest) else {
            return Look::More { at, need: PROBE };
        };
        if header.magic != crate::batch::header::MAGIC_V2 || header.batch_length.get() < 49 {
            return Look::Damaged(at);
        }
        let len = header.total_len();
        if len > rest.len() {
            return Look::More { at, need: len };
        }
        if wanted(header) {
            return Look::Found { at, len };
        }
        at += len;
    }
}

/// Length of the whole batches within `limit` bytes and before `bound`, the first in any case, and the offset after
/// them.
pub(super) fn whole_batches(bytes: &[u8], limit: usize, bound: i64) -> (usize, i64) {
    let (mut len, mut next) = (0, 0);
    while let Ok(header) = BatchHeader::parse(&bytes[len..]) {
        let is_past = header.base_offset.get() >= bound;
        if len > 0 && (is_past || len + header.total_len() > limit) {
            break;
        }
        len += header.total_len();
        next = header.next_offset();
    }
    (len, next)
}

/// The first record whose timestamp is `wanted`. What is decompressed for it is taken from `room`, bytes; a batch that
/// needs more is taken for one whose first record is wanted, as its header makes believe: who reads from there misses
/// nothing.
pub(super) fn find_record(
    batch: &[u8],
    log_start: i64,
    room: &mut usize,
    wanted: impl Fn(i64) -> bool,
) -> Option<TimedOffset> {
    let header = BatchHeader::read(batch)?;
    let mut scratch = Vec::new();
    let found = match body(batch, *room, &mut scratch) {
        Ok(records) => first_record(header, records, log_start, wanted),
        Err(BodyError::Codec(CodecError::TooLarge { .. })) => Some(TimedOffset {
            offset: header.base_offset.get().max(log_start),
            timestamp_ms: header.max_timestamp.get(),
            leader_epoch: header.partition_leader_epoch.get(),
        }),
        Err(_) => None,
    };
    *room = room.saturating_sub(scratch.len());
    found
}

fn first_record(
    header: &BatchHeader,
    records: Records<'_>,
    log_start: i64,
    wanted: impl Fn(i64) -> bool,
) -> Option<TimedOffset> {
    for record in records {
        let record = record.ok()?;
        let offset = header.base_offset.get() + i64::from(record.offset_delta);
        let timestamp_ms = record_time(header, record.timestamp_delta);
        if offset >= log_start && wanted(timestamp_ms) {
            return Some(TimedOffset {
                offset,
                timestamp_ms,
                leader_epoch: header.partition_leader_epoch.get(),
            });
        }
    }
    None
}

/// A record's timestamp: the broker's for the whole batch, or the producer's own.
fn record_time(header: &BatchHeader, delta: i64) -> i64 {
    if header.attributes.get() & crate::batch::header::ATTR_LOG_APPEND_TIME != 0 {
        header.max_timestamp.get()
    } else {
        header.base_timestamp.get().saturating_add(delta)
    }
}

/// The record with the newest timestamp of a batch, for which at most `room` bytes are decompressed.
pub(super) fn youngest(batch: &[u8], log_start: i64, mut room: usize) -> Option<TimedOffset> {
    let newest = BatchHeader::read(batch)?.max_timestamp.get();
    find_record(batch, log_start, &mut room, |timestamp_ms| {
        timestamp_ms == newest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Compression, NewRecord};

    /// Three records of 1000 bytes with timestamps 1000, 1001, 1002.
    fn batch(codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new().compression(codec);
        for timestamp_ms in 1000..1003 {
            builder.push(&NewRecord {
                timestamp_ms,
                value: Some(&[7; 1000]),
                ..NewRecord::default()
            });
        }
        builder.build().expect("a batch")
    }

    fn place(found: Option<TimedOffset>) -> Option<(i64, i64)> {
        found.map(|found| (found.offset, found.timestamp_ms))
    }

    #[test]
    fn a_batch_that_needs_more_room_is_answered_by_its_header() {
        let batch = batch(Compression::Zstd);
        assert!(batch.len() < 300, "{}", batch.len());
        let find =
            |mut room, log_start| place(find_record(&batch, log_start, &mut room, |ms| ms >= 1001));
        assert_eq!(find(4000, 0), Some((1, 1001)));
        assert_eq!(find(2000, 0), Some((0, 1002)));
        assert_eq!(find(2000, 1), Some((1, 1002)), "not before the log's start");
        assert_eq!(place(youngest(&batch, 0, 4000)), Some((2, 1002)));
        assert_eq!(place(youngest(&batch, 0, 2000)), Some((0, 1002)));
    }

    #[test]
    fn a_search_decompresses_no_more_than_its_room_over_all_batches() {
        let batch = batch(Compression::Zstd);
        let mut room = 10_000;
        let mut find = || find_record(&batch, 0, &mut room, |ms| ms >= 5000);
        for _ in 0..3 {
            assert_eq!(find(), None, "no such record");
        }
        assert!(find().is_some(), "three batches have taken the room");
    }

    #[test]
    fn records_that_are_not_compressed_take_no_room() {
        let batch = batch(Compression::None);
        let mut room = 0;
        let found = find_record(&batch, 0, &mut room, |ms| ms >= 1001);
        assert_eq!(place(found), Some((1, 1001)));
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_passed_over() {
        let mut batch = batch(Compression::Zstd);
        let len = batch.len();
        batch[len - 40..].fill(0xff);
        let mut room = 4000;
        assert_eq!(find_record(&batch, 0, &mut room, |_| true), None);
    }
}
