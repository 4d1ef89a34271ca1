//! Not a claim of the documents: the two carriers of the same engine, side by side.

use super::whole::{Whole, WholeClaim, compare, conclude, missing, of, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

const RING: &str = "own loop on io_uring";
const GLOMMIO: &str = "glommio";
const SIDES: [(&str, &str); 2] = [(RING, "ring"), (GLOMMIO, "glommio")];
/// Bytes of a batch.
const SMALL: u64 = 256;
const LARGE: u64 = 65_536;
/// Level: less than this factor.
const LEVEL: f64 = 1.25;

pub(super) const DRIVERS: WholeClaim = WholeClaim {
    id: "DRIVERS",
    sentence: "not of the documents: the engine's own loop takes more small batches a second than glommio, and large ones as well",
    points,
    space_gib: [1, 8, 24],
    setup_s: [0.5, 1.0, 2.0],
    budget_s: [2.0, 21.5, 115.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let loads = [
        (SMALL, "-s 256 --batch-records 1 --connections 64"),
        (
            LARGE,
            "-s 1024 --batch-bytes 65536 --connections 16 --in-flight 2",
        ),
    ];
    let all = loads.into_iter().flat_map(|(bytes, flags)| {
        SIDES.map(|(side, driver)| {
            let load = format!("produce -t {{topic}} -p 16 --delete-topics {flags} {{time}}");
            let mut whole = Whole::new(side, bytes, &format!("--driver {driver}"), load);
            whole.calls = true;
            whole.point(0, scale)
        })
    });
    all.collect()
}

/// The one driver against the other; the first decides.
fn findings(measurements: &[Measurement]) -> Vec<Finding> {
    let pair = |question: &str, above: &str, below: &str, bytes, figure, unit, expect| {
        let (above, below) = ((above, bytes, above), (below, bytes, below));
        compare(measurements, question, above, below, (figure, unit), expect)
    };
    let small = "one record of 256 B a batch, 64 in flight";
    let large = "batches of 64 KiB, 32 in flight";
    let findings = [
        pair(
            &format!("{small}: more acks a second?"),
            RING,
            GLOMMIO,
            SMALL,
            "requests_per_s",
            "acks/s",
            Expect::More,
        ),
        pair(
            &format!("{large}: as many bytes a second?"),
            RING,
            GLOMMIO,
            LARGE,
            "mb_per_s",
            "MB/s",
            Expect::Level(LEVEL),
        ),
        pair(
            &format!("{small}: does glommio take more of the processor?"),
            GLOMMIO,
            RING,
            SMALL,
            "server_cpu_s_per_million_records",
            "CPU s per million acks",
            Expect::More,
        ),
        pair(
            &format!("{small}: and more system calls?"),
            GLOMMIO,
            RING,
            SMALL,
            "system_calls_per_ack",
            "calls per ack",
            Expect::More,
        ),
        pair(
            &format!("{large}: does glommio take more of the processor?"),
            GLOMMIO,
            RING,
            LARGE,
            "server_cpu_s_per_gb",
            "CPU s/GB",
            Expect::More,
        ),
    ];
    findings.into_iter().flatten().collect()
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let findings = findings(measurements);
    let why = format!(
        "both carry the same engine, each ack after its flush: the own loop gives {} times the small acks of glommio and {} times \
         the bytes in large batches",
        times(findings.first()),
        times(findings.get(1))
    );
    let verdict = findings.first().map(|finding| finding.verdict);
    let mut conclusion = conclude(findings, why, measurements);
    if let Some(verdict) = verdict {
        conclusion.verdict = verdict;
    }
    conclusion.notes = missing(measurements);
    conclusion.notes.push(
        "The verdict is that of the small batches. System calls are counted by the kernel (raw_syscalls:sys_enter) over the threads of \
         the server; what an io_uring carries out is no system call."
            .into(),
    );
    for (title, bytes, figure, unit) in [
        (
            "Small batches: acks a second",
            SMALL,
            "requests_per_s",
            "acks/s",
        ),
        ("Large batches: bytes a second", LARGE, "mb_per_s", "MB/s"),
    ] {
        conclusion
            .plots
            .push(bars(measurements, title, bytes, figure, unit));
    }
    conclusion.tables.push(table(measurements));
    conclusion
}

fn bars(measurements: &[Measurement], title: &str, bytes: u64, figure: &str, unit: &str) -> Plot {
    let marks = SIDES.iter().enumerate().filter_map(|(index, (side, _))| {
        let y = *of(measurements, side, bytes)?.figures.get(figure)?;
        Some(Mark { x: index as f64, y })
    });
    Plot::Bars {
        title: title.into(),
        labels: SIDES.map(|(_, driver)| driver.to_owned()).to_vec(),
        y: Axis::linear(unit),
        series: vec![Series {
            name: unit.into(),
            marks: marks.collect(),
        }],
    }
}

fn table(measurements: &[Measurement]) -> Table {
    let mut rows = Vec::new();
    for (bytes, words) in [(SMALL, "256 B"), (LARGE, "64 KiB")] {
        for (side, _) in SIDES {
            let Some(measured) = of(measurements, side, bytes) else {
                continue;
            };
            let figure = |name: &str| {
                let estimate = measured.figures.get(name);
                estimate.map_or_else(|| "–".into(), |estimate| number(estimate.median))
            };
            let names = [
                "requests_per_s",
                "mb_per_s",
                "p50_us",
                "p99_us",
                "system_calls_per_ack",
            ];
            let per_ack = measured.figures.get("server_cpu_s_per_gb").map(|per_gb| {
                let gb = measured.figures.get("mb_per_s").map(|e| e.median / 1e3);
                let acks = measured.figures.get("requests_per_s").map(|e| e.median);
                per_gb.median * gb.unwrap_or(f64::NAN) / acks.unwrap_or(f64::NAN) * 1e6
            });
            rows.push(
                [
                    vec![format!("{side}, {words} a batch")],
                    names.map(figure).to_vec(),
                    vec![per_ack.map_or_else(|| "–".into(), number)],
                ]
                .concat(),
            );
        }
    }
    Table {
        title: "The same engine, two drivers".into(),
        head: [
            "",
            "acks/s",
            "MB/s",
            "p50 µs",
            "p99 µs",
            "system calls per ack",
            "CPU µs per ack",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |ring: [f64; 3]| {
            let all = [(RING, ring), (GLOMMIO, [100.0; 3])].map(|(side, values)| {
                measurement(&Whole::new(side, SMALL, "", ""), "requests_per_s", &values)
            });
            judge(&all).verdict
        };
        assert_eq!(verdict([205.0, 210.0, 200.0]), Verdict::Holds);
        assert_eq!(verdict([95.0, 90.0, 100.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([95.0, 210.0, 100.0]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
