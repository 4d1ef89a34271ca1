//! Errors of the operating system, by number, so that the core can tell a full disk from a broken one.

use std::fmt;
use std::io;

/// An error number of the operating system (`errno`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DiskError(pub i32);

impl DiskError {
    /// `ENOENT`: no such file or directory.
    pub const NOT_FOUND: Self = Self(2);
    /// `EIO`: the device failed.
    pub const IO: Self = Self(5);
    /// `EEXIST`: the file is there already.
    pub const EXISTS: Self = Self(17);
    /// `EINVAL`: what O_DIRECT answers where it is not supported, among others.
    pub const INVALID: Self = Self(22);
    /// `ENOSPC`: the disk is full.
    pub const NO_SPACE: Self = Self(28);
    /// `EOPNOTSUPP`: the file system cannot do it.
    pub const UNSUPPORTED: Self = Self(95);
    /// `EDQUOT`: the quota is used up, a full disk for our purposes.
    pub const QUOTA: Self = Self(122);

    /// Whether the file system does not know the operation.
    #[must_use]
    pub fn is_unsupported(self) -> bool {
        self == Self::UNSUPPORTED
    }

    /// Whether the error goes away when somebody frees space.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self, Self::NO_SPACE | Self::QUOTA)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), f)
    }
}

impl std::error::Error for DiskError {}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::IO, Self)
    }
}
