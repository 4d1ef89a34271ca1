//! Records of consumer groups in the offsets topic.
//!
//! Source of the layouts: Kafka's schemas `ConsumerGroupMetadata` (key 3), `ConsumerGroupPartitionMetadata` (4, written by
//! 4.0 alone), `ConsumerGroupMemberMetadata` (5), `ConsumerGroupTargetAssignmentMetadata` (6),
//! `ConsumerGroupTargetAssignmentMember` (7), `ConsumerGroupCurrentMemberAssignment` (8) and
//! `ConsumerGroupRegularExpression` (16). Keys are not flexible, values are, in version 0.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;
use ringlog_engine::id::TopicId;

use super::super::StrBytes;
use super::super::codec::{Reader, put_string, put_unsigned_varint};
use super::super::member::Protocol;
use super::super::record::RecordFormatError;
use super::change::{Change, GroupEpoch, TargetEpoch};
use super::member::{Assigned, Classic, Current, MemberState, Metadata, Partitions};
use super::regex::Resolved;

const EPOCH: i16 = 3;
const TOPICS: i16 = 4;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const RESOLVED: i16 = 16;

const VALUE_VERSION: i16 = 0;
const TAG: u32 = 0;

/// A key: which record of which group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Group id.
    pub group: StrBytes,
    kind: i16,
    /// Member id or regular expression, where the kind has one.
    name: StrBytes,
}

impl ConsumerKey {
    /// Reads what follows the kind in a key, if it is one of these kinds.
    pub(in crate::groups) fn read(
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, RecordFormatError> {
        let kind = reader.version;
        let is_named = match kind {
            EPOCH | TOPICS | TARGET_EPOCH => false,
            MEMBER | TARGET | CURRENT | RESOLVED => true,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            group: reader.string()?,
            kind,
            name: match is_named {
                true => reader.string()?,
                false => StrBytes::default(),
            },
        }))
    }

    /// The change that the record makes.
    pub(in crate::groups) fn change(
        self,
        value: Option<&[u8]>,
    ) -> Result<Change, RecordFormatError> {
        let mut reader = value.map(|value| Reader::new(value, "a consumer group's value"));
        let mut reader = reader.take().transpose()?;
        if let Some(reader) = &mut reader {
            reader.value_version(VALUE_VERSION, VALUE_VERSION)?;
        }
        let reader = reader.as_mut();
        let name = self.name;
        Ok(match self.kind {
            EPOCH => Change::Epoch(reader.map(read_epoch).transpose()?),
            MEMBER => Change::Member(name, reader.map(read_member).transpose()?.map(Box::new)),
            TARGET_EPOCH => Change::TargetEpoch(reader.map(read_target_epoch).transpose()?),
            TARGET => Change::Target(name, reader.map(read_target).transpose()?),
            CURRENT => Change::Current(name, reader.map(read_current).transpose()?.map(Box::new)),
            RESOLVED => Change::Resolved(name, reader.map(read_resolved).transpose()?),
            _ => Change::Topics,
        })
    }
}

impl Change {
    /// Encodes the record's key.
    pub(super) fn key(&self, group: &str) -> Vec<u8> {
        let (kind, name) = match self {
            Self::Epoch(_) => (EPOCH, None),
            Self::Member(id, _) => (MEMBER, Some(id)),
            Self::TargetEpoch(_) => (TARGET_EPOCH, None),
            Self::Target(id, _) => (TARGET, Some(id)),
            Self::Current(id, _) => (CURRENT, Some(id)),
            Self::Resolved(regex, _) => (RESOLVED, Some(regex)),
            Self::Topics => (TOPICS, None),
        };
        let mut out = Vec::with_capacity(6 + group.len() + name.map_or(0, |name| name.len()));
        out.put_i16(kind);
        put_string(&mut out, group);
        if let Some(name) = name {
            put_string(&mut out, name);
        }
        out
    }

    /// Encodes the record's value; none for what is gone.
    pub(super) fn value(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        out.put_i16(VALUE_VERSION);
        match self {
            Self::Epoch(value) => put_epoch(&mut out, value.as_ref()?),
            Self::Member(_, value) => put_member(&mut out, value.as_ref()?),
            Self::TargetEpoch(value) => put_target_epoch(&mut out, value.as_ref()?),
            Self::Target(_, value) => put_target(&mut out, value.as_ref()?),
            Self::Current(_, value) => put_current(&mut out, value.as_ref()?),
            Self::Resolved(_, value) => put_resolved(&mut out, value.as_ref()?),
            Self::Topics => return None,
        }
        Some(out)
    }
}

// --- values ---

fn put_epoch(out: &mut Vec<u8>, value: &GroupEpoch) {
    out.put_i32(value.epoch);
    put_tagged_i64(out, value.metadata_hash);
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<GroupEpoch, RecordFormatError> {
    Ok(GroupEpoch {
        epoch: reader.i32()?,
        metadata_hash: tagged_i64(reader)?,
    })
}

fn put_target_epoch(out: &mut Vec<u8>, value: &TargetEpoch) {
    out.put_i32(value.epoch);
    put_tagged_i64(out, value.timestamp_ms);
}

fn read_target_epoch(reader: &mut Reader<'_>) -> Result<TargetEpoch, RecordFormatError> {
    Ok(TargetEpoch {
        epoch: reader.i32()?,
        timestamp_ms: tagged_i64(reader)?,
    })
}

fn put_member(out: &mut Vec<u8>, value: &Metadata) {
    put_nullable(out, value.instance_id.as_deref());
    put_nullable(out, value.rack_id.as_deref());
    put_text(out, &value.client_id);
    put_text(out, &value.client_host);
    put_count(out, value.topics.len());
    for topic in &value.topics {
        put_text(out, topic);
    }
    put_nullable(out, value.regex.as_deref());
    out.put_i32(value.rebalance_timeout_ms);
    put_nullable(out, value.assignor.as_deref());
    put_classic(out, value.classic.as_ref());
}

/// The one tagged field of a member, which is there even when it is null: left out, it would be an empty structure, and the
/// member one of the classic protocol.
fn put_classic(out: &mut Vec<u8>, value: Option<&Classic>) {
    let mut tagged = Vec::new();
    match value {
        None => tagged.put_u8(0),
        Some(value) => {
            tagged.put_u8(1);
            tagged.put_i32(value.session_timeout_ms);
            put_count(&mut tagged, value.protocols.len());
            for protocol in &value.protocols {
                put_text(&mut tagged, &protocol.name);
                put_count(&mut tagged, protocol.metadata.len());
                tagged.put_slice(&protocol.metadata);
                tagged.put_u8(0);
            }
            tagged.put_u8(0);
        }
    }
    out.put_u8(1);
    put_unsigned_varint(out, TAG);
    put_unsigned_varint(out, tagged.len() as u32);
    out.put_slice(&tagged);
}

/// Reads the tagged field. One without protocols is of no member of the classic protocol, and null, or left out, none either.
fn read_classic(tagged: &[u8]) -> Result<Option<Classic>, RecordFormatError> {
    let mut reader = Reader::within(tagged, "a classic member");
    if tagged.is_empty() || reader.unsigned_varint()? == 0 {
        return Ok(None);
    }
    let session_timeout_ms = reader.i32()?;
    let mut protocols = Vec::new();
    for _ in 0..reader.count()? {
        let (name, metadata) = (reader.string()?, reader.bytes()?);
        protocols.push(Protocol { name, metadata });
        reader.tags(|_, _| {})?;
    }
    reader.tags(|_, _| {})?;
    let classic = Classic {
        session_timeout_ms,
        protocols,
    };
    Ok((!classic.protocols.is_empty()).then_some(classic))
}

fn read_member(reader: &mut Reader<'_>) -> Result<Metadata, RecordFormatError> {
    let mut value = Metadata {
        instance_id: reader.nullable()?,
        rack_id: reader.nullable()?,
        client_id: reader.string()?,
        client_host: reader.string()?,
        topics: read_names(reader)?,
        regex: reader.nullable()?,
        rebalance_timeout_ms: reader.i32()?,
        assignor: reader.nullable()?,
        classic: None,
    };
    let mut tagged: &[u8] = &[];
    reader.tags(|tag, bytes| {
        if tag == TAG {
            tagged = bytes;
        }
    })?;
    value.classic = read_classic(tagged)?;
    Ok(value)
}

fn put_target(out: &mut Vec<u8>, value: &Partitions) {
    put_count(out, value.len());
    for (topic, partitions) in value {
        out.put_slice(&topic.0);
        put_count(out, partitions.len());
        for partition in partitions {
            out.put_i32(*partition);
        }
        out.put_u8(0);
    }
    out.put_u8(0);
}

fn read_target(reader: &mut Reader<'_>) -> Result<Partitions, RecordFormatError> {
    let mut value = Partitions::new();
    for _ in 0..reader.count()? {
        let topic = read_topic_id(reader)?;
        let partitions: &mut BTreeSet<i32> = value.entry(topic).or_default();
        for _ in 0..reader.count()? {
            partitions.insert(reader.i32()?);
        }
        reader.tags(|_, _| {})?;
    }
    reader.tags(|_, _| {})?;
    Ok(value)
}

fn put_current(out: &mut Vec<u8>, value: &Current) {
    out.put_i32(value.epoch);
    out.put_i32(value.previous_epoch);
    out.put_i8(value.state as i8);
    put_assigned(out, &value.assigned);
    put_assigned(out, &value.pending_revocation);
    out.put_u8(0);
}

fn read_current(reader: &mut Reader<'_>) -> Result<Current, RecordFormatError> {
    let (epoch, previous_epoch) = (reader.i32()?, reader.i32()?);
    let state = match reader.i8()? {
        0 => MemberState::Stable,
        1 => MemberState::UnrevokedPartitions,
        2 => MemberState::UnreleasedPartitions,
        _ => return Err(reader.malformed()),
    };
    let value = Current {
        epoch,
        previous_epoch,
        state,
        assigned: read_assigned(reader, epoch)?,
        pending_revocation: read_assigned(reader, epoch)?,
    };
    reader.tags(|_, _| {})?;
    Ok(value)
}

fn put_assigned(out: &mut Vec<u8>, value: &Assigned) {
    put_count(out, value.len());
    for (topic, partitions) in value {
        out.put_slice(&topic.0);
        put_count(out, partitions.len());
        for partition in partitions.keys() {
            out.put_i32(*partition);
        }
        let mut epochs = Vec::with_capacity(5 + 4 * partitions.len());
        put_count(&mut epochs, partitions.len());
        for epoch in partitions.values() {
            epochs.put_i32(*epoch);
        }
        out.put_u8(1);
        put_unsigned_varint(out, TAG);
        put_unsigned_varint(out, epochs.len() as u32);
        out.put_slice(&epochs);
    }
}

/// Partitions of one member; those stored without an epoch of their own have the member's.
fn read_assigned(reader: &mut Reader<'_>, epoch: i32) -> Result<Assigned, RecordFormatError> {
    let mut value = Assigned::new();
    for _ in 0..reader.count()? {
        let topic = read_topic_id(reader)?;
        let mut partitions = Vec::new();
        for _ in 0..reader.count()? {
            partitions.push(reader.i32()?);
        }
        let mut tagged: &[u8] = &[];
        reader.tags(|tag, bytes| {
            if tag == TAG {
                tagged = bytes;
            }
        })?;
        let epochs = read_epochs(tagged, partitions.len(), epoch)?;
        let of_topic: &mut BTreeMap<i32, i32> = value.entry(topic).or_default();
        of_topic.extend(partitions.into_iter().zip(epochs));
    }
    Ok(value)
}

/// As many epochs as there are partitions; null and absent mean `default` for each.
fn read_epochs(tagged: &[u8], count: usize, default: i32) -> Result<Vec<i32>, RecordFormatError> {
    if matches!(tagged, [] | [0]) {
        return Ok(vec![default; count]);
    }
    let mut reader = Reader::within(tagged, "assignment epochs");
    if reader.count()? != count as i64 {
        return Err(reader.malformed());
    }
    (0..count).map(|_| reader.i32()).collect()
}

fn put_resolved(out: &mut Vec<u8>, value: &Resolved) {
    put_count(out, value.topics.len());
    for topic in &value.topics {
        put_text(out, topic);
    }
    out.put_i64(value.version);
    out.put_i64(value.timestamp_ms);
    out.put_u8(0);
}

fn read_resolved(reader: &mut Reader<'_>) -> Result<Resolved, RecordFormatError> {
    let value = Resolved {
        topics: read_names(reader)?,
        version: reader.i64()?,
        timestamp_ms: reader.i64()?,
    };
    reader.tags(|_, _| {})?;
    Ok(value)
}

// --- parts ---

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_unsigned_varint(out, count as u32 + 1);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_u8(0),
    }
}

/// The one tagged field of a value, left out when it is 0, its default.
fn put_tagged_i64(out: &mut Vec<u8>, value: i64) {
    if value == 0 {
        return out.put_u8(0);
    }
    out.put_slice(&[1, TAG as u8, 8]);
    out.put_i64(value);
}

fn tagged_i64(reader: &mut Reader<'_>) -> Result<i64, RecordFormatError> {
    let mut value = 0;
    reader.tags(|tag, bytes| {
        if let (TAG, Ok(bytes)) = (tag, bytes.try_into()) {
            value = i64::from_be_bytes(bytes);
        }
    })?;
    Ok(value)
}

fn read_names(reader: &mut Reader<'_>) -> Result<BTreeSet<StrBytes>, RecordFormatError> {
    let count = reader.count()?;
    (0..count).map(|_| reader.string()).collect()
}

fn read_topic_id(reader: &mut Reader<'_>) -> Result<TopicId, RecordFormatError> {
    let bytes = reader.take(16)?;
    bytes
        .try_into()
        .map(TopicId)
        .map_err(|_| reader.malformed())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn round_trip(change: &Change) {
        let key = change.key("group");
        let mut reader = Reader::new(&key, "a key").unwrap();
        let key = ConsumerKey::read(&mut reader).unwrap().unwrap();
        assert_eq!(key.group.as_str(), "group");
        let value = change.value();
        assert_eq!(key.change(value.as_deref()).unwrap(), *change);
    }

    #[test]
    fn every_kind_reads_back_as_written() {
        let topic = TopicId([7; 16]);
        let id = StrBytes::from("member");
        let current = Current {
            epoch: 9,
            previous_epoch: 8,
            state: MemberState::UnreleasedPartitions,
            assigned: Assigned::from([(topic, BTreeMap::from([(0, 3), (5, 9)]))]),
            pending_revocation: Assigned::from([(topic, BTreeMap::from([(1, 2)]))]),
        };
        let metadata = Metadata {
            instance_id: Some("i".into()),
            client_id: "c".into(),
            topics: BTreeSet::from(["a".into(), "b".into()]),
            regex: Some("x.*".into()),
            rebalance_timeout_ms: 300_000,
            ..Metadata::default()
        };
        let resolved = Resolved {
            topics: BTreeSet::from(["xy".into()]),
            version: 4,
            timestamp_ms: 1_700_000_000_000,
        };
        let changes = [
            Change::Epoch(Some(GroupEpoch {
                epoch: 3,
                metadata_hash: -77,
            })),
            Change::Epoch(None),
            Change::TargetEpoch(Some(TargetEpoch {
                epoch: 3,
                timestamp_ms: 0,
            })),
            Change::Member(id.clone(), Some(Box::new(metadata.clone()))),
            Change::Member(
                id.clone(),
                Some(Box::new(Metadata {
                    classic: Some(Classic {
                        session_timeout_ms: 45_000,
                        protocols: vec![Protocol {
                            name: "range".into(),
                            metadata: Bytes::from_static(&[0, 1, 2]),
                        }],
                    }),
                    ..metadata
                })),
            ),
            Change::Target(
                id.clone(),
                Some(BTreeMap::from([(topic, BTreeSet::from([2, 4]))])),
            ),
            Change::Target(id.clone(), Some(Partitions::new())),
            Change::Current(id.clone(), Some(Box::new(current))),
            Change::Current(id, None),
            Change::Resolved("x.*".into(), Some(resolved)),
        ];
        changes.iter().for_each(round_trip);
    }

    #[test]
    fn bytes_are_those_of_kafkas_schemas() {
        let change = Change::TargetEpoch(Some(TargetEpoch {
            epoch: 2,
            timestamp_ms: 0,
        }));
        assert_eq!(change.key("g"), [0, 6, 0, 1, b'g']);
        assert_eq!(change.value().unwrap(), [0, 0, 0, 0, 0, 2, 0]);
        let current = Current {
            epoch: 1,
            assigned: Assigned::from([(TopicId([9; 16]), BTreeMap::from([(4, 1)]))]),
            ..Current::default()
        };
        let change = Change::Current("m".into(), Some(Box::new(current)));
        assert_eq!(change.key("g"), [0, 8, 0, 1, b'g', 0, 1, b'm']);
        let mut value = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2];
        value.extend([9; 16]);
        value.extend([2, 0, 0, 0, 4, 1, 0, 5, 2, 0, 0, 0, 1]);
        value.extend([1, 0]);
        assert_eq!(change.value().unwrap(), value);
    }

    #[test]
    fn a_value_cut_short_or_of_the_future_is_refused() {
        let change = Change::Target(
            "m".into(),
            Some(BTreeMap::from([(TopicId([1; 16]), BTreeSet::from([2]))])),
        );
        let key = change.key("g");
        let read = |value: &[u8]| {
            let mut reader = Reader::new(&key, "a key").unwrap();
            ConsumerKey::read(&mut reader)
                .unwrap()
                .unwrap()
                .change(Some(value))
        };
        let mut value = change.value().unwrap();
        for end in 0..value.len() {
            assert!(read(&value[..end]).is_err(), "{end}");
        }
        value[1] = 1;
        assert_eq!(read(&value), Err(RecordFormatError::Version(1)));
        assert!(read(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
