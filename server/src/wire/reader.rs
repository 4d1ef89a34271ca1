//! Reads Kafka's primitive types from a request's bytes without copying. Every count and length is checked against
//! the bytes that are there before anything is allocated or cut.
//!
//! Source: the Kafka protocol guide, "Protocol Primitive Types".

use thiserror::Error;

/// A request that does not follow its schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The bytes end inside a field.
    #[error("request ends inside {0}")]
    Truncated(&'static str),
    /// A count or length that the rest of the request cannot hold, or that may not be negative.
    #[error("{what} announces {announced}, {present} bytes are left")]
    Length {
        /// The field.
        what: &'static str,
        /// As on the wire.
        announced: i64,
        /// Bytes left.
        present: usize,
    },
    /// Text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    /// More elements than one request may have, over all its arrays.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Null where the schema wants a value.
    #[error("{0} is null")]
    Null(&'static str),
    /// A variable-length integer of more than 5 bytes.
    #[error("{0} is too long a variable-length integer")]
    Varint(&'static str),
    /// Bytes after the request's last field.
    #[error("{0} bytes follow the request")]
    Trailing(usize),
    /// What the long-tail decoder says.
    #[error("{0}")]
    Decoder(String),
}

/// A cursor over a request's bytes. Methods named `compact` or `flexible` read the encodings of KIP-482.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        /// Reads one big-endian integer.
        ///
        /// # Errors
        /// [`Malformed::Truncated`].
        pub fn $name(&mut self, what: &'static str) -> Result<$type, Malformed> {
            let (head, rest) = self
                .rest
                .split_first_chunk()
                .ok_or(Malformed::Truncated(what))?;
            self.rest = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    };
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`; `flexible` chooses between the two encodings of lengths.
    #[must_use]
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self {
            rest: bytes,
            flexible,
        }
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether lengths are in the compact encoding.
    #[must_use]
    pub fn is_flexible(&self) -> bool {
        self.flexible
    }

    integer!(i8, i8);
    integer!(i16, i16);
    integer!(i32, i32);
    integer!(i64, i64);

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Truncated(what))?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads an unsigned variable-length integer of at most 5 bytes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.i8(what)? as u8;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::Varint(what));
            }
        }
        Err(Malformed::Varint(what))
    }

    /// A length in the request's encoding; `None` is null. `short` lengths have two bytes when not compact.
    fn len(&mut self, short: bool, what: &'static str) -> Result<Option<usize>, Malformed> {
        let announced = if self.flexible {
            i64::from(self.uvarint(what)?) - 1
        } else if short {
            i64::from(self.i16(what)?)
        } else {
            i64::from(self.i32(what)?)
        };
        match announced {
            -1 => Ok(None),
            0.. if announced as usize <= self.rest.len() => Ok(Some(announced as usize)),
            _ => Err(Malformed::Length {
                what,
                announced,
                present: self.rest.len(),
            }),
        }
    }

    /// A nullable string.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn nullable_string(&mut self, what: &'static str) -> Result<Option<&'a str>, Malformed> {
        let Some(len) = self.len(true, what)? else {
            return Ok(None);
        };
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Malformed::Text(what))
    }

    /// A string.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        self.nullable_string(what)?.ok_or(Malformed::Null(what))
    }

    /// Nullable bytes (record batches among them).
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        match self.len(false, what)? {
            None => Ok(None),
            Some(len) => self.take(len, what).map(Some),
        }
    }

    /// An array's count; `None` is null. Each element takes at least `element_bytes` on the wire, so a lying count
    /// is refused before memory is set aside for it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn nullable_array(
        &mut self,
        element_bytes: usize,
        what: &'static str,
    ) -> Result<Option<usize>, Malformed> {
        let present = self.rest.len();
        match self.len(false, what)? {
            Some(count) if count.saturating_mul(element_bytes) > self.rest.len() => {
                Err(Malformed::Length {
                    what,
                    announced: count as i64,
                    present,
                })
            }
            other => Ok(other),
        }
    }

    /// An array's count, null being none.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn array(&mut self, element_bytes: usize, what: &'static str) -> Result<usize, Malformed> {
        self.nullable_array(element_bytes, what)?
            .ok_or(Malformed::Null(what))
    }

    /// Skips a structure's tagged fields; nothing in a request that has none.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint("tagged fields")? {
            self.uvarint("tag")?;
            let len = self.uvarint("tag size")? as usize;
            self.take(len, "tagged field")?;
        }
        Ok(())
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Malformed::Trailing`].
    pub fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(Malformed::Trailing(n)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lying_lengths_are_refused_before_anything_is_taken() {
        let mut reader = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 1], false);
        assert!(matches!(
            reader.nullable_bytes("records"),
            Err(Malformed::Length { .. })
        ));
        let mut reader = Reader::new(&[0, 0, 0, 3, 1, 2, 3], false);
        assert!(reader.nullable_array(2, "topics").is_err());
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xfe], false);
        assert!(reader.nullable_array(1, "topics").is_err());
    }

    #[test]
    fn both_encodings_of_strings_and_null() {
        let mut classic = Reader::new(&[0, 2, b'h', b'i', 0xff, 0xff], false);
        assert_eq!(classic.string("s"), Ok("hi"));
        assert_eq!(classic.nullable_string("s"), Ok(None));
        assert_eq!(classic.finish(), Ok(()));
        let mut compact = Reader::new(&[3, b'h', b'i', 0], true);
        assert_eq!(compact.string("s"), Ok("hi"));
        assert_eq!(compact.string("s"), Err(Malformed::Null("s")));
    }

    #[test]
    fn variable_length_integers_end_after_five_bytes() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 9], true);
        assert_eq!(reader.uvarint("n"), Ok(u32::MAX));
        assert_eq!(reader.rest(), [9]);
        assert!(Reader::new(&[0xff; 6], true).uvarint("n").is_err());
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f], true)
                .uvarint("n")
                .is_err()
        );
    }
}
