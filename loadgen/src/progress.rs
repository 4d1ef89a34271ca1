//! A line on the terminal while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shared::Role;
use crate::stats::{Counts, Schedule};

/// Progress by seconds of the schedule, with the rates of the last whole second. Nothing is drawn unless stderr is a
/// terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    warmup: usize,
    index: usize,
    /// Records, bytes and seconds of the interval at hand, producers then consumers.
    sums: [(u64, u64, f64); 2],
}

impl Progress {
    pub(crate) fn new(shown: bool, schedule: &Schedule) -> Self {
        let bar = if shown {
            ProgressBar::with_draw_target(Some(schedule.len() as u64), ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            warmup: schedule.first_measured(),
            index: 0,
            sums: [(0, 0, 0.0); 2],
        }
    }

    pub(crate) fn interval(&mut self, role: Role, index: usize, counts: &Counts, length: Duration) {
        if index != self.index {
            let phase = if self.index < self.warmup {
                "warm-up"
            } else {
                "measuring"
            };
            let [sent, read] = self.sums.map(|(records, bytes, seconds)| {
                let seconds = seconds.max(1e-9);
                (records as f64 / seconds, bytes as f64 / 1e6 / seconds)
            });
            self.bar.set_message(format!(
                "{phase}  in {:.0} records/s {:.1} MB/s  out {:.0} records/s {:.1} MB/s",
                sent.0, sent.1, read.0, read.1
            ));
            self.sums = [(0, 0, 0.0); 2];
            self.index = index;
        }
        let sum = &mut self.sums[usize::from(role == Role::Consume)];
        sum.0 += counts.records;
        sum.1 += counts.batch_bytes;
        sum.2 = length.as_secs_f64();
        self.bar.set_position(index as u64 + 1);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
