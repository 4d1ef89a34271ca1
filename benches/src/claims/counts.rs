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

/// Whether the kernel counts system calls for this user.
#[must_use]
pub fn calls_are_counted() -> bool {
    Counts::start().calls.is_some()
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

/// System calls of another process, of the threads that it has when counting starts.
#[derive(Debug)]
pub struct ProcessCalls {
    threads: Vec<Counter>,
}

impl ProcessCalls {
    /// Starts counting; `None` where the tracepoint may not be used.
    #[must_use]
    pub fn start(pid: u32) -> Option<Self> {
        let id = event_id()?;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let threads = tasks.flatten().map(|task| {
            let thread: i32 = task.file_name().to_str()?.parse().ok()?;
            let mut counter = Builder::new(Tracepoint::with_id(id))
                .observe_pid(thread)
                .any_cpu()
                .include_kernel()
                .build()
                .ok()?;
            counter.enable().ok()?;
            Some(counter)
        });
        let threads: Vec<Counter> = threads.collect::<Option<_>>()?;
        (!threads.is_empty()).then_some(Self { threads })
    }

    /// Calls since; a thread that has ended counts with what it made.
    #[must_use]
    pub fn read(&mut self) -> u64 {
        let counts = self
            .threads
            .iter_mut()
            .filter_map(|thread| thread.read().ok());
        counts.sum()
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

    #[test]
    fn what_a_process_does_is_counted_over_its_threads() {
        let Some(mut calls) = ProcessCalls::start(std::process::id()) else {
            return; // Not every host allows it.
        };
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        assert!(calls.read() >= 20);
    }
}
