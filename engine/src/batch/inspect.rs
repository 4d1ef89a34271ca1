//! Looking at every record of a batch that a producer sent: whether they are what the header announces, and what
//! they say about time and keys.
//!
//! What is checked, and in which order, is what `LogValidator` and `DefaultRecordBatch`'s iterator of Apache Kafka 4
//! check; like there, offset deltas are not looked at.

use super::records::{RecordError, Records};

/// What the records of a batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Smallest timestamp delta.
    pub delta_min: i64,
    /// Largest timestamp delta.
    pub delta_max: i64,
    /// A record has no key.
    pub keyless: bool,
}

/// Reads all records.
///
/// # Errors
/// The first thing that is wrong.
pub fn inspect(mut records: Records<'_>) -> Result<Inspection, RecordError> {
    let mut found = Inspection {
        delta_min: i64::MAX,
        delta_max: i64::MIN,
        keyless: false,
    };
    while let Some(record) = records.skim() {
        let record = record?;
        found.delta_min = found.delta_min.min(record.timestamp_delta);
        found.delta_max = found.delta_max.max(record.timestamp_delta);
        found.keyless |= !record.has_key;
    }
    Ok(found)
}

/// The timestamps a batch may have, milliseconds since 1970: `message.timestamp.before.max.ms` and
/// `message.timestamp.after.max.ms` around the broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// The earliest.
    pub first_ms: i64,
    /// The latest.
    pub last_ms: i64,
}

impl TimeWindow {
    /// The window around `now_ms`; -1 as a timestamp, "none", is always inside.
    #[must_use]
    pub fn around(now_ms: i64, before_ms: i64, after_ms: i64) -> Self {
        Self {
            first_ms: now_ms.saturating_sub(before_ms),
            last_ms: now_ms.saturating_add(after_ms),
        }
    }

    /// Whether a record may have this timestamp.
    #[must_use]
    pub fn contains(&self, timestamp_ms: i64) -> bool {
        timestamp_ms == -1 || (self.first_ms..=self.last_ms).contains(&timestamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, HEADER_LEN, NewRecord};

    #[test]
    fn records_say_their_times_and_keys() {
        let mut builder = BatchBuilder::new();
        for (timestamp_ms, key) in [(100, Some(&b"k"[..])), (70, None), (130, Some(&b""[..]))] {
            builder.push(&NewRecord {
                timestamp_ms,
                key,
                ..NewRecord::default()
            });
        }
        let batch = builder.build().expect("a batch");
        let found = inspect(Records::new(&batch[HEADER_LEN..], 3)).expect("good records");
        assert_eq!((found.delta_min, found.delta_max), (-30, 30));
        assert!(found.keyless);
        for count in [2, 4] {
            inspect(Records::new(&batch[HEADER_LEN..], count)).expect_err("another count");
        }
    }

    #[test]
    fn windows_include_their_ends_and_no_timestamp() {
        let window = TimeWindow::around(1000, 100, 10);
        for (timestamp_ms, inside) in [(899, false), (900, true), (1010, true), (1011, false)] {
            assert_eq!(window.contains(timestamp_ms), inside, "{timestamp_ms}");
        }
        assert!(window.contains(-1));
        assert!(TimeWindow::around(1000, i64::MAX, i64::MAX).contains(i64::MIN + 2000));
    }
}
