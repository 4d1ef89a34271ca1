//! Checkpoints: what recovery needs of every partition, so that it never has to open their files.
//!
//! One header block, then the partitions' records. The header carries the body's checksum, so a file counts
//! as a whole or not at all. Two slots are written in turn; the larger generation that is intact is the newest.
//! FORMAT.md draws the layout.

use std::collections::{HashMap, VecDeque};

use thiserror::Error;
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::buf::{AlignedBuf, BLOCK, BufPool, Slice};
use crate::checksum::crc32;
use crate::id::{FrameSeq, PartitionKey, TopicId};

use super::index::{IndexEntry, SparseIndex};
use super::log::{Epochs, Segment, StoredLog};
use super::producers::{Producer, ProducerBatch, Producers};
use super::transactions::{AbortedTransaction, Transactions};

const MAGIC: u32 = u32::from_le_bytes(*b"RLCP");
/// Version of the checkpoint's layout; FORMAT.md describes this one.
pub const CHECKPOINT_VERSION: u16 = 3;
/// An earlier version that is read, too: nothing in it was compacted.
const VERSION_UNCOMPACTED: u16 = 2;
/// Scope of the checkpoint that recovery writes for all shards.
const MERGED: u32 = u32::MAX;
const FLAG_CLEAN: u16 = 1;

/// First block of a checkpoint; the rest of the block is zero.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CheckpointHeader {
    magic: U32,
    version: U16,
    flags: U16,
    dir_id: [u8; 16],
    scope: U32,
    run: U32,
    shards: U32,
    leader_epoch: I32,
    generation: U64,
    cut: U64,
    body_len: U64,
    records: U32,
    body_crc: U32,
    crc: U32,
}

const _: () = assert!(size_of::<CheckpointHeader>() == 76);

impl CheckpointHeader {
    /// A header whose body is not known yet. `scope` is the shard or [`CheckpointHeader::MERGED`]; `cut` the
    /// newest journal frame that the checkpoint makes superfluous.
    #[must_use]
    pub fn new(dir_id: [u8; 16], scope: u32, run: u32, shards: u32, leader_epoch: i32) -> Self {
        Self {
            magic: MAGIC.into(),
            version: CHECKPOINT_VERSION.into(),
            flags: 0.into(),
            dir_id,
            scope: scope.into(),
            run: run.into(),
            shards: shards.into(),
            leader_epoch: leader_epoch.into(),
            generation: 0.into(),
            cut: 0.into(),
            body_len: 0.into(),
            records: 0.into(),
            body_crc: 0.into(),
            crc: 0.into(),
        }
    }

    /// Scope of the checkpoint that recovery writes for all shards together.
    pub const MERGED: u32 = MERGED;

    /// Sets generation, cut, and whether the shard stopped cleanly with it.
    #[must_use]
    pub fn with(mut self, generation: u64, cut: FrameSeq, clean: bool) -> Self {
        self.generation = generation.into();
        self.cut = cut.0.into();
        self.flags = if clean { FLAG_CLEAN } else { 0 }.into();
        self
    }

    /// The header at the start of `block`, if it is intact and of this version.
    #[must_use]
    pub fn read(block: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        (header.magic.get() == MAGIC
            && is_known(header.version.get())
            && header.crc.get() == header.compute_crc())
        .then_some(header)
    }

    /// The version of an intact header of another version: what wrote it keeps its data in another way.
    #[must_use]
    pub fn foreign_version(block: &[u8]) -> Option<u16> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        let version = header.version.get();
        (header.magic.get() == MAGIC
            && !is_known(version)
            && header.crc.get() == header.compute_crc())
        .then_some(version)
    }

    fn compute_crc(&self) -> u32 {
        let bytes = self.as_bytes();
        crc32(&bytes[..bytes.len() - 4])
    }

    /// The data directory it belongs to.
    #[must_use]
    pub fn dir_id(&self) -> [u8; 16] {
        self.dir_id
    }
    /// The shard, or [`CheckpointHeader::MERGED`].
    #[must_use]
    pub fn scope(&self) -> u32 {
        self.scope.get()
    }
    /// The run that wrote it; a merged checkpoint starts this run.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run.get()
    }
    /// Shards of the run.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards.get()
    }
    /// Leader epoch of the run.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }
    /// Later checkpoints of a scope and run are larger.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }
    /// Journal frames up to this one are superfluous.
    #[must_use]
    pub fn cut(&self) -> FrameSeq {
        FrameSeq(self.cut.get())
    }
    /// The shard wrote it as its last act of a clean shutdown.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.flags.get() & FLAG_CLEAN != 0
    }
    /// Bytes of the body, behind the header block.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.body_len.get()
    }
    /// Version of the layout.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version.get()
    }
    /// CRC-32 of the body, for those who read it piece by piece.
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.body_crc.get()
    }
    /// Partitions in the body.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.records.get()
    }
}

fn is_known(version: u16) -> bool {
    matches!(version, CHECKPOINT_VERSION | VERSION_UNCOMPACTED)
}

/// Builds a checkpoint piece by piece: whole blocks to be written at rising offsets, the header block last.
#[derive(Debug)]
pub struct CheckpointWriter {
    header: CheckpointHeader,
    hasher: crc32fast::Hasher,
    records: u32,
    body_len: u64,
    pool: BufPool,
    piece: AlignedBuf,
    scratch: Vec<u8>,
}

impl CheckpointWriter {
    /// A checkpoint with this header, in pieces as large as the buffers of `pool`.
    #[must_use]
    pub fn new(header: CheckpointHeader, pool: BufPool) -> Self {
        Self {
            header,
            hasher: crc32fast::Hasher::new(),
            records: 0,
            body_len: 0,
            piece: pool.take(),
            pool,
            scratch: Vec::new(),
        }
    }

    /// Adds a partition and returns its bytes; full pieces go to `out` with their file offsets.
    pub fn push(
        &mut self,
        record: &PartitionRecord<'_>,
        out: &mut Vec<(u64, AlignedBuf)>,
    ) -> usize {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(&[0; 4]);
        record.encode(&mut scratch);
        let len = (scratch.len() - 4) as u32;
        scratch[..4].copy_from_slice(&len.to_le_bytes());
        self.hasher.update(&scratch);
        self.records += 1;
        let mut rest = &scratch[..];
        while !rest.is_empty() {
            let fits = rest.len().min(self.piece.capacity() - self.piece.len());
            self.piece.extend_from_slice(&rest[..fits]);
            self.body_len += fits as u64;
            rest = &rest[fits..];
            if self.piece.len() == self.piece.capacity() {
                let full = std::mem::replace(&mut self.piece, self.pool.take());
                out.push((BLOCK as u64 + self.body_len - full.len() as u64, full));
            }
        }
        let bytes = scratch.len();
        self.scratch = scratch;
        bytes
    }

    /// Ends the body and makes the header block. All pieces must be synced together before the checkpoint
    /// counts.
    pub fn finish(mut self, out: &mut Vec<(u64, AlignedBuf)>) {
        let offset = BLOCK as u64 + self.body_len - self.piece.len() as u64;
        if !self.piece.is_empty() {
            self.piece.pad_to_block();
            out.push((offset, self.piece));
        }
        self.header.records = self.records.into();
        self.header.body_len = self.body_len.into();
        self.header.body_crc = self.hasher.finalize().into();
        self.header.crc = self.header.compute_crc().into();
        let mut block = AlignedBuf::with_capacity(BLOCK);
        block.extend_from_slice(self.header.as_bytes());
        block.pad_to_block();
        out.push((0, block));
    }
}

/// A checkpoint cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The body's checksum does not match: it was not written whole.
    #[error("checkpoint body is not what its header describes")]
    Body,
    /// A record is malformed although the checksum holds: a bug, or another version.
    #[error("checkpoint record {0} cannot be read")]
    Record(u32),
}

/// Reads the records of a checkpoint.
#[derive(Debug)]
pub struct CheckpointReader<'a> {
    body: &'a [u8],
    version: u16,
    records: u32,
    read: u32,
}

impl<'a> CheckpointReader<'a> {
    /// Checks `body` (the `body_len` bytes behind the header block) against its header.
    ///
    /// # Errors
    /// [`CheckpointError::Body`].
    pub fn new(header: &CheckpointHeader, body: &'a [u8]) -> Result<Self, CheckpointError> {
        if body.len() as u64 != header.body_len() || crc32(body) != header.body_crc.get() {
            return Err(CheckpointError::Body);
        }
        Ok(Self {
            body,
            version: header.version(),
            records: header.records.get(),
            read: 0,
        })
    }

    /// The next record.
    ///
    /// # Errors
    /// [`CheckpointError::Record`].
    pub fn next_record(&mut self) -> Result<Option<OwnedRecord>, CheckpointError> {
        if self.read == self.records {
            return Ok(None);
        }
        let error = CheckpointError::Record(self.read);
        let mut input = Input(self.body);
        let len = input.u32().ok_or(error)? as usize;
        let record = input.take(len).ok_or(error)?;
        self.body = input.0;
        self.read += 1;
        OwnedRecord::read(record, self.version)
            .map(Some)
            .ok_or(error)
    }
}

/// One partition, as a checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct PartitionRecord<'a> {
    /// Its key.
    pub key: PartitionKey,
    /// First offset that can be read.
    pub log_start: i64,
    /// What the files hold.
    pub log: &'a StoredLog,
    /// Leader epochs.
    pub epochs: &'a Epochs,
    /// Idempotent producers.
    pub producers: &'a Producers,
    /// Producers' batches and epochs from this offset on are left out: the journal has them, or nobody does.
    pub durable_end: i64,
}

/// One partition, as read back.
#[derive(Debug)]
pub struct OwnedRecord {
    /// Its key.
    pub key: PartitionKey,
    /// First offset that can be read.
    pub log_start: i64,
    /// What the files hold.
    pub log: StoredLog,
    /// Leader epochs.
    pub epochs: Epochs,
    /// Idempotent producers, as of `durable_end`.
    pub producers: Producers,
    /// Batches from this offset on are not in `producers`.
    pub durable_end: i64,
}

impl PartitionRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.topic.0);
        out.extend_from_slice(&self.key.partition.to_le_bytes());
        out.push(u8::from(self.log.dir_exists));
        put_i64s(
            out,
            &[self.log_start, self.durable_end, self.log.cleaned_end],
        );
        // Sealed segments below the log's start are about to be removed.
        let kept = self
            .log
            .segments
            .iter()
            .filter(|s| !s.sealed || s.next_offset > self.log_start);
        put_len(out, kept.clone().count());
        for segment in kept {
            encode_segment(segment, out);
        }
        let odd = self.log.odd.as_deref().unwrap_or_default();
        put_len(out, odd.len());
        out.extend_from_slice(odd);
        let epochs: Vec<_> = self
            .epochs
            .entries()
            .iter()
            .filter(|&&(_, start)| start < self.durable_end)
            .collect();
        put_len(out, epochs.len());
        for (epoch, start) in epochs {
            out.extend_from_slice(&epoch.to_le_bytes());
            put_i64s(out, &[*start]);
        }
        self.encode_producers(out);
        self.encode_transactions(out);
    }

    fn encode_transactions(&self, out: &mut Vec<u8>) {
        let Some(transactions) = self.producers.transactions() else {
            put_len(out, 0);
            return put_len(out, 0);
        };
        let open = transactions.open_before(self.durable_end);
        put_len(out, open.clone().count());
        for (producer_id, first_offset) in open {
            put_i64s(out, &[producer_id, first_offset]);
        }
        let aborted = transactions.aborted().iter();
        let aborted = aborted.filter(|t| t.last_offset >= self.log_start);
        put_len(out, aborted.clone().count());
        for t in aborted {
            let (first, last) = (t.first_offset, t.last_offset);
            put_i64s(out, &[t.producer_id, first, last, t.stable_offset]);
        }
    }

    fn encode_producers(&self, out: &mut Vec<u8>) {
        let count_at = out.len();
        put_len(out, 0);
        let mut count = 0u32;
        for (id, producer) in self.producers.iter() {
            let batches = Producers::batches_before(producer, self.durable_end);
            let kept: Vec<_> = batches.collect();
            if kept.is_empty() {
                continue;
            }
            count += 1;
            put_i64s(out, &[id, producer.last_append_ms]);
            out.extend_from_slice(&producer.coordinator_epoch.to_le_bytes());
            put_len(out, kept.len());
            for batch in kept {
                out.extend_from_slice(&batch.epoch.to_le_bytes());
                out.extend_from_slice(&batch.first_sequence.to_le_bytes());
                out.extend_from_slice(&batch.last_sequence.to_le_bytes());
                put_i64s(out, &[batch.base_offset, batch.last_offset]);
            }
        }
        out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    }
}

fn encode_segment(segment: &Segment, out: &mut Vec<u8>) {
    put_i64s(
        out,
        &[
            segment.base_offset,
            segment.next_offset,
            segment.bytes as i64,
            segment.max_timestamp,
            segment.max_timestamp_offset,
            segment.created_ms,
        ],
    );
    out.push(u8::from(segment.sealed));
    out.extend_from_slice(&segment.revision.to_le_bytes());
    // A sealed segment has its index in files of its own.
    let index = segment.index.as_ref().filter(|_| !segment.sealed);
    out.extend_from_slice(&index.map_or(0, SparseIndex::interval).to_le_bytes());
    let entries = index.map_or(&[][..], SparseIndex::entries);
    put_len(out, entries.len());
    for entry in entries {
        out.extend_from_slice(&entry.relative_offset.to_le_bytes());
        out.extend_from_slice(&entry.position.to_le_bytes());
        out.extend_from_slice(&entry.max_timestamp_offset.to_le_bytes());
        put_i64s(out, &[entry.max_timestamp]);
    }
}

fn put_i64s(out: &mut Vec<u8>, values: &[i64]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

/// Bounded reading: every step says whether enough bytes were there.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }
    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }
    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
    /// A count of things of at least `least` bytes each, which must be there.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }
}

impl OwnedRecord {
    /// Reads a record of its own, without the length before it, as a checkpoint of `version` has it; `None` if the bytes
    /// are not exactly one.
    #[must_use]
    pub fn read(bytes: &[u8], version: u16) -> Option<Self> {
        let mut input = Input(bytes);
        let record = Self::decode(&mut input, version != VERSION_UNCOMPACTED)?;
        input.0.is_empty().then_some(record)
    }

    /// `compacts` says that the version knows of compaction.
    fn decode(input: &mut Input<'_>, compacts: bool) -> Option<Self> {
        let key = PartitionKey {
            topic: TopicId(input.array()?),
            partition: input.i32()?,
        };
        let dir_exists = input.u8()? != 0;
        let (log_start, durable_end) = (input.i64()?, input.i64()?);
        let cleaned_end = if compacts { input.i64()? } else { 0 };
        let segments: VecDeque<Segment> = (0..input.count(57)?)
            .map(|_| decode_segment(input, compacts))
            .collect::<Option<_>>()?;
        let odd_len = input.count(1)?;
        let odd = input.take(odd_len)?;
        if odd_len >= BLOCK {
            return None;
        }
        let odd = (!odd.is_empty()).then(|| {
            let mut buf = AlignedBuf::with_capacity(odd.len());
            buf.extend_from_slice(odd);
            Slice::from(buf)
        });
        let epochs = (0..input.count(12)?)
            .map(|_| Some((input.i32()?, input.i64()?)))
            .collect::<Option<_>>()?;
        let producers = (0..input.count(24)?)
            .map(|_| decode_producer(input))
            .collect::<Option<HashMap<_, _>>>()?;
        let transactions = decode_transactions(input)?;
        Some(Self {
            key,
            log_start,
            log: StoredLog {
                segments,
                odd,
                cleaned_end,
                dir_exists,
            },
            epochs: Epochs::from_entries(epochs),
            producers: Producers::from_parts(producers, transactions),
            durable_end,
        })
    }
}

fn decode_segment(input: &mut Input<'_>, compacts: bool) -> Option<Segment> {
    let (base_offset, next_offset, bytes) = (input.i64()?, input.i64()?, input.i64()?);
    let (max_timestamp, max_timestamp_offset) = (input.i64()?, input.i64()?);
    let (created_ms, sealed) = (input.i64()?, input.u8()? != 0);
    let revision = if compacts { input.u32()? } else { 0 };
    let interval = input.u32()?;
    let entries = (0..input.count(20)?)
        .map(|_| {
            Some(IndexEntry {
                relative_offset: input.u32()?,
                position: input.u32()?,
                max_timestamp_offset: input.u32()?,
                max_timestamp: input.i64()?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Segment {
        base_offset,
        revision,
        next_offset,
        bytes: u64::try_from(bytes).ok()?,
        max_timestamp,
        max_timestamp_offset,
        created_ms,
        sealed,
        index: (!sealed).then(|| SparseIndex::from_entries(interval, entries)),
    })
}

fn decode_transactions(input: &mut Input<'_>) -> Option<Transactions> {
    let open = (0..input.count(16)?)
        .map(|_| Some((input.i64()?, input.i64()?)))
        .collect::<Option<_>>()?;
    let aborted = (0..input.count(32)?)
        .map(|_| {
            Some(AbortedTransaction {
                producer_id: input.i64()?,
                first_offset: input.i64()?,
                last_offset: input.i64()?,
                stable_offset: input.i64()?,
            })
        })
        .collect::<Option<_>>()?;
    Some(Transactions::from_parts(open, aborted))
}

fn decode_producer(input: &mut Input<'_>) -> Option<(i64, Producer)> {
    let (id, last_append_ms) = (input.i64()?, input.i64()?);
    let coordinator_epoch = input.i32()?;
    let batches: VecDeque<_> = (0..input.count(26)?)
        .map(|_| {
            Some(ProducerBatch {
                epoch: input.i16()?,
                first_sequence: input.i32()?,
                last_sequence: input.i32()?,
                base_offset: input.i64()?,
                last_offset: input.i64()?,
                frame: 0,
            })
        })
        .collect::<Option<_>>()?;
    Some((
        id,
        Producer {
            epoch: batches.back()?.epoch,
            batches,
            last_append_ms,
            coordinator_epoch,
        },
    ))
}
