//! C16: whether more partitions bring more throughput.

use super::stored::store;
use super::whole::{Whole, WholeClaim, compare, conclude, series, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Plot};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

const PRODUCE: &str = "16 producers";
const CONSUME: &str = "one consumer for each partition";
const PARTITIONS: [u64; 5] = [1, 4, 16, 64, 1000];
/// Most consuming connections.
const CONSUMERS_MAX: u64 = 64;
const MANY: u64 = 16;

fn stored_mib(scale: Scale) -> u64 {
    scale.pick(8, 400, 1600)
}

pub(super) const C16: WholeClaim = WholeClaim {
    id: "C16",
    sentence: "partitions bring throughput: one consumer each, more partitions more speed",
    points,
    space_gib: [1, 12, 30],
    setup_s: [1.0, 2.0, 4.0],
    budget_s: [2.0, 35.0, 295.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for partitions in PARTITIONS {
        let load = format!(
            "produce -t {{topic}} -p {partitions} --delete-topics -s 1024 --batch-bytes 16384 --connections 16 {{time}}"
        );
        let consumers = partitions.min(CONSUMERS_MAX);
        let read = format!(
            "consume -t {{stored}} --until end --duration 60 --connections {consumers} --max-bytes 8388608"
        );
        let rank = match partitions {
            1 | MANY => 0,
            4 | 64 => 1,
            _ => 2,
        };
        points.push(Whole::new(PRODUCE, partitions, "", load).point(rank, scale));
        let whole = Whole::new(CONSUME, partitions, "", read);
        let mut point = whole
            .after(store(stored_mib(scale), partitions as u32), true)
            .point(rank, scale);
        // What is stored is stored once.
        point.seconds += scale.pick(0.0, 0.1, 1.0);
        points.push(point);
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let rate = ("mb_per_s", "MB/s");
    let mut findings = Vec::new();
    for side in [CONSUME, PRODUCE] {
        findings.extend(compare(
            measurements,
            &format!("{side}: are 16 partitions faster than one?"),
            (side, MANY, "16 partitions"),
            (side, 1, "1 partition"),
            rate,
            Expect::More,
        ));
    }
    let why = format!(
        "16 partitions give consumers {} times and producers {} times the rate of one, on one shard with one core: partitions \
         spread work over cores, and here there is one for the server",
        times(findings.first()),
        times(findings.get(1))
    );
    let mut conclusion = conclude(findings, why, measurements);
    for (figure, unit) in [
        ("mb_per_s", "MB/s"),
        ("server_cores_busy", "cores of the server at work"),
    ] {
        conclusion.plots.push(Plot::Lines {
            title: format!("By partitions: {unit}"),
            x: Axis::log("partitions"),
            y: if figure == "mb_per_s" {
                Axis::log(unit)
            } else {
                Axis::linear(unit)
            },
            series: series(measurements, &[PRODUCE, CONSUME], figure),
        });
    }
    conclusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |many: [f64; 3]| {
            let all = [
                measurement(&Whole::new(CONSUME, MANY, "", ""), "mb_per_s", &many),
                measurement(&Whole::new(CONSUME, 1, "", ""), "mb_per_s", &[100.0; 3]),
            ];
            judge(&all).verdict
        };
        assert_eq!(verdict([205.0, 210.0, 200.0]), Verdict::Holds);
        assert_eq!(verdict([105.0, 100.0, 100.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([90.0, 210.0, 150.0]), Verdict::Undecided);
    }
}
