//! Where claims are measured: a scratch folder on the disk under test, cores for either side, the server's binary.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ringlog_benches::disk::{BenchError, SPARE, Scratch};
use rustix::fs::{statfs, statvfs};
use rustix::thread::sched_getaffinity;

use super::claim::Scale;
use super::{ClaimsError, PointError};
use crate::run::pin;

/// Start of the scratch folder's name.
const PREFIX: &str = ".ringlog-claims-";
/// What statfs(2) calls file systems that are memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6_u32 as i64;

/// Cores for the side that serves and the side that loads; the same where there is only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores {
    /// Of the server.
    pub server: Vec<usize>,
    /// Of the load.
    pub load: Vec<usize>,
}

impl Cores {
    /// Half of the cores this process may use for each.
    #[must_use]
    pub fn split() -> Self {
        let mut all = Vec::new();
        if let Ok(set) = sched_getaffinity(None) {
            all = (0..rustix::thread::CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .collect();
        }
        let half = all.len() / 2;
        if half == 0 {
            return Self {
                server: all.clone(),
                load: all,
            };
        }
        Self {
            server: all[..half].to_vec(),
            load: all[half..].to_vec(),
        }
    }

    /// Works on the load's cores, in a thread of its own: those of the one that calls stay as they are.
    ///
    /// # Errors
    /// Those of the work; [`PointError::Failed`] where a thread cannot be pinned.
    pub fn on_load<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, PointError> + Send,
    ) -> Result<T, PointError> {
        let pinned = || {
            pin(&self.load)
                .map_err(|error| PointError::Failed(format!("cores {:?}: {error}", self.load)))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(pinned).join())
            .map_err(|_| PointError::Failed("the load broke off".into()))?
    }
}

/// What every claim shares.
#[derive(Debug)]
pub struct Lab {
    /// Folder of our own on the disk under test, removed at the end.
    pub scratch: Scratch,
    /// How long the run may take.
    pub scale: Scale,
    /// Who runs where.
    pub cores: Cores,
    /// The server's binary, if there is one.
    pub server: Option<PathBuf>,
    /// Real log lines.
    pub logs: Vec<PathBuf>,
    /// Where histograms go.
    pub out: PathBuf,
}

impl Lab {
    /// Makes the scratch folder in `dir`; `stop` is raised by a signal.
    ///
    /// # Errors
    /// [`ClaimsError`]: no such directory, or one in memory.
    pub fn new(
        dir: &Path,
        scale: Scale,
        server: Option<PathBuf>,
        logs: Vec<PathBuf>,
        out: &Path,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, ClaimsError> {
        let system =
            statfs(dir).map_err(|error| ClaimsError::file(dir)(std::io::Error::from(error)))?;
        if [TMPFS, RAMFS].contains(&(system.f_type as i64)) {
            return Err(ClaimsError::Usage(format!(
                "{} lies in memory (tmpfs): O_DIRECT and fsync mean nothing there; name a directory on a disk with --dir",
                dir.display()
            )));
        }
        let scratch = Scratch::named(dir, PREFIX, stop).map_err(|error| match error {
            BenchError::File { what, source } => ClaimsError::File { path: what, source },
            other => ClaimsError::Usage(other.to_string()),
        })?;
        Ok(Self {
            scratch,
            scale,
            cores: Cores::split(),
            server,
            logs,
            out: out.to_owned(),
        })
    }
}

/// Bytes that are free in `dir`.
///
/// # Errors
/// [`ClaimsError::File`].
pub fn free_bytes(dir: &Path) -> Result<u64, ClaimsError> {
    let system =
        statvfs(dir).map_err(|error| ClaimsError::file(dir)(std::io::Error::from(error)))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Fails unless `needed` bytes and a reserve are free in `dir`.
///
/// # Errors
/// [`ClaimsError::Space`].
pub fn check_space(dir: &Path, claim: &str, needed: u64, scale: Scale) -> Result<u64, ClaimsError> {
    let free = free_bytes(dir)?;
    let needed = needed.saturating_add(SPARE);
    if free >= needed {
        return Ok(free);
    }
    Err(ClaimsError::Space {
        dir: dir.display().to_string(),
        claim: claim.to_owned(),
        needed_mib: needed >> 20,
        free_mib: free >> 20,
        hint: match scale {
            Scale::Full => "name another --dir, or take --quick",
            Scale::Quick | Scale::Tiny => "name another --dir, or leave it out with --only",
        },
    })
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A lab of the smallest scale in `folder`, which a signal has stopped already if `stopped`.
    pub(in crate::claims) fn lab_in(folder: &Path, server: Option<PathBuf>, stopped: bool) -> Lab {
        let stop = Arc::new(AtomicBool::new(stopped));
        Lab::new(folder, Scale::Tiny, server, Vec::new(), folder, stop).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_disk() {
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
            return; // Not every host has it.
        };
        let stop = Arc::new(AtomicBool::new(false));
        let error = Lab::new(
            folder.path(),
            Scale::Tiny,
            None,
            Vec::new(),
            folder.path(),
            stop,
        )
        .expect_err("refused");
        assert!(error.to_string().contains("tmpfs"), "{error}");
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_in_one_line() {
        let error = check_space(".".as_ref(), "C4", 1 << 60, Scale::Full).expect_err("refused");
        let line = error.to_string();
        assert!(
            line.contains("C4 needs") && line.contains("--quick"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
        assert!(check_space(".".as_ref(), "C4", 0, Scale::Full).is_ok());
    }

    #[test]
    fn work_of_the_load_is_done_on_its_cores() {
        let allowed = || {
            let cores = Cores::split();
            let mut all = [cores.server, cores.load].concat();
            all.dedup();
            all
        };
        let before = allowed();
        let cores = Cores {
            server: before.clone(),
            load: vec![before[before.len() - 1]],
        };
        assert_eq!(cores.on_load(|| Ok(allowed())).unwrap(), cores.load);
        assert_eq!(allowed(), before);
        let none = Cores {
            load: vec![usize::MAX],
            ..cores
        };
        assert!(none.on_load(|| Ok(())).is_err());
    }

    #[test]
    fn sides_have_cores_of_their_own_where_there_are_two() {
        let cores = Cores::split();
        assert!(!cores.load.is_empty());
        if cores.load != cores.server {
            assert!(cores.load.iter().all(|core| !cores.server.contains(core)));
        }
    }
}
