//! C12: what acks 0, 1 and all cost, and what each loses when the server is killed.

use super::loss::{self, WAYS, crash_point, trade};
use super::whole::{Whole, WholeClaim, compare, conclude, of, times};
use crate::claims::claim::Scale;
use crate::claims::crash::{KILL_LOST, POWER_LOST};
use crate::claims::outcome::{Axis, Conclusion, Mark, Plot, Series};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

const ACKS: [&str; 3] = ["0", "1", "all"];
/// Sides of the crashes, and their names.
const CRASHES: [(&str, &str); 3] = [
    ("0", "acks=0, of those sent"),
    ("1", "acks=1, of those acknowledged"),
    ("all", "acks=all, of those acknowledged"),
];

pub(super) const C12: WholeClaim = WholeClaim {
    id: "C12",
    sentence: "acks 0, 1 and -1 trade loss for speed",
    points,
    space_gib: [2, 6, 12],
    setup_s: [0.5, 1.0, 1.0],
    budget_s: [2.0, 24.0, 188.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let speed = ACKS.map(|acks| {
        let load = format!(
            "produce -t {{topic}} -p 4 --delete-topics -s 1024 --batch-records 1 --connections 16 --in-flight 4 --acks {acks} \
             {{time}}"
        );
        Whole::new(acks, 0, "", load).point(u32::from(acks == "1"), scale)
    });
    let loss = ACKS.map(|acks| crash_point(acks, "", acks, u32::from(acks == "1"), scale));
    [speed, loss].concat()
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    findings.extend(compare(
        measurements,
        "is no ack faster than an ack by all? single records of 1 KiB, 64 under way",
        ("0", 0, "acks=0"),
        ("all", 0, "acks=all"),
        ("records_per_s", "records/s"),
        Expect::More,
    ));
    for (way, figure) in WAYS {
        findings.extend(trade(
            measurements,
            &format!("{way} under load: does acks=0 lose records, and acks=all none?"),
            CRASHES[0],
            CRASHES[2],
            figure,
        ));
    }
    let lost = |side, figure| {
        let crashed = loss::crashed(measurements, side);
        let estimate = crashed.and_then(|m| m.figures.get(figure).copied());
        estimate.map_or_else(|| "an unknown number".into(), |e| number(e.median))
    };
    let why = format!(
        "acks=0 takes {} times the records of acks=all; of a million records it had lost {} after kill -9 and {} after power loss, \
         acks=all {} and {} of a million acknowledged",
        times(findings.first()),
        lost("0", KILL_LOST),
        lost("0", POWER_LOST),
        lost("all", KILL_LOST),
        lost("all", POWER_LOST),
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.notes.push(
        "With one node acks=1 and acks=all are the same promise: both wait for the flush. Records sent count as they leave the \
         client."
            .into(),
    );
    conclusion.notes.push(loss::note());
    conclusion.plots.push(Plot::Bars {
        title: "Records a second by acks".into(),
        labels: ACKS.map(|acks| format!("acks={acks}")).to_vec(),
        y: Axis::linear("records/s"),
        series: vec![Series {
            name: "one record of 1 KiB a request".into(),
            marks: ACKS
                .iter()
                .enumerate()
                .filter_map(|(index, acks)| {
                    let y = *of(measurements, acks, 0)?.figures.get("records_per_s")?;
                    Some(Mark { x: index as f64, y })
                })
                .collect(),
        }],
    });
    conclusion.plots.push(loss::bars(measurements, &CRASHES));
    conclusion.tables.push(loss::table(measurements, &CRASHES));
    conclusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::loss::testing::crashes;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    fn verdict(speed: [f64; 3], lost: [f64; 3], lost_with_acks: [f64; 3]) -> Verdict {
        let all = [
            measurement(&Whole::new("0", 0, "", ""), "records_per_s", &speed),
            measurement(&Whole::new("all", 0, "", ""), "records_per_s", &[100.0; 3]),
            crashes("0", &lost, &lost),
            crashes("all", &[0.0; 3], &lost_with_acks),
        ];
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        let (fast, lost) = ([500.0, 510.0, 520.0], [30.0, 20.0, 50.0]);
        assert_eq!(verdict(fast, lost, [0.0; 3]), Verdict::Holds);
        assert_eq!(verdict(fast, lost, [0.0, 0.0, 1.0]), Verdict::DoesNotHold);
        assert_eq!(
            verdict(fast, [30.0, 0.0, 50.0], [0.0; 3]),
            Verdict::Undecided
        );
        assert_eq!(verdict([100.0; 3], lost, [0.0; 3]), Verdict::DoesNotHold);
        assert_eq!(
            verdict([90.0, 300.0, 100.0], lost, [0.0; 3]),
            Verdict::Undecided
        );
    }
}
