//! Who wants to know when a partition moves. One word from the core wakes those who wait for that partition, and
//! nobody looks through all partitions of a request.

use hashbrown::HashMap;
use ringlog_engine::core::Core;
use ringlog_engine::id::Part;
use smallvec::SmallVec;

/// A place that a change of a partition matters to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watcher {
    /// Partition `at` of a full request that waits.
    Request { id: u64, at: usize },
    /// A partition of a session, whether a request waits in it or not.
    Session { id: i32, slot: usize },
}

/// The watchers of a shard's partitions.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    table: HashMap<Part, SmallVec<[Watcher; 2]>>,
}

impl Watchers {
    /// Adds a watcher that is not there yet.
    pub(super) fn add(&mut self, core: &mut Core, part: Part, watcher: Watcher) {
        let all = self.table.entry(part).or_default();
        if all.is_empty() {
            core.watch(part);
        }
        debug_assert!(!all.contains(&watcher), "each place watches once");
        all.push(watcher);
    }

    pub(super) fn remove(&mut self, part: Part, watcher: Watcher) {
        if let Some(all) = self.table.get_mut(&part) {
            all.retain(|other| *other != watcher);
            if all.is_empty() {
                self.table.remove(&part);
            }
        }
    }

    /// The partition moved: those who watched it watch no more.
    pub(super) fn take(&mut self, part: Part) -> SmallVec<[Watcher; 2]> {
        self.table.remove(&part).unwrap_or_default()
    }

    /// Partitions that are watched.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
