//! The codecs written by hand against the generated ones, in every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, StrBytes as KpStr};
use kafka_wire::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};
use proptest::prelude::*;
use ringlog_engine::store::AbortedTransaction;
use ringlog_server::message;
use ringlog_server::wire::{fetch, produce};

fn produce_sample() -> ProduceRequest {
    let data = |index, bytes: &'static [u8]| {
        message!(PartitionProduceData {
            index: index,
            records: Some(Bytes::from_static(bytes)),
        })
    };
    let topic = |name: &str, partition_data| {
        message!(TopicProduceData {
            name: name.into(),
            partition_data: partition_data
        })
    };
    message!(ProduceRequest {
        acks: -1,
        timeout_ms: 1234,
        topic_data: vec![
            topic("first", vec![data(3, b"abc"), data(-7, b"")]),
            topic("", vec![]),
            topic("second", vec![message!(PartitionProduceData { index: 5 })]),
        ],
    })
}

#[test]
fn produce_requests_read_as_they_were_written() {
    for version in 3..=11 {
        let mut sample = produce_sample();
        if version % 2 == 1 {
            sample.transactional_id = Some("txn".into());
        }
        let bytes = sample
            .encode_to_bytes(ApiVersion::new(version))
            .expect("encodes");
        let read = produce::ProduceRequest::parse(&bytes, version).expect("parses");
        assert_eq!(read.transactional_id, sample.transactional_id.as_deref());
        assert_eq!((read.acks, read.timeout_ms), (-1, 1234));
        let mut partitions = read.partitions.iter();
        assert_eq!(read.topics.len(), sample.topic_data.len());
        for ((name, count), topic) in read.topics.iter().zip(&sample.topic_data) {
            assert_eq!((*name, *count), (&*topic.name, topic.partition_data.len()));
            for wanted in &topic.partition_data {
                let got = partitions.next().expect("as many");
                assert_eq!(got.index, wanted.index);
                assert_eq!(got.records, wanted.records.as_deref());
            }
        }
        for cut in 0..bytes.len() {
            assert!(produce::ProduceRequest::parse(&bytes[..cut], version).is_err());
        }
    }
}

#[test]
fn produce_responses_read_by_two_other_codecs() {
    for version in 3..=11 {
        let mut out = BytesMut::new();
        produce::write_topic_count(&mut out, version, 2);
        produce::write_topic_start(&mut out, version, "a", 2);
        let good = produce::PartitionAck {
            index: 4,
            error: 0,
            base_offset: 77,
            append_time_ms: -1,
            log_start_offset: 5,
            message: None,
            records: &[],
        };
        good.write(&mut out, version);
        let records = [(0, "first".to_owned()), (3, "fourth".to_owned())];
        let refused = produce::PartitionAck {
            records: &records,
            ..produce::PartitionAck::refused(5, 87, Some("no"))
        };
        refused.write(&mut out, version);
        produce::write_topic_end(&mut out, version);
        produce::write_topic_start(&mut out, version, "b", 0);
        produce::write_topic_end(&mut out, version);
        produce::write_end(&mut out, version);
        let out = out.freeze();
        let limits = DecodeLimits::default();
        let read =
            ProduceResponse::decode_from_bytes(out.clone(), ApiVersion::new(version), limits)
                .expect("kafka-wire reads it");
        let partitions = &read.responses[0].partition_responses;
        assert_eq!((partitions[0].index, partitions[0].base_offset), (4, 77));
        assert_eq!((partitions[1].index, partitions[1].error_code), (5, 87));
        assert_eq!(&*read.responses[1].name, "b");
        if version >= 5 {
            assert_eq!(partitions[0].log_start_offset, 5);
        }
        if version >= 8 {
            assert_eq!(partitions[1].error_message.as_deref(), Some("no"));
            let errors = partitions[1].record_errors.iter();
            let errors: Vec<_> = errors
                .map(|e| (e.batch_index, e.batch_index_error_message.as_deref()))
                .collect();
            assert_eq!(errors, [(0, Some("first")), (3, Some("fourth"))]);
        }
        let mut rest = out;
        let read = kafka_protocol::messages::ProduceResponse::decode(&mut rest, version)
            .expect("kafka-protocol reads it");
        assert!(rest.is_empty());
        assert_eq!(read.responses[0].name.0, KpStr::from_static_str("a"));
        assert_eq!(read.responses[0].partition_responses[1].error_code, 87);
    }
}

fn fetch_sample(version: i16) -> FetchRequest {
    let partition = |index: i32, offset: i64| {
        let mut partition = message!(FetchPartition {
            partition: index,
            fetch_offset: offset,
            partition_max_bytes: 1000 + index,
        });
        if version >= 9 {
            partition.current_leader_epoch = 6;
        }
        partition
    };
    let mut request = message!(FetchRequest {
        max_wait_ms: 11,
        min_bytes: 12,
        max_bytes: 13,
        isolation_level: 1,
        topics: vec![message!(FetchTopic {
            topic: "t".into(),
            partitions: vec![partition(1, 100), partition(2, 200)],
        })],
    });
    if version >= 7 {
        request.session_id = 21;
        request.session_epoch = 22;
        request.forgotten_topics_data = vec![message!(ForgottenTopic {
            topic: "gone".into(),
            partitions: vec![3, 4],
        })];
    }
    request
}

#[test]
fn fetch_requests_read_as_they_were_written() {
    for version in 4..=12 {
        let sample = fetch_sample(version);
        let bytes = sample
            .encode_to_bytes(ApiVersion::new(version))
            .expect("encodes");
        let read = fetch::FetchRequest::parse(&bytes, version).expect("parses");
        assert_eq!(
            (read.max_wait_ms, read.min_bytes, read.max_bytes),
            (11, 12, 13)
        );
        assert_eq!(read.isolation_level, 1);
        let partitions = &read.topics[0].partitions;
        assert_eq!(read.topics[0].name, "t");
        let got: Vec<_> = partitions
            .iter()
            .map(|p| (p.index, p.offset, p.max_bytes))
            .collect();
        assert_eq!(got, [(1, 100, 1001), (2, 200, 1002)]);
        if version >= 7 {
            assert_eq!((read.session_id, read.session_epoch), (21, 22));
            assert_eq!(read.forgotten, [("gone", vec![3, 4])]);
        }
        for cut in 0..bytes.len() {
            assert!(fetch::FetchRequest::parse(&bytes[..cut], version).is_err());
        }
    }
}

#[test]
fn fetch_responses_read_by_two_other_codecs() {
    for version in 4..=12 {
        for read_committed in [false, true] {
            let aborted = [AbortedTransaction {
                producer_id: 7,
                first_offset: 40,
                last_offset: 44,
                stable_offset: 45,
            }];
            let mut out = BytesMut::new();
            fetch::write_start(&mut out, version, 0, 9, 1);
            fetch::write_topic_start(&mut out, version, "t", 1);
            let data = fetch::PartitionData {
                index: 3,
                error: 0,
                high_watermark: 50,
                last_stable_offset: 45,
                log_start_offset: 2,
                aborted: read_committed.then_some(&aborted[..]),
                records_bytes: 200,
            };
            data.write(&mut out, version);
            out.extend_from_slice(&[0xab; 200]);
            for _ in 0..3 {
                fetch::write_end(&mut out, version);
            }
            let out = out.freeze();
            let limits = DecodeLimits::default();
            let read =
                FetchResponse::decode_from_bytes(out.clone(), ApiVersion::new(version), limits)
                    .expect("kafka-wire reads it");
            let found = &read.responses[0].partitions[0];
            assert_eq!((found.partition_index, found.high_watermark), (3, 50));
            assert_eq!(found.records.as_deref(), Some(&[0xab; 200][..]));
            let listed = found.aborted_transactions.iter().flatten();
            let listed: Vec<_> = listed.map(|t| (t.producer_id, t.first_offset)).collect();
            assert_eq!(found.aborted_transactions.is_some(), read_committed);
            assert_eq!(listed == [(7, 40)], read_committed);
            let mut rest = out;
            let read = kafka_protocol::messages::FetchResponse::decode(&mut rest, version)
                .expect("kafka-protocol reads it");
            assert!(rest.is_empty());
            let found = &read.responses[0].partitions[0];
            assert_eq!(found.last_stable_offset, 45);
            let listed = found.aborted_transactions.iter().flatten();
            assert_eq!(listed.count(), usize::from(read_committed));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic_or_disagree(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        version in 3i16..=12,
    ) {
        let limits = DecodeLimits::default();
        let api = ApiVersion::new(version);
        if version <= 11 {
            let mine = produce::ProduceRequest::parse(&bytes, version).is_ok();
            let other =
                ProduceRequest::decode_from_bytes(Bytes::from(bytes.clone()), api, limits).is_ok();
            prop_assert_eq!(mine, other);
        }
        if version >= 4 {
            // Only ours may be stricter: it bounds counts by the bytes present.
            let mine = fetch::FetchRequest::parse(&bytes, version).is_ok();
            let other =
                FetchRequest::decode_from_bytes(Bytes::from(bytes.clone()), api, limits).is_ok();
            prop_assert!(!mine || other);
        }
    }
}
