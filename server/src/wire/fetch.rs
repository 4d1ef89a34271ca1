//! Fetch, versions 4 to 12. The response's records are shared slices, so only what surrounds them is written here.
//!
//! Source: FetchRequest.json and FetchResponse.json of Apache Kafka 4.

use bytes::BytesMut;
use ringlog_engine::store::AbortedTransaction;

use super::reader::{Malformed, Reader};
use super::writer::Writer;

/// Topics and partitions that one request may name, those that it forgets among them. A topic takes 3 bytes on the
/// wire and 40 in memory, so a frame's size alone is no bound.
const NAMED_MAX: usize = super::ARRAY_ELEMENTS_MAX;

/// A Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest<'a> {
    /// How long to wait for `min_bytes`, milliseconds.
    pub max_wait_ms: i32,
    /// Answer as soon as this much is there.
    pub min_bytes: i32,
    /// Bytes of records at most, over all partitions.
    pub max_bytes: i32,
    /// 1: read committed.
    pub isolation_level: i8,
    /// Fetch session (KIP-227), 0 for none.
    pub session_id: i32,
    /// -1: no session; 0: open one; else the next in the session.
    pub session_epoch: i32,
    /// What to fetch.
    pub topics: Vec<FetchTopic<'a>>,
    /// Partitions that leave the session.
    pub forgotten: Vec<(&'a str, Vec<i32>)>,
}

/// One topic's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic<'a> {
    /// The topic.
    pub name: &'a str,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// Where to fetch in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number.
    pub index: i32,
    /// Leader epoch the client believes in, or -1.
    pub current_leader_epoch: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Bytes of records at most.
    pub max_bytes: i32,
}

impl<'a> FetchRequest<'a> {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(body: &'a [u8], version: i16) -> Result<Self, Malformed> {
        let flexible = version >= 12;
        let mut reader = Reader::new(body, flexible);
        reader.i32("replica id")?;
        let mut request = Self {
            max_wait_ms: reader.i32("max wait")?,
            min_bytes: reader.i32("min bytes")?,
            max_bytes: reader.i32("max bytes")?,
            isolation_level: reader.i8("isolation level")?,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten: Vec::new(),
        };
        if version >= 7 {
            request.session_id = reader.i32("session id")?;
            request.session_epoch = reader.i32("session epoch")?;
        }
        let mut left = NAMED_MAX;
        for _ in 0..count(&mut reader, 3, "topics", &mut left)? {
            let name = reader.string("topic name")?;
            let mut partitions = Vec::new();
            for _ in 0..count(&mut reader, 16, "partitions", &mut left)? {
                partitions.push(read_partition(&mut reader, version)?);
            }
            reader.tags()?;
            request.topics.push(FetchTopic { name, partitions });
        }
        if version >= 7 {
            for _ in 0..count(&mut reader, 3, "forgotten topics", &mut left)? {
                let name = reader.string("topic name")?;
                let mut partitions = Vec::new();
                for _ in 0..count(&mut reader, 4, "partitions", &mut left)? {
                    partitions.push(reader.i32("partition")?);
                }
                reader.tags()?;
                request.forgotten.push((name, partitions));
            }
        }
        if version >= 11 {
            reader.string("rack")?;
        }
        reader.tags()?;
        reader.finish()?;
        Ok(request)
    }
}

/// An array's count, of which `left` says how many elements the request may still have.
fn count(
    reader: &mut Reader<'_>,
    element_bytes: usize,
    what: &'static str,
    left: &mut usize,
) -> Result<usize, Malformed> {
    let count = reader.array(element_bytes, what)?;
    *left = left.checked_sub(count).ok_or(Malformed::TooMany(what))?;
    Ok(count)
}

fn read_partition(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartition, Malformed> {
    let index = reader.i32("partition")?;
    let current_leader_epoch = if version >= 9 {
        reader.i32("leader epoch")?
    } else {
        -1
    };
    let offset = reader.i64("offset")?;
    if version >= 12 {
        reader.i32("last fetched epoch")?;
    }
    if version >= 5 {
        reader.i64("log start offset")?;
    }
    let max_bytes = reader.i32("max bytes")?;
    reader.tags()?;
    Ok(FetchPartition {
        index,
        current_leader_epoch,
        offset,
        max_bytes,
    })
}

/// What precedes the topics of a response.
pub fn write_start(out: &mut BytesMut, version: i16, error: i16, session_id: i32, topics: usize) {
    let mut writer = Writer::new(out, version >= 12);
    // Throttle time.
    writer.i32(0);
    if version >= 7 {
        writer.i16(error);
        writer.i32(session_id);
    }
    writer.count(topics);
}

/// What precedes a topic's partitions.
pub fn write_topic_start(out: &mut BytesMut, version: i16, name: &str, partitions: usize) {
    let mut writer = Writer::new(out, version >= 12);
    writer.string(name);
    writer.count(partitions);
}

/// What surrounds one partition's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionData<'a> {
    /// The partition's number.
    pub index: i32,
    /// An error code or 0.
    pub error: i16,
    /// High watermark, or -1.
    pub high_watermark: i64,
    /// Last stable offset, or -1.
    pub last_stable_offset: i64,
    /// First offset of the log, or -1.
    pub log_start_offset: i64,
    /// Aborted transactions that records may belong to, if the request asked for committed ones.
    pub aborted: Option<&'a [AbortedTransaction]>,
    /// Bytes of records that follow.
    pub records_bytes: usize,
}

impl PartitionData<'_> {
    /// Appends what precedes the records, their length included.
    pub fn write(&self, out: &mut BytesMut, version: i16) {
        let mut writer = Writer::new(out, version >= 12);
        writer.i32(self.index);
        writer.i16(self.error);
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable_offset);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        match self.aborted {
            Some(aborted) => {
                writer.count(aborted.len());
                for transaction in aborted {
                    writer.i64(transaction.producer_id);
                    writer.i64(transaction.first_offset);
                    writer.tags();
                }
            }
            None => writer.null_array(),
        }
        if version >= 11 {
            // Preferred read replica.
            writer.i32(-1);
        }
        writer.count(self.records_bytes);
    }
}

/// What follows a partition's records, a topic's partitions, and the topics.
pub fn write_end(out: &mut BytesMut, version: i16) {
    Writer::new(out, version >= 12).tags();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of version 12 that names so many partitions of a topic, topics without partitions, and forgotten topics
    /// without partitions.
    fn body(partitions: usize, topics: usize, forgotten: usize) -> BytesMut {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out, true);
        // Replica id, max wait, min bytes, max bytes, isolation level, session.
        writer.raw(&[0; 16]);
        writer.i8(0);
        writer.i32(0);
        writer.i32(-1);
        writer.count(topics + 1);
        writer.string("t");
        writer.count(partitions);
        for _ in 0..partitions {
            writer.raw(&[0; 32]);
            writer.tags();
        }
        writer.tags();
        (0..topics).for_each(|_| write_empty_topic(&mut writer));
        writer.count(forgotten);
        (0..forgotten).for_each(|_| write_empty_topic(&mut writer));
        writer.string("");
        writer.tags();
        out
    }

    fn write_empty_topic(writer: &mut Writer<'_>) {
        writer.string("");
        writer.count(0);
        writer.tags();
    }

    #[test]
    fn a_request_names_no_more_than_its_bound_whatever_it_names() {
        let most = NAMED_MAX - 1;
        let fits = body(most - 20, 10, 10);
        let request = FetchRequest::parse(&fits, 12).expect("as many as there may be");
        assert_eq!(request.topics[0].partitions.len(), most - 20);
        assert_eq!((request.topics.len(), request.forgotten.len()), (11, 10));
        for (counts, what) in [
            ((most + 1, 0, 0), "partitions"),
            ((0, most + 1, 0), "topics"),
            ((0, 0, most + 1), "forgotten topics"),
            ((most - 9, 10, 0), "partitions"),
        ] {
            let bytes = body(counts.0, counts.1, counts.2);
            let refused = FetchRequest::parse(&bytes, 12);
            assert_eq!(refused, Err(Malformed::TooMany(what)), "{counts:?}");
        }
    }
}
