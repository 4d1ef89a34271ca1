//! Produce, versions 3 to 12, over the request's bytes: record batches are never copied here.
//!
//! Source: ProduceRequest.json and ProduceResponse.json of Apache Kafka 4.

use bytes::BytesMut;
use smallvec::SmallVec;

use super::reader::{Malformed, Reader};
use super::writer::Writer;

/// A Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest<'a> {
    /// Set by transactional producers.
    pub transactional_id: Option<&'a str>,
    /// -1: all replicas, 1: the leader, 0: no response.
    pub acks: i16,
    /// How long the client is ready to wait, milliseconds.
    pub timeout_ms: i32,
    /// Names and partition counts of the topics, in order.
    pub topics: SmallVec<[(&'a str, usize); 2]>,
    /// Partitions of all topics, in order.
    pub partitions: SmallVec<[ProducePartition<'a>; 4]>,
}

/// One partition's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducePartition<'a> {
    /// The partition's number.
    pub index: i32,
    /// Record batches; Kafka accepts exactly one.
    pub records: Option<&'a [u8]>,
}

impl<'a> ProduceRequest<'a> {
    /// Reads a request's body. The whole of it is checked before anything is acted upon.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8], version: i16) -> Result<Self, Malformed> {
        let flexible = version >= 9;
        // The least a topic and a partition take on the wire.
        let (topic_bytes, partition_bytes) = if flexible { (3, 6) } else { (6, 8) };
        let mut reader = Reader::new(body, flexible);
        let mut request = Self {
            transactional_id: reader.nullable_string("transactional id")?,
            acks: reader.i16("acks")?,
            timeout_ms: reader.i32("timeout")?,
            topics: SmallVec::new(),
            partitions: SmallVec::new(),
        };
        for _ in 0..reader.array(topic_bytes, "topics")? {
            let name = reader.string("topic name")?;
            let count = reader.array(partition_bytes, "partitions")?;
            for _ in 0..count {
                request.partitions.push(ProducePartition {
                    index: reader.i32("partition")?,
                    records: reader.nullable_bytes("records")?,
                });
                reader.tags()?;
            }
            request.topics.push((name, count));
            reader.tags()?;
        }
        reader.tags()?;
        reader.finish()?;
        Ok(request)
    }
}

/// What became of one partition's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionAck<'a> {
    /// The partition's number.
    pub index: i32,
    /// An error code or 0.
    pub error: i16,
    /// Offset of the batch's first record, or -1.
    pub base_offset: i64,
    /// Broker's timestamp, or -1.
    pub append_time_ms: i64,
    /// First offset of the log, or -1.
    pub log_start_offset: i64,
    /// For people, from version 8.
    pub message: Option<&'a str>,
    /// Which records the batch was refused for, by their place in it, and why; from version 8.
    pub records: &'a [(u32, String)],
}

impl<'a> PartitionAck<'a> {
    /// A batch that was refused.
    #[must_use]
    pub fn refused(index: i32, error: i16, message: Option<&'a str>) -> Self {
        Self {
            index,
            error,
            base_offset: -1,
            append_time_ms: -1,
            log_start_offset: -1,
            message,
            records: &[],
        }
    }

    /// Appends this partition's part of the response.
    pub fn write(&self, out: &mut BytesMut, version: i16) {
        let mut writer = Writer::new(out, version >= 9);
        writer.i32(self.index);
        writer.i16(self.error);
        writer.i64(self.base_offset);
        writer.i64(self.append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.count(self.records.len());
            for (index, why) in self.records {
                writer.i32(*index as i32);
                writer.nullable_string(Some(why));
                writer.tags();
            }
            writer.nullable_string(self.message);
        }
        writer.tags();
    }
}

/// Appends the count of topics.
pub fn write_topic_count(out: &mut BytesMut, version: i16, topics: usize) {
    Writer::new(out, version >= 9).count(topics);
}

/// Appends what precedes a topic's partitions.
pub fn write_topic_start(out: &mut BytesMut, version: i16, name: &str, partitions: usize) {
    let mut writer = Writer::new(out, version >= 9);
    writer.string(name);
    writer.count(partitions);
}

/// Appends what follows a topic's partitions.
pub fn write_topic_end(out: &mut BytesMut, version: i16) {
    Writer::new(out, version >= 9).tags();
}

/// Appends what follows the topics.
pub fn write_end(out: &mut BytesMut, version: i16) {
    let mut writer = Writer::new(out, version >= 9);
    // Throttle time.
    writer.i32(0);
    writer.tags();
}
