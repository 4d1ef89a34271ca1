//! C9: the same durable appends and scans through a file, the engine, key-value stores and a relational database.

use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::stores::{self, Kind, StorePoint};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::whole::{Whole, WholeRig, conclude, of as whole_of, times};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::harm;
use crate::claims::lab::Lab;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Side, Table, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::{Expect, Verdict};

const STORES: [(Kind, &str); 4] = [
    (Kind::File, "a plain file"),
    (Kind::Lsm, "key-value: LSM tree (fjall)"),
    (Kind::BTree, "key-value: B-tree (redb)"),
    (Kind::Sqlite, "relational: SQLite, WAL"),
];
const ENGINE: &str = "this engine, behind its server";
/// Records of 1 KiB in a durable commit.
const BATCHES: [u64; 3] = [1, 64, 1000];
const BATCH: u64 = 64;

/// Who is killed and has bits flipped; `None` is the engine behind its server.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Harm {
    harmed: Option<Kind>,
    flips: u64,
}

pub(super) struct C9;

impl Claim for C9 {
    fn id(&self) -> &'static str {
        "C9"
    }

    fn sentence(&self) -> &'static str {
        "storage efficiency: file system > key-value store > relational database"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for batch in BATCHES {
            let rank = u32::from(batch != BATCH);
            for (store, _) in STORES {
                points.push(Point::new(
                    &StorePoint { batch, store },
                    rank,
                    scale.pick(0.2, 0.9, 3.0),
                ));
            }
            // One commit at a time, as the others.
            let load = format!(
                "produce -t {{topic}} -p 1 --delete-topics -s 1024 --batch-records {batch} {{time}}"
            );
            points.push(Whole::new(ENGINE, batch, "", load).point(rank, scale));
        }
        let stores = STORES.map(|(store, _)| Some(store));
        for harmed in stores.into_iter().chain([None]) {
            // A server is started for each flip.
            let seconds = match harmed {
                Some(_) => scale.pick(0.5, 0.7, 1.5),
                None => scale.pick(1.7, 2.2, 6.0),
            };
            let harm = Harm {
                harmed,
                flips: scale.pick(2, 4, 8),
            };
            points.push(Point::new(&harm, 0, seconds));
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: scale.pick(1 << 30, 6 << 30, 16 << 30),
            setup_s: scale.pick(0.5, 1.0, 1.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(4.0, 31.0, 335.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(StoreRig {
            lab,
            whole: WholeRig::new(lab, self.id()),
            window: Duration::from_secs_f64(lab.scale.pick(0.05, 0.7, 2.0)),
        }))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

struct StoreRig<'a> {
    lab: &'a Lab,
    whole: Result<WholeRig<'a>, PointError>,
    window: Duration,
}

impl Rig for StoreRig<'_> {
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError> {
        if point.params.contains_key("harmed") {
            let setting: Harm = point.typed()?;
            let seed = u64::from(repetition) * 1000;
            return match setting.harmed {
                Some(kind) => harm::store(self.lab, kind, seed, setting.flips),
                None => harm::server(self.lab, seed, setting.flips),
            };
        }
        if point.params.contains_key("store") {
            let setting: StorePoint = point.typed()?;
            return Ok(stores::measure(&self.lab.scratch, &setting, self.window)?);
        }
        match &mut self.whole {
            Ok(whole) => whole.measure(point, repetition),
            Err(error) => Err(PointError::Unavailable(error.to_string())),
        }
    }

    fn first_counts(&self, point: &Point) -> bool {
        point.params.contains_key("harmed")
    }

    fn pids(&self) -> Vec<u32> {
        self.whole.as_ref().map_or_else(|_| Vec::new(), Rig::pids)
    }
}

fn harmed(measurements: &[Measurement], who: Option<Kind>) -> Option<&Measurement> {
    find(measurements, &json!({ "harmed": who }))
}

/// Whether fewer flipped bits go unnoticed in one than in the other, as their order claims.
fn fewer(
    measurements: &[Measurement],
    (above, above_name): (Kind, &str),
    (below, below_name): (Kind, &str),
) -> Option<Finding> {
    let side = |kind, name: &str| {
        let value = *harmed(measurements, Some(kind))?
            .figures
            .get(harm::SILENT)?;
        Some(Side {
            name: name.into(),
            value: Some(value),
            unit: "% of flips unnoticed".into(),
        })
    };
    let (above, below) = (side(above, above_name)?, side(below, below_name)?);
    let (a, b) = (above.value?, below.value?);
    let verdict = match (a.n.min(b.n) >= 3, a, b) {
        (false, ..) => Verdict::Undecided,
        (_, a, b) if a.high < b.low => Verdict::Holds,
        (_, a, b) if a.low > b.high || a.high == 0.0 && b.high == 0.0 => Verdict::DoesNotHold,
        _ => Verdict::Undecided,
    };
    Some(Finding {
        question: format!(
            "flipped bits: do fewer go unnoticed in {above_name} than in {below_name}?"
        ),
        above,
        below,
        ratio: None,
        expect: Expect::More,
        verdict,
    })
}

fn harm_table(measurements: &[Measurement]) -> Table {
    let stores = STORES.map(|(store, name)| (Some(store), name));
    let rows = stores
        .into_iter()
        .chain([(None, ENGINE)])
        .filter_map(|(who, name)| {
            let figures = &harmed(measurements, who)?.figures;
            let names = [
                "committed",
                harm::KILL_LOST,
                harm::NOTICED,
                harm::SILENT,
                harm::HARMLESS,
            ];
            let figure = |name: &str| {
                let estimate = figures.get(name);
                estimate.map_or_else(|| "–".into(), |estimate| number(estimate.median))
            };
            Some([vec![name.to_owned()], names.map(figure).to_vec()].concat())
        });
    Table {
        title: "The same kill, the same flips".into(),
        head: [
            "",
            "records committed before kill -9",
            "lost of a million",
            "flips noticed, %",
            "unnoticed, %",
            "harmless, %",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn of(measurements: &[Measurement], store: Kind, batch: u64) -> Option<&Measurement> {
    find(measurements, &json!({ "store": store, "batch": batch }))
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let name = |kind| {
        STORES
            .iter()
            .find(|(store, _)| *store == kind)
            .map_or("", |(_, name)| name)
    };
    let mut findings = Vec::new();
    for (above, below) in [
        (Kind::File, Kind::Lsm),
        (Kind::File, Kind::BTree),
        (Kind::Lsm, Kind::Sqlite),
        (Kind::BTree, Kind::Sqlite),
    ] {
        for (figure, what) in [
            ("mb_per_s", "durable appends, 64 KiB a commit"),
            ("scan_mb_per_s", "scans in order"),
        ] {
            if let (Some(first), Some(second)) = (
                of(measurements, above, BATCH),
                of(measurements, below, BATCH),
            ) {
                findings.push(Finding::compare(
                    format!("{what}: {} above {}?", name(above), name(below)),
                    (name(above), first),
                    (name(below), second),
                    (figure, "MB/s"),
                    Expect::More,
                ));
            }
        }
    }
    for (above, below) in [(Kind::File, Kind::BTree), (Kind::BTree, Kind::Sqlite)] {
        findings.extend(fewer(
            measurements,
            (above, name(above)),
            (below, name(below)),
        ));
    }
    let engine = whole_of(measurements, ENGINE, BATCH);
    let why = format!(
        "one commit at a time, 64 records of 1 KiB: a plain file takes {} times the rate of the LSM tree and {} times that of \
         the B-tree; the LSM tree takes {} and the B-tree {} times that of SQLite",
        times(findings.first()),
        times(findings.get(2)),
        times(findings.get(4)),
        times(findings.get(6))
    );
    let mut conclusion = conclude(findings, why, measurements);
    if let (Some(engine), Some(file)) = (engine, of(measurements, Kind::File, BATCH)) {
        let mut finding = Finding::compare(
            "and this engine, network included, against a plain file?",
            (ENGINE, engine),
            (name(Kind::File), file),
            ("mb_per_s", "MB/s"),
            Expect::More,
        );
        // It says something about the engine, not about the claim.
        finding.question.push_str(" (not part of the claim)");
        conclusion.findings.push(finding);
    }
    conclusion.plots = [
        ("mb_per_s", "Durable appends", "MB/s"),
        ("p99_us", "Commits, 99 %", "µs"),
        ("scan_mb_per_s", "Scans in order", "MB/s"),
    ]
    .map(|(figure, title, unit)| bars(measurements, figure, title, unit))
    .to_vec();
    conclusion.tables = vec![table(measurements), harm_table(measurements)];
    conclusion.notes.push(
        "Reliability: a process that commits is killed and its store read again; then, in copies of a store of 2,048 records that was \
         closed in order, one bit flips in a block that is not empty, and all is read. Unnoticed is what comes back wrong or not at all \
         without an error; harmless are flips in what nobody needs any more. The plain file has no index, no checksum and no recovery."
            .into(),
    );
    conclusion
}

fn bars(measurements: &[Measurement], figure: &str, title: &str, unit: &str) -> Plot {
    let sides: Vec<&str> = STORES
        .iter()
        .map(|(_, name)| *name)
        .chain([ENGINE])
        .collect();
    let series = BATCHES.map(|batch| {
        let marks = sides.iter().enumerate().filter_map(|(index, _)| {
            let measured = match STORES.get(index) {
                Some((store, _)) => of(measurements, *store, batch),
                None => whole_of(measurements, ENGINE, batch),
            };
            Some(Mark {
                x: index as f64,
                y: *measured?.figures.get(figure)?,
            })
        });
        Series {
            name: format!("{batch} records a commit"),
            marks: marks.collect(),
        }
    });
    let short = ["file", "LSM tree", "B-tree", "SQLite", "this engine"];
    Plot::Bars {
        title: title.into(),
        labels: short.map(String::from).to_vec(),
        y: Axis::log(unit),
        series: series
            .into_iter()
            .filter(|series| !series.marks.is_empty())
            .collect(),
    }
}

fn table(measurements: &[Measurement]) -> Table {
    let rows = STORES.iter().filter_map(|(store, name)| {
        let figures = &of(measurements, *store, BATCH)?.figures;
        let names = [
            "mb_per_s",
            "p50_us",
            "p99_us",
            "cpu_s_per_gb",
            "written_per_byte",
            "stored_per_byte",
            "scan_mb_per_s",
        ];
        let figure = |name: &str| {
            figures
                .get(name)
                .map_or_else(|| "–".into(), |e| number(e.median))
        };
        Some([vec![(*name).to_owned()], names.map(figure).to_vec()].concat())
    });
    Table {
        title: "64 records of 1 KiB a durable commit".into(),
        head: [
            "",
            "MB/s",
            "p50 µs",
            "p99 µs",
            "CPU s/GB",
            "written for a byte",
            "stored for a byte",
            "scan MB/s",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement_of;

    fn verdict(file: [f64; 3]) -> Verdict {
        let all = [
            (Kind::File, file),
            (Kind::Lsm, [5.0; 3]),
            (Kind::BTree, [4.0; 3]),
            (Kind::Sqlite, [2.0; 3]),
        ]
        .map(|(store, values)| {
            let point = StorePoint {
                batch: BATCH,
                store,
            };
            measurement_of(&point, &[("mb_per_s", &values), ("scan_mb_per_s", &values)])
        });
        judge(&all).verdict
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        assert_eq!(verdict([10.0, 10.0, 11.0]), Verdict::Holds);
        assert_eq!(verdict([5.0, 5.0, 5.0]), Verdict::DoesNotHold);
        assert_eq!(verdict([4.0, 12.0, 6.0]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }

    #[test]
    fn flips_that_go_unnoticed_are_compared_by_their_whole_range() {
        let verdict = |file: [f64; 3], tree: [f64; 3]| {
            let all = [(Kind::File, file), (Kind::BTree, tree)].map(|(kind, values)| {
                let harm = Harm {
                    harmed: Some(kind),
                    flips: 4,
                };
                measurement_of(&harm, &[(harm::SILENT, &values)])
            });
            let finding = fewer(&all, (Kind::File, "a"), (Kind::BTree, "b"));
            finding.unwrap().verdict
        };
        assert_eq!(verdict([0.0; 3], [25.0, 50.0, 25.0]), Verdict::Holds);
        assert_eq!(verdict([75.0; 3], [0.0; 3]), Verdict::DoesNotHold);
        assert_eq!(verdict([0.0; 3], [0.0; 3]), Verdict::DoesNotHold);
        assert_eq!(verdict([0.0, 50.0, 25.0], [25.0; 3]), Verdict::Undecided);
    }
}
