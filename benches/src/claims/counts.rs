//! What the kernel counts for a thread: system calls, context switches, page faults.

use std::fs;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::namespace::own_mounts;

/// Path of the event below the tracing file system.
const EVENT: &str = "events/raw_syscalls/sys_enter/id";

/// Who counted system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedBy {
    /// The tracepoint `raw_syscalls:sys_enter`.
    Kernel,
    /// The loop that made them, because the tracepoint may not be used.
    Loop,
}

/// Counts of the calling thread from its start on.
#[derive(Debug)]
pub struct Counts {
    calls: Option<Counter>,
    switches: u64,
    faults: u64,
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// System calls, if the kernel tells.
    pub calls: Option<u64>,
    /// Context switches, voluntary or not.
    pub switches: u64,
    /// Page faults, with or without a read.
    pub faults: u64,
}

impl Counts {
    /// Starts counting for this thread.
    #[must_use]
    pub fn start() -> Self {
        let calls = event_id().and_then(|id| {
            let mut counter = Builder::new(Tracepoint::with_id(id))
                .include_kernel()
                .build()
                .ok()?;
            counter.enable().ok()?;
            Some(counter)
        });
        let (switches, faults) = of_thread();
        Self {
            calls,
            switches,
            faults,
        }
    }

    /// What has been counted since.
    #[must_use]
    pub fn read(&mut self) -> Counted {
        let calls = self.calls.as_mut().and_then(|counter| counter.read().ok());
        let (switches, faults) = of_thread();
        Counted {
            calls,
            switches: switches - self.switches,
            faults: faults - self.faults,
        }
    }
}

/// Number of the event; asked once.
fn event_id() -> Option<u64> {
    static ID: std::sync::OnceLock<Option<u64>> = std::sync::OnceLock::new();
    *ID.get_or_init(|| {
        let read = |folder: &str| {
            fs::read_to_string(format!("{folder}/{EVENT}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        read("/sys/kernel/tracing")
            .or_else(|| read("/sys/kernel/debug/tracing"))
            // Not mounted: a thread with mounts of its own looks, and nobody else sees it.
            .or_else(|| {
                std::thread::spawn(move || {
                    let folder = "/sys/kernel/tracing";
                    own_mounts().ok()?;
                    mount_change(
                        "/",
                        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
                    )
                    .ok()?;
                    mount("tracefs", folder, "tracefs", MountFlags::empty(), None).ok()?;
                    read(folder)
                })
                .join()
                .ok()
                .flatten()
            })
    })
}

/// Switches and faults of the calling thread.
fn of_thread() -> (u64, u64) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // Minor faults are the 8th field after the name, major ones the 10th.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    let field = |index: usize| {
        fields
            .get(index)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    (
        number("voluntary_ctxt_switches:") + number("nonvoluntary_ctxt_switches:"),
        field(7) + field(9),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_does_is_counted() {
        let mut counts = Counts::start();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        let memory = vec![1u8; 8 << 20];
        std::hint::black_box(&memory);
        let counted = counts.read();
        assert!(counted.switches >= 20, "{counted:?}");
        assert!(counted.faults > 0, "{counted:?}");
        assert!(counted.calls.is_none_or(|calls| calls >= 20), "{counted:?}");
    }
}
