//! What a partition's log must hold, by what was asked of it and answered.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::traffic::{KeyOf, Kind, Sent};
use super::transactions::Transactions;
use crate::batch::header::{ATTR_LOG_APPEND_TIME, CRC_START, assign};
use crate::checksum::crc32c;
use crate::core::{AppendError, Appended, LogConfig, TimedOffset};
use crate::id::{FrameSeq, Part, PartitionKey};

/// Batches remembered for each producer, as in Kafka.
const REMEMBERED: usize = 5;

/// One accepted batch, as it must be read back.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) base_offset: i64,
    pub(super) bytes: Rc<[u8]>,
    /// Of each record.
    pub(super) timestamps: Rc<[i64]>,
    /// Key of each record, and whether it has a value.
    pub(super) keys: Rc<[KeyOf]>,
    pub(super) frame: FrameSeq,
    pub(super) leader_epoch: i32,
    pub(super) producer: Option<(i64, i16, i32)>,
    pub(super) kind: Kind,
}

impl Entry {
    pub(super) fn end(&self) -> i64 {
        self.base_offset + self.timestamps.len() as i64
    }

    pub(super) fn max_timestamp(&self) -> i64 {
        self.timestamps.iter().copied().max().unwrap_or(-1)
    }
}

/// What the log should say to an idempotent batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fresh,
    Duplicate { base_offset: i64, frame: FrameSeq },
    Fenced,
    OutOfOrder,
    TooOld,
}

#[derive(Debug, Default, Clone)]
struct ProducerState {
    epoch: i16,
    /// Index into the entries of the last batches of this epoch, oldest first.
    recent: Vec<usize>,
}

/// The log of one partition from its creation to its deletion.
#[derive(Debug)]
pub(super) struct PartitionModel {
    pub(super) key: PartitionKey,
    pub(super) config: LogConfig,
    /// Settings it had before.
    pub(super) earlier_configs: Vec<LogConfig>,
    pub(super) shard: u32,
    pub(super) part: Part,
    pub(super) entries: Vec<Entry>,
    /// The first so many entries were seen durable: no crash may take them.
    pub(super) durable: usize,
    /// Last seen log start.
    pub(super) log_start: i64,
    /// Generation of the shard's checkpoint when it was first seen; 0 is the one that the run began with.
    log_start_generation: u64,
    /// Where the log was asked to begin (DeleteRecords), ever.
    pub(super) deletions: BTreeSet<i64>,
    /// The furthest of them in this life.
    pub(super) deleted_to: i64,
    /// Last seen high watermark.
    pub(super) high_watermark: i64,
    pub(super) leader_epoch: i32,
    /// Its topic is gone; answers to what was asked before may still come.
    pub(super) deleted: bool,
    /// Its world compacts topics.
    pub(super) compacts: bool,
    /// Compaction has come up to here in this life; what it made may be gone since.
    pub(super) compacted_end: i64,
    /// Newest durable offset of each key, among the records that count.
    pub(super) newest: BTreeMap<Rc<[u8]>, i64>,
    pub(super) transactions: Transactions,
    producers: BTreeMap<i64, ProducerState>,
}

impl PartitionModel {
    pub(super) fn new(key: PartitionKey, config: LogConfig, shard: u32, part: Part) -> Self {
        Self {
            key,
            config,
            earlier_configs: Vec::new(),
            shard,
            part,
            entries: Vec::new(),
            durable: 0,
            log_start: 0,
            log_start_generation: 0,
            deletions: BTreeSet::new(),
            deleted_to: 0,
            high_watermark: 0,
            leader_epoch: 0,
            deleted: false,
            compacts: false,
            compacted_end: 0,
            newest: BTreeMap::new(),
            transactions: Transactions::default(),
            producers: BTreeMap::new(),
        }
    }

    pub(super) fn end(&self) -> i64 {
        self.entries.last().map_or(0, Entry::end)
    }

    /// End of what is durable.
    pub(super) fn durable_end(&self) -> i64 {
        self.entries[..self.durable].last().map_or(0, Entry::end)
    }

    /// Index of the entry that holds `offset`.
    pub(super) fn entry_at(&self, offset: i64) -> usize {
        self.entries.partition_point(|e| e.end() <= offset)
    }

    /// The core said that everything up to `frame` is durable.
    pub(super) fn observe_durable(&mut self, frame: FrameSeq) {
        let newer = &self.entries[self.durable..];
        let count = newer.partition_point(|e| e.frame <= frame);
        self.decide(self.durable, self.durable + count);
        self.durable += count;
    }

    /// What the log should say to `sent`.
    pub(super) fn judge(&self, sent: &Sent) -> Verdict {
        let Some((id, epoch, sequence)) = sent.producer else {
            return Verdict::Fresh;
        };
        let Some(state) = self.producers.get(&id) else {
            return Verdict::Fresh;
        };
        if epoch < state.epoch {
            return Verdict::Fenced;
        }
        if matches!(sent.kind, Kind::Marker { .. }) {
            return Verdict::Fresh;
        }
        if epoch > state.epoch {
            return if sequence == 0 {
                Verdict::Fresh
            } else {
                Verdict::OutOfOrder
            };
        }
        let recent = state.recent.iter().map(|&i| &self.entries[i]);
        let mut expected = 0;
        for entry in recent {
            let base = entry.producer.map_or(0, |(_, _, sequence)| sequence);
            let count = entry.timestamps.len() as i32;
            if base == sequence && count == sent.count() {
                return Verdict::Duplicate {
                    base_offset: entry.base_offset,
                    frame: entry.frame,
                };
            }
            expected = sequence_after(base, count);
        }
        let distance = sequence.wrapping_sub(expected);
        match distance {
            0 => Verdict::Fresh,
            d if d < 0 && d > i32::MIN / 2 => Verdict::TooOld,
            _ => Verdict::OutOfOrder,
        }
    }

    /// Checks the core's answer to `sent` and records what it accepted.
    pub(super) fn appended(
        &mut self,
        sent: &Sent,
        result: Result<Appended, AppendError>,
        epoch: i32,
    ) {
        let verdict = self.judge(sent);
        match (&verdict, &result) {
            (Verdict::Fresh, Ok(appended)) => {
                assert!(
                    !appended.duplicate,
                    "invariant: fresh batch taken for a duplicate: {sent:?}"
                );
                assert_eq!(
                    appended.base_offset,
                    self.end(),
                    "invariant: offsets are contiguous"
                );
                let last = self.entries.last().map_or(FrameSeq(0), |e| e.frame);
                assert!(
                    appended.frame >= last,
                    "invariant: frames of a partition rise"
                );
                self.push(sent, appended, epoch);
            }
            (Verdict::Duplicate { base_offset, frame }, Ok(appended)) => {
                assert!(
                    appended.duplicate && appended.base_offset == *base_offset,
                    "invariant: duplicate of offset {base_offset} answered {appended:?}"
                );
                assert!(
                    appended.frame == *frame || self.is_durable(*base_offset),
                    "invariant: duplicate acked with frame {:?}, the original is in {frame:?}",
                    appended.frame
                );
            }
            (Verdict::Fenced, Err(AppendError::ProducerFenced { .. }))
            | (
                Verdict::OutOfOrder | Verdict::TooOld,
                Err(AppendError::OutOfOrderSequence { .. }),
            )
            | (_, Err(AppendError::Busy | AppendError::StorageFull | AppendError::Closed)) => {}
            _ => panic!(
                "invariant: {:?} of producer {:?} should be {verdict:?}, got {result:?}",
                self.key, sent.producer
            ),
        }
    }

    fn is_durable(&self, base_offset: i64) -> bool {
        base_offset < self.durable_end()
    }

    fn push(&mut self, sent: &Sent, appended: &Appended, leader_epoch: i32) {
        let (bytes, timestamps) = self.stored(sent, appended, leader_epoch);
        assert_eq!(
            appended.append_time_ms >= 0,
            self.config.log_append_time,
            "invariant: append time is set by topics with LogAppendTime"
        );
        self.entries.push(Entry {
            base_offset: appended.base_offset,
            bytes,
            timestamps,
            keys: sent.keys.clone(),
            frame: appended.frame,
            leader_epoch,
            producer: sent.producer,
            kind: sent.kind,
        });
        self.remember(self.entries.len() - 1);
    }

    /// The batch as it must be stored: the broker owns base offset, leader epoch and, with `LogAppendTime`, the
    /// time stamps.
    fn stored(&self, sent: &Sent, appended: &Appended, epoch: i32) -> (Rc<[u8]>, Rc<[i64]>) {
        let mut bytes = sent.bytes.to_vec();
        let mut timestamps = sent.timestamps.clone();
        if self.config.log_append_time {
            bytes[22] |= ATTR_LOG_APPEND_TIME as u8;
            bytes[35..43].copy_from_slice(&appended.append_time_ms.to_be_bytes());
            let crc = crc32c(&bytes[CRC_START..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            timestamps = vec![appended.append_time_ms; timestamps.len()].into();
        }
        assign(&mut bytes, appended.base_offset, epoch);
        (bytes.into(), timestamps)
    }

    fn remember(&mut self, index: usize) {
        let entry = &self.entries[index];
        let Some((id, epoch, _)) = entry.producer else {
            return;
        };
        self.transactions.accepted(id, entry);
        let state = self.producers.entry(id).or_default();
        if state.epoch != epoch {
            state.recent.clear();
        }
        state.epoch = epoch;
        if matches!(entry.kind, Kind::Marker { .. }) {
            return; // has no sequence
        }
        state.recent.push(index);
        if state.recent.len() > REMEMBERED {
            state.recent.remove(0);
        }
    }

    /// A restart found the log ending at `log_end`: no less than what was durable, no more than what was accepted,
    /// and no part of a batch. Damage may take what lies behind frame `vouched`. Returns the newest frame that was
    /// kept and the oldest that was lost.
    pub(super) fn restarted(
        &mut self,
        log_end: i64,
        vouched: Option<FrameSeq>,
    ) -> (Option<FrameSeq>, Option<FrameSeq>) {
        let kept = self.entries.partition_point(|e| e.end() <= log_end);
        let durable = &self.entries[..self.durable];
        let promised = vouched.map_or(self.durable, |vouched| {
            durable.partition_point(|e| e.frame <= vouched)
        });
        assert!(
            kept >= promised,
            "invariant: {:?} lost durable data: ends at {log_end}, {} was durable",
            self.key,
            self.durable_end()
        );
        let end = self.entries[..kept].last().map_or(0, Entry::end);
        assert_eq!(
            end, log_end,
            "invariant: {:?} ends inside or behind its batches",
            self.key
        );
        let frames = (
            self.entries[..kept].last().map(|e| e.frame),
            self.entries.get(kept).map(|e| e.frame),
        );
        self.entries.truncate(kept);
        self.entries.iter_mut().for_each(|e| e.frame = FrameSeq(0));
        self.durable = kept;
        self.compacted_end = 0;
        self.newest.clear();
        self.high_watermark = self.high_watermark.min(end);
        self.producers.clear();
        self.transactions.restarted(vouched.is_some());
        for index in 0..kept {
            self.remember(index);
        }
        self.decide(0, kept);
        frames
    }

    /// A restart found the log beginning at `log_start`: never before where it was seen to begin. Damage may undo only a
    /// checkpoint later than generation `vouched`.
    pub(super) fn restarted_log_start(&mut self, log_start: i64, vouched: Option<u64>) {
        let promised = vouched.is_none_or(|vouched| self.log_start_generation <= vouched);
        assert!(
            log_start >= self.log_start || !promised,
            "invariant: {:?} begins at {log_start} again, it began at {}",
            self.key,
            self.log_start
        );
        self.log_start = self.log_start.min(log_start);
        self.log_start_generation = 0;
        self.deleted_to = 0;
    }

    /// The newest epoch of a producer.
    pub(super) fn epoch_of(&self, producer_id: i64) -> i16 {
        self.producers.get(&producer_id).map_or(0, |p| p.epoch)
    }

    /// The core will let the log begin at `offset`.
    pub(super) fn deleting(&mut self, offset: i64) {
        self.deletions.insert(offset);
        self.deleted_to = self.deleted_to.max(offset);
    }

    /// The log begins at `offset`, as the checkpoint of this generation says.
    pub(super) fn begins_at(&mut self, offset: i64, generation: u64) {
        self.log_start = offset;
        self.log_start_generation = generation;
    }

    /// The first record from `log_start` up to `end` whose time stamp is at least `timestamp_ms`.
    pub(super) fn find_time(
        &self,
        log_start: i64,
        end: i64,
        timestamp_ms: i64,
    ) -> Option<TimedOffset> {
        let entries = self.entries[self.entry_at(log_start)..].iter();
        let readable = entries.take_while(|e| e.end() <= end);
        let mut found = readable.filter_map(|e| {
            let there = |at: usize| e.base_offset + at as i64 >= log_start;
            let mut records = e.timestamps.iter().enumerate();
            let (record, _) = records.find(|&(at, &t)| t >= timestamp_ms && there(at))?;
            Some(TimedOffset {
                offset: e.base_offset + record as i64,
                timestamp_ms: e.timestamps[record],
                leader_epoch: e.leader_epoch,
            })
        });
        found.next()
    }

    /// Bytes of the batches from `offset` on.
    pub(super) fn bytes_from(&self, offset: i64) -> u64 {
        let entries = &self.entries[self.entry_at(offset)..];
        entries.iter().map(|e| e.bytes.len() as u64).sum()
    }
}

fn sequence_after(base: i32, count: i32) -> i32 {
    // Sequences wrap from i32::MAX to 0.
    ((i64::from(base) + i64::from(count)) % (1 << 31)) as i32
}
