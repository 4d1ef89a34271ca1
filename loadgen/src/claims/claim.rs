//! What a claim is to the runner: points, a rig that measures them, and a judge.

use ringlog_benches::claims::Figures;

use super::PointError;
use super::lab::Lab;
use super::outcome::Conclusion;
use super::plan::{Point, Repeats};
use super::record::Measurement;

/// How long the whole run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Seconds: for tests of the tool itself. The figures mean nothing.
    Tiny,
    /// Minutes.
    Quick,
    /// An hour and a half.
    Full,
}

impl Scale {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    /// The value for this scale.
    #[must_use]
    pub fn pick<T>(self, tiny: T, quick: T, full: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    /// The value for this scale, of values that begin with the smallest scale's.
    #[must_use]
    pub fn of<T>(self, [tiny, quick, full]: [T; 3]) -> T {
        self.pick(tiny, quick, full)
    }
}

/// What it takes before the first point.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// Bytes on the disk under test, at most at a time.
    pub bytes: u64,
    /// Seconds to prepare.
    pub setup_s: f64,
}

/// What a run finds on the host, for claims that go as far as it allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Means {
    /// Free bytes on the disk under test.
    pub free_bytes: u64,
    /// MiB of the largest partition that an earlier part of the run has measured.
    pub stored_mib: Option<u64>,
}

/// One claim and how it is measured.
pub trait Claim: Sync {
    /// As the documents number it: C1.
    fn id(&self) -> &'static str;

    /// What the documents claim.
    fn sentence(&self) -> &'static str;

    /// The whole grid, both sides of a comparison next to each other.
    fn points(&self, scale: Scale) -> Vec<Point>;

    /// Space and time to prepare.
    fn needs(&self, scale: Scale) -> Needs;

    /// Seconds in all, preparation included.
    fn budget_s(&self, scale: Scale) -> f64 {
        scale.pick(2.0, 22.0, 280.0)
    }

    /// What a reader of the plan should know, if anything.
    fn remark(&self, _scale: Scale) -> Option<String> {
        None
    }

    /// How often points are repeated.
    fn repeats(&self, scale: Scale) -> Repeats {
        let (min, steady, wanted) = scale.pick((2, 2, 2), (3, 5, 15), (5, 5, 9));
        Repeats {
            min,
            steady,
            wanted,
        }
    }

    /// Prepares what the points need.
    ///
    /// # Errors
    /// [`PointError`]: then no point of the claim is measured.
    fn rig<'a>(&self, lab: &'a Lab, points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError>;

    /// Reads the measurements.
    fn judge(&self, measurements: &[Measurement]) -> Conclusion;
}

/// Something prepared that measures the points of one claim.
pub trait Rig {
    /// Measures one point once.
    ///
    /// # Errors
    /// [`PointError`]: the point is left out, with the reason.
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError>;

    /// Whether a point's first outcome counts, whatever it is. A point that looks for lost data is of this kind: asked once
    /// more, with another moment of the kill, it might find none.
    fn first_counts(&self, _point: &Point) -> bool {
        false
    }

    /// Processes that belong to the measurement.
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }
}
