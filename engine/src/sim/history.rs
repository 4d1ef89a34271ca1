//! A value whose changes are volatile until synced: what the durable state is, and every version written since.

use super::rng::Rng;

/// One change that no successful sync has covered.
#[derive(Debug, Clone)]
struct Change<T> {
    stamp: u64,
    value: T,
    /// A sync that covered it failed: the system took it for clean, and no later sync will write it.
    abandoned: bool,
}

/// A durable value and its unsynced successors, in the order they were made.
#[derive(Debug, Clone)]
pub(super) struct History<T> {
    durable: T,
    pending: Vec<Change<T>>,
}

impl<T: Clone> History<T> {
    pub(super) fn new(durable: T) -> Self {
        Self {
            durable,
            pending: Vec::new(),
        }
    }

    /// What a reader sees: the newest version.
    pub(super) fn current(&self) -> &T {
        self.pending.last().map_or(&self.durable, |c| &c.value)
    }

    pub(super) fn durable(&self) -> &T {
        &self.durable
    }

    /// Every state a crash may leave, the durable one first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.durable).chain(self.pending.iter().map(|c| &c.value))
    }

    pub(super) fn is_clean(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn set(&mut self, stamp: u64, value: T) {
        self.pending.push(Change {
            stamp,
            value,
            abandoned: false,
        });
    }

    /// A sync that saw every change up to `horizon` succeeded.
    pub(super) fn settle(&mut self, horizon: u64) {
        let covered = |c: &Change<T>| c.stamp <= horizon && !c.abandoned;
        if let Some(last) = self.pending.iter().rposition(covered) {
            self.durable = self.pending[last].value.clone();
            self.pending.drain(..=last);
        }
    }

    /// A sync that saw every change up to `horizon` failed: they stay readable and are never written again.
    pub(super) fn abandon(&mut self, horizon: u64) {
        for change in &mut self.pending {
            change.abandoned |= change.stamp <= horizon;
        }
    }

    /// Any of the candidates; `newness` in percent leans to the newest.
    pub(super) fn survivor(&self, rng: &mut Rng, newness: u64) -> T {
        if rng.percent(newness) {
            return self.current().clone();
        }
        let which = rng.index(self.pending.len() + 1);
        self.candidates()
            .nth(which)
            .unwrap_or(&self.durable)
            .clone()
    }

    /// The crash has decided.
    pub(super) fn resolve(&mut self, value: T) {
        self.durable = value;
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_covers_what_it_saw_and_no_more() {
        let mut h = History::new(0);
        h.set(1, 1);
        h.set(2, 2);
        h.set(3, 3);
        h.settle(2);
        assert_eq!((*h.durable(), *h.current()), (2, 3));
        assert_eq!(h.candidates().copied().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn what_a_failed_sync_saw_is_never_written_by_a_later_one() {
        let mut h = History::new(0);
        h.set(1, 1);
        h.abandon(1);
        h.settle(9);
        assert_eq!((*h.durable(), *h.current()), (0, 1));
        h.set(10, 2);
        h.settle(10);
        assert_eq!(*h.durable(), 2);
        assert!(h.is_clean());
    }
}
