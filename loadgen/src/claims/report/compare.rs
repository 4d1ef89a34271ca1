//! Two results side by side.

use std::fmt::Write as _;

use super::{Results, interval};
use crate::claims::ClaimsError;
use crate::claims::host::Host;
use crate::claims::outcome::{ClaimResult, Finding};
use crate::claims::stats::Estimate;
use crate::claims::verdict::Verdict;

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
    for (results, which) in [(a, "first"), (b, "second")] {
        for build in &results.builds {
            let _ = writeln!(out, "  the {which} by {}", build.line());
        }
    }
    for claim in &a.claims {
        let Some(other) = b.claims.iter().find(|other| other.id == claim.id) else {
            continue;
        };
        claim_lines(&mut out, claim, other);
    }
    out.push_str(&agreement(a, b));
    Ok(out)
}

/// How many verdicts are the same; for two runs of one host they should be, and a line names those that are not.
fn agreement(a: &Results, b: &Results) -> String {
    let decided =
        |verdict: Verdict| !matches!(verdict, Verdict::NotYetMeasured | Verdict::CannotBeMeasured);
    let pairs = a.claims.iter().filter_map(|claim| {
        let other = b.claims.iter().find(|other| other.id == claim.id)?;
        Some((claim, claim.conclusion.verdict, other.conclusion.verdict))
    });
    let pairs: Vec<_> = pairs
        .filter(|(_, ours, theirs)| decided(*ours) && decided(*theirs))
        .collect();
    let differing: Vec<String> = pairs
        .iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(claim, ours, theirs)| format!("{} ({ours} | {theirs})", claim.id))
        .collect();
    let same = pairs.len() - differing.len();
    let hosts = match a.host.identity() == b.host.identity() {
        true => "the same host",
        false => "different hosts",
    };
    let mut line = format!("{hosts}: {same} of {} verdicts agree", pairs.len());
    if !differing.is_empty() {
        let _ = write!(line, "; they differ for {}", differing.join(", "));
        if a.host.identity() == b.host.identity() {
            let loud = |results: &Results| {
                let quiet = &results.quiet;
                100.0 * quiet.loud as f64 / quiet.repetitions.max(1) as f64
            };
            let _ = write!(
                line,
                ". On one host that is noise or a change between the runs: {:.0} % and {:.0} % of their repetitions were loud, tools {} and {}; \
                 look for intervals that cross a threshold",
                loud(a),
                loud(b),
                a.tool,
                b.tool
            );
        }
    }
    line
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::host::Group;
    use crate::claims::outcome::Conclusion;
    use crate::claims::report::Quiet;

    fn results(kernel: &str, verdicts: [Verdict; 3]) -> Results {
        let host = Host {
            groups: vec![Group {
                name: "Machine".into(),
                facts: vec![("kernel".into(), kernel.into())],
            }],
        };
        let claims = verdicts.iter().enumerate().map(|(index, &verdict)| {
            let id = format!("C{}", index + 1);
            ClaimResult::new(id, "s", Conclusion::without(verdict, "why"))
        });
        Results {
            schema: 1,
            tool: "t".into(),
            scale: "quick".into(),
            unix_s: 0,
            host,
            builds: Vec::new(),
            quiet: Quiet {
                repetitions: 10,
                loud: 3,
                ..Quiet::default()
            },
            claims: claims.collect(),
        }
    }

    #[test]
    fn two_runs_of_one_host_should_agree_and_a_line_says_where_they_do_not() {
        use Verdict::{Holds, NotYetMeasured, Undecided};
        let last =
            |a: &Results, b: &Results| compare(a, b).unwrap().lines().last().unwrap().to_owned();
        let first = results("6.1", [Holds, Holds, NotYetMeasured]);
        assert_eq!(last(&first, &first), "the same host: 2 of 2 verdicts agree");
        let second = results("6.1", [Holds, Undecided, Holds]);
        let said = last(&first, &second);
        assert!(
            said.starts_with(
                "the same host: 1 of 2 verdicts agree; they differ for C2 (holds | undecided here)"
            ),
            "{said}"
        );
        assert!(said.contains("30 % and 30 %"), "{said}");
        let other = results("6.9", [Holds, Undecided, Holds]);
        let said = last(&first, &other);
        assert!(
            said.starts_with("different hosts: 1 of 2") && !said.contains("noise"),
            "{said}"
        );
    }
}
