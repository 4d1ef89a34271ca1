//! C2: what a byte costs on each way from a file to a socket.

use ringlog_benches::claims::transfer::{Medium, Path, Serving};

use super::read_paths::read_paths;
use super::serving::{
    BUFFERS, CALLS, CPU, Figure, PATHS, RATE, Sent, ServingRig, at_their_best, buffers_note,
    no_veth, notes, point,
};
use super::whole::times;
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::{self, Expect, Verdict};

/// Bytes of one slice.
pub(super) const SLICE: u64 = 4 << 20;
/// Bytes that one call moves: small ones show what a call costs, large ones what a byte costs.
const CHUNKS: [u64; 3] = [64 << 10, 1 << 20, 4 << 20];
/// The chunk that the verdict is about.
pub(super) const CHUNK: u64 = 64 << 10;

pub(super) struct C2;

fn file_bytes(scale: Scale) -> u64 {
    scale.pick(8 << 20, 512 << 20, 2 << 30)
}

/// How soon a point is left out.
fn rank(medium: Medium, chunk: u64, hot: bool, path: Path) -> u32 {
    let compared =
        matches!(path, Path::ReadSend | Path::MmapSend | Path::Sendfile) || path.from_memory();
    match (medium, chunk) {
        (Medium::Loopback, CHUNK) => u32::from(!compared),
        (Medium::Veth, CHUNK) if compared && hot => 2,
        (Medium::Loopback, _) if compared && hot => 3,
        _ => 4,
    }
}

/// Many short windows say more than few long ones: what reader and sender do to each other changes many times a second.
fn window_s(scale: Scale) -> f64 {
    scale.pick(0.01, 0.13, 0.8)
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
                    for (path, rank) in PATHS
                        .map(|described| described.path)
                        .map(|path| (path, rank(medium, chunk, hot, path)))
                    {
                        if path.from_memory() && !hot {
                            continue;
                        }
                        for (buffer, _) in BUFFERS {
                            let serving = Serving {
                                medium,
                                hot,
                                slice: SLICE,
                                chunk,
                                from: 0,
                                path,
                                buffer,
                            };
                            points.push(point(&serving, rank, scale, window_s(scale)));
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
            setup_s: scale.pick(0.1, 1.0, 3.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 31.5, 405.0)
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

/// What the verdict is about: 64 KiB a call, over loopback.
fn sent(path: Path, hot: bool) -> Sent {
    Sent {
        medium: Medium::Loopback,
        path,
        slice: SLICE,
        chunk: CHUNK,
        hot,
    }
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let Some(mut findings) = claimed(measurements) else {
        return Conclusion::without(Verdict::Undecided, "the points for a verdict are missing");
    };
    let verdict = verdict::all(findings.iter().map(|finding| finding.verdict));
    let why = why(measurements, &findings);
    findings.extend(beside(measurements));
    findings.extend(buffers(measurements));
    let mut notes = notes(measurements);
    notes.push(
        "Copies are derived from the kernel's source, not counted; those that the disk and the card make by themselves are \
         listed apart. Mode switches are derived: two for each system call and each page fault."
            .into(),
    );
    notes.push(buffers_note());
    notes.extend(no_veth(measurements));
    Conclusion {
        verdict,
        why,
        plots: plots(measurements),
        tables: vec![costs(measurements)],
        notes,
        findings,
    }
}

/// Whether the second way needs less of a figure than the first.
fn less(
    measurements: &[Measurement],
    question: &str,
    (path, other): (Path, Path),
    hot: bool,
    figure: &Figure,
    expect: Expect,
) -> Option<Finding> {
    let (path, other) = (sent(path, hot), sent(other, hot));
    at_their_best(measurements, question, &path, &other, figure, expect)
}

/// The claim itself: half the calls, and less work.
fn claimed(measurements: &[Measurement]) -> Option<Vec<Finding>> {
    let ways = (Path::ReadSend, Path::Sendfile);
    let calls = less(
        measurements,
        "does sendfile need half the system calls, 64 KiB each?",
        ways,
        true,
        &CALLS,
        Expect::AtLeast(1.8),
    );
    let cpu = less(
        measurements,
        "does it need less of the processor, hot?",
        ways,
        true,
        &CPU,
        Expect::More,
    );
    Some(vec![calls?, cpu?])
}

/// What else tells the ways apart.
fn beside(measurements: &[Measurement]) -> Vec<Finding> {
    let (read, map, send) = (Path::ReadSend, Path::MmapSend, Path::Sendfile);
    let (memory, lent) = (Path::MemorySend, Path::MemorySendfile);
    let questions = [
        ("and less than a mapping, hot?", (map, send), true, &CPU),
        (
            "does it need less of the processor, cold?",
            (read, send),
            false,
            &CPU,
        ),
        (
            "from memory: does lending its pages need less than a copy?",
            (memory, lent),
            true,
            &CPU,
        ),
        ("is it faster, hot?", (send, read), true, &RATE),
        (
            "from memory: is lending its pages faster than a copy?",
            (lent, memory),
            true,
            &RATE,
        ),
    ];
    let found = questions
        .into_iter()
        .filter_map(|(question, ways, hot, figure)| {
            less(measurements, question, ways, hot, figure, Expect::More)
        });
    found.collect()
}

fn why(measurements: &[Measurement], claimed: &[Finding]) -> String {
    let send = sent(Path::Sendfile, true).best(measurements, &CPU);
    let left = send
        .as_ref()
        .and_then(|best| best.measurement.figures.get(CPU.name))
        .map_or(f64::NAN, |e| e.median);
    format!(
        "hot, in calls of 64 KiB, read + send makes {} times the system calls of sendfile and takes {} times its processor time; \
         sendfile still takes {} CPU s a GB (TCP itself), so zero copy is not zero work; each with the send buffer that suits it, \
         sendfile's is the {}",
        times(claimed.first()),
        times(claimed.get(1)),
        number(left),
        send.map_or("", |best| best.buffer),
    )
}

/// What a narrow send buffer does to either way.
fn buffers(measurements: &[Measurement]) -> Vec<Finding> {
    let [(grown, grown_name), (narrow, narrow_name)] = BUFFERS;
    let found = [Path::Sendfile, Path::ReadSend]
        .into_iter()
        .filter_map(|path| {
            let sent = sent(path, true);
            let name = PATHS.iter().find(|described| described.path == path)?.name;
            Some(Finding::compare(
                format!("is {name} faster with a send buffer of 100 KiB, hot?"),
                (narrow_name, sent.with(measurements, narrow)?),
                (grown_name, sent.with(measurements, grown)?),
                (RATE.name, RATE.unit),
                Expect::More,
            ))
        });
    found.collect()
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
            for (hot, chunk, state) in [
                (true, CHUNKS[0], "hot, 64 KiB a call"),
                (true, CHUNKS[1], "hot, 1 MiB a call"),
                (true, CHUNKS[2], "hot, 4 MiB a call"),
                (false, CHUNKS[0], "cold, 64 KiB a call"),
            ] {
                for (buffer, name) in BUFFERS {
                    let marks = PATHS.iter().enumerate().filter_map(|(index, described)| {
                        let path = described.path;
                        let sent = Sent {
                            medium,
                            path,
                            slice: SLICE,
                            chunk,
                            hot,
                        };
                        let y = *sent.with(measurements, buffer)?.figures.get(figure)?;
                        Some(Mark { x: index as f64, y })
                    });
                    let marks: Vec<Mark> = marks.collect();
                    if !marks.is_empty() {
                        series.push(Series {
                            name: format!("{state}, {name}"),
                            marks,
                        });
                    }
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
        "send buffer that suits it",
        "copies by the processor (derived)",
        "all copies (derived)",
        "system calls/GB",
        "page faults/GB",
        "mode switches/GB (derived)",
        "context switches/GB",
        "CPU s/GB",
        "MB/s",
    ];
    let rows = read_paths(measurements).into_iter().map(|path| {
        let took = path.hot;
        let per_gb = |per_mb: f64| number(per_mb * 1000.0);
        vec![
            path.name.to_owned(),
            path.route.to_owned(),
            path.buffer.to_owned(),
            path.cpu_copies.to_string(),
            (path.cpu_copies + path.dma_copies).to_string(),
            per_gb(took.system_calls_per_mb),
            per_gb(took.page_faults_per_mb),
            per_gb(took.mode_switches_per_mb()),
            per_gb(took.context_switches_per_mb),
            number(took.cpu_s_per_gb),
            number(took.mb_per_s),
        ]
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
    use ringlog_benches::claims::transfer::SendBuffer;

    fn side(path: Path, buffer: SendBuffer, calls: f64, cpu: &[f64]) -> Measurement {
        let serving = Serving {
            medium: Medium::Loopback,
            hot: true,
            slice: SLICE,
            chunk: CHUNK,
            from: 0,
            path,
            buffer,
        };
        let calls = vec![calls * 15_000.0; cpu.len()];
        let rate: Vec<f64> = cpu.iter().map(|cpu| 1000.0 / cpu).collect();
        measurement_of(
            &serving,
            &[(CPU.name, cpu), (CALLS.name, &calls), (RATE.name, &rate)],
        )
    }

    /// Reading suits the grown buffer, sendfile the narrow one.
    fn measured(sendfile_cpu: &[f64]) -> Vec<Measurement> {
        let slow: Vec<f64> = sendfile_cpu.iter().map(|cpu| cpu * 3.0).collect();
        use SendBuffer::{Grown, Narrow};
        vec![
            side(Path::ReadSend, Grown, 2.0, &[0.4, 0.4, 0.41]),
            side(Path::ReadSend, Narrow, 2.0, &[0.9, 0.9, 0.91]),
            side(Path::MmapSend, Grown, 1.0, &[0.35, 0.35, 0.36]),
            side(Path::Sendfile, Grown, 1.0, &slow),
            side(Path::Sendfile, Narrow, 1.0, sendfile_cpu),
        ]
    }

    #[test]
    fn each_side_is_taken_with_the_buffer_that_suits_it() {
        let findings = judge(&measured(&[0.2, 0.2, 0.2])).findings;
        let cpu = findings
            .iter()
            .find(|f| f.question.contains("processor, hot"))
            .unwrap();
        assert!((cpu.ratio.unwrap().median - 2.0).abs() < 0.1, "{cpu:?}");
        assert!(cpu.above.name.contains("kernel") && cpu.below.name.contains("100 KiB"));
        let narrow = findings
            .iter()
            .filter(|f| f.question.contains("faster with a send buffer"));
        let verdicts: Vec<Verdict> = narrow.map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Holds, Verdict::DoesNotHold]);
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
