//! Commits: overwrites of a zero-filled file, each followed by an `fdatasync`, several in flight. What a journal can do at
//! most.

use std::time::{Duration, Instant};

use ringlog_engine::buf::{AlignedBuf, BLOCK};

use super::BenchError;
use super::files::{Fill, Scratch, noise};
use super::measure::{Latencies, Stopwatch};
use super::report::Figures;
use crate::uring::Ring;

/// Name of the file in the scratch folder.
const FILE: &str = "journal";

/// One setting to measure.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// Bytes of one write, whole blocks.
    pub size: usize,
    /// Commits in flight.
    pub in_flight: usize,
    /// Length of the file, bytes; the writes go round in it.
    pub file_bytes: u64,
    /// How long.
    pub duration: Duration,
}

/// Makes the file that all settings share.
///
/// # Errors
/// [`BenchError`].
pub fn prepare(scratch: &Scratch, file_bytes: u64) -> Result<(), BenchError> {
    scratch.needs(file_bytes)?;
    let file = scratch.open(FILE, true)?;
    scratch.fill(&file, file_bytes, Fill::Zeros)
}

/// Measures one setting once.
///
/// # Errors
/// [`BenchError`].
pub fn run(scratch: &Scratch, setting: &Commit) -> Result<Figures, BenchError> {
    let Commit {
        size,
        in_flight,
        file_bytes,
        duration,
    } = *setting;
    if size == 0 || !size.is_multiple_of(BLOCK) || size as u64 > file_bytes {
        let reason =
            format!("a commit of {size} bytes is not whole blocks of {BLOCK} within the file");
        return Err(BenchError::Settings(reason));
    }
    let file = scratch.open(FILE, true)?;
    let mut ring = Ring::new(in_flight).map_err(BenchError::Ring)?;
    let mut buffers: Vec<AlignedBuf> = (0..in_flight).map(|n| filled(size, n as u64)).collect();
    let places = file_bytes / size as u64;
    let (mut next, mut commits) = (0, 0u64);
    let mut started = vec![Instant::now(); in_flight];
    let mut tags: Vec<u64> = (0..in_flight as u64).collect();
    let mut latencies = Latencies::default();
    let watch = Stopwatch::start();
    let end = Instant::now() + duration;
    loop {
        if Instant::now() < end {
            scratch.check()?;
            while let (Some(buf), Some(tag)) = (buffers.pop(), tags.pop()) {
                started[tag as usize] = Instant::now();
                ring.write(&file, next % places * size as u64, buf, true, tag);
                next += 1;
            }
        }
        if ring.in_flight() == 0 {
            break;
        }
        ring.wait().map_err(BenchError::Ring)?;
        while let Some(done) = ring.next_done() {
            done.result
                .map_err(BenchError::operation("a write with fdatasync"))?;
            latencies.record(started[done.tag as usize].elapsed());
            commits += 1;
            buffers.push(done.buf);
            tags.push(done.tag);
        }
    }
    Ok(Figures::new(
        &watch,
        commits,
        commits * size as u64,
        Some(&latencies),
    ))
}

fn filled(size: usize, seed: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(size);
    noise(&mut buf, seed);
    buf
}
