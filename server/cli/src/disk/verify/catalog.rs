//! The catalog, opened from a copy in memory.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ringlog_server::catalog::Snapshot;
use ringlog_server::catalog::store::{Store, StoreError};
use ringlog_server::config::Config;

use super::report::Report;

const FILE: &str = "catalog";
/// Largest catalog that is read: a million topics take less.
const BYTES_MAX: u64 = 2 << 30;
const REFUSES: &str = "a start refuses until it is restored from a backup";

/// Reads the topics; `None` if that cannot be done.
pub(super) fn check(data: &Path, report: &mut Report) -> Option<Snapshot> {
    let path = data.join(FILE);
    let len = match fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) => {
            report.fault(FILE, None, error.to_string(), REFUSES);
            return None;
        }
    };
    if len > BYTES_MAX {
        let what = format!("has {len} bytes, more than a catalog ever has");
        report.fault(FILE, None, what, REFUSES);
        return None;
    }
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.fault(FILE, None, error.to_string(), REFUSES);
            return None;
        }
    };
    report.read(FILE, len);
    match read(bytes) {
        Ok((sound, snapshot)) => {
            if !sound {
                report.fault(
                    FILE,
                    None,
                    "its checksums do not match: the newest changes in it are damaged",
                    "a start goes back to what is intact, and removes the logs of topics that are missing then: restore \
                     it from a backup first",
                );
            }
            report.checked.topics = snapshot.topics().len() as u64;
            report.checked.partitions = snapshot.partitions() as u64;
            Some(snapshot)
        }
        Err(what) => {
            report.fault(FILE, None, what, REFUSES);
            None
        }
    }
}

/// Whether the store was in order, and its topics.
fn read(bytes: Vec<u8>) -> Result<(bool, Snapshot), String> {
    // The store checks what it reads with assertions in places; on a damaged file they are findings, no faults of ours.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let read = catch_unwind(AssertUnwindSafe(|| -> Result<_, StoreError> {
        let (sound, store) = Store::open_copy(bytes)?;
        Ok((sound, store.load(&Config::default())?))
    }));
    std::panic::set_hook(hook);
    match read {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(format!("cannot be read: {error}")),
        Err(_) => Err("cannot be read: it is damaged".into()),
    }
}
