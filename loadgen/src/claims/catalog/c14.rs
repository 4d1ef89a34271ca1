//! C14: what the page cache gives readers, and what a flush before every ack costs writers.

use super::loss::{self, crash_point, trade};
use super::stored::store;
use super::whole::{Whole, WholeClaim, compare, conclude, of, times};
use crate::claims::claim::Scale;
use crate::claims::crash::{POWER_LOST, POWER_WINDOW};
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series};
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
const TIMED: &str = "write, fsync every 100 ms";
const CACHED: &str = "write, page cache only";
/// A flush policy: its side when it writes and when it is crashed, its name, and arguments of the server.
struct Policy {
    write: &'static str,
    crash: &'static str,
    name: &'static str,
    server: &'static str,
    /// How soon it is left out.
    rank: u32,
}

const EVERY_ACK: Policy = Policy {
    write: FSYNC,
    crash: "crash, fsync before each ack",
    name: "fsync before each ack",
    server: "--durability fsync",
    rank: 0,
};
const EVERY_100_MS: Policy = Policy {
    write: TIMED,
    crash: "crash, fsync every 100 ms",
    name: "fsync every 100 ms",
    server: "--durability write --set log.flush.interval.ms=100",
    rank: 1,
};
const NEVER: Policy = Policy {
    write: CACHED,
    crash: "crash, no fsync",
    name: "no fsync before an ack",
    server: "--durability write",
    rank: 0,
};
const POLICIES: [Policy; 3] = [EVERY_ACK, EVERY_100_MS, NEVER];
/// Sides of the crashes, and their names.
const CRASHES: [(&str, &str); 3] = [
    (EVERY_ACK.crash, EVERY_ACK.name),
    (EVERY_100_MS.crash, EVERY_100_MS.name),
    (NEVER.crash, NEVER.name),
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
    budget_s: [2.0, 27.5, 272.0],
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
        for policy in &POLICIES {
            let server = format!("{} --read-path pread", policy.server);
            let load = format!(
                "produce -t {{topic}} -p 16 --delete-topics -s 256 --batch-records {batch} --connections 16 {{time}}"
            );
            let rank = policy.rank.max(u32::from(batch > 1));
            points.push(Whole::new(policy.write, batch, &server, load).point(rank, scale));
        }
    }
    for policy in &POLICIES {
        points.push(crash_point(
            policy.crash,
            policy.server,
            "1",
            policy.rank,
            scale,
        ));
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
        (NEVER.crash, NEVER.name),
        (EVERY_ACK.crash, EVERY_ACK.name),
        POWER_LOST,
    ));
    let why = why(&findings, measurements);
    let mut conclusion = conclude(findings, why, measurements);
    // Told, and no part of the claim: the documents do not say what lies between.
    conclusion.findings.extend(between(measurements));
    for (figure, title, unit) in [
        ("records_per_s", "Records a second", "records/s"),
        ("p99_us", "99 of 100 acks are sooner than", "µs"),
    ] {
        conclusion
            .plots
            .push(bars(measurements, figure, title, unit));
    }
    conclusion.plots.push(loss::bars(measurements, &CRASHES));
    conclusion.tables.push(loss::table(measurements, &CRASHES));
    conclusion.notes.push(
        "Every 100 ms is log.flush.interval.ms with --durability write: acks come after the write, and a flush follows within that \
         time. Without any flush the next round of destaging makes records durable. A kill leaves what the system has taken: no \
         policy loses anything by it."
            .into(),
    );
    conclusion.notes.push(loss::note());
    conclusion
}

fn why(findings: &[Finding], measurements: &[Measurement]) -> String {
    let window = |policy: &Policy| {
        let crashed = loss::crashed(measurements, policy.crash)?;
        let window = crashed.figures.get(POWER_WINDOW)?;
        Some(number(window.median))
    };
    let timed = window(&EVERY_100_MS);
    let timed = timed.map_or_else(String::new, |ms| {
        format!(", with a flush every 100 ms up to {ms} ms")
    });
    format!(
        "a hot page cache gives a consumer {} times the rate; leaving the flush out gives writers {} times the acks and, when power \
         goes, takes back up to {} ms of them{timed}",
        times(findings.first()),
        times(findings.get(1)),
        window(&NEVER).unwrap_or_else(|| "–".into()),
    )
}

/// What a flush every 100 ms costs, and what it saves.
fn between(measurements: &[Measurement]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(compare(
        measurements,
        "is a flush every 100 ms cheaper than one before each ack? one record a batch, 16 connections (not part of the claim)",
        (TIMED, 1, EVERY_100_MS.name),
        (FSYNC, 1, EVERY_ACK.name),
        ("records_per_s", "records/s"),
        Expect::More,
    ));
    findings.extend(trade(
        measurements,
        "power loss under load: is anything lost with a flush every 100 ms, and nothing with one before each ack? (not part of \
         the claim)",
        (EVERY_100_MS.crash, EVERY_100_MS.name),
        (EVERY_ACK.crash, EVERY_ACK.name),
        POWER_LOST,
    ));
    findings
}

fn bars(measurements: &[Measurement], figure: &str, title: &str, unit: &str) -> Plot {
    let series = POLICIES.each_ref().map(|policy| {
        let marks = BATCHES.iter().enumerate().filter_map(|(index, &batch)| {
            let y = *of(measurements, policy.write, batch)?.figures.get(figure)?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: policy.name.into(),
            marks: marks.collect(),
        }
    });
    Plot::Bars {
        title: title.into(),
        labels: BATCHES.map(|batch| format!("{batch} a batch")).to_vec(),
        y: Axis::log(unit),
        series: series
            .into_iter()
            .filter(|series| !series.marks.is_empty())
            .collect(),
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
                crashes(EVERY_ACK.crash, &[0.0; 3], &[lost; 3]),
                crashes(NEVER.crash, &[0.0; 3], &[900.0; 3]),
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

    #[test]
    fn what_lies_between_is_told_and_does_not_decide() {
        let write = |policy: &Policy, rate: f64| {
            measurement(
                &Whole::new(policy.write, 1, "", ""),
                "records_per_s",
                &[rate; 3],
            )
        };
        let all = [
            measurement(&Whole::new(HOT, 0, "", ""), "mb_per_s", &[200.0; 3]),
            measurement(&Whole::new(COLD, 0, "", ""), "mb_per_s", &[100.0; 3]),
            write(&EVERY_ACK, 100.0),
            write(&EVERY_100_MS, 100.0),
            write(&NEVER, 200.0),
            crashes(EVERY_ACK.crash, &[0.0; 3], &[0.0; 3]),
            crashes(EVERY_100_MS.crash, &[0.0; 3], &[0.0; 3]),
            crashes(NEVER.crash, &[0.0; 3], &[900.0; 3]),
        ];
        let conclusion = judge(&all);
        assert_eq!(conclusion.verdict, Verdict::Holds);
        let told: Vec<Verdict> = conclusion
            .findings
            .iter()
            .filter(|f| f.question.contains("every 100 ms"))
            .map(|f| f.verdict)
            .collect();
        assert_eq!(told, [Verdict::DoesNotHold, Verdict::DoesNotHold]);
        assert!(conclusion.plots.len() == 3 && conclusion.tables[0].rows.len() == 3);
    }
}
