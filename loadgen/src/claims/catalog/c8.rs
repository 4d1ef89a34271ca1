//! C8: reading one queue of many, from a log that all share and from a file of its own.

use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::queue_read::{QueuePoint, Queues, Source};
use serde_json::json;

use super::whole::{conclude, times};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

const SOURCES: [(Source, &str); 2] = [
    (Source::OwnFile, "a file of its own"),
    (Source::SharedLog, "shared log, by an index"),
];
const QUEUES: [u64; 4] = [1, 4, 16, 64];
/// The number of queues that the verdict is about.
const MANY: u64 = 16;

pub(super) struct C8;

fn log_bytes(scale: Scale) -> u64 {
    scale.pick(4 << 20, 512 << 20, 2 << 30)
}

impl Claim for C8 {
    fn id(&self) -> &'static str {
        "C8"
    }

    fn sentence(&self) -> &'static str {
        "a commit log with an index per queue is read twice, a partition file once"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for hot in [false, true] {
            for queues in QUEUES {
                for (source, _) in SOURCES {
                    let rank = match (queues, hot) {
                        (MANY, _) => 0,
                        (_, false) => 1,
                        _ => 2,
                    };
                    let point = QueuePoint {
                        hot,
                        queues,
                        source,
                    };
                    points.push(Point::new(&point, rank, scale.pick(0.1, 0.35, 2.5)));
                }
            }
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: 2 * log_bytes(scale),
            setup_s: scale.pick(0.1, 2.0, 5.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 12.0, 210.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(QueueRig {
            queues: Queues::prepare(&lab.scratch, log_bytes(lab.scale))?,
            window: Duration::from_secs_f64(lab.scale.pick(0.05, 0.5, 2.0)),
        }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

struct QueueRig<'a> {
    queues: Queues<'a>,
    window: Duration,
}

impl Rig for QueueRig<'_> {
    fn measure(&mut self, point: &Point, _repetition: u32) -> Result<Figures, PointError> {
        Ok(self
            .queues
            .measure(&point.typed::<QueuePoint>()?, self.window)?)
    }
}

fn of(
    measurements: &[Measurement],
    source: Source,
    queues: u64,
    hot: bool,
) -> Option<&Measurement> {
    find(
        measurements,
        &json!({ "source": source, "queues": queues, "hot": hot }),
    )
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    let mut add = |question: &str, figure, swapped: bool, hot, expect| {
        let own = of(measurements, Source::OwnFile, MANY, hot);
        let shared = of(measurements, Source::SharedLog, MANY, hot);
        if let (Some(own), Some(shared)) = (own, shared) {
            let sides = [
                ("a file of its own", own),
                ("shared log, by an index", shared),
            ];
            let (above, below) = if swapped {
                (sides[1], sides[0])
            } else {
                (sides[0], sides[1])
            };
            findings.push(Finding::compare(question, above, below, figure, expect));
        }
    };
    add(
        "one of 16 queues, cold: is it read faster from a file of its own?",
        ("mb_per_s", "MB/s"),
        false,
        false,
        Expect::More,
    );
    add(
        "does the storage read at least twice as much for the shared log?",
        ("storage_bytes_per_byte", "bytes read for a byte"),
        true,
        false,
        Expect::AtLeast(2.0),
    );
    add("and hot?", ("mb_per_s", "MB/s"), false, true, Expect::More);
    let why = format!(
        "cold, a file of its own is read {} times as fast, and the shared log makes the storage read {} times as much: whole \
         pages and read-ahead of other queues' records, far more than the index",
        times(findings.first()),
        times(findings.get(1))
    );
    let mut conclusion = conclude(findings, why, measurements);
    for (hot, state) in [(false, "cold"), (true, "hot")] {
        let series = SOURCES.map(|(source, name)| {
            let marks = QUEUES.iter().filter_map(|&queues| {
                let y = *of(measurements, source, queues, hot)?
                    .figures
                    .get("mb_per_s")?;
                Some(Mark {
                    x: queues as f64,
                    y,
                })
            });
            Series {
                name: name.into(),
                marks: marks.collect(),
            }
        });
        conclusion.plots.push(Plot::Lines {
            title: format!("One queue of many, {state}"),
            x: Axis::log("queues that share the log"),
            y: Axis::log("MB/s"),
            series: series.to_vec(),
        });
    }
    conclusion.tables.push(table(measurements));
    conclusion.notes.push(
        "Reads of the device are those of the whole host; bytes from storage are those the kernel charges to the process. \
         Records are 1 KiB, reads go through the page cache with the kernel's own read-ahead."
            .into(),
    );
    conclusion
}

fn table(measurements: &[Measurement]) -> Table {
    let mut rows = Vec::new();
    for queues in QUEUES {
        for (source, name) in SOURCES {
            if let Some(measured) = of(measurements, source, queues, false) {
                let figure = |name: &str| {
                    measured
                        .figures
                        .get(name)
                        .map_or_else(|| "–".into(), |e| number(e.median))
                };
                rows.push(vec![
                    format!("{queues} queues, {name}"),
                    figure("mb_per_s"),
                    figure("read_calls_per_mb"),
                    figure("device_reads_per_mb"),
                    figure("storage_bytes_per_byte"),
                ]);
            }
        }
    }
    Table {
        title: "One queue, cold".into(),
        head: [
            "",
            "MB/s",
            "read calls per MB",
            "device reads per MB",
            "bytes from storage for a byte",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement_of;
    use crate::claims::verdict::Verdict;

    fn verdict(own: [f64; 3], read: f64) -> Verdict {
        let all = [(false, own, [1.0; 3]), (true, own, [1.0; 3])]
            .into_iter()
            .flat_map(|(hot, own, shared)| {
                [
                    (Source::OwnFile, own, 1.0),
                    (Source::SharedLog, shared, read),
                ]
                .map(|(source, rate, storage)| {
                    let point = QueuePoint {
                        hot,
                        queues: MANY,
                        source,
                    };
                    measurement_of(
                        &point,
                        &[
                            ("mb_per_s", &rate),
                            ("storage_bytes_per_byte", &[storage; 3]),
                        ],
                    )
                })
            })
            .collect::<Vec<_>>();
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(verdict([5.0, 5.0, 6.0], 4.0), Verdict::Holds);
        assert_eq!(verdict([5.0, 5.0, 6.0], 1.5), Verdict::DirectionOnly);
        assert_eq!(verdict([1.0, 1.0, 1.0], 4.0), Verdict::DoesNotHold);
        assert_eq!(verdict([0.5, 5.0, 1.0], 4.0), Verdict::Undecided);
    }
}
