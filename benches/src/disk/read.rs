//! Sequential reads of one file: past the page cache, through it when it is empty, through it when the file is in it.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::BenchError;
use super::files::{Scratch, buffers, drop_pages};
use super::measure::{Latencies, Stopwatch};
use super::report::Figures;
use crate::uring::Ring;

/// Name of the file in the scratch folder.
const FILE: &str = "segment";
/// Size of the reads that bring a file into the page cache, bytes.
const WARM_BLOCK: usize = 1 << 20;

/// How the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ReadMode {
    /// O_DIRECT.
    Direct,
    /// Through the page cache, after the file's pages were dropped.
    Cold,
    /// Through the page cache, with the file in it.
    Hot,
}

/// One setting to measure.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// How.
    pub mode: ReadMode,
    /// Bytes of one read, whole blocks.
    pub block: usize,
    /// Reads in flight.
    pub depth: usize,
    /// Length of the file, bytes.
    pub file_bytes: u64,
}

/// Makes the file that all settings share.
///
/// # Errors
/// [`BenchError`].
pub fn prepare(scratch: &Scratch, file_bytes: u64) -> Result<(), BenchError> {
    scratch.make(FILE, file_bytes).map(drop)
}

/// Reads the whole file once.
///
/// # Errors
/// [`BenchError`].
pub fn run(scratch: &Scratch, setting: &Read) -> Result<Figures, BenchError> {
    let file = scratch.open(FILE, setting.mode == ReadMode::Direct)?;
    match setting.mode {
        ReadMode::Direct => {}
        ReadMode::Cold => drop_pages(&file)?,
        ReadMode::Hot => {
            sweep(
                scratch,
                &file,
                &Read {
                    block: WARM_BLOCK,
                    depth: 1,
                    ..*setting
                },
            )?;
        }
    }
    sweep(scratch, &file, setting)
}

fn sweep(scratch: &Scratch, file: &Arc<File>, setting: &Read) -> Result<Figures, BenchError> {
    let Read {
        block,
        depth,
        file_bytes,
        ..
    } = *setting;
    let mut ring = Ring::new(depth).map_err(BenchError::Ring)?;
    let mut buffers = buffers(depth, block);
    let mut started = vec![Instant::now(); depth];
    let mut tags: Vec<u64> = (0..depth as u64).collect();
    let mut latencies = Latencies::default();
    let (mut at, mut reads, mut bytes) = (0, 0u64, 0u64);
    let watch = Stopwatch::start();
    loop {
        scratch.check()?;
        while at < file_bytes
            && let (Some(buf), Some(tag)) = (buffers.pop(), tags.pop())
        {
            started[tag as usize] = Instant::now();
            ring.read(file, at, buf, tag);
            at += block as u64;
        }
        if ring.in_flight() == 0 {
            break;
        }
        ring.wait().map_err(BenchError::Ring)?;
        while let Some(done) = ring.next_done() {
            bytes += done.result.map_err(BenchError::operation("a read"))? as u64;
            latencies.record(started[done.tag as usize].elapsed());
            reads += 1;
            buffers.push(done.buf);
            tags.push(done.tag);
        }
    }
    if bytes != file_bytes {
        let reason = format!("{bytes} bytes were read of a file of {file_bytes}");
        return Err(BenchError::Settings(reason));
    }
    Ok(Figures::new(&watch, reads, bytes, Some(&latencies)))
}
