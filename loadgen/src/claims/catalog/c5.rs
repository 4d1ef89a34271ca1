//! C5: the read path of a whole server, by sendfile and by mapping.

use ringlog_benches::claims::transfer::Medium;
use serde_json::json;

use super::serving::no_veth;
use super::whole::{Whole, WholeClaim, missing, store, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::{Expect, Verdict};

/// Read paths of the server; the mapping is what the documents' other side uses.
const PATHS: [&str; 5] = ["sendfile", "mmap", "pread", "splice", "direct"];
/// What lies between server and consumer.
const MEDIA: [(Medium, &str); 2] = [
    (Medium::Loopback, "loopback"),
    (Medium::Veth, "a veth pair"),
];
/// 170,000/s over 100,000/s.
const CLAIMED: f64 = 1.7;
const HOT: u64 = 1;
const COLD: u64 = 0;
const READ: &str =
    "consume -t {stored} --until end --duration 60 --connections 1 --max-bytes 8388608";

fn stored_mib(scale: Scale) -> u64 {
    scale.pick(8, 800, 2048)
}

pub(super) const C5: WholeClaim = WholeClaim {
    id: "C5",
    sentence: "sendfile makes Kafka faster than RocketMQ, which maps files: 170,000/s against 100,000/s",
    points,
    space_gib: [2, 6, 13],
    setup_s: [2.0, 5.0, 40.0],
    budget_s: [2.0, 26.0, 250.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for hot in [true, false] {
        for (medium, _) in MEDIA {
            for path in PATHS {
                points.push(point(scale, medium, path, hot));
            }
        }
    }
    points
}

fn point(scale: Scale, medium: Medium, path: &str, hot: bool) -> Point {
    let rank = match (medium, path) {
        (Medium::Loopback, "sendfile" | "mmap" | "pread") => 0,
        (Medium::Veth, "sendfile" | "mmap") => 1,
        _ => 2,
    };
    let server = format!("--read-path {path}");
    let whole = Whole::new(path, if hot { HOT } else { COLD }, &server, READ);
    let mut point = whole
        .after(store(stored_mib(scale), 4), hot)
        .over(medium)
        .point(rank, scale);
    point.seconds = scale.pick(0.1, 0.4, 2.0);
    point
}

/// A read path's measurement.
fn of<'a>(
    measurements: &'a [Measurement],
    path: &str,
    x: u64,
    medium: Medium,
) -> Option<&'a Measurement> {
    find(
        measurements,
        &json!({ "side": path, "x": x, "medium": medium }),
    )
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let findings = findings(measurements);
    let mapped = of(measurements, "mmap", COLD, Medium::Loopback).is_some();
    let (verdict, why) = match findings.first() {
        Some(first) if mapped => (first.verdict, why(&findings)),
        _ => (
            Verdict::Undecided,
            "sendfile and a mapping were not both measured".to_owned(),
        ),
    };
    let plots = MEDIA.iter().flat_map(|&over| {
        ["records_per_s", "server_cpu_s_per_gb"]
            .into_iter()
            .filter_map(move |figure| bars(measurements, figure, over))
    });
    Conclusion {
        plots: plots.collect(),
        notes: notes(measurements),
        findings,
        ..Conclusion::without(verdict, why)
    }
}

/// Sendfile against the others; the first is what the verdict rests on.
fn findings(measurements: &[Measurement]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for other in ["mmap", "pread"] {
        for (medium, over) in MEDIA {
            for (x, state) in [(COLD, "cold"), (HOT, "hot")] {
                let of = |path| of(measurements, path, x, medium);
                let (Some(send), Some(below)) = (of("sendfile"), of(other)) else {
                    continue;
                };
                findings.push(Finding::compare(
                    format!(
                        "a consumer reads 1 KiB records over {over}, {state}: sendfile against {other}"
                    ),
                    ("sendfile", send),
                    (other, below),
                    ("records_per_s", "records/s"),
                    Expect::AtLeast(CLAIMED),
                ));
            }
        }
    }
    findings
}

fn why(findings: &[Finding]) -> String {
    let ratio = |over: &str, state: &str| {
        let question = format!("over {over}, {state}: sendfile against mmap");
        let finding = findings.iter().find(|f| f.question.ends_with(&question));
        finding.map(|finding| times(Some(finding)))
    };
    let veth = match (ratio("a veth pair", "cold"), ratio("a veth pair", "hot")) {
        (Some(cold), Some(hot)) => format!(", over a veth pair {cold} and {hot} times"),
        _ => String::new(),
    };
    format!(
        "the read path of one server, all else equal: over loopback sendfile gives a consumer {} times the records of a mapping, \
         cold, and {} times, hot{veth}; the documents compare two different brokers",
        times(findings.first()),
        ratio("loopback", "hot").unwrap_or_else(|| "–".into()),
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

fn bars(
    measurements: &[Measurement],
    figure: &str,
    (medium, over): (Medium, &str),
) -> Option<Plot> {
    let series = [(HOT, "page cache hot"), (COLD, "page cache cold")].map(|(x, name)| {
        let marks = PATHS.iter().enumerate().filter_map(|(index, path)| {
            let y = *of(measurements, path, x, medium)?.figures.get(figure)?;
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
    Some(Plot::Bars {
        title: format!("{title}, by read path, over {over}"),
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
        let whole = Whole::new(path, COLD, "", "").over(medium);
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
