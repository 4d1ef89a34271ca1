//! How quiet the host was while something was measured: what others used, what the hypervisor took, who waited.

use std::fs;

use serde::{Deserialize, Serialize};

/// Share of the processors that others may use.
const OTHERS_MAX: f64 = 0.08;
/// Share of the time that the hypervisor may take.
const STEAL_MAX: f64 = 0.03;

/// Shares of the host's processor time in an interval, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Used by processes that are neither ours nor the kernel's.
    pub others_share: f64,
    /// Taken by the hypervisor.
    pub steal_share: f64,
    /// Time in which some task waited for a processor, ours included (pressure stall information).
    pub cpu_pressure: f64,
    /// Time in which some task waited for the disk, ours included.
    pub io_pressure: f64,
    /// Whether this is a second try after a louder one.
    #[serde(default)]
    pub repeated: bool,
}

impl Noise {
    /// Whether others may have changed what was measured.
    #[must_use]
    pub fn is_loud(&self) -> bool {
        self.others_share > OTHERS_MAX || self.steal_share > STEAL_MAX
    }

    /// What was not ours, as one number.
    #[must_use]
    pub fn loudness(&self) -> f64 {
        self.others_share + self.steal_share
    }
}

/// Counters at a moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Of all processors, clock ticks.
    total: u64,
    busy: u64,
    steal: u64,
    /// Of this process, its children named at the reading, and kernel threads.
    ours: u64,
    pressure_us: [u64; 2],
    at_us: u64,
}

impl Reading {
    /// Reads now; `pids` are processes that belong to the measurement beside this one.
    #[must_use]
    pub fn take(pids: &[u32]) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (total, busy, steal) = processors(&stat);
        let pressure = |what: &str| {
            let text = fs::read_to_string(format!("/proc/pressure/{what}")).unwrap_or_default();
            some_total_us(&text)
        };
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        Self {
            total,
            busy,
            steal,
            ours: ours(pids),
            pressure_us: [pressure("cpu"), pressure("io")],
            at_us: (seconds.unwrap_or(0.0) * 1e6) as u64,
        }
    }

    /// What happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Noise {
        let total = self.total.saturating_sub(before.total).max(1) as f64;
        let busy = self.busy.saturating_sub(before.busy);
        let ours = self.ours.saturating_sub(before.ours);
        let wall_us = self.at_us.saturating_sub(before.at_us).max(1) as f64;
        let pressure =
            |n: usize| self.pressure_us[n].saturating_sub(before.pressure_us[n]) as f64 / wall_us;
        Noise {
            others_share: busy.saturating_sub(ours) as f64 / total,
            steal_share: self.steal.saturating_sub(before.steal) as f64 / total,
            cpu_pressure: pressure(0).min(1.0),
            io_pressure: pressure(1).min(1.0),
            repeated: false,
        }
    }
}

/// Ticks in all, at work (interrupts left out: they are mostly ours) and stolen, from the first line of /proc/stat.
fn processors(stat: &str) -> (u64, u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // user nice system idle iowait irq softirq steal; guest time is part of user's.
    let busy = at(0) + at(1) + at(2);
    ((0..8).map(at).sum(), busy, at(7))
}

/// Microseconds of the line "some … total=N".
fn some_total_us(text: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with("some"));
    let total = line.and_then(|line| line.rsplit_once("total="));
    total
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Ticks of this process, of `pids` and of all kernel threads, children that ended included.
fn ours(pids: &[u32]) -> u64 {
    let me = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, ticks) = parent_and_ticks(&stat)?;
            let kernel = pid == 2 || parent == 2;
            (kernel || pid == me || parent == me || pids.contains(&pid)).then_some(ticks)
        })
        .sum()
}

/// Parent's id and the ticks of a process and the children it waited for.
fn parent_and_ticks(stat: &str) -> Option<(u32, u64)> {
    // The name before may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat
        .get(stat.rfind(')')? + 1..)?
        .split_ascii_whitespace()
        .collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some((number(1)? as u32, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_column() {
        let text = "cpu  100 5 20 1000 30 1 2 7 0 0\ncpu0 1 2 3\n";
        assert_eq!(processors(text), (1165, 125, 7));
        assert_eq!(
            some_total_us("some avg10=0.00 avg60=0.00 total=1234\nfull total=9\n"),
            1234
        );
        let stat = "42 (a) b) S 2 42 42 0 -1 4194304 1 2 3 4 250 125 3 4 20 0 9";
        assert_eq!(parent_and_ticks(stat), Some((2, 382)));
    }

    #[test]
    fn shares_are_of_the_interval() {
        let before = Reading::default();
        let after = Reading {
            total: 1000,
            busy: 300,
            steal: 50,
            ours: 200,
            pressure_us: [100, 400],
            at_us: 1000,
        };
        let noise = after.since(&before);
        assert_eq!((noise.others_share, noise.steal_share), (0.1, 0.05));
        assert_eq!((noise.cpu_pressure, noise.io_pressure), (0.1, 0.4));
        assert!(noise.is_loud() && !Noise::default().is_loud());
    }

    #[test]
    fn our_own_work_is_not_noise() {
        let before = Reading::take(&[]);
        let start = std::time::Instant::now();
        let mut sum = 0u64;
        while start.elapsed() < std::time::Duration::from_millis(300) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let after = Reading::take(&[]);
        assert!(after.ours - before.ours >= 10, "{before:?} {after:?}");
    }
}
