//! Files mapped for reading, and which of their pages are in memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Advice, Mmap, MmapOptions};

use crate::disk::BenchError;

/// A whole file, mapped for reading. The file is one of our scratch folder: nobody else truncates it.
#[derive(Debug)]
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps `file`, which holds at least a byte and is not shortened while it is mapped.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn of(file: &File) -> Result<Self, BenchError> {
        // SAFETY: undefined only if the file is changed by others while it is borrowed as bytes. It lies in a folder of our
        // own with a random name, and the loops that map a file do not write to it meanwhile.
        let map = unsafe { Mmap::map(file) };
        map.map(Self).map_err(BenchError::file("mapping a file"))
    }

    /// Maps `len` bytes from `offset`, a multiple of the page size, of a file as in [`Mapping::of`].
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn slice(file: &File, offset: u64, len: usize) -> Result<Self, BenchError> {
        // SAFETY: as for a whole file.
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map(file) };
        map.map(Self).map_err(BenchError::file("mapping a slice"))
    }

    /// Tells the kernel how it will be read.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn advise(&self, advice: Advice) -> Result<(), BenchError> {
        self.0
            .advise(advice)
            .map_err(BenchError::file("advice on a mapping"))
    }

    /// The share of its pages that is in the page cache, 0 to 1.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn resident_share(&self) -> Result<f64, BenchError> {
        let page = rustix::param::page_size();
        let pages = self.0.len().div_ceil(page);
        let mut resident = vec![0u8; pages];
        // SAFETY: the address and length are those of a mapping that lives as long as `self`; the vector has a byte for
        // each of its pages, as mincore(2) asks.
        let result = unsafe {
            libc::mincore(
                self.0.as_ptr().cast_mut().cast(),
                self.0.len(),
                resident.as_mut_ptr(),
            )
        };
        if result != 0 {
            return Err(BenchError::file("mincore")(io::Error::last_os_error()));
        }
        let count = resident.iter().filter(|page| **page & 1 == 1).count();
        Ok(count as f64 / pages.max(1) as f64)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
