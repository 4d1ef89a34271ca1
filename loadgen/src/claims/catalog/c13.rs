//! C13: whether appends and look-ups cost the same however much is stored.

use std::time::Duration;

use ringlog_benches::claims::Figures;

use super::whole::{Whole, WholeRig, compare, conclude, of, series, store, time};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::look_up::LookUps;
use crate::claims::outcome::{Axis, Conclusion, Plot, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::stats::Slope;
use crate::claims::verdict::Expect;

const APPEND: &str = "append, acknowledged";
const BY_OFFSET: &str = "fetch at a random offset";
const BY_TIME: &str = "search for a random time";
const SIDES: [&str; 3] = [APPEND, BY_OFFSET, BY_TIME];
/// The same: less than this factor.
const SAME: f64 = 1.25;
/// Bytes of a record, and bytes of a batch as they are stored.
const RECORD: u64 = 1024;
const BATCH: u64 = 65_536;
/// Bytes between entries of the sparse index, and of an entry: Kafka's defaults, which the engine keeps.
const INDEX_EVERY: u64 = 4096;
const INDEX_ENTRY: u64 = 8;

pub(super) struct C13;

/// MiB stored.
fn sizes(scale: Scale) -> &'static [u64] {
    scale.pick(
        &[4, 8][..],
        &[128, 512, 2048][..],
        &[1024, 3072, 10_240][..],
    )
}

impl Claim for C13 {
    fn id(&self) -> &'static str {
        "C13"
    }

    fn sentence(&self) -> &'static str {
        "appends and offset look-ups cost the same however much is stored; a sparse index is enough"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        let (_, window_s) = time(scale);
        for side in SIDES {
            for &mib in sizes(scale) {
                let load = match side {
                    APPEND => {
                        "produce -t {stored} -p 1 -s 256 --batch-records 1 --connections 1 {time}"
                    }
                    other => other,
                };
                // The page cache is set for look-ups alone: appends do not read.
                let mut whole = Whole::new(side, mib, "", load).after(store(mib, 1), true);
                if side == APPEND {
                    whole.hot = None;
                }
                // The verdict rests on the least and the most.
                let all = sizes(scale);
                let ends = [all.first(), all.last()].contains(&Some(&mib));
                let mut point = whole.point(u32::from(!ends), scale);
                if side != APPEND {
                    point.seconds = window_s / 2.0 + scale.pick(0.1, 0.3, 0.8);
                }
                points.push(point);
            }
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        let stored: u64 = sizes(scale).iter().sum();
        Needs {
            bytes: (stored << 20) * 11 / 10 + (512 << 20),
            setup_s: 1.0 + stored as f64 / 400.0,
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(4.0, 30.0, 240.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(LookUpRig {
            whole: WholeRig::new(lab, self.id())?,
            window: Duration::from_secs_f64(time(lab.scale).1 / 2.0),
        }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

struct LookUpRig<'a> {
    whole: WholeRig<'a>,
    window: Duration,
}

impl Rig for LookUpRig<'_> {
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError> {
        let setting: Whole = point.typed()?;
        if setting.side == APPEND {
            return self.whole.measure(point, repetition);
        }
        let (bootstrap, topic) = self.whole.stored(&setting)?;
        let mut look_ups = LookUps::new(&bootstrap, &topic)?;
        let seed = u64::from(repetition) + 1;
        match setting.side.as_str() {
            BY_OFFSET => look_ups.offsets(self.window, seed),
            _ => look_ups.times(self.window, seed),
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.whole.pids()
    }
}

/// The sizes that were measured, smallest first.
fn stored(measurements: &[Measurement]) -> Vec<u64> {
    let mut sizes: Vec<u64> = measurements
        .iter()
        .filter_map(|m| m.params.get("x")?.as_u64())
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let sizes = stored(measurements);
    let mut findings = Vec::new();
    if let (Some(&small), Some(&large)) = (sizes.first(), sizes.last()) {
        let name = |mib: u64| format!("{} stored", super::size(mib << 20));
        for side in SIDES {
            findings.extend(compare(
                measurements,
                &format!("{side}: the same median after more was stored?"),
                (side, large, &name(large)),
                (side, small, &name(small)),
                ("p50_us", "µs"),
                Expect::Level(SAME),
            ));
        }
    }
    let slopes: Vec<(&str, Option<Slope>)> = SIDES
        .map(|side| (side, slope(measurements, side, &sizes)))
        .to_vec();
    let words = slopes.iter().map(|(side, slope)| match slope {
        Some(slope) => format!(
            "{side} {} ± {} µs for a GiB more",
            number(slope.per_x),
            number(slope.error)
        ),
        None => format!("{side}: too few sizes for a slope"),
    });
    let why = words.collect::<Vec<_>>().join("; ");
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.plots.push(Plot::Lines {
        title: "Median latency by what is stored".into(),
        x: Axis::log("MiB in the partition"),
        y: Axis::log("µs"),
        series: series(measurements, &SIDES, "p50_us"),
    });
    conclusion.tables.push(index(&sizes));
    conclusion.notes.push(
        "Segments are in the page cache for look-ups. A fetch at an offset brings the one batch of 64 KiB that holds it, which is \
         checked; a search for a time is a ListOffsets request."
            .into(),
    );
    conclusion
}

/// Microseconds for each GiB more, over all repetitions.
fn slope(measurements: &[Measurement], side: &str, sizes: &[u64]) -> Option<Slope> {
    let points: Vec<(f64, f64)> = sizes
        .iter()
        .filter_map(|&mib| Some((mib, of(measurements, side, mib)?)))
        .flat_map(|(mib, m)| {
            m.values("p50_us")
                .into_iter()
                .map(move |us| (mib as f64 / 1024.0, us))
        })
        .filter(|(_, us)| us.is_finite())
        .collect();
    Slope::of(&points)
}

/// Bytes of a sparse and of a dense index, by their rules.
fn index(sizes: &[u64]) -> Table {
    let rows = sizes.iter().map(|&mib| {
        let bytes = mib << 20;
        // A batch is longer than the distance: an entry each.
        let sparse = bytes / BATCH.max(INDEX_EVERY) * INDEX_ENTRY;
        let dense = bytes / RECORD * INDEX_ENTRY;
        vec![super::size(bytes), super::size(sparse), super::size(dense)]
    });
    Table {
        title: "Bytes of an index with an entry for each batch of 64 KiB, and for each record of 1 KiB (derived)".into(),
        head: ["stored", "sparse", "dense"].map(String::from).to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    fn verdict(large: [f64; 3]) -> Verdict {
        let all = SIDES.map(|side| {
            [(100, [50.0; 3]), (1000, [50.0; 3]), (10_000, large)]
                .map(|(mib, values)| measurement(&Whole::new(side, mib, "", ""), "p50_us", &values))
        });
        judge(&all.concat()).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(verdict([52.0, 51.0, 50.0]), Verdict::Holds);
        assert_eq!(verdict([152.0, 151.0, 150.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([52.0, 151.0, 50.0]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
