//! Two results side by side.

use std::fmt::Write as _;

use super::{Results, interval};
use crate::claims::ClaimsError;
use crate::claims::host::Host;
use crate::claims::outcome::{ClaimResult, Finding};
use crate::claims::stats::Estimate;

/// A figure of a finding.
type Of = fn(&Finding) -> Option<&Estimate>;

/// Verdicts and findings of two runs, and what differs between their hosts.
///
/// # Errors
/// [`ClaimsError::Usage`] when they are of different lengths, because their grids and file sizes differ.
pub fn compare(a: &Results, b: &Results) -> Result<String, ClaimsError> {
    if a.scale != b.scale {
        return Err(ClaimsError::Usage(format!(
            "a {} run and a {} run are no pair: they differ in grid and file sizes",
            a.scale, b.scale
        )));
    }
    let mut out = String::from("hosts:\n");
    for (name, ours, theirs) in differences(&a.host, &b.host) {
        let _ = writeln!(out, "  {name}: {ours}  |  {theirs}");
    }
    for claim in &a.claims {
        let Some(other) = b.claims.iter().find(|other| other.id == claim.id) else {
            continue;
        };
        claim_lines(&mut out, claim, other);
    }
    out.truncate(out.trim_end().len());
    Ok(out)
}

fn claim_lines(out: &mut String, a: &ClaimResult, b: &ClaimResult) {
    let (va, vb) = (a.conclusion.verdict, b.conclusion.verdict);
    let mark = if va == vb { ' ' } else { '*' };
    let _ = writeln!(out, "{mark} {:<4} {va}  |  {vb}   {}", a.id, a.sentence);
    for finding in &a.conclusion.findings {
        let theirs = b
            .conclusion
            .findings
            .iter()
            .find(|other| other.question == finding.question);
        let side = |finding: Option<&Finding>, of: Of| interval(finding.and_then(of));
        let _ = writeln!(out, "       {}", finding.question);
        let rows: [(&str, Of); 3] = [
            (finding.above.name.as_str(), |f| f.above.value.as_ref()),
            (finding.below.name.as_str(), |f| f.below.value.as_ref()),
            ("ratio", |f| f.ratio.as_ref()),
        ];
        for (name, of) in rows {
            let (ours, other) = (side(Some(finding), of), side(theirs, of));
            let _ = writeln!(out, "         {name:<48} {ours:<28} | {other}");
        }
    }
}

/// Facts with other values, by group and name.
fn differences(a: &Host, b: &Host) -> Vec<(String, String, String)> {
    let mut differing = Vec::new();
    for group in &a.groups {
        for (name, value) in &group.facts {
            let other = b.fact(&group.name, name).unwrap_or("not told");
            if other != value && name != "card" {
                let name = format!("{}, {name}", group.name);
                differing.push((name, value.clone(), other.to_owned()));
            }
        }
    }
    differing
}
