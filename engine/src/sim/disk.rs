//! The simulated disk as a driver of cores: operations go in, completions come out later, in any order, and a crash
//! may come between.

use std::collections::{BTreeMap, BTreeSet};

use super::rng::Rng;
use super::tree::{NodeId, Tree};
use crate::buf::BLOCK;
use crate::disk::{Completion, DiskError, FileId, Lane, Op, OpId, OpKind, OpenMode, Returned};

const BLOCK_U64: u64 = BLOCK as u64;

/// How long operations of one lane take, nanoseconds; one in `stall_one_in` takes up to `stall_ns` more.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Shortest.
    pub min_ns: u64,
    /// Longest without a stall.
    pub max_ns: u64,
    /// Odds of a stall; 0 is never.
    pub stall_one_in: u64,
    /// Longest stall.
    pub stall_ns: u64,
}

impl Latency {
    fn draw(&self, rng: &mut Rng) -> u64 {
        let stalled = self.stall_one_in > 0 && rng.below(self.stall_one_in) == 0;
        let stall = if stalled { rng.below(self.stall_ns) } else { 0 };
        rng.between(self.min_ns, self.max_ns) + stall
    }
}

/// What goes wrong, in cases per million; all zero is a disk that merely loses power.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A write fails; any part of it may have been done.
    pub write_ppm: u64,
    /// A sync fails; data it covered may be lost and is never written by a later one.
    pub sync_ppm: u64,
    /// The sync after so many others fails, and that one alone.
    pub fail_sync_at: Option<u64>,
    /// Of the failed syncs, percent that stop the file system: from then on it takes nothing that has to be synced,
    /// until the system starts again.
    pub stop_percent: u64,
    /// A read fails.
    pub read_ppm: u64,
    /// Opening, creating or removing something fails without effect.
    pub meta_ppm: u64,
    /// Bytes the device holds; more fails with `ENOSPC`.
    pub capacity_bytes: Option<u64>,
}

/// Settings of a [`SimDisk`].
#[derive(Debug, Clone, Copy)]
pub struct DiskConfig {
    /// Journal writes.
    pub journal: Latency,
    /// Reads.
    pub read: Latency,
    /// Everything else.
    pub background: Latency,
}

impl Default for DiskConfig {
    /// A quick disk without stalls.
    fn default() -> Self {
        let quick = Latency {
            min_ns: 10_000,
            max_ns: 200_000,
            stall_one_in: 0,
            stall_ns: 0,
        };
        Self {
            journal: quick,
            read: quick,
            background: quick,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) node: NodeId,
    pub(super) mode: OpenMode,
    pub(super) is_segment: bool,
}

/// An operation between submission and completion.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) shard: u32,
    pub(super) op: Op,
    /// What had happened when it was submitted: all that a sync covers.
    horizon: u64,
}

impl Flight {
    pub(super) fn new(shard: u32, op: Op, horizon: u64) -> Self {
        Self { shard, op, horizon }
    }
}

/// `EROFS`: what a file system answers that has stopped itself.
pub(super) const READ_ONLY: DiskError = DiskError(30);

/// A deterministic disk shared by the cores of a simulated process.
///
/// A sync that fails treats data as Linux does: pages or blocks it covered count as clean afterwards, a second sync
/// succeeds and has written nothing of them. Names and sizes live in the file system's own journal instead. It never
/// forgets a change and goes on: either the change is still pending and a later sync covers it, or the journal is
/// aborted (ext4's `jbd2`, an XFS shutdown) and every later change and sync fails until the system starts again.
#[derive(Debug)]
pub struct SimDisk {
    pub(super) tree: Tree,
    pub(super) rng: Rng,
    /// How long operations that begin now take.
    pub config: DiskConfig,
    /// What goes wrong from now on.
    pub faults: Faults,
    pub(super) flights: BTreeMap<(u64, u64), Flight>,
    next_ticket: u64,
    pub(super) handles: BTreeMap<(u32, FileId), Handle>,
    used_ids: BTreeSet<(u32, OpId)>,
    pub(super) used_files: BTreeSet<(u32, FileId)>,
    /// The file system has stopped itself.
    pub(super) stopped: bool,
    /// Operations that should have changed or synced something and failed, since the disk was made.
    pub(super) failed_changes: u64,
    /// Segment blocks written in this run: each once.
    pub(super) written: BTreeSet<(NodeId, u64)>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(rng: Rng, config: DiskConfig) -> Self {
        Self {
            tree: Tree::new(),
            rng,
            config,
            faults: Faults::default(),
            flights: BTreeMap::new(),
            next_ticket: 0,
            handles: BTreeMap::new(),
            used_ids: BTreeSet::new(),
            used_files: BTreeSet::new(),
            stopped: false,
            failed_changes: 0,
            written: BTreeSet::new(),
        }
    }

    /// A copy of what this disk holds, volatile or not, with another future.
    ///
    /// # Panics
    /// If anything is in flight or open: the process that could go on with it cannot be copied.
    #[must_use]
    pub fn copy(&self, rng: Rng) -> Self {
        assert!(
            self.flights.is_empty() && self.handles.is_empty(),
            "a disk in use cannot be copied"
        );
        Self {
            tree: self.tree.clone(),
            faults: self.faults,
            stopped: self.stopped,
            ..Self::new(rng, self.config)
        }
    }

    /// Starts an operation of `shard`'s core.
    ///
    /// # Panics
    /// If it breaks a rule of [`OpKind`].
    pub fn submit(&mut self, shard: u32, now_ns: u64, op: Op) {
        assert!(
            self.used_ids.insert((shard, op.id)),
            "disk rule: operation id used twice: {op:?}"
        );
        self.check(shard, &op);
        let latency = match op.lane {
            Lane::Journal => self.config.journal,
            Lane::Read => self.config.read,
            Lane::Background => self.config.background,
        };
        let due = now_ns + latency.draw(&mut self.rng);
        self.next_ticket += 1;
        let flight = Flight::new(shard, op, self.tree.stamp());
        self.flights.insert((due, self.next_ticket), flight);
    }

    /// When the next operation completes.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.flights.keys().next().map(|&(due, _)| due)
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The next operation that is complete by `now_ns`, with its shard.
    pub fn complete(&mut self, now_ns: u64) -> Option<(u32, Completion)> {
        let (&key, _) = self.flights.iter().next()?;
        if key.0 > now_ns {
            return None;
        }
        let flight = self.flights.remove(&key)?;
        Some((flight.shard, self.carry_out(flight)))
    }

    /// The process ends (`kill -9`, or an exit of its own): operations in flight may or may not have been carried
    /// out; what the system had accepted stays.
    pub fn kill(&mut self) {
        for (_, flight) in std::mem::take(&mut self.flights) {
            self.interrupt(&flight);
        }
        self.handles.clear();
        self.used_ids.clear();
        self.used_files.clear();
        self.written.clear();
        self.tree.forget_unreachable(&BTreeSet::new());
    }

    /// The process ends and power is lost.
    pub fn lose_power(&mut self) {
        self.kill();
        self.stopped = false;
        self.tree.lose_power(&mut self.rng);
    }

    /// A file's bytes as a reader sees them.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let file = self.tree.file(self.tree.resolve_file(path).ok()?);
        let mut bytes = vec![0; file.size() as usize];
        file.read(0, &mut bytes);
        Some(bytes)
    }

    /// Bytes of an open file, as `sendfile` would read them; `None` when the file ends before `len`.
    ///
    /// # Panics
    /// If the file is not open.
    #[must_use]
    pub fn span(&self, shard: u32, file: FileId, offset: u64, len: usize) -> Option<Vec<u8>> {
        let handle = self.handle(shard, file);
        self.check_overlap(handle.node, offset, len as u64, false);
        let mut bytes = vec![0; len];
        (self.tree.file(handle.node).read(offset, &mut bytes) == len).then_some(bytes)
    }

    /// Flips a bit of durable data at `offset` of the file at `path`.
    ///
    /// # Errors
    /// [`DiskError::NOT_FOUND`].
    pub fn flip_bit(&mut self, path: &str, offset: u64, bit: u8) -> Result<(), DiskError> {
        let node = self.tree.resolve_file(path)?;
        self.tree.change_file(node).0.flip_bit(offset, bit);
        Ok(())
    }

    /// Bytes taken on the device.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.tree.used_bytes()
    }

    pub(super) fn has_room(&self, node: NodeId, offset: u64, len: u64) -> bool {
        let missing = self.tree.file(node).missing_blocks(offset, len) * BLOCK_U64;
        match self.faults.capacity_bytes {
            Some(capacity) => missing == 0 || self.tree.used_bytes() + missing <= capacity,
            None => true,
        }
    }

    // --- effects ---

    pub(super) fn carry_out(&mut self, flight: Flight) -> Completion {
        let Flight { shard, op, horizon } = flight;
        let is_change = is_change(&op.kind);
        let (result, returned) = match op.kind {
            OpKind::Write {
                file,
                offset,
                data,
                sync,
            } => {
                let node = self.handle(shard, file).node;
                let result = self.write(node, offset, &data, sync, horizon);
                (result, Returned::Data(data))
            }
            OpKind::Read {
                file,
                offset,
                len,
                mut buf,
            } => {
                buf.set_len(len);
                let read = self
                    .tree
                    .file(self.handle(shard, file).node)
                    .read(offset, &mut buf);
                buf.set_len(read);
                let failed = self.rng.ppm(self.faults.read_ppm);
                let result = if failed { Err(DiskError::IO) } else { Ok(()) };
                (result, Returned::Buf(buf))
            }
            OpKind::Sync { file } => {
                let node = self.handle(shard, file).node;
                (self.sync(Some(node), horizon), Returned::Nothing)
            }
            OpKind::SyncFs => (self.sync(None, horizon), Returned::Nothing),
            OpKind::SyncDir { path } => {
                let result = self.tree.resolve(&path);
                let result = result.and_then(|node| self.sync(Some(node), horizon));
                (result, Returned::Nothing)
            }
            kind => (self.meta(shard, kind), Returned::Nothing),
        };
        if result.is_err() {
            // A round that failed is done again, block by block.
            self.written.clear();
            self.failed_changes += u64::from(is_change);
        }
        Completion {
            id: op.id,
            result,
            returned,
        }
    }

    pub(super) fn write(
        &mut self,
        node: NodeId,
        offset: u64,
        data: &[u8],
        sync: bool,
        horizon: u64,
    ) -> Result<(), DiskError> {
        let grows = self
            .tree
            .file(node)
            .missing_blocks(offset, data.len() as u64)
            > 0;
        if self.stopped && (sync || grows) {
            if !grows {
                self.write_part(node, offset, data);
            }
            return Err(READ_ONLY);
        }
        let full = !self.has_room(node, offset, data.len() as u64);
        if full || self.rng.ppm(self.faults.write_ppm) {
            self.write_part(node, offset, data);
            return Err(if full {
                DiskError::NO_SPACE
            } else {
                DiskError::IO
            });
        }
        let (file, stamp) = self.tree.change_file(node);
        file.write(stamp, offset, data, |_| true);
        if !sync {
            return Ok(());
        }
        if self.rng.ppm(self.faults.sync_ppm) {
            self.tree.fail_sync(node, stamp, &mut self.rng);
            self.sync_failed();
            return Err(DiskError::IO);
        }
        // The sync covers this write and whatever else was complete before it was submitted.
        let (file, _) = self.tree.change_file(node);
        file.settle_range(stamp, offset, data.len() as u64);
        self.tree.sync_node(node, horizon);
        Ok(())
    }

    /// A write of which any part reaches the file.
    pub(super) fn write_part(&mut self, node: NodeId, offset: u64, data: &[u8]) {
        let percent = self.rng.pick(&[0, 50, 100]);
        let has_room = self.has_room(node, offset, data.len() as u64);
        let there = offset..offset + data.len() as u64;
        let rng = &mut self.rng;
        let missing = self
            .tree
            .file(node)
            .missing_blocks(there.start, data.len() as u64);
        if !has_room && missing > 0 {
            return;
        }
        let (file, stamp) = self.tree.change_file(node);
        file.write(stamp, offset, data, |_| rng.percent(percent));
    }

    /// Syncs a node, or everything.
    pub(super) fn sync(&mut self, node: Option<NodeId>, horizon: u64) -> Result<(), DiskError> {
        if self.stopped {
            return Err(READ_ONLY);
        }
        let chosen = self.faults.fail_sync_at == Some(0);
        self.faults.fail_sync_at = self.faults.fail_sync_at.and_then(|n| n.checked_sub(1));
        let failed = chosen || self.rng.ppm(self.faults.sync_ppm);
        match (node, failed) {
            (Some(node), false) => self.tree.sync_node(node, horizon),
            (None, false) => self.tree.sync_all(horizon),
            (Some(node), true) => self.tree.fail_sync(node, horizon, &mut self.rng),
            (None, true) => self.tree.fail_sync_all(horizon, &mut self.rng),
        }
        if failed {
            self.sync_failed();
            return Err(DiskError::IO);
        }
        Ok(())
    }

    fn sync_failed(&mut self) {
        let percent = self.faults.stop_percent;
        self.stopped |= percent > 0 && self.rng.percent(percent);
    }

    fn meta(&mut self, shard: u32, kind: OpKind) -> Result<(), DiskError> {
        if let OpKind::Close { file } = kind {
            self.handles.remove(&(shard, file));
            return Ok(());
        }
        if self.rng.ppm(self.faults.meta_ppm) {
            return Err(DiskError::IO);
        }
        if self.stopped && !matches!(kind, OpKind::Open { .. }) {
            return Err(READ_ONLY);
        }
        match kind {
            OpKind::Open { file, path, mode } => {
                let node = match mode {
                    OpenMode::WriteDirect if self.stopped => return Err(READ_ONLY),
                    OpenMode::WriteDirect => self.tree.open_or_create(&path)?,
                    OpenMode::ReadBuffered | OpenMode::ReadDirect => {
                        self.tree.resolve_file(&path)?
                    }
                };
                self.opened(shard, file, node, mode, &path);
                Ok(())
            }
            OpKind::Allocate { file, offset, len } => {
                let node = self.handle(shard, file).node;
                if !self.has_room(node, offset, len) {
                    return Err(DiskError::NO_SPACE);
                }
                self.tree.change_file(node).0.allocate(offset, len);
                Ok(())
            }
            OpKind::Truncate { file, len } => {
                let node = self.handle(shard, file).node;
                let (file, stamp) = self.tree.change_file(node);
                file.truncate(stamp, len);
                Ok(())
            }
            OpKind::CreateZeroed { file, path, len } => {
                let node = self.create_zeroed(&path, len)?;
                self.opened(shard, file, node, OpenMode::WriteDirect, &path);
                Ok(())
            }
            OpKind::CreateDir { path } => self.tree.create_dir(&path),
            OpKind::Unlink { path } => self.tree.unlink(&path),
            OpKind::RemoveDir { path } => self.tree.remove_dir(&path),
            other => unreachable!("{other:?} is handled elsewhere"),
        }
    }

    fn opened(&mut self, shard: u32, file: FileId, node: NodeId, mode: OpenMode, path: &str) {
        let handle = Handle {
            node,
            mode,
            is_segment: path.ends_with(".log"),
        };
        self.handles.insert((shard, file), handle);
    }

    fn create_zeroed(&mut self, path: &str, len: u64) -> Result<NodeId, DiskError> {
        let node = self.tree.open_or_create(path)?;
        if !self.has_room(node, 0, len) {
            return Err(DiskError::NO_SPACE);
        }
        self.zero_fill(node, len);
        let stamp = self.tree.stamp();
        self.tree.sync_node(node, stamp);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let parent = self.tree.resolve(parent)?;
        self.tree.sync_node(parent, stamp);
        Ok(node)
    }

    fn zero_fill(&mut self, node: NodeId, len: u64) {
        let (file, stamp) = self.tree.change_file(node);
        file.truncate(stamp, 0);
        let (file, stamp) = self.tree.change_file(node);
        file.write(stamp, 0, &vec![0; len as usize], |_| true);
    }

    /// The process ended while the operation was in flight: it may have been done, in part or not at all.
    pub(super) fn interrupt(&mut self, flight: &Flight) {
        if self.rng.percent(50) {
            return;
        }
        match &flight.op.kind {
            OpKind::Write {
                file, offset, data, ..
            } => {
                let node = self.handle(flight.shard, *file).node;
                self.write_part(node, *offset, data);
            }
            OpKind::Truncate { file, len } => {
                let node = self.handle(flight.shard, *file).node;
                let (file, stamp) = self.tree.change_file(node);
                file.truncate(stamp, *len);
            }
            OpKind::CreateZeroed { path, len, .. } => {
                if let Ok(node) = self.tree.open_or_create(path) {
                    let done = self.rng.between(0, len / BLOCK_U64) * BLOCK_U64;
                    if self.has_room(node, 0, done) {
                        self.zero_fill(node, done);
                    }
                }
            }
            OpKind::Open {
                path,
                mode: OpenMode::WriteDirect,
                ..
            } => drop(self.tree.open_or_create(path)),
            // Errors are nobody's any more: the process that would have heard of them is gone.
            OpKind::CreateDir { path } => drop(self.tree.create_dir(path)),
            OpKind::Unlink { path } => drop(self.tree.unlink(path)),
            OpKind::RemoveDir { path } => drop(self.tree.remove_dir(path)),
            _ => {}
        }
    }
}

/// Whether an operation is to change or sync something that counts; clean-up and reads are not.
fn is_change(kind: &OpKind) -> bool {
    match kind {
        OpKind::Open { mode, .. } => *mode == OpenMode::WriteDirect,
        OpKind::Read { .. }
        | OpKind::Close { .. }
        | OpKind::Unlink { .. }
        | OpKind::RemoveDir { .. } => false,
        _ => true,
    }
}
