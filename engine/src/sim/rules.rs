//! What the engine promises about its use of the disk, policed at submission. Breaking a rule panics, with a message
//! that begins with "disk rule".

use super::disk::{Handle, SimDisk};
use super::tree::NodeId;
use crate::buf::BLOCK;
use crate::disk::{FileId, Op, OpKind, OpenMode};

const BLOCK_U64: u64 = BLOCK as u64;

impl SimDisk {
    pub(super) fn handle(&self, shard: u32, file: FileId) -> &Handle {
        match self.handles.get(&(shard, file)) {
            Some(handle) => handle,
            None => panic!("disk rule: {file:?} of shard {shard} is not open"),
        }
    }

    pub(super) fn check(&mut self, shard: u32, op: &Op) {
        if let Some(file) = file_of(&op.kind)
            && !matches!(op.kind, OpKind::Open { .. } | OpKind::CreateZeroed { .. })
        {
            let open = self.handles.contains_key(&(shard, file));
            assert!(
                open,
                "disk rule: file of {op:?} of shard {shard} is not open"
            );
        }
        match &op.kind {
            OpKind::Open { file, .. } | OpKind::CreateZeroed { file, .. } => assert!(
                self.used_files.insert((shard, *file)),
                "disk rule: file handle used twice: {op:?}"
            ),
            OpKind::Close { file } => {
                self.handle(shard, *file);
                let busy = self
                    .flights
                    .values()
                    .find(|f| f.shard == shard && file_of(&f.op.kind) == Some(*file));
                assert!(
                    busy.is_none(),
                    "disk rule: {op:?} while {busy:?} is in flight"
                );
            }
            OpKind::Write {
                file, offset, data, ..
            } => self.check_write(shard, *file, *offset, data),
            OpKind::Read {
                file,
                offset,
                len,
                buf,
            } => {
                let handle = self.handle(shard, *file);
                assert!(
                    handle.mode != OpenMode::WriteDirect && *len <= buf.capacity() && *len > 0,
                    "disk rule: bad read {op:?} of a file opened {:?}",
                    handle.mode
                );
                if handle.mode == OpenMode::ReadDirect {
                    assert_blocks(*offset, *len);
                }
                self.check_overlap(handle.node, *offset, *len as u64, false);
                assert!(
                    *offset < self.tree.file(handle.node).size() || !handle.is_segment,
                    "disk rule: {op:?} reads past the file's end"
                );
            }
            OpKind::Sync { file } => drop(self.handle(shard, *file)),
            OpKind::Truncate { file, .. } | OpKind::Allocate { file, .. } => {
                let mode = self.handle(shard, *file).mode;
                assert_eq!(mode, OpenMode::WriteDirect, "disk rule: {op:?}");
            }
            _ => {}
        }
        if let OpKind::CreateZeroed { len, .. } = &op.kind {
            assert!(
                *len > 0 && len.is_multiple_of(BLOCK_U64),
                "disk rule: {op:?}"
            );
        }
    }

    fn check_write(&mut self, shard: u32, file: FileId, offset: u64, data: &[u8]) {
        let handle = self.handle(shard, file);
        let (node, is_segment) = (handle.node, handle.is_segment);
        assert_eq!(
            handle.mode,
            OpenMode::WriteDirect,
            "disk rule: write to a file opened to read"
        );
        assert_blocks(offset, data.len());
        assert!(
            !data.is_empty() && data.as_ptr().addr().is_multiple_of(BLOCK),
            "disk rule: write of unaligned memory"
        );
        self.check_overlap(node, offset, data.len() as u64, true);
        if is_segment {
            for block in offset / BLOCK_U64..(offset + data.len() as u64) / BLOCK_U64 {
                assert!(
                    self.written.insert((node, block)),
                    "disk rule: segment block {block} written twice in a run"
                );
            }
        }
    }

    /// No write may overlap anything else in flight on the same blocks.
    pub(super) fn check_overlap(&self, node: NodeId, offset: u64, len: u64, is_write: bool) {
        for flight in self.flights.values() {
            let (file, at, bytes, writes) = match &flight.op.kind {
                OpKind::Write {
                    file, offset, data, ..
                } => (*file, *offset, data.len() as u64, true),
                OpKind::Read {
                    file, offset, len, ..
                } => (*file, *offset, *len as u64, false),
                _ => continue,
            };
            if !(is_write || writes) || self.handle(flight.shard, file).node != node {
                continue;
            }
            let end = (offset + len).next_multiple_of(BLOCK_U64);
            let other_end = (at + bytes).next_multiple_of(BLOCK_U64);
            let apart = end <= at - at % BLOCK_U64 || other_end <= offset - offset % BLOCK_U64;
            assert!(
                apart,
                "disk rule: {offset}+{len} overlaps {flight:?}, which is in flight"
            );
        }
    }
}

fn file_of(kind: &OpKind) -> Option<FileId> {
    match kind {
        OpKind::Open { file, .. }
        | OpKind::Close { file }
        | OpKind::Write { file, .. }
        | OpKind::Read { file, .. }
        | OpKind::Sync { file }
        | OpKind::Allocate { file, .. }
        | OpKind::Truncate { file, .. }
        | OpKind::CreateZeroed { file, .. } => Some(*file),
        _ => None,
    }
}

pub(super) fn assert_blocks(offset: u64, len: usize) {
    assert!(
        offset.is_multiple_of(BLOCK_U64) && len.is_multiple_of(BLOCK),
        "disk rule: direct I/O of {len} bytes at {offset}"
    );
}
