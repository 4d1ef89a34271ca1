//! Searching through batches.

use crate::batch::{BatchHeader, body};
use crate::core::api::TimedOffset;

/// Read to find a batch when only its place is wanted, bytes.
pub(super) const PROBE: usize = 64 << 10;
/// Decompressed records of one batch at most, bytes, when looking for a timestamp.
const INFLATED_MAX: usize = 128 << 20;

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

pub(super) fn find_record(
    batch: &[u8],
    log_start: i64,
    wanted: impl Fn(i64) -> bool,
) -> Option<TimedOffset> {
    let header = BatchHeader::read(batch)?;
    let mut scratch = Vec::new();
    let records = body(batch, INFLATED_MAX, &mut scratch).ok()?;
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

pub(super) fn youngest(batch: &[u8], log_start: i64) -> Option<TimedOffset> {
    let newest = BatchHeader::read(batch)?.max_timestamp.get();
    find_record(batch, log_start, |timestamp_ms| timestamp_ms == newest)
}
