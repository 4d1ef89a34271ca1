//! C4: whether a mapping ends at 1–2 GB.

use ringlog_benches::claims::transfer::{Medium, Path, SendBuffer, Serving};
use serde_json::json;

use super::serving::{ServingRig, point, window_s};
use crate::claims::PointError;
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::lab::Lab;
use crate::claims::outcome::{Conclusion, Finding, Side, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::stats::Estimate;
use crate::claims::verdict::{Expect, Verdict};

/// The most that the documents let a mapping have.
const CLAIMED_MAX: u64 = 2 << 30;
const SLICE: u64 = 1 << 20;
/// What the loop says when mmap(2) is refused, and not what is done with the mapping.
const MAPPING_REFUSED: &str = "mapping a file";

pub(super) struct C4;

fn file_bytes(scale: Scale) -> u64 {
    scale.pick(8 << 20, 3 << 30, 6 << 30)
}

/// Where the last part of the file begins.
fn beyond(scale: Scale) -> u64 {
    scale.pick(4 << 20, (5 << 30) / 2, 5 << 30)
}

impl Claim for C4 {
    fn id(&self) -> &'static str {
        "C4"
    }

    fn sentence(&self) -> &'static str {
        "a mapping is limited to 1–2 GB, hence commit log files of 1 GB"
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        let mut points = Vec::new();
        for hot in [true, false] {
            for from in [0, beyond(scale)] {
                let serving = Serving {
                    medium: Medium::Loopback,
                    hot,
                    slice: SLICE,
                    chunk: SLICE,
                    from,
                    path: Path::MappedSend,
                    buffer: SendBuffer::Grown,
                };
                // Bringing the file into memory, or out of it.
                let mut point = point(&serving, 0, scale, window_s(scale));
                point.seconds += scale.pick(0.0, 0.4, 1.5);
                points.push(point);
            }
        }
        points
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: file_bytes(scale),
            setup_s: scale.pick(0.1, 5.0, 10.0),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 17.5, 106.0)
    }

    fn rig<'a>(&self, lab: &'a Lab, _points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        Ok(Box::new(ServingRig::of_one_file(
            lab,
            file_bytes(lab.scale),
            window_s(lab.scale),
        )?))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        judge(measurements)
    }
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let mut findings = Vec::new();
    let (mut largest, mut repetitions) = (0, 0);
    for (hot, state) in [(true, "hot"), (false, "cold")] {
        let first = find(measurements, &json!({ "hot": hot, "from": 0 }));
        let last = measurements
            .iter()
            .filter(|m| m.params["hot"] == hot && !m.repetitions.is_empty())
            .max_by_key(|m| m.params["from"].as_u64());
        if let (Some(first), Some(last)) = (first, last) {
            let from = last.params["from"].as_u64().unwrap_or(0);
            largest = largest.max(from);
            repetitions = last.repetitions.len();
            findings.push(Finding::compare(
                format!("{state}: is a mapping's end served as fast as its beginning?"),
                (
                    &format!(
                        "slices beyond {:.1} GiB of one mapping",
                        from as f64 / f64::from(1 << 30)
                    ),
                    last,
                ),
                ("slices from its beginning", first),
                ("mb_per_s", "MB/s"),
                Expect::Level(1.25),
            ));
        }
    }
    let failed = measurements
        .iter()
        .find(|m| m.params["from"].as_u64() >= Some(CLAIMED_MAX) && m.left_out.is_some());
    if largest >= CLAIMED_MAX {
        findings.insert(0, limit(largest, repetitions));
    }
    let beginning = find(measurements, &json!({ "from": 0 })).is_some();
    let (verdict, why) = match failed.and_then(|m| m.left_out.as_ref()) {
        // Not the file, and not the path: the same way served its beginning.
        Some(reason) if beginning && reason.contains(MAPPING_REFUSED) => (
            Verdict::Holds,
            format!("the system did not map a file beyond 2 GiB: {reason}"),
        ),
        Some(reason) => (
            Verdict::Undecided,
            format!("a file beyond 2 GiB could not be served: {reason}"),
        ),
        None if largest >= CLAIMED_MAX => (
            Verdict::DoesNotHold,
            format!(
                "one mapping served bytes beyond {:.1} GiB; the limit was that of 32-bit address spaces and of Java's buffers, \
                 which count in 31 bits",
                largest as f64 / f64::from(1 << 30)
            ),
        ),
        None => (Verdict::Undecided, "no file beyond 2 GiB was served".into()),
    };
    Conclusion {
        findings,
        ..Conclusion::without(verdict, why)
    }
}

/// The documents' limit against what one mapping served.
fn limit(served: u64, repetitions: usize) -> Finding {
    let side = |name: &str, bytes: u64| Side {
        name: name.into(),
        value: Some(exactly(bytes as f64 / f64::from(1 << 30), 0)),
        unit: "GiB".into(),
    };
    let ratio = exactly(CLAIMED_MAX as f64 / served as f64, repetitions);
    let expect = Expect::AtLeast(1.0);
    Finding {
        question: "is 2 GiB the most that one mapping serves?".into(),
        above: side("the documents' limit", CLAIMED_MAX),
        below: side("served beyond, at least", served),
        verdict: expect.judge(Some(&ratio)),
        ratio: Some(ratio),
        expect,
    }
}

/// A value without an interval.
fn exactly(value: f64, n: usize) -> Estimate {
    Estimate {
        median: value,
        low: value,
        high: value,
        n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;

    fn side(from: u64, values: &[f64]) -> Measurement {
        measurement(&json!({ "hot": true, "from": from }), "mb_per_s", values)
    }

    fn refused(reason: &str) -> Measurement {
        let mut refused = side(5 << 30, &[1.0]);
        refused.repetitions.clear();
        refused.left_out = Some(reason.into());
        refused
    }

    #[test]
    fn the_verdict_follows_what_was_served() {
        let served = |from| judge(&[side(0, &[1.0; 3]), side(from, &[1.0; 3])]).verdict;
        assert_eq!(served(5 << 30), Verdict::DoesNotHold);
        assert_eq!(served(1 << 30), Verdict::Undecided);
    }

    #[test]
    fn a_refused_mapping_bears_the_claim_out_and_another_failure_does_not() {
        let verdict = |reason| judge(&[side(0, &[1.0; 3]), refused(reason)]).verdict;
        assert_eq!(
            verdict("sending: mapping a file: Cannot allocate memory (os error 12)"),
            Verdict::Holds
        );
        assert_eq!(verdict("sending: Broken pipe"), Verdict::Undecided);
        let without_beginning = [refused("mapping a file: Cannot allocate memory")];
        assert_eq!(judge(&without_beginning).verdict, Verdict::Undecided);
    }

    #[test]
    fn a_noisy_rate_leaves_the_comparison_open_and_not_what_was_served() {
        let conclusion = judge(&[side(0, &[1.0; 3]), side(5 << 30, &[0.5, 1.0, 2.0])]);
        let verdicts: Vec<Verdict> = conclusion.findings.iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::DoesNotHold, Verdict::Undecided]);
        assert_eq!(conclusion.verdict, Verdict::DoesNotHold);
    }
}
