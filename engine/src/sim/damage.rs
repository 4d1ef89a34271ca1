//! Damage that no crash does: a flipped bit in what was durable. Recovery must stop, or lose nothing that it could
//! have known of.

use std::collections::BTreeMap;

use super::world::World;
use crate::buf::BLOCK;
use crate::disk::EntryKind;
use crate::id::FrameSeq;
use crate::journal::{FileHeader, scan_block};

/// What damage to one shard must not take unnoticed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Vouched {
    /// The newest frame that is known to have been durable.
    pub(super) frame: FrameSeq,
    /// The newest checkpoint's generation.
    pub(super) checkpoint: u64,
}

impl World {
    /// Flips a bit in a journal, a shard's checkpoint or the merged checkpoint of a stopped process, often in a
    /// header.
    pub(super) fn flip_bit(&mut self) {
        let mut files = Vec::new();
        let kind = self.rng.below(3);
        for shard in 0..4 {
            let dir = match kind {
                0 => String::new(),
                1 => format!("shard-{shard}/"),
                _ => format!("shard-{shard}/journal/"),
            };
            let names = self.disk.tree.list(&dir).unwrap_or_default();
            let is_file = |(_, kind): &(String, EntryKind)| *kind == EntryKind::File;
            for (name, _) in names.into_iter().filter(is_file) {
                let path = format!("{dir}{name}");
                let bytes = self.disk.contents(&path).unwrap_or_default();
                let used = (0..bytes.len()).filter(|&at| bytes[at] != 0);
                let used: Vec<usize> = used.collect();
                if !used.is_empty() {
                    files.push((path, used));
                }
            }
        }
        if files.is_empty() {
            return;
        }
        self.vouched = self.vouched();
        let (path, used) = &files[self.rng.index(files.len())];
        let header = used.partition_point(|&at| at < 64).max(1);
        let among = if self.rng.percent(30) {
            header
        } else {
            used.len()
        };
        let at = used[self.rng.index(among)] as u64;
        let bit = self.rng.below(8) as u8;
        self.trace.note("flip", [at, u64::from(bit), 0], || {
            format!("{path} byte {at}")
        });
        self.flipped = self.disk.flip_bit(path, at, bit).is_ok();
    }

    /// For each shard of the last run, what something durable says was durable: the newest frame, by a later frame, a
    /// marker, or a file that was used again; and the newest checkpoint, by a frame. A damaged frame behind it looks like one that a crash cut short, and
    /// goes, as FORMAT.md says.
    fn vouched(&self) -> BTreeMap<u32, Vouched> {
        let mut vouched = BTreeMap::new();
        let Some(run) = self.last_run else {
            return vouched;
        };
        for shard in 0..4 {
            let dir = format!("shard-{shard}/journal");
            let newest: &mut Vouched = vouched.entry(shard).or_default();
            for (name, _) in self.disk.tree.list(&dir).unwrap_or_default() {
                let bytes = self.disk.contents(&format!("{dir}/{name}"));
                let bytes = bytes.unwrap_or_default();
                let Some(header) = FileHeader::read(&bytes) else {
                    continue;
                };
                if header.incarnation().run() != run.run {
                    continue;
                }
                newest.frame = header.released().max(newest.frame);
                let mut at = BLOCK;
                while at + BLOCK <= bytes.len() {
                    let frame = scan_block(&bytes[at..], Some(header.incarnation()));
                    if let Ok(frame) = frame {
                        newest.frame = frame.header.durable_seq().max(newest.frame);
                        newest.checkpoint = frame.header.checkpoint().max(newest.checkpoint);
                    }
                    at += frame.map_or(BLOCK, |frame| frame.disk_len);
                }
            }
        }
        vouched
    }
}
