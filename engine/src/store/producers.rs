//! Idempotent producers of one partition: which batch comes next, which came already (KIP-98).

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use crate::batch::BatchHeader;

/// Batches remembered per producer: duplicates of these are recognised, as in Kafka.
const REMEMBERED: usize = 5;
/// Batches kept per producer: the remembered ones of the durable log and as many again that may be in flight, so
/// that a checkpoint of the durable part is never short of them. A producer has five requests in flight at most.
const KEPT: usize = 2 * REMEMBERED;

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Sequence of the last record.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Journal frame that holds it; 0 for batches of an earlier run, which are durable.
    pub frame: u64,
}

/// What is known of one producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Newest epoch seen.
    pub epoch: i16,
    /// Its last batches, oldest first.
    pub batches: VecDeque<ProducerBatch>,
    /// Wall clock of its last append, milliseconds.
    pub last_append_ms: i64,
}

/// Producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers(HashMap<i64, Producer>);

/// What a batch of an idempotent producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    /// The next one: append it.
    Next,
    /// One that is here already.
    Duplicate(ProducerBatch),
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProducerError {
    /// The sequence does not follow.
    #[error("sequence {got}, expected {expected}")]
    OutOfOrder {
        /// As in the batch.
        got: i32,
        /// What would follow.
        expected: i32,
    },
    /// The epoch is older than the newest seen.
    #[error("epoch {got}, {current} is current")]
    Fenced {
        /// As in the batch.
        got: i16,
        /// The newest.
        current: i16,
    },
}

/// The sequence `delta` after `sequence`: wraps from `i32::MAX` to 0.
#[must_use]
fn sequence_after(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

impl Producers {
    /// From a checkpoint.
    #[must_use]
    pub fn from_map(producers: HashMap<i64, Producer>) -> Self {
        Self(producers)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.0.iter().map(|(&id, producer)| (id, producer))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds a batch against what is known of its producer; Kafka's rules: a producer unknown here may begin with
    /// any sequence, a new epoch begins with 0.
    ///
    /// # Errors
    /// [`ProducerError`].
    pub fn check(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        let Some(producer) = self.0.get(&header.producer_id.get()) else {
            return Ok(ProducerCheck::Next);
        };
        let (epoch, got) = (header.producer_epoch.get(), header.base_sequence.get());
        if epoch < producer.epoch {
            return Err(ProducerError::Fenced {
                got: epoch,
                current: producer.epoch,
            });
        }
        if epoch > producer.epoch {
            return if got == 0 {
                Ok(ProducerCheck::Next)
            } else {
                Err(ProducerError::OutOfOrder { got, expected: 0 })
            };
        }
        let last = sequence_after(got, header.last_offset_delta.get());
        let known = producer.batches.iter().rev().take(REMEMBERED);
        if let Some(batch) = known
            .copied()
            .find(|b| b.first_sequence == got && b.last_sequence == last)
        {
            return Ok(ProducerCheck::Duplicate(batch));
        }
        match producer
            .batches
            .back()
            .map(|batch| sequence_after(batch.last_sequence, 1))
        {
            Some(expected) if expected != got => Err(ProducerError::OutOfOrder { got, expected }),
            _ => Ok(ProducerCheck::Next),
        }
    }

    /// Notes an appended batch, its offsets assigned.
    pub fn note(&mut self, header: &BatchHeader, frame: u64, now_ms: i64) {
        let epoch = header.producer_epoch.get();
        let producer = self
            .0
            .entry(header.producer_id.get())
            .or_insert_with(|| Producer {
                epoch,
                batches: VecDeque::new(),
                last_append_ms: now_ms,
            });
        if epoch > producer.epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer.last_append_ms = now_ms;
        if header.base_sequence.get() < 0 {
            return; // a transaction marker has no sequence
        }
        if producer.batches.len() == KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence.get(),
            last_sequence: sequence_after(
                header.base_sequence.get(),
                header.last_offset_delta.get(),
            ),
            base_offset: header.base_offset.get(),
            last_offset: header.last_offset(),
            frame,
        });
    }

    /// The batches of `producer` that a checkpoint of the log before `end` may speak of, newest last.
    pub fn batches_before(
        producer: &Producer,
        end: i64,
    ) -> impl DoubleEndedIterator<Item = &ProducerBatch> {
        let durable = producer
            .batches
            .partition_point(|batch| batch.last_offset < end);
        producer
            .batches
            .range(durable.saturating_sub(REMEMBERED)..durable)
    }

    /// Forgets producers that have not appended since `before_ms`.
    pub fn expire(&mut self, before_ms: i64) {
        self.0
            .retain(|_, producer| producer.last_append_ms >= before_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord};

    fn header(
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        count: i32,
        base_offset: i64,
    ) -> BatchHeader {
        let mut builder = BatchBuilder::new();
        for _ in 0..count {
            builder.push(&NewRecord {
                value: Some(b"x"),
                ..NewRecord::default()
            });
        }
        builder = builder.producer(producer_id, epoch, sequence);
        let mut batch = builder.build().unwrap();
        crate::batch::header::assign(&mut batch, base_offset, 0);
        *BatchHeader::read(&batch).unwrap()
    }

    #[test]
    fn next_duplicate_gap_and_fence() {
        let mut producers = Producers::default();
        let first = header(7, 0, 40, 10, 100);
        assert_eq!(producers.check(&first), Ok(ProducerCheck::Next));
        producers.note(&first, 1, 0);
        assert!(
            matches!(producers.check(&first), Ok(ProducerCheck::Duplicate(b)) if b.base_offset == 100)
        );
        assert_eq!(
            producers.check(&header(7, 0, 50, 1, 110)),
            Ok(ProducerCheck::Next)
        );
        let gap = ProducerError::OutOfOrder {
            got: 51,
            expected: 50,
        };
        assert_eq!(producers.check(&header(7, 0, 51, 1, 110)), Err(gap));
        let restart = ProducerError::OutOfOrder {
            got: 50,
            expected: 0,
        };
        assert_eq!(producers.check(&header(7, 1, 50, 1, 110)), Err(restart));
        let next_epoch = header(7, 1, 0, 1, 110);
        assert_eq!(producers.check(&next_epoch), Ok(ProducerCheck::Next));
        producers.note(&next_epoch, 2, 0);
        let fenced = ProducerError::Fenced { got: 0, current: 1 };
        assert_eq!(producers.check(&header(7, 0, 50, 1, 111)), Err(fenced));
    }

    #[test]
    fn remembers_five_and_wraps() {
        let mut producers = Producers::default();
        for n in 0..6 {
            producers.note(&header(1, 0, n, 1, i64::from(n)), 1, 0);
        }
        assert!(matches!(
            producers.check(&header(1, 0, 1, 1, 9)),
            Ok(ProducerCheck::Duplicate(_))
        ));
        assert!(producers.check(&header(1, 0, 0, 1, 9)).is_err());
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        producers.note(&header(2, 0, i32::MAX - 1, 2, 10), 1, 0);
        assert_eq!(
            producers.check(&header(2, 0, 0, 1, 12)),
            Ok(ProducerCheck::Next)
        );
    }

    #[test]
    fn a_checkpoint_speaks_only_of_the_durable_part() {
        let mut producers = Producers::default();
        for n in 0..10 {
            producers.note(&header(1, 0, n, 1, i64::from(n)), 1, 0);
        }
        let (_, producer) = producers.iter().next().unwrap();
        let offsets: Vec<i64> = Producers::batches_before(producer, 7)
            .map(|b| b.base_offset)
            .collect();
        assert_eq!(offsets, [2, 3, 4, 5, 6]);
    }
}
