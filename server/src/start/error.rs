//! Why the server does not start: one line with cause and remedy, and an exit status for each kind.

use std::io::{self, IsTerminal};
use std::path::Path;

use ringlog_engine::disk::DiskError;
use ringlog_engine::recovery::RecoveryError;
use ringlog_engine::ring::PreflightError;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::catalog::store::StoreError;

/// Why the server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is wrong. Status 3.
    #[error("{0}")]
    Settings(String),
    /// The host cannot run it. Status 4.
    #[error("{0}")]
    Host(String),
    /// Another process uses the data directory. Status 5.
    #[error("{0}")]
    InUse(String),
    /// The data directory is something else, or of another version, or damaged. Status 6.
    #[error("{0}")]
    Format(String),
    /// A port cannot be had. Status 7.
    #[error("{0}")]
    Port(String),
    /// The data directory cannot be read or written. Status 8.
    #[error("{0}")]
    Directory(String),
}

impl StartError {
    /// The process's exit status.
    #[must_use]
    pub fn status(&self) -> i32 {
        match self {
            Self::Settings(_) => 3,
            Self::Host(_) => 4,
            Self::InUse(_) => 5,
            Self::Format(_) => 6,
            Self::Port(_) => 7,
            Self::Directory(_) => 8,
        }
    }

    pub(super) fn settings(line: String) -> Self {
        Self::Settings(line)
    }

    pub(super) fn host(what: &str, error: &io::Error) -> Self {
        Self::Host(format!(
            "{what}: {error}; look at the limits of this process (ulimit -a)"
        ))
    }

    pub(super) fn preflight(error: PreflightError) -> Self {
        let line = error.to_string();
        match error {
            PreflightError::InUse { .. } => Self::InUse(line),
            PreflightError::Directory { .. }
            | PreflightError::NotWritable { .. }
            | PreflightError::NoDirectIo { .. }
            | PreflightError::FileSystem { .. }
            | PreflightError::DiskFull { .. } => Self::Directory(line),
            PreflightError::Descriptors { .. } => {
                Self::Host(format!("{line}, or set a smaller max.connections"))
            }
            _ => Self::Host(line),
        }
    }

    pub(super) fn directory(data: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Directory(format!(
            "data directory {}: {error}; give a directory on a disk that this user may write to",
            data.display()
        ))
    }

    pub(super) fn catalog(data: &Path, error: StoreError) -> Self {
        let catalog = data.join("catalog");
        let place = catalog.display();
        match error {
            StoreError::Format { .. } => Self::Format(format!(
                "{place}: {error}; use the program that wrote it, or another directory"
            )),
            StoreError::Damaged { .. } => {
                Self::Format(format!("{place}: {error}; restore the file from a backup"))
            }
            StoreError::Store(_) => Self::Format(format!(
                "{place}: {error}; if this is not a ringlog data directory, give another one with --data"
            )),
        }
    }

    pub(super) fn recovery(data: &Path, error: &RecoveryError) -> Self {
        let place = data.display();
        match error {
            RecoveryError::Disk { error: cause, .. } if cause.is_full() => {
                Self::Directory(format!(
                    "data directory {place}: {error}; free some space: recovery writes what the journals hold into segments"
                ))
            }
            RecoveryError::Disk { error: cause, .. } if *cause == DiskError::INVALID => {
                Self::Directory(format!(
                    "data directory {place}: {error}; the file system must support O_DIRECT (ext4 and XFS do)"
                ))
            }
            RecoveryError::Disk { .. } => Self::directory(data, error),
            RecoveryError::Damaged(_) | RecoveryError::Format(_) => Self::Format(format!(
                "data directory {place}: {error}; nothing was changed"
            )),
        }
    }
}

/// Sends log lines to standard error: `RUST_LOG` says which, colours only on a terminal.
pub(super) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    if subscriber.try_init().is_err() {
        tracing::debug!("logging is set up already");
    }
}
