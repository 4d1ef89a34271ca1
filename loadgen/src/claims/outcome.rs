//! What a claim's judge says: findings with verdicts, and the plots that show them.

use serde::{Deserialize, Serialize};

use super::plan::Thinning;
use super::record::Measurement;
use super::stats::Estimate;
use super::verdict::{Expect, Verdict};

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What it is.
    pub name: String,
    /// What was measured.
    pub value: Option<Estimate>,
    /// In what.
    pub unit: String,
}

/// One comparison, or one figure against a number of the documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What is asked.
    pub question: String,
    /// The side said to be better.
    pub above: Side,
    /// The other, or the number of the documents.
    pub below: Side,
    /// `above` over `below`, repetition by repetition.
    pub ratio: Option<Estimate>,
    /// What is claimed of the ratio.
    pub expect: Expect,
    /// What follows.
    pub verdict: Verdict,
}

impl Finding {
    /// Compares a figure of two measurements that took turns.
    #[must_use]
    pub fn compare(
        question: impl Into<String>,
        (above_name, above): (&str, &Measurement),
        (below_name, below): (&str, &Measurement),
        (figure, unit): (&str, &str),
        expect: Expect,
    ) -> Self {
        let side = |name: &str, measurement: &Measurement| Side {
            name: name.to_owned(),
            value: measurement.figures.get(figure).copied(),
            unit: unit.to_owned(),
        };
        let ratio = Estimate::ratio(&above.values(figure), &below.values(figure));
        Self {
            question: question.into(),
            above: side(above_name, above),
            below: side(below_name, below),
            verdict: expect.judge(ratio.as_ref()),
            ratio,
            expect,
        }
    }

    /// Compares a figure with a number that the documents give.
    #[must_use]
    pub fn against(
        question: impl Into<String>,
        (name, measurement): (&str, &Measurement),
        (figure, unit): (&str, &str),
        number: f64,
        expect: Expect,
    ) -> Self {
        let values = measurement.values(figure);
        let ratio = Estimate::ratio(&values, &vec![number; values.len()]);
        Self {
            question: question.into(),
            above: Side {
                name: name.to_owned(),
                value: measurement.figures.get(figure).copied(),
                unit: unit.to_owned(),
            },
            below: Side {
                name: "the documents".into(),
                value: Some(Estimate {
                    median: number,
                    low: number,
                    high: number,
                    n: 0,
                }),
                unit: unit.to_owned(),
            },
            verdict: expect.judge(ratio.as_ref()),
            ratio,
            expect,
        }
    }
}

/// A value with its interval at a place of a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Place on the x axis: a number for lines, the index of a label for bars.
    pub x: f64,
    /// Value.
    pub y: Estimate,
}

/// Marks of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its marks, in order of x.
    pub marks: Vec<Mark>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Whether steps multiply.
    pub log: bool,
    /// Whether numbers are bytes.
    pub bytes: bool,
}

impl Axis {
    /// An axis whose steps multiply.
    #[must_use]
    pub fn log(label: &str) -> Self {
        Self {
            label: label.into(),
            log: true,
            bytes: false,
        }
    }

    /// An axis of sizes.
    #[must_use]
    pub fn bytes(label: &str) -> Self {
        Self {
            bytes: true,
            ..Self::log(label)
        }
    }

    /// An ordinary axis from 0.
    #[must_use]
    pub fn linear(label: &str) -> Self {
        Self {
            label: label.into(),
            log: false,
            bytes: false,
        }
    }
}

/// A picture, as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Plot {
    /// Lines with error bars.
    Lines {
        /// Above it.
        title: String,
        /// Across.
        x: Axis,
        /// Up.
        y: Axis,
        /// One colour each.
        series: Vec<Series>,
    },
    /// Bars with error bars, one group for each label.
    Bars {
        /// Above it.
        title: String,
        /// Groups.
        labels: Vec<String>,
        /// Up.
        y: Axis,
        /// One colour each; a mark's x is the index of its label.
        series: Vec<Series>,
    },
    /// A table of colours with the number in each cell; colours by logarithm.
    Heat {
        /// Above it.
        title: String,
        /// Across.
        x_label: String,
        /// Columns.
        columns: Vec<String>,
        /// Up.
        y_label: String,
        /// Rows.
        rows: Vec<String>,
        /// Unit of the numbers.
        unit: String,
        /// By row, then column.
        cells: Vec<Vec<Option<f64>>>,
    },
}

/// A table that is no plot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Above it.
    pub title: String,
    /// Column heads.
    pub head: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// What a judge says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    /// The claim's verdict.
    pub verdict: Verdict,
    /// One sentence why.
    pub why: String,
    /// Comparisons; the first is the headline.
    pub findings: Vec<Finding>,
    /// Pictures.
    pub plots: Vec<Plot>,
    /// Tables.
    pub tables: Vec<Table>,
    /// What a reader must know: what is derived, modelled, or missing.
    pub notes: Vec<String>,
}

impl Conclusion {
    /// Nothing measured, and why.
    #[must_use]
    pub fn without(verdict: Verdict, why: impl Into<String>) -> Self {
        Self {
            verdict,
            why: why.into(),
            findings: Vec::new(),
            plots: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// A claim at the end of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimResult {
    /// C1.
    pub id: String,
    /// What the documents claim.
    pub sentence: String,
    /// What this host says.
    pub conclusion: Conclusion,
    /// What was left out to fit the time.
    pub thinning: Option<Thinning>,
    /// Repetitions of the plan that are missing, and why.
    pub cut_short: Option<String>,
    /// All that was measured.
    pub measurements: Vec<Measurement>,
}

impl ClaimResult {
    /// A claim with nothing measured yet.
    #[must_use]
    pub fn new(id: impl Into<String>, sentence: impl Into<String>, conclusion: Conclusion) -> Self {
        Self {
            id: id.into(),
            sentence: sentence.into(),
            conclusion,
            thinning: None,
            cut_short: None,
            measurements: Vec::new(),
        }
    }
}

/// The measurement whose parameters hold all of `wanted`, if it was measured.
#[must_use]
pub fn find<'a>(
    measurements: &'a [Measurement],
    wanted: &serde_json::Value,
) -> Option<&'a Measurement> {
    let wanted = wanted.as_object()?;
    measurements.iter().find(|measurement| {
        !measurement.repetitions.is_empty()
            && wanted
                .iter()
                .all(|(name, value)| measurement.params.get(name) == Some(value))
    })
}
