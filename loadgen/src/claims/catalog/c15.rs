//! C15: what persistence costs, on this server.

use super::whole::{Whole, WholeClaim, compare, conclude, series, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Plot};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

const DURABLE: &str = "fsync before each ack";
const NOT: &str = "no fsync before an ack";
/// Records of a batch, 1 KiB each.
const BATCHES: [u64; 3] = [1, 16, 256];
/// A cost below this factor is little.
const LITTLE: f64 = 1.25;

pub(super) const C15: WholeClaim = WholeClaim {
    id: "C15",
    sentence: "persistence costs RabbitMQ and ActiveMQ dearly, Kafka and RocketMQ little",
    points,
    space_gib: [1, 8, 24],
    setup_s: [1.0, 2.0, 4.0],
    budget_s: [2.0, 17.5, 268.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for batch in BATCHES {
        for (side, durability) in [(DURABLE, "fsync"), (NOT, "write")] {
            let server = format!("--durability {durability}");
            let load = format!(
                "produce -t {{topic}} -p 16 --delete-topics -s 1024 --batch-records {batch} --connections 16 {{time}}"
            );
            points
                .push(Whole::new(side, batch, &server, load).point(u32::from(batch == 16), scale));
        }
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    for (batch, words) in [(256, "256 KiB batches"), (1, "single records of 1 KiB")] {
        findings.extend(compare(
            measurements,
            &format!("does an fsync before each ack cost little? {words}"),
            (NOT, batch, NOT),
            (DURABLE, batch, DURABLE),
            ("records_per_s", "records/s"),
            Expect::AtMost(LITTLE),
        ));
    }
    let why = format!(
        "of this server: without the flush it takes {} times as much in large batches and {} times with single records",
        times(findings.first()),
        times(findings.get(1))
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.plots.push(Plot::Lines {
        title: "Records a second, 16 connections".into(),
        x: Axis::log("records of 1 KiB a batch"),
        y: Axis::log("records/s"),
        series: series(measurements, &[DURABLE, NOT], "records_per_s"),
    });
    conclusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |without: [f64; 3]| {
            let all = [
                measurement(&Whole::new(NOT, 256, "", ""), "records_per_s", &without),
                measurement(
                    &Whole::new(DURABLE, 256, "", ""),
                    "records_per_s",
                    &[100.0; 3],
                ),
            ];
            judge(&all).verdict
        };
        assert_eq!(verdict([105.0, 110.0, 100.0]), Verdict::Holds);
        // Whoever is faster with the flush pays nothing for it.
        assert_eq!(verdict([70.0, 75.0, 78.0]), Verdict::Holds);
        assert_eq!(verdict([205.0, 210.0, 200.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([105.0, 210.0, 100.0]), Verdict::Undecided);
    }
}
