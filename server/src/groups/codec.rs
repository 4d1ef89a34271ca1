//! Reading and writing the versioned structures that Kafka keeps in its internal topics.

use bytes::{Buf, BufMut, Bytes};

use super::StrBytes;
use super::record::RecordFormatError;

pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    // Strings come from requests, where their length has 15 bits or is checked before it is kept.
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

pub(crate) fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

pub(crate) fn put_unsigned_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

/// Reads a versioned structure; strings and arrays are compact when the value's version is flexible.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
    pub(crate) version: i16,
    pub(crate) flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Result<Self, RecordFormatError> {
        let mut reader = Self {
            rest: bytes,
            what,
            version: 0,
            flexible: false,
        };
        reader.version = reader.i16()?;
        Ok(reader)
    }

    /// Reads a compact part of a flexible structure that has no version of its own.
    pub(crate) fn within(bytes: &'a [u8], what: &'static str) -> Self {
        Self {
            rest: bytes,
            what,
            version: 0,
            flexible: true,
        }
    }

    /// Checks that a value's version is one up to `max`; from `flexible` on it has compact encodings.
    pub(crate) fn value_version(
        &mut self,
        max: i16,
        flexible: i16,
    ) -> Result<i16, RecordFormatError> {
        if !(0..=max).contains(&self.version) {
            return Err(RecordFormatError::Version(self.version));
        }
        self.flexible = self.version >= flexible;
        Ok(self.version)
    }

    pub(crate) fn malformed(&self) -> RecordFormatError {
        RecordFormatError::Malformed(self.what)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, RecordFormatError> {
        self.rest.try_get_i8().map_err(|_| self.malformed())
    }

    pub(crate) fn i16(&mut self) -> Result<i16, RecordFormatError> {
        self.rest.try_get_i16().map_err(|_| self.malformed())
    }

    pub(crate) fn i32(&mut self) -> Result<i32, RecordFormatError> {
        self.rest.try_get_i32().map_err(|_| self.malformed())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RecordFormatError> {
        self.rest.try_get_i64().map_err(|_| self.malformed())
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, RecordFormatError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.rest.try_get_u8().map_err(|_| self.malformed())?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| self.malformed());
            }
        }
        Err(self.malformed())
    }

    /// A compact length: 0 is null.
    pub(crate) fn compact_length(&mut self) -> Result<i64, RecordFormatError> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }

    pub(crate) fn take(&mut self, length: i64) -> Result<&'a [u8], RecordFormatError> {
        let length = usize::try_from(length).map_err(|_| self.malformed())?;
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn string_length(&mut self) -> Result<i64, RecordFormatError> {
        if self.flexible {
            self.compact_length()
        } else {
            self.i16().map(i64::from)
        }
    }

    pub(crate) fn text(&mut self, length: i64) -> Result<StrBytes, RecordFormatError> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| self.malformed())?;
        Ok(text.into())
    }

    pub(crate) fn string(&mut self) -> Result<StrBytes, RecordFormatError> {
        let length = self.string_length()?;
        self.text(length)
    }

    pub(crate) fn nullable(&mut self) -> Result<Option<StrBytes>, RecordFormatError> {
        match self.string_length()? {
            -1 => Ok(None),
            length => self.text(length).map(Some),
        }
    }

    pub(crate) fn count(&mut self) -> Result<i64, RecordFormatError> {
        if self.flexible {
            self.compact_length()
        } else {
            self.i32().map(i64::from)
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, RecordFormatError> {
        let length = self.count()?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// Reads tagged fields, which only flexible versions have.
    pub(crate) fn tags(
        &mut self,
        mut field: impl FnMut(u32, &'a [u8]),
    ) -> Result<(), RecordFormatError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = i64::from(self.unsigned_varint()?);
            field(tag, self.take(length)?);
        }
        Ok(())
    }
}
