//! The clocks a turn is told.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::id::Now;

/// Both clocks, read now. Neither read enters the kernel.
#[must_use]
pub fn now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    Now {
        mono_ns: nanoseconds(clock_gettime(ClockId::Monotonic)),
        wall_ms: wall.tv_sec * 1000 + wall.tv_nsec / 1_000_000,
    }
}

/// The monotonic clock alone, nanoseconds.
pub(crate) fn mono_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> u64 {
    // The monotonic clock is never negative and lasts 584 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clocks_go_forward_and_agree_with_the_standard_library() {
        let (first, second) = (super::now(), super::now());
        assert!(second.mono_ns >= first.mono_ns);
        let wall = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        assert!((wall - first.wall_ms).abs() < 1000);
    }
}
