//! Zig-zag variable-length integers, as records encode lengths and deltas.
//!
//! Source: the Apache Kafka documentation, section "Record", and the Protocol Buffers encoding it points to.

/// Longest encoding of a 32-bit value in bytes.
pub const VARINT_LEN_MAX: usize = 5;
/// Longest encoding of a 64-bit value in bytes.
pub const VARLONG_LEN_MAX: usize = 10;

/// Reads a signed 32-bit varint and returns it with the rest of `bytes`; `None` if the bytes end first or the
/// encoding is longer than five bytes. Bits past the 32nd are dropped, as Java's reader does.
#[inline]
#[must_use]
pub fn read_varint(bytes: &[u8]) -> Option<(i32, &[u8])> {
    // Nearly all are this short.
    match bytes {
        [a @ ..0x80, rest @ ..] => Some((unzigzag32(u32::from(*a)), rest)),
        [a, b @ ..0x80, rest @ ..] => {
            let raw = u32::from(*a & 0x7f) | u32::from(*b) << 7;
            Some((unzigzag32(raw), rest))
        }
        _ => read_long_varint(bytes),
    }
}

#[cold]
fn read_long_varint(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let mut raw = 0u32;
    for (index, &byte) in bytes.iter().take(VARINT_LEN_MAX).enumerate() {
        raw |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((unzigzag32(raw), &bytes[index + 1..]));
        }
    }
    None
}

/// Reads a signed 64-bit varint and returns it with the rest of `bytes`; `None` if the bytes end first or the
/// encoding is longer than ten bytes.
#[inline]
#[must_use]
pub fn read_varlong(bytes: &[u8]) -> Option<(i64, &[u8])> {
    match bytes {
        [a @ ..0x80, rest @ ..] => Some((unzigzag64(u64::from(*a)), rest)),
        [a, b @ ..0x80, rest @ ..] => {
            let raw = u64::from(*a & 0x7f) | u64::from(*b) << 7;
            Some((unzigzag64(raw), rest))
        }
        _ => read_long_varlong(bytes),
    }
}

#[cold]
fn read_long_varlong(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut raw = 0u64;
    for (index, &byte) in bytes.iter().take(VARLONG_LEN_MAX).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((unzigzag64(raw), &bytes[index + 1..]));
        }
    }
    None
}

/// Appends `value` as a varint of one to five bytes for 32-bit values, up to ten for larger ones.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Length in bytes of what [`write_varint`] appends for `value`.
#[inline]
#[must_use]
pub fn varint_len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - (raw | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn unzigzag32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

fn unzigzag64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_the_protocol_buffers_guide() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            write_varint(&mut out, i64::from(value));
            assert_eq!(out, bytes);
            assert_eq!(read_varint(bytes), Some((value, &[][..])));
        }
    }

    #[test]
    fn endless_and_cut_encodings_are_refused() {
        assert_eq!(read_varint(&[0x80; 6]), None);
        assert_eq!(read_varint(&[0x80; 3]), None);
        assert_eq!(read_varlong(&[0xff; 11]), None);
        assert_eq!(read_varlong(&[]), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, tail: Vec<u8>) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            out.extend_from_slice(&tail);
            prop_assert_eq!(read_varlong(&out), Some((value, &tail[..])));
        }

        #[test]
        fn round_trip_32(value: i32) {
            let mut out = Vec::new();
            write_varint(&mut out, i64::from(value));
            prop_assert!(out.len() <= VARINT_LEN_MAX);
            prop_assert_eq!(read_varint(&out), Some((value, &[][..])));
        }
    }
}
