//! Idempotent and transactional producers of one partition: which batch comes next, which came already, who is fenced
//! (KIP-98, KIP-890).

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use crate::batch::{BatchHeader, Marker};

use super::transactions::{AbortedTransaction, Transactions};

/// Batches remembered per producer: duplicates of these are recognised, as in Kafka.
const REMEMBERED: usize = 5;
/// Batches kept per producer: the remembered ones of the durable log and as many again that may be in flight, so
/// that a checkpoint of the durable part is never short of them. A producer has five requests in flight at most.
const KEPT: usize = 2 * REMEMBERED;

/// One batch of a producer, or the first sign of a new epoch that has no sequence: a marker, or an offset in a
/// transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record, or -1.
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
    /// Its last batches, oldest first; those of older epochs only as long as a checkpoint may have to tell of them.
    pub batches: VecDeque<ProducerBatch>,
    /// Wall clock of its last append, milliseconds.
    pub last_append_ms: i64,
    /// Epoch of the coordinator that wrote its newest marker, or -1.
    pub coordinator_epoch: i32,
}

impl Producer {
    /// Sequence of its last record in this epoch, or -1.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let last = self.batches.back().filter(|b| b.epoch == self.epoch);
        last.map_or(-1, |batch| batch.last_sequence)
    }
}

/// Producers of one partition, and their transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    table: HashMap<i64, Producer>,
    /// Only where there are any.
    transactions: Option<Box<Transactions>>,
}

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
    /// A batch outside the transaction that its producer has under way.
    #[error("not part of the transaction under way")]
    NotTransactional,
    /// A marker of a coordinator that is no longer the one.
    #[error("coordinator epoch {got}, {current} is current")]
    CoordinatorFenced {
        /// As in the marker.
        got: i32,
        /// The newest.
        current: i32,
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
    pub fn from_parts(table: HashMap<i64, Producer>, transactions: Transactions) -> Self {
        Self {
            table,
            transactions: (!transactions.is_empty()).then(|| Box::new(transactions)),
        }
    }

    /// The producers alone, as the mutation `forget_transactions` wants them.
    #[must_use]
    pub fn without_transactions(self) -> Self {
        Self {
            transactions: None,
            ..self
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.table.iter().map(|(&id, producer)| (id, producer))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: i64) -> Option<&Producer> {
        self.table.get(&id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Their transactions, if any are remembered.
    #[must_use]
    pub fn transactions(&self) -> Option<&Transactions> {
        self.transactions.as_deref()
    }

    /// First offset of the producer's transaction, if one is under way.
    #[must_use]
    pub fn ongoing(&self, id: i64) -> Option<i64> {
        self.transactions.as_ref()?.ongoing(id)
    }

    /// Whether the producer has a transaction under way in this epoch.
    #[must_use]
    pub fn has_begun(&self, id: i64, epoch: i16) -> bool {
        self.ongoing(id).is_some() && self.get(id).is_some_and(|p| p.epoch == epoch)
    }

    /// The first offset of the oldest transaction whose end is not durable.
    #[must_use]
    pub fn first_unstable(&self) -> Option<i64> {
        self.transactions.as_ref()?.first_unstable()
    }

    /// Aborted transactions with records in `from..to`.
    pub fn aborted_between(&self, from: i64, to: i64) -> impl Iterator<Item = &AbortedTransaction> {
        let transactions = self.transactions.iter();
        transactions.flat_map(move |t| t.aborted_between(from, to))
    }

    /// Holds a batch against what is known of its producer; Kafka's rules: a producer unknown here may begin with
    /// any sequence, a new epoch begins with 0, and so does whoever follows a marker of its own epoch without having
    /// sent anything. Batches without a sequence come from the broker.
    ///
    /// # Errors
    /// [`ProducerError`].
    pub fn check(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        let id = header.producer_id.get();
        let Some(producer) = self.table.get(&id) else {
            return Ok(ProducerCheck::Next);
        };
        let (epoch, got) = (header.producer_epoch.get(), header.base_sequence.get());
        if epoch < producer.epoch {
            return Err(ProducerError::Fenced {
                got: epoch,
                current: producer.epoch,
            });
        }
        if got >= 0
            && let ProducerCheck::Duplicate(batch) = producer.check_sequence(header)?
        {
            return Ok(ProducerCheck::Duplicate(batch));
        }
        if !header.is_transactional() && self.ongoing(id).is_some() {
            return Err(ProducerError::NotTransactional);
        }
        Ok(ProducerCheck::Next)
    }

    /// Holds a marker against what is known of its producer.
    ///
    /// # Errors
    /// [`ProducerError`].
    pub fn check_marker(&self, header: &BatchHeader, marker: Marker) -> Result<(), ProducerError> {
        let Some(producer) = self.table.get(&header.producer_id.get()) else {
            return Ok(());
        };
        let (got, current) = (header.producer_epoch.get(), producer.epoch);
        if got < current {
            return Err(ProducerError::Fenced { got, current });
        }
        let (got, current) = (marker.coordinator_epoch, producer.coordinator_epoch);
        if got < current {
            return Err(ProducerError::CoordinatorFenced { got, current });
        }
        Ok(())
    }

    /// Notes an appended batch, its offsets assigned; `marker` is what [`Marker::read`] says of it.
    pub fn note(&mut self, header: &BatchHeader, marker: Option<Marker>, frame: u64, now_ms: i64) {
        let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
        let producer = self.table.entry(id).or_insert_with(|| Producer {
            epoch: -1,
            batches: VecDeque::new(),
            last_append_ms: now_ms,
            coordinator_epoch: -1,
        });
        let is_news = epoch > producer.epoch;
        producer.epoch = producer.epoch.max(epoch);
        producer.last_append_ms = now_ms;
        let first_sequence = header.base_sequence.get();
        // A checkpoint may be made of the log before this batch: batches of the epoch before are kept for a while.
        if first_sequence >= 0 || is_news {
            if producer.batches.len() == KEPT {
                producer.batches.pop_front();
            }
            producer.batches.push_back(ProducerBatch {
                epoch,
                first_sequence,
                last_sequence: match first_sequence {
                    0.. => sequence_after(first_sequence, header.last_offset_delta.get()),
                    _ => -1,
                },
                base_offset: header.base_offset.get(),
                last_offset: header.last_offset(),
                frame,
            });
        }
        let offset = header.base_offset.get();
        if let Some(marker) = marker {
            producer.coordinator_epoch = marker.coordinator_epoch;
            if let Some(transactions) = &mut self.transactions {
                transactions.end(id, offset, !marker.committed);
            }
        } else if header.is_transactional() && !header.is_control() {
            self.transactions.get_or_insert_default().wrote(id, offset);
        }
    }

    /// The log is durable up to `end`.
    pub fn advance(&mut self, end: i64) {
        if let Some(transactions) = &mut self.transactions {
            transactions.advance(end);
            if transactions.is_empty() {
                self.transactions = None;
            }
        }
    }

    /// Whether a batch is the one by which its producer is known: its last with a sequence, or, where it has sent none,
    /// a marker of its epoch. (`lastRecordsOfActiveProducers` in Kafka)
    #[must_use]
    pub fn is_known_by(&self, header: &BatchHeader) -> bool {
        let Some(producer) = self.table.get(&header.producer_id.get()) else {
            return false;
        };
        let data = producer.batches.iter().rev();
        match data.clone().find(|batch| batch.first_sequence >= 0) {
            Some(last) => last.last_offset == header.last_offset(),
            None => header.is_control() && header.producer_epoch.get() == producer.epoch,
        }
    }

    /// Forgets aborted transactions of which nothing is left in the log.
    pub fn forget_aborted(&mut self, gone: &[AbortedTransaction]) {
        if let Some(transactions) = &mut self.transactions {
            transactions.forget_aborted(gone);
            if transactions.is_empty() {
                self.transactions = None;
            }
        }
    }

    /// The log begins at `log_start`.
    pub fn trim(&mut self, log_start: i64) {
        if let Some(transactions) = &mut self.transactions {
            transactions.trim(log_start);
        }
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

    /// Forgets producers that have not appended since `before_ms` and have no transaction under way.
    pub fn expire(&mut self, before_ms: i64) {
        let transactions = &self.transactions;
        let is_busy = |id| {
            transactions
                .as_ref()
                .is_some_and(|t| t.ongoing(id).is_some())
        };
        self.table
            .retain(|&id, producer| producer.last_append_ms >= before_ms || is_busy(id));
    }
}

impl Producer {
    /// Holds a batch of this epoch or a newer one against the last ones.
    fn check_sequence(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        let (epoch, got) = (header.producer_epoch.get(), header.base_sequence.get());
        if epoch > self.epoch {
            return if got == 0 {
                Ok(ProducerCheck::Next)
            } else {
                Err(ProducerError::OutOfOrder { got, expected: 0 })
            };
        }
        let last = sequence_after(got, header.last_offset_delta.get());
        let known = self.batches.iter().rev().take(REMEMBERED);
        if let Some(batch) = known
            .take_while(|batch| batch.epoch == epoch)
            .copied()
            .find(|b| b.first_sequence == got && b.last_sequence == last)
        {
            return Ok(ProducerCheck::Duplicate(batch));
        }
        let newest = self.batches.back().filter(|batch| batch.epoch == epoch);
        match newest.map(|batch| sequence_after(batch.last_sequence, 1)) {
            Some(expected) if expected != got => Err(ProducerError::OutOfOrder { got, expected }),
            _ => Ok(ProducerCheck::Next),
        }
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
        producers.note(&first, None, 1, 0);
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
        producers.note(&next_epoch, None, 2, 0);
        let fenced = ProducerError::Fenced { got: 0, current: 1 };
        assert_eq!(producers.check(&header(7, 0, 50, 1, 111)), Err(fenced));
    }

    #[test]
    fn remembers_five_and_wraps() {
        let mut producers = Producers::default();
        for n in 0..6 {
            producers.note(&header(1, 0, n, 1, i64::from(n)), None, 1, 0);
        }
        assert!(matches!(
            producers.check(&header(1, 0, 1, 1, 9)),
            Ok(ProducerCheck::Duplicate(_))
        ));
        assert!(producers.check(&header(1, 0, 0, 1, 9)).is_err());
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        producers.note(&header(2, 0, i32::MAX - 1, 2, 10), None, 1, 0);
        assert_eq!(
            producers.check(&header(2, 0, 0, 1, 12)),
            Ok(ProducerCheck::Next)
        );
    }

    #[test]
    fn a_checkpoint_speaks_only_of_the_durable_part() {
        let mut producers = Producers::default();
        for n in 0..10 {
            producers.note(&header(1, 0, n, 1, i64::from(n)), None, 1, 0);
        }
        let (_, producer) = producers.iter().next().unwrap();
        let offsets: Vec<i64> = Producers::batches_before(producer, 7)
            .map(|b| b.base_offset)
            .collect();
        assert_eq!(offsets, [2, 3, 4, 5, 6]);
    }

    fn marked(producers: &mut Producers, epoch: i16, committed: bool, offset: i64) {
        let marker = Marker {
            committed,
            coordinator_epoch: 4,
        };
        let mut batch = marker.batch(7, epoch, 0);
        crate::batch::header::assign(&mut batch, offset, 0);
        let header = *BatchHeader::read(&batch).unwrap();
        producers.check_marker(&header, marker).unwrap();
        producers.note(&header, Some(marker), 1, 0);
    }

    fn transactional(epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
        let mut header = header(7, epoch, sequence, 1, offset);
        header.attributes = crate::batch::header::ATTR_TRANSACTIONAL.into();
        header
    }

    #[test]
    fn a_marker_that_raises_the_epoch_fences_and_restarts_sequences() {
        let mut producers = Producers::default();
        producers.note(&transactional(0, 0, 10), None, 1, 0);
        assert_eq!(producers.ongoing(7), Some(10));
        let plain = header(7, 0, 1, 1, 11);
        assert_eq!(
            producers.check(&plain),
            Err(ProducerError::NotTransactional)
        );
        marked(&mut producers, 1, true, 11);
        assert_eq!(producers.ongoing(7), None);
        let late = ProducerError::Fenced { got: 0, current: 1 };
        assert_eq!(producers.check(&transactional(0, 1, 12)), Err(late));
        let gap = ProducerError::OutOfOrder {
            got: 1,
            expected: 0,
        };
        assert_eq!(producers.check(&transactional(1, 1, 12)), Err(gap));
        assert_eq!(
            producers.check(&transactional(1, 0, 12)),
            Ok(ProducerCheck::Next)
        );
        let (_, producer) = producers.iter().next().unwrap();
        assert_eq!(
            (producer.coordinator_epoch, producer.last_sequence()),
            (4, -1)
        );
        let old = Marker {
            committed: true,
            coordinator_epoch: 3,
        };
        let batch = old.batch(7, 1, 0);
        let refused = producers.check_marker(BatchHeader::read(&batch).unwrap(), old);
        let fenced = ProducerError::CoordinatorFenced { got: 3, current: 4 };
        assert_eq!(refused, Err(fenced));
    }

    #[test]
    fn a_marker_of_the_same_epoch_lets_sequences_go_on() {
        let mut producers = Producers::default();
        producers.note(&transactional(0, 0, 10), None, 1, 0);
        marked(&mut producers, 0, false, 11);
        let next = producers.check(&transactional(0, 1, 12));
        assert_eq!(next, Ok(ProducerCheck::Next));
        assert!(matches!(
            producers.check(&transactional(0, 0, 12)),
            Ok(ProducerCheck::Duplicate(_))
        ));
        producers.advance(12);
        assert_eq!(producers.aborted_between(0, 20).count(), 1);
        producers.trim(12);
        assert_eq!(producers.aborted_between(0, 20).count(), 0);
    }

    #[test]
    fn producers_with_a_transaction_under_way_are_not_forgotten() {
        let mut producers = Producers::default();
        producers.note(&transactional(0, 0, 10), None, 1, 0);
        producers.note(&header(8, 0, 0, 1, 11), None, 1, 0);
        producers.expire(1);
        assert!(producers.get(7).is_some() && producers.get(8).is_none());
    }
}
