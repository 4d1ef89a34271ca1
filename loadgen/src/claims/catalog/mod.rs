//! The documents' claims, one file each: its grid, how a point is measured, how the figures are judged.

mod c1;
mod c10;
mod c11;
mod c12;
mod c13;
mod c14;
mod c15;
mod c16;
mod c17;
mod c18;
mod c19;
mod c2;
mod c3;
mod c4;
mod c5;
mod c6;
mod c7;
mod c8;
mod c9;
mod drivers;
mod loss;
mod read_paths;
mod serving;
mod stored;
mod whole;

use super::claim::{Claim, Means};
use super::outcome::{ClaimResult, Conclusion};
use super::verdict::Verdict;

pub(super) use read_paths::{ReadPath, Took, read_paths};

/// Every claim that is measured, in the documents' order, as far as the host allows.
#[must_use]
pub fn all(means: &Means) -> Vec<Box<dyn Claim>> {
    vec![
        Box::new(c1::C1),
        Box::new(c2::C2),
        Box::new(c3::C3),
        Box::new(c4::C4),
        Box::new(c5::C5),
        Box::new(c6::C6),
        Box::new(c7::C7),
        Box::new(c8::C8),
        Box::new(c9::C9),
        Box::new(c10::C10),
        Box::new(c11::C11),
        Box::new(c12::C12),
        Box::new(c13::C13::new(means)),
        Box::new(c14::C14),
        Box::new(c15::C15),
        Box::new(c16::C16),
        Box::new(c17::C17),
        Box::new(c18::C18),
        Box::new(c19::C19),
        Box::new(drivers::DRIVERS),
    ]
}

/// Claims that nobody has built a measurement for, with the reason: they have their line in every report.
const UNBUILT: [(&str, &str, &str); 1] = [(
    "C20",
    "eighteen fixed delay levels avoid sorting in the broker; arbitrary delays cost",
    "there is no delayed delivery yet",
)];

/// Lines for what is not measured.
#[must_use]
pub fn unbuilt() -> Vec<ClaimResult> {
    UNBUILT
        .iter()
        .map(|(id, sentence, why)| {
            let conclusion = Conclusion::without(Verdict::NotYetMeasured, *why);
            ClaimResult::new(*id, *sentence, conclusion)
        })
        .collect()
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use serde::Serialize;

    use crate::claims::plan::Point;
    use crate::claims::quiet::Noise;
    use crate::claims::record::{Identity, Journal, Measurement, Repetition};

    /// A measurement with these values of one figure.
    pub(in crate::claims) fn measurement(
        params: &impl Serialize,
        figure: &str,
        values: &[f64],
    ) -> Measurement {
        measurement_of(params, &[(figure, values)])
    }

    /// A measurement with these values of several figures, one value each for every repetition.
    pub(in crate::claims) fn measurement_of(
        params: &impl Serialize,
        figures: &[(&str, &[f64])],
    ) -> Measurement {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new("test", "d", "h".into());
        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        for number in 0..figures[0].1.len() {
            let values = figures
                .iter()
                .map(|(name, values)| ((*name).to_owned(), values[number]));
            let repetition = Repetition {
                claim: "C0".into(),
                params: Point::new(params, 0, 1.0).params,
                number: number as u32,
                figures: values.collect(),
                noise: Noise::default(),
                left_out: None,
                unix_s: 0,
                build: String::new(),
            };
            journal.add(repetition).unwrap();
        }
        journal.measurements("C0").remove(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::claim::Scale;
    use crate::claims::plan::thin;

    /// A disk on which space limits nothing.
    fn large() -> Means {
        Means {
            free_bytes: 1 << 50,
            stored_mib: None,
        }
    }

    #[test]
    fn every_claim_has_a_line_once() {
        let mut ids: Vec<String> = all(&large())
            .iter()
            .map(|claim| claim.id().to_owned())
            .collect();
        ids.retain(|id| id != drivers::DRIVERS.id);
        ids.extend(unbuilt().into_iter().map(|claim| claim.id));
        ids.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
        assert!(
            ids.iter()
                .enumerate()
                .all(|(n, id)| *id == format!("C{}", n + 1)),
            "{ids:?}"
        );
        assert_eq!(ids.len(), 20);
    }

    #[test]
    fn a_quick_run_takes_eight_minutes_and_a_full_one_an_hour_and_a_half() {
        // What is left over goes to starting and stopping servers, and to reports.
        for (scale, limit_s) in [(Scale::Quick, 7.8 * 60.0), (Scale::Full, 87.0 * 60.0)] {
            let mut total_s = 0.0;
            for claim in all(&large()) {
                let setup_s = claim.needs(scale).setup_s;
                let budget_s = claim.budget_s(scale);
                let plan = thin(claim.points(scale), claim.repeats(scale), setup_s, budget_s);
                assert!(
                    plan.thinning.expected_s <= budget_s,
                    "{} {scale:?} {:?}",
                    claim.id(),
                    plan.thinning
                );
                total_s += budget_s;
            }
            assert!(total_s <= limit_s, "{scale:?} {total_s} s");
        }
    }

    #[test]
    fn no_two_points_of_a_claim_are_the_same() {
        for claim in all(&large()) {
            let mut keys: Vec<String> = claim
                .points(Scale::Full)
                .iter()
                .map(|point| point.key())
                .collect();
            let count = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count, "{}", claim.id());
        }
    }
}
