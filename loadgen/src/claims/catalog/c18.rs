//! C18: what a broker gives up that must look into messages, so that sendfile is no way for it.

use ringlog_benches::claims::transfer::{Medium, Path, Serving};

use super::serving::{
    BUFFERS, Best, CPU, Figure, RATE, Sent, ServingRig, buffers_note, notes, point,
};
use super::whole::{conclude, times};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series};
use crate::claims::plan::{Point, Repeats};
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

const SLICE: u64 = 4 << 20;
const CHUNK: u64 = 256 << 10;
const SIDES: [(Path, &str); 3] = [
    (Path::Sendfile, "sendfile"),
    (Path::ReadSend, "read + send"),
    (Path::InspectSend, "read + look at every byte + send"),
];

pub(super) struct C18;

/// Each connection falls into a pace of its own, so many short windows say more than few long ones.
fn window_s(scale: Scale) -> f64 {
    scale.pick(0.01, 0.16, 0.8)
}

fn file_bytes(scale: Scale) -> u64 {
    scale.pick(8 << 20, 512 << 20, 2 << 30)
}

impl Claim for C18 {
    fn id(&self) -> &'static str {
        "C18"
    }

    fn sentence(&self) -> &'static str {
        "a broker that must look into messages (dead letters, filters) cannot use sendfile, and pays for it"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let all = [true, false]
            .into_iter()
            .flat_map(|hot| SIDES.map(|(path, _)| (hot, path)));
        let each = all.flat_map(|(hot, path)| BUFFERS.map(|(buffer, _)| (hot, path, buffer)));
        each.map(|(hot, path, buffer)| {
            let serving = Serving {
                medium: Medium::Loopback,
                hot,
                slice: SLICE,
                chunk: CHUNK,
                from: 0,
                path,
                buffer,
            };
            // The verdict is about the other two.
            let rank = u32::from(path == Path::ReadSend);
            point(&serving, rank, scale, window_s(scale))
        })
        .collect()
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: ServingRig::disk_bytes(file_bytes(scale)),
            setup_s: scale.pick(0.1, 1.0, 3.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 30.5, 120.0)
    }

    fn repeats(&self, scale: Scale) -> Repeats {
        let (min, steady, wanted) = scale.pick((2, 2, 2), (3, 20, 25), (5, 5, 9));
        Repeats {
            min,
            steady,
            wanted,
        }
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

/// A side with the send buffer that suits it best, and what it is called.
fn best<'a>(
    measurements: &'a [Measurement],
    path: Path,
    hot: bool,
    figure: &Figure,
) -> Option<(String, &'a Measurement)> {
    let sent = Sent {
        medium: Medium::Loopback,
        path,
        slice: SLICE,
        chunk: CHUNK,
        hot,
    };
    let Best {
        measurement,
        buffer,
        ..
    } = sent.best(measurements, figure)?;
    let (_, name) = SIDES.iter().find(|side| side.0 == path)?;
    Some((format!("{name}, {buffer}"), measurement))
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    for (hot, state) in [(true, "hot"), (false, "cold")] {
        for (figure, question) in [
            (
                CPU,
                "does looking at every byte cost the processor more than sendfile",
            ),
            (RATE, "is sendfile faster than looking at every byte"),
        ] {
            let of = |path| best(measurements, path, hot, &figure);
            if let (Some(send), Some(look)) = (of(Path::Sendfile), of(Path::InspectSend)) {
                let (send, look) = ((send.0.as_str(), send.1), (look.0.as_str(), look.1));
                let [above, below] = if figure.more {
                    [send, look]
                } else {
                    [look, send]
                };
                findings.push(Finding::compare(
                    format!("{question}, {state}?"),
                    above,
                    below,
                    (figure.name, figure.unit),
                    Expect::More,
                ));
            }
        }
    }
    let why = format!(
        "bytes that are looked at must come into the program, so sendfile is out; hot, looking takes {} times the processor time \
         of sendfile, and sendfile gives {} times the rate of looking",
        times(findings.first()),
        times(findings.get(1))
    );
    // The rates are told, but a rate that one fast core carries either way does not refute the claim.
    let rates: Vec<Finding> = findings
        .iter()
        .filter(|finding| finding.above.unit == "MB/s")
        .cloned()
        .collect();
    findings.retain(|finding| finding.above.unit != "MB/s");
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.findings.extend(rates);
    for (figure, unit) in [(CPU, "CPU s per GB"), (RATE, "MB/s")] {
        let series = [(true, "hot"), (false, "cold")].map(|(hot, name)| {
            let marks = SIDES.iter().enumerate().filter_map(|(index, (path, _))| {
                let (_, best) = best(measurements, *path, hot, &figure)?;
                let y = *best.figures.get(figure.name)?;
                Some(Mark { x: index as f64, y })
            });
            Series {
                name: name.into(),
                marks: marks.collect(),
            }
        });
        conclusion.plots.push(Plot::Bars {
            title: format!("With and without a look at the content: {unit}"),
            labels: SIDES.map(|(_, name)| name.to_owned()).to_vec(),
            y: Axis::linear(unit),
            series: series.to_vec(),
        });
    }
    conclusion.notes.extend(notes(measurements));
    conclusion.notes.push(buffers_note());
    conclusion.notes.push(
        "The look is a CRC-32 over every byte; a filter that decodes, or TLS, costs more. Measured without a server: it has no \
         filters and no TLS yet."
            .into(),
    );
    conclusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;
    use ringlog_benches::claims::transfer::SendBuffer;

    fn verdict(look: [f64; 3]) -> Verdict {
        let all = [(Path::Sendfile, [0.2; 3]), (Path::InspectSend, look)].map(|(path, values)| {
            let serving = Serving {
                medium: Medium::Loopback,
                hot: true,
                slice: SLICE,
                chunk: CHUNK,
                from: 0,
                path,
                buffer: SendBuffer::Grown,
            };
            measurement(&serving, "cpu_s_per_gb", &values)
        });
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(verdict([0.4, 0.4, 0.5]), Verdict::Holds);
        assert_eq!(verdict([0.2, 0.2, 0.2]), Verdict::DoesNotHold);
        assert_eq!(verdict([0.1, 0.4, 0.3]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
