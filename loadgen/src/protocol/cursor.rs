//! Bounded reading of the protocol's primitive types.

use thiserror::Error;

/// The bytes do not hold what the protocol says they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed {0}")]
pub struct Malformed(
    /// What was being read.
    pub &'static str,
);

/// A position in a frame; every read moves it and fails rather than going past the end.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed("integer"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// INT8.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    /// INT16.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// INT32.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// INT64.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// So many bytes.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed("length"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// STRING or NULLABLE_STRING; a negative length is `None`.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn string(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.i16()?;
        usize::try_from(length)
            .ok()
            .map(|length| self.take(length))
            .transpose()
    }

    /// BYTES or NULLABLE_BYTES; a negative length is `None`.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = self.i32()?;
        usize::try_from(length)
            .ok()
            .map(|length| self.take(length))
            .transpose()
    }

    /// UNSIGNED_VARINT of at most 32 bits.
    ///
    /// # Errors
    /// Past the end, or a number that is longer.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("varint"));
            }
        }
        Err(Malformed("varint"))
    }

    /// COMPACT_STRING or COMPACT_NULLABLE_STRING.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn compact_string(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = (self.uvarint()? as usize).checked_sub(1);
        length.map(|length| self.take(length)).transpose()
    }

    /// COMPACT_ARRAY's element count, 0 for a null array; every element takes at least one byte.
    ///
    /// # Errors
    /// Past the end, or more elements than bytes.
    #[inline]
    pub fn compact_count(&mut self) -> Result<usize, Malformed> {
        let count = (self.uvarint()? as usize).saturating_sub(1);
        if count > self.rest.len() {
            return Err(Malformed("element count"));
        }
        Ok(count)
    }

    /// Reads past tagged fields, whatever they hold.
    ///
    /// # Errors
    /// Past the end.
    #[inline]
    pub fn skip_tags(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.uvarint()? {
            let _tag = self.uvarint()?;
            let length = self.uvarint()?;
            self.take(length as usize)?;
        }
        Ok(())
    }

    /// ARRAY's element count, 0 for a null array; every element takes at least one byte.
    ///
    /// # Errors
    /// Past the end, or more elements than bytes.
    #[inline]
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.i32()?.max(0) as usize;
        if count > self.rest.len() {
            return Err(Malformed("element count"));
        }
        Ok(count)
    }
}
