//! Produce.

use bytes::Bytes;
use kafka_wire::ProduceRequest;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Compression, HEADER_LEN, NewRecord};
use ringlog_engine::checksum::crc32c;
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

#[test]
fn offsets_count_up_and_every_version_is_answered() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    for version in 3..=11 {
        let records = batch(&[b"a", b"b"]);
        let response = world.call(conn, version, &produce_request("t", 1, -1, records));
        let base = 2 * (i64::from(version) - 3);
        assert_eq!(outcome(&response), (0, base), "version {version}");
        assert_eq!(&*response.responses[0].name, "t");
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.index, partition.log_append_time_ms), (1, -1));
    }
}

#[test]
fn an_ack_waits_for_the_disk() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    // The first commit creates the journal.
    produce(&mut world, conn, "t", 0, batch(&[b"x"]));
    for acks in [-1, 1] {
        world.send(conn, 8, &produce_request("t", 0, acks, batch(&[b"y"])));
        assert_eq!(world.take_raw(conn, 0, 8), None, "nothing was synced yet");
        assert!(world.disk.in_flight() > 0);
        world.pass_ms(1);
        assert!(world.take::<ProduceRequest>(conn, 8).is_some());
    }
}

#[test]
fn acks_0_has_no_response_and_a_refused_batch_closes_the_connection() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    world.send(conn, 8, &produce_request("t", 0, 0, batch(&[b"x"])));
    let second = produce(&mut world, conn, "t", 0, batch(&[b"y"]));
    assert_eq!(second, (0, 1), "the first was appended and not answered");
    world.send(conn, 8, &produce_request("nowhere", 0, 0, batch(&[b"x"])));
    assert!(world.is_closed(conn));
}

#[test]
fn every_refusal_has_kafkas_code() {
    let mut world = World::new(1, &[("message.max.bytes", "2000")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let good = batch(&[b"value"]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= byte;
        Bytes::from(bytes)
    };
    let two = Bytes::from([&good[..], &good[..]].concat());
    let control = control_batch();
    let cases: &[(&str, i32, Bytes, i16)] = &[
        ("t", 0, good.clone(), error::NONE),
        ("nope", 0, good.clone(), error::UNKNOWN_TOPIC_OR_PARTITION),
        ("t", 1, good.clone(), error::UNKNOWN_TOPIC_OR_PARTITION),
        ("t", -1, good.clone(), error::UNKNOWN_TOPIC_OR_PARTITION),
        ("t", 0, with(61, 1), error::CORRUPT_MESSAGE),
        ("t", 0, with(16, 2 ^ 1), error::INVALID_RECORD),
        ("t", 0, with(16, 2), error::INVALID_RECORD),
        ("t", 0, with(16, 2 ^ 3), error::CORRUPT_MESSAGE),
        ("t", 0, two, error::INVALID_RECORD),
        ("t", 0, good.slice(..40), error::INVALID_RECORD),
        ("t", 0, good.slice(..good.len() - 1), error::INVALID_RECORD),
        ("t", 0, Bytes::new(), error::INVALID_RECORD),
        ("t", 0, control, error::INVALID_RECORD),
        ("t", 0, batch(&[&[7; 3000]]), error::MESSAGE_TOO_LARGE),
        ("t", 0, sequenced(1, 5, 0), error::NONE),
        (
            "t",
            0,
            sequenced(1, 5, 7),
            error::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ),
        ("t", 0, sequenced(1, 4, 1), error::INVALID_PRODUCER_EPOCH),
        (
            "t",
            0,
            transactional(),
            error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
    ];
    for (number, (topic, index, records, code)) in cases.iter().enumerate() {
        let (got, _) = produce(&mut world, conn, topic, *index, records.clone());
        assert_eq!(got, *code, "case {number}");
    }
    let request = produce_request("t", 0, 2, good.clone());
    let response = world.call(conn, 8, &request);
    assert_eq!(outcome(&response).0, error::INVALID_REQUIRED_ACKS);
    let zstd = compressed(Compression::Zstd);
    let response = world.call(conn, 6, &produce_request("t", 0, -1, zstd.clone()));
    assert_eq!(outcome(&response).0, error::UNSUPPORTED_COMPRESSION_TYPE);
    assert_eq!(produce(&mut world, conn, "t", 0, zstd), (0, 2));
}

#[test]
fn a_duplicate_succeeds_with_its_original_offset() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let first = produce(&mut world, conn, "t", 0, sequenced(9, 0, 0));
    let second = produce(&mut world, conn, "t", 0, sequenced(9, 0, 1));
    assert_eq!((first, second), ((0, 0), (0, 1)));
    assert_eq!(
        produce(&mut world, conn, "t", 0, sequenced(9, 0, 0)),
        (0, 0)
    );
}

#[test]
fn many_partitions_of_many_topics_in_one_request() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    for name in ["a", "b"] {
        create(&mut world, conn, name, 3);
    }
    let data = |index| {
        message!(PartitionProduceData {
            index: index,
            records: Some(batch(&[b"x"])),
        })
    };
    let topic = |name: &str, partitions: Vec<i32>| {
        message!(TopicProduceData {
            name: name.into(),
            partition_data: partitions.into_iter().map(data).collect(),
        })
    };
    let request = message!(ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![
            topic("a", vec![0, 2, 7]),
            topic("c", vec![]),
            topic("b", vec![1])
        ],
    });
    for version in [8, 11] {
        let response = world.call(conn, version, &request);
        let codes: Vec<(String, Vec<i16>)> = response
            .responses
            .iter()
            .map(|t| {
                let codes = t.partition_responses.iter().map(|p| p.error_code);
                (t.name.to_string(), codes.collect())
            })
            .collect();
        let expected = [("a", vec![0, 0, 3]), ("c", vec![]), ("b", vec![0])];
        let expected = expected.map(|(n, c)| (n.to_string(), c));
        assert_eq!(codes, expected);
    }
}

#[test]
fn a_partition_of_another_shard_has_another_leader() {
    let mut world = World::new(2, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 4);
    let leaders = leaders(&mut world, conn, "t");
    let away = leaders.iter().position(|l| *l == 1).expect("half are") as i32;
    let here = leaders.iter().position(|l| *l == 0).expect("half are") as i32;
    assert_eq!(produce(&mut world, conn, "t", here, batch(&[b"x"])), (0, 0));
    let (code, _) = produce(&mut world, conn, "t", away, batch(&[b"x"]));
    assert_eq!(code, error::NOT_LEADER_OR_FOLLOWER);
    let other = world.connect(1);
    assert_eq!(
        produce(&mut world, other, "t", away, batch(&[b"x"])),
        (0, 0)
    );
}

#[test]
fn a_full_journal_holds_producers_up_and_loses_nothing() {
    let mut world = World::new(1, &[]);
    let conns: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
    create(&mut world, conns[0], "t", 3);
    // Much more than the journal, and more than one request in flight on each connection.
    let value = vec![5; 60 << 10];
    let rounds = 40;
    for _ in 0..rounds {
        for (index, conn) in conns.iter().enumerate() {
            let request = produce_request("t", index as i32, -1, batch(&[&value]));
            world.send(*conn, 8, &request);
        }
    }
    assert!(
        conns.iter().any(|c| world.is_paused(*c)),
        "the journal was never full"
    );
    world.pass_ms(10_000);
    for conn in &conns {
        for offset in 0..rounds {
            let response = world.take::<ProduceRequest>(*conn, 8).expect("an answer");
            assert_eq!(outcome(&response), (0, offset));
        }
        assert!(!world.is_paused(*conn));
    }
}

#[test]
fn a_client_that_gives_up_while_the_journal_is_full_holds_nobody_up() {
    let mut world = World::new(1, &[]);
    let (gone, stays) = (world.connect(0), world.connect(0));
    create(&mut world, gone, "t", 1);
    let value = vec![5; 90 << 10];
    while !world.is_paused(gone) {
        world.send(gone, 8, &produce_request("t", 0, -1, batch(&[&value])));
    }
    world.send(stays, 8, &produce_request("t", 0, -1, batch(&[b"x"])));
    world.disconnect(gone);
    world.pass_ms(10_000);
    let response = world.take::<ProduceRequest>(stays, 8).expect("an answer");
    assert_eq!(outcome(&response).0, 0);
}

#[test]
fn a_shutdown_answers_what_is_under_way_and_ends() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    world.send(conn, 8, &produce_request("t", 0, -1, batch(&[b"x"])));
    world.shutdown();
    world.pass_ms(5_000);
    assert_eq!(
        outcome(&world.take::<ProduceRequest>(conn, 8).expect("acked")),
        (0, 0)
    );
    assert!(world.is_finished());
}

/// One record of producer `id`.
fn sequenced(id: i64, epoch: i16, sequence: i32) -> Bytes {
    one(BatchBuilder::new().producer(id, epoch, sequence))
}

fn control_batch() -> Bytes {
    one(BatchBuilder::new().control(true))
}

fn transactional() -> Bytes {
    one(BatchBuilder::new().producer(3, 0, 0).transactional(true))
}

fn compressed(codec: Compression) -> Bytes {
    one(BatchBuilder::new().compression(codec))
}

fn one(mut builder: BatchBuilder) -> Bytes {
    builder.push(&NewRecord {
        timestamp_ms: 1,
        value: Some(b"v"),
        ..NewRecord::default()
    });
    Bytes::from(builder.build().expect("a batch"))
}

#[test]
fn an_idempotent_producer_is_known_for_longer_than_a_minute() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let mut builder = BatchBuilder::new().producer(7, 0, 0);
    builder.push(&NewRecord::default());
    let batch = Bytes::from(builder.build().expect("a batch"));
    assert_eq!(produce(&mut world, conn, "t", 0, batch.clone()), (0, 0));
    world.pass_ms(60_000);
    assert_eq!(
        produce(&mut world, conn, "t", 0, batch),
        (0, 0),
        "the same batch"
    );
}

/// Milliseconds since 1970 as the simulated broker has it, nearly.
const NOW_MS: i64 = 1_700_000_001_000;

/// A batch of records with these timestamps.
fn timed(codec: Compression, times: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec);
    for &timestamp_ms in times {
        builder.push(&NewRecord {
            timestamp_ms,
            value: Some(b"v"),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

/// Produces one batch; the error code and the records named, with words.
fn refused(
    world: &mut World,
    conn: Conn,
    topic: &str,
    records: Bytes,
) -> (i16, Vec<(i32, String)>) {
    let response = world.call(conn, 8, &produce_request(topic, 0, -1, records));
    let partition = &response.responses[0].partition_responses[0];
    let words = |e: &kafka_wire::produce_response::BatchIndexAndErrorMessage| {
        (
            e.batch_index,
            e.batch_index_error_message
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    (
        partition.error_code,
        partition.record_errors.iter().map(words).collect(),
    )
}

#[test]
fn timestamps_far_from_the_broker_s_clock_are_refused_by_record() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    create_with(
        &mut world,
        conn,
        "past",
        &[("message.timestamp.before.max.ms", "5000")],
    );
    create_with(
        &mut world,
        conn,
        "soon",
        &[("message.timestamp.after.max.ms", "100000")],
    );
    let hour = 3_600_000;
    let cases = [
        ("t", vec![NOW_MS, 0, -1, NOW_MS + hour - 60_000], vec![]),
        (
            "t",
            vec![NOW_MS, NOW_MS + 2 * hour, NOW_MS, NOW_MS + 3 * hour],
            vec![1, 3],
        ),
        ("past", vec![NOW_MS], vec![]),
        ("past", vec![NOW_MS - 60_000, NOW_MS], vec![0]),
        ("soon", vec![NOW_MS + 200_000], vec![0]),
    ];
    for (topic, times, named) in cases {
        for codec in [Compression::None, Compression::Lz4] {
            let (code, records) = refused(&mut world, conn, topic, timed(codec, &times));
            let expected = if named.is_empty() {
                0
            } else {
                error::INVALID_TIMESTAMP
            };
            assert_eq!(code, expected, "{topic} {times:?} {codec:?}");
            if codec == Compression::None {
                assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), named);
                assert!(
                    records.iter().all(|r| r.1.contains("out of range")),
                    "{records:?}"
                );
            }
        }
    }
}

#[test]
fn append_times_are_the_broker_s_alone() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create_with(
        &mut world,
        conn,
        "t",
        &[("message.timestamp.type", "LogAppendTime")],
    );
    let far = timed(Compression::None, &[5, NOW_MS * 2]);
    let response = world.call(conn, 8, &produce_request("t", 0, -1, far));
    let told = response.responses[0].partition_responses[0].log_append_time_ms;
    assert!((NOW_MS..NOW_MS + 60_000).contains(&told), "{told}");
    let response = world.call(conn, 11, &fetch_request("t", &[(0, 0)], 0));
    let stored = fetched(&response).records.clone().expect("records");
    let header = BatchHeader::validate(&stored).expect("its CRC is right");
    assert_eq!(header.attributes.get(), 8);
    assert_eq!(header.max_timestamp.get(), told);
    // A producer that sends such a batch pretends to be a broker.
    let (code, records) = refused(&mut world, conn, "t", rebased(&stored));
    assert_eq!(code, error::INVALID_TIMESTAMP);
    assert_eq!(records.len(), 2);
}

/// As a producer would send it.
fn rebased(batch: &[u8]) -> Bytes {
    let mut batch = batch.to_vec();
    batch[..8].fill(0);
    Bytes::from(batch)
}

#[test]
fn compacted_topics_want_keys() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create_with(&mut world, conn, "t", &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new();
    for key in [Some(&b"k"[..]), None, Some(b""), None] {
        builder.push(&NewRecord {
            key,
            ..NewRecord::default()
        });
    }
    let batch = Bytes::from(builder.build().expect("a batch"));
    let (code, records) = refused(&mut world, conn, "t", batch);
    assert_eq!(code, error::INVALID_RECORD);
    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 3]);
    assert!(records[0].1.contains("without key"), "{records:?}");
}

#[test]
fn records_are_read_as_deep_as_the_broker_is_told() {
    let mut garbage = timed(Compression::Gzip, &[NOW_MS]).to_vec();
    garbage[HEADER_LEN + 10..].fill(0xa5);
    reseal(&mut garbage);
    let mut miscounted = timed(Compression::None, &[NOW_MS, NOW_MS]).to_vec();
    miscounted[23..27].copy_from_slice(&2i32.to_be_bytes());
    miscounted[57..61].copy_from_slice(&3i32.to_be_bytes());
    reseal(&mut miscounted);
    let mut bomb = BatchBuilder::new().compression(Compression::Zstd);
    bomb.push(&NewRecord {
        value: Some(&[0; 50_000]),
        ..NewRecord::default()
    });
    let bomb = bomb.build().expect("small");
    let (corrupt, invalid) = (error::CORRUPT_MESSAGE, error::INVALID_RECORD);
    for (depth, codes) in [
        ("none", [0, 0, 0]),
        ("uncompressed", [0, invalid, 0]),
        ("all", [corrupt, invalid, corrupt]),
    ] {
        let settings = [
            ("ringlog.inspect.records", depth),
            ("ringlog.inspect.decompressed.max.bytes", "40000"),
        ];
        let mut world = World::new(1, &settings);
        let conn = world.connect(0);
        create(&mut world, conn, "t", 1);
        for (batch, expected) in [&garbage, &miscounted, &bomb].into_iter().zip(codes) {
            let (code, records) = refused(&mut world, conn, "t", Bytes::copy_from_slice(batch));
            assert_eq!((code, records.len()), (expected, 0), "{depth}");
        }
        assert_eq!(
            produce(
                &mut world,
                conn,
                "t",
                0,
                timed(Compression::Zstd, &[NOW_MS])
            )
            .0,
            0
        );
    }
}

/// Sets the CRC of a batch that was changed.
fn reseal(batch: &mut [u8]) {
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn transactional_records_without_an_id_refuse_the_whole_request() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 2);
    let mut builder = BatchBuilder::new().producer(7, 0, 0).transactional(true);
    builder.push(&NewRecord::default());
    let transactional = Bytes::from(builder.build().expect("a batch"));
    let mut request = produce_request("t", 0, -1, batch(&[b"good"]));
    request.topic_data[0]
        .partition_data
        .push(message!(PartitionProduceData {
            index: 1,
            records: Some(transactional),
        }));
    let response = world.call(conn, 8, &request);
    for partition in &response.responses[0].partition_responses {
        let code = error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        assert_eq!((partition.error_code, partition.base_offset), (code, -1));
    }
}

#[test]
fn a_length_that_is_too_small_is_damage_and_a_second_batch_is_not() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    let good = batch(&[b"some value"]).to_vec();
    let mut short = good.clone();
    short[8..12].copy_from_slice(&(good.len() as i32 - 12 - 5).to_be_bytes());
    let mut damaged = good.clone();
    damaged[70] ^= 1;
    let cases = [
        (short, error::CORRUPT_MESSAGE),
        ([&good[..], &good[..]].concat(), error::INVALID_RECORD),
        ([&damaged[..], &good[..]].concat(), error::INVALID_RECORD),
        ([&good[..], &[1, 2, 3]].concat(), error::INVALID_RECORD),
        (damaged, error::CORRUPT_MESSAGE),
    ];
    for (at, (records, code)) in cases.into_iter().enumerate() {
        let result = produce(&mut world, conn, "t", 0, Bytes::from(records));
        assert_eq!(result, (code, -1), "case {at}");
    }
}
