//! The stamp that makes a record checkable: who sent it, where to, which one it is, when, and what follows it.
//!
//! It is the first [`STAMP_LEN`] bytes of a record's value; the payload follows.

use ringlog_engine::checksum::crc32c;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a stamp in bytes.
pub const STAMP_LEN: usize = size_of::<Stamp>();
/// First bytes of a stamp.
pub const STAMP_MAGIC: [u8; 4] = *b"RLS1";

/// The stamp as it lies in the value, big-endian. A stream is what one producing connection sends to one partition:
/// its sequence numbers count records from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Stamp {
    /// [`STAMP_MAGIC`].
    pub magic: [u8; 4],
    /// CRC-32C of the payload after the stamp.
    pub payload_crc: U32,
    /// Tells one run's records from another's.
    pub run_id: U64,
    /// The producing connection.
    pub stream: U32,
    /// Index of the topic among the run's topics.
    pub topic: U32,
    /// Partition the record was sent to.
    pub partition: U32,
    /// Number of the record within (stream, topic, partition).
    pub sequence: U64,
    /// When it was meant to be sent, nanoseconds since 1970.
    pub sent_unix_ns: U64,
}

const _: () = assert!(STAMP_LEN == 44);

impl Stamp {
    /// The stamp at the start of `value` and the payload after it, or `None` if there is none.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<(&Self, &[u8])> {
        let (stamp, payload) = Self::ref_from_prefix(value).ok()?;
        (stamp.magic == STAMP_MAGIC).then_some((stamp, payload))
    }

    /// Whether `payload` is what was sent.
    #[must_use]
    pub fn covers(&self, payload: &[u8]) -> bool {
        crc32c(payload) == self.payload_crc.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again_and_notices_another_payload() {
        let stamp = Stamp {
            magic: STAMP_MAGIC,
            payload_crc: crc32c(b"payload").into(),
            run_id: 1.into(),
            stream: 2.into(),
            topic: 3.into(),
            partition: 4.into(),
            sequence: 5.into(),
            sent_unix_ns: 6.into(),
        };
        let mut value = stamp.as_bytes().to_vec();
        value.extend_from_slice(b"payload");
        let (read, payload) = Stamp::read(&value).unwrap();
        assert_eq!((*read, payload), (stamp, &b"payload"[..]));
        assert!(read.covers(payload));
        assert!(!read.covers(b"paylode"));
        assert!(Stamp::read(&value[1..]).is_none());
        assert!(Stamp::read(&value[..STAMP_LEN - 1]).is_none());
    }
}
