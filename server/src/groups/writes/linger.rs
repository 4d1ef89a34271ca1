//! When committed offsets leave for the log: at once, or a little later together with those of other groups.
//!
//! A batch of its own costs a journal frame and a flush, which is little for a few groups and most of a core for
//! thousands. Whatever else a coordinator writes leaves at once, and takes along what waits.

use super::super::partition::java_hash;

/// Time over which groups that commit are counted.
const WINDOW_NS: u64 = 100_000_000;
/// Places for groups by hash; several may share one.
const PLACES: u32 = 256;
/// From so many places taken in a window on commits wait: about 50 groups.
const PLACES_BUSY: u32 = 45;
/// How long they then wait where the setting leaves it open.
const ADAPTIVE_NS: u64 = 4_000_000;

/// Decides when what waits may leave.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Groups that have committed in this window, a bit for a place.
    seen: [u64; (PLACES / 64) as usize],
    window_end_ns: u64,
    /// Many groups committed in the window before.
    is_busy: bool,
    /// When what waits is due.
    due_ns: Option<u64>,
    /// It leaves, until nothing waits any more.
    leaves: bool,
}

impl Linger {
    /// A group's commit waits from now on.
    pub(super) fn commit(&mut self, group: &str) {
        // The multiplication spreads names that differ in their last characters only.
        let place = (java_hash(group) as u32).wrapping_mul(0x9E37_79B1) >> 24;
        self.seen[place as usize / 64] |= 1 << (place % 64);
    }

    /// Something waits that must not wait for others.
    pub(super) fn hurry(&mut self) {
        self.leaves = true;
    }

    /// Whether what waits leaves now; `setting_ms` is how long it may wait for others, below 0 for as long as pays.
    pub(super) fn may_leave(&mut self, now_ns: u64, setting_ms: i64) -> bool {
        self.turn_window(now_ns);
        if !self.leaves {
            let wait_ns = match u64::try_from(setting_ms) {
                Ok(ms) => ms.saturating_mul(1_000_000),
                Err(_) if self.is_busy => ADAPTIVE_NS,
                Err(_) => 0,
            };
            let due_ns = *self
                .due_ns
                .get_or_insert_with(|| now_ns.saturating_add(wait_ns));
            self.leaves = due_ns <= now_ns;
        }
        self.leaves
    }

    fn turn_window(&mut self, now_ns: u64) {
        if now_ns < self.window_end_ns {
            return;
        }
        let taken: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        // What was counted long ago says nothing of now.
        let is_recent = now_ns - self.window_end_ns < WINDOW_NS;
        self.is_busy = is_recent && taken >= PLACES_BUSY;
        self.seen = Default::default();
        self.window_end_ns = now_ns + WINDOW_NS;
    }

    /// Nothing waits.
    pub(super) fn emptied(&mut self) {
        self.due_ns = None;
        self.leaves = false;
    }

    /// When what waits is due, monotonic nanoseconds; `None` if it leaves already.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.due_ns.filter(|_| !self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A window in which so many groups commit, each leaving at once or not; ends in the window after it.
    fn busy(linger: &mut Linger, start_ns: u64, groups: u64) {
        for group in 0..groups {
            linger.commit(&format!("group-{group}"));
            linger.may_leave(start_ns, -1);
            linger.emptied();
        }
        linger.may_leave(start_ns + 110 * MS, -1);
        linger.emptied();
    }

    #[test]
    fn a_commit_waits_as_long_as_it_is_told_and_what_is_urgent_not_at_all() {
        let mut linger = Linger::default();
        linger.commit("a");
        assert!(!linger.may_leave(10 * MS, 5));
        assert_eq!(linger.deadline_ns(), Some(15 * MS));
        // A later one does not begin anew.
        linger.commit("b");
        assert!(!linger.may_leave(14 * MS, 5));
        assert!(linger.may_leave(15 * MS, 5));
        assert!(linger.may_leave(15 * MS, 5), "until nothing waits");
        assert_eq!(linger.deadline_ns(), None);
        linger.emptied();
        linger.commit("a");
        assert!(!linger.may_leave(16 * MS, 5));
        linger.hurry();
        assert!(linger.may_leave(16 * MS, 5));
        linger.emptied();
        assert!(linger.may_leave(17 * MS, 0));
    }

    #[test]
    fn only_commits_of_many_groups_wait_by_themselves() {
        let mut linger = Linger::default();
        // One group, however often it commits.
        for time in 0..3000 {
            linger.commit("alone");
            assert!(linger.may_leave(time * MS / 10, -1));
            linger.emptied();
        }
        busy(&mut linger, 1_000 * MS, 20);
        assert!(linger.may_leave(1_111 * MS, -1), "few groups");
        linger.emptied();
        busy(&mut linger, 2_000 * MS, 100);
        linger.commit("a");
        assert!(!linger.may_leave(2_111 * MS, -1));
        assert_eq!(linger.deadline_ns(), Some(2_115 * MS));
        linger.emptied();
        // After a pause nothing is known.
        assert!(linger.may_leave(9_000 * MS, -1));
    }
}
