//! Writes Kafka's primitive types behind what a buffer holds.

use bytes::{BufMut, BytesMut};

/// Kafka's primitives on a growing buffer; `flexible` chooses the encoding of lengths, as in
/// [`Reader`](super::Reader).
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
    flexible: bool,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut BytesMut, flexible: bool) -> Self {
        Self { out, flexible }
    }

    /// Bytes in the buffer so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.out.put_i8(value);
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self, value: i16) {
        self.out.put_i16(value);
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    /// An unsigned variable-length integer.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn len(&mut self, len: usize, short: bool) {
        debug_assert!(len <= i32::MAX as usize);
        if self.flexible {
            self.uvarint(len as u32 + 1);
        } else if short {
            self.out.put_i16(len as i16);
        } else {
            self.out.put_i32(len as i32);
        }
    }

    /// A string of at most 32,767 bytes.
    pub fn string(&mut self, text: &str) {
        debug_assert!(text.len() <= i16::MAX as usize);
        self.len(text.len(), true);
        self.out.put_slice(text.as_bytes());
    }

    /// A nullable string.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.uvarint(0),
            None => self.i16(-1),
        }
    }

    /// The count of an array that follows, or the length of bytes that follow.
    pub fn count(&mut self, count: usize) {
        self.len(count, false);
    }

    /// A null array.
    pub fn null_array(&mut self) {
        if self.flexible {
            self.uvarint(0);
        } else {
            self.i32(-1);
        }
    }

    /// Bytes without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    /// No tagged fields; nothing at all in a response that has none.
    pub fn tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }
}
