//! What a coordinator refuses: epochs that are nobody's, and more than its memory may hold.

use kafka_wire::{EndTxnRequest, InitProducerIdRequest};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::id::Now;
use ringlog_engine::shard::ConnId;

use super::*;

const NOW: Now = Now {
    mono_ns: 1,
    wall_ms: 1_000_000,
};
const TOKEN: Token = Token {
    conn: ConnId(1),
    slot: 1,
};

fn coordinator(config: TxnConfig) -> Coordinator {
    let partitions = config.state_partitions;
    let mut coordinator = Coordinator::new(config);
    for partition in 0..partitions {
        coordinator.own(partition);
        coordinator.loaded(NOW, partition);
    }
    coordinator
}

/// The state topic's batch that holds one value.
fn stored(id: &str, value: &TxnValue) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        timestamp_ms: NOW.wall_ms,
        key: Some(&record::key(id)),
        value: Some(&value.encode()),
        headers: &[],
    });
    builder.build().unwrap()
}

fn add(id: &str, epoch: i16, topic: &str) -> Add {
    Add {
        origin: Origin::Shard { shard: 0, id: 0 },
        transactional_id: id.into(),
        producer_id: 5,
        epoch,
        verify_only: false,
        partitions: vec![(topic.into(), 0)],
    }
}

fn added(coordinator: &mut Coordinator, add: Add) -> Vec<i16> {
    coordinator.add(NOW, add);
    match coordinator.next_output() {
        Some(Output::Answer { results, .. }) => results,
        other => panic!("{other:?}"),
    }
}

/// The error code of an InitProducerId for an id, after its record, if any, has become durable.
fn init(coordinator: &mut Coordinator, id: &str) -> i16 {
    let request = message!(InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 400,
        producer_id: -1,
        producer_epoch: -1,
    });
    coordinator.init(NOW, TOKEN, 4, &request, || Some(5));
    while let Some(append) = coordinator.next_append(NOW) {
        coordinator.appended(NOW, append.id, Ok(()));
    }
    match coordinator.next_output() {
        Some(Output::Respond(_, Response::Init(answer))) => answer.error_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_largest_epoch_is_nobody_s() {
    let mut coordinator = coordinator(TxnConfig::default());
    let partition = partition_of(ID, 50);
    // As an abort leaves it that fenced the last epoch which producers are given.
    let value = TxnValue {
        producer_id: 5,
        previous_producer_id: -1,
        next_producer_id: -1,
        epoch: i16::MAX,
        timeout_ms: 400,
        state: TxnState::CompleteAbort,
        partitions: Partitions::new(),
        updated_ms: 0,
        started_ms: -1,
        client_version: 0,
    };
    coordinator.replay(partition, &stored(ID, &value)).unwrap();
    let results = added(&mut coordinator, add(ID, i16::MAX, "t"));
    assert_eq!(results, [error::PRODUCER_FENCED]);
    let request = message!(EndTxnRequest {
        transactional_id: ID.into(),
        producer_id: 5,
        producer_epoch: i16::MAX,
        committed: true,
    });
    coordinator.end(NOW, TOKEN, 5, &request, || Some(6));
    match coordinator.next_output() {
        Some(Output::Respond(_, Response::End(answer))) => {
            assert_eq!(answer.error_code, error::PRODUCER_FENCED);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(init(&mut coordinator, ID), 0, "a new producer id");
}

#[test]
fn ids_and_partitions_take_no_more_memory_than_they_may() {
    let mut coordinator = coordinator(TxnConfig {
        bytes_max: 100_000,
        ..TxnConfig::default()
    });
    let long = |n: usize| format!("{n}{}", "x".repeat(30_000));
    let mut ids = 0;
    while init(&mut coordinator, &long(ids)) == 0 {
        ids += 1;
        assert!(ids < 10, "no end");
    }
    assert_eq!(ids, 4);
    assert_eq!(init(&mut coordinator, "short"), error::POLICY_VIOLATION);
    // An id that is there goes on, but its transaction takes no further partition.
    assert_eq!(init(&mut coordinator, &long(0)), 0);
    let epoch = 1;
    let results = added(&mut coordinator, add(&long(0), epoch, "t"));
    assert_eq!(results, [error::POLICY_VIOLATION]);
    // What goes makes room.
    let partition = partition_of(&long(1), 50);
    coordinator.disown(partition);
    coordinator.own(partition);
    coordinator.loaded(NOW, partition);
    assert_eq!(init(&mut coordinator, "short"), 0);
    let taken = coordinator.transactions.bytes();
    assert!((90_000..100_000).contains(&taken), "{taken}");
}
