//! C13: whether appends and look-ups cost the same however much is stored.

use std::time::Duration;

use ringlog_benches::claims::Figures;

use super::stored::{STORED_MIB_PER_S, store};
use super::whole::{Whole, WholeRig, compare, conclude, of, series, time};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Means, Needs, Rig, Scale};
use crate::claims::lab::{Cores, Lab};
use crate::claims::look_up::LookUps;
use crate::claims::outcome::{Axis, Conclusion, Plot, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::stats::Slope;
use crate::claims::verdict::Expect;

const APPEND: &str = "append, acknowledged";
const BY_OFFSET: &str = "fetch at a random offset, past the page cache";
const BY_TIME: &str = "search for a random time, past the page cache";
const HOT_BY_OFFSET: &str = "fetch at a random offset, page cache hot";
const HOT_BY_TIME: &str = "search for a random time, page cache hot";
const SIDES: [&str; 5] = [APPEND, BY_OFFSET, BY_TIME, HOT_BY_OFFSET, HOT_BY_TIME];
/// The same: less than this factor.
const SAME: f64 = 1.25;
/// Bytes of a record, and bytes of a batch as they are stored.
const RECORD: u64 = 1024;
const BATCH: u64 = 65_536;
/// Bytes between entries of the sparse index, and of an entry: Kafka's defaults, which the engine keeps.
const INDEX_EVERY: u64 = 4096;
const INDEX_ENTRY: u64 = 8;
/// Servers: one reads each batch from the device, however much memory the host has, the other from the page cache.
const PAST: &str = "--read-path direct";
const CACHED: &str = "--read-path pread";

/// MiB that a full run may store at most in its largest partition, and for how long it may store it.
const LARGEST_MIB: [u64; 8] = [
    320 << 10,
    160 << 10,
    80 << 10,
    60 << 10,
    40 << 10,
    30 << 10,
    20 << 10,
    15 << 10,
];
const STORE_S_MAX: f64 = 110.0;
/// Share of the free space that may be filled.
const FREE_SHARE: f64 = 0.9;
/// MiB beside the partitions: journals, their reserves, indexes.
const BESIDE_MIB: u64 = 1024;

/// The claim, with the largest partition that the disk and the time allow.
pub(super) struct C13 {
    largest_mib: Option<u64>,
    limit: &'static str,
}

impl C13 {
    /// On a disk with so much free space. What an earlier part of the run has measured, it goes on with.
    pub(super) fn new(means: &Means) -> Self {
        let free_mib = (means.free_bytes as f64 * FREE_SHARE) as u64 >> 20;
        let fits = |mib: u64| needed_mib(Scale::Full, Some(mib)) <= free_mib;
        let in_time = |mib: u64| mib as f64 / STORED_MIB_PER_S <= STORE_S_MAX;
        let limit = match LARGEST_MIB.into_iter().find(|&mib| fits(mib)) {
            Some(mib) if in_time(mib) => "by the free space",
            Some(_) => "by the time to store it",
            None => "by the free space",
        };
        let found = LARGEST_MIB
            .into_iter()
            .find(|&mib| fits(mib) && in_time(mib));
        match means.stored_mib.filter(|mib| LARGEST_MIB.contains(mib)) {
            Some(mib) => Self {
                largest_mib: Some(mib),
                limit: "to that of the run that it goes on with",
            },
            None => Self {
                largest_mib: found,
                limit,
            },
        }
    }
}

/// MiB stored in the partitions that are read past the page cache; the verdict rests on the least and the most.
fn sizes(scale: Scale, largest_mib: Option<u64>) -> Vec<u64> {
    match scale {
        Scale::Tiny => vec![4, 8],
        Scale::Quick => vec![512, 2048],
        Scale::Full => [1024, 10_240].into_iter().chain(largest_mib).collect(),
    }
}

/// MiB stored in those that are read from it.
fn cached_sizes(scale: Scale) -> [u64; 2] {
    scale.pick([4, 8], [256, 1024], [1024, 3072])
}

fn stored_mib(scale: Scale, largest_mib: Option<u64>) -> u64 {
    let past: u64 = sizes(scale, largest_mib).iter().sum();
    past + cached_sizes(scale).iter().sum::<u64>()
}

/// MiB on the disk.
fn needed_mib(scale: Scale, largest_mib: Option<u64>) -> u64 {
    stored_mib(scale, largest_mib) * 103 / 100 + BESIDE_MIB
}

impl Claim for C13 {
    fn id(&self) -> &'static str {
        "C13"
    }

    fn sentence(&self) -> &'static str {
        "appends and offset look-ups cost the same however much is stored; a sparse index is enough"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let all = sizes(scale, self.largest_mib);
        let ends = [all[0], all[all.len() - 1]];
        let mut points = Vec::new();
        for side in [APPEND, BY_OFFSET, BY_TIME] {
            for &mib in &all {
                points.push(point(scale, side, mib, u32::from(!ends.contains(&mib))));
            }
        }
        for side in [HOT_BY_OFFSET, HOT_BY_TIME] {
            points.extend(cached_sizes(scale).map(|mib| point(scale, side, mib, 1)));
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        // A quick run does without the page cache's.
        let stored: u64 = match scale {
            Scale::Quick => sizes(scale, None).iter().sum(),
            _ => stored_mib(scale, self.largest_mib),
        };
        Needs {
            bytes: needed_mib(scale, self.largest_mib) << 20,
            setup_s: 1.0 + stored as f64 / STORED_MIB_PER_S,
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        // What is stored differs from host to host; the repetitions get their time on every one.
        scale.pick(4.0, 29.5, 225.0 + self.needs(scale).setup_s)
    }

    fn remark(&self, scale: Scale) -> Option<String> {
        let largest = *sizes(scale, self.largest_mib).last()?;
        let limit = match scale {
            Scale::Full => self.limit,
            _ => "by the run's length",
        };
        let size = super::size(largest << 20);
        Some(format!("at most {size} in a partition, limited {limit}"))
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(LookUpRig {
            cores: &lab.cores,
            whole: WholeRig::new(lab, self.id())?,
            window: Duration::from_secs_f64(look_up_s(lab.scale)),
        }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

/// Seconds of look-ups that count.
fn look_up_s(scale: Scale) -> f64 {
    time(scale).1 / 2.0
}

fn point(scale: Scale, side: &str, mib: u64, rank: u32) -> Point {
    let load = match side {
        APPEND => "produce -t {stored} -p 1 -s 256 --batch-records 1 --connections 1 {time}",
        other => other,
    };
    let hot = [HOT_BY_OFFSET, HOT_BY_TIME].contains(&side);
    let server = if hot { CACHED } else { PAST };
    let mut whole = Whole::new(side, mib, server, load).after(store(mib, 1), true);
    if !hot {
        whole.hot = None;
    }
    let mut point = whole.point(rank, scale);
    if side != APPEND {
        point.seconds = look_up_s(scale) + scale.pick(0.1, 0.3, 0.8);
    }
    point
}

struct LookUpRig<'a> {
    cores: &'a Cores,
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
        let (window, seed) = (self.window, u64::from(repetition) + 1);
        self.cores.on_load(|| {
            let mut look_ups = LookUps::new(&bootstrap, &topic)?;
            match setting.side.as_str() {
                BY_OFFSET | HOT_BY_OFFSET => look_ups.offsets(window, seed),
                _ => look_ups.times(window, seed),
            }
        })
    }

    fn pids(&self) -> Vec<u32> {
        self.whole.pids()
    }
}

/// The sizes of which a side was measured, smallest first.
fn sizes_of(measurements: &[Measurement], side: &str) -> Vec<u64> {
    let of_side = measurements
        .iter()
        .filter(|m| m.params.get("side").is_some_and(|found| found == side))
        .filter(|m| !m.repetitions.is_empty());
    let mut sizes: Vec<u64> = of_side
        .filter_map(|m| m.params.get("x")?.as_u64())
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    let name = |mib: u64| format!("{} stored", super::size(mib << 20));
    for side in SIDES {
        let sizes = sizes_of(measurements, side);
        if let (Some(&small), Some(&large)) = (sizes.first(), sizes.last()) {
            findings.extend(compare(
                measurements,
                &format!("{side}: the same median after more was stored?"),
                (side, large, &name(large)),
                (side, small, &name(small)),
                ("p50_us", "µs"),
                Expect::AtMost(SAME),
            ));
        }
    }
    let slopes: Vec<(&str, Option<Slope>)> =
        SIDES.map(|side| (side, slope(measurements, side))).to_vec();
    let words = slopes.iter().filter_map(|(side, slope)| {
        let slope = slope.as_ref()?;
        let (per_gib, error) = (number(slope.per_x), number(slope.error));
        Some(format!("{side} {per_gib} ± {error} µs for a GiB more"))
    });
    let why = words.collect::<Vec<_>>().join("; ");
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.plots.push(Plot::Lines {
        title: "Median latency by what is stored".into(),
        x: Axis::log("MiB in the partition"),
        y: Axis::log("µs"),
        series: series(measurements, &SIDES, "p50_us"),
    });
    conclusion
        .tables
        .push(index(&sizes_of(measurements, BY_OFFSET)));
    conclusion.notes.push(
        "Past the page cache (--read-path direct) every look-up reads the device, however little is stored; with the page cache hot \
         (--read-path pread) none does. A fetch at an offset brings the one batch of 64 KiB that holds it, which is checked; a \
         search for a time is a ListOffsets request. The newest 256 MiB, which a server has in memory, are left alone."
            .into(),
    );
    conclusion
}

/// Microseconds for each GiB more, over all repetitions.
fn slope(measurements: &[Measurement], side: &str) -> Option<Slope> {
    let points: Vec<(f64, f64)> = sizes_of(measurements, side)
        .into_iter()
        .filter_map(|mib| Some((mib, of(measurements, side, mib)?)))
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

    fn on_disk_of(gib: u64) -> C13 {
        C13::new(&Means {
            free_bytes: gib << 30,
            stored_mib: None,
        })
    }

    #[test]
    fn as_much_is_stored_as_the_disk_and_the_time_allow() {
        for (gib, mib, limit) in [
            (20, None, "by the free space"),
            (45, Some(20 << 10), "by the free space"),
            (100, Some(40 << 10), "by the time to store it"),
            (4000, Some(40 << 10), "by the time to store it"),
        ] {
            let claim = on_disk_of(gib);
            assert_eq!(claim.largest_mib, mib, "{gib} GiB");
            let remark = claim.remark(Scale::Full).unwrap();
            assert!(remark.ends_with(limit), "{remark}");
            assert!(claim.needs(Scale::Full).bytes <= gib << 30 || mib.is_none());
        }
        // Another free space does not change a run that goes on.
        let means = Means {
            free_bytes: 4000 << 30,
            stored_mib: Some(20 << 10),
        };
        assert_eq!(C13::new(&means).largest_mib, Some(20 << 10));
        assert!(
            on_disk_of(1)
                .remark(Scale::Quick)
                .unwrap()
                .contains("2 GiB")
        );
    }

    #[test]
    fn each_kind_of_look_up_is_compared_over_its_own_sizes() {
        let all = [
            (BY_OFFSET, 1024, 50.0),
            (BY_OFFSET, 20_480, 51.0),
            (HOT_BY_OFFSET, 1024, 9.0),
            (HOT_BY_OFFSET, 3072, 30.0),
        ]
        .map(|(side, mib, us)| measurement(&Whole::new(side, mib, "", ""), "p50_us", &[us; 3]));
        let conclusion = judge(&all);
        let verdicts: Vec<Verdict> = conclusion.findings.iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::Holds, Verdict::DoesNotHold]);
        assert_eq!(conclusion.verdict, Verdict::DoesNotHold);
        assert_eq!(conclusion.tables[0].rows.len(), 2);
    }
}
