//! What a producer's batch is checked for beyond its header, by the partition's settings, and the timestamps it is
//! stored with. Source: `LogValidator` of Apache Kafka 4.

use crate::batch::header::{ATTR_COMPRESSION, ATTR_LOG_APPEND_TIME, CRC_START, LOG_OVERHEAD};
use crate::batch::{
    BatchHeader, Compression, HEADER_LEN, Records, TimeWindow, body, codec, inspect,
};
use crate::checksum::crc32c;
use crate::id::{Now, Part};

use super::Core;
use super::api::{AppendError, Inspect, KeptCodec, LogConfig};

/// Decompressed bytes whose memory is kept for the next batch.
const SCRATCH_KEPT: usize = 1 << 20;

/// The timestamps that a stored batch gets. Both change the header within the CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// The broker's, for all records (`LogAppendTime`).
    Broker(i64),
    /// The producer's (`CreateTime`), whose largest is this.
    Producer(i64),
}

impl Stamp {
    /// Sets timestamp type, largest timestamp and CRC. (`DefaultRecordBatch.setMaxTimestamp`)
    pub(super) fn put(self, batch: &mut [u8]) {
        let attributes = i16::from_be_bytes([batch[21], batch[22]]);
        let (attributes, time_ms) = match self {
            Self::Broker(time_ms) => (attributes | ATTR_LOG_APPEND_TIME, time_ms),
            Self::Producer(time_ms) => (attributes & !ATTR_LOG_APPEND_TIME, time_ms),
        };
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        batch[35..43].copy_from_slice(&time_ms.to_be_bytes());
        put_crc(batch);
    }
}

/// Sets the CRC of a batch that was changed.
fn put_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// How batches are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whose records are read.
    pub(super) depth: Inspect,
    /// Bytes that they may have once decompressed.
    pub(super) limit: usize,
}

/// What differs in the batch that is stored from the one that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The timestamps.
    pub(super) stamp: Option<Stamp>,
    /// The codec: this is the batch in the topic's.
    pub(super) recoded: Option<Vec<u8>>,
}

/// Checks timestamps and, as far as `reading` says, records of a batch whose header is valid. Records that are to be
/// compressed anew are read in any case.
pub(super) fn check(
    reading: Reading,
    config: &LogConfig,
    now_ms: i64,
    batch: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Changes, AppendError> {
    let Some(header) = BatchHeader::read(batch) else {
        return Ok(Changes::default());
    };
    let codec = Compression::from_attributes(header.attributes.get());
    let other = config.kept_codec.filter(|kept| Some(kept.codec) != codec);
    let depth = match other {
        Some(_) => Inspect::All,
        None => reading.depth,
    };
    scratch.clear();
    let reading = Reading { depth, ..reading };
    let stamp = stamp(reading, config, now_ms, header, batch, scratch);
    let changes = stamp.and_then(|stamp| {
        // What was compressed lies in `scratch` now.
        let records = match codec {
            Some(Compression::None) => &batch[HEADER_LEN..],
            _ => scratch,
        };
        let recoded = other.map(|kept| recode(kept, batch, records));
        Ok(Changes {
            stamp,
            recoded: recoded.transpose()?,
        })
    });
    scratch.clear();
    scratch.shrink_to(SCRATCH_KEPT);
    changes
}

/// `batch`, whose records are `records`, in another codec. (`LogValidator.buildRecordsAndAssignOffsets`; offsets and times
/// within a batch do not depend on its codec, so the header stays but for length, codec and CRC.)
fn recode(kept: KeptCodec, batch: &[u8], records: &[u8]) -> Result<Vec<u8>, AppendError> {
    let mut recoded = batch[..HEADER_LEN].to_vec();
    codec::compress(kept.codec, kept.level, records, &mut recoded)
        .map_err(|_| AppendError::NotCompressed)?;
    let len =
        i32::try_from(recoded.len() - LOG_OVERHEAD).map_err(|_| AppendError::NotCompressed)?;
    let attributes = i16::from_be_bytes([recoded[21], recoded[22]]);
    let attributes = attributes & !ATTR_COMPRESSION | kept.codec as i16;
    recoded[8..12].copy_from_slice(&len.to_be_bytes());
    recoded[21..23].copy_from_slice(&attributes.to_be_bytes());
    put_crc(&mut recoded);
    Ok(recoded)
}

/// Checks timestamps and records; the timestamps to store where they differ from the batch's.
fn stamp(
    reading: Reading,
    config: &LogConfig,
    now_ms: i64,
    header: &BatchHeader,
    batch: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Option<Stamp>, AppendError> {
    let (base_ms, max_ms) = (header.base_timestamp.get(), header.max_timestamp.get());
    let claims_append_time = header.attributes.get() & ATTR_LOG_APPEND_TIME != 0;
    let times = match records(reading, header, batch, scratch)? {
        Some(found) => {
            if found.keyless && config.keys_wanted {
                return Err(AppendError::KeyMissing);
            }
            // The broker's time holds for every record of a batch that claims to have it.
            let at = |delta: i64| base_ms.saturating_add(delta);
            if claims_append_time {
                (max_ms, max_ms)
            } else {
                (at(found.delta_min), at(found.delta_max))
            }
        }
        // As far as the header tells.
        None if claims_append_time => (max_ms, max_ms),
        None => (base_ms, max_ms),
    };
    if config.log_append_time {
        // Only the broker sets its time.
        return if claims_append_time {
            Err(AppendError::Timestamp)
        } else {
            Ok(None)
        };
    }
    let window = TimeWindow::around(
        now_ms,
        config.timestamp_before_max_ms,
        config.timestamp_after_max_ms,
    );
    if !window.contains(times.0) || !window.contains(times.1) {
        return Err(AppendError::Timestamp);
    }
    Ok((claims_append_time || times.1 != max_ms).then_some(Stamp::Producer(times.1)))
}

/// Reads the records, if `reading` asks for it; what is decompressed for it stays in `scratch`, which is empty.
fn records(
    reading: Reading,
    header: &BatchHeader,
    batch: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Option<crate::batch::Inspection>, AppendError> {
    let codec = Compression::from_attributes(header.attributes.get());
    let count = header.record_count.get();
    let Some(codec) = codec else {
        return Ok(None);
    };
    match (reading.depth, codec) {
        (Inspect::Headers, _) => Ok(None),
        (_, Compression::None) => Ok(Some(inspect(Records::new(&batch[HEADER_LEN..], count))?)),
        (Inspect::Uncompressed, _) => Ok(None),
        (Inspect::All, _) => {
            let limit = reading.limit;
            codec::decompress(codec, &batch[HEADER_LEN..], limit, scratch)
                .map_err(|_| AppendError::Undecodable { limit })?;
            Ok(Some(inspect(Records::new(scratch, count))?))
        }
    }
}

/// What is wrong with one record of a refused batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFault {
    /// Its timestamp, milliseconds since 1970, lies outside the window.
    Timestamp(i64, TimeWindow),
    /// Its timestamp claims to be the broker's.
    AppendTime,
    /// It has no key.
    KeyMissing,
}

impl Core {
    /// The records because of which [`Core::append`] refused a batch with [`AppendError::Timestamp`] or
    /// [`AppendError::KeyMissing`], by their place in the batch: the first `most` of them.
    #[must_use]
    pub fn record_faults(
        &self,
        now: Now,
        part: Part,
        batch: &[u8],
        most: usize,
    ) -> Vec<(u32, RecordFault)> {
        let (Ok(partition), Some(header)) = (self.partition(part), BatchHeader::read(batch)) else {
            return Vec::new();
        };
        let config = &partition.config;
        let limit = match (self.config.inspect, config.kept_codec) {
            (Inspect::All, _) | (_, Some(_)) => self.config.decompressed_bytes_max,
            // A compressed batch was judged by its header.
            _ => batch.len(),
        };
        let mut scratch = Vec::new();
        let Ok(records) = body(batch, limit, &mut scratch) else {
            return Vec::new();
        };
        let claims_append_time = header.attributes.get() & ATTR_LOG_APPEND_TIME != 0;
        let window = TimeWindow::around(
            now.wall_ms,
            config.timestamp_before_max_ms,
            config.timestamp_after_max_ms,
        );
        let fault = |record: &crate::batch::Record<'_>| {
            let time_ms = if claims_append_time {
                header.max_timestamp.get()
            } else {
                let base_ms = header.base_timestamp.get();
                base_ms.saturating_add(record.timestamp_delta)
            };
            if config.keys_wanted && record.key.is_none() {
                Some(RecordFault::KeyMissing)
            } else if config.log_append_time {
                claims_append_time.then_some(RecordFault::AppendTime)
            } else {
                (!window.contains(time_ms)).then_some(RecordFault::Timestamp(time_ms, window))
            }
        };
        let numbered = (0..).zip(records.map_while(Result::ok));
        let faults = numbered.filter_map(|(index, record)| Some((index, fault(&record)?)));
        faults.take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord};

    const NOW_MS: i64 = 1_000_000;
    const ALL: Inspect = Inspect::All;
    const LIMIT: usize = 10_000;

    fn batch(codec: Compression, times: &[i64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new().compression(codec);
        for &timestamp_ms in times {
            builder.push(&NewRecord {
                timestamp_ms,
                value: Some(b"value"),
                ..NewRecord::default()
            });
        }
        builder.build().expect("a batch")
    }

    fn judge(
        depth: Inspect,
        config: &LogConfig,
        batch: &[u8],
    ) -> Result<Option<Stamp>, AppendError> {
        let limit = LIMIT;
        let changes = check(
            Reading { depth, limit },
            config,
            NOW_MS,
            batch,
            &mut Vec::new(),
        )?;
        assert_eq!(changes.recoded, None);
        Ok(changes.stamp)
    }

    /// Puts a wrong largest timestamp into the header.
    fn lie(batch: &mut [u8], max_ms: i64) {
        Stamp::Producer(max_ms).put(batch);
    }

    #[test]
    fn times_are_checked_record_by_record_where_records_are_read() {
        let config = LogConfig {
            timestamp_before_max_ms: 500,
            timestamp_after_max_ms: 50,
            ..LogConfig::default()
        };
        let cases = [
            (&[NOW_MS][..], true),
            (&[NOW_MS - 500, NOW_MS + 50], true),
            (&[NOW_MS, NOW_MS - 501, NOW_MS], false),
            (&[NOW_MS, NOW_MS + 51, NOW_MS], false),
        ];
        for (times, good) in cases {
            for (codec, depth) in [
                (Compression::None, Inspect::Uncompressed),
                (Compression::None, ALL),
                (Compression::Lz4, ALL),
            ] {
                let result = judge(depth, &config, &batch(codec, times));
                let expected = if good {
                    Ok(None)
                } else {
                    Err(AppendError::Timestamp)
                };
                assert_eq!(result, expected, "{times:?} {codec:?} {depth:?}");
            }
        }
        // The header tells the first and the largest.
        let late = batch(Compression::Zstd, &[NOW_MS, NOW_MS + 51]);
        let judged = judge(Inspect::Uncompressed, &config, &late);
        assert_eq!(judged, Err(AppendError::Timestamp));
    }

    #[test]
    fn a_header_that_lies_about_the_largest_time_is_mended() {
        let config = LogConfig::default();
        for codec in [Compression::None, Compression::Gzip] {
            let mut lying = batch(codec, &[NOW_MS, NOW_MS + 7]);
            lie(&mut lying, NOW_MS + 1000);
            let stamp = judge(ALL, &config, &lying).expect("accepted");
            assert_eq!(stamp, Some(Stamp::Producer(NOW_MS + 7)));
            Stamp::Producer(NOW_MS + 7).put(&mut lying);
            assert_eq!(lying, batch(codec, &[NOW_MS, NOW_MS + 7]));
        }
    }

    #[test]
    fn only_the_broker_sets_append_times() {
        let topic = |log_append_time| LogConfig {
            log_append_time,
            ..LogConfig::default()
        };
        let mut claiming = batch(Compression::None, &[NOW_MS]);
        Stamp::Broker(NOW_MS + 5).put(&mut claiming);
        let header = BatchHeader::validate(&claiming).expect("the CRC is right");
        assert_eq!(header.max_timestamp.get(), NOW_MS + 5);
        let refused = judge(Inspect::Uncompressed, &topic(true), &claiming);
        assert_eq!(refused, Err(AppendError::Timestamp));
        // With the producer's times in force the claim is taken back.
        let taken = judge(Inspect::Uncompressed, &topic(false), &claiming);
        assert_eq!(taken, Ok(Some(Stamp::Producer(NOW_MS + 5))));
        // A far time is no matter where the broker's counts.
        let far = batch(Compression::None, &[NOW_MS * 1000]);
        assert_eq!(judge(Inspect::Uncompressed, &topic(true), &far), Ok(None));
    }

    #[test]
    fn keys_are_wanted_where_records_are_compacted() {
        let config = LogConfig {
            keys_wanted: true,
            ..LogConfig::default()
        };
        let keyless = batch(Compression::None, &[NOW_MS]);
        let refused = judge(Inspect::Uncompressed, &config, &keyless);
        assert_eq!(refused, Err(AppendError::KeyMissing));
        let unread = judge(Inspect::Headers, &config, &keyless);
        assert_eq!(unread, Ok(None));
    }

    #[test]
    fn records_that_are_not_what_the_header_says_are_refused() {
        let config = LogConfig::default();
        let mut scratch = Vec::new();
        let limit = LIMIT;
        let mut bad = |depth, batch: &[u8]| {
            let reading = Reading { depth, limit };
            check(reading, &config, NOW_MS, batch, &mut scratch).map(|changes| changes.stamp)
        };
        let mut more = batch(Compression::None, &[NOW_MS, NOW_MS]);
        more[57..61].copy_from_slice(&3i32.to_be_bytes());
        let counted = bad(Inspect::Uncompressed, &more);
        assert!(
            matches!(counted, Err(AppendError::Records(_))),
            "{counted:?}"
        );
        assert_eq!(bad(Inspect::Headers, &more), Ok(None));
        let mut garbage = batch(Compression::Gzip, &[NOW_MS]);
        garbage[HEADER_LEN..].fill(0xa5);
        assert_eq!(bad(Inspect::Uncompressed, &garbage), Ok(None));
        let undecodable = Err(AppendError::Undecodable { limit: 10_000 });
        assert_eq!(bad(ALL, &garbage), undecodable);
        let mut builder = BatchBuilder::new().compression(Compression::Zstd);
        builder.push(&NewRecord {
            timestamp_ms: NOW_MS,
            value: Some(&[0; 20_000]),
            ..NewRecord::default()
        });
        let bomb = builder.build().expect("a small batch");
        assert!(bomb.len() < 200);
        assert_eq!(bad(ALL, &bomb), undecodable);
        assert!(scratch.is_empty() && scratch.capacity() <= SCRATCH_KEPT);
    }

    fn keeping(codec: Compression) -> LogConfig {
        LogConfig {
            kept_codec: Some(KeptCodec { codec, level: None }),
            ..LogConfig::default()
        }
    }

    fn recoded(config: &LogConfig, batch: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        // Deeper than the broker reads by itself.
        let (depth, limit) = (Inspect::Headers, LIMIT);
        let reading = Reading { depth, limit };
        check(reading, config, NOW_MS, batch, &mut Vec::new()).map(|changes| changes.recoded)
    }

    #[test]
    fn a_batch_in_another_codec_is_what_its_producer_would_have_sent_in_the_topics() {
        for from in Compression::ALL {
            for to in Compression::ALL {
                let sent = batch(from, &[NOW_MS, NOW_MS + 7]);
                let kept = recoded(&keeping(to), &sent).expect("accepted");
                let wanted = (from != to).then(|| batch(to, &[NOW_MS, NOW_MS + 7]));
                assert_eq!(kept, wanted, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_compressed_anew() {
        let mut garbage = batch(Compression::Gzip, &[NOW_MS]);
        garbage[HEADER_LEN..].fill(0xa5);
        let zstd = keeping(Compression::Zstd);
        let undecodable = Err(AppendError::Undecodable { limit: LIMIT });
        assert_eq!(recoded(&zstd, &garbage), undecodable);
        // In the topic's codec it is kept as it came, unread.
        assert_eq!(recoded(&keeping(Compression::Gzip), &garbage), Ok(None));
        let mut more = batch(Compression::Lz4, &[NOW_MS]);
        more[57..61].copy_from_slice(&2i32.to_be_bytes());
        let counted = recoded(&zstd, &more);
        assert!(
            matches!(counted, Err(AppendError::Records(_))),
            "{counted:?}"
        );
    }
}
