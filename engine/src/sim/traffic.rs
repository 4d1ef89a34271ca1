//! What simulated producers send: record batches of many sizes, codecs and time stamps.

use std::rc::Rc;

use super::rng::Rng;
use crate::batch::{BatchBuilder, Compression, Marker, NewRecord};
use crate::id::PartitionKey;

/// Key of a record, and whether it has a value.
pub(super) type KeyOf = (Option<Rc<[u8]>>, bool);

/// What a batch is to its producer's transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It counts by itself.
    Plain,
    /// It counts if its transaction is committed.
    Transactional,
    /// It ends one.
    Marker { committed: bool },
}

/// A batch as a producer sends it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) bytes: Rc<[u8]>,
    /// Of each record, milliseconds since 1970.
    pub(super) timestamps: Rc<[i64]>,
    /// Key of each record, and whether it has a value.
    pub(super) keys: Rc<[KeyOf]>,
    /// Producer id, epoch and first sequence of an idempotent batch.
    pub(super) producer: Option<(i64, i16, i32)>,
    pub(super) kind: Kind,
}

impl Sent {
    /// The marker that ends the transaction of a producer, by id and epoch.
    pub(super) fn marker((id, epoch): (i64, i16), committed: bool, wall_ms: i64) -> Self {
        let marker = Marker {
            committed,
            coordinator_epoch: 0,
        };
        Self {
            bytes: marker.batch(id, epoch, wall_ms).into(),
            timestamps: Rc::new([wall_ms]),
            keys: Rc::new([(None, true)]),
            producer: Some((id, epoch, -1)),
            kind: Kind::Marker { committed },
        }
    }

    pub(super) fn count(&self) -> i32 {
        self.timestamps.len() as i32
    }
}

/// How a producer's batches look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) records_max: u64,
    pub(super) value_max: u64,
    pub(super) batch_max: usize,
    pub(super) codec: Compression,
    /// Keys to choose from; 0 is a new one for every batch, and no tombstones.
    pub(super) keys: u64,
    /// Its batches belong to transactions.
    pub(super) transactional: bool,
}

impl Shape {
    pub(super) fn draw(rng: &mut Rng, batch_max: usize) -> Self {
        let (records_max, value_max) = rng.pick(&[
            (1, 100),
            (1, 3000),
            (10, 200),
            (100, 50),
            (3, batch_max as u64 / 2),
            (1, batch_max as u64),
        ]);
        let codec = rng.pick(&[
            Compression::None,
            Compression::None,
            Compression::None,
            Compression::Lz4,
            Compression::Zstd,
            Compression::Gzip,
            Compression::Snappy,
        ]);
        Self {
            records_max,
            value_max,
            batch_max,
            codec,
            keys: 0,
            transactional: false,
        }
    }

    /// A batch of at most `batch_max` bytes.
    ///
    /// # Panics
    /// If the codec refuses, which none does for bytes in memory.
    pub(super) fn batch(
        &self,
        rng: &mut Rng,
        key: PartitionKey,
        producer: Option<(i64, i16, i32)>,
        wall_ms: i64,
    ) -> Sent {
        // Header, varints and a body that does not compress.
        let budget = self.batch_max.saturating_sub(200);
        let count = rng.between(1, self.records_max);
        let mut builder = BatchBuilder::new()
            .compression(self.codec)
            .transactional(self.transactional);
        if let Some((id, epoch, sequence)) = producer {
            builder = builder.producer(id, epoch, sequence);
        }
        let (base, jitter) = base_time(rng, wall_ms);
        let mut timestamps = Vec::new();
        let mut keys = Vec::new();
        let mut value = Vec::new();
        let stamp = format!("{}/{}/{:x}", key.topic, key.partition, rng.next_u64());
        for i in 0..count {
            let left = budget.saturating_sub(builder.uncompressed_len() + 100);
            if i > 0 && left < stamp.len() {
                break;
            }
            fill_value(
                rng,
                &mut value,
                &stamp,
                self.value_max.min(left as u64) as usize,
            );
            let timestamp_ms = base + rng.below(jitter) as i64;
            timestamps.push(timestamp_ms);
            let (key, has_value) = self.key(rng, &stamp, i);
            builder.push(&NewRecord {
                timestamp_ms,
                key: key.as_deref(),
                value: has_value.then_some(&value),
                headers: &[],
            });
            keys.push((key, has_value));
        }
        let Ok(bytes) = builder.build() else {
            panic!("a batch in memory compresses")
        };
        Sent {
            bytes: bytes.into(),
            timestamps: timestamps.into(),
            keys: keys.into(),
            producer,
            kind: if self.transactional {
                Kind::Transactional
            } else {
                Kind::Plain
            },
        }
    }

    /// Key of record `i`, and whether it has a value.
    fn key(&self, rng: &mut Rng, stamp: &str, i: u64) -> KeyOf {
        if self.keys == 0 {
            return (i.is_multiple_of(3).then(|| stamp.as_bytes().into()), true);
        }
        let key = format!("key {}", rng.below(self.keys));
        let keyed = rng.percent(97).then(|| key.as_bytes().into());
        (keyed, rng.percent(85))
    }
}

/// Base time and spread: mostly the present, sometimes hours off, as clients with wrong clocks send.
fn base_time(rng: &mut Rng, wall_ms: i64) -> (i64, u64) {
    match rng.below(30) {
        0 => (wall_ms - 3_600_000, 10),
        1 => (wall_ms + 30_000, 10),
        2..10 => (wall_ms, 1),
        _ => (wall_ms - 50, 100),
    }
}

/// The stamp, then a run of bytes that only half compresses.
fn fill_value(rng: &mut Rng, value: &mut Vec<u8>, stamp: &str, len_max: usize) {
    value.clear();
    value.extend_from_slice(&stamp.as_bytes()[..stamp.len().min(len_max)]);
    let len = rng.between(value.len() as u64, len_max.max(value.len()) as u64) as usize;
    let random = value.len() + (len - value.len()) / 2;
    let start = value.len();
    value.resize(random, 0);
    rng.fill(&mut value[start..]);
    value.resize(len, rng.next_u64() as u8);
}
