//! C5: the read path of a whole server, by sendfile and by mapping.

use ringlog_benches::claims::transfer::Medium;
use serde_json::json;

use super::serving::no_veth;
use super::stored::{RECORD, store_records};
use super::whole::{Whole, WholeClaim, missing, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::{self, Expect, Verdict};

/// Read paths of the server; the mapping is what the documents' other side uses.
const PATHS: [&str; 5] = ["sendfile", "mmap", "pread", "splice", "direct"];
/// The two that the claim is about.
const COMPARED: [&str; 2] = ["sendfile", "mmap"];
/// What lies between server and consumer.
const MEDIA: [(Medium, &str); 2] = [
    (Medium::Loopback, "loopback"),
    (Medium::Veth, "a veth pair"),
];
/// States of the page cache, the one that the verdict rests on first.
const STATES: [(bool, &str); 2] = [(false, "cold"), (true, "hot")];
/// The documents' message sizes in bytes, the one that the verdict rests on first.
const RECORDS: [u64; 2] = [RECORD, 100];
/// 170,000/s over 100,000/s.
const CLAIMED: f64 = 1.7;
const READ: &str =
    "consume -t {stored} --until end --duration 60 --connections 1 --max-bytes 8388608";

/// MiB that a server stores; small records are read at fewer bytes a second.
fn stored_mib(scale: Scale, record: u64) -> u64 {
    let mib = scale.pick(8, 800, 2048);
    if record < RECORD { mib / 2 } else { mib }
}

pub(super) const C5: WholeClaim = WholeClaim {
    id: "C5",
    sentence: "sendfile makes Kafka faster than RocketMQ, which maps files: 170,000/s against 100,000/s",
    points,
    space_gib: [2, 6, 16],
    setup_s: [2.0, 5.0, 48.0],
    budget_s: [2.0, 24.5, 290.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for record in RECORDS {
        for (hot, _) in STATES {
            for (medium, _) in MEDIA {
                for path in PATHS {
                    // The claim is about two of the paths; the others are told once.
                    if record == RECORD || COMPARED.contains(&path) {
                        points.push(point(scale, record, medium, path, hot));
                    }
                }
            }
        }
    }
    points
}

fn point(scale: Scale, record: u64, medium: Medium, path: &str, hot: bool) -> Point {
    // The rest shares rank 1, for a run that has time for the second size has it for the second medium.
    let rank = match (record, medium) {
        (RECORD, Medium::Loopback) if COMPARED.contains(&path) => 0,
        (RECORD, Medium::Loopback) if path == "pread" => 1,
        _ if COMPARED.contains(&path) => 1,
        _ => 2,
    };
    let server = format!("--read-path {path}");
    let stored = store_records(stored_mib(scale, record), 4, record);
    let mut point = Whole::new(path, record, &server, READ)
        .after(stored, hot)
        .over(medium)
        .point(rank, scale);
    point.seconds = scale.pick(0.1, 0.5, 1.7);
    point
}

/// A read path's measurement.
fn of<'a>(
    measurements: &'a [Measurement],
    path: &str,
    (record, hot, medium): (u64, bool, Medium),
) -> Option<&'a Measurement> {
    find(
        measurements,
        &json!({ "side": path, "x": record, "hot": hot, "medium": medium }),
    )
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let findings = findings(measurements);
    // Read from the page cache, as by a consumer that keeps up, and from the device, which may be slower than either way.
    let decisive = STATES.map(|(_, state)| question(RECORDS[0], MEDIA[0].1, state, "mmap"));
    let decisive = findings.iter().filter(|f| decisive.contains(&f.question));
    let (verdict, why) = match verdict::all(decisive.map(|finding| finding.verdict)) {
        Verdict::NotYetMeasured => (
            Verdict::Undecided,
            "sendfile and a mapping were not both measured".to_owned(),
        ),
        verdict => (verdict, why(&findings)),
    };
    Conclusion {
        plots: plots(measurements),
        notes: notes(measurements),
        findings,
        ..Conclusion::without(verdict, why)
    }
}

/// What is asked of one setting.
fn question(record: u64, over: &str, state: &str, other: &str) -> String {
    let size = super::size(record);
    format!("a consumer reads {size} records over {over}, {state}: sendfile against {other}")
}

/// Sendfile against the others.
fn findings(measurements: &[Measurement]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for record in RECORDS {
        for other in ["mmap", "pread"] {
            for (medium, over) in MEDIA {
                for (hot, state) in STATES {
                    let of = |path| of(measurements, path, (record, hot, medium));
                    let (Some(send), Some(below)) = (of("sendfile"), of(other)) else {
                        continue;
                    };
                    findings.push(Finding::compare(
                        question(record, over, state, other),
                        ("sendfile", send),
                        (other, below),
                        ("records_per_s", "records/s"),
                        Expect::AtLeast(CLAIMED),
                    ));
                }
            }
        }
    }
    findings
}

fn why(findings: &[Finding]) -> String {
    let ratio = |record: u64, over: &str, state: &str| {
        let question = question(record, over, state, "mmap");
        let finding = findings.iter().find(|f| f.question == question);
        finding.map(|finding| times(Some(finding)))
    };
    let both = |record: u64, over: &str| {
        let (cold, hot) = (ratio(record, over, "cold")?, ratio(record, over, "hot")?);
        Some(format!("{cold} and {hot} times"))
    };
    let veth = both(RECORD, "a veth pair");
    let veth = veth.map_or_else(String::new, |times| format!(", over a veth pair {times}"));
    let small = both(RECORDS[1], "loopback");
    let small = small.map_or_else(String::new, |times| {
        format!("; of 100 B records, over loopback, {times}")
    });
    format!(
        "the read path of one server, all else equal: over loopback sendfile gives a consumer {} times the records of a mapping, \
         cold, and {} times, hot{veth}{small}; the documents compare two different brokers",
        times(findings.first()),
        ratio(RECORD, "loopback", "hot").unwrap_or_else(|| "–".into()),
    )
}

/// What is missing; the second medium once, not for each path.
fn notes(measurements: &[Measurement]) -> Vec<String> {
    let veth = json!(Medium::Veth);
    let (over_veth, others): (Vec<Measurement>, Vec<Measurement>) = measurements
        .iter()
        .cloned()
        .partition(|m| m.params.get("medium") == Some(&veth));
    let mut notes = missing(&others);
    match over_veth.iter().all(|m| m.left_out.is_some()) {
        true => notes.extend(no_veth(&over_veth)),
        false => notes.extend(missing(&over_veth)),
    }
    notes.push(
        "Where a pair of virtual devices is allowed, the server is in a network namespace of its own for both media: over loopback the \
         consumer is in the same one, over the pair in the other."
            .into(),
    );
    notes
}

/// Rates for both sizes, processor time for the larger one: per byte it is the same.
fn plots(measurements: &[Measurement]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for record in RECORDS {
        for over in MEDIA {
            plots.extend(bars(measurements, "records_per_s", record, over));
            if record == RECORD {
                plots.extend(bars(measurements, "server_cpu_s_per_gb", record, over));
            }
        }
    }
    plots
}

fn bars(
    measurements: &[Measurement],
    figure: &str,
    record: u64,
    (medium, over): (Medium, &str),
) -> Option<Plot> {
    let series = [(true, "page cache hot"), (false, "page cache cold")].map(|(hot, name)| {
        let marks = PATHS.iter().enumerate().filter_map(|(index, path)| {
            let measured = of(measurements, path, (record, hot, medium))?;
            let y = *measured.figures.get(figure)?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: name.into(),
            marks: marks.collect(),
        }
    });
    if series.iter().all(|series| series.marks.is_empty()) {
        return None;
    }
    let (title, unit) = match figure {
        "records_per_s" => ("One consumer", "records/s"),
        _ => ("Processor time of the server", "CPU s per GB"),
    };
    let size = super::size(record);
    Some(Plot::Bars {
        title: format!("{title}, {size} records, by read path, over {over}"),
        labels: PATHS.map(String::from).to_vec(),
        y: Axis::linear(unit),
        series: series.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;

    fn side(path: &str, medium: Medium, values: &[f64]) -> Measurement {
        sized(RECORD, path, medium, values)
    }

    fn sized(record: u64, path: &str, medium: Medium, values: &[f64]) -> Measurement {
        let whole = Whole::new(path, record, "", "")
            .after("", false)
            .over(medium);
        measurement(&whole, "records_per_s", values)
    }

    fn measured(sendfile: [f64; 3], mmap: Option<[f64; 3]>) -> Vec<Measurement> {
        let mut all = vec![
            side("sendfile", Medium::Loopback, &sendfile),
            side("pread", Medium::Loopback, &[1.0; 3]),
        ];
        all.extend(mmap.map(|mmap| side("mmap", Medium::Loopback, &mmap)));
        all
    }

    fn verdict(sendfile: [f64; 3], mmap: Option<[f64; 3]>) -> Verdict {
        judge(&measured(sendfile, mmap)).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(verdict([2.0, 2.1, 2.2], Some([1.0; 3])), Verdict::Holds);
        assert_eq!(
            verdict([1.3, 1.3, 1.3], Some([1.0; 3])),
            Verdict::DirectionOnly
        );
        assert_eq!(
            verdict([0.9, 1.0, 1.0], Some([1.0; 3])),
            Verdict::DoesNotHold
        );
        assert_eq!(verdict([0.9, 2.0, 1.0], Some([1.0; 3])), Verdict::Undecided);
        assert_eq!(verdict([2.0; 3], None), Verdict::Undecided);
    }

    #[test]
    fn the_second_medium_has_findings_of_its_own_and_does_not_decide() {
        let mut all = measured([2.0, 2.1, 2.2], Some([1.0; 3]));
        all.push(side("sendfile", Medium::Veth, &[1.0; 3]));
        all.push(side("mmap", Medium::Veth, &[1.0; 3]));
        let conclusion = judge(&all);
        assert_eq!(conclusion.verdict, Verdict::Holds);
        let veth = conclusion
            .findings
            .iter()
            .find(|f| f.question.contains("veth"))
            .unwrap();
        assert_eq!(veth.verdict, Verdict::DoesNotHold);
        assert_eq!(conclusion.plots.len(), 2);
    }

    #[test]
    fn the_second_size_is_told_and_does_not_decide() {
        let mut all = measured([2.0, 2.1, 2.2], Some([1.0; 3]));
        all.push(sized(100, "sendfile", Medium::Loopback, &[10.0; 3]));
        all.push(sized(100, "mmap", Medium::Loopback, &[10.0; 3]));
        let conclusion = judge(&all);
        assert_eq!(conclusion.verdict, Verdict::Holds);
        let small = conclusion
            .findings
            .iter()
            .find(|f| f.question.contains("100 B"))
            .unwrap();
        assert_eq!(small.verdict, Verdict::DoesNotHold);
        // Without a measurement of the documents' first size nothing is decided.
        let alone: Vec<Measurement> = all.into_iter().filter(|m| m.params["x"] == 100).collect();
        assert_eq!(judge(&alone).verdict, Verdict::Undecided);
    }

    #[test]
    fn a_refused_pair_is_named_once() {
        let mut all = measured([2.0; 3], Some([1.0; 3]));
        for path in ["sendfile", "mmap"] {
            let mut refused = side(path, Medium::Veth, &[1.0]);
            refused.repetitions.clear();
            refused.left_out = Some("Operation not permitted".into());
            all.push(refused);
        }
        let notes = judge(&all).notes.join("\n");
        assert_eq!(
            notes.matches("Operation not permitted").count(),
            1,
            "{notes}"
        );
        assert!(notes.contains("CAP_NET_ADMIN"), "{notes}");
    }
}
