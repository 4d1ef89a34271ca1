//! Commits: overwrites of a zero-filled file, each followed by an `fdatasync`, several in flight. What a journal can do at
//! most.

use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringlog_engine::buf::{AlignedBuf, BLOCK};

use super::BenchError;
use super::files::{Fill, Scratch, noisy_buffers};
use super::measure::{Latencies, Stopwatch};
use super::report::Figures;
use crate::uring::Ring;

/// Name of the file in the scratch folder.
const FILE: &str = "journal";
/// And of the one that is read meanwhile.
const READ_FILE: &str = "beside";

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
    /// Commits begun each second, their latency counted from when they were due; without it the next begins when one
    /// ends.
    pub rate: Option<f64>,
    /// Beside them another file is read past the page cache, over and over, in blocks of so many bytes, one at a time.
    pub read_block: Option<usize>,
}

/// Makes the file that all settings share, and one of the same length to read if `read`.
///
/// # Errors
/// [`BenchError`].
pub fn prepare(scratch: &Scratch, file_bytes: u64, read: bool) -> Result<(), BenchError> {
    scratch.needs(file_bytes)?;
    let file = scratch.open(FILE, true)?;
    scratch.fill(&file, file_bytes, Fill::Zeros)?;
    if read {
        scratch.make(READ_FILE, file_bytes)?;
    }
    Ok(())
}

/// Measures one setting once.
///
/// # Errors
/// [`BenchError`].
pub fn run(scratch: &Scratch, setting: &Commit) -> Result<Figures, BenchError> {
    let (size, file_bytes) = (setting.size, setting.file_bytes);
    for bytes in [Some(size), setting.read_block].into_iter().flatten() {
        if bytes == 0 || !bytes.is_multiple_of(BLOCK) || bytes as u64 > file_bytes {
            let reason =
                format!("{bytes} bytes at a time are not whole blocks of {BLOCK} within the file");
            return Err(BenchError::Settings(reason));
        }
    }
    let Some(block) = setting.read_block else {
        return commit(scratch, setting);
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(scratch, block, file_bytes, &over));
        let figures = commit(scratch, setting);
        over.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(figures?.beside(read?))
    })
}

/// Reads the other file over and over; MB each second.
fn read_until(
    scratch: &Scratch,
    block: usize,
    file_bytes: u64,
    over: &AtomicBool,
) -> Result<f64, BenchError> {
    let file = scratch.open(READ_FILE, true)?;
    let mut buf = AlignedBuf::zeroed(block);
    let (mut at, mut bytes) = (0, 0);
    let watch = Stopwatch::start();
    while !over.load(Ordering::Relaxed) {
        scratch.check()?;
        file.read_exact_at(&mut buf, at)
            .map_err(BenchError::file(READ_FILE))?;
        bytes += block as u64;
        at += block as u64;
        if at + block as u64 > file_bytes {
            at = 0;
        }
    }
    Ok(bytes as f64 / 1e6 / watch.wall_s())
}

fn commit(scratch: &Scratch, setting: &Commit) -> Result<Figures, BenchError> {
    let Commit {
        size, in_flight, ..
    } = *setting;
    let file = scratch.open(FILE, true)?;
    let mut ring = Ring::new(in_flight).map_err(BenchError::Ring)?;
    let mut buffers = noisy_buffers(in_flight, size, 0);
    let places = setting.file_bytes / size as u64;
    let (mut next, mut commits) = (0, 0u64);
    let mut started = vec![Instant::now(); in_flight];
    let mut tags: Vec<u64> = (0..in_flight as u64).collect();
    let mut latencies = Latencies::default();
    let watch = Stopwatch::start();
    let begun = Instant::now();
    let end = begun + setting.duration;
    // When commit `n` is due; at once without a rate.
    let due = |n: u64| {
        setting
            .rate
            .map(|rate| begun + Duration::from_secs_f64(n as f64 / rate))
    };
    loop {
        let now = Instant::now();
        let mut pause = None;
        if now < end {
            scratch.check()?;
            while let Some(&tag) = tags.last() {
                let at = due(next).unwrap_or(now);
                if at > now {
                    pause = Some(at.min(end) - now);
                    break;
                }
                tags.pop();
                let Some(buf) = buffers.pop() else { break };
                started[tag as usize] = if setting.rate.is_some() {
                    at
                } else {
                    Instant::now()
                };
                ring.write(&file, next % places * size as u64, buf, true, tag);
                next += 1;
            }
        }
        match pause {
            Some(pause) if ring.in_flight() == 0 => std::thread::sleep(pause),
            Some(pause) => ring.wait_for(pause).map_err(BenchError::Ring)?,
            None if ring.in_flight() == 0 => break,
            None => ring.wait().map_err(BenchError::Ring)?,
        }
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
