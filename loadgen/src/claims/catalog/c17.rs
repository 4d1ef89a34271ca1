//! C17: what a backlog that drains costs those who write and those who read the tail.

use super::stored::store;
use super::whole::{Whole, WholeClaim, compare, conclude, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Mark, Plot, Series};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

const ALONE: &str = "alone";
const BESIDE: &str = "beside a draining backlog";
/// Nothing: less than this factor.
const NOTHING: f64 = 1.25;
/// Tail latencies swing by themselves.
const NOTHING_AT_THE_TAIL: f64 = 1.5;
const FIGURES: [(&str, &str); 4] = [
    ("p50_us", "ack, median"),
    ("p99_us", "ack, 99 %"),
    ("read_end_to_end_p50_us", "end to end, median"),
    ("read_end_to_end_p99_us", "end to end, 99 %"),
];

fn stored_mib(scale: Scale) -> u64 {
    scale.pick(8, 1200, 4800)
}

pub(super) const C17: WholeClaim = WholeClaim {
    id: "C17",
    sentence: "pull lets each consumer go at its own pace; a backlog of any size costs nothing",
    points,
    space_gib: [1, 4, 10],
    setup_s: [1.0, 5.0, 15.0],
    budget_s: [2.0, 18.0, 120.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let tail = "e2e -t {topic} -p 4 --delete-topics -s 256 --rate 1000 --connections 4 {time}";
    let drain = "consume -t {stored} --until repeat --connections 1 {time}";
    let stored = store(stored_mib(scale), 4);
    let alone = Whole::new(ALONE, 1000, "", tail).after(stored.clone(), false);
    let mut beside = Whole::new(BESIDE, 1000, "", tail).after(stored, false);
    beside.beside = drain.into();
    vec![alone.point(0, scale), beside.point(0, scale)]
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    for ((figure, name), factor) in
        FIGURES
            .into_iter()
            .zip([NOTHING, NOTHING_AT_THE_TAIL, NOTHING, NOTHING_AT_THE_TAIL])
    {
        findings.extend(compare(
            measurements,
            &format!("{name}: is it the same while another consumer drains a cold backlog?"),
            (BESIDE, 1000, BESIDE),
            (ALONE, 1000, ALONE),
            (figure, "µs"),
            Expect::AtMost(factor),
        ));
    }
    let why = format!(
        "1,000 records a second: an ack takes {} times as long in the median and {} times at 99 % while a backlog drains as \
         fast as it goes",
        times(findings.first()),
        times(findings.get(1))
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.notes.push(
        "Both loads share the cores that the server does not have: on a host with two cores part of the difference is the \
         clients' own."
            .into(),
    );
    let series = [ALONE, BESIDE].map(|side| {
        let marks = FIGURES
            .iter()
            .enumerate()
            .filter_map(|(index, (figure, _))| {
                let y = *super::whole::of(measurements, side, 1000)?
                    .figures
                    .get(*figure)?;
                Some(Mark { x: index as f64, y })
            });
        Series {
            name: side.into(),
            marks: marks.collect(),
        }
    });
    conclusion.plots.push(Plot::Bars {
        title: "Latency at 1,000 records a second".into(),
        labels: FIGURES.map(|(_, name)| name.to_owned()).to_vec(),
        y: Axis::log("µs"),
        series: series.to_vec(),
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
        let verdict = |beside: [f64; 3]| {
            let all = [
                measurement(&Whole::new(BESIDE, 1000, "", ""), "p50_us", &beside),
                measurement(&Whole::new(ALONE, 1000, "", ""), "p50_us", &[100.0; 3]),
            ];
            judge(&all).verdict
        };
        assert_eq!(verdict([105.0, 100.0, 100.0]), Verdict::Holds);
        assert_eq!(verdict([405.0, 410.0, 400.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([90.0, 210.0, 110.0]), Verdict::Undecided);
    }
}
