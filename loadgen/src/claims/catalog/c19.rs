//! C19: whether acks=1 means that the leader has flushed.

use super::loss::{self, WAYS, crash_point, keeps};
use super::whole::{WholeClaim, conclude};
use crate::claims::claim::Scale;
use crate::claims::crash::{KILL_LOST, POWER_LOST};
use crate::claims::outcome::Conclusion;
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;

const HERE: (&str, &str) = ("acks=1", "this server, acks=1");

pub(super) const C19: WholeClaim = WholeClaim {
    id: "C19",
    sentence: "acks=1 means that the leader has flushed",
    points,
    space_gib: [1, 4, 8],
    setup_s: [0.1, 0.2, 0.2],
    budget_s: [2.0, 10.0, 30.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    vec![crash_point(HERE.0, "", "1", 0, scale)]
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let findings = WAYS.into_iter().filter_map(|(way, figure)| {
        keeps(
            measurements,
            &format!("{way} under load: is every record there that acks=1 acknowledged?"),
            HERE,
            figure,
        )
    });
    let lost = |figure| {
        let crashed = loss::crashed(measurements, HERE.0);
        let estimate = crashed.and_then(|m| m.figures.get(figure).copied());
        estimate.map_or_else(|| "an unknown number".into(), |e| number(e.high))
    };
    let why = format!(
        "of this server: of a million records acknowledged with acks=1 at most {} were lost after kill -9 and {} after power loss",
        lost(KILL_LOST),
        lost(POWER_LOST)
    );
    let mut conclusion = conclude(findings.collect(), why, measurements);
    conclusion.plots.push(loss::bars(measurements, &[HERE]));
    conclusion.tables.push(loss::table(measurements, &[HERE]));
    conclusion.notes.push(loss::note());
    conclusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::loss::testing::crashes;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict =
            |killed: &[f64], power: &[f64]| judge(&[crashes(HERE.0, killed, power)]).verdict;
        assert_eq!(verdict(&[0.0; 3], &[0.0; 3]), Verdict::Holds);
        assert_eq!(verdict(&[0.0; 3], &[0.0, 0.0, 3.0]), Verdict::DoesNotHold);
        assert_eq!(verdict(&[0.0; 2], &[0.0; 2]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }
}
