//! What C2 has measured of each way from a file to a socket, in one place for its table and its diagrams.

use ringlog_benches::claims::transfer::{Medium, Path};

use super::c2::{CHUNK, SLICE};
use super::serving::{BUFFERS, CPU, Described, PATHS, Sent};
use crate::claims::record::Measurement;

/// Megabytes of a gigabyte.
const MB_PER_GB: f64 = 1000.0;

/// What a path took over loopback, medians; figures that are missing are no numbers.
#[derive(Debug, Clone, Copy)]
pub(in crate::claims) struct Took {
    pub(in crate::claims) system_calls_per_mb: f64,
    pub(in crate::claims) context_switches_per_mb: f64,
    pub(in crate::claims) page_faults_per_mb: f64,
    pub(in crate::claims) cpu_s_per_gb: f64,
    pub(in crate::claims) mb_per_s: f64,
}

impl Took {
    fn of(measurement: &Measurement) -> Self {
        let figure = |name: &str| measurement.figures.get(name).map_or(f64::NAN, |e| e.median);
        Self {
            system_calls_per_mb: figure("system_calls_per_gb") / MB_PER_GB,
            context_switches_per_mb: figure("context_switches_per_gb") / MB_PER_GB,
            page_faults_per_mb: figure("page_faults_per_gb") / MB_PER_GB,
            cpu_s_per_gb: figure("cpu_s_per_gb"),
            mb_per_s: figure("mb_per_s"),
        }
    }

    /// Derived: into the kernel and back for each call and each fault.
    pub(in crate::claims) fn mode_switches_per_mb(&self) -> f64 {
        2.0 * (self.system_calls_per_mb + self.page_faults_per_mb)
    }
}

/// A path with the send buffer that suits it best, hot, in calls of 64 KiB.
#[derive(Debug, Clone, Copy)]
pub(in crate::claims) struct ReadPath {
    pub(in crate::claims) path: Path,
    pub(in crate::claims) name: &'static str,
    pub(in crate::claims) route: &'static str,
    pub(in crate::claims) buffer: &'static str,
    /// Derived: copies of a byte by the processor, and by the disk's and the card's own engines.
    pub(in crate::claims) cpu_copies: u32,
    pub(in crate::claims) dma_copies: u32,
    pub(in crate::claims) hot: Took,
    /// With the page cache cold and the same send buffer.
    pub(in crate::claims) cold: Option<Took>,
}

/// The paths that were measured, in the documents' order.
pub(in crate::claims) fn read_paths(measurements: &[Measurement]) -> Vec<ReadPath> {
    let measured = PATHS
        .iter()
        .filter_map(|described| read_path(measurements, described));
    measured.collect()
}

fn read_path(measurements: &[Measurement], described: &Described) -> Option<ReadPath> {
    let sent = |hot| Sent {
        medium: Medium::Loopback,
        path: described.path,
        slice: SLICE,
        chunk: CHUNK,
        hot,
    };
    let best = sent(true).best(measurements, &CPU)?;
    let (buffer, _) = BUFFERS.iter().find(|(_, name)| *name == best.buffer)?;
    Some(ReadPath {
        path: described.path,
        name: described.name,
        route: described.route,
        buffer: best.buffer,
        cpu_copies: described.cpu_copies,
        dma_copies: described.dma_copies,
        hot: Took::of(best.measurement),
        cold: sent(false).with(measurements, *buffer).map(Took::of),
    })
}
