//! C14: what the page cache gives readers, and what a flush before every ack costs writers.

use super::loss::{self, crash_point, trade};
use super::whole::{Whole, WholeClaim, compare, conclude, of, store, times};
use crate::claims::claim::Scale;
use crate::claims::crash::{POWER_LOST, POWER_WINDOW};
use crate::claims::outcome::{Axis, Conclusion, Mark, Plot, Series};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

const READ: &str =
    "consume -t {stored} --until end --duration 60 --connections 1 --max-bytes 8388608";
const HOT: &str = "read, page cache hot";
const COLD: &str = "read, page cache cold";
const PAST: &str = "read past the page cache";
const FSYNC: &str = "write, fsync before each ack";
const CACHED: &str = "write, page cache only";
/// Sides of the crashes, and their names.
const POLICIES: [(&str, &str); 2] = [
    ("crash, fsync before each ack", "fsync before each ack"),
    ("crash, no fsync", "no fsync before an ack"),
];
/// Records of a batch: small ones wait for the flush, large ones for the disk.
const BATCHES: [u64; 2] = [1, 256];

fn stored_mib(scale: Scale) -> u64 {
    scale.pick(8, 800, 3200)
}

pub(super) const C14: WholeClaim = WholeClaim {
    id: "C14",
    sentence: "the page cache carries reads, and the flush policy decides what is lost",
    points,
    space_gib: [1, 8, 24],
    setup_s: [1.0, 6.0, 24.0],
    budget_s: [2.0, 32.0, 205.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for (side, path, hot, rank) in [
        (HOT, "pread", true, 0),
        (COLD, "pread", false, 0),
        (PAST, "direct", false, 1),
    ] {
        let server = format!("--durability fsync --read-path {path}");
        let whole = Whole::new(side, 0, &server, READ).after(store(stored_mib(scale), 4), hot);
        let mut point = whole.point(rank, scale);
        point.seconds = scale.pick(0.1, 0.5, 3.0);
        points.push(point);
    }
    for batch in BATCHES {
        for (side, durability) in [(FSYNC, "fsync"), (CACHED, "write")] {
            let server = format!("--durability {durability} --read-path pread");
            let load = format!(
                "produce -t {{topic}} -p 16 --delete-topics -s 256 --batch-records {batch} --connections 16 {{time}}"
            );
            points.push(Whole::new(side, batch, &server, load).point(u32::from(batch > 1), scale));
        }
    }
    for ((side, _), durability) in POLICIES.into_iter().zip(["fsync", "write"]) {
        let server = format!("--durability {durability}");
        points.push(crash_point(side, &server, "1", 0, scale));
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    findings.extend(compare(
        measurements,
        "does the page cache carry reads?",
        (HOT, 0, "a consumer, page cache hot"),
        (COLD, 0, "a consumer, page cache cold"),
        ("mb_per_s", "MB/s"),
        Expect::More,
    ));
    findings.extend(compare(
        measurements,
        "does a flush before each ack cost? one record a batch, 16 connections",
        (CACHED, 1, "no fsync before an ack"),
        (FSYNC, 1, "fsync before each ack"),
        ("records_per_s", "records/s"),
        Expect::More,
    ));
    findings.extend(trade(
        measurements,
        "power loss under load: is anything lost without a flush before each ack, and nothing with it?",
        POLICIES[1],
        POLICIES[0],
        POWER_LOST,
    ));
    let window = loss::crashed(measurements, POLICIES[1].0);
    let window = window.and_then(|m| m.figures.get(POWER_WINDOW).copied());
    let why = format!(
        "a hot page cache gives a consumer {} times the rate; leaving the flush out gives writers {} times the acks and, when power \
         goes, takes back up to {} ms of them",
        times(findings.first()),
        times(findings.get(1)),
        window.map_or_else(|| "–".into(), |e| number(e.median))
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.plots.push(bars(measurements));
    conclusion.plots.push(loss::bars(measurements, &POLICIES));
    conclusion.tables.push(loss::table(measurements, &POLICIES));
    conclusion.notes.push(
        "The server has no flush every N ms; without a flush before each ack its next round of destaging makes records durable. A \
         kill leaves what the system has taken: no policy loses anything by it."
            .into(),
    );
    conclusion.notes.push(loss::note());
    conclusion
}

fn bars(measurements: &[Measurement]) -> Plot {
    let series = [
        (FSYNC, "fsync before each ack"),
        (CACHED, "no fsync before an ack"),
    ]
    .map(|(side, name)| {
        let marks = BATCHES.iter().enumerate().filter_map(|(index, &batch)| {
            let y = *of(measurements, side, batch)?.figures.get("p99_us")?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: name.into(),
            marks: marks.collect(),
        }
    });
    Plot::Bars {
        title: "99 of 100 acks are sooner than".into(),
        labels: BATCHES.map(|batch| format!("{batch} a batch")).to_vec(),
        y: Axis::log("µs"),
        series: series.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::loss::testing::crashes;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |hot: [f64; 3], lost: f64| {
            let all = [
                crashes(POLICIES[0].0, &[0.0; 3], &[lost; 3]),
                crashes(POLICIES[1].0, &[0.0; 3], &[900.0; 3]),
                measurement(&Whole::new(HOT, 0, "", ""), "mb_per_s", &hot),
                measurement(&Whole::new(COLD, 0, "", ""), "mb_per_s", &[100.0; 3]),
            ];
            judge(&all).verdict
        };
        assert_eq!(verdict([150.0, 160.0, 150.0], 0.0), Verdict::Holds);
        assert_eq!(verdict([150.0, 160.0, 150.0], 1.0), Verdict::DoesNotHold);
        assert_eq!(verdict([99.0, 101.0, 100.0], 0.0), Verdict::DoesNotHold);
        assert_eq!(verdict([90.0, 160.0, 120.0], 0.0), Verdict::Undecided);
    }
}
