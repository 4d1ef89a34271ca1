//! What the kernel counted for processes and disks, from /proc.
//!
//! Sources: proc_pid_stat(5), proc_pid_io(5), proc_pid_status(5) and the kernel's Documentation/admin-guide/iostats.rst.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Bytes of a sector in /proc/diskstats, whatever the device's own.
const SECTOR_LEN: u64 = 512;

/// What some processes used together, or the difference between two such samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ProcessCounters {
    /// CPU seconds in user mode.
    pub user_s: f64,
    /// CPU seconds in the kernel.
    pub system_s: f64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage, page cache included.
    pub write_bytes: u64,
    /// Context switches because of waiting.
    pub voluntary_switches: u64,
    /// Context switches because others wanted the core.
    pub involuntary_switches: u64,
    /// Resident memory in bytes, at the later sample.
    pub resident_bytes: u64,
}

/// What a disk did, or the difference between two such samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskCounters {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Milliseconds with at least one request on its way.
    pub busy_ms: u64,
}

/// One look at the clocks.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    server: Option<ProcessCounters>,
    client: ProcessCounters,
    disks: BTreeMap<String, DiskCounters>,
}

/// What happened between two samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Usage {
    /// The processes named; `None` if none was, or one was gone at either end.
    pub server: Option<ProcessCounters>,
    /// This process.
    pub client: ProcessCounters,
    /// Disks that did anything.
    pub disks: BTreeMap<String, DiskCounters>,
}

impl Sample {
    /// Looks now.
    #[must_use]
    pub fn take(server_pids: &[u32]) -> Self {
        let server = server_pids
            .iter()
            .map(|pid| process(&pid.to_string()))
            .try_fold(ProcessCounters::default(), |sum, one| Some(add(sum, one?)));
        Self {
            server: server.filter(|_| !server_pids.is_empty()),
            client: process("self").unwrap_or_default(),
            disks: fs::read_to_string("/proc/diskstats")
                .map(|text| disks(&text))
                .unwrap_or_default(),
        }
    }

    /// What happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Usage {
        let disks = self
            .disks
            .iter()
            .filter_map(|(name, now)| {
                let then = before.disks.get(name).copied().unwrap_or_default();
                let difference = disk_difference(now, &then);
                (difference != DiskCounters::default()).then(|| (name.clone(), difference))
            })
            .collect();
        Usage {
            server: self
                .server
                .zip(before.server)
                .map(|(now, then)| difference(&now, &then)),
            client: difference(&self.client, &before.client),
            disks,
        }
    }
}

impl ProcessCounters {
    /// CPU seconds in both modes.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

fn add(a: ProcessCounters, b: ProcessCounters) -> ProcessCounters {
    ProcessCounters {
        user_s: a.user_s + b.user_s,
        system_s: a.system_s + b.system_s,
        read_bytes: a.read_bytes + b.read_bytes,
        write_bytes: a.write_bytes + b.write_bytes,
        voluntary_switches: a.voluntary_switches + b.voluntary_switches,
        involuntary_switches: a.involuntary_switches + b.involuntary_switches,
        resident_bytes: a.resident_bytes + b.resident_bytes,
    }
}

/// Counters of threads that ended in between are lost, hence the saturation.
fn difference(now: &ProcessCounters, then: &ProcessCounters) -> ProcessCounters {
    ProcessCounters {
        user_s: (now.user_s - then.user_s).max(0.0),
        system_s: (now.system_s - then.system_s).max(0.0),
        read_bytes: now.read_bytes.saturating_sub(then.read_bytes),
        write_bytes: now.write_bytes.saturating_sub(then.write_bytes),
        voluntary_switches: now
            .voluntary_switches
            .saturating_sub(then.voluntary_switches),
        involuntary_switches: now
            .involuntary_switches
            .saturating_sub(then.involuntary_switches),
        resident_bytes: now.resident_bytes,
    }
}

fn disk_difference(now: &DiskCounters, then: &DiskCounters) -> DiskCounters {
    DiskCounters {
        reads: now.reads.saturating_sub(then.reads),
        read_bytes: now.read_bytes.saturating_sub(then.read_bytes),
        writes: now.writes.saturating_sub(then.writes),
        write_bytes: now.write_bytes.saturating_sub(then.write_bytes),
        flushes: now.flushes.saturating_sub(then.flushes),
        busy_ms: now.busy_ms.saturating_sub(then.busy_ms),
    }
}

fn process(pid: &str) -> Option<ProcessCounters> {
    let folder = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    let mut counters = parse_stat(&stat, rustix::param::clock_ticks_per_second())?;
    // Only the process's owner may read this file; without it the bytes stay 0.
    if let Ok(io) = fs::read_to_string(format!("{folder}/io")) {
        counters.read_bytes = field(&io, "read_bytes:").unwrap_or(0);
        counters.write_bytes = field(&io, "write_bytes:").unwrap_or(0);
    }
    // Switches are counted by thread.
    for task in fs::read_dir(format!("{folder}/task")).ok()?.flatten() {
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        counters.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        counters.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    counters.resident_bytes = field(&status, "VmRSS:").unwrap_or(0) * 1024;
    Some(counters)
}

/// Resident memory of a process in bytes; `None` if it is gone.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(field(&status, "VmRSS:")? * 1024)
}

/// Fields 14 and 15, counted after the command's name, which may itself hold spaces and parentheses.
fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<ProcessCounters> {
    let mut fields = stat
        .get(stat.rfind(')')? + 1..)?
        .split_ascii_whitespace()
        .skip(11);
    let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / ticks_per_second as f64);
    Some(ProcessCounters {
        user_s: seconds()?,
        system_s: seconds()?,
        ..ProcessCounters::default()
    })
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

fn disks(text: &str) -> BTreeMap<String, DiskCounters> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let name = fields.nth(2)?;
            if ["loop", "ram", "zram", "sr"]
                .iter()
                .any(|kind| name.starts_with(kind))
            {
                return None;
            }
            let numbers: Vec<u64> = fields.map_while(|number| number.parse().ok()).collect();
            let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
            let counters = DiskCounters {
                reads: at(0),
                read_bytes: at(2) * SECTOR_LEN,
                writes: at(4),
                write_bytes: at(6) * SECTOR_LEN,
                flushes: at(15),
                busy_ms: at(9),
            };
            (numbers.len() >= 11).then(|| (name.to_owned(), counters))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b) c) S 1 42 42 0 -1 4194304 1 2 3 4 250 125 0 0 20 0 9 0 5 6 7";
        let counters = parse_stat(line, 100).unwrap();
        assert_eq!((counters.user_s, counters.system_s), (2.5, 1.25));
        assert!(parse_stat("42 (cut", 100).is_none());
    }

    #[test]
    fn disks_are_read_by_column() {
        let text = " 254 0 vda 10 1 80 5 20 2 160 9 0 77 14 0 0 0 0 33 8\n   7 0 loop0 1 0 8 0 0 0 0 0 0 0 0\n";
        let disks = disks(text);
        assert_eq!(disks.len(), 1);
        let expected = DiskCounters {
            reads: 10,
            read_bytes: 80 * 512,
            writes: 20,
            write_bytes: 160 * 512,
            flushes: 33,
            busy_ms: 77,
        };
        assert_eq!(disks["vda"], expected);
    }

    #[test]
    fn this_process_is_seen_at_work() {
        let pid = std::process::id();
        let before = Sample::take(&[pid]);
        let mut sum = 0u64;
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(60) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let usage = Sample::take(&[pid]).since(&before);
        assert!(usage.client.cpu_s() > 0.02);
        assert!(usage.server.is_some_and(|server| server.cpu_s() > 0.02));
        assert!(Sample::take(&[u32::MAX]).server.is_none());
    }
}
