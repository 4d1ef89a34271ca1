//! What happens to a partition while its log is read.

use kafka_wire::OffsetFetchRequest;
use kafka_wire::offset_fetch_request::OffsetFetchRequestTopic;
use ringlog_engine::batch::Marker;

use super::*;

fn none() -> StrBytes {
    StrBytes::default()
}

/// The partition of group `g`.
fn partition() -> i32 {
    partition_of("g", 4)
}

/// The partition goes elsewhere.
fn lose(rig: &mut Rig) {
    rig.coordinator.disown(rig.now, partition());
}

/// Reads the partition's log; `meanwhile` comes before its last batch.
fn read(rig: &mut Rig, meanwhile: impl FnOnce(&mut Rig)) {
    rig.coordinator.own(partition());
    let log = rig.log.iter().filter(|(at, _)| *at == partition());
    let log: Vec<Vec<u8>> = log.map(|(_, batch)| batch.clone()).collect();
    let (last, others) = log.split_last().expect("something to read");
    for batch in others {
        let replayed = rig.coordinator.replay(rig.now, partition(), batch);
        replayed.unwrap();
    }
    meanwhile(rig);
    let replayed = rig.coordinator.replay(rig.now, partition(), last);
    replayed.unwrap();
    rig.coordinator.loaded(rig.now, partition());
    rig.pump();
}

/// A marker becomes durable, and nobody is told.
fn mark(rig: &mut Rig, committed: bool) {
    let marker = Marker {
        committed,
        coordinator_epoch: 0,
    };
    let batch = marker.batch(PRODUCER, 0, rig.now.wall_ms);
    rig.log.push((partition(), batch));
}

/// The coordinator is told of a marker.
fn decided(rig: &mut Rig, committed: bool) {
    let now = rig.now;
    rig.coordinator
        .decided(now, partition(), PRODUCER, committed);
}

/// Error code and offset of partition 0, if it must be stable.
fn fetch_stable(rig: &mut Rig) -> (i16, i64) {
    let mut topic = OffsetFetchRequestTopic::default();
    topic.name = "topic".into();
    topic.partition_indexes = vec![0];
    let mut request = OffsetFetchRequest::default();
    request.group_id = "g".into();
    request.topics = Some(vec![topic]);
    request.require_stable = true;
    let slot = rig.request(7, |c, _, call| c.fetch_offsets(call, &request));
    match rig.answer(slot) {
        Some(Response::Fetch(response)) => {
            assert_eq!(response.error_code, 0);
            let partition = &response.topics[0].partitions[0];
            (partition.error_code, partition.committed_offset)
        }
        other => panic!("no answer to an OffsetFetch: {other:?}"),
    }
}

/// An offset of 5, and one of 7 in a transaction that is open.
fn with_transaction() -> Rig {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    let slot = rig.commit_in_transaction("g", 7);
    assert_eq!(rig.commit_answer(slot), 0);
    assert_eq!(fetch_stable(&mut rig), unstable());
    rig
}

fn unstable() -> (i16, i64) {
    (GroupError::UnstableOffsetCommit.code(), -1)
}

#[test]
fn a_marker_written_while_the_log_is_read_decides_what_is_read_after_it() {
    for (committed, offset) in [(true, 7), (false, 5)] {
        let mut rig = with_transaction();
        lose(&mut rig);
        read(&mut rig, |rig| {
            decided(rig, committed);
            // The producer's next transaction has nothing here.
            decided(rig, !committed);
        });
        assert_eq!(fetch_stable(&mut rig), (0, offset));
        mark(&mut rig, committed);
        rig.restart();
        assert_eq!(fetch_stable(&mut rig), (0, offset));
    }
}

#[test]
fn a_marker_that_was_read_as_well_decides_once() {
    let mut rig = with_transaction();
    mark(&mut rig, true);
    lose(&mut rig);
    read(&mut rig, |rig| decided(rig, true));
    assert_eq!(fetch_stable(&mut rig), (0, 7));
    let slot = rig.commit("g", &none(), -1, 9);
    assert_eq!(rig.commit_answer(slot), 0);
    assert_eq!(fetch_stable(&mut rig), (0, 9));
}

#[test]
fn reading_that_begins_anew_forgets_decisions_that_it_will_find() {
    let mut rig = with_transaction();
    mark(&mut rig, false);
    decided(&mut rig, false);
    let slot = rig.commit_in_transaction("g", 8);
    assert_eq!(rig.commit_answer(slot), 0);
    for is_given_up in [false, true] {
        lose(&mut rig);
        rig.coordinator.own(partition());
        decided(&mut rig, false);
        if is_given_up {
            lose(&mut rig);
        }
        read(&mut rig, |_| {});
        assert_eq!(fetch_stable(&mut rig), unstable(), "the last one is open");
    }
    decided(&mut rig, true);
    assert_eq!(fetch_stable(&mut rig), (0, 8));
}

#[test]
fn offsets_of_a_topic_that_is_deleted_while_the_log_is_read_go() {
    for commits in [1, 2] {
        let mut rig = Rig::new();
        for offset in 0..commits {
            let slot = rig.commit("g", &none(), -1, offset);
            assert_eq!(rig.commit_answer(slot), 0);
        }
        lose(&mut rig);
        read(&mut rig, |rig| {
            rig.coordinator.topic_deleted(rig.now, "other");
            rig.coordinator.topic_deleted(rig.now, "topic");
            // The next topic of that name has no offsets here before all is read.
            let slot = rig.commit("g", &none(), -1, 9);
            let loading = GroupError::CoordinatorLoadInProgress.code();
            assert_eq!(rig.commit_answer(slot), loading);
            let slot = rig.commit_in_transaction("g", 9);
            assert_eq!(rig.commit_answer(slot), loading);
        });
        assert_eq!(rig.fetch("g"), -1);
        assert_eq!(rig.coordinator.group_count(), 0);
        rig.restart();
        assert_eq!(rig.fetch("g"), -1);
        let slot = rig.commit("g", &none(), -1, 9);
        assert_eq!((rig.commit_answer(slot), rig.fetch("g")), (0, 9));
    }
}

#[test]
fn a_deleted_topic_stays_deleted_when_reading_begins_anew_and_others_keep_their_offsets() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    let elsewhere = (0..).map(|n| format!("g-{n}"));
    let mut elsewhere = elsewhere.filter(|id| partition_of(id, 4) != partition());
    let elsewhere = elsewhere.next().unwrap();
    lose(&mut rig);
    rig.coordinator.own(partition());
    rig.coordinator.topic_deleted(rig.now, "topic");
    let slot = rig.commit(&elsewhere, &none(), -1, 6);
    assert_eq!(rig.commit_answer(slot), 0);
    read(&mut rig, |_| {});
    assert_eq!((rig.fetch("g"), rig.fetch(&elsewhere)), (-1, 6));
}
