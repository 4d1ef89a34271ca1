//! How fast a round goes, and how full the journal gets before the next one begins: background work yields to
//! produce and fetch.

use super::Destage;
use crate::store::WRITE_MAX;

/// Bytes of writes under way when the journal needs the room soon.
pub(super) const WRITING_MAX: usize = 8 << 20;
/// And when it does not: a commit waits behind what the device has in its queue, and its flush behind what the device
/// has in its cache.
const WRITING_MIN: usize = 256 << 10;
/// Bytes copied into write buffers in one turn at least.
const TURN_BYTES_MIN: usize = 32 << 10;

/// How far a round goes at once: background work yields to produce and fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of writes under way at most.
    pub(super) writing_bytes: usize,
    /// Bytes copied into write buffers in one turn at most.
    pub(super) turn_bytes: usize,
}

impl Pace {
    fn polite(writing_bytes: usize) -> Self {
        Self {
            writing_bytes,
            turn_bytes: (writing_bytes / 32).max(TURN_BYTES_MIN),
        }
    }

    /// Size of a write: several are under way.
    pub(super) fn write_bytes(self) -> usize {
        (self.writing_bytes / 2).min(WRITE_MAX)
    }

    /// Appends are about to wait for this.
    pub(super) const HURRY: Self = Self {
        writing_bytes: WRITING_MAX,
        turn_bytes: 1 << 20,
    };
}

impl Destage {
    /// Backlog that starts a round, of a `room` in bytes. Large rounds are cheap: fewer and longer writes, fewer
    /// syncs. But what comes in meanwhile must find room, and as much more as came in during the last round is
    /// likely to: the backlog is to end below three quarters.
    pub(super) fn due_bytes(&self, room: u64) -> u64 {
        let (begun, ended) = self.last_round;
        let due = u128::from(room) * 3 / 4 * u128::from(begun) / u128::from(ended.max(1));
        u64::try_from(due).unwrap_or(room).clamp(room / 4, room / 2)
    }

    /// How fast to go: the slower, the less came in during the last round, compared with what it stored. A backlog
    /// that nears `room`, in bytes, ends the politeness.
    pub(super) fn pace(&self, backlog: u64, room: u64) -> Pace {
        let (begun, ended) = self.last_round;
        if backlog > room / 4 * 3 {
            return Pace::HURRY;
        }
        let grown = u128::from(ended.saturating_sub(begun));
        let wanted = 4 * WRITING_MAX as u128 * grown / u128::from(begun.max(1));
        let writing_bytes = usize::try_from(wanted)
            .unwrap_or(WRITING_MAX)
            .clamp(WRITING_MIN, WRITING_MAX);
        Pace::polite(writing_bytes)
    }
}
