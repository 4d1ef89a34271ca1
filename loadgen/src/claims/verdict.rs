//! What a ratio with its interval says about a claim. A verdict needs the whole interval on one side of a threshold.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::stats::Estimate;

/// Values below this many repetitions decide nothing.
const REPETITIONS_MIN: usize = 3;
/// Ratios nearer to 1 than this are no difference.
pub const MARGIN: f64 = 1.1;

/// The outcome for a claim on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As claimed, in direction and size.
    Holds,
    /// In the claimed direction, by less than claimed.
    DirectionOnly,
    /// Less than claimed, and perhaps no difference, or the other way round.
    DoesNotHold,
    /// What is claimed lies within the interval's ends: this run cannot tell.
    Undecided,
    /// Nobody has built the measurement, or it was not asked for.
    NotYetMeasured,
    /// The host lacks what it takes.
    CannotBeMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::DirectionOnly => "holds in direction only",
            Self::DoesNotHold => "does not hold here",
            Self::Undecided => "undecided here",
            Self::NotYetMeasured => "not yet measured",
            Self::CannotBeMeasured => "cannot be measured here",
        })
    }
}

/// What is claimed of a ratio, the side said to be better above the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// At least so many times as much.
    AtLeast(f64),
    /// The same, give or take this factor.
    Level(f64),
    /// At most so many times as much: less is no fault.
    AtMost(f64),
    /// More of one than the other, without a number.
    More,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(threshold) => write!(f, "at least {threshold}"),
            Self::Level(factor) => write!(f, "level, within {factor}"),
            Self::AtMost(factor) => write!(f, "at most {factor}"),
            Self::More => write!(f, "more, {MARGIN} at least"),
        }
    }
}

impl Expect {
    /// Where the ratio lies if the claim holds: from, to.
    #[must_use]
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Self::AtLeast(threshold) => (threshold, f64::INFINITY),
            Self::More => (MARGIN, f64::INFINITY),
            Self::Level(factor) => (1.0 / factor, factor),
            Self::AtMost(factor) => (0.0, factor),
        }
    }

    /// Judges a ratio.
    #[must_use]
    pub fn judge(self, ratio: Option<&Estimate>) -> Verdict {
        let Some(ratio) = ratio.filter(|ratio| ratio.n >= REPETITIONS_MIN) else {
            return Verdict::Undecided;
        };
        match self {
            Self::AtLeast(threshold) => at_least(ratio, threshold),
            Self::More => at_least(ratio, MARGIN),
            Self::Level(_) | Self::AtMost(_) => within(ratio, self.bounds()),
        }
    }
}

/// What is below the claimed size does not hold, unless the direction is clear.
fn at_least(ratio: &Estimate, threshold: f64) -> Verdict {
    if ratio.low >= threshold {
        Verdict::Holds
    } else if ratio.high >= threshold {
        Verdict::Undecided
    } else if ratio.low >= MARGIN {
        Verdict::DirectionOnly
    } else {
        Verdict::DoesNotHold
    }
}

fn within(ratio: &Estimate, (low, high): (f64, f64)) -> Verdict {
    if ratio.low >= low && ratio.high <= high {
        Verdict::Holds
    } else if ratio.high < low || ratio.low > high {
        Verdict::DoesNotHold
    } else {
        Verdict::Undecided
    }
}

/// The verdict of a claim made of several parts that must all hold.
#[must_use]
pub fn all(parts: impl IntoIterator<Item = Verdict>) -> Verdict {
    use Verdict::{CannotBeMeasured, DirectionOnly, DoesNotHold, Holds, NotYetMeasured, Undecided};
    let parts: Vec<Verdict> = parts.into_iter().collect();
    // The first that is found decides.
    [
        DoesNotHold,
        Undecided,
        NotYetMeasured,
        CannotBeMeasured,
        DirectionOnly,
        Holds,
    ]
    .into_iter()
    .find(|verdict| parts.contains(verdict))
    .unwrap_or(NotYetMeasured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(low: f64, high: f64) -> Estimate {
        Estimate {
            median: f64::midpoint(low, high),
            low,
            high,
            n: 5,
        }
    }

    #[test]
    fn a_verdict_needs_the_interval_clear_of_the_threshold() {
        let judge = |low, high| Expect::AtLeast(10.0).judge(Some(&between(low, high)));
        assert_eq!(judge(11.0, 14.0), Verdict::Holds);
        assert_eq!(judge(9.0, 14.0), Verdict::Undecided);
        assert_eq!(judge(2.0, 9.0), Verdict::DirectionOnly);
        assert_eq!(
            judge(1.0, 9.0),
            Verdict::DoesNotHold,
            "neither the size nor the direction"
        );
        assert_eq!(judge(0.9, 1.05), Verdict::DoesNotHold);
        assert_eq!(judge(0.1, 0.5), Verdict::DoesNotHold);
        assert_eq!(judge(0.5, 20.0), Verdict::Undecided, "a noisy one");
    }

    #[test]
    fn more_is_decided_by_the_margin_alone() {
        let judge = |low, high| Expect::More.judge(Some(&between(low, high)));
        assert_eq!(judge(1.2, 1.5), Verdict::Holds);
        assert_eq!(judge(0.98, 1.05), Verdict::DoesNotHold);
        assert_eq!(judge(1.05, 1.3), Verdict::Undecided);
    }

    #[test]
    fn level_needs_the_interval_inside() {
        let judge = |low, high| Expect::Level(1.25).judge(Some(&between(low, high)));
        assert_eq!(judge(0.9, 1.1), Verdict::Holds);
        assert_eq!(judge(0.5, 0.7), Verdict::DoesNotHold);
        assert_eq!(judge(1.3, 1.4), Verdict::DoesNotHold);
        assert_eq!(judge(1.1, 1.4), Verdict::Undecided);
    }

    #[test]
    fn less_than_at_most_is_no_fault() {
        let judge = |low, high| Expect::AtMost(1.25).judge(Some(&between(low, high)));
        assert_eq!(judge(0.9, 1.1), Verdict::Holds);
        assert_eq!(judge(0.5, 0.7), Verdict::Holds);
        assert_eq!(judge(1.3, 1.4), Verdict::DoesNotHold);
        assert_eq!(judge(0.7, 1.4), Verdict::Undecided);
    }

    #[test]
    fn two_repetitions_decide_nothing() {
        let mut few = between(11.0, 14.0);
        few.n = 2;
        assert_eq!(Expect::AtLeast(10.0).judge(Some(&few)), Verdict::Undecided);
        assert_eq!(Expect::More.judge(None), Verdict::Undecided);
    }

    #[test]
    fn the_weakest_part_decides_the_whole() {
        use Verdict::{DirectionOnly, DoesNotHold, Holds, NotYetMeasured, Undecided};
        assert_eq!(all([Holds, Holds]), Holds);
        assert_eq!(all([Holds, DirectionOnly]), DirectionOnly);
        assert_eq!(all([Undecided, DirectionOnly]), Undecided);
        assert_eq!(all([DoesNotHold, Undecided]), DoesNotHold);
        assert_eq!(all([]), NotYetMeasured);
    }
}
