//! C3: at which size a mapping and at which sendfile is the better way.

use ringlog_benches::claims::transfer::{Medium, Path, Serving};

use super::serving::{
    BUFFERS, Best, PATHS, RATE, Sent, ServingRig, at_their_best, buffers_note, no_veth, notes,
    point, window_s,
};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Mark, Plot, Series};
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
/// The smallest and the largest.
const EXTREMES: [u64; 3] = [1 << 10, 256 << 20, 1 << 30];
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

/// How soon a point is left out.
fn rank(serving: &Serving) -> u32 {
    let compared = matches!(serving.path, Path::MmapSend | Path::Sendfile);
    let judged = matches!(serving.slice, SMALL | LARGE);
    match serving.medium {
        Medium::Loopback if judged && compared => 0,
        Medium::Veth if judged && compared && serving.hot => 1,
        Medium::Loopback if [64 << 10, 16 << 20].contains(&serving.slice) && compared => 2,
        // The ends, and then what lies between: a crossover may be anywhere.
        Medium::Loopback if EXTREMES.contains(&serving.slice) && compared => 3,
        Medium::Loopback if compared => 4,
        Medium::Loopback if serving.path != Path::ReadSend => 5,
        _ => 6,
    }
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
        for medium in [Medium::Loopback, Medium::Veth] {
            for slice in SIZES
                .into_iter()
                .filter(|&slice| slice <= file_bytes(scale) / 2)
            {
                for hot in [true, false] {
                    for path in COMPARED {
                        for (buffer, _) in BUFFERS {
                            let serving = Serving {
                                medium,
                                hot,
                                slice,
                                chunk: CHUNK,
                                from: 0,
                                path,
                                buffer,
                            };
                            let mut point = point(&serving, rank(&serving), scale, window_s(scale));
                            // At least one transfer, however long it takes, at a slow disk's 500 MB/s.
                            point.seconds = point.seconds.max(slice as f64 / 5e8);
                            points.push(point);
                        }
                    }
                }
            }
        }
        if scale == Scale::Tiny {
            points.retain(|point| point.rank == 0);
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: ServingRig::disk_bytes(file_bytes(scale)),
            setup_s: scale.pick(0.1, 1.5, 3.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 17.5, 470.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(ServingRig::new(
            lab,
            file_bytes(lab.scale),
            window_s(lab.scale),
        )?))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    let mut beside = Vec::new();
    for (medium, over) in [(Medium::Loopback, ""), (Medium::Veth, ", over a veth pair")] {
        for (slice, question, sides) in [
            (
                SMALL,
                "small files (4 KiB): is mmap + send faster than sendfile",
                [Path::MmapSend, Path::Sendfile],
            ),
            (
                LARGE,
                "large files (1 MiB): is sendfile faster than mmap + send",
                [Path::Sendfile, Path::MmapSend],
            ),
        ] {
            for (hot, state) in [(true, "hot"), (false, "cold")] {
                let [above, below] = sides.map(|path| sent(medium, path, slice, hot));
                let question = format!("{question}, {state}{over}?");
                let finding =
                    at_their_best(measurements, &question, &above, &below, &RATE, Expect::More);
                match medium {
                    Medium::Loopback => findings.extend(finding),
                    Medium::Veth => beside.extend(finding),
                }
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
    let verdict = verdict::all(findings.iter().map(|finding| finding.verdict));
    findings.extend(beside);
    Conclusion {
        verdict,
        why,
        plots: plots(measurements),
        tables: Vec::new(),
        notes: notes(measurements)
            .into_iter()
            .chain([buffers_note()])
            .chain(no_veth(measurements))
            .collect(),
        findings,
    }
}

fn sent(medium: Medium, path: Path, slice: u64, hot: bool) -> Sent {
    Sent {
        medium,
        path,
        slice,
        chunk: CHUNK,
        hot,
    }
}

/// The smallest size from which on, at every larger size, sendfile's rate over that of mmap + send lies above the margin
/// with its whole interval.
fn crossover(measurements: &[Measurement], hot: bool) -> Option<u64> {
    let mut from = None;
    for slice in SIZES {
        let of = |path| sent(Medium::Loopback, path, slice, hot).best(measurements, &RATE);
        let (Some(send), Some(map)) = (of(Path::Sendfile), of(Path::MmapSend)) else {
            continue;
        };
        let values = |best: &Best<'_>| best.measurement.values(RATE.name);
        let ratio = Estimate::ratio(&values(&send), &values(&map));
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
            let each = COMPARED
                .iter()
                .flat_map(|&path| BUFFERS.map(|(buffer, words)| (path, buffer, words)));
            let series = each.filter_map(|(path, buffer, words)| {
                let marks: Vec<Mark> = SIZES
                    .iter()
                    .filter_map(|&slice| {
                        let sent = sent(Medium::Loopback, path, slice, hot);
                        let y = *sent.with(measurements, buffer)?.figures.get(figure)?;
                        Some(Mark { x: slice as f64, y })
                    })
                    .collect();
                let name = PATHS.iter().find(|described| described.path == path)?.name;
                let name = format!("{name}, {words}");
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
    use ringlog_benches::claims::transfer::SendBuffer;

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
                        buffer: SendBuffer::Grown,
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
