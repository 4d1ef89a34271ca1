//! The engine's whole pattern of writing: commits to a journal and, at the same time, the same number of bytes appended to
//! segment files, in rounds that end in a `syncfs`. Each byte is written twice; a byte counts when both copies are durable.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use ringlog_engine::buf::{AlignedBuf, BLOCK, round_down};

use super::BenchError;
use super::files::{Fill, Scratch, noisy_buffers};
use super::measure::{Latencies, Stopwatch};
use super::report::Figures;
use crate::uring::Ring;

/// Name of the journal in the scratch folder.
const JOURNAL: &str = "journal";
/// Bytes of one segment write at most, and the number of them in flight, as the engine does it.
const PIECE_MAX: usize = 1 << 20;
const PIECES: usize = 16;

/// One setting to measure.
#[derive(Debug, Clone, Copy)]
pub struct Twice {
    /// Bytes of one journal frame, whole blocks.
    pub frame: usize,
    /// Commits in flight.
    pub in_flight: usize,
    /// Segment files.
    pub partitions: usize,
    /// Length of the journal, bytes: so many are committed and not yet in segments, at most.
    pub journal_bytes: u64,
    /// Bytes of one round, at most half of the journal.
    pub round_bytes: u64,
    /// Payload in all, bytes.
    pub total_bytes: u64,
}

impl Twice {
    /// Bytes of one write to one segment file.
    fn piece(&self) -> usize {
        round_down((self.round_bytes / self.partitions as u64) as usize).clamp(BLOCK, PIECE_MAX)
    }

    fn check(&self) -> Result<(), BenchError> {
        let problem = if self.frame == 0 || !self.frame.is_multiple_of(BLOCK) {
            format!(
                "a frame of {} bytes is not whole blocks of {BLOCK}",
                self.frame
            )
        } else if self.round_bytes > self.journal_bytes / 2 {
            "a round is longer than half of the journal".into()
        } else if self.in_flight as u64 * self.frame as u64 > self.journal_bytes / 4 {
            // Else neither side might have enough to go on.
            "the frames in flight are longer than a quarter of the journal".into()
        } else {
            return Ok(());
        };
        Err(BenchError::Settings(problem))
    }
}

/// How far the two sides are, bytes since the start.
#[derive(Debug, Default)]
struct Progress {
    committed: u64,
    destaged: u64,
    /// One side is gone, or the journal's side is through.
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    moved: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.moved.notify_all();
    }

    /// Waits until `ready`, or until the other side is over.
    fn wait(&self, ready: impl Fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let blocked = |progress: &mut Progress| !progress.over && !ready(progress);
        self.moved
            .wait_while(self.lock(), blocked)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises `over` however its thread ends, so that the other never waits for ever.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.change(|progress| progress.over = true);
    }
}

/// Makes the journal that all settings share.
///
/// # Errors
/// [`BenchError`].
pub fn prepare(scratch: &Scratch, setting: &Twice) -> Result<(), BenchError> {
    setting.check()?;
    scratch.needs(setting.journal_bytes + setting.total_bytes)?;
    let journal = scratch.open(JOURNAL, true)?;
    scratch.fill(&journal, setting.journal_bytes, Fill::Zeros)
}

/// Measures one setting once and removes the segment files.
///
/// # Errors
/// [`BenchError`].
pub fn run(scratch: &Scratch, setting: &Twice) -> Result<Figures, BenchError> {
    setting.check()?;
    let journal = scratch.open(JOURNAL, true)?;
    let names: Vec<String> = (0..setting.partitions)
        .map(|n| format!("segment-{n}"))
        .collect();
    let open = |name: &String| scratch.open(name, true);
    let segments = names.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let shared = Shared::default();
    let watch = Stopwatch::start();
    let outcome = thread::scope(|scope| {
        let destager = scope.spawn(|| {
            let _over = Over(&shared);
            destage(scratch, setting, &segments, &shared)
        });
        let committed = {
            let _over = Over(&shared);
            commit(scratch, setting, &journal, &shared)
        };
        let gone = || BenchError::Settings("the segments' thread panicked".into());
        let destaged = destager.join().map_err(|_| gone()).flatten();
        committed.and_then(|commits| destaged.map(|()| commits))
    });
    let figures = outcome.map(|(latencies, commits)| {
        let payload = commits * setting.frame as u64;
        Figures::new(&watch, commits, payload, Some(&latencies))
    });
    drop(segments);
    for name in &names {
        scratch.remove(name)?;
    }
    figures
}

/// The journal's side. Returns the latencies and the number of commits.
fn commit(
    scratch: &Scratch,
    setting: &Twice,
    journal: &Arc<File>,
    shared: &Shared,
) -> Result<(Latencies, u64), BenchError> {
    let frame = setting.frame as u64;
    let places = setting.journal_bytes / frame;
    let total = setting.total_bytes.div_ceil(frame);
    let mut ring = Ring::new(setting.in_flight).map_err(BenchError::Ring)?;
    let frames = noisy_buffers(setting.in_flight, setting.frame, 0);
    let mut idle: Vec<(AlignedBuf, u64)> = frames.into_iter().zip(0..).collect();
    let mut started = vec![Instant::now(); setting.in_flight];
    let mut latencies = Latencies::default();
    let (mut begun, mut ended) = (0, 0);
    while ended < total {
        scratch.check()?;
        let room = |progress: &Progress| (begun + 1) * frame <= progress.destaged + places * frame;
        if ring.in_flight() == 0 {
            let progress = shared.wait(room);
            if progress.over {
                break; // The other side failed and says why.
            }
        }
        let limit = (shared.lock().destaged / frame + places).min(total);
        while begun < limit
            && let Some((buf, tag)) = idle.pop()
        {
            started[tag as usize] = Instant::now();
            ring.write(journal, begun % places * frame, buf, true, tag);
            begun += 1;
        }
        ring.wait().map_err(BenchError::Ring)?;
        while let Some(done) = ring.next_done() {
            done.result
                .map_err(BenchError::operation("a write with fdatasync"))?;
            latencies.record(started[done.tag as usize].elapsed());
            ended += 1;
            idle.push((done.buf, done.tag));
        }
        shared.change(|progress| progress.committed = ended * frame);
    }
    Ok((latencies, ended))
}

/// The segments' side: rounds until the journal's side is over and nothing is left.
fn destage(
    scratch: &Scratch,
    setting: &Twice,
    segments: &[Arc<File>],
    shared: &Shared,
) -> Result<(), BenchError> {
    let piece = setting.piece();
    let mut ring = Ring::new(PIECES).map_err(BenchError::Ring)?;
    let mut idle = noisy_buffers(PIECES, piece, 0);
    let mut ends = vec![0u64; segments.len()];
    let mut turn = 0;
    loop {
        let due =
            |progress: &Progress| progress.committed - progress.destaged >= setting.round_bytes;
        let (from, to) = {
            let progress = shared.wait(due);
            (progress.destaged, progress.committed)
        };
        if from == to {
            return Ok(());
        }
        let to = to.min(from + setting.round_bytes);
        let mut left = to - from;
        while left > 0 || ring.in_flight() > 0 {
            scratch.check()?;
            while left > 0
                && let Some(mut buf) = idle.pop()
            {
                let len = (piece as u64).min(left) as usize;
                buf.set_len(len);
                let segment = turn % segments.len();
                ring.write(&segments[segment], ends[segment], buf, false, 0);
                ends[segment] += len as u64;
                left -= len as u64;
                turn += 1;
            }
            ring.wait().map_err(BenchError::Ring)?;
            while let Some(done) = ring.next_done() {
                done.result
                    .map_err(BenchError::operation("a write to a segment"))?;
                idle.push(done.buf);
            }
        }
        let synced = rustix::fs::syncfs(&*segments[0]);
        synced.map_err(|error| BenchError::operation("syncfs")(error.into()))?;
        shared.change(|progress| progress.destaged = to);
    }
}
