//! Folded stacks by process and thread.

use std::collections::BTreeMap;

use rustc_demangle::demangle;

use super::ProfileError;

/// What a frame of the kernel ends with.
const KERNEL: &str = "_[k]";

/// A process whose threads are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it is called: server, load.
    pub name: String,
    /// Its id.
    pub pid: u32,
}

impl std::str::FromStr for Process {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let parts = text.split_once('=').and_then(|(name, pid)| {
            let name = name.to_owned();
            Some(Self {
                name,
                pid: pid.parse().ok()?,
            })
        });
        parts.ok_or_else(|| ProfileError::Process(text.into()))
    }
}

/// One stack and its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Functions, outermost first.
    pub frames: Vec<Frame>,
    /// Samples, or microseconds of waiting.
    pub weight: u64,
}

/// A function on a stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Its name as people write it.
    pub symbol: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
}

impl Frame {
    fn parse(text: &str) -> Self {
        let (symbol, kernel) = match text.strip_suffix(KERNEL) {
            Some(symbol) => (symbol, true),
            None => (text, false),
        };
        // perf leaves some Rust names as the linker has them, or with their hash.
        let symbol = format!("{:#}", demangle(symbol)).replace(';', ":");
        Self {
            symbol: without_hash(&symbol).to_owned(),
            kernel,
        }
    }

    fn folded(&self) -> String {
        format!("{}{}", self.symbol, if self.kernel { KERNEL } else { "" })
    }
}

/// `a::b::h0123456789abcdef` without its last part.
fn without_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => symbol,
    }
}

/// The stacks of one thread, or of all threads of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The process's name.
    pub process: String,
    /// The thread's name; the kernel's numbered workers are one.
    pub name: String,
    /// What was recorded.
    pub stacks: Vec<Stack>,
}

impl Thread {
    /// Weight of all its stacks.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.weight).sum()
    }

    /// Its stacks as folded lines, with its name as the outermost frame.
    #[must_use]
    pub fn folded(&self) -> Vec<String> {
        let line = |stack: &Stack| {
            let frames: Vec<String> = stack.frames.iter().map(Frame::folded).collect();
            format!("{};{} {}", self.name, frames.join(";"), stack.weight)
        };
        self.stacks.iter().map(line).collect()
    }
}

/// Sorts folded lines into threads, those with most weight first; stacks of other processes are dropped.
///
/// # Errors
/// [`ProfileError::Folded`] for a line of another shape, [`ProfileError::Empty`] if nothing is left.
pub fn threads(folded: &str, processes: &[Process]) -> Result<Vec<Thread>, ProfileError> {
    let mut found: BTreeMap<(usize, String), Vec<Stack>> = BTreeMap::new();
    for line in folded.lines() {
        let wrong = || ProfileError::Folded(line.chars().take(200).collect());
        let (stack, weight) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let weight: u64 = weight.parse().map_err(|_| wrong())?;
        let mut frames = stack.split(';');
        let (name, pid) = frames
            .next()
            .and_then(|root| root.rsplit_once('-'))
            .ok_or_else(wrong)?;
        let Some(process) = processes.iter().position(|p| p.pid.to_string() == pid) else {
            continue;
        };
        found
            .entry((process, common_name(name)))
            .or_default()
            .push(Stack {
                frames: frames.map(Frame::parse).collect(),
                weight,
            });
    }
    let mut threads: Vec<(usize, Thread)> = found
        .into_iter()
        .map(|((process, name), stacks)| {
            let thread = Thread {
                process: processes[process].name.clone(),
                name,
                stacks,
            };
            (process, thread)
        })
        .collect();
    threads.sort_by_key(|(process, thread)| (*process, std::cmp::Reverse(thread.weight())));
    match threads.is_empty() {
        true => Err(ProfileError::Empty),
        false => Ok(threads.into_iter().map(|(_, thread)| thread).collect()),
    }
}

/// Workers of a ring come and go under names that end with the submitting thread's number: one name for all of them.
fn common_name(name: &str) -> String {
    match name.strip_prefix("iou-wrk-") {
        Some(_) => "iou-wrk".into(),
        None => name.to_owned(),
    }
}
