//! Records of the state topic.
//!
//! Source of the layouts: Kafka's schemas `TransactionLogKey` and `TransactionLogValue`. Values are written in version 1, as
//! Kafka 4 does; versions 0 and 1 are read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;

use crate::groups::RecordFormatError;
use crate::groups::codec::{Reader, put_string, put_unsigned_varint};
use crate::wire::StrBytes;

use super::transaction::TxnState;

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_VERSION: u32 = 2;

/// Partitions by topic.
pub type Partitions = BTreeMap<StrBytes, BTreeSet<i32>>;

/// A transactional id's state as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnValue {
    /// Its producer id.
    pub producer_id: i64,
    /// The one before, or -1.
    pub previous_producer_id: i64,
    /// The one after, told to the producer while the transaction ends, or -1.
    pub next_producer_id: i64,
    /// The current epoch; -1 before the first.
    pub epoch: i16,
    /// Its transactions are aborted after this.
    pub timeout_ms: i32,
    /// Where its transaction stands.
    pub state: TxnState,
    /// Partitions of the transaction under way.
    pub partitions: Partitions,
    /// Last change, milliseconds since 1970.
    pub updated_ms: i64,
    /// When the transaction began, or -1.
    pub started_ms: i64,
    /// Generation of the protocol that the transaction was ended with: 2 raises the epoch with every end.
    pub client_version: i16,
}

/// Encodes the key of a transactional id.
pub(super) fn key(id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + id.len());
    out.put_i16(KEY_VERSION);
    put_string(&mut out, id);
    out
}

/// Decodes a key; `None` for one of a kind that is not known.
pub(super) fn read_key(key: &[u8]) -> Result<Option<StrBytes>, RecordFormatError> {
    let mut reader = Reader::new(key, "a transactional id's key")?;
    if reader.version != KEY_VERSION {
        return Ok(None);
    }
    reader.string().map(Some)
}

fn put_compact(out: &mut Vec<u8>, text: &str) {
    put_unsigned_varint(out, text.len() as u32 + 1);
    out.put_slice(text.as_bytes());
}

impl TxnValue {
    /// Encodes the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.partitions.len() * 64);
        out.put_i16(VALUE_VERSION);
        out.put_i64(self.producer_id);
        out.put_i16(self.epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state as i8);
        if self.state == TxnState::Empty {
            put_unsigned_varint(&mut out, 0);
        } else {
            put_unsigned_varint(&mut out, self.partitions.len() as u32 + 1);
            for (topic, partitions) in &self.partitions {
                put_compact(&mut out, topic);
                put_unsigned_varint(&mut out, partitions.len() as u32 + 1);
                partitions
                    .iter()
                    .for_each(|&partition| out.put_i32(partition));
                out.put_u8(0);
            }
        }
        out.put_i64(self.updated_ms);
        out.put_i64(self.started_ms);
        let ids = [
            (TAG_PREVIOUS_PRODUCER_ID, self.previous_producer_id),
            (TAG_NEXT_PRODUCER_ID, self.next_producer_id),
        ];
        let ids = ids.iter().filter(|(_, id)| *id != -1);
        let tags = ids.clone().count() + usize::from(self.client_version != 0);
        put_unsigned_varint(&mut out, tags as u32);
        for (tag, id) in ids {
            out.put_slice(&[*tag as u8, 8]);
            out.put_i64(*id);
        }
        if self.client_version != 0 {
            out.put_slice(&[TAG_CLIENT_VERSION as u8, 2]);
            out.put_i16(self.client_version);
        }
        out
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// [`RecordFormatError`].
    pub fn decode(value: &[u8]) -> Result<Self, RecordFormatError> {
        let mut reader = Reader::new(value, "a transaction's value")?;
        reader.value_version(VALUE_VERSION, VALUE_VERSION)?;
        let mut read = Self {
            producer_id: reader.i64()?,
            previous_producer_id: -1,
            next_producer_id: -1,
            epoch: reader.i16()?,
            timeout_ms: reader.i32()?,
            state: TxnState::from_code(reader.i8()?).ok_or_else(|| reader.malformed())?,
            partitions: Partitions::new(),
            updated_ms: 0,
            started_ms: -1,
            client_version: 0,
        };
        for _ in 0..reader.count()?.max(0) {
            let topic = reader.string()?;
            let count = reader.count()?;
            let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
            reader.tags(|_, _| {})?;
            read.partitions.insert(topic, partitions);
        }
        read.updated_ms = reader.i64()?;
        read.started_ms = reader.i64()?;
        reader.tags(|tag, bytes| match (tag, bytes.len()) {
            (TAG_PREVIOUS_PRODUCER_ID, 8) => read.previous_producer_id = number(bytes),
            (TAG_NEXT_PRODUCER_ID, 8) => read.next_producer_id = number(bytes),
            (TAG_CLIENT_VERSION, 2) => read.client_version = number(bytes) as i16,
            _ => {}
        })?;
        Ok(read)
    }
}

/// A signed number, big-endian.
fn number(bytes: &[u8]) -> i64 {
    let sign = bytes
        .first()
        .map_or(0, |first| i64::from(*first as i8 >> 7));
    bytes.iter().fold(sign, |n, byte| n << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> TxnValue {
        TxnValue {
            producer_id: 7,
            previous_producer_id: -1,
            next_producer_id: 9,
            epoch: 3,
            timeout_ms: 60_000,
            state: TxnState::PrepareCommit,
            partitions: Partitions::from([("t".into(), BTreeSet::from([0, 5]))]),
            updated_ms: 11,
            started_ms: 10,
            client_version: 2,
        }
    }

    #[test]
    fn values_are_kafkas_bytes_and_are_read_back() {
        let encoded = value().encode();
        let expected = [
            &[0, 1][..],
            &7i64.to_be_bytes(),
            &3i16.to_be_bytes(),
            &60_000i32.to_be_bytes(),
            &[2],
            &[2, 2, b't', 3],
            &0i32.to_be_bytes(),
            &5i32.to_be_bytes(),
            &[0],
            &11i64.to_be_bytes(),
            &10i64.to_be_bytes(),
            &[2, 1, 8],
            &9i64.to_be_bytes(),
            &[2, 2, 0, 2],
        ];
        assert_eq!(encoded, expected.concat());
        assert_eq!(TxnValue::decode(&encoded), Ok(value()));
        for cut in 0..encoded.len() {
            assert!(TxnValue::decode(&encoded[..cut]).is_err());
        }
    }

    #[test]
    fn version_0_is_read() {
        let bytes = [
            &[0, 0][..],
            &7i64.to_be_bytes(),
            &3i16.to_be_bytes(),
            &5i32.to_be_bytes(),
            &[0],
            &(-1i32).to_be_bytes(),
            &11i64.to_be_bytes(),
            &(-1i64).to_be_bytes(),
        ];
        let read = TxnValue::decode(&bytes.concat()).expect("a value");
        assert_eq!((read.producer_id, read.state), (7, TxnState::Empty));
        assert_eq!((read.partitions.len(), read.updated_ms), (0, 11));
        assert_eq!(number(&[0xff, 0xfe]), -2);
        assert_eq!(read_key(&key("id")), Ok(Some("id".into())));
    }
}
