//! `compression.type` of topics.

use bytes::Bytes;
use kafka_wire::IncrementalAlterConfigsRequest;
use kafka_wire::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use ringlog_engine::batch::{BatchBuilder, BatchHeader, Compression, NewRecord, body};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

fn lines(codec: Compression, count: i64, line: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec).producer(7, 0, 0);
    for n in 0..count {
        builder.push(&NewRecord {
            timestamp_ms: 1_000 + n,
            value: Some(line),
            ..NewRecord::default()
        });
    }
    Bytes::from(builder.build().expect("a batch"))
}

/// Codec and values of the batch at `offset`.
fn stored(world: &mut World, conn: Conn, topic: &str, offset: i64) -> (Compression, Vec<Vec<u8>>) {
    let response = world.call(conn, 11, &fetch_request(topic, &[(0, offset)], 0));
    let records = fetched(&response).records.clone().expect("records");
    let header = BatchHeader::validate(&records).expect("one batch with its CRC");
    let codec = Compression::from_attributes(header.attributes.get()).expect("a codec");
    let mut scratch = Vec::new();
    let values = body(&records, 1 << 20, &mut scratch)
        .expect("a body")
        .map(|record| record.expect("a record").value.expect("a value").to_vec());
    (codec, values.collect())
}

#[test]
fn a_topic_keeps_batches_in_its_codec() {
    for (kept, wanted) in CODECS {
        let mut world = World::new(1, &[]);
        let conn = world.connect(0);
        create(&mut world, conn, "as-sent", 1);
        for (_, sent) in CODECS {
            let topic = format!("t{}", sent as u8);
            create_with(&mut world, conn, &topic, &[("compression.type", kept)]);
            let batch = lines(sent, 3, b"a line");
            let first = produce(&mut world, conn, &topic, 0, batch.clone());
            assert_eq!(first, (0, 0), "{sent:?} to {kept}");
            let found = stored(&mut world, conn, &topic, 0);
            assert_eq!(
                found,
                (wanted, vec![b"a line".to_vec(); 3]),
                "{sent:?} to {kept}"
            );
            // Sent again it is known by its producer's sequence, whatever it was made into.
            assert_eq!(produce(&mut world, conn, &topic, 0, batch), (0, 0));
        }
        let sent = lines(Compression::Lz4, 3, b"a line");
        assert_eq!(produce(&mut world, conn, "as-sent", 0, sent), (0, 0));
        let found = stored(&mut world, conn, "as-sent", 0);
        assert_eq!(found.0, Compression::Lz4);
    }
}

#[test]
fn a_batch_that_outgrows_the_limit_is_refused() {
    let mut world = World::new(1, &[]);
    let conn = world.connect(0);
    let settings = [
        ("compression.type", "uncompressed"),
        ("max.message.bytes", "5000"),
    ];
    create_with(&mut world, conn, "t", &settings);
    let small = lines(Compression::Zstd, 10, &[b'x'; 1000]);
    assert!(small.len() < 1000);
    let refused = produce(&mut world, conn, "t", 0, small);
    assert_eq!(refused.0, error::MESSAGE_TOO_LARGE);
    let fits = lines(Compression::Zstd, 4, &[b'x'; 1000]);
    assert_eq!(produce(&mut world, conn, "t", 0, fits), (0, 0));
}

#[test]
fn the_broker_s_codec_holds_where_a_topic_has_none_and_changes_at_once() {
    let mut world = World::new(1, &[("compression.type", "gzip")]);
    let conn = world.connect(0);
    create(&mut world, conn, "t", 1);
    assert_eq!(produce(&mut world, conn, "t", 0, batch(&[b"one"])), (0, 0));
    let alter = |name: &str, value: &str| {
        message!(IncrementalAlterConfigsRequest {
            resources: vec![message!(AlterConfigsResource {
                resource_type: 2,
                resource_name: "t".into(),
                configs: vec![message!(AlterableConfig {
                    name: name.into(),
                    value: Some(value.into()),
                })],
            })],
        })
    };
    let altered = |world: &mut World, name: &str, value: &str| {
        let response = world.call(conn, 1, &alter(name, value));
        response.responses[0].error_code
    };
    assert_eq!(altered(&mut world, "compression.type", "zstd"), 0);
    assert_eq!(produce(&mut world, conn, "t", 0, batch(&[b"two"])), (0, 1));
    assert_eq!(
        stored(&mut world, conn, "t", 1),
        (Compression::Zstd, vec![b"two".to_vec()])
    );
    assert_eq!(
        altered(&mut world, "compression.type", "brotli"),
        error::INVALID_CONFIG
    );
    assert_eq!(
        altered(&mut world, "compression.gzip.level", "0"),
        error::INVALID_CONFIG
    );
    let response = world.call(conn, 11, &fetch_request("t", &[(0, 0)], 0));
    let both = fetched(&response).records.clone().expect("records");
    let first = BatchHeader::parse(&both).expect("a batch");
    assert_eq!(
        Compression::from_attributes(first.attributes.get()),
        Some(Compression::Gzip)
    );
}
