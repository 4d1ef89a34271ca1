//! Produce, version 8: the last one that is not flexible, spoken by every broker since Kafka 2.4.
//!
//! Source: ProduceRequest.json and ProduceResponse.json of Apache Kafka.

use super::{Cursor, Malformed, api, put_request_header, put_string};

/// The version used.
pub const VERSION: i16 = 8;

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

/// Appends a request's front, up to and including the number of topics. The frame's length is patched in by
/// [`finish`].
pub fn put_front(out: &mut Vec<u8>, correlation: i32, acks: Acks, timeout_ms: i32, topics: usize) {
    put_request_header(out, api::PRODUCE, VERSION, correlation);
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out.extend_from_slice(&(acks as i16).to_be_bytes());
    out.extend_from_slice(&timeout_ms.to_be_bytes());
    out.extend_from_slice(&(topics as i32).to_be_bytes());
}

/// Appends a topic's name and number of partitions.
pub fn put_topic(out: &mut Vec<u8>, name: &str, partitions: usize) {
    put_string(out, name);
    out.extend_from_slice(&(partitions as i32).to_be_bytes());
}

/// Appends a partition's index and the length of its batch in bytes; the batch follows.
pub fn put_partition(out: &mut Vec<u8>, partition: i32, batch_len: usize) {
    out.extend_from_slice(&partition.to_be_bytes());
    out.extend_from_slice(&(batch_len as i32).to_be_bytes());
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

/// Reads a response body (after the correlation id) and calls `each` for every partition.
///
/// # Errors
/// [`Malformed`] if it is not a response of version 8.
pub fn read_response<'a>(body: &'a [u8], mut each: impl FnMut(Ack<'a>)) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(body);
    for _ in 0..cursor.count()? {
        let topic = cursor.string()?.ok_or(Malformed("topic name"))?;
        for _ in 0..cursor.count()? {
            let partition = cursor.i32()?;
            let error = cursor.i16()?;
            let base_offset = cursor.i64()?;
            let _log_append_time_ms = cursor.i64()?;
            let _log_start_offset = cursor.i64()?;
            for _ in 0..cursor.count()? {
                cursor.i32()?;
                cursor.string()?;
            }
            let message = cursor.string()?;
            each(Ack {
                topic,
                partition,
                error,
                base_offset,
                message,
            });
        }
    }
    let _throttle_time_ms = cursor.i32()?;
    if cursor.remaining() != 0 {
        return Err(Malformed("produce response: bytes left over"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_wire::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use kafka_wire::{ProduceRequest, ProduceResponse};
    use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};

    #[test]
    fn the_request_is_what_the_generated_decoder_reads() {
        let mut out = b"before".to_vec();
        let start = out.len();
        put_front(&mut out, 77, Acks::All, 1500, 1);
        put_topic(&mut out, "logs", 2);
        put_partition(&mut out, 3, 5);
        out.extend_from_slice(b"batch");
        put_partition(&mut out, 4, 3);
        finish(&mut out, start, 3);
        out.extend_from_slice(b"two");
        let frame = &out[start..];
        assert_eq!(
            frame.len() as i32 - 4,
            i32::from_be_bytes(frame[..4].try_into().unwrap())
        );
        assert_eq!(frame[4..12], [0, 0, 0, 8, 0, 0, 0, 77]);
        let body = Bytes::copy_from_slice(&frame[14 + super::super::CLIENT_ID.len()..]);
        let request = ProduceRequest::decode_from_bytes(
            body,
            ApiVersion::new(VERSION),
            DecodeLimits::default(),
        )
        .unwrap();
        assert_eq!((request.acks, request.timeout_ms), (-1, 1500));
        assert!(request.transactional_id.is_none());
        let topic = &request.topic_data[0];
        assert_eq!(topic.name.as_str(), "logs");
        assert_eq!(topic.partition_data[1].index, 4);
        assert_eq!(
            topic.partition_data[0].records.as_deref(),
            Some(&b"batch"[..])
        );
        assert_eq!(
            topic.partition_data[1].records.as_deref(),
            Some(&b"two"[..])
        );
    }

    fn response() -> Vec<u8> {
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
        response
            .encode_into(&mut out, ApiVersion::new(VERSION))
            .unwrap();
        out.to_vec()
    }

    #[test]
    fn the_response_of_the_generated_encoder_is_read() {
        let bytes = response();
        let mut acks = Vec::new();
        read_response(&bytes, |ack| acks.push(ack)).unwrap();
        assert_eq!(acks.len(), 2);
        assert_eq!(
            (acks[0].partition, acks[0].error, acks[0].base_offset),
            (9, 0, 1234)
        );
        assert_eq!((acks[1].error, acks[1].message), (6, Some(&b"moved"[..])));
    }

    #[test]
    fn cut_and_random_responses_are_errors() {
        let bytes = response();
        for length in 0..bytes.len() {
            assert!(
                read_response(&bytes[..length], |_| ()).is_err(),
                "{length} bytes"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read_response(&longer, |_| ()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = read_response(&bytes, |_| ());
        }
    }
}
