//! The control batch that ends a transaction in a partition.
//!
//! Source of the layout: the Apache Kafka documentation, section "Control Batches", and the message schema
//! `EndTxnMarker`.

use super::builder::{BatchBuilder, NewRecord};
use super::header::{BatchHeader, HEADER_LEN};
use super::records::Records;

/// Version of the key's layout.
const KEY_VERSION: i16 = 0;
/// Version of the value's layout.
const VALUE_VERSION: i16 = 0;
/// Type in the key of a marker that aborts.
const ABORT: i16 = 0;
/// Type in the key of a marker that commits.
const COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Its records count; else they are to be ignored.
    pub committed: bool,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// The marker's batch: one record, no sequence.
    #[must_use]
    pub fn batch(&self, producer_id: i64, producer_epoch: i16, timestamp_ms: i64) -> Vec<u8> {
        let mut key = [0; 4];
        key[..2].copy_from_slice(&KEY_VERSION.to_be_bytes());
        let kind = if self.committed { COMMIT } else { ABORT };
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[..2].copy_from_slice(&VALUE_VERSION.to_be_bytes());
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new()
            .producer(producer_id, producer_epoch, -1)
            .transactional(true)
            .control(true);
        builder.push(&NewRecord {
            timestamp_ms,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        });
        let mut batch = Vec::with_capacity(HEADER_LEN + 24);
        let built = builder.build_into(&mut batch);
        debug_assert!(built.is_ok(), "nothing is compressed");
        batch
    }

    /// The marker in a batch: `None` if the batch is none, or a control batch of another type. Only the first
    /// record is looked at, as in Kafka.
    #[must_use]
    pub fn read(batch: &[u8]) -> Option<Self> {
        let header = BatchHeader::read(batch)?;
        if !header.is_control() || !header.is_transactional() {
            return None;
        }
        let records = Records::new(batch.get(HEADER_LEN..)?, header.record_count.get());
        let record = records.into_iter().next()?.ok()?;
        let (key, value) = (record.key?, record.value?);
        let committed = match i16::from_be_bytes(key.get(2..4)?.try_into().ok()?) {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        Some(Self {
            committed,
            coordinator_epoch: i32::from_be_bytes(value.get(2..6)?.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_what_kafka_writes_and_are_read_back() {
        let marker = Marker {
            committed: true,
            coordinator_epoch: 0x0102_0304,
        };
        let batch = marker.batch(7, 3, 1000);
        let header = BatchHeader::validate(&batch).expect("a good batch");
        assert!(header.is_control() && header.is_transactional());
        assert_eq!(header.base_sequence.get(), -1);
        // Length, attributes, two deltas, key length 4, key, value length 6, value, no headers.
        let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 1, 2, 3, 4, 0];
        assert_eq!(batch[HEADER_LEN..], record);
        assert_eq!(Marker::read(&batch), Some(marker));
        let abort = Marker {
            committed: false,
            coordinator_epoch: 0,
        };
        assert_eq!(Marker::read(&abort.batch(7, 3, 1000)), Some(abort));
    }

    #[test]
    fn other_batches_are_no_markers() {
        let mut builder = BatchBuilder::new().producer(1, 0, 0).transactional(true);
        builder.push(&NewRecord {
            key: Some(&[0, 0, 0, 1]),
            value: Some(&[0; 6]),
            ..NewRecord::default()
        });
        let batch = builder.clone().build().expect("a batch");
        assert_eq!(Marker::read(&batch), None);
        let leader_change = |kind: u8| {
            let mut builder = BatchBuilder::new()
                .producer(1, 0, -1)
                .transactional(true)
                .control(true);
            builder.push(&NewRecord {
                key: Some(&[0, 0, 0, kind]),
                value: Some(&[0; 6]),
                ..NewRecord::default()
            });
            builder.build().expect("a batch")
        };
        assert_eq!(Marker::read(&leader_change(2)), None);
        assert!(Marker::read(&leader_change(1)).is_some());
        assert_eq!(Marker::read(&leader_change(1)[..HEADER_LEN]), None);
    }
}
