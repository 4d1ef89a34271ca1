//! The results in one picture: a row for each claim, its ratio with the interval on an axis of powers of ten, what was claimed of
//! it, and the verdict. Light and dark by the reader's setting, nothing fetched.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::page::{class, date};
use super::plots::Scaling;
use super::{COLOURS, Results, interval, number};
use crate::claims::ClaimsError;
use crate::claims::host::Host;
use crate::claims::outcome::{Axis, ClaimResult, Finding, Side};
use crate::claims::stats::Estimate;
use crate::claims::verdict::Expect;

const TEMPLATE: &str = include_str!("summary.svg");
/// Pixels; pages that show it are about as wide.
const WIDTH: f64 = 840.0;
const LEFT: f64 = 14.0;
const RIGHT: f64 = WIDTH - 14.0;
/// Where a claim's words begin, and how wide they may be.
const WORDS: f64 = 58.0;
const WORDS_WIDTH: f64 = 346.0;
/// Where the axis begins and ends.
const AXIS: (f64, f64) = (420.0, 648.0);
/// Where the first row begins.
const TOP: f64 = 98.0;
const LINE: f64 = 14.0;
const FONT: f64 = 11.5;
/// Ratios beyond are drawn at the edge: whole powers of ten.
const DECADES: (f64, f64) = (-2.0, 3.0);

#[derive(Serialize)]
struct Tick {
    x: f64,
    label: String,
    one: bool,
}

#[derive(Serialize)]
struct Line {
    y: f64,
    text: String,
    faint: bool,
}

#[derive(Serialize)]
struct Row {
    y: f64,
    height: f64,
    id: String,
    class: &'static str,
    verdict: String,
    lines: Vec<Line>,
    /// Left edge and width of where the ratio was claimed to lie.
    claimed: Option<(f64, f64)>,
    /// The interval as an SVG path.
    interval: Option<String>,
    dot: Option<f64>,
    /// Where there is no ratio.
    instead: Option<String>,
    figures: Vec<String>,
}

/// Makes the picture.
///
/// # Errors
/// [`ClaimsError::Report`].
pub(super) fn summary(results: &Results) -> Result<String, ClaimsError> {
    let axis = LogAxis::of(results.claims.iter().filter_map(|claim| {
        let ratio = headline(claim)?.ratio?;
        Some(ratio.median)
    }));
    let mut rows: Vec<Row> = Vec::new();
    let mut y = TOP;
    for claim in &results.claims {
        let row = row(claim, y, &axis);
        y += row.height;
        rows.push(row);
    }
    let mut environment = Environment::new();
    // The name's ending is what turns escaping on.
    environment
        .add_template("summary.xml", TEMPLATE)
        .and_then(|()| environment.get_template("summary.xml"))
        .and_then(|template| {
            template.render(context! {
                width => WIDTH,
                height => y + 44.0,
                left => LEFT,
                right => RIGHT,
                words => WORDS,
                plot => (AXIS.0 + AXIS.1) / 2.0,
                top => TOP,
                bottom => y,
                title => "Which of the documents' claims hold on this host?",
                host => about(results),
                key => "Dot and line: the ratio that decides, with its 95 % interval. Shaded: where it lies if the claim holds.",
                colours => COLOURS,
                ticks => Value::from(Serde(&axis.ticks())),
                rows => Value::from(Serde(&rows)),
            })
        })
        .map_err(|error| ClaimsError::Report(error.to_string()))
}

/// The host and the run in one line.
fn about(results: &Results) -> String {
    let fact = |name: &str| fact(&results.host, name);
    let facts = [
        fact("cores").map(|cores| format!("{cores} cores")),
        fact("processor"),
        fact("memory"),
        fact("kernel"),
        fact("type"),
        Some(format!("{} run of {}", results.scale, date(results.unix_s))),
        Some(format!(
            "{} repetitions, {} of them while others used the host",
            results.quiet.repetitions, results.quiet.loud
        )),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    shortened(&facts.join(" · "), RIGHT - LEFT)
}

fn fact(host: &Host, wanted: &str) -> Option<String> {
    let mut facts = host.groups.iter().flat_map(|group| &group.facts);
    facts
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.clone())
}

/// The finding to show: the first one that says what the claim's verdict says.
fn headline(claim: &ClaimResult) -> Option<&Finding> {
    let conclusion = &claim.conclusion;
    let mut findings = conclusion.findings.iter();
    findings
        .find(|finding| finding.verdict == conclusion.verdict)
        .or(conclusion.findings.first())
}

fn row(claim: &ClaimResult, y: f64, axis: &LogAxis) -> Row {
    let finding = headline(claim);
    let mut lines = Vec::new();
    let question = finding.map_or(claim.conclusion.why.as_str(), |f| f.question.as_str());
    for (text, count, faint) in [(claim.sentence.as_str(), 3, false), (question, 2, true)] {
        for text in wrapped(text, WORDS_WIDTH, count) {
            let y = 17.0 + LINE * lines.len() as f64;
            lines.push(Line { y, text, faint });
        }
    }
    let height = 17.0 + LINE * (lines.len().max(3) as f64 - 1.0) + 10.0;
    let ratio = finding.and_then(|finding| finding.ratio);
    let mut row = Row {
        y,
        height,
        id: match claim.id.len() {
            0..=3 => claim.id.clone(),
            // Not of the documents, and too long for its place.
            _ => String::new(),
        },
        class: class(claim.conclusion.verdict),
        verdict: claim.conclusion.verdict.to_string(),
        lines,
        claimed: None,
        interval: None,
        dot: None,
        instead: None,
        figures: Vec::new(),
    };
    match (finding, ratio) {
        (Some(finding), Some(ratio)) => {
            row.claimed = Some(axis.claimed(finding.expect));
            row.interval = Some(axis.interval(&ratio, height / 2.0));
            row.dot = Some(axis.place(ratio.median));
            row.figures = vec![
                interval(Some(&ratio)),
                format!("claimed: {}", finding.expect),
            ];
        }
        (Some(finding), None) => {
            row.instead = Some(counted(&finding.above));
        }
        _ => {}
    }
    row
}

/// A side by itself, its interval only if it has one.
fn counted(side: &Side) -> String {
    let value = match &side.value {
        Some(value) if value.low == value.high => number(value.median).replace(".00", ""),
        value => interval(value.as_ref()),
    };
    format!("{value} {}", side.unit)
}

/// Ratios to places.
struct LogAxis {
    scaling: Scaling,
    /// Powers of ten at the ends.
    low: f64,
    high: f64,
}

impl LogAxis {
    /// From the smallest to the largest ratio, 1 in any case.
    fn of(ratios: impl Iterator<Item = f64> + Clone) -> Self {
        let scaling = Scaling::of(&Axis::log("times"));
        let with_one = ratios.chain([0.5, 2.0]);
        let (low, high) = scaling.range(with_one).unwrap_or((-1.0, 1.0));
        Self {
            scaling,
            low: low.max(DECADES.0),
            high: high.min(DECADES.1),
        }
    }

    /// Where a ratio is drawn: at the edge if it lies beyond.
    fn place(&self, ratio: f64) -> f64 {
        let share = (self.scaling.place(ratio) - self.low) / (self.high - self.low);
        rounded(AXIS.0 + share.clamp(0.0, 1.0) * (AXIS.1 - AXIS.0))
    }

    fn ticks(&self) -> Vec<Tick> {
        let powers = self.low as i32..=self.high as i32;
        powers
            .map(|power| Tick {
                x: self.place(10f64.powi(power)),
                label: self.scaling.label(f64::from(power)),
                one: power == 0,
            })
            .collect()
    }

    /// Left edge and width of what is claimed; a sliver at the edge for what lies beyond it.
    fn claimed(&self, expect: Expect) -> (f64, f64) {
        let (low, high) = expect.bounds();
        let left = self.place(low).min(AXIS.1 - 2.0);
        (left, rounded(self.place(high) - left))
    }

    /// A line with caps; an arrowhead where it goes on beyond the edge.
    fn interval(&self, ratio: &Estimate, y: f64) -> String {
        let (left, right) = (self.place(ratio.low), self.place(ratio.high));
        let beyond = |ratio: f64| {
            let place = self.scaling.place(ratio);
            place < self.low - 1e-9 || place > self.high + 1e-9
        };
        let end = |x: f64, inward: f64, beyond: bool| match beyond {
            true => format!(
                "M{} {}L{x} {y}L{} {}",
                x + inward,
                y - 4.0,
                x + inward,
                y + 4.0
            ),
            false => format!("M{x} {}V{}", y - 4.0, y + 4.0),
        };
        format!(
            "M{left} {y}H{right}{}{}",
            end(left, 5.0, beyond(ratio.low)),
            end(right, -5.0, beyond(ratio.high))
        )
    }
}

/// To a tenth of a pixel.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Pixels that a text takes at most, in any of the usual fonts without serifs.
fn width(text: &str) -> f64 {
    let share = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | ' ' | '.' | ',' | ':' | ';' | '!' | '\''
        | '|' | '(' | ')' | '[' | ']' | '/' | '-' => 0.37,
        'm' | 'w' | 'M' | 'W' | '%' | '→' | '⇒' | '…' => 0.95,
        c if c.is_ascii_uppercase() => 0.72,
        _ => 0.6,
    };
    text.chars().map(share).sum::<f64>() * FONT
}

/// A text cut off behind the last word that fits.
fn shortened(text: &str, pixels: f64) -> String {
    wrapped(text, pixels, 1).pop().unwrap_or_default()
}

/// At most `count` lines; the last one ends in … if words are left.
fn wrapped(text: &str, pixels: f64, count: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let full = lines.len() == count;
        let Some(last) = lines.last_mut() else {
            lines.push(word.to_owned());
            continue;
        };
        let grown = format!("{last} {word}");
        if width(&grown) <= pixels {
            *last = grown;
        } else if full {
            cut(last, pixels);
            break;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Makes room for … behind a whole word.
fn cut(line: &mut String, pixels: f64) {
    while width(line) + width(" …") > pixels
        && let Some(space) = line.rfind(' ')
    {
        line.truncate(space);
    }
    line.push_str(" …");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::outcome::Conclusion;
    use crate::claims::report::{Quiet, SCHEMA};
    use crate::claims::verdict::Verdict;

    fn finding(ratio: Option<[f64; 3]>, expect: Expect, verdict: Verdict) -> Finding {
        let side = |name: &str| Side {
            name: name.into(),
            value: Some(estimate([7.0; 3])),
            unit: "lost of a million".into(),
        };
        Finding {
            question: format!("is a < b, or {verdict}?"),
            above: side("a"),
            below: side("b"),
            ratio: ratio.map(estimate),
            expect,
            verdict,
        }
    }

    fn estimate([low, median, high]: [f64; 3]) -> Estimate {
        let n = 3;
        Estimate {
            median,
            low,
            high,
            n,
        }
    }

    fn claim(id: &str, verdict: Verdict, findings: Vec<Finding>) -> ClaimResult {
        let conclusion = Conclusion {
            findings,
            ..Conclusion::without(verdict, "why")
        };
        ClaimResult::new(id, "a claim of many words ".repeat(20), conclusion)
    }

    fn picture(claims: Vec<ClaimResult>) -> String {
        let results = Results {
            schema: SCHEMA,
            tool: "t".into(),
            scale: "quick".into(),
            unix_s: 0,
            host: Host::default(),
            quiet: Quiet::default(),
            builds: Vec::new(),
            claims,
        };
        summary(&results).unwrap()
    }

    #[test]
    fn every_claim_has_its_row_with_verdict_ratio_and_what_was_claimed() {
        let more = |ratio, verdict| finding(Some(ratio), Expect::More, verdict);
        let svg = picture(vec![
            claim(
                "C1",
                Verdict::Holds,
                vec![more([2.0, 3.0, 4.0], Verdict::Holds)],
            ),
            claim(
                "C2",
                Verdict::Undecided,
                vec![finding(None, Expect::Level(1.0), Verdict::Undecided)],
            ),
            claim("C20", Verdict::NotYetMeasured, Vec::new()),
        ]);
        for text in [
            ">C1<",
            ">C20<",
            ">holds<",
            ">undecided here<",
            ">not yet measured<",
            ">3.00 [2.00–4.00]<",
            ">claimed: more, 1.1 at least<",
            ">7 lost of a million<",
            "is a &lt; b",
            "prefers-color-scheme: dark",
        ] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.len() < 60_000);
        // A picture that fetches nothing.
        let fetched = svg.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !fetched.contains("http") && !fetched.contains("url(") && !fetched.contains("href")
        );
    }

    #[test]
    fn the_finding_that_decides_is_shown() {
        let held = finding(Some([1.0; 3]), Expect::Level(1.25), Verdict::Holds);
        let broken = finding(Some([3.0; 3]), Expect::Level(1.25), Verdict::DoesNotHold);
        let decided = claim(
            "C1",
            Verdict::DoesNotHold,
            vec![held.clone(), broken.clone()],
        );
        assert_eq!(headline(&decided), Some(&broken));
        let neither = claim("C1", Verdict::Undecided, vec![held.clone(), broken]);
        assert_eq!(headline(&neither), Some(&held));
    }

    #[test]
    fn places_are_powers_of_ten_and_what_lies_beyond_is_at_the_edge() {
        let axis = LogAxis::of([0.2, 50.0].into_iter());
        assert_eq!((axis.low, axis.high), (-1.0, 2.0));
        assert_eq!((axis.place(0.1), axis.place(100.0)), AXIS);
        assert_eq!(axis.place(6000.0), AXIS.1);
        let (left, width) = axis.claimed(Expect::AtLeast(6000.0));
        assert!(left < AXIS.1 && width > 0.0 && left + width <= AXIS.1 + 0.01);
        let (left, width) = axis.claimed(Expect::Level(1.25));
        assert!(left < axis.place(1.0) && left + width > axis.place(1.0));
        // An arrowhead has a line to the edge, a cap has a vertical one.
        assert_eq!(
            axis.interval(&estimate([1.0, 2.0, 500.0]), 10.0)
                .matches('V')
                .count(),
            1
        );
        assert_eq!(
            axis.interval(&estimate([1.0, 2.0, 50.0]), 10.0)
                .matches('V')
                .count(),
            2
        );
    }

    #[test]
    fn words_stay_in_their_place() {
        let lines = wrapped(&"sequential appends ".repeat(30), WORDS_WIDTH, 3);
        assert_eq!(lines.len(), 3);
        assert!(
            lines.iter().all(|line| width(line) <= WORDS_WIDTH),
            "{lines:?}"
        );
        assert!(lines[2].ends_with('…') && !lines[1].ends_with('…'));
        assert_eq!(wrapped("a b", WORDS_WIDTH, 2), ["a b"]);
    }
}
