//! Fetch, version 11: the last one that is not flexible and names topics, spoken by every broker since Kafka 2.3.
//!
//! Source: FetchRequest.json and FetchResponse.json of Apache Kafka.

use super::{Cursor, Malformed, api, put_request_header, put_string};

/// The version used.
pub const VERSION: i16 = 11;

/// What bounds a fetch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest the broker waits for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes worth answering for.
    pub min_bytes: i32,
    /// Most bytes of a response.
    pub max_bytes: i32,
    /// Most bytes of one partition.
    pub partition_max_bytes: i32,
    /// Whether records of transactions that are not committed are left out.
    pub read_committed: bool,
}

/// Appends a whole request without a fetch session: every topic with its partitions as (index, offset).
pub fn put_request<'a, P>(
    out: &mut Vec<u8>,
    correlation: i32,
    limits: Limits,
    topics: impl ExactSizeIterator<Item = (&'a str, P)>,
) where
    P: ExactSizeIterator<Item = (i32, i64)>,
{
    let start = out.len();
    put_request_header(out, api::FETCH, VERSION, correlation);
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&limits.max_wait_ms.to_be_bytes());
    out.extend_from_slice(&limits.min_bytes.to_be_bytes());
    out.extend_from_slice(&limits.max_bytes.to_be_bytes());
    out.push(u8::from(limits.read_committed));
    // Session id 0 and epoch -1: no session.
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for (name, partitions) in topics {
        put_string(out, name);
        out.extend_from_slice(&(partitions.len() as i32).to_be_bytes());
        for (partition, offset) in partitions {
            out.extend_from_slice(&partition.to_be_bytes());
            // Current leader epoch: not known, not checked.
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(&(-1i64).to_be_bytes());
            out.extend_from_slice(&limits.partition_max_bytes.to_be_bytes());
        }
    }
    // No forgotten topics, rack "".
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&0i16.to_be_bytes());
    super::produce::finish(out, start, 0);
}

/// One partition's part of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// Topic's name.
    pub topic: &'a [u8],
    /// Partition's index.
    pub partition: i32,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// Offset below which records are visible.
    pub high_watermark: i64,
    /// First offset the partition still has.
    pub log_start_offset: i64,
    /// Aborted transactions with records here: producer id and first offset, 16 bytes each.
    pub aborted: &'a [u8],
    /// Record batches, the last one possibly cut short.
    pub records: &'a [u8],
}

/// Reads a response body (after the correlation id), calls `each` for every partition, and returns the error code
/// of the whole.
///
/// # Errors
/// [`Malformed`] if it is not a response of version 11.
pub fn read_response<'a>(
    body: &'a [u8],
    mut each: impl FnMut(Fetched<'a>),
) -> Result<i16, Malformed> {
    let mut cursor = Cursor::new(body);
    let _throttle_time_ms = cursor.i32()?;
    let error_code = cursor.i16()?;
    let _session_id = cursor.i32()?;
    for _ in 0..cursor.count()? {
        let topic = cursor.string()?.ok_or(Malformed("topic name"))?;
        for _ in 0..cursor.count()? {
            let partition = cursor.i32()?;
            let error = cursor.i16()?;
            let high_watermark = cursor.i64()?;
            let _last_stable_offset = cursor.i64()?;
            let log_start_offset = cursor.i64()?;
            let aborted_count = cursor.count()?;
            let aborted = cursor.take(aborted_count.saturating_mul(16))?;
            let _preferred_read_replica = cursor.i32()?;
            let records = cursor.bytes()?.unwrap_or_default();
            each(Fetched {
                topic,
                partition,
                error,
                high_watermark,
                log_start_offset,
                aborted,
                records,
            });
        }
    }
    if cursor.remaining() != 0 {
        return Err(Malformed("fetch response: bytes left over"));
    }
    Ok(error_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_wire::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
    use kafka_wire::{FetchRequest, FetchResponse};
    use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};

    #[test]
    fn the_request_is_what_the_generated_decoder_reads() {
        let limits = Limits {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 8 << 20,
            partition_max_bytes: 1 << 20,
            read_committed: true,
        };
        let mut out = Vec::new();
        let topics = [("a", vec![(0, 10i64), (2, 20)]), ("b", vec![(1, 30)])];
        put_request(
            &mut out,
            5,
            limits,
            topics
                .iter()
                .map(|(name, parts)| (*name, parts.iter().copied())),
        );
        assert_eq!(
            out.len() as i32 - 4,
            i32::from_be_bytes(out[..4].try_into().unwrap())
        );
        let body = Bytes::copy_from_slice(&out[14 + super::super::CLIENT_ID.len()..]);
        let request = FetchRequest::decode_from_bytes(
            body,
            ApiVersion::new(VERSION),
            DecodeLimits::default(),
        )
        .unwrap();
        assert_eq!((request.max_wait_ms, request.max_bytes), (500, 8 << 20));
        assert_eq!((request.session_id, request.session_epoch), (0, -1));
        assert_eq!(request.isolation_level, 1);
        assert_eq!(request.topics.len(), 2);
        assert_eq!(request.topics[0].partitions[1].partition, 2);
        assert_eq!(request.topics[0].partitions[1].fetch_offset, 20);
        assert_eq!(request.topics[1].topic.as_str(), "b");
        assert_eq!(request.topics[1].partitions[0].partition_max_bytes, 1 << 20);
    }

    fn response() -> Vec<u8> {
        let mut partition = PartitionData::default();
        partition.partition_index = 3;
        partition.high_watermark = 99;
        partition.log_start_offset = 7;
        partition.aborted_transactions = Some(vec![AbortedTransaction::default()]);
        partition.records = Some(Bytes::from_static(b"batches"));
        let mut empty = PartitionData::default();
        empty.partition_index = 4;
        empty.error_code = 6;
        empty.records = None;
        let mut topic = FetchableTopicResponse::default();
        topic.topic = "logs".into();
        topic.partitions = vec![partition, empty];
        let mut response = FetchResponse::default();
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
        let mut parts = Vec::new();
        assert_eq!(read_response(&bytes, |part| parts.push(part)), Ok(0));
        assert_eq!((parts[0].partition, parts[0].high_watermark), (3, 99));
        assert_eq!(
            (parts[0].log_start_offset, parts[0].records),
            (7, &b"batches"[..])
        );
        assert_eq!((parts[0].aborted.len(), parts[1].aborted.len()), (16, 0));
        assert_eq!((parts[1].error, parts[1].records), (6, &b""[..]));
        for length in 0..bytes.len() {
            assert!(
                read_response(&bytes[..length], |_| ()).is_err(),
                "{length} bytes"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = read_response(&bytes, |_| ());
        }
    }
}
