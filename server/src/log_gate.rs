//! Log lines that clients can cause, at a bounded rate.

use std::fmt::Arguments;

use ringlog_engine::id::Now;

/// Lines a second.
const LINES_MAX: u32 = 10;

/// Lets a few lines a second through and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl LogGate {
    /// Logs a warning, unless too many were logged within this second.
    pub(crate) fn warn(&mut self, now: Now, line: Arguments<'_>) {
        let second = now.mono_ns / 1_000_000_000;
        if second != self.second {
            if self.suppressed > 0 {
                tracing::warn!("{} similar warnings were left out", self.suppressed);
            }
            (self.second, self.lines, self.suppressed) = (second, 0, 0);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            tracing::warn!("{line}");
        } else {
            self.suppressed += 1;
        }
    }
}
