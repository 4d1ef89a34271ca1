//! The results: a table for the terminal, results.json, and one page that needs nothing else.

mod builds;
mod compare;
mod diagrams;
mod page;
mod plots;
mod summary;
mod table;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::ClaimsError;
use super::host::Host;
use super::outcome::ClaimResult;
use super::quiet::Noise;
use super::record::Identity;
use super::stats::Estimate;

pub use builds::{Build, name_of_build};
pub use compare::compare;
pub use table::table;

/// The page's name in the output directory.
pub const PAGE: &str = "report.html";
/// The name of all claims in one picture, in the output directory.
pub const PICTURE: &str = "summary.svg";
/// The results' name in the output directory.
pub const JSON: &str = "results.json";
/// Version of the shape of results.json (benches/METHOD.md describes it).
pub const SCHEMA: u32 = 1;

/// The page's and the picture's colours, light and dark.
const COLOURS: &str = include_str!("colours.css");

/// All that a run found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The tool's version.
    pub tool: String,
    /// Quick or full.
    pub scale: String,
    /// When the report was made, seconds since 1970.
    pub unix_s: u64,
    /// What was measured on.
    pub host: Host,
    /// How quiet the host was over all repetitions.
    pub quiet: Quiet,
    /// What measured it, in order of time.
    #[serde(default)]
    pub builds: Vec<Build>,
    /// C1 to C20.
    pub claims: Vec<ClaimResult>,
}

/// How quiet the host was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Quiet {
    /// Repetitions.
    pub repetitions: usize,
    /// Repetitions during which others used the host.
    pub loud: usize,
    /// Repetitions that were made a second time because the first was louder.
    pub repeated: usize,
    /// Share of the processors that others used.
    pub others_share: Option<Estimate>,
    /// Share that the hypervisor took.
    pub steal_share: Option<Estimate>,
}

impl Results {
    /// Puts the measured and the other claims into the documents' order.
    #[must_use]
    pub fn new(
        identity: &Identity,
        host: Host,
        measured: Vec<ClaimResult>,
        unbuilt: Vec<ClaimResult>,
    ) -> Self {
        let mut claims = measured;
        claims.extend(unbuilt);
        claims.sort_by_key(|claim| claim.id[1..].parse::<u32>().unwrap_or(u32::MAX));
        let noise: Vec<Noise> = claims
            .iter()
            .flat_map(|claim| &claim.measurements)
            .flat_map(|measurement| measurement.noise.iter().copied())
            .collect();
        let share = |of: fn(&Noise) -> f64| {
            let values: Vec<f64> = noise.iter().map(of).collect();
            Estimate::of(&values)
        };
        Self {
            schema: SCHEMA,
            tool: identity.tool.clone(),
            scale: identity.scale.clone(),
            unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            host,
            builds: builds::of(&claims),
            quiet: Quiet {
                repetitions: noise.len(),
                loud: noise.iter().filter(|noise| noise.is_loud()).count(),
                repeated: noise.iter().filter(|noise| noise.repeated).count(),
                others_share: share(|noise| noise.others_share),
                steal_share: share(|noise| noise.steal_share),
            },
            claims,
        }
    }
}

/// Writes results.json, report.html and summary.svg into `out`.
///
/// # Errors
/// [`ClaimsError`].
pub fn write(out: &Path, results: &Results) -> Result<(), ClaimsError> {
    let json = serde_json::to_string_pretty(results)
        .map_err(|error| ClaimsError::Report(error.to_string()))?;
    put(&out.join(JSON), &json)?;
    draw(out, results)
}

/// Writes report.html and summary.svg into `out`.
///
/// # Errors
/// [`ClaimsError`].
pub fn draw(out: &Path, results: &Results) -> Result<(), ClaimsError> {
    put(&out.join(PAGE), &page::page(results)?)?;
    put(&out.join(PICTURE), &summary::summary(results)?)
}

fn put(path: &Path, text: &str) -> Result<(), ClaimsError> {
    fs::write(path, text).map_err(ClaimsError::file(path))
}

/// Reads a results.json.
///
/// # Errors
/// [`ClaimsError`].
pub fn load(path: &Path) -> Result<Results, ClaimsError> {
    let text = fs::read_to_string(path).map_err(ClaimsError::file(path))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| {
        ClaimsError::Usage(format!("{} is no results.json: {error}", path.display()))
    })?;
    if results.schema != SCHEMA {
        return Err(ClaimsError::Usage(format!(
            "{} has schema {}, this tool reads {SCHEMA}",
            path.display(),
            results.schema
        )));
    }
    Ok(results)
}

/// A number with as many digits as say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        size if size >= 100_000.0 => {
            let digits = format!("{value:.0}");
            let mut out = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) && !out.ends_with('-') {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

/// A median with its interval.
pub(super) fn interval(estimate: Option<&Estimate>) -> String {
    match estimate {
        None => "–".into(),
        Some(e) if e.n < 2 => number(e.median),
        Some(e) => format!(
            "{} [{}–{}]",
            number(e.median),
            number(e.low),
            number(e.high)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_digits_that_say_something() {
        let cases = [
            (0.0, "0.00"),
            (0.0123, "1.23e-2"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1234"),
            (1_234_567.0, "1,234,567"),
            (-123_456.0, "-123,456"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
