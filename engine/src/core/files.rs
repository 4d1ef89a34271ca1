//! The core's open segment files: a bounded cache of descriptors.

use std::collections::{BTreeMap, HashMap};

use crate::disk::{FileId, Lane, OpKind, OpenMode};
use crate::store::{SegmentFile, SegmentName, segment_path};

use super::outbox::{Outbox, Owner};

/// Which file, opened how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub(super) part: u32,
    pub(super) segment: SegmentName,
    pub(super) file: SegmentFile,
    pub(super) mode: OpenMode,
}

/// A file that someone uses or used.
#[derive(Debug)]
struct OpenFile {
    key: FileKey,
    users: usize,
    /// Its opening has ended, well or not.
    answered: bool,
    ready: bool,
    /// Close when the last user goes: its partition or segment is being removed, or opening failed.
    doomed: bool,
    idle_since: u64,
}

/// All open files.
#[derive(Debug)]
pub(super) struct Files {
    /// In a fixed order: the same input leads to the same operations in the same order.
    by_id: BTreeMap<FileId, OpenFile>,
    by_key: HashMap<FileKey, FileId>,
    idle: BTreeMap<u64, FileId>,
    tick: u64,
    limit: usize,
}

impl Files {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_key: HashMap::new(),
            idle: BTreeMap::new(),
            tick: 0,
            limit: limit.max(16),
        }
    }

    /// Takes a file into use, opening it when needed; true when it can be used at once, else when its
    /// [`Owner::Opened`] completion has come.
    pub(super) fn acquire(&mut self, out: &mut Outbox, key: FileKey, dir: &str) -> (FileId, bool) {
        if let Some(&id) = self.by_key.get(&key)
            && let Some(file) = self.by_id.get_mut(&id)
        {
            if file.users == 0 {
                self.idle.remove(&file.idle_since);
            }
            file.users += 1;
            return (id, file.ready);
        }
        self.close_idle(out, self.limit - 1);
        let id = out.new_file();
        let path = segment_path(dir, key.segment, key.file).into_boxed_str();
        let lane = Lane::Background;
        out.submit(
            lane,
            OpKind::Open {
                file: id,
                path,
                mode: key.mode,
            },
            Owner::Opened(id),
        );
        let file = OpenFile {
            key,
            users: 1,
            answered: false,
            ready: false,
            doomed: false,
            idle_since: 0,
        };
        self.by_id.insert(id, file);
        self.by_key.insert(key, id);
        (id, false)
    }

    /// The open succeeded or failed; a failed one is forgotten when its users have released it.
    pub(super) fn opened(&mut self, out: &mut Outbox, id: FileId, ok: bool) {
        let Some(file) = self.by_id.get_mut(&id) else {
            return;
        };
        (file.answered, file.ready) = (true, ok);
        file.doomed |= !ok;
        if !ok && self.by_key.get(&file.key) == Some(&id) {
            self.by_key.remove(&file.key);
        }
        if file.doomed && file.users == 0 {
            // Its users gave up before it was open.
            self.idle.remove(&file.idle_since);
            self.close(out, id);
        }
    }

    /// Gives up one use.
    pub(super) fn release(&mut self, out: &mut Outbox, id: FileId) {
        let Some(file) = self.by_id.get_mut(&id) else {
            return;
        };
        file.users -= 1;
        if file.users > 0 {
            return;
        }
        if file.doomed {
            self.close(out, id);
        } else {
            self.tick += 1;
            file.idle_since = self.tick;
            self.idle.insert(self.tick, id);
            self.close_idle(out, self.limit);
        }
    }

    fn close_idle(&mut self, out: &mut Outbox, keep: usize) {
        while self.by_id.len() > keep {
            let Some((_, id)) = self.idle.pop_first() else {
                return;
            };
            self.close(out, id);
        }
    }

    fn close(&mut self, out: &mut Outbox, id: FileId) {
        let Some(file) = self.by_id.get_mut(&id) else {
            return;
        };
        if self.by_key.get(&file.key) == Some(&id) {
            self.by_key.remove(&file.key);
        }
        if !file.answered {
            // Closed as soon as it is open; until then its name may still be made.
            file.doomed = true;
            return;
        }
        let ready = file.ready;
        self.by_id.remove(&id);
        if ready {
            out.submit(Lane::Background, OpKind::Close { file: id }, Owner::Nobody);
        }
    }

    /// Closes the files that `which` selects, now or when their last users release them; true when none is left.
    pub(super) fn doom(&mut self, out: &mut Outbox, which: impl Fn(&FileKey) -> bool) -> bool {
        let chosen: Vec<FileId> = self
            .by_id
            .iter()
            .filter(|(_, f)| which(&f.key))
            .map(|(&id, _)| id)
            .collect();
        let mut left = false;
        for id in chosen {
            let Some(file) = self.by_id.get_mut(&id) else {
                continue;
            };
            file.doomed = true;
            if self.by_key.get(&file.key) == Some(&id) {
                self.by_key.remove(&file.key);
            }
            if file.users == 0 {
                self.idle.remove(&file.idle_since);
                self.close(out, id);
            }
            left |= self.by_id.contains_key(&id);
        }
        !left
    }

    /// Closes every idle file, for the end of a clean shutdown.
    pub(super) fn close_all(&mut self, out: &mut Outbox) {
        self.close_idle(out, 0);
    }
}
