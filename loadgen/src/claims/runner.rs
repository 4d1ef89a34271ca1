//! Carries out the plans: claim by claim, repetition by repetition, point by point, so that sides take turns.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use ringlog_benches::claims::Figures;

use super::claim::{Claim, Rig};
use super::lab::{Lab, check_space};
use super::outcome::{ClaimResult, Conclusion};
use super::plan::{Plan, Point, thin};
use super::quiet::{Noise, Reading};
use super::record::{Journal, Repetition};
use super::verdict::Verdict;
use super::{ClaimsError, PointError, twice};

/// A claim may take this many times its time before further repetitions are left out.
const OVERRUN: f64 = 1.5;

/// A claim with its plan.
pub(super) struct Planned<'a> {
    pub(super) claim: &'a dyn Claim,
    pub(super) plan: Plan,
    /// Whether it is measured in this run.
    pub(super) wanted: bool,
}

impl<'a> Planned<'a> {
    pub(super) fn new(claim: &'a dyn Claim, lab: &Lab, wanted: bool) -> Self {
        let scale = lab.scale;
        let needs = claim.needs(scale);
        let mut plan = thin(
            claim.points(scale),
            claim.repeats(scale),
            needs.setup_s,
            claim.budget_s(scale),
        );
        plan.thinning.remark = claim.remark(scale);
        Self {
            claim,
            plan,
            wanted,
        }
    }

    /// Seconds that are still to be measured.
    pub(super) fn expected_s(&self, journal: &Journal) -> f64 {
        let left: f64 = (0..self.plan.thinning.repeats)
            .flat_map(|number| self.plan.points.iter().map(move |point| (number, point)))
            .filter(|(number, point)| !is_done(journal, self.claim.id(), point, *number))
            .map(|(_, point)| point.seconds)
            .sum();
        if left == 0.0 {
            return 0.0;
        }
        left + self.plan.thinning.expected_s
            - self
                .plan
                .points
                .iter()
                .map(|point| point.seconds)
                .sum::<f64>()
                * f64::from(self.plan.thinning.repeats)
    }
}

fn is_done(journal: &Journal, claim: &str, point: &Point, number: u32) -> bool {
    journal.has(claim, &point.params, number) || journal.left_out(claim, &point.params)
}

/// Runs what is planned and returns the claims with what was found, the unmeasured ones included. What `earlier` tells of the
/// plan of a claim that is not measured now, stays.
pub(super) fn run(
    planned: &[Planned<'_>],
    lab: &Lab,
    journal: &mut Journal,
    earlier: &[ClaimResult],
) -> Result<Vec<ClaimResult>, ClaimsError> {
    let expected: f64 = planned
        .iter()
        .filter(|planned| planned.wanted)
        .map(|planned| planned.expected_s(journal))
        .sum();
    let bar = Progress::new(expected);
    let mut results = Vec::new();
    for planned in planned {
        if planned.wanted && planned.expected_s(journal) > 0.0 {
            let cut_short = measure(planned, lab, journal, &bar)?;
            results.push(result(planned, journal, cut_short));
            continue;
        }
        let mut found = result(planned, journal, None);
        let earlier = earlier.iter().find(|claim| claim.id == found.id);
        if let Some(earlier) = earlier.filter(|_| found.thinning.is_some()) {
            found.thinning = earlier.thinning.clone().or(found.thinning);
            found.cut_short.clone_from(&earlier.cut_short);
        }
        results.push(found);
    }
    bar.finish();
    Ok(results)
}

fn result(planned: &Planned<'_>, journal: &Journal, cut_short: Option<String>) -> ClaimResult {
    let claim = planned.claim;
    let measurements = journal.measurements(claim.id());
    let measured = measurements.iter().any(|m| !m.repetitions.is_empty());
    let reason = measurements.iter().find_map(|m| m.left_out.clone());
    let conclusion = match (measured, reason.or_else(|| cut_short.clone())) {
        (true, _) => claim.judge(&measurements),
        (false, Some(reason)) => Conclusion::without(Verdict::CannotBeMeasured, reason),
        (false, None) => Conclusion::without(Verdict::NotYetMeasured, "not asked for in this run"),
    };
    ClaimResult {
        id: claim.id().into(),
        sentence: claim.sentence().into(),
        conclusion,
        thinning: measured.then(|| planned.plan.thinning.clone()),
        cut_short,
        measurements,
    }
}

/// Measures a claim; returns why it was cut short, if it was.
fn measure(
    planned: &Planned<'_>,
    lab: &Lab,
    journal: &mut Journal,
    bar: &Progress,
) -> Result<Option<String>, ClaimsError> {
    let (claim, plan) = (planned.claim, &planned.plan);
    check_space(
        lab.scratch.path(),
        claim.id(),
        claim.needs(lab.scale).bytes,
        lab.scale,
    )?;
    bar.say(&format!("{}: preparing", claim.id()));
    let started = Instant::now();
    let mut rig = match claim.rig(lab, &plan.points) {
        Ok(rig) => rig,
        Err(PointError::Interrupted) => return Err(ClaimsError::Interrupted),
        Err(error) => return Ok(Some(error.to_string())),
    };
    bar.advance(plan.thinning.expected_s - total_s(plan));
    for number in 0..plan.thinning.repeats {
        let over = started.elapsed().as_secs_f64() > plan.thinning.budget_s * OVERRUN;
        if over && number >= claim.repeats(lab.scale).min {
            let repeats = plan.thinning.repeats;
            return Ok(Some(format!(
                "out of time after {number} of {repeats} repetitions"
            )));
        }
        for (index, point) in plan.points.iter().enumerate() {
            lab.scratch.check().map_err(|_| ClaimsError::Interrupted)?;
            if is_done(journal, claim.id(), point, number) {
                continue;
            }
            bar.say(&format!(
                "{} repetition {} of {}, point {} of {}: {}",
                claim.id(),
                number + 1,
                plan.thinning.repeats,
                index + 1,
                plan.points.len(),
                point.key()
            ));
            let left_s = plan.thinning.budget_s - started.elapsed().as_secs_f64();
            let may_repeat = left_s > plan.thinning.expected_s * 0.1 + point.seconds;
            let outcome = one(claim, rig.as_mut(), point, number, may_repeat, &observed)?;
            journal.add(outcome)?;
            bar.advance(point.seconds);
        }
    }
    Ok(None)
}

fn total_s(plan: &Plan) -> f64 {
    let once: f64 = plan.points.iter().map(|point| point.seconds).sum();
    once * f64::from(plan.thinning.repeats)
}

/// Measures a point once and tells how quiet the host was.
type Observe<'a> = dyn Fn(&mut dyn Rig, &Point, u32) -> Result<(Figures, Noise), PointError> + 'a;

/// One repetition; once more, if others used the host meanwhile and there is time: the quieter one counts. Where the first
/// outcome counts, there is no second, neither after a failure nor for noise.
fn one(
    claim: &dyn Claim,
    rig: &mut dyn Rig,
    point: &Point,
    number: u32,
    may_repeat: bool,
    observe: &Observe<'_>,
) -> Result<Repetition, ClaimsError> {
    let unix_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut left_out = None;
    let (mut figures, mut noise) = (Figures::new(), Noise::default());
    let may_repeat = may_repeat && !rig.first_counts(point);
    let first = match rig.first_counts(point) {
        true => observe(rig, point, number),
        // One that fails twice is left out of all repetitions.
        false => twice(|| observe(rig, point, number)),
    };
    match first {
        Ok((first, quiet)) => {
            (figures, noise) = (first, quiet);
            if quiet.is_loud()
                && may_repeat
                && let Ok((second, quieter)) = observe(rig, point, number)
                && quieter.loudness() < quiet.loudness()
            {
                (figures, noise) = (second, quieter);
                noise.repeated = true;
            }
        }
        Err(PointError::Interrupted) => return Err(ClaimsError::Interrupted),
        Err(error) => left_out = Some(error.to_string()),
    }
    Ok(Repetition {
        claim: claim.id().into(),
        params: point.params.clone(),
        number,
        figures,
        noise,
        left_out,
        unix_s,
        build: String::new(),
    })
}

fn observed(rig: &mut dyn Rig, point: &Point, number: u32) -> Result<(Figures, Noise), PointError> {
    let before = Reading::take(&rig.pids());
    let figures = rig.measure(point, number)?;
    Ok((figures, Reading::take(&rig.pids()).since(&before)))
}

/// A bar in milliseconds of expected work; on no terminal, a line for each claim.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(expected_s: f64) -> Self {
        let bar = ProgressBar::new((expected_s * 1e3) as u64);
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:24} {percent:>3} %  {elapsed} gone, {eta} left  {msg}",
        ) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar }
    }

    fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    fn advance(&self, seconds: f64) {
        self.bar.inc((seconds.max(0.0) * 1e3) as u64);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::claims::catalog::all;
    use crate::claims::claim::Means;
    use crate::claims::record::Identity;

    /// Answers in this order; a second answer is always better.
    struct Answers {
        outcomes: Vec<Result<f64, PointError>>,
        first_counts: bool,
    }

    impl Rig for Answers {
        fn measure(&mut self, _: &Point, _: u32) -> Result<Figures, PointError> {
            let lost = self.outcomes.remove(0)?;
            Ok(Figures::from([("lost".to_owned(), lost)]))
        }

        fn first_counts(&self, _: &Point) -> bool {
            self.first_counts
        }
    }

    /// What is recorded of a rig whose first measurement is a loud one and whose second is quiet.
    fn recorded(first: Result<f64, PointError>, first_counts: bool) -> Repetition {
        let mut rig = Answers {
            outcomes: vec![first, Ok(0.0)],
            first_counts,
        };
        let noise = std::cell::Cell::new(Noise {
            others_share: 0.5,
            ..Noise::default()
        });
        let observe = |rig: &mut dyn Rig, point: &Point, number: u32| {
            let noise = noise.take();
            Ok((rig.measure(point, number)?, noise))
        };
        let claims = all(&Means::default());
        let point = Point::new(&json!({ "n": 1 }), 0, 1.0);
        let folder = tempfile::tempdir().unwrap();
        let mut journal =
            Journal::open(folder.path(), &Identity::new("test", "d", "h".into())).unwrap();
        let repetition = one(claims[0].as_ref(), &mut rig, &point, 0, true, &observe).unwrap();
        journal.add(repetition.clone()).unwrap();
        assert!(is_done(&journal, claims[0].id(), &point, 0));
        repetition
    }

    #[test]
    fn a_loss_is_recorded_though_the_host_was_loud() {
        let kept = recorded(Ok(3.0), true);
        assert_eq!(kept.figures["lost"], 3.0);
        assert!(kept.noise.is_loud());
        // Any other point is measured once more.
        let kept = recorded(Ok(3.0), false);
        assert_eq!(kept.figures["lost"], 0.0);
        assert!(kept.noise.repeated);
    }

    #[test]
    fn where_the_first_outcome_counts_a_failure_is_not_tried_away() {
        let failed = || Err(PointError::Failed("the records cannot be read".into()));
        let kept = recorded(failed(), true);
        assert_eq!(kept.left_out.as_deref(), Some("the records cannot be read"));
        let kept = recorded(failed(), false);
        assert_eq!((kept.left_out, kept.figures["lost"]), (None, 0.0));
    }
}
