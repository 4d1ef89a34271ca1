//! Records of the offsets topic: keys and values of groups and of committed offsets.
//!
//! Source of the layouts: Kafka's schemas `OffsetCommitKey`, `OffsetCommitValue`, `GroupMetadataKey` and
//! `GroupMetadataValue`. Both keys and values start with a 16-bit version; a key's version names its kind: 0 and 1
//! an offset, 2 a classic group, others parts of a consumer group (`consumer/record.rs`). Classic groups are written in version 3, offsets in version 4, or in version 1 if they have an expiry of
//! their own, as Kafka 4.3 does; versions 0 to 4 are read.

use bytes::{BufMut, Bytes};
use ringlog_engine::id::TopicId;
use thiserror::Error;

use super::StrBytes;
use super::codec::{Reader, put_bytes, put_nullable, put_string, put_unsigned_varint};
use super::consumer::ConsumerKey;

const KEY_OFFSET: i16 = 1;
const KEY_GROUP: i16 = 2;
const GROUP_VERSION: i16 = 3;
const OFFSET_VERSION: i16 = 4;
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
const VALUE_VERSION_MAX: i16 = 4;
const FLEXIBLE_VERSION: i16 = 4;
const TAG_TOPIC_ID: u32 = 0;

/// An offset as committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// Whatever the client wants to keep.
    pub metadata: StrBytes,
    /// When it was committed, milliseconds since 1970.
    pub commit_ms: i64,
    /// When it expires, if the client said so (OffsetCommit up to version 4).
    pub expire_ms: Option<i64>,
    /// The topic's id, or zero if it was not stored.
    pub topic_id: TopicId,
}

/// A group as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// Class of protocols, `consumer` for consumers; empty for none.
    pub protocol_type: StrBytes,
    /// Generation.
    pub generation: i32,
    /// Chosen protocol.
    pub protocol: Option<StrBytes>,
    /// The leader's member id.
    pub leader: Option<StrBytes>,
    /// When the group entered its state, milliseconds since 1970, or -1.
    pub state_since_ms: i64,
    /// Members; none in an empty group.
    pub members: Vec<MemberValue>,
}

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// Member id.
    pub member_id: StrBytes,
    /// Instance id of a static member.
    pub instance_id: Option<StrBytes>,
    /// Client id.
    pub client_id: StrBytes,
    /// Client host.
    pub client_host: StrBytes,
    /// Milliseconds, or -1 if not stored.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Metadata under the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned.
    pub assignment: Bytes,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// Group id.
        group: StrBytes,
        /// Topic name.
        topic: StrBytes,
        /// Partition.
        partition: i32,
    },
    /// A group.
    Group {
        /// Group id.
        group: StrBytes,
    },
    /// Part of a group of the consumer protocol.
    Consumer(ConsumerKey),
    /// Written by something newer.
    Other(i16),
}

/// Why a record of the offsets topic cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordFormatError {
    /// It ends early, or a length is wrong.
    #[error("{0} is cut short or malformed")]
    Malformed(&'static str),
    /// A version nobody here knows.
    #[error("version {0} of a value is not known")]
    Version(i16),
}

/// Encodes the key of an offset.
#[must_use]
pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.len() + topic.len());
    out.put_i16(KEY_OFFSET);
    put_string(&mut out, group);
    put_string(&mut out, topic);
    out.put_i32(partition);
    out
}

/// Encodes the key of a group.
#[must_use]
pub(super) fn group_key(group: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + group.len());
    out.put_i16(KEY_GROUP);
    put_string(&mut out, group);
    out
}

impl CommittedOffset {
    /// Encodes the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.metadata.len());
        if let Some(expire_ms) = self.expire_ms {
            out.put_i16(OFFSET_VERSION_WITH_EXPIRY);
            out.put_i64(self.offset);
            put_string(&mut out, &self.metadata);
            out.put_i64(self.commit_ms);
            out.put_i64(expire_ms);
            return out;
        }
        out.put_i16(OFFSET_VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_unsigned_varint(&mut out, self.metadata.len() as u32 + 1);
        out.put_slice(self.metadata.as_bytes());
        out.put_i64(self.commit_ms);
        if self.topic_id == TopicId::ZERO {
            out.put_u8(0);
        } else {
            out.put_slice(&[1, TAG_TOPIC_ID as u8, 16]);
            out.put_slice(&self.topic_id.0);
        }
        out
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// [`RecordFormatError`].
    pub fn decode(value: &[u8]) -> Result<Self, RecordFormatError> {
        let mut reader = Reader::new(value, "an offset's value")?;
        let version = reader.value_version(VALUE_VERSION_MAX, FLEXIBLE_VERSION)?;
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = reader.string()?;
        let commit_ms = reader.i64()?;
        let expire_ms = if version == 1 { reader.i64()? } else { -1 };
        let mut topic_id = TopicId::ZERO;
        reader.tags(|tag, bytes| {
            if let (TAG_TOPIC_ID, Ok(id)) = (tag, bytes.try_into()) {
                topic_id = TopicId(id);
            }
        })?;
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_ms,
            expire_ms: (expire_ms >= 0).then_some(expire_ms),
            topic_id,
        })
    }
}

impl GroupValue {
    /// Encodes the value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.members.len() * 256);
        out.put_i16(GROUP_VERSION);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable(&mut out, self.protocol.as_deref());
        put_nullable(&mut out, self.leader.as_deref());
        out.put_i64(self.state_since_ms);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_string(&mut out, &member.member_id);
            put_nullable(&mut out, member.instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// [`RecordFormatError`].
    pub fn decode(value: &[u8]) -> Result<Self, RecordFormatError> {
        let mut reader = Reader::new(value, "a group's value")?;
        let version = reader.value_version(VALUE_VERSION_MAX, FLEXIBLE_VERSION)?;
        let protocol_type = reader.string()?;
        let generation = reader.i32()?;
        let protocol = reader.nullable()?;
        let leader = reader.nullable()?;
        let state_since_ms = if version >= 2 { reader.i64()? } else { -1 };
        let mut members = Vec::new();
        for _ in 0..reader.count()? {
            members.push(MemberValue::read(&mut reader, version)?);
        }
        Ok(Self {
            protocol_type,
            generation,
            protocol,
            leader,
            state_since_ms,
            members,
        })
    }
}

impl MemberValue {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self, RecordFormatError> {
        let member = Self {
            member_id: reader.string()?,
            instance_id: if version >= 3 {
                reader.nullable()?
            } else {
                None
            },
            client_id: reader.string()?,
            client_host: reader.string()?,
            rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
            session_timeout_ms: reader.i32()?,
            subscription: reader.bytes()?,
            assignment: reader.bytes()?,
        };
        reader.tags(|_, _| {})?;
        Ok(member)
    }
}

impl Key {
    /// Decodes a key.
    ///
    /// # Errors
    /// [`RecordFormatError`].
    pub fn decode(key: &[u8]) -> Result<Self, RecordFormatError> {
        let mut reader = Reader::new(key, "a key")?;
        match reader.version {
            0 | KEY_OFFSET => Ok(Self::Offset {
                group: reader.string()?,
                topic: reader.string()?,
                partition: reader.i32()?,
            }),
            KEY_GROUP => Ok(Self::Group {
                group: reader.string()?,
            }),
            other => Ok(match ConsumerKey::read(&mut reader)? {
                Some(key) => Self::Consumer(key),
                None => Self::Other(other),
            }),
        }
    }
}
