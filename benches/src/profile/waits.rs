//! Off-CPU time: from the scheduler's events of leaving and coming back to samples that weigh microseconds.

use std::collections::HashMap;
use std::fmt::Write;

/// A stay off the processor shorter than this is no wait worth drawing.
const SHORTEST_US: f64 = 1.0;

/// A thread that left the processor.
struct Left<'a> {
    at_s: f64,
    pid: &'a str,
    name: &'a str,
    /// Leaf frame: why it left.
    why: &'static str,
    stack: &'a str,
}

/// Turns the text of `perf script -F comm,pid,tid,time,event,trace,ip,sym,dso` over `sched:sched_switch` events of all
/// processors into text of the same kind with one event for each wait, its period the microseconds between leaving and
/// coming back. Stacks are those of leaving, with the reason as their innermost frame: `[waiting]`, `[uninterruptible]`
/// or `[preempted]`. Waits that have no end in the text are left out: nobody knows how long they are.
#[must_use]
pub fn waits(script: &str) -> String {
    let mut left: HashMap<&str, Left<'_>> = HashMap::new();
    let mut out = String::new();
    for event in script.split("\n\n") {
        let event = event.trim_start_matches('\n');
        let (head, stack) = event.split_once('\n').unwrap_or((event, ""));
        let Some(switch) = Switch::parse(head) else {
            continue;
        };
        if let Some(before) = left.remove(switch.next_tid) {
            let waited_us = (switch.at_s - before.at_s) * 1e6;
            if waited_us >= SHORTEST_US {
                let (name, pid, tid) = (before.name, before.pid, switch.next_tid);
                let _ = writeln!(
                    out,
                    "{name} {pid}/{tid} {:.6}: {waited_us:.0} off-cpu:\n\t0 {} ([waits])\n{}\n",
                    before.at_s, before.why, before.stack
                );
            }
        }
        // Number 0 is the idle task of each processor.
        if switch.tid != "0" {
            let why = match switch.state.as_bytes().first() {
                Some(b'R') => "[preempted]",
                Some(b'D') => "[uninterruptible]",
                _ => "[waiting]",
            };
            let gone = Left {
                at_s: switch.at_s,
                pid: switch.pid,
                name: switch.name,
                why,
                stack,
            };
            left.insert(switch.tid, gone);
        }
    }
    out
}

/// The head of one event.
struct Switch<'a> {
    name: &'a str,
    pid: &'a str,
    tid: &'a str,
    at_s: f64,
    state: &'a str,
    next_tid: &'a str,
}

impl<'a> Switch<'a> {
    /// `NAME PID/TID SECONDS: sched:sched_switch: … prev_state=S ==> next_comm=… next_pid=N …`; also the short form
    /// `NAME:TID [PRIO] STATE ==> NAME:TID [PRIO]` that some versions of perf print. Names may hold blanks.
    fn parse(head: &'a str) -> Option<Self> {
        let (before, trace) = head.split_once("sched:sched_switch:")?;
        let (before, seconds) = before
            .trim_end()
            .trim_end_matches(':')
            .rsplit_once(char::is_whitespace)?;
        let (name, ids) = before.trim_end().rsplit_once(char::is_whitespace)?;
        let (pid, tid) = ids.split_once('/')?;
        let (prev, next) = trace.split_once("==>")?;
        let (state, next_tid) = match prev.split_once("prev_state=") {
            Some((_, state)) => (state.trim(), word_after(next, "next_pid=")?),
            None => {
                let state = prev.trim_end().rsplit(char::is_whitespace).next()?;
                let (target, _) = next.rsplit_once(" [")?;
                (state, target.rsplit_once(':')?.1)
            }
        };
        Some(Self {
            name: name.trim(),
            pid,
            tid,
            at_s: seconds.trim().parse().ok()?,
            state,
            next_tid,
        })
    }
}

fn word_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key)?.1.split_whitespace().next()
}
