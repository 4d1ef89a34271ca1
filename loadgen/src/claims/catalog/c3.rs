//! C3: at which size a mapping and at which sendfile is the better way.

use ringlog_benches::claims::transfer::{Medium, Path, Serving};

use super::serving::{PATHS, ServingRig, notes, point, served};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::stats::Estimate;
use crate::claims::verdict::{self, Expect, MARGIN, Verdict};

const SIZES: [u64; 9] = [
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    16 << 20,
    256 << 20,
    1 << 30,
];
/// Bytes that one call moves at most.
const CHUNK: u64 = 1 << 20;
/// What stands for a small and for a large file.
const SMALL: u64 = 4 << 10;
const LARGE: u64 = 1 << 20;
const COMPARED: [Path; 4] = [
    Path::MmapSend,
    Path::Sendfile,
    Path::MappedSend,
    Path::ReadSend,
];

pub(super) struct C3;

fn file_bytes(scale: Scale) -> u64 {
    scale.pick(4 << 20, 1 << 30, 2 << 30)
}

impl Claim for C3 {
    fn id(&self) -> &'static str {
        "C3"
    }

    fn sentence(&self) -> &'static str {
        "mmap suits small files, sendfile large ones"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for slice in SIZES {
            if slice > file_bytes(scale) / 2 {
                continue;
            }
            for hot in [true, false] {
                for path in COMPARED {
                    let rank = match (slice, path) {
                        (_, Path::ReadSend) => 3,
                        (SMALL | LARGE, _) => 0,
                        (size, _) if size == 64 << 10 || size == 16 << 20 => 1,
                        _ => 2,
                    };
                    let serving = Serving {
                        medium: Medium::Loopback,
                        hot,
                        slice,
                        chunk: CHUNK,
                        from: 0,
                        path,
                    };
                    let mut point = point(&serving, rank, scale);
                    // At least one transfer, however long it takes, at a slow disk's 500 MB/s.
                    point.seconds = point.seconds.max(slice as f64 / 5e8);
                    points.push(point);
                }
            }
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: file_bytes(scale),
            setup_s: scale.pick(0.1, 1.5, 3.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 20.0, 280.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(ServingRig::new(lab, file_bytes(lab.scale))?))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let of = |path, slice, hot| served(measurements, path, slice, CHUNK, hot);
    let rate = ("mb_per_s", "MB/s");
    let mut findings = Vec::new();
    for (slice, question, sides) in [
        (
            SMALL,
            "small files (4 KiB): is mmap + send faster than sendfile",
            [
                (Path::MmapSend, "mmap + send"),
                (Path::Sendfile, "sendfile"),
            ],
        ),
        (
            LARGE,
            "large files (1 MiB): is sendfile faster than mmap + send",
            [
                (Path::Sendfile, "sendfile"),
                (Path::MmapSend, "mmap + send"),
            ],
        ),
    ] {
        for (hot, state) in [(true, "hot"), (false, "cold")] {
            let [(above, above_name), (below, below_name)] = sides;
            if let (Some(above), Some(below)) = (of(above, slice, hot), of(below, slice, hot)) {
                let question = format!("{question}, {state}?");
                findings.push(Finding::compare(
                    question,
                    (above_name, above),
                    (below_name, below),
                    rate,
                    Expect::More,
                ));
            }
        }
    }
    if findings.len() < 4 {
        return Conclusion::without(Verdict::Undecided, "the points for a verdict are missing");
    }
    let crossing = |hot| match crossover(measurements, hot) {
        Some(size) => format!("from {} on", super::size(size)),
        None => "at no size".into(),
    };
    let why = format!(
        "hot, sendfile is the faster way {}; cold, {}",
        crossing(true),
        crossing(false)
    );
    Conclusion {
        verdict: verdict::all(findings.iter().map(|finding| finding.verdict)),
        why,
        plots: plots(measurements),
        tables: Vec::new(),
        notes: notes(measurements),
        findings,
    }
}

/// The smallest size from which on, at every larger size, sendfile's rate over that of mmap + send lies above the margin
/// with its whole interval.
fn crossover(measurements: &[Measurement], hot: bool) -> Option<u64> {
    let mut from = None;
    for slice in SIZES {
        let of = |path| served(measurements, path, slice, CHUNK, hot);
        let (Some(send), Some(map)) = (of(Path::Sendfile), of(Path::MmapSend)) else {
            continue;
        };
        let ratio = Estimate::ratio(&send.values("mb_per_s"), &map.values("mb_per_s"));
        match ratio {
            Some(ratio) if ratio.low >= MARGIN => from = from.or(Some(slice)),
            _ => from = None,
        }
    }
    from
}

fn plots(measurements: &[Measurement]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (figure, label) in [("mb_per_s", "MB/s"), ("cpu_s_per_gb", "CPU s per GB")] {
        for (hot, state) in [(true, "hot"), (false, "cold")] {
            let series = COMPARED.iter().filter_map(|&path| {
                let marks: Vec<Mark> = SIZES
                    .iter()
                    .filter_map(|&slice| {
                        let y = *served(measurements, path, slice, CHUNK, hot)?
                            .figures
                            .get(figure)?;
                        Some(Mark { x: slice as f64, y })
                    })
                    .collect();
                let name = PATHS
                    .iter()
                    .find(|described| described.path == path)?
                    .name
                    .to_owned();
                (!marks.is_empty()).then_some(Series { name, marks })
            });
            plots.push(Plot::Lines {
                title: format!("Files of one size, {state}: {label}"),
                x: Axis::bytes("size"),
                y: Axis::log(label),
                series: series.collect(),
            });
        }
    }
    plots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;

    fn measured(small: [f64; 2], large: [f64; 2], noise: f64) -> Vec<Measurement> {
        let mut all = Vec::new();
        for (slice, rates) in [(SMALL, small), (LARGE, large)] {
            for hot in [true, false] {
                for (path, rate) in [(Path::MmapSend, rates[0]), (Path::Sendfile, rates[1])] {
                    let serving = Serving {
                        medium: Medium::Loopback,
                        hot,
                        slice,
                        chunk: CHUNK,
                        from: 0,
                        path,
                    };
                    let swing = if path == Path::Sendfile { noise } else { 1.0 };
                    all.push(measurement(
                        &serving,
                        "mb_per_s",
                        &[rate, rate * swing, rate / swing],
                    ));
                }
            }
        }
        all
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(
            judge(&measured([400.0, 200.0], [2000.0, 3000.0], 1.0)).verdict,
            Verdict::Holds
        );
        assert_eq!(
            judge(&measured([400.0, 200.0], [2000.0, 1900.0], 1.0)).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&measured([400.0, 200.0], [2000.0, 3000.0], 3.0)).verdict,
            Verdict::Undecided
        );
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }

    #[test]
    fn a_crossover_must_last() {
        let all = measured([400.0, 200.0], [2000.0, 3000.0], 1.0);
        assert_eq!(crossover(&all, true), Some(LARGE));
        assert_eq!(
            crossover(&measured([200.0, 400.0], [2000.0, 1900.0], 1.0), true),
            None
        );
    }
}
