//! C7: appends to many partitions, in a file for each, in one journal, and in a journal with files behind it.

use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::layouts::{self, Layout, LayoutPoint};
use ringlog_engine::ring::raise_descriptors;
use serde_json::json;

use super::whole::{conclude, times};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::verdict::Expect;

const LAYOUTS: [(Layout, &str); 3] = [
    (Layout::FilePerPartition, "a file for each partition"),
    (Layout::Journal, "one journal"),
    (Layout::JournalAndDestage, "journal, then files"),
];
const PARTITIONS: [u64; 5] = [1, 16, 64, 1000, 10_000];
const MANY: u64 = 1000;
const SMALL: u64 = 256;
const LARGE: u64 = 16 << 10;

pub(super) struct C7;

/// Seconds of a window. A quick run gives more to the journal, whose ratio is near its threshold: the others are far from theirs.
fn window_s(scale: Scale, layout: Layout) -> f64 {
    let quick = match layout {
        Layout::Journal => 0.6,
        Layout::FilePerPartition | Layout::JournalAndDestage => 0.35,
    };
    scale.pick(0.03, quick, 1.2)
}

/// How soon a point is left out.
fn rank(point: &LayoutPoint) -> u32 {
    match (point.append, point.durable, point.partitions) {
        // What one partition's journal with files behind it does is not asked.
        (SMALL, true, 1) if point.layout == Layout::JournalAndDestage => 1,
        (SMALL, true, 1 | MANY) => 0,
        (SMALL, true, _) => 1,
        (_, true, _) => 2,
        (SMALL, false, _) => 3,
        _ => 4,
    }
}

impl Claim for C7 {
    fn id(&self) -> &'static str {
        "C7"
    }

    fn sentence(&self) -> &'static str {
        "with many partitions, appends to a file for each decay to random writes; one commit log for all avoids that"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for append in [SMALL, LARGE] {
            for durable in [true, false] {
                // A layout's numbers of partitions stand next to each other: the closest ratio is between them.
                for (layout, _) in LAYOUTS {
                    for partitions in PARTITIONS {
                        if scale == Scale::Tiny && partitions > 64 {
                            continue;
                        }
                        let point = LayoutPoint {
                            append,
                            durable,
                            partitions,
                            layout,
                        };
                        // Files are made and removed.
                        let seconds = window_s(scale, layout)
                            + scale.pick(0.05, 0.1, 0.1)
                            + partitions as f64 * 2e-4;
                        points.push(Point::new(&point, rank(&point), seconds));
                    }
                }
            }
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: scale.pick(512 << 20, 3 << 30, 6 << 30),
            setup_s: scale.pick(0.2, 0.3, 0.3),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(4.0, 37.5, 325.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        // One is opened for each partition; if so many are not allowed, opening them says so.
        raise_descriptors();
        layouts::prepare(&lab.scratch)?;
        Ok(Box::new(LayoutRig { lab }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

struct LayoutRig<'a> {
    lab: &'a Lab,
}

impl Rig for LayoutRig<'_> {
    fn measure(&mut self, point: &Point, _repetition: u32) -> Result<Figures, PointError> {
        let setting: LayoutPoint = point.typed()?;
        let window = Duration::from_secs_f64(window_s(self.lab.scale, setting.layout));
        Ok(layouts::measure(&self.lab.scratch, &setting, window)?)
    }
}

fn of(
    measurements: &[Measurement],
    layout: Layout,
    partitions: u64,
    append: u64,
    durable: bool,
) -> Option<&Measurement> {
    find(
        measurements,
        &json!({ "layout": layout, "partitions": partitions, "append": append, "durable": durable }),
    )
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let findings = findings(measurements);
    let why = format!(
        "at 1,000 partitions one journal takes {} times the durable appends of a file for each, with files behind it {} times: \
         it is the number of flushes that decays, more than the order of the bytes",
        times(findings.first()),
        times(findings.get(3))
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.plots = plots(measurements);
    conclusion.notes.push(
        "Bytes written are those the kernel charges to the process; the file system's own (journal, inodes) come on top.".into(),
    );
    conclusion
}

/// What the claim says, part by part; all must hold.
fn findings(measurements: &[Measurement]) -> Vec<Finding> {
    let rate = ("appends_per_s", "appends/s");
    let durable = |layout, partitions| of(measurements, layout, partitions, SMALL, true);
    let [files, journal, both] = LAYOUTS.map(|(layout, _)| layout);
    let mut findings = Vec::new();
    let mut add = |question: &str,
                   (layout, partitions, name),
                   (other, others, other_name),
                   expect| {
        if let (Some(above), Some(below)) = (durable(layout, partitions), durable(other, others)) {
            findings.push(Finding::compare(
                question,
                (name, above),
                (other_name, below),
                rate,
                expect,
            ));
        }
    };
    add(
        "1,000 partitions, durable appends of 256 B: is one journal faster than a file for each?",
        (journal, MANY, "one journal"),
        (files, MANY, "a file for each partition"),
        Expect::More,
    );
    add(
        "do files for each decay with partitions?",
        (files, 1, "1 partition"),
        (files, MANY, "1,000 partitions"),
        Expect::More,
    );
    add(
        "does one journal keep its rate?",
        (journal, MANY, "1,000 partitions"),
        (journal, 1, "1 partition"),
        // More than it had is kept, too.
        Expect::AtLeast(0.8),
    );
    add(
        "and with files written behind it, is it still faster than files alone?",
        (both, MANY, "journal, then files"),
        (files, MANY, "a file for each partition"),
        Expect::More,
    );
    findings
}

/// By partitions, for each size of append, durable and not.
fn plots(measurements: &[Measurement]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (figure, unit, log) in [
        ("appends_per_s", "appends/s", true),
        ("p99_us", "µs, 99 % of rounds", true),
        ("mb_per_s", "MB/s", true),
        ("written_per_byte", "bytes written for a byte", false),
    ] {
        for (append, durable, words) in [
            (SMALL, true, "256 B, durable"),
            (LARGE, true, "16 KiB, durable"),
            (SMALL, false, "256 B, not durable"),
            (LARGE, false, "16 KiB, not durable"),
        ] {
            let series = series(measurements, figure, append, durable);
            if series.iter().any(|series| series.marks.len() > 1) && wanted(figure, append) {
                plots.push(Plot::Lines {
                    title: format!("Rounds of 64 appends of {words}: {unit}"),
                    x: Axis::log("partitions"),
                    y: if log {
                        Axis::log(unit)
                    } else {
                        Axis::linear(unit)
                    },
                    series,
                });
            }
        }
    }
    plots
}

/// Small appends are about operations, large ones about bytes.
fn wanted(figure: &str, append: u64) -> bool {
    match figure {
        "appends_per_s" | "p99_us" => append == SMALL,
        _ => append == LARGE,
    }
}

fn series(measurements: &[Measurement], figure: &str, append: u64, durable: bool) -> Vec<Series> {
    LAYOUTS
        .map(|(layout, name)| {
            let marks = PARTITIONS.iter().filter_map(|&partitions| {
                let y = *of(measurements, layout, partitions, append, durable)?
                    .figures
                    .get(figure)?;
                Some(Mark {
                    x: partitions as f64,
                    y,
                })
            });
            Series {
                name: name.into(),
                marks: marks.collect(),
            }
        })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    fn verdict(files: [f64; 3], journal: [f64; 3]) -> Verdict {
        let mut all = Vec::new();
        for (layout, partitions, values) in [
            (Layout::FilePerPartition, 1, [100.0; 3]),
            (Layout::FilePerPartition, MANY, files),
            (Layout::Journal, 1, [100.0; 3]),
            (Layout::Journal, MANY, journal),
        ] {
            let point = LayoutPoint {
                append: SMALL,
                durable: true,
                partitions,
                layout,
            };
            all.push(measurement(&point, "appends_per_s", &values));
        }
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(
            verdict([10.0, 10.0, 11.0], [100.0, 101.0, 99.0]),
            Verdict::Holds
        );
        assert_eq!(verdict([100.0; 3], [100.0; 3]), Verdict::DoesNotHold);
        assert_eq!(verdict([10.0, 200.0, 90.0], [100.0; 3]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
