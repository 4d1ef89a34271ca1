//! Produce, in two versions: 8, the last one that is not flexible, spoken by every broker since Kafka 2.4; and 12, the
//! first with which a transaction's partitions need not be announced (KIP-890).
//!
//! Source: ProduceRequest.json and ProduceResponse.json of Apache Kafka.

use super::{Cursor, Malformed, api, put_request_header, put_string};

/// The version used but for transactions of the second generation.
pub const VERSION: i16 = 8;
/// The version of transactions of the second generation.
pub const FLEXIBLE_VERSION: i16 = 12;

/// How requests and responses are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As in [`VERSION`].
    #[default]
    Plain,
    /// As in [`FLEXIBLE_VERSION`]: compact lengths, tagged fields.
    Flexible,
}

/// When the broker answers, as the protocol counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Acks {
    /// Never.
    None = 0,
    /// When the leader has it.
    Leader = 1,
    /// When all replicas in sync have it.
    All = -1,
}

/// What stands before a request's topics.
#[derive(Debug, Clone, Copy)]
pub struct Front<'a> {
    /// Comes back in the response.
    pub correlation: i32,
    /// Of a transactional producer.
    pub transactional_id: Option<&'a str>,
    /// When the broker answers.
    pub acks: Acks,
    /// How long it may take to, in milliseconds.
    pub timeout_ms: i32,
    /// Number of topics.
    pub topics: usize,
}

impl Format {
    /// Appends a request's front, up to and including the number of topics. The frame's length is patched in by
    /// [`finish`].
    pub fn put_front(self, out: &mut Vec<u8>, front: &Front<'_>) {
        let version = match self {
            Self::Plain => VERSION,
            Self::Flexible => FLEXIBLE_VERSION,
        };
        put_request_header(out, api::PRODUCE, version, front.correlation);
        self.put_tags(out);
        match (self, front.transactional_id) {
            (Self::Plain, None) => out.extend_from_slice(&(-1i16).to_be_bytes()),
            (Self::Plain, Some(id)) => put_string(out, id),
            (Self::Flexible, None) => out.push(0),
            (Self::Flexible, Some(id)) => self.put_name(out, id),
        }
        out.extend_from_slice(&(front.acks as i16).to_be_bytes());
        out.extend_from_slice(&front.timeout_ms.to_be_bytes());
        self.put_count(out, front.topics);
    }

    /// Appends a topic's name and number of partitions. [`Format::put_tags`] follows its last partition.
    pub fn put_topic(self, out: &mut Vec<u8>, name: &str, partitions: usize) {
        self.put_name(out, name);
        self.put_count(out, partitions);
    }

    /// Appends a partition's index and the length of its batch in bytes; the batch follows, then
    /// [`Format::put_tags`].
    pub fn put_partition(self, out: &mut Vec<u8>, partition: i32, batch_len: usize) {
        out.extend_from_slice(&partition.to_be_bytes());
        self.put_count(out, batch_len);
    }

    /// Ends a partition, a topic or the request: no tagged fields, where there could be some.
    pub fn put_tags(self, out: &mut Vec<u8>) {
        if self == Self::Flexible {
            out.push(0);
        }
    }

    fn put_name(self, out: &mut Vec<u8>, name: &str) {
        match self {
            Self::Plain => put_string(out, name),
            Self::Flexible => {
                self.put_count(out, name.len());
                out.extend_from_slice(name.as_bytes());
            }
        }
    }

    /// Appends a number of elements or bytes.
    fn put_count(self, out: &mut Vec<u8>, count: usize) {
        match self {
            Self::Plain => out.extend_from_slice(&(count as i32).to_be_bytes()),
            Self::Flexible => {
                let mut rest = count as u32 + 1;
                while rest >= 0x80 {
                    out.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                out.push(rest as u8);
            }
        }
    }

    /// Reads a response body (after the correlation id) and calls `each` for every partition.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a response of the version.
    pub fn read_response<'a>(
        self,
        body: &'a [u8],
        mut each: impl FnMut(Ack<'a>),
    ) -> Result<(), Malformed> {
        let mut fields = Fields {
            cursor: Cursor::new(body),
            flexible: self == Self::Flexible,
        };
        fields.tags()?;
        for _ in 0..fields.count()? {
            let topic = fields.string()?.ok_or(Malformed("topic name"))?;
            for _ in 0..fields.count()? {
                each(fields.ack(topic)?);
            }
            fields.tags()?;
        }
        let _throttle_time_ms = fields.cursor.i32()?;
        fields.tags()?;
        if fields.cursor.remaining() != 0 {
            return Err(Malformed("produce response: bytes left over"));
        }
        Ok(())
    }
}

/// Fields of a response in either layout.
struct Fields<'a> {
    cursor: Cursor<'a>,
    flexible: bool,
}

impl<'a> Fields<'a> {
    fn count(&mut self) -> Result<usize, Malformed> {
        match self.flexible {
            true => self.cursor.compact_count(),
            false => self.cursor.count(),
        }
    }

    fn string(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.flexible {
            true => self.cursor.compact_string(),
            false => self.cursor.string(),
        }
    }

    fn tags(&mut self) -> Result<(), Malformed> {
        match self.flexible {
            true => self.cursor.skip_tags(),
            false => Ok(()),
        }
    }

    fn ack(&mut self, topic: &'a [u8]) -> Result<Ack<'a>, Malformed> {
        let partition = self.cursor.i32()?;
        let error = self.cursor.i16()?;
        let base_offset = self.cursor.i64()?;
        let _log_append_time_ms = self.cursor.i64()?;
        let _log_start_offset = self.cursor.i64()?;
        for _ in 0..self.count()? {
            self.cursor.i32()?;
            self.string()?;
            self.tags()?;
        }
        let message = self.string()?;
        self.tags()?;
        Ok(Ack {
            topic,
            partition,
            error,
            base_offset,
            message,
        })
    }
}

/// Writes the length of the frame that starts at `start` in `out`; `elsewhere` bytes of it are not in `out`.
pub fn finish(out: &mut [u8], start: usize, elsewhere: usize) {
    let length = (out.len() - start - 4 + elsewhere) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// One partition's part of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Topic's name.
    pub topic: &'a [u8],
    /// Partition's index.
    pub partition: i32,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// Offset given to the batch's first record.
    pub base_offset: i64,
    /// What the broker adds to an error.
    pub message: Option<&'a [u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_wire::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_wire::{ProduceRequest, ProduceResponse};
    use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};

    const FORMATS: [(Format, i16); 2] = [
        (Format::Plain, VERSION),
        (Format::Flexible, FLEXIBLE_VERSION),
    ];

    #[test]
    fn the_request_is_what_the_generated_decoder_reads() {
        for (format, version) in FORMATS {
            for id in [None, Some("copier-7")] {
                let mut out = b"before".to_vec();
                let start = out.len();
                let front = Front {
                    correlation: 77,
                    transactional_id: id,
                    acks: Acks::All,
                    timeout_ms: 1500,
                    topics: 1,
                };
                let large = vec![b'x'; 20_000];
                format.put_front(&mut out, &front);
                format.put_topic(&mut out, "logs", 2);
                format.put_partition(&mut out, 3, large.len());
                out.extend_from_slice(&large);
                format.put_tags(&mut out);
                format.put_partition(&mut out, 4, 3);
                // Three bytes of the frame are sent from elsewhere; what follows them is not.
                let elsewhere = out.len();
                format.put_tags(&mut out);
                format.put_tags(&mut out);
                format.put_tags(&mut out);
                finish(&mut out, start, 3);
                out.splice(elsewhere..elsewhere, *b"two");
                let frame = &out[start..];
                assert_eq!(
                    frame.len() as i32 - 4,
                    i32::from_be_bytes(frame[..4].try_into().unwrap())
                );
                assert_eq!(frame[4..12], [0, 0, 0, version as u8, 0, 0, 0, 77]);
                let tags = usize::from(format == Format::Flexible);
                let body = &frame[14 + super::super::CLIENT_ID.len() + tags..];
                let request = ProduceRequest::decode_from_bytes(
                    Bytes::copy_from_slice(body),
                    ApiVersion::new(version),
                    DecodeLimits::default(),
                )
                .unwrap();
                assert_eq!((request.acks, request.timeout_ms), (-1, 1500));
                assert_eq!(request.transactional_id.as_ref().map(|id| id.as_str()), id);
                let topic = &request.topic_data[0];
                assert_eq!(topic.name.as_str(), "logs");
                assert_eq!(topic.partition_data[1].index, 4);
                let records = |at: usize| topic.partition_data[at].records.as_deref();
                assert_eq!(
                    (records(0), records(1)),
                    (Some(&large[..]), Some(&b"two"[..]))
                );
            }
        }
    }

    /// The body after the correlation id: a flexible header ends with its tagged fields.
    fn response(version: i16) -> Vec<u8> {
        let mut partition = PartitionProduceResponse::default();
        partition.index = 9;
        partition.base_offset = 1234;
        let mut failed = PartitionProduceResponse::default();
        failed.index = 10;
        failed.error_code = 6;
        failed.error_message = Some("moved".into());
        let mut topic = TopicProduceResponse::default();
        topic.name = "logs".into();
        topic.partition_responses = vec![partition, failed];
        let mut response = ProduceResponse::default();
        response.responses = vec![topic];
        let mut out = BytesMut::new();
        if version == FLEXIBLE_VERSION {
            out.extend_from_slice(&[0]);
        }
        response
            .encode_into(&mut out, ApiVersion::new(version))
            .unwrap();
        out.to_vec()
    }

    #[test]
    fn the_response_of_the_generated_encoder_is_read() {
        for (format, version) in FORMATS {
            let bytes = response(version);
            let mut acks = Vec::new();
            format.read_response(&bytes, |ack| acks.push(ack)).unwrap();
            assert_eq!(acks.len(), 2);
            assert_eq!(
                (acks[0].partition, acks[0].error, acks[0].base_offset),
                (9, 0, 1234)
            );
            assert_eq!((acks[1].error, acks[1].message), (6, Some(&b"moved"[..])));
        }
    }

    #[test]
    fn cut_and_random_responses_are_errors() {
        for (format, version) in FORMATS {
            let bytes = response(version);
            for length in 0..bytes.len() {
                assert!(
                    format.read_response(&bytes[..length], |_| ()).is_err(),
                    "{length} bytes"
                );
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(format.read_response(&longer, |_| ()).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            for (format, _) in FORMATS {
                let _ = format.read_response(&bytes, |_| ());
            }
        }
    }
}
