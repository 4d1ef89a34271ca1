//! C5: the read path of a whole server, by sendfile and by mapping.

use super::whole::{Whole, WholeClaim, missing, of, store};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::{Expect, Verdict};

/// Read paths of the server; the mapping is what the documents' other side uses.
const PATHS: [&str; 5] = ["sendfile", "mmap", "pread", "splice", "direct"];
/// 170,000/s over 100,000/s.
const CLAIMED: f64 = 1.7;
const HOT: u64 = 1;
const COLD: u64 = 0;
const READ: &str =
    "consume -t {stored} --until end --duration 60 --connections 1 --max-bytes 8388608";

fn stored_mib(scale: Scale) -> u64 {
    scale.pick(8, 800, 3200)
}

pub(super) const C5: WholeClaim = WholeClaim {
    id: "C5",
    sentence: "sendfile makes Kafka faster than RocketMQ, which maps files: 170,000/s against 100,000/s",
    points,
    space_gib: [2, 6, 18],
    setup_s: [2.0, 5.0, 60.0],
    budget_s: [2.0, 20.0, 280.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for hot in [true, false] {
        for path in PATHS {
            let rank = match path {
                "sendfile" | "mmap" | "pread" => 0,
                _ => 1,
            };
            let server = format!("--read-path {path}");
            let whole = Whole::new(path, if hot { HOT } else { COLD }, &server, READ);
            let mut point = whole
                .after(store(stored_mib(scale), 4), hot)
                .point(rank, scale);
            point.seconds = scale.pick(0.1, 0.4, 3.0);
            points.push(point);
        }
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let rate = ("records_per_s", "records/s");
    let mut findings = Vec::new();
    for other in ["mmap", "pread"] {
        for (x, state) in [(COLD, "cold"), (HOT, "hot")] {
            if let (Some(send), Some(below)) =
                (of(measurements, "sendfile", x), of(measurements, other, x))
            {
                findings.push(Finding::compare(
                    format!("a consumer reads 1 KiB records, {state}: sendfile against {other}"),
                    ("sendfile", send),
                    (other, below),
                    rate,
                    Expect::AtLeast(CLAIMED),
                ));
            }
        }
    }
    let mapped = of(measurements, "mmap", COLD).is_some();
    let (verdict, why) = match findings.first() {
        None => (Verdict::Undecided, "no two read paths could be measured".to_owned()),
        Some(first) if mapped => (
            first.verdict,
            "the read path of one server, all else equal; the documents compare two different brokers".into(),
        ),
        Some(first) => (
            Verdict::NotYetMeasured,
            format!(
                "the server has no mapped read path yet; against ordinary reads sendfile gives {} times the records (C2 and C3 \
                 measure mappings without a server)",
                first.ratio.map_or_else(|| "–".into(), |r| crate::claims::report_number(r.median))
            ),
        ),
    };
    Conclusion {
        plots: ["records_per_s", "server_cpu_s_per_gb"]
            .map(|figure| bars(measurements, figure))
            .to_vec(),
        notes: missing(measurements),
        findings,
        ..Conclusion::without(verdict, why)
    }
}

fn bars(measurements: &[Measurement], figure: &str) -> Plot {
    let series = [(HOT, "page cache hot"), (COLD, "page cache cold")].map(|(x, name)| {
        let marks = PATHS.iter().enumerate().filter_map(|(index, path)| {
            let y = *of(measurements, path, x)?.figures.get(figure)?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: name.into(),
            marks: marks.collect(),
        }
    });
    Plot::Bars {
        title: match figure {
            "records_per_s" => "One consumer, by read path".into(),
            _ => "Processor time of the server, by read path".into(),
        },
        labels: PATHS.map(String::from).to_vec(),
        y: Axis::linear(match figure {
            "records_per_s" => "records/s",
            _ => "CPU s per GB",
        }),
        series: series.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;

    fn verdict(sendfile: [f64; 3], mmap: Option<[f64; 3]>) -> Verdict {
        let point = |side| Whole::new(side, COLD, "", "");
        let mut all = vec![
            measurement(&point("sendfile"), "records_per_s", &sendfile),
            measurement(&point("pread"), "records_per_s", &[1.0; 3]),
        ];
        all.extend(mmap.map(|mmap| measurement(&point("mmap"), "records_per_s", &mmap)));
        judge(&all).verdict
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
        assert_eq!(verdict([2.0; 3], None), Verdict::NotYetMeasured);
    }
}
