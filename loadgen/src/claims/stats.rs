//! Medians with bootstrap intervals: pure functions, the same result for the same values.

use ringlog_benches::claims::Random;
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2_000;
/// Share of resampled medians that the interval covers.
const COVERAGE: f64 = 0.95;
/// Start of the random numbers: a report made twice from the same values is the same report.
const SEED: u64 = 0x7269_6e67_6c6f_6700;

/// A median over repetitions and the interval in which resampled medians lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Middle value; the mean of the two middle ones for an even number.
    pub median: f64,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Values it is made of.
    pub n: usize,
}

impl Estimate {
    /// Of `values`, those that are no numbers left out; `None` if nothing is left.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let n = values.len();
        values.sort_by(f64::total_cmp);
        let middle = median(&values)?;
        let mut random = Random(SEED);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let mut resample: Vec<f64> = (0..n)
                    .map(|_| values[random.below(n as u64) as usize])
                    .collect();
                resample.sort_by(f64::total_cmp);
                median(&resample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let tail = (1.0 - COVERAGE) / 2.0;
        let at = |share: f64| medians[((medians.len() - 1) as f64 * share).round() as usize];
        Some(Self {
            median: middle,
            low: at(tail),
            high: at(1.0 - tail),
            n,
        })
    }

    /// Of the ratio of two sides measured in turns: each repetition is divided by the one beside it, so that what drifts
    /// drifts out. `None` without a common repetition.
    #[must_use]
    pub fn ratio(above: &[f64], below: &[f64]) -> Option<Self> {
        let pairs = above.iter().zip(below).filter(|(_, b)| **b > 0.0);
        let ratios: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }

    /// Width of the interval as a share of the median.
    #[must_use]
    pub fn relative_width(&self) -> f64 {
        if self.median == 0.0 {
            return if self.high > self.low {
                f64::INFINITY
            } else {
                0.0
            };
        }
        (self.high - self.low) / self.median.abs()
    }
}

/// The middle of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(f64::midpoint(sorted[(sorted.len() - 1) / 2], upper))
}

/// A straight line through points by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Rise of y for one of x.
    pub per_x: f64,
    /// Standard error of it.
    pub error: f64,
}

impl Slope {
    /// Of `points`; `None` with fewer than three or without any spread in x.
    #[must_use]
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        if points.len() < 3 {
            return None;
        }
        let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
        let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
        if spread == 0.0 {
            return None;
        }
        let shared: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
        let per_x = shared / spread;
        let residual: f64 = points
            .iter()
            .map(|p| (p.1 - mean_y - per_x * (p.0 - mean_x)).powi(2))
            .sum();
        Some(Self {
            per_x,
            error: (residual / (n - 2.0) / spread).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_surrounds_the_median_and_is_the_same_every_time() {
        let values = [9.0, 10.0, 10.5, 11.0, 30.0];
        let estimate = Estimate::of(&values).unwrap();
        assert_eq!((estimate.median, estimate.n), (10.5, 5));
        assert!(estimate.low < 10.5 && estimate.high > 10.5);
        assert!(estimate.low >= 9.0 && estimate.high <= 30.0);
        assert_eq!(Estimate::of(&values), Some(estimate));
    }

    #[test]
    fn few_values_give_their_whole_range() {
        let estimate = Estimate::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (estimate.low, estimate.median, estimate.high),
            (1.0, 2.0, 3.0)
        );
        let single = Estimate::of(&[4.0, f64::NAN]).unwrap();
        assert_eq!((single.low, single.high, single.n), (4.0, 4.0, 1));
        assert_eq!(Estimate::of(&[f64::INFINITY]), None);
    }

    #[test]
    fn many_values_narrow_the_interval() {
        let values: Vec<f64> = (0..101).map(f64::from).collect();
        let estimate = Estimate::of(&values).unwrap();
        assert_eq!(estimate.median, 50.0);
        assert!(estimate.low > 25.0 && estimate.high < 75.0);
    }

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        // The host slowed down threefold: the ratio of neighbours does not move.
        let estimate = Estimate::ratio(&[20.0, 40.0, 60.0], &[10.0, 20.0, 30.0]).unwrap();
        assert_eq!(
            (estimate.low, estimate.median, estimate.high),
            (2.0, 2.0, 2.0)
        );
        assert_eq!(Estimate::ratio(&[1.0], &[0.0]), None);
        assert_eq!(Estimate::of(&[0.0, 0.0]).unwrap().relative_width(), 0.0);
    }

    #[test]
    fn a_slope_comes_with_its_error() {
        let exact = Slope::of(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert!((exact.per_x - 2.0).abs() < 1e-9 && exact.error < 1e-9);
        let rough = Slope::of(&[(0.0, 1.0), (1.0, 4.0), (2.0, 4.0), (3.0, 7.0)]).unwrap();
        assert!(rough.error > 0.1);
        assert_eq!(Slope::of(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
