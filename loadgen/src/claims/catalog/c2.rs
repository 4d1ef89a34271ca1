//! C2: what a byte costs on each way from a file to a socket.

use ringlog_benches::claims::transfer::{Medium, Path, Serving};

use super::serving::{PATHS, ServingRig, notes, point, served};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::{self, Expect, Verdict};

/// Bytes of one slice.
const SLICE: u64 = 4 << 20;
/// Bytes that one call moves: small ones show what a call costs, large ones what a byte costs.
const CHUNKS: [u64; 2] = [64 << 10, 1 << 20];
/// The chunk that the verdict is about.
const CHUNK: u64 = 64 << 10;

pub(super) struct C2;

fn file_bytes(scale: Scale) -> u64 {
    scale.pick(8 << 20, 512 << 20, 2 << 30)
}

impl Claim for C2 {
    fn id(&self) -> &'static str {
        "C2"
    }

    fn sentence(&self) -> &'static str {
        "read+write costs 4 copies and 4 mode switches, mmap+write 3 copies, sendfile 3 copies and 2 switches, sendfile with \
         scatter-gather 2 copies and no work for the processor"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for medium in [Medium::Loopback, Medium::Veth] {
            for chunk in CHUNKS {
                for hot in [true, false] {
                    for described in PATHS {
                        let rank = match (medium, chunk == CHUNK) {
                            (Medium::Loopback, true) => 0,
                            (Medium::Loopback, false) => 1,
                            (Medium::Veth, true) => 2,
                            (Medium::Veth, false) => 3,
                        };
                        let serving = Serving {
                            medium,
                            hot,
                            slice: SLICE,
                            chunk,
                            from: 0,
                            path: described.path,
                        };
                        points.push(point(&serving, rank, scale));
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
            bytes: file_bytes(scale),
            setup_s: scale.pick(0.1, 1.0, 3.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 26.0, 280.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(ServingRig::new(lab, file_bytes(lab.scale))?))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let of = |path, hot| served(measurements, path, SLICE, CHUNK, hot);
    let (Some(read), Some(send), Some(map)) = (
        of(Path::ReadSend, true),
        of(Path::Sendfile, true),
        of(Path::MmapSend, true),
    ) else {
        return Conclusion::without(Verdict::Undecided, "the points for a verdict are missing");
    };
    let sides = |question: &str, below, figure, unit, expect| {
        let (name, below): (&str, &Measurement) = below;
        Finding::compare(
            question,
            (name, below),
            ("sendfile", send),
            (figure, unit),
            expect,
        )
    };
    let calls = ("system_calls_per_gb", "calls/GB");
    let cpu = ("cpu_s_per_gb", "CPU s/GB");
    let mut findings = vec![
        sides(
            "does sendfile need half the system calls, 64 KiB each?",
            ("read + send", read),
            calls.0,
            calls.1,
            Expect::AtLeast(1.8),
        ),
        sides(
            "does it need less of the processor, hot?",
            ("read + send", read),
            cpu.0,
            cpu.1,
            Expect::More,
        ),
        sides(
            "and less than a mapping, hot?",
            ("mmap + send", map),
            cpu.0,
            cpu.1,
            Expect::More,
        ),
    ];
    if let (Some(read), Some(send)) = (of(Path::ReadSend, false), of(Path::Sendfile, false)) {
        findings.push(Finding::compare(
            "does it need less of the processor, cold?",
            ("read + send", read),
            ("sendfile", send),
            cpu,
            Expect::More,
        ));
    }
    let left = send
        .figures
        .get("cpu_s_per_gb")
        .map_or(f64::NAN, |e| e.median);
    let median = |finding: &Finding| {
        finding
            .ratio
            .map_or_else(|| "–".into(), |ratio| number(ratio.median))
    };
    let why = format!(
        "hot, in calls of 64 KiB, read + send makes {} times the system calls of sendfile and takes {} times its processor time; \
         sendfile still takes {} CPU s a GB (TCP itself), so zero copy is not zero work",
        median(&findings[0]),
        median(&findings[1]),
        number(left)
    );
    let mut notes = notes(measurements);
    notes.push(
        "Copies are derived from the kernel's source, not counted; those that the disk and the card make by themselves are \
         listed apart. Mode switches are derived: two for each system call and each page fault."
            .into(),
    );
    let unavailable = measurements
        .iter()
        .find(|m| m.params["medium"] == "veth" && m.left_out.is_some());
    notes.extend(
        unavailable
            .and_then(|m| m.left_out.as_ref())
            .map(|reason| format!("No pair of virtual Ethernet devices could be made: {reason}.")),
    );
    Conclusion {
        verdict: verdict::all(findings[..2].iter().map(|finding| finding.verdict)),
        why,
        plots: plots(measurements),
        tables: vec![costs(measurements)],
        notes,
        findings,
    }
}

fn plots(measurements: &[Measurement]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (figure, unit, title) in [
        (
            "cpu_s_per_gb",
            "CPU s per GB",
            "Processor time of the sending side",
        ),
        ("mb_per_s", "MB/s", "Rate of one connection"),
    ] {
        for (medium, over) in [
            (Medium::Loopback, "loopback"),
            (Medium::Veth, "a veth pair"),
        ] {
            let mut series = Vec::new();
            for (hot, chunk, name) in [
                (true, CHUNKS[0], "hot, 64 KiB a call"),
                (true, CHUNKS[1], "hot, 1 MiB a call"),
                (false, CHUNKS[0], "cold, 64 KiB a call"),
                (false, CHUNKS[1], "cold, 1 MiB a call"),
            ] {
                let marks = PATHS.iter().enumerate().filter_map(|(index, described)| {
                    let wanted = serde_json::json!({ "medium": medium, "hot": hot, "chunk": chunk, "path": described.path });
                    let y = *find(measurements, &wanted)?.figures.get(figure)?;
                    Some(Mark { x: index as f64, y })
                });
                let marks: Vec<Mark> = marks.collect();
                if !marks.is_empty() {
                    series.push(Series {
                        name: name.into(),
                        marks,
                    });
                }
            }
            if !series.is_empty() {
                plots.push(Plot::Bars {
                    title: format!("{title}, over {over}"),
                    labels: PATHS
                        .iter()
                        .map(|described| described.name.to_owned())
                        .collect(),
                    y: Axis::linear(unit),
                    series,
                });
            }
        }
    }
    plots
}

fn costs(measurements: &[Measurement]) -> Table {
    let head = [
        "path",
        "way of a byte (⇒ DMA, → processor)",
        "copies by the processor (derived)",
        "all copies (derived)",
        "system calls/GB",
        "page faults/GB",
        "mode switches/GB (derived)",
        "context switches/GB",
        "CPU s/GB",
        "MB/s",
    ];
    let rows = PATHS.iter().filter_map(|described| {
        let measured = served(measurements, described.path, SLICE, CHUNK, true)?;
        let figure = |name: &str| measured.figures.get(name).map_or(f64::NAN, |e| e.median);
        let (calls, faults) = (figure("system_calls_per_gb"), figure("page_faults_per_gb"));
        Some(vec![
            described.name.to_owned(),
            described.route.to_owned(),
            described.cpu_copies.to_string(),
            (described.cpu_copies + described.dma_copies).to_string(),
            number(calls),
            number(faults),
            number(2.0 * (calls + faults)),
            number(figure("context_switches_per_gb")),
            number(figure("cpu_s_per_gb")),
            number(figure("mb_per_s")),
        ])
    });
    Table {
        title: "Each path as measured: hot, loopback, 64 KiB a call".into(),
        head: head.map(String::from).to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement_of;

    fn measured(sendfile_cpu: &[f64]) -> Vec<Measurement> {
        [
            (Path::ReadSend, 2.0, &[0.4, 0.4, 0.41][..]),
            (Path::MmapSend, 1.0, &[0.35, 0.35, 0.36]),
            (Path::Sendfile, 1.0, sendfile_cpu),
        ]
        .map(|(path, calls, cpu)| {
            let serving = Serving {
                medium: Medium::Loopback,
                hot: true,
                slice: SLICE,
                chunk: CHUNK,
                from: 0,
                path,
            };
            let calls = vec![calls * 15_000.0; cpu.len()];
            measurement_of(
                &serving,
                &[("cpu_s_per_gb", cpu), ("system_calls_per_gb", &calls)],
            )
        })
        .to_vec()
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(judge(&measured(&[0.2, 0.2, 0.2])).verdict, Verdict::Holds);
        assert_eq!(
            judge(&measured(&[0.4, 0.41, 0.4])).verdict,
            Verdict::DoesNotHold
        );
        assert_eq!(
            judge(&measured(&[0.2, 0.6, 0.4])).verdict,
            Verdict::Undecided
        );
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
