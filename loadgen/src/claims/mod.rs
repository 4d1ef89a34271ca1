//! `ringlog-load claims`: the documents' claims, measured on this host, with verdicts. benches/METHOD.md explains how.

pub mod allowed;
pub mod broker;
pub mod catalog;
pub mod claim;
pub mod command;
mod crash;
pub mod harm;
pub mod host;
pub mod lab;
pub mod look_up;
pub mod outcome;
pub mod peers;
pub mod plan;
pub mod quiet;
pub mod record;
pub mod report;
mod runner;
pub mod stats;
pub mod verdict;

use std::io;
use std::path::Path;

use ringlog_benches::disk::BenchError;
use thiserror::Error;

pub(crate) use report::number as report_number;

/// Why the claims could not be measured.
#[derive(Debug, Error)]
pub enum ClaimsError {
    /// A signal.
    #[error("interrupted; the same command goes on where it was")]
    Interrupted,
    /// A wrong command line.
    #[error("{0}")]
    Usage(String),
    /// Not enough space.
    #[error("{dir} has {free_mib} MiB free and {claim} needs {needed_mib} MiB: {hint}")]
    Space {
        /// Directory under test.
        dir: String,
        /// Which claim.
        claim: String,
        /// What it needs, a reserve included.
        needed_mib: u64,
        /// What there is.
        free_mib: u64,
        /// What to do.
        hint: &'static str,
    },
    /// The output directory belongs to something else.
    #[error(
        "{0} holds a run with other settings, of another version or from another host: name another --out, or --fresh to \
         discard it"
    )]
    OtherRun(String),
    /// A file of ours.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Plots or page.
    #[error("the report: {0}")]
    Report(String),
}

impl ClaimsError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        |source| Self::File { path, source }
    }
}

/// Why one point, or one claim, was not measured; the others are.
#[derive(Debug, Error)]
pub enum PointError {
    /// A signal: the whole run ends.
    #[error("interrupted")]
    Interrupted,
    /// The host lacks something.
    #[error("{0}")]
    Unavailable(String),
    /// It went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Does it, once more if it fails: a moment's trouble must not cost a point.
fn twice<T>(mut work: impl FnMut() -> Result<T, PointError>) -> Result<T, PointError> {
    match work() {
        Err(PointError::Failed(_)) => work(),
        outcome => outcome,
    }
}

impl From<BenchError> for PointError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Interrupted => Self::Interrupted,
            other => Self::Failed(other.to_string()),
        }
    }
}
