//! report.html: everything in one file.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::diagrams;
use super::plots::{Picture, draw};
use super::{Build, COLOURS, Results, interval};
use crate::claims::ClaimsError;
use crate::claims::outcome::{ClaimResult, Finding, Table};
use crate::claims::plan::key_of;
use crate::claims::record::Measurement;

const TEMPLATE: &str = include_str!("page.html");

#[derive(Serialize)]
struct FindingView {
    question: String,
    above: String,
    above_value: String,
    below: String,
    below_value: String,
    ratio: Option<String>,
    claimed: String,
    verdict: String,
    class: &'static str,
}

#[derive(Serialize)]
struct ClaimView {
    id: String,
    sentence: String,
    verdict: String,
    class: &'static str,
    why: String,
    findings: Vec<FindingView>,
    pictures: Vec<Picture>,
    diagrams: Vec<Picture>,
    tables: Vec<Table>,
    notes: Vec<String>,
    thinning: Option<String>,
    rows: Vec<[String; 3]>,
    noisy: usize,
}

/// Makes the page.
///
/// # Errors
/// [`ClaimsError::Report`].
pub(super) fn page(results: &Results) -> Result<String, ClaimsError> {
    let claims: Vec<ClaimView> = results
        .claims
        .iter()
        .map(|claim| view(claim, &results.claims))
        .collect::<Result<_, ClaimsError>>()?;
    let quiet = &results.quiet;
    let percent = |estimate: &Option<crate::claims::stats::Estimate>| {
        estimate.map_or_else(|| "–".into(), |e| format!("{:.1} %", e.median * 100.0))
    };
    let mut environment = Environment::new();
    // The name's ending is what turns escaping on.
    environment
        .add_template("page.html", TEMPLATE)
        .and_then(|()| environment.get_template("page.html"))
        .and_then(|template| {
            template.render(context! {
                colours => COLOURS,
                tool => results.tool.as_str(),
                scale => results.scale.as_str(),
                date => date(results.unix_s),
                host => Value::from(Serde(&results.host)),
                repetitions => quiet.repetitions,
                loud => quiet.loud,
                repeated => quiet.repeated,
                others => percent(&quiet.others_share),
                steal => percent(&quiet.steal_share),
                builds => results.builds.iter().map(Build::line).collect::<Vec<_>>(),
                moves => diagrams::LEGEND,
                claims => Value::from(Serde(&claims)),
            })
        })
        .map_err(|error| ClaimsError::Report(error.to_string()))
}

fn view(claim: &ClaimResult, all: &[ClaimResult]) -> Result<ClaimView, ClaimsError> {
    let conclusion = &claim.conclusion;
    let mut pictures = Vec::new();
    for plot in &conclusion.plots {
        pictures.extend(draw(plot)?);
    }
    let mut notes = conclusion.notes.clone();
    notes.extend(
        claim
            .cut_short
            .iter()
            .map(|reason| format!("Cut short: {reason}.")),
    );
    notes.extend(diagrams::elsewhere(claim, all));
    let thinning = claim.thinning.as_ref().map(|thinning| {
        format!(
            "{} of {} points of the grid, {} repetitions of up to {}, {:.0} s expected of {:.0} s{}",
            thinning.kept,
            thinning.points,
            thinning.repeats,
            thinning.repeats_wanted,
            thinning.expected_s,
            thinning.budget_s,
            thinning
                .remark
                .as_ref()
                .map_or_else(String::new, |remark| format!("; {remark}"))
        )
    });
    Ok(ClaimView {
        id: claim.id.clone(),
        sentence: claim.sentence.clone(),
        verdict: conclusion.verdict.to_string(),
        class: class(conclusion.verdict),
        why: conclusion.why.clone(),
        findings: conclusion.findings.iter().map(finding).collect(),
        pictures,
        diagrams: diagrams::diagrams(claim),
        tables: conclusion.tables.clone(),
        notes,
        thinning,
        rows: claim.measurements.iter().map(row).collect(),
        noisy: claim
            .measurements
            .iter()
            .filter(|m| m.noisy.is_some())
            .count(),
    })
}

fn finding(finding: &Finding) -> FindingView {
    let value = |side: &crate::claims::outcome::Side| {
        format!("{} {}", interval(side.value.as_ref()), side.unit)
    };
    FindingView {
        question: finding.question.clone(),
        above: finding.above.name.clone(),
        above_value: value(&finding.above),
        below: finding.below.name.clone(),
        below_value: value(&finding.below),
        ratio: finding.ratio.map(|ratio| interval(Some(&ratio))),
        claimed: finding.expect.to_string(),
        verdict: finding.verdict.to_string(),
        class: class(finding.verdict),
    }
}

/// Parameters, figures and marks of a measurement.
fn row(measurement: &Measurement) -> [String; 3] {
    let figures: Vec<String> = measurement
        .figures
        .iter()
        .map(|(name, estimate)| format!("{name} {}", interval(Some(estimate))))
        .collect();
    let mark = measurement
        .left_out
        .as_ref()
        .map(|reason| format!("left out: {reason}"));
    [
        key_of(&measurement.params),
        figures.join(" · "),
        mark.or_else(|| measurement.noisy.clone())
            .unwrap_or_default(),
    ]
}

pub(super) fn class(verdict: crate::claims::verdict::Verdict) -> &'static str {
    use crate::claims::verdict::Verdict;
    match verdict {
        Verdict::Holds => "holds",
        Verdict::DirectionOnly => "direction",
        Verdict::DoesNotHold => "not",
        Verdict::Undecided => "undecided",
        Verdict::NotYetMeasured | Verdict::CannotBeMeasured => "missing",
    }
}

/// The day in UTC, by the calendar's rule of 400 years.
pub(super) fn date(unix_s: u64) -> String {
    let days = (unix_s / 86_400) as i64 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// Day and minute in UTC.
pub(super) fn moment(unix_s: u64) -> String {
    let minutes = unix_s / 60;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{} {hour:02}:{minute:02} UTC", date(unix_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
        assert_eq!(moment(1_767_225_599), "2025-12-31 23:59 UTC");
    }

    #[test]
    fn what_a_claim_says_is_escaped() {
        let results = Results {
            schema: super::super::SCHEMA,
            tool: "<script>".into(),
            scale: "quick".into(),
            unix_s: 0,
            host: crate::claims::host::Host::default(),
            quiet: super::super::Quiet::default(),
            builds: [("a<b", 0), ("c", 7)]
                .map(|(name, unix_s)| Build {
                    name: name.into(),
                    from_unix_s: unix_s,
                    ..Build::default()
                })
                .to_vec(),
            claims: crate::claims::catalog::unbuilt(),
        };
        let page = page(&results).unwrap();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("not yet measured") && page.contains("C20"));
        assert!(page.contains("2 builds") && page.contains("a&lt;b: 0 repetitions"));
        // Works offline: nothing is fetched.
        assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("url("));
    }
}
