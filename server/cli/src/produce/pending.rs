//! Records that wait for their batch to fill.

use std::collections::BTreeMap;

use ringlog_engine::batch::{BatchBuilder, Compression, NewRecord as Encoded};

use super::lines::Place;
use super::parse::NewRecord;
use super::partitioner::Partitioner;
use crate::failure::{Failure, Outcome};

/// Largest batch, whatever its codec makes of it: the protocol's length fields have 31 bits.
const BATCH_BYTES_MAX: usize = 100 << 20;

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A batch of so many bytes, uncompressed, is sent.
    pub(crate) batch_bytes: usize,
    /// How it is compressed.
    pub(crate) codec: Compression,
}

/// Records of one partition that are sent together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) partition: i32,
    /// Not built before the producer's id and sequence are known.
    pub(crate) builder: BatchBuilder,
    pub(crate) records: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// Where each record came from.
    pub(crate) places: Vec<Place>,
}

impl Batch {
    fn new(partition: i32, codec: Compression) -> Self {
        Self {
            partition,
            builder: BatchBuilder::new().compression(codec),
            records: 0,
            bytes: 0,
            places: Vec::new(),
        }
    }

    /// Where its records came from.
    pub(crate) fn place(&self) -> String {
        match (self.places.first(), self.places.last()) {
            (Some(first), Some(last)) => first.to(last),
            _ => "no line".into(),
        }
    }
}

/// Batches that are not full.
#[derive(Debug)]
pub(crate) struct Pending {
    partitioner: Partitioner,
    limits: Limits,
    open: BTreeMap<i32, Batch>,
}

impl Pending {
    pub(crate) fn new(partitioner: Partitioner, limits: Limits) -> Self {
        Self {
            partitioner,
            limits,
            open: BTreeMap::new(),
        }
    }

    /// Adds a record; returns its partition's batch if that is full now.
    pub(crate) fn push(&mut self, record: &NewRecord<'_>, place: &Place) -> Outcome<Option<Batch>> {
        let key = record.key.as_deref();
        let Some(partition) = self.partitioner.choose(record.partition, key) else {
            let wanted = record.partition.unwrap_or(-1);
            return Err(
                Failure::new(format!("{place}: there is no partition {wanted}"))
                    .remedy("--partition sends every record to one that is there"),
            );
        };
        let codec = self.limits.codec;
        let batch = self
            .open
            .entry(partition)
            .or_insert_with(|| Batch::new(partition, codec));
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
            .collect();
        let value = record.value.as_deref();
        batch.builder.push(&Encoded {
            timestamp_ms: record.timestamp_ms,
            key,
            value,
            headers: &headers,
        });
        batch.records += 1;
        batch.bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
        batch.places.push(place.clone());
        let bytes = batch.builder.uncompressed_len();
        if bytes > BATCH_BYTES_MAX {
            return Err(Failure::new(format!(
                "{place}: a record of {bytes} bytes is more than fits a request"
            )));
        }
        match bytes >= self.limits.batch_bytes {
            true => Ok(self.open.remove(&partition)),
            false => Ok(None),
        }
    }

    /// All that waits.
    pub(crate) fn take_all(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.open).into_values().collect()
    }
}
