//! What the simulations share: seeded chance, and lines that keep order and delay.

use std::collections::{BTreeMap, VecDeque};

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What is on its way over each connection: when it arrives, its number, and it.
pub(super) type Lines<T> = BTreeMap<u64, VecDeque<(u64, u64, T)>>;

/// Puts something on a connection's line; it does not overtake what is there.
pub(super) fn send<T>(lines: &mut Lines<T>, conn: u64, at_ms: u64, slot: u64, what: T) {
    let line = lines.entry(conn).or_default();
    let at_ms = line.back().map_or(at_ms, |(last, ..)| at_ms.max(*last));
    line.push_back((at_ms, slot, what));
}

/// The next arrival over a connection.
pub(super) fn pop_due<T>(lines: &mut Lines<T>, conn: u64, now_ms: u64) -> Option<(u64, u64, T)> {
    let line = lines.get_mut(&conn)?;
    match line.front() {
        Some((at_ms, ..)) if *at_ms <= now_ms => line.pop_front(),
        _ => None,
    }
}
