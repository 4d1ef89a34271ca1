//! Sequential against random: one file, every combination of block size, depth, direction, page cache and sync.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlog_engine::buf::{AlignedBuf, BLOCK};
use serde::{Deserialize, Serialize};

use super::{Figures, Random, make_cold};
use crate::disk::files::noisy_buffers;
use crate::disk::measure::{Latencies, Stopwatch};
use crate::disk::{BenchError, Scratch};
use crate::uring::Ring;

/// Name of the file in the scratch folder.
const FILE: &str = "grid";
/// Share of the time that goes by before counting begins.
const WARM_SHARE: f64 = 0.2;

/// In which order blocks are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One after the other.
    Sequential,
    /// Every block once, shuffled.
    Random,
}

/// What is done to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Read.
    Read,
    /// Overwrite.
    Write,
}

/// How a block reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// O_DIRECT.
    Direct,
    /// Through the page cache, which is empty at the start.
    Buffered,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridPoint {
    /// Read or write.
    pub op: Op,
    /// Page cache or not.
    pub cache: Cache,
    /// Whether every write is followed by an `fdatasync`.
    pub sync: bool,
    /// Bytes of one operation, whole blocks.
    pub block: u64,
    /// Operations in flight.
    pub depth: usize,
    /// Order.
    pub pattern: Pattern,
}

/// The file that all settings share, written once from end to end: overwrites allocate nothing.
#[derive(Debug)]
pub struct Grid<'a> {
    scratch: &'a Scratch,
    bytes: u64,
}

impl<'a> Grid<'a> {
    /// Makes the file.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn prepare(scratch: &'a Scratch, bytes: u64) -> Result<Self, BenchError> {
        scratch.make(FILE, bytes)?;
        Ok(Self { scratch, bytes })
    }

    /// Measures one setting once, for about `window`, warm-up included. Without syncs a write's time includes one
    /// `fdatasync` at the end, so that a rate is a rate of the device.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(
        &self,
        point: &GridPoint,
        window: Duration,
        seed: u64,
    ) -> Result<Figures, BenchError> {
        let places = self.bytes / point.block.max(1);
        if !point.block.is_multiple_of(BLOCK as u64) || places < 2 || point.depth == 0 {
            return Err(BenchError::Settings(format!(
                "blocks of {} bytes in a file of {}",
                point.block, self.bytes
            )));
        }
        let cold = self.scratch.open(FILE, false)?;
        let resident = make_cold(&cold)?;
        drop(cold);
        let file = self.scratch.open(FILE, point.cache == Cache::Direct)?;
        let order = match point.pattern {
            Pattern::Sequential => None,
            Pattern::Random => Some(Random(seed).order(u32::try_from(places).unwrap_or(u32::MAX))),
        };
        let run = Run {
            scratch: self.scratch,
            point,
            file,
            order,
            places,
            // A cached block must not be read again: it would come from memory.
            once: point.op == Op::Read && point.cache == Cache::Buffered,
        };
        let mut figures = run.carry_out(window, seed)?;
        figures.insert("resident_share_before".into(), resident);
        Ok(figures)
    }
}

struct Run<'a> {
    scratch: &'a Scratch,
    point: &'a GridPoint,
    file: Arc<File>,
    order: Option<Vec<u32>>,
    places: u64,
    once: bool,
}

/// What is counted once the warm-up is over.
struct Counting {
    watch: Stopwatch,
    ends: Instant,
    halfway: Instant,
    operations: u64,
    first_half: u64,
    latencies: Latencies,
}

impl Counting {
    fn begin(window: Duration) -> Self {
        let now = Instant::now();
        Self {
            watch: Stopwatch::start(),
            ends: now + window,
            halfway: now + window / 2,
            operations: 0,
            first_half: 0,
            latencies: Latencies::default(),
        }
    }

    fn note(&mut self, latency: Duration) {
        self.latencies.record(latency);
        self.operations += 1;
        if Instant::now() < self.halfway {
            self.first_half += 1;
        }
    }
}

impl Run<'_> {
    fn offset(&self, index: u64) -> u64 {
        let place = index % self.places;
        let place = match &self.order {
            Some(order) => u64::from(order[place as usize]),
            None => place,
        };
        place * self.point.block
    }

    fn carry_out(&self, window: Duration, seed: u64) -> Result<Figures, BenchError> {
        let point = self.point;
        let mut ring = Ring::new(point.depth).map_err(BenchError::Ring)?;
        let buffers = noisy_buffers(point.depth, point.block as usize, seed);
        let mut free: Vec<(u64, AlignedBuf)> = (0..).zip(buffers).collect();
        let mut started = vec![Instant::now(); point.depth];
        let warm_until = Instant::now() + window.mul_f64(WARM_SHARE);
        let (mut next, mut warm_left) = (0u64, self.places / 8);
        let mut counting: Option<Counting> = None;
        loop {
            self.scratch.check()?;
            let warm =
                counting.is_none() && (Instant::now() >= warm_until || self.once && warm_left == 0);
            // What is under way would be written back while it counts: it ends first.
            let held = warm && self.lazy() && ring.in_flight() > 0;
            if warm && !held {
                self.write_back()?;
                counting = Some(Counting::begin(window.mul_f64(1.0 - WARM_SHARE)));
            }
            let over = counting
                .as_ref()
                .is_some_and(|counting| Instant::now() >= counting.ends);
            let may_start = |next| !(held || over || self.once && next >= self.places);
            while may_start(next) {
                let Some((tag, buf)) = free.pop() else { break };
                started[tag as usize] = Instant::now();
                match point.op {
                    Op::Read => ring.read(&self.file, self.offset(next), buf, tag),
                    Op::Write => ring.write(&self.file, self.offset(next), buf, point.sync, tag),
                }
                next += 1;
            }
            if ring.in_flight() == 0 {
                break;
            }
            ring.wait().map_err(BenchError::Ring)?;
            while let Some(done) = ring.next_done() {
                done.result.map_err(BenchError::operation("an operation"))?;
                match &mut counting {
                    Some(counting) => counting.note(started[done.tag as usize].elapsed()),
                    None => warm_left = warm_left.saturating_sub(1),
                }
                free.push((done.tag, done.buf));
            }
        }
        let counting = counting.unwrap_or_else(|| Counting::begin(window));
        self.figures(counting)
    }

    /// Whether what is written reaches the device some time later.
    fn lazy(&self) -> bool {
        self.point.op == Op::Write && !self.point.sync
    }

    /// Brings to the device what was written without a sync for each.
    fn write_back(&self) -> Result<(), BenchError> {
        if self.lazy() {
            self.file
                .sync_data()
                .map_err(BenchError::operation("fdatasync"))?;
        }
        Ok(())
    }

    fn figures(&self, counting: Counting) -> Result<Figures, BenchError> {
        let loop_s = counting.watch.wall_s();
        self.write_back()?;
        let wall_s = counting.watch.wall_s();
        let bytes = (counting.operations * self.point.block) as f64;
        if bytes == 0.0 {
            return Err(BenchError::Settings("no operation ended in time".into()));
        }
        let second_half = counting.operations - counting.first_half;
        let mut figures = Figures::from([
            ("mb_per_s".into(), bytes / 1e6 / wall_s),
            (
                "operations_per_s".into(),
                counting.operations as f64 / wall_s,
            ),
            ("p50_us".into(), counting.latencies.us(50.0)),
            ("p99_us".into(), counting.latencies.us(99.0)),
            ("cpu_s_per_gb".into(), counting.watch.cpu_s() * 1e9 / bytes),
            ("final_sync_ms".into(), (wall_s - loop_s) * 1e3),
        ]);
        // A pass that ended before its time has no halves to compare.
        if !self.once && counting.first_half > 20 {
            let drift = second_half as f64 / counting.first_half as f64;
            figures.insert("drift".into(), drift);
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_kind_of_setting_gives_figures() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let grid = Grid::prepare(&scratch, 2 << 20).unwrap();
        for (op, sync) in [(Op::Read, false), (Op::Write, false), (Op::Write, true)] {
            for cache in [Cache::Direct, Cache::Buffered] {
                for pattern in [Pattern::Sequential, Pattern::Random] {
                    let point = GridPoint {
                        op,
                        cache,
                        sync,
                        block: 65_536,
                        depth: 3,
                        pattern,
                    };
                    let figures = grid.measure(&point, Duration::from_millis(20), 1).unwrap();
                    assert!(figures["mb_per_s"] > 0.0, "{point:?}");
                }
            }
        }
        let point = GridPoint {
            op: Op::Read,
            cache: Cache::Direct,
            sync: false,
            block: 5000,
            depth: 1,
            pattern: Pattern::Random,
        };
        assert!(grid.measure(&point, Duration::from_millis(5), 1).is_err());
    }
}
