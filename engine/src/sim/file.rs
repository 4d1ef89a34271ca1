//! One simulated file: 4 KiB blocks and a size, each with its unsynced history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::History;
use super::rng::Rng;
use crate::buf::BLOCK;

const BLOCK_U64: u64 = BLOCK as u64;
/// Smaller than a block may be torn: devices write sectors of this many bytes whole.
const SECTOR: usize = 512;

/// A block's bytes; `None` is all zeros.
type Bytes = Option<Arc<[u8; BLOCK]>>;

#[derive(Debug, Clone)]
struct Block {
    bytes: History<Bytes>,
    /// An unsynced write went here: a crash may leave garbage or a mix of sectors.
    torn: bool,
    /// Takes space on the device.
    allocated: bool,
}

/// How a crash treats unsynced blocks; drawn once a crash, because a uniform mix would hardly ever leave "all of
/// it" or "none of it".
#[derive(Debug, Clone, Copy)]
pub(super) struct Mood {
    /// Percent of unsynced blocks that survive as written last.
    pub(super) newness: u64,
    /// Percent of unsynced blocks that turn into garbage.
    pub(super) garbage: u64,
    /// Percent of unsynced blocks that become a mix of old and new sectors.
    pub(super) mixed: u64,
}

impl Mood {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let (newness, garbage, mixed) = rng.pick(&[
            (0, 0, 0),
            (100, 0, 0),
            (90, 2, 2),
            (50, 0, 0),
            (50, 10, 10),
            (10, 5, 5),
            (30, 40, 10),
        ]);
        Self {
            newness,
            garbage,
            mixed,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct FileNode {
    size: History<u64>,
    blocks: BTreeMap<u64, Block>,
    dirty: BTreeSet<u64>,
    allocated: u64,
    /// Whether a name leads here; the blocks of others count as free.
    pub(super) linked: bool,
}

impl FileNode {
    pub(super) fn new() -> Self {
        Self {
            size: History::new(0),
            blocks: BTreeMap::new(),
            dirty: BTreeSet::new(),
            allocated: 0,
            linked: true,
        }
    }

    pub(super) fn size(&self) -> u64 {
        *self.size.current()
    }

    pub(super) fn allocated_blocks(&self) -> u64 {
        self.allocated
    }

    /// Blocks of `offset..offset + len` that a write would have to allocate.
    pub(super) fn missing_blocks(&self, offset: u64, len: u64) -> u64 {
        let range = block_range(offset, len);
        let there = self.blocks.range(range.clone());
        range.end - range.start - there.filter(|(_, b)| b.allocated).count() as u64
    }

    fn block(&mut self, index: u64) -> &mut Block {
        let block = self.blocks.entry(index).or_insert(Block {
            bytes: History::new(None),
            torn: false,
            allocated: false,
        });
        if !block.allocated {
            block.allocated = true;
            self.allocated += 1;
        }
        block
    }

    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        for index in block_range(offset, len) {
            self.block(index);
        }
    }

    /// Writes whole blocks; `keep` says which of them reach the file (all, unless the write fails midway).
    pub(super) fn write(
        &mut self,
        stamp: u64,
        offset: u64,
        data: &[u8],
        mut keep: impl FnMut(u64) -> bool,
    ) {
        let first = offset / BLOCK_U64;
        let mut end = 0;
        for (index, bytes) in (first..).zip(data.chunks_exact(BLOCK)) {
            if !keep(index) {
                continue;
            }
            end = (index + 1) * BLOCK_U64;
            let bytes = <[u8; BLOCK]>::try_from(bytes).unwrap_or([0; BLOCK]);
            let bytes = bytes.iter().any(|&b| b != 0).then(|| Arc::new(bytes));
            let block = self.block(index);
            block.bytes.set(stamp, bytes);
            block.torn = true;
            self.dirty.insert(index);
        }
        if end > self.size() {
            self.size.set(stamp, end);
        }
    }

    /// Sets the size; what lies behind a smaller one reads as zeros if the file grows again.
    pub(super) fn truncate(&mut self, stamp: u64, len: u64) {
        if len < self.size() {
            let keep = (len % BLOCK_U64) as usize;
            for (&index, block) in self.blocks.range_mut(len / BLOCK_U64..) {
                let kept = if index == len / BLOCK_U64 { keep } else { 0 };
                let cut = block.bytes.current().clone().map(|mut bytes| {
                    Arc::make_mut(&mut bytes)[kept..].fill(0);
                    bytes
                });
                let cut = if kept == 0 { None } else { cut };
                block.bytes.set(stamp, cut);
                self.dirty.insert(index);
                if kept == 0 && block.allocated {
                    block.allocated = false;
                    self.allocated -= 1;
                }
            }
        }
        self.size.set(stamp, len);
    }

    /// Reads up to the file's end; returns the bytes read.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let len = self.size().saturating_sub(offset).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let skip = (at % BLOCK_U64) as usize;
            let n = (BLOCK - skip).min(len - done);
            let out = &mut into[done..done + n];
            match self
                .blocks
                .get(&(at / BLOCK_U64))
                .map(|b| b.bytes.current())
            {
                Some(Some(bytes)) => out.copy_from_slice(&bytes[skip..skip + n]),
                _ => out.fill(0),
            }
            done += n;
        }
        len
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.size.is_clean()
    }

    /// A sync that saw everything up to `horizon` succeeded.
    pub(super) fn settle(&mut self, horizon: u64) {
        self.size.settle(horizon);
        self.settle_blocks(horizon, 0..u64::MAX);
    }

    /// As [`FileNode::settle`] for some blocks, with the size.
    pub(super) fn settle_range(&mut self, horizon: u64, offset: u64, len: u64) {
        self.size.settle(horizon);
        self.settle_blocks(horizon, block_range(offset, len));
    }

    fn settle_blocks(&mut self, horizon: u64, range: std::ops::Range<u64>) {
        let blocks = &mut self.blocks;
        let mut clean = Vec::new();
        for &index in self.dirty.range(range) {
            if let Some(block) = blocks.get_mut(&index) {
                block.bytes.settle(horizon);
                if block.bytes.is_clean() {
                    block.torn = false;
                    clean.push(index);
                }
            }
        }
        for index in clean {
            self.dirty.remove(&index);
        }
    }

    /// A sync failed: part of the data it saw is durable all the same, the rest is taken for clean and never
    /// written. The size is the file system's own and stays pending, see [`SimDisk`](super::SimDisk).
    pub(super) fn fail_sync(&mut self, horizon: u64, rng: &mut Rng) {
        let reached = rng.pick(&[0, 0, 50]);
        if rng.percent(reached) {
            self.size.settle(horizon);
        }
        for &index in &self.dirty {
            if let Some(block) = self.blocks.get_mut(&index) {
                if rng.percent(reached) {
                    block.bytes.settle(horizon);
                } else {
                    block.bytes.abandon(horizon);
                }
            }
        }
    }

    /// Power is lost: every unsynced block and size becomes one of what it may have been.
    pub(super) fn lose_power(&mut self, rng: &mut Rng, mood: Mood) {
        if self.is_clean() {
            return;
        }
        let size = self.size.survivor(rng, mood.newness);
        self.size.resolve(size);
        for &index in &self.dirty {
            let Some(block) = self.blocks.get_mut(&index) else {
                continue;
            };
            let fate = rng.below(100);
            let bytes = if !block.torn || fate >= mood.garbage + mood.mixed {
                block.bytes.survivor(rng, mood.newness)
            } else if fate < mood.garbage {
                let mut garbage = [0; BLOCK];
                rng.fill(&mut garbage);
                Some(Arc::new(garbage))
            } else {
                mix_sectors(&block.bytes, rng)
            };
            block.bytes.resolve(bytes);
            block.torn = false;
        }
        self.dirty.clear();
        let blocks = size.div_ceil(BLOCK_U64);
        self.blocks.retain(|&index, _| index < blocks);
        self.zero_tail(size);
        self.blocks.values_mut().for_each(|b| b.allocated = true);
        self.allocated = self.blocks.len() as u64;
    }

    /// Bytes of the last block behind the end of the file are zeros when it grows.
    fn zero_tail(&mut self, size: u64) {
        let keep = (size % BLOCK_U64) as usize;
        let Some(block) = self.blocks.get_mut(&(size / BLOCK_U64)) else {
            return;
        };
        if let Some(mut bytes) = block.bytes.durable().clone() {
            Arc::make_mut(&mut bytes)[keep..].fill(0);
            block.bytes.resolve(Some(bytes));
        }
    }

    /// Damages durable data: flips one bit, unnoticed by the device.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let block = self.block(offset / BLOCK_U64);
        let mut bytes = block
            .bytes
            .current()
            .clone()
            .unwrap_or_else(|| Arc::new([0; BLOCK]));
        Arc::make_mut(&mut bytes)[(offset % BLOCK_U64) as usize] ^= 1 << (bit % 8);
        block.bytes.resolve(Some(bytes));
        self.dirty.remove(&(offset / BLOCK_U64));
    }
}

/// Each sector from any of the candidates.
fn mix_sectors(history: &History<Bytes>, rng: &mut Rng) -> Bytes {
    let candidates: Vec<&Bytes> = history.candidates().collect();
    let mut mixed = [0; BLOCK];
    for (i, sector) in mixed.chunks_exact_mut(SECTOR).enumerate() {
        if let Some(from) = rng.pick(&candidates) {
            sector.copy_from_slice(&from[i * SECTOR..(i + 1) * SECTOR]);
        }
    }
    Some(Arc::new(mixed))
}

fn block_range(offset: u64, len: u64) -> std::ops::Range<u64> {
    offset / BLOCK_U64..(offset + len).div_ceil(BLOCK_U64)
}
