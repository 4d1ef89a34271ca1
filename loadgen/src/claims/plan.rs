//! Which points of a claim's grid are measured, and how often, within its time.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PointError;

/// Parameters of a point by name.
pub type Params = Map<String, Value>;

/// One thing to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its exact parameters.
    pub params: Params,
    /// 0 for what the verdict rests on; the higher, the sooner it is left out.
    pub rank: u32,
    /// Seconds of one repetition, warm-up and preparation included.
    pub seconds: f64,
}

impl Point {
    /// A point of these parameters, which serialise to an object.
    #[must_use]
    pub fn new(params: &impl Serialize, rank: u32, seconds: f64) -> Self {
        let params = match serde_json::to_value(params) {
            Ok(Value::Object(params)) => params,
            other => unreachable!("parameters are an object of plain values, not {other:?}"),
        };
        Self {
            params,
            rank,
            seconds,
        }
    }

    /// The parameters as the type they were made of.
    ///
    /// # Errors
    /// [`PointError::Failed`] for parameters of another shape.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, PointError> {
        serde_json::from_value(Value::Object(self.params.clone()))
            .map_err(|error| PointError::Failed(format!("{}: {error}", self.key())))
    }

    /// The name under which it is recorded: its parameters, in order.
    #[must_use]
    pub fn key(&self) -> String {
        key_of(&self.params)
    }
}

/// `name=value` of each parameter.
#[must_use]
pub fn key_of(params: &Params) -> String {
    let words: Vec<String> = params
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    words.join(" ")
}

/// How often a claim wants its points repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// Fewer decide nothing.
    pub min: u32,
    /// Points beyond rank 0 are measured only if all can be repeated this often: one outlier must not decide.
    pub steady: u32,
    /// More are not needed.
    pub wanted: u32,
}

/// What was left out to fit the time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thinning {
    /// Points of the whole grid.
    pub points: usize,
    /// Points that are measured.
    pub kept: usize,
    /// Repetitions of each.
    pub repeats: u32,
    /// Repetitions that a longer run would make.
    pub repeats_wanted: u32,
    /// Seconds the claim may take.
    pub budget_s: f64,
    /// Seconds it is expected to take.
    pub expected_s: f64,
    /// What else limits it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// A claim's plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the order of the grid: neighbours are measured one after the other.
    pub points: Vec<Point>,
    /// What fell away.
    pub thinning: Thinning,
}

/// Keeps as many points as fit into `budget_s`, lowest rank first and whole ranks as far as they fit `repeats.steady` times; time that is left goes into repetitions. Points of rank 0 are kept even if they do not fit:
/// without them there is no verdict, and the expected time says so.
#[must_use]
pub fn thin(points: Vec<Point>, repeats: Repeats, setup_s: f64, budget_s: f64) -> Plan {
    let total = points.len();
    let mut ranks: Vec<u32> = points.iter().map(|point| point.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let cost = |kept: &[Point], repeats: u32| -> f64 {
        setup_s + kept.iter().map(|point| point.seconds).sum::<f64>() * f64::from(repeats)
    };
    let up_to = |rank: u32| -> Vec<Point> {
        points
            .iter()
            .filter(|point| point.rank <= rank)
            .cloned()
            .collect()
    };
    let last = ranks
        .iter()
        .copied()
        .rev()
        .find(|&rank| rank == 0 || cost(&up_to(rank), repeats.steady) <= budget_s)
        .unwrap_or(ranks.first().copied().unwrap_or(0));
    let kept = up_to(last);
    let count = (repeats.min..=repeats.wanted)
        .rev()
        .find(|&count| cost(&kept, count) <= budget_s)
        .unwrap_or(repeats.min);
    Plan {
        thinning: Thinning {
            points: total,
            kept: kept.len(),
            repeats: count,
            repeats_wanted: repeats.wanted,
            budget_s,
            expected_s: cost(&kept, count),
            remark: None,
        },
        points: kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn grid() -> Vec<Point> {
        (0..12)
            .map(|n| Point::new(&json!({ "n": n }), n / 4, 1.0))
            .collect()
    }

    const REPEATS: Repeats = Repeats {
        min: 2,
        steady: 3,
        wanted: 5,
    };

    #[test]
    fn all_fits_a_long_run() {
        let plan = thin(grid(), REPEATS, 2.0, 100.0);
        assert_eq!((plan.points.len(), plan.thinning.repeats), (12, 5));
        assert_eq!(plan.thinning.expected_s, 62.0);
    }

    #[test]
    fn repetitions_go_before_points_and_points_by_rank() {
        let plan = thin(grid(), REPEATS, 2.0, 50.0);
        assert_eq!((plan.points.len(), plan.thinning.repeats), (12, 4));
        let plan = thin(grid(), REPEATS, 2.0, 30.0);
        assert_eq!((plan.points.len(), plan.thinning.repeats), (8, 3));
        assert!(plan.points.iter().all(|point| point.rank < 2));
        assert!(plan.thinning.expected_s <= 30.0);
        assert_eq!((plan.thinning.points, plan.thinning.kept), (12, 8));
    }

    #[test]
    fn what_the_verdict_needs_stays_and_the_excess_is_told() {
        let plan = thin(grid(), REPEATS, 2.0, 5.0);
        assert_eq!((plan.points.len(), plan.thinning.repeats), (4, 2));
        assert_eq!(plan.thinning.expected_s, 10.0);
        assert_eq!(thin(Vec::new(), REPEATS, 0.0, 5.0).points.len(), 0);
    }

    #[test]
    fn a_key_names_every_parameter() {
        let point = Point::new(
            &json!({ "op": "read", "block": 4096, "sync": false }),
            0,
            1.0,
        );
        // Objects of serde_json sort their names.
        assert_eq!(point.key(), "block=4096 op=read sync=false");
    }
}
