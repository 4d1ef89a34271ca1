//! Namespaces of a thread's own.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into new mounts, seen by nobody else; privilege is needed.
///
/// # Errors
/// The system's.
pub(super) fn own_mounts() -> io::Result<()> {
    // SAFETY: what others rely on is a shared table of descriptors, and that is not among the flags.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?)
}

/// Moves the calling thread into a new network without devices, gone with its last thread; privilege is needed.
///
/// # Errors
/// The system's.
pub(super) fn own_network() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}
