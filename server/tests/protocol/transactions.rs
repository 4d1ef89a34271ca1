//! Transactions as clients see them: two shards, both generations of the protocol, markers, offsets, time-outs.

use bytes::Bytes;
use kafka_wire::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_wire::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_wire::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_wire::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, EndTxnResponse, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListTransactionsRequest, OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
    WriteTxnMarkersRequest,
};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_server::message;
use ringlog_server::wire::error;

use super::util::*;
use super::world::{Conn, World};

/// A topic with a partition on each of two shards, and a transactional id.
struct Story {
    world: World,
    /// Connections to the shards.
    shards: Vec<Conn>,
    /// Connection to the coordinator.
    coordinator: Conn,
    producer: (i64, i16),
}

const ID: &str = "id";

fn start(settings: &[(&str, &str)]) -> Story {
    let mut world = World::new(2, settings);
    let shards: Vec<Conn> = (0..2).map(|shard| world.connect(shard)).collect();
    create(&mut world, shards[0], "t", 2);
    let coordinator = shards[find(&mut world, shards[0], 1, ID)];
    let mut story = Story {
        world,
        shards,
        coordinator,
        producer: (-1, -1),
    };
    let answer = story.init(60_000);
    assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    story
}

fn find(world: &mut World, conn: Conn, key_type: i8, key: &str) -> usize {
    let request = message!(FindCoordinatorRequest {
        key_type: key_type,
        coordinator_keys: vec![key.into()],
    });
    let response = world.call(conn, 4, &request);
    assert_eq!(response.coordinators[0].error_code, 0, "{response:?}");
    response.coordinators[0].node_id as usize
}

impl Story {
    fn init(&mut self, timeout_ms: i32) -> InitProducerIdResponse {
        let request = message!(InitProducerIdRequest {
            transactional_id: Some(ID.into()),
            transaction_timeout_ms: timeout_ms,
            producer_id: -1,
            producer_epoch: -1,
        });
        let response = self.world.call(self.coordinator, 4, &request);
        if response.error_code == 0 {
            self.producer = (response.producer_id, response.producer_epoch);
        }
        response
    }

    fn add(&mut self, partitions: &[i32]) -> Vec<i16> {
        let request = message!(AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: ID.into(),
            v3_and_below_producer_id: self.producer.0,
            v3_and_below_producer_epoch: self.producer.1,
            v3_and_below_topics: vec![message!(AddPartitionsToTxnTopic {
                name: "t".into(),
                partitions: partitions.to_vec(),
            })],
        });
        let response = self.world.call(self.coordinator, 3, &request);
        let results = response.results_by_topic_v3_and_below.iter();
        let results = results.flat_map(|topic| &topic.results_by_partition);
        results.map(|r| r.partition_error_code).collect()
    }

    fn leader(&mut self, index: i32) -> Conn {
        let leaders = leaders(&mut self.world, self.shards[0], "t");
        self.shards[leaders[index as usize] as usize]
    }

    /// Produces one record in the transaction; the error code and the offset.
    fn produce(&mut self, version: i16, index: i32, sequence: i32) -> (i16, i64) {
        let mut request = produce_request("t", index, -1, batch_of(self.producer, sequence));
        request.transactional_id = Some(ID.into());
        let conn = self.leader(index);
        let response = self.world.call(conn, version, &request);
        outcome(&response)
    }

    fn end(&mut self, version: i16, committed: bool) -> EndTxnResponse {
        let request = message!(EndTxnRequest {
            transactional_id: ID.into(),
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            committed: committed,
        });
        let response = self.world.call(self.coordinator, version, &request);
        if version >= 5 && response.error_code == 0 {
            self.producer = (response.producer_id, response.producer_epoch);
        }
        response
    }

    /// Bytes that can be read committed, last stable offset, high watermark, producers of aborted transactions.
    fn committed(&mut self, index: i32) -> (bool, i64, i64, Vec<i64>) {
        let mut request: FetchRequest = fetch_request("t", &[(index, 0)], 0);
        request.isolation_level = 1;
        let conn = self.leader(index);
        let response = self.world.call(conn, 11, &request);
        let found = fetched(&response);
        assert_eq!(found.error_code, 0);
        let aborted = found.aborted_transactions.iter().flatten();
        (
            found.records.as_ref().is_some_and(|r| !r.is_empty()),
            found.last_stable_offset,
            found.high_watermark,
            aborted.map(|t| t.producer_id).collect(),
        )
    }

    fn described(&mut self) -> (i16, String, i64) {
        let request = message!(DescribeTransactionsRequest {
            transactional_ids: vec![ID.into()],
        });
        let response = self.world.call(self.coordinator, 0, &request);
        let state = &response.transaction_states[0];
        let name = state.transaction_state.to_string();
        (state.error_code, name, state.producer_id)
    }
}

fn batch_of(producer: (i64, i16), sequence: i32) -> Bytes {
    batch_with(producer, sequence, b"v")
}

fn batch_with((id, epoch): (i64, i16), sequence: i32, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new()
        .producer(id, epoch, sequence)
        .transactional(true);
    builder.push(&NewRecord {
        timestamp_ms: 1_700_000_000_000,
        value: Some(value),
        ..NewRecord::default()
    });
    Bytes::from(builder.build().expect("a batch"))
}

#[test]
fn a_transaction_over_two_shards_commits_as_one() {
    let mut story = start(&[]);
    assert_eq!(story.add(&[0, 1]), [0, 0]);
    for index in 0..2 {
        assert_eq!(story.produce(9, index, 0), (0, 0));
        assert_eq!(story.committed(index), (false, 0, 1, vec![]));
    }
    assert_eq!(story.described(), (0, "Ongoing".into(), story.producer.0));
    assert_eq!(story.end(3, true).error_code, 0);
    story.world.pass_ms(50);
    for index in 0..2 {
        assert_eq!(story.committed(index), (true, 2, 2, vec![]));
    }
    assert_eq!(story.described().1, "CompleteCommit");
    assert_eq!(story.end(3, true).error_code, 0, "a repeated request");
    assert_eq!(story.end(3, false).error_code, error::INVALID_TXN_STATE);
    // The next one, aborted: the same epoch, sequences go on.
    assert_eq!(story.add(&[1]), [0]);
    assert_eq!(story.produce(9, 1, 1), (0, 2));
    assert_eq!(story.end(3, false).error_code, 0);
    story.world.pass_ms(50);
    let id = story.producer.0;
    assert_eq!(story.committed(1), (true, 4, 4, vec![id]));
}

#[test]
fn the_second_generation_adds_by_writing_and_raises_the_epoch() {
    let mut story = start(&[]);
    let (id, mut offset) = (story.producer.0, 0);
    for round in 0..4i16 {
        assert_eq!(story.producer.1, round);
        for index in 0..2 {
            assert_eq!(story.produce(12, index, 0), (0, offset));
            assert_eq!(story.produce(12, index, 1), (0, offset + 1));
        }
        let old = story.producer;
        let ended = story.end(5, round % 2 == 0);
        let told = (ended.error_code, ended.producer_id, ended.producer_epoch);
        assert_eq!(told, (0, id, round + 1));
        // Its answer was lost: the same request gets the same answer, or is asked to wait.
        let new = std::mem::replace(&mut story.producer, old);
        let again = story.end(5, round % 2 == 0);
        assert!(
            [0, error::CONCURRENT_TRANSACTIONS].contains(&again.error_code),
            "{again:?}"
        );
        story.producer = old;
        assert_eq!(story.produce(12, 0, 2).0, error::INVALID_PRODUCER_EPOCH);
        story.producer = new;
        offset += 3;
    }
    story.world.pass_ms(50);
    assert_eq!(story.committed(0), (true, offset, offset, vec![id, id]));
    // Nothing was written: a commit makes no sense, an abort gives a new epoch.
    assert_eq!(story.end(5, true).error_code, error::INVALID_TXN_STATE);
    let ended = story.end(5, false);
    assert_eq!((ended.error_code, ended.producer_epoch), (0, 5));
}

#[test]
fn the_next_end_waits_for_the_markers_of_the_last() {
    let mut story = start(&[]);
    for (round, commit) in [true, false].into_iter().enumerate() {
        for index in 0..2 {
            assert_eq!(story.produce(12, index, 0).0, 0);
        }
        let end = |producer: (i64, i16), committed| {
            message!(EndTxnRequest {
                transactional_id: ID.into(),
                producer_id: producer.0,
                producer_epoch: producer.1,
                committed: committed,
            })
        };
        let next = (story.producer.0, story.producer.1 + 1);
        // A client that has its next epoch may give up the transaction that it began with it before it wrote anything.
        let (world, conn) = (&mut story.world, story.coordinator);
        world.send(conn, 5, &end(story.producer, commit));
        world.send(conn, 5, &end(next, false));
        world.pass_ms(100);
        let answers: Vec<EndTxnResponse> = (0..2)
            .filter_map(|_| world.take::<EndTxnRequest>(conn, 5))
            .collect();
        let codes: Vec<i16> = answers.iter().map(|answer| answer.error_code).collect();
        assert_eq!(codes, [0, error::CONCURRENT_TRANSACTIONS], "{round}");
        story.producer = next;
        let ended = story.end(5, false);
        assert_eq!((ended.error_code, ended.producer_epoch), (0, next.1 + 1));
    }
}

#[test]
fn whoever_asks_out_of_turn_gets_kafkas_codes() {
    let mut story = start(&[]);
    for timeout_ms in [0, -1, 900_001] {
        let answer = story.init(timeout_ms);
        assert_eq!(answer.error_code, error::INVALID_TRANSACTION_TIMEOUT);
    }
    assert_eq!(story.end(3, true).error_code, error::INVALID_TXN_STATE);
    // A partition that was not added, before version 12.
    assert_eq!(story.produce(9, 0, 0).0, error::INVALID_TXN_STATE);
    assert_eq!(story.produce(11, 0, 0).0, error::TRANSACTION_ABORTABLE);
    let unknown = [
        error::OPERATION_NOT_ATTEMPTED,
        error::UNKNOWN_TOPIC_OR_PARTITION,
    ];
    assert_eq!(story.add(&[0, 7]), unknown);
    let good = story.producer;
    story.producer = (good.0 + 1, good.1);
    assert_eq!(story.add(&[0]), [error::INVALID_PRODUCER_ID_MAPPING]);
    let code = story.end(3, true).error_code;
    assert_eq!(code, error::INVALID_PRODUCER_ID_MAPPING);
    let code = story.produce(12, 0, 0).0;
    assert_eq!(code, error::INVALID_PRODUCER_ID_MAPPING);
    story.producer = good;
    // A newer producer fences this one, whose open transaction is aborted.
    assert_eq!(story.add(&[0]), [0]);
    assert_eq!(story.produce(9, 0, 0), (0, 0));
    let answer = story.init(60_000);
    assert_eq!(answer.error_code, error::CONCURRENT_TRANSACTIONS);
    story.world.pass_ms(50);
    assert_eq!(story.init(60_000).error_code, 0);
    assert_eq!(story.producer, (good.0, good.1 + 2));
    assert_eq!(story.committed(0), (true, 2, 2, vec![good.0]));
    story.producer = good;
    assert_eq!(story.add(&[0]), [error::PRODUCER_FENCED]);
    assert_eq!(story.end(2, true).error_code, error::PRODUCER_FENCED);
    assert_eq!(story.end(1, true).error_code, error::INVALID_PRODUCER_EPOCH);
    assert_eq!(story.produce(9, 0, 1).0, error::INVALID_PRODUCER_EPOCH);
    // Not a coordinator of anything here, or of nothing at all.
    let other = usize::from(story.coordinator == story.shards[0]);
    story.coordinator = story.shards[other];
    assert_eq!(story.init(60_000).error_code, error::NOT_COORDINATOR);
    let empty = message!(InitProducerIdRequest {
        transactional_id: Some("".into()),
        transaction_timeout_ms: 1,
    });
    let answer = story.world.call(story.coordinator, 4, &empty);
    assert_eq!(answer.error_code, error::INVALID_REQUEST);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let mut story = start(&[]);
    assert_eq!(story.init(20_000).error_code, 0);
    assert_eq!(story.produce(12, 0, 0), (0, 0));
    story.world.pass_ms(15_000);
    assert_eq!(story.described().1, "Ongoing");
    story.world.pass_ms(16_000);
    assert_eq!(story.described().1, "CompleteAbort");
    assert_eq!(story.committed(0).1, 2);
    assert_eq!(story.end(5, true).error_code, error::PRODUCER_FENCED);
    assert_eq!(story.produce(12, 0, 1).0, error::INVALID_PRODUCER_EPOCH);
    assert_eq!(story.init(20_000).error_code, 0);
    assert_eq!(story.produce(12, 0, 0), (0, 2));
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    let hour = [("transactional.id.expiration.ms", "3600000")];
    let mut story = start(&hour);
    story.world.pass_ms(2 * 3_600_000 + 60_000);
    // Idle connections were closed meanwhile.
    for shard in 0..2 {
        let conn = story.world.connect(shard);
        if story.coordinator == story.shards[shard] {
            story.coordinator = conn;
        }
        story.shards[shard] = conn;
    }
    assert_eq!(story.described().0, error::TRANSACTIONAL_ID_NOT_FOUND);
    assert_eq!(story.add(&[0]), [error::INVALID_PRODUCER_ID_MAPPING]);
    assert_eq!(story.init(1).error_code, 0);
}

fn offsets_of(story: &mut Story, group: Conn, stable: bool) -> (i16, i64) {
    let request = message!(OffsetFetchRequest {
        groups: vec![message!(OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![message!(OffsetFetchRequestTopics {
                name: "t".into(),
                partition_indexes: vec![0],
            })]),
        })],
        require_stable: stable,
    });
    let response = story.world.call(group, 8, &request);
    let partition = &response.groups[0].topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

fn commit_offset(story: &mut Story, group: Conn, version: i16, offset: i64) -> i16 {
    let request = message!(TxnOffsetCommitRequest {
        transactional_id: ID.into(),
        group_id: "g".into(),
        producer_id: story.producer.0,
        producer_epoch: story.producer.1,
        generation_id_or_member_epoch: -1,
        topics: vec![message!(TxnOffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![message!(TxnOffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: Some("".into()),
            })],
        })],
    });
    let response = story.world.call(group, version, &request);
    response.topics[0].partitions[0].error_code
}

#[test]
fn offsets_in_a_transaction_count_when_it_commits() {
    let mut story = start(&[]);
    let first = story.shards[0];
    let group = story.shards[find(&mut story.world, first, 0, "g")];
    // The first generation announces the group.
    let refused = commit_offset(&mut story, group, 3, 5);
    assert_eq!(refused, error::INVALID_TXN_STATE);
    let request = message!(AddOffsetsToTxnRequest {
        transactional_id: ID.into(),
        producer_id: story.producer.0,
        producer_epoch: story.producer.1,
        group_id: "g".into(),
    });
    let added = story.world.call(story.coordinator, 3, &request);
    assert_eq!(added.error_code, 0);
    assert_eq!(commit_offset(&mut story, group, 3, 5), 0);
    assert_eq!(offsets_of(&mut story, group, false), (0, -1));
    let unstable = (error::UNSTABLE_OFFSET_COMMIT, -1);
    assert_eq!(offsets_of(&mut story, group, true), unstable);
    assert_eq!(story.end(3, true).error_code, 0);
    story.world.pass_ms(50);
    assert_eq!(offsets_of(&mut story, group, true), (0, 5));
    // The second does it by committing; what is aborted never was.
    for (offset, committed, found) in [(7, false, 5), (9, true, 9)] {
        assert_eq!(commit_offset(&mut story, group, 5, offset), 0);
        assert_eq!(story.end(5, committed).error_code, 0);
        story.world.pass_ms(50);
        assert_eq!(offsets_of(&mut story, group, true), (0, found));
    }
    let fenced = (story.producer.0, story.producer.1 - 1);
    story.producer = fenced;
    let code = commit_offset(&mut story, group, 5, 11);
    assert_eq!(code, error::INVALID_PRODUCER_EPOCH);
}

#[test]
fn administrators_see_transactions_and_end_them() {
    use kafka_wire::describe_producers_request::TopicRequest;
    use kafka_wire::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
    let mut story = start(&[]);
    assert_eq!(story.produce(12, 0, 0), (0, 0));
    let mut request = message!(ListTransactionsRequest {
        state_filters: vec!["Ongoing".into(), "Odd".into()],
        duration_filter: -1,
    });
    let listed = story.world.call(story.coordinator, 1, &request);
    assert_eq!(listed.unknown_state_filters.len(), 1);
    assert_eq!(listed.transaction_states.len(), 1);
    request.duration_filter = 3_600_000;
    let listed = story.world.call(story.coordinator, 1, &request);
    assert!(listed.transaction_states.is_empty());
    let leader = story.leader(0);
    let request = message!(DescribeProducersRequest {
        topics: vec![message!(TopicRequest {
            name: "t".into(),
            partition_indexes: vec![0],
        })],
    });
    let described = story.world.call(leader, 0, &request);
    let producer = &described.topics[0].partitions[0].active_producers[0];
    assert_eq!(producer.current_txn_start_offset, 0);
    assert_eq!(
        (producer.last_sequence, producer.coordinator_epoch),
        (0, -1)
    );
    let marker = |epoch| {
        message!(WriteTxnMarkersRequest {
            markers: vec![message!(WritableTxnMarker {
                producer_id: producer.producer_id,
                producer_epoch: epoch,
                transaction_result: false,
                topics: vec![message!(WritableTxnMarkerTopic {
                    name: "t".into(),
                    partition_indexes: vec![0, 1],
                })],
                coordinator_epoch: 0,
            })],
        })
    };
    let codes = |response: &kafka_wire::WriteTxnMarkersResponse| {
        let results = &response.markers[0].topics[0].partitions;
        results.iter().map(|r| r.error_code).collect::<Vec<_>>()
    };
    let refused = story.world.call(leader, 1, &marker(-1));
    assert_eq!(codes(&refused)[0], error::INVALID_PRODUCER_EPOCH);
    let written = story.world.call(leader, 1, &marker(0));
    assert_eq!(codes(&written), [0, error::NOT_LEADER_OR_FOLLOWER]);
    assert_eq!(story.committed(0), (true, 2, 2, vec![producer.producer_id]));
}

#[test]
fn look_ups_with_read_committed_end_at_the_last_stable_offset() {
    use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let mut story = start(&[]);
    assert_eq!(story.produce(12, 0, 0), (0, 0));
    let leader = story.leader(0);
    let mut look = |timestamp, isolation| {
        let request = message!(ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation,
            topics: vec![message!(ListOffsetsTopic {
                name: "t".into(),
                partitions: vec![message!(ListOffsetsPartition {
                    partition_index: 0,
                    current_leader_epoch: -1,
                    timestamp: timestamp,
                })],
            })],
        });
        let response = story.world.call(leader, 7, &request);
        response.topics[0].partitions[0].offset
    };
    assert_eq!((look(-1, 0), look(-1, 1)), (1, 0));
    assert_eq!((look(1, 0), look(1, 1)), (0, -1));
}

/// A produce request with one transactional record for the first partition.
fn transactional(story: &Story, value: &[u8]) -> ProduceRequest {
    let mut request = produce_request("t", 0, -1, batch_with(story.producer, 0, value));
    request.transactional_id = Some(ID.into());
    request
}

#[test]
fn a_batch_that_asked_its_coordinator_goes_on_though_its_connection_is_full_of_requests() {
    let mut story = start(&[]);
    let conn = story.leader(0);
    assert_eq!(story.add(&[0]), [0]);
    // The first commit creates the journal.
    produce(&mut story.world, conn, "t", 0, batch(&[b"x"]));
    // As many as a connection may have under way, in one piece: none is durable before the last is taken.
    let plain = produce_request("t", 0, -1, batch(&[b"y"]));
    let mut frames: Vec<u8> = (1..1024)
        .flat_map(|_| story.world.frame(8, &plain))
        .collect();
    let last = transactional(&story, b"v");
    frames.extend(story.world.frame(11, &last));
    story.world.send_raw(conn, &frames);
    story.world.pass_ms(10_000);
    for offset in 1..1024 {
        let answer = story.world.take::<ProduceRequest>(conn, 8);
        assert_eq!(outcome(&answer.expect("an answer")), (0, offset));
    }
    let answer = story.world.take::<ProduceRequest>(conn, 11);
    assert_eq!(outcome(&answer.expect("an answer")), (0, 1024));
    assert!(!story.world.is_paused(conn));
}

#[test]
fn a_batch_that_asks_its_coordinator_keeps_no_other_from_room_in_the_journal() {
    let mut story = start(&[]);
    assert_eq!(story.add(&[0]), [0]);
    let leaders = leaders(&mut story.world, story.shards[0], "t");
    let connect = |_| story.world.connect(leaders[0] as usize);
    let conns: Vec<Conn> = (0..4).map(connect).collect();
    let value = vec![5; 90 << 10];
    let plain = produce_request("t", 0, -1, batch(&[&value]));
    while !story.world.is_paused(conns[0]) {
        story.world.send(conns[0], 8, &plain);
    }
    let request = transactional(&story, &value);
    story.world.send(conns[1], 11, &request);
    for conn in &conns[2..] {
        story.world.send(*conn, 8, &plain);
    }
    assert!(conns.iter().all(|conn| story.world.is_paused(*conn)));
    // Long before they would give up.
    story.world.pass_ms(3_000);
    let answer = story.world.take::<ProduceRequest>(conns[1], 11);
    assert_eq!(outcome(&answer.expect("an answer")).0, 0);
    for conn in &conns[2..] {
        let answer = story.world.take::<ProduceRequest>(*conn, 8);
        assert_eq!(outcome(&answer.expect("an answer")).0, 0);
    }
}
