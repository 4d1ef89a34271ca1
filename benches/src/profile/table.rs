//! Where the time goes, as numbers: for each thread its share, user against kernel, and its functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::threads::{Frame, Thread};

/// Longest symbol in a printed table; JSON has all of it.
const SYMBOL_CHARS: usize = 90;

/// One function of a thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Name.
    pub symbol: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// Percent of the thread's samples in it.
    pub self_percent: f64,
    /// Percent of the thread's samples in it or in what it calls; recursion counts once.
    pub children_percent: f64,
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThreadRow {
    /// server, load.
    pub process: String,
    /// The thread's name.
    pub thread: String,
    /// Samples.
    pub samples: u64,
    /// Percent of one processor over the window.
    pub cpu_percent: f64,
    /// Percent of its samples in user mode.
    pub user_percent: f64,
    /// Percent of its samples in the kernel.
    pub kernel_percent: f64,
    /// Functions with most samples of their own.
    pub by_self: Vec<Row>,
    /// Functions with most samples in them or below.
    pub by_children: Vec<Row>,
}

/// Rows for threads recorded over `seconds` at `hz` samples a second, with `top` functions each.
#[must_use]
pub fn rows(threads: &[Thread], hz: f64, seconds: f64, top: usize) -> Vec<ThreadRow> {
    threads
        .iter()
        .map(|thread| row(thread, hz * seconds, top))
        .collect()
}

fn row(thread: &Thread, samples_max: f64, top: usize) -> ThreadRow {
    let total = thread.weight();
    let percent = |weight: u64| 100.0 * weight as f64 / total.max(1) as f64;
    let mut counts: BTreeMap<&Frame, (u64, u64)> = BTreeMap::new();
    let mut kernel = 0;
    for stack in &thread.stacks {
        for frame in stack.frames.iter().collect::<BTreeSet<_>>() {
            counts.entry(frame).or_default().1 += stack.weight;
        }
        if let Some(leaf) = stack.frames.last() {
            counts.entry(leaf).or_default().0 += stack.weight;
            kernel += if leaf.kernel { stack.weight } else { 0 };
        }
    }
    let ranked = |weight: fn(&(u64, u64)) -> u64| {
        let mut order: Vec<(&Frame, (u64, u64))> = counts.iter().map(|(f, c)| (*f, *c)).collect();
        order.sort_by(|a, b| weight(&b.1).cmp(&weight(&a.1)).then_with(|| a.0.cmp(b.0)));
        let first = order
            .into_iter()
            .filter(|(_, counts)| weight(counts) > 0)
            .take(top);
        first
            .map(|(frame, counts)| Row {
                symbol: frame.symbol.clone(),
                kernel: frame.kernel,
                self_percent: percent(counts.0),
                children_percent: percent(counts.1),
            })
            .collect()
    };
    ThreadRow {
        process: thread.process.clone(),
        thread: thread.name.clone(),
        samples: total,
        cpu_percent: 100.0 * total as f64 / samples_max.max(1.0),
        user_percent: percent(total - kernel),
        kernel_percent: percent(kernel),
        by_self: ranked(|counts| counts.0),
        by_children: ranked(|counts| counts.1),
    }
}

/// The rows for people.
#[must_use]
pub fn text(rows: &[ThreadRow]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(
            out,
            "{} {}: {:.1} % of a core ({} samples), {:.1} % of it user, {:.1} % kernel",
            row.process,
            row.thread,
            row.cpu_percent,
            row.samples,
            row.user_percent,
            row.kernel_percent
        );
        for (title, functions) in [
            ("in it alone", &row.by_self),
            ("with what it calls", &row.by_children),
        ] {
            let _ = writeln!(out, "    self %  children %  by time {title}");
            for function in functions {
                let symbol: String = function.symbol.chars().take(SYMBOL_CHARS).collect();
                let mode = if function.kernel { " [kernel]" } else { "" };
                let _ = writeln!(
                    out,
                    "    {:>6.1}  {:>10.1}  {symbol}{mode}",
                    function.self_percent, function.children_percent
                );
            }
        }
        out.push('\n');
    }
    out
}
