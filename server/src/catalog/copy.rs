//! A store's file in memory, for those who only want to look.

use std::io;
use std::sync::{PoisonError, RwLock};

use redb::StorageBackend;

/// Bytes by which the store may grow its copy, for repairs.
const GROWTH_BYTES_MAX: usize = 64 << 20;

/// The bytes of a file; what the store writes goes into them and is lost.
#[derive(Debug)]
pub(super) struct Copy {
    bytes: RwLock<Vec<u8>>,
    len_max: usize,
}

impl Copy {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            len_max: bytes.len().saturating_add(GROWTH_BYTES_MAX),
            bytes: RwLock::new(bytes),
        }
    }
}

/// The place of `len` bytes from `offset` on.
fn place(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(start..end)
}

impl StorageBackend for Copy {
    fn len(&self) -> Result<u64, io::Error> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        Ok(bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let found = bytes.get(place(offset, out.len())?);
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if len > self.len_max {
            return Err(io::Error::other("the store wants to grow without need"));
        }
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let place = bytes.get_mut(place(offset, data.len())?);
        place
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}
