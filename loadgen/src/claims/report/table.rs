//! The table on the terminal.

use std::fmt::Write as _;

use super::{Results, interval};
use crate::claims::outcome::ClaimResult;

/// Every claim with both sides, ratio, verdict and one sentence.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut out = String::new();
    for claim in &results.claims {
        row(&mut out, claim);
    }
    if results.builds.len() > 1 {
        for build in &results.builds {
            let _ = writeln!(out, "by {}", build.line());
        }
    }
    let quiet = &results.quiet;
    let _ = write!(
        out,
        "{} repetitions, {} of them while others used the host",
        quiet.repetitions, quiet.loud
    );
    out
}

fn row(out: &mut String, claim: &ClaimResult) {
    let conclusion = &claim.conclusion;
    let _ = writeln!(
        out,
        "{:<4} {:<24} {}",
        claim.id,
        conclusion.verdict.to_string(),
        claim.sentence
    );
    if let Some(finding) = conclusion.findings.first() {
        for side in [&finding.above, &finding.below] {
            let value = interval(side.value.as_ref());
            let _ = writeln!(out, "       {:<52} {value} {}", side.name, side.unit);
        }
        if let Some(ratio) = &finding.ratio {
            let (ratio, claimed) = (interval(Some(ratio)), finding.expect);
            let _ = writeln!(out, "       ratio {ratio}, claimed: {claimed}");
        }
    }
    let _ = writeln!(out, "     {}", conclusion.why);
    if let Some(thinning) = &claim.thinning
        && thinning.kept < thinning.points
    {
        let _ = writeln!(
            out,
            "     thinned: {} of {} points, {} repetitions",
            thinning.kept, thinning.points, thinning.repeats
        );
    }
    if let Some(reason) = &claim.cut_short {
        let _ = writeln!(out, "     cut short: {reason}");
    }
    let noisy = claim
        .measurements
        .iter()
        .filter(|m| m.noisy.is_some())
        .count();
    if noisy > 0 {
        let count = claim.measurements.len();
        let _ = writeln!(out, "     noisy: {noisy} of {count} measurements");
    }
}
