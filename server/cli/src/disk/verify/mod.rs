//! `ringlog verify`: everything on disk, checked without a server.

mod catalog;
mod checkpoints;
mod indexes;
mod journals;
mod report;
mod segments;
mod start;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::failure::{Failure, Outcome};

use report::Report;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog verify /var/lib/ringlog
  ringlog verify /var/lib/ringlog --json | jq .faults

What is checked: the catalog; both checkpoints of every shard and of the directory, and each partition's record in them;
every journal frame, which of them count and whether one is missing that was acknowledged; every segment's batches
(checksum, offsets, leader epochs) and its indexes against them; and a start of the server is tried without writing, to
say what it would do. It takes the memory of the journals, as a start does. Nothing is changed.

Exit status: 0 nothing is wrong, 1 there are faults, 2 the directory cannot be looked at.";

/// `ringlog verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Data directory of a server that does not run.
    directory: PathBuf,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Carries the command out.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let data = &args.directory;
    refuse_foreign(data)?;
    // Held until the end: no server starts meanwhile.
    let _lock = lock(data)?;
    let mut report = Report::new(data, args.quiet || args.json);
    let catalog = catalog::check(data, &mut report);
    let state = checkpoints::check(data, &mut report);
    if let Some(state) = &state {
        journals::check(data, state, &mut report);
        segments::check(data, catalog.as_ref(), state, &mut report);
    }
    note_strangers(data, &mut report);
    if let Some(catalog) = &catalog {
        start::try_it(data, catalog, state.as_ref(), &mut report);
    }
    report.print(args.json)
}

/// A directory that is not ringlog's is told as such, not as one full of faults.
fn refuse_foreign(data: &Path) -> Outcome {
    let place = data.display();
    let meta = fs::metadata(data).map_err(|e| Failure::unusable(format!("{place}: {e}")))?;
    if !meta.is_dir() {
        return Err(Failure::unusable(format!("{place} is no directory"))
            .remedy("`ringlog dump` looks at single files"));
    }
    let parts = [
        "catalog",
        "checkpoint-0",
        "checkpoint-1",
        "shard-0",
        "topics",
    ];
    if !parts.iter().any(|part| data.join(part).exists()) {
        return Err(Failure::unusable(format!(
            "{place} is no data directory of ringlog: it has no catalog"
        ))
        .remedy("give the directory that ringlog-server has as --data"));
    }
    fs::read_dir(data).map_err(|e| Failure::unusable(format!("{place}: {e}")))?;
    Ok(())
}

/// Takes the lock that a running server holds.
fn lock(data: &Path) -> Outcome<Option<File>> {
    let path = data.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::unusable(format!("{}: {error}", path.display()))),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(_) => Err(Failure::unusable(format!(
            "{} is in use by a running server, and its files change while it runs",
            data.display()
        ))
        .remedy("stop the server first, or verify a copy made while it was stopped")),
    }
}

/// Files in the data directory that a server does not know.
fn note_strangers(data: &Path, report: &mut Report) {
    let known = |name: &str| {
        matches!(
            name,
            "LOCK" | ".probe" | "catalog" | "catalog.new" | "topics" | "lost+found"
        ) || name.starts_with("checkpoint-")
            || name.starts_with("shard-")
    };
    for name in names(data) {
        if !known(&name) {
            report.note(
                &name,
                None,
                "is nothing that ringlog makes",
                "a start leaves it alone",
            );
        }
    }
}

/// Names in a directory in order; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}
