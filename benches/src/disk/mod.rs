//! The raw loops behind `ringlog-disk`: what a device gives to the engine's patterns of writing and reading when nothing
//! else is in the way.

pub mod commit;
pub(crate) mod files;
pub mod measure;
pub mod read;
pub mod report;
pub mod twice;

pub use files::{Fill, SPARE, Scratch};

use std::io;

use thiserror::Error;

/// Why a measurement did not take place.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A file of the scratch folder.
    #[error("{what}: {source}")]
    File {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// No ring.
    #[error(
        "io_uring cannot be used here: {0}; containers often forbid it (seccomp), and so does kernel.io_uring_disabled"
    )]
    Ring(io::Error),
    /// An operation failed or was short.
    #[error("{what} failed: {source}")]
    Operation {
        /// Which.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not enough space.
    #[error("{needed_mib} MiB are needed in {folder}, {free_mib} MiB are free")]
    Space {
        /// Where.
        folder: String,
        /// How much.
        needed_mib: u64,
        /// How much there is.
        free_mib: u64,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Settings(String),
    /// A signal asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    pub(crate) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::File { what, source }
    }

    pub(crate) fn operation(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Operation { what, source }
    }
}
