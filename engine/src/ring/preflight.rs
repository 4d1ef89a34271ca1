//! Can this host and this directory be used, and if not, why, and what mends it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstatvfs, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::buf::{AlignedBuf, BLOCK};

use super::uring::create;

/// The oldest kernel that will do: DEFER_TASKRUN.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The file whose lock says that a process uses the directory.
const LOCK_FILE: &str = "LOCK";
/// A file that is written to try direct I/O, and removed again.
const PROBE_FILE: &str = ".probe";

/// What a start asks for.
#[derive(Debug, Clone, Copy)]
pub struct PreflightOptions {
    /// Accept file systems that lose data with the machine (tmpfs) or that write elsewhere what is overwritten
    /// (btrfs, ZFS, bcachefs), where commits are slow.
    pub any_file_system: bool,
    /// Bytes that must be free on the file system.
    pub free_bytes_min: u64,
    /// Open files needed at least.
    pub descriptors_min: u64,
}

impl Default for PreflightOptions {
    fn default() -> Self {
        Self {
            any_file_system: false,
            free_bytes_min: 1 << 30,
            descriptors_min: 512,
        }
    }
}

/// What was found. The directory stays locked as long as this lives.
#[derive(Debug)]
pub struct Preflight {
    _lock: File,
    /// The kernel's release, as it calls itself.
    pub kernel: String,
    /// The file system's name.
    pub file_system: &'static str,
    /// Bytes free for us on it.
    pub free_bytes: u64,
    /// Files the process may open, after raising the limit as far as it goes.
    pub descriptors: u64,
}

/// Why a start is refused: the cause and what mends it, in one line.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum PreflightError {
    /// `uname` says so, or the ring refuses the flags we need.
    #[error("kernel too old: needs 6.1, this is {0}; boot a newer kernel")]
    KernelTooOld(String),
    /// `ENOSYS`.
    #[error(
        "this kernel has no io_uring (ENOSYS), or the sandbox hides it; use a kernel built with CONFIG_IO_URING, \
         or run outside the sandbox"
    )]
    NoIoUring,
    /// `EPERM`, and the setting says why.
    #[error(
        "io_uring is switched off by kernel.io_uring_disabled = {0}; allow it with \
         'sysctl -w kernel.io_uring_disabled=0'"
    )]
    DisabledBySysctl(u8),
    /// `EPERM`, and the setting allows it.
    #[error(
        "io_uring is blocked by a seccomp filter (EPERM), as container runtimes do; allow io_uring_setup, \
         io_uring_enter and io_uring_register in the container's seccomp profile"
    )]
    BlockedBySeccomp,
    /// `ENOMEM`.
    #[error(
        "the limit of locked memory, {0} bytes, is too low for io_uring; raise it with 'ulimit -l unlimited', \
         LimitMEMLOCK=infinity in a unit, or '--ulimit memlock=-1' for a container"
    )]
    MemlockTooLow(u64),
    /// Any other failure.
    #[error("io_uring_setup: {0}")]
    Ring(io::Error),
    /// The data directory cannot be made or entered.
    #[error("data directory {path}: {error}; make it, or name another")]
    Directory { path: PathBuf, error: io::Error },
    /// No file can be created in it.
    #[error(
        "data directory {path} is not writable: {error}; give the user of this process write permission, or \
         name another"
    )]
    NotWritable { path: PathBuf, error: io::Error },
    /// Its lock is held.
    #[error("data directory {path} is in use by process {holder}; stop it, or name another")]
    InUse { path: PathBuf, holder: String },
    /// Opening or writing with O_DIRECT failed.
    #[error(
        "data directory {path} is on {file_system}, which has no direct I/O (O_DIRECT: {error}); use ext4 or XFS"
    )]
    NoDirectIo {
        path: PathBuf,
        file_system: &'static str,
        error: io::Error,
    },
    /// A file system that is refused unless asked for.
    #[error(
        "data directory {path} is on {file_system}, {why}; use ext4 or XFS, or allow any file system in the \
         configuration"
    )]
    FileSystem {
        path: PathBuf,
        file_system: &'static str,
        why: &'static str,
    },
    /// Nearly full.
    #[error(
        "the file system of {path} has {free} bytes free, {needed} are needed; free space, or name another \
         directory"
    )]
    DiskFull {
        path: PathBuf,
        free: u64,
        needed: u64,
    },
    /// The hard limit is too low.
    #[error(
        "{limit} open files are allowed, {needed} are needed; raise the hard limit with 'ulimit -Hn {needed}' or \
         LimitNOFILE={needed} in a unit"
    )]
    Descriptors { limit: u64, needed: u64 },
}

/// Checks the host, makes the directory when it is not there, locks it, and raises the limit of open files.
///
/// # Errors
/// The first thing found that makes a start impossible.
pub fn preflight(data_dir: &Path, options: &PreflightOptions) -> Result<Preflight, PreflightError> {
    let kernel = kernel()?;
    check_ring(&kernel)?;
    let descriptors = descriptors(options.descriptors_min)?;
    let lock = lock(data_dir)?;
    let (file_system, trouble) = file_system(&lock);
    if let (Some(why), false) = (trouble, options.any_file_system) {
        return Err(PreflightError::FileSystem {
            path: data_dir.to_owned(),
            file_system,
            why,
        });
    }
    let free_bytes = free_bytes(&lock, data_dir)?;
    if free_bytes < options.free_bytes_min {
        return Err(PreflightError::DiskFull {
            path: data_dir.to_owned(),
            free: free_bytes,
            needed: options.free_bytes_min,
        });
    }
    try_direct_io(data_dir).map_err(|error| PreflightError::NoDirectIo {
        path: data_dir.to_owned(),
        file_system,
        error: error.into(),
    })?;
    Ok(Preflight {
        _lock: lock,
        kernel,
        file_system,
        free_bytes,
        descriptors,
    })
}

fn kernel() -> Result<String, PreflightError> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    match version(&release) {
        Some(found) if found < KERNEL_MIN => Err(PreflightError::KernelTooOld(release)),
        _ => Ok(release),
    }
}

/// Major and minor version of a release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// Whether a ring with all the flags we use can be made here.
fn check_ring(kernel: &str) -> Result<(), PreflightError> {
    let Err(error) = create(8, 16) else {
        return Ok(());
    };
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => PreflightError::NoIoUring,
        Some(libc::EINVAL) => PreflightError::KernelTooOld(kernel.to_owned()),
        Some(libc::ENOMEM) => {
            let limit = getrlimit(Resource::Memlock).current;
            PreflightError::MemlockTooLow(limit.unwrap_or(u64::MAX))
        }
        Some(libc::EPERM | libc::EACCES) => {
            let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            match setting.ok().and_then(|text| text.trim().parse().ok()) {
                Some(value @ 1..) => PreflightError::DisabledBySysctl(value),
                _ => PreflightError::BlockedBySeccomp,
            }
        }
        _ => PreflightError::Ring(error),
    })
}

/// Raises the process's limit of open files as far as it goes without privilege. Returns what it is then.
pub fn raise_descriptors() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // What counts is the limit afterwards: the one before may do as well.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors allowed, which are enough.
fn descriptors(needed: u64) -> Result<u64, PreflightError> {
    let limit = raise_descriptors();
    if limit < needed {
        return Err(PreflightError::Descriptors { limit, needed });
    }
    Ok(limit)
}

fn lock(data_dir: &Path) -> Result<File, PreflightError> {
    let path = || data_dir.to_owned();
    std::fs::create_dir_all(data_dir).map_err(|error| PreflightError::Directory {
        path: path(),
        error,
    })?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let unwritable = |error| PreflightError::NotWritable {
        path: path(),
        error,
    };
    let mut file = options.open(data_dir.join(LOCK_FILE)).map_err(unwritable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message.
            let _ = file.take(32).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "unknown".to_owned(),
                holder => holder.to_owned(),
            };
            return Err(PreflightError::InUse {
                path: path(),
                holder,
            });
        }
        Err(error) => return Err(unwritable(error.into())),
    }
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    match note(&mut file) {
        // The number is a courtesy; a full disk is reported as such below.
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(unwritable(error)),
        _ => Ok(file),
    }
}

/// Name of the file system by its magic number (linux/magic.h), and what speaks against it.
fn file_system(file: &File) -> (&'static str, Option<&'static str>) {
    const LOST: &str = "which keeps data in memory and loses it with the machine";
    const COPY: &str =
        "which writes overwritten blocks elsewhere: a commit is no longer one write in place";
    const REMOTE: &str = "whose sync promises depend on another machine";
    let Ok(found) = rustix::fs::fstatfs(file) else {
        return ("an unknown file system", None);
    };
    match found.f_type as u32 {
        0xef53 => ("ext4", None),
        0x5846_5342 => ("XFS", None),
        0xf2f5_2010 => ("F2FS", None),
        0x794c_7630 => ("overlayfs", None),
        0x0102_1994 => ("tmpfs", Some(LOST)),
        0x8584_58f6 => ("ramfs", Some(LOST)),
        0x9123_683e => ("btrfs", Some(COPY)),
        0x2fc1_2fc1 => ("ZFS", Some(COPY)),
        0xca45_1a4e => ("bcachefs", Some(COPY)),
        0x6969 => ("NFS", Some(REMOTE)),
        0xff53_4d42 | 0xfe53_4d42 => ("SMB", Some(REMOTE)),
        0x0102_1997 => ("9p", Some(REMOTE)),
        0x6573_5546 => ("FUSE", None),
        _ => ("an unknown file system", None),
    }
}

fn free_bytes(file: &File, data_dir: &Path) -> Result<u64, PreflightError> {
    let space = fstatvfs(file).map_err(|error| PreflightError::Directory {
        path: data_dir.to_owned(),
        error: error.into(),
    })?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Writes one block past the page cache.
fn try_direct_io(data_dir: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(data_dir, flags, Mode::empty())?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = openat(&dir, PROBE_FILE, flags, Mode::RUSR | Mode::WUSR)?;
    let written = rustix::io::pwrite(&file, &AlignedBuf::zeroed(BLOCK), 0);
    let removed = unlinkat(&dir, PROBE_FILE, rustix::fs::AtFlags::empty());
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    fn any() -> PreflightOptions {
        PreflightOptions {
            any_file_system: true,
            free_bytes_min: 1,
            descriptors_min: 16,
        }
    }

    #[test]
    fn a_good_directory_passes_once_at_a_time() {
        let dir = dir();
        let path = dir.path().join("new/deep");
        let first = preflight(&path, &any()).unwrap();
        assert!(first.free_bytes > 0 && first.descriptors >= 16);
        assert!(version(&first.kernel).unwrap() >= KERNEL_MIN);
        assert!(!path.join(PROBE_FILE).exists());
        let error = preflight(&path, &any()).unwrap_err();
        let holder = std::process::id().to_string();
        assert!(error.to_string().contains(&holder), "{error}");
        drop(first);
        preflight(&path, &any()).unwrap();
    }

    #[test]
    fn each_lack_is_named() {
        let dir = dir();
        let full = PreflightOptions {
            free_bytes_min: u64::MAX,
            ..any()
        };
        let error = preflight(dir.path(), &full).unwrap_err();
        assert!(matches!(error, PreflightError::DiskFull { .. }), "{error}");
        let greedy = PreflightOptions {
            descriptors_min: u64::MAX - 1,
            ..any()
        };
        let error = preflight(dir.path(), &greedy).unwrap_err();
        assert!(
            matches!(error, PreflightError::Descriptors { .. }),
            "{error}"
        );
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = preflight(&file, &any()).unwrap_err();
        assert!(matches!(error, PreflightError::Directory { .. }), "{error}");
        // sysfs takes no new files, from nobody.
        let error = preflight(Path::new("/sys/kernel"), &any()).unwrap_err();
        assert!(
            matches!(error, PreflightError::NotWritable { .. }),
            "{error}"
        );
    }

    #[test]
    fn memory_is_no_disk() {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("no /dev/shm here");
        };
        let options = PreflightOptions {
            any_file_system: false,
            ..any()
        };
        let error = preflight(dir.path(), &options).unwrap_err();
        assert!(error.to_string().contains("tmpfs"), "{error}");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.15"), Some((5, 15)));
        assert_eq!(version("6.18.44-x"), Some((6, 18)));
        assert_eq!(version("strange"), None);
    }

    /// Has `io_uring_setup` fail with `error` on this thread from now on, as a container's filter does.
    fn forbid_rings(error: i32) {
        use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
        let step = |code, jf, k| sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        };
        let refuse = libc::SECCOMP_RET_ERRNO | error as u32;
        let mut program = [
            step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
            step(
                BPF_JMP | BPF_JEQ | BPF_K,
                1,
                libc::SYS_io_uring_setup as u32,
            ),
            step(BPF_RET | BPF_K, 0, refuse),
            step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the program outlives the call that copies it.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            let installed = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter);
            assert_eq!(installed, 0);
        }
    }

    #[test]
    fn a_blocked_ring_says_by_what() {
        let refusal = |error| {
            std::thread::spawn(move || {
                forbid_rings(error);
                check_ring("6.18").unwrap_err()
            })
            .join()
            .unwrap()
        };
        assert!(matches!(refusal(libc::ENOSYS), PreflightError::NoIoUring));
        assert!(matches!(
            refusal(libc::ENOMEM),
            PreflightError::MemlockTooLow(_)
        ));
        assert!(matches!(
            refusal(libc::EINVAL),
            PreflightError::KernelTooOld(_)
        ));
        let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        match (
            refusal(libc::EPERM),
            setting.as_deref().map_or("0", str::trim),
        ) {
            (PreflightError::BlockedBySeccomp, "0") => {}
            (PreflightError::DisabledBySysctl(_), "1" | "2") => {}
            other => panic!("{other:?}"),
        }
    }
}
