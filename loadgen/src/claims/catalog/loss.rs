//! What the claims about loss share (C12, C14, C19): points that crash a server, and how loss is judged.

use serde_json::json;

use super::whole::Whole;
use crate::claims::claim::Scale;
use crate::claims::crash::{KILL_LOST, POWER_LOST, POWER_WINDOW, images};
use crate::claims::outcome::{Axis, Finding, Mark, Plot, Series, Side, Table, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::stats::Estimate;
use crate::claims::verdict::{Expect, Verdict};

/// Repetitions without which nothing is said.
const REPETITIONS_MIN: usize = 3;
/// The number that tells these points from others of a side.
const CRASHES: u64 = 1;

/// How loss comes about, in words, and the figure that tells it.
pub(super) const WAYS: [(&str, &str); 2] =
    [("kill -9", KILL_LOST), ("power loss (rebuilt)", POWER_LOST)];

/// A crash under load: small batches on eight connections.
pub(super) fn crash_point(side: &str, server: &str, acks: &str, rank: u32, scale: Scale) -> Point {
    // A server is killed after 0.45 to 0.75 s.
    let seconds = 0.8;
    let load = format!(
        "produce -t {{topic}} -p 4 -s 1024 --batch-records 4 --connections 8 --in-flight 4 --acks {acks} --rate 60000 --warmup 0 \
         --duration {seconds} --tolerate-errors"
    );
    let mut whole = Whole::new(side, CRASHES, server, load);
    whole.crashed = Some(acks.into());
    let mut point = whole.point(rank, scale);
    let images = if acks == "0" { 1 } else { images(scale) };
    point.seconds = 1.0 + 0.4 * images as f64;
    point
}

/// The crashes of a side.
pub(super) fn crashed<'a>(measurements: &'a [Measurement], side: &str) -> Option<&'a Measurement> {
    find(measurements, &json!({ "side": side, "x": CRASHES }))
}

fn side_of(name: &str, measurement: &Measurement, figure: &str) -> Side {
    Side {
        name: name.into(),
        value: measurement.figures.get(figure).copied(),
        unit: "lost of a million".into(),
    }
}

fn enough(measurement: &Measurement, figure: &str) -> Option<Estimate> {
    let estimate = measurement.figures.get(figure).copied();
    estimate.filter(|estimate| estimate.n >= REPETITIONS_MIN)
}

/// Loss has no ratio: `safe` may lose nothing, a single acknowledged record is one too many; `unsafe_` must lose something
/// every time.
pub(super) fn trade(
    measurements: &[Measurement],
    question: &str,
    (unsafe_, unsafe_name): (&str, &str),
    (safe, safe_name): (&str, &str),
    figure: &str,
) -> Option<Finding> {
    let (above, below) = (
        crashed(measurements, unsafe_)?,
        crashed(measurements, safe)?,
    );
    let worst = below.values(figure).into_iter().fold(0.0, f64::max);
    let verdict = match (enough(above, figure), enough(below, figure)) {
        _ if worst > 0.0 => Verdict::DoesNotHold,
        (Some(lost), Some(_)) if lost.low > 0.0 => Verdict::Holds,
        (Some(lost), Some(_)) if lost.high == 0.0 => Verdict::DoesNotHold,
        _ => Verdict::Undecided,
    };
    Some(Finding {
        question: question.into(),
        above: side_of(unsafe_name, above, figure),
        below: side_of(safe_name, below, figure),
        ratio: None,
        expect: Expect::More,
        verdict,
    })
}

/// Whether a side loses nothing that it acknowledged.
pub(super) fn keeps(
    measurements: &[Measurement],
    question: &str,
    (side, name): (&str, &str),
    figure: &str,
) -> Option<Finding> {
    let measurement = crashed(measurements, side)?;
    let worst = measurement.values(figure).into_iter().fold(0.0, f64::max);
    let verdict = match enough(measurement, figure) {
        _ if worst > 0.0 => Verdict::DoesNotHold,
        Some(_) => Verdict::Holds,
        None => Verdict::Undecided,
    };
    Some(Finding {
        question: question.into(),
        above: side_of(name, measurement, figure),
        below: Side {
            name: "what was acknowledged".into(),
            value: Some(Estimate {
                median: 0.0,
                low: 0.0,
                high: 0.0,
                n: 0,
            }),
            unit: "lost of a million".into(),
        },
        ratio: None,
        expect: Expect::Level(1.0),
        verdict,
    })
}

/// Loss after a kill and after a loss of power, side by side.
pub(super) fn bars(measurements: &[Measurement], sides: &[(&str, &str)]) -> Plot {
    let series = WAYS.map(|(way, figure)| {
        let marks = sides.iter().enumerate().filter_map(|(index, (side, _))| {
            let y = *crashed(measurements, side)?.figures.get(figure)?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: way.into(),
            marks: marks.collect(),
        }
    });
    Plot::Bars {
        title: "Records lost of a million".into(),
        labels: sides.iter().map(|(_, name)| (*name).to_owned()).collect(),
        y: Axis::linear("of a million"),
        series: series.to_vec(),
    }
}

/// The same in numbers, with the window.
pub(super) fn table(measurements: &[Measurement], sides: &[(&str, &str)]) -> Table {
    let rows = sides.iter().filter_map(|(side, name)| {
        let measurement = crashed(measurements, side)?;
        let figure = |name: &str| {
            let estimate = measurement.figures.get(name);
            estimate.map_or_else(|| "–".into(), |estimate| number(estimate.median))
        };
        let names = [
            "records",
            KILL_LOST,
            POWER_LOST,
            POWER_WINDOW,
            "power_images",
            "power_refused",
        ];
        Some([vec![(*name).to_owned()], names.map(figure).to_vec()].concat())
    });
    Table {
        title: "A server under load, killed, and cut off from power at moments of the same run"
            .into(),
        head: [
            "",
            "records",
            "lost of a million, kill -9",
            "lost of a million, power loss",
            "loss window, ms",
            "images",
            "of them refused at the start",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    }
}

/// What a reader must know of these figures.
pub(super) fn note() -> String {
    "Power is not cut: the server records every operation on its files (ringlog.disk.record), and its directory is rebuilt as of \
     chosen moments, any part of what no sync had covered gone: blocks of 4 KiB, names and sizes. A real server is started on each \
     image. The worst is drawn by a seed; a kernel that writes back meanwhile loses less. The catalog of topics is taken as it was. \
     An image on which the server names damage and does not start counts as a loss of all that was acknowledged."
        .into()
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::claims::catalog::testing::measurement_of;

    /// Crashes of a side with these losses after a kill and after a loss of power.
    pub(in crate::claims::catalog) fn crashes(
        side: &str,
        killed: &[f64],
        power: &[f64],
    ) -> Measurement {
        let mut whole = Whole::new(side, CRASHES, "", "");
        whole.crashed = Some("1".into());
        measurement_of(&whole, &[(KILL_LOST, killed), (POWER_LOST, power)])
    }
}

#[cfg(test)]
mod tests {
    use super::testing::crashes;
    use super::*;
    use crate::claims::catalog::whole::WholeRig;
    use crate::claims::claim::Rig;
    use crate::claims::lab::testing::lab_in;

    fn verdict(unsafe_: &[f64], safe: &[f64]) -> Verdict {
        let all = [crashes("a", unsafe_, unsafe_), crashes("b", safe, safe)];
        let kept = keeps(&all, "", ("b", ""), POWER_LOST).unwrap().verdict;
        let trade = trade(&all, "", ("a", ""), ("b", ""), POWER_LOST).unwrap();
        assert_eq!(
            kept == Verdict::DoesNotHold,
            safe.iter().any(|&lost| lost > 0.0)
        );
        trade.verdict
    }

    #[test]
    fn a_crash_counts_as_it_comes_and_a_load_may_be_repeated() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let lab = lab_in(folder.path(), Some("server".into()), false);
        let rig = WholeRig::new(&lab, "C19").unwrap();
        let load = Whole::new("a", 0, "", "").point(0, Scale::Tiny);
        assert!(!rig.first_counts(&load));
        assert!(rig.first_counts(&crash_point("a", "", "1", 0, Scale::Tiny)));
    }

    #[test]
    fn one_acknowledged_record_is_one_too_many() {
        assert_eq!(verdict(&[5.0, 7.0, 9.0], &[0.0; 3]), Verdict::Holds);
        assert_eq!(verdict(&[5.0; 3], &[0.0, 0.0, 1.0]), Verdict::DoesNotHold);
        assert_eq!(verdict(&[0.0; 3], &[0.0; 3]), Verdict::DoesNotHold);
        assert_eq!(verdict(&[0.0, 5.0, 9.0], &[0.0; 3]), Verdict::Undecided);
        assert_eq!(verdict(&[5.0; 2], &[0.0; 2]), Verdict::Undecided);
        assert_eq!(verdict(&[5.0; 2], &[0.0, 1.0]), Verdict::DoesNotHold);
    }
}
