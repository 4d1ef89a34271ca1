//! Committed offsets.

use kafka_wire::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_wire::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_wire::{OffsetDeleteRequest, OffsetFetchRequest};

use super::*;

const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;

fn none() -> StrBytes {
    StrBytes::default()
}

#[test]
fn a_commit_is_answered_and_seen_when_it_is_durable() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    rig.hold = true;
    let slot = rig.commit("g", &ids[0], 1, 5);
    assert!(!rig.is_answered(slot));
    assert_eq!(rig.fetch("g"), -1);
    rig.release(Ok(()));
    assert_eq!((rig.commit_answer(slot), rig.fetch("g")), (0, 5));
    rig.restart();
    assert_eq!(rig.fetch("g"), 5);
}

#[test]
fn a_commit_that_fails_leaves_the_offset_as_it_was() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    let first = rig.commit("g", &ids[0], 1, 5);
    assert_eq!(rig.commit_answer(first), 0);
    rig.hold = true;
    let slot = rig.commit("g", &ids[0], 1, 6);
    rig.release(Err(AppendFailure::Unavailable));
    assert_eq!(
        rig.commit_answer(slot),
        GroupError::CoordinatorNotAvailable.code()
    );
    assert_eq!(rig.fetch("g"), 5);
}

#[test]
fn commits_of_a_turn_share_a_batch_and_keep_their_order() {
    let mut rig = Rig::new();
    rig.hold = true;
    for offset in [1, 2] {
        let request = commit_request("g", &none(), -1, "topic", offset);
        let call = Call {
            token: Token {
                conn: ConnId(2),
                slot: 1_000 + offset as u64,
            },
            version: 8,
            client_id: "c",
            client_host: "/h",
        };
        rig.coordinator.commit(rig.now, &call, &request, topics);
    }
    rig.pump();
    assert_eq!(rig.held.len(), 1);
    rig.release(Ok(()));
    assert_eq!((rig.commit_answer(1_001), rig.commit_answer(1_002)), (0, 0));
    assert_eq!(rig.fetch("g"), 2);
}

#[test]
fn commits_wait_for_those_of_other_groups_as_long_as_they_may_and_all_leave_together() {
    let mut rig = Rig::with(GroupsConfig {
        append_linger_ms: 5,
        ..config()
    });
    let first = rig.commit("a", &none(), -1, 1);
    rig.pass(4);
    let second = rig.commit("b", &none(), -1, 2);
    assert!(!rig.is_answered(first) && rig.log.is_empty());
    rig.pass(1);
    assert_eq!(
        (rig.commit_answer(first), rig.commit_answer(second)),
        (0, 0)
    );
    assert_eq!((rig.fetch("a"), rig.fetch("b")), (1, 2));
    // Nothing waits at the end, nor once there is something else to write.
    let third = rig.commit("a", &none(), -1, 3);
    assert!(!rig.is_answered(third));
    rig.coordinator.hurry();
    rig.pump();
    assert_eq!(rig.commit_answer(third), 0);
    let fourth = rig.commit("a", &none(), -1, 4);
    let ids = rig.stable_group("g", 1);
    assert_eq!(rig.commit_answer(fourth), 0);
    let fifth = rig.commit("g", &ids[0], 1, 5);
    rig.pass(5);
    assert_eq!((rig.commit_answer(fifth), rig.fetch("g")), (0, 5));
    rig.restart();
    assert_eq!((rig.fetch("a"), rig.fetch("g")), (4, 5));
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let mut code = |member: &StrBytes, generation| {
        let slot = rig.commit("g", member, generation, 1);
        rig.commit_answer(slot)
    };
    assert_eq!(code(&ids[0], 1), 0);
    assert_eq!(code(&ids[0], 0), GroupError::IllegalGeneration.code());
    assert_eq!(
        code(&"stranger".into(), 1),
        GroupError::UnknownMemberId.code()
    );
    assert_eq!(code(&none(), -1), GroupError::UnknownMemberId.code());
    let slot = rig.commit("h", &ids[0], 1, 1);
    assert_eq!(
        rig.commit_answer(slot),
        GroupError::IllegalGeneration.code()
    );
}

#[test]
fn a_commit_while_assignments_are_awaited_is_put_off() {
    let mut rig = Rig::new();
    let id = rig.member_id("g");
    let join = rig.join(9, &join_request("g", &id));
    rig.pass(3_000);
    rig.join_answer(join);
    let slot = rig.commit("g", &id, 1, 1);
    assert_eq!(
        rig.commit_answer(slot),
        GroupError::RebalanceInProgress.code()
    );
}

#[test]
fn a_commit_keeps_a_session_alive() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    for offset in 0..5 {
        rig.pass(8_000);
        let slot = rig.commit("g", &ids[0], 1, offset);
        assert_eq!(rig.commit_answer(slot), 0);
    }
}

#[test]
fn consumers_without_a_group_keep_offsets_too() {
    let mut rig = Rig::new();
    let slot = rig.commit("simple", &none(), -1, 7);
    assert_eq!((rig.commit_answer(slot), rig.fetch("simple")), (0, 7));
    let slot = rig.commit("", &none(), -1, 8);
    assert_eq!(
        (rig.commit_answer(slot), rig.fetch("")),
        (0, 8),
        "even without a name"
    );
    rig.restart();
    assert_eq!((rig.fetch("simple"), rig.fetch("")), (7, 8));
}

#[test]
fn parts_of_a_commit_can_fail_alone() {
    let mut rig = Rig::new();
    let mut request = commit_request("g", &none(), -1, "topic", 1);
    let topic = &mut request.topics[0];
    topic.partitions.push(topic.partitions[0].clone());
    topic.partitions[1].partition_index = 1;
    topic.partitions[1].committed_metadata = Some("x".repeat(5_000).into());
    let mut missing = topic.clone();
    missing.name = "missing".into();
    request.topics.push(missing);
    let slot = rig.request(8, |c, now, call| c.commit(now, call, &request, topics));
    match rig.answer(slot) {
        Some(Response::Commit(response)) => {
            let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
            let codes: Vec<i16> = codes.map(|partition| partition.error_code).collect();
            let too_large = GroupError::OffsetMetadataTooLarge.code();
            let unknown = GroupError::UnknownTopicOrPartition.code();
            assert_eq!(codes, [0, too_large, unknown, unknown]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.fetch("g"), 1);
}

#[test]
fn a_commit_larger_than_a_batch_is_written_as_several() {
    let mut rig = Rig::with(GroupsConfig {
        batch_bytes_max: 4_096,
        ..config()
    });
    let mut request = commit_request("g", &none(), -1, "topic", 1);
    let partition = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..200)
        .map(|index| {
            let mut partition = partition.clone();
            partition.partition_index = index;
            partition
        })
        .collect();
    let slot = rig.request(8, |c, now, call| c.commit(now, call, &request, topics));
    assert_eq!(rig.commit_answer(slot), 0);
    assert!(rig.log.len() > 2);
    assert!(rig.log.iter().all(|(_, batch)| batch.len() <= 4_096));
    rig.restart();
    let group = &rig.coordinator.groups[&StrBytes::from("g")];
    assert_eq!(group.offsets[&StrBytes::from("topic")].len(), 200);
}

#[test]
fn too_much_unwritten_puts_commits_off() {
    let mut rig = Rig::with(GroupsConfig {
        unwritten_bytes_max: 1_000,
        ..config()
    });
    rig.hold = true;
    let slots: Vec<_> = (0..50).map(|n| rig.commit("g", &none(), -1, n)).collect();
    let last = *slots.last().unwrap();
    assert_eq!(
        rig.commit_answer(last),
        GroupError::CoordinatorLoadInProgress.code()
    );
    rig.release(Ok(()));
    let slot = rig.commit("g", &none(), -1, 99);
    rig.release(Ok(()));
    assert_eq!((rig.commit_answer(slot), rig.fetch("g")), (0, 99));
    assert!(rig.coordinator.is_written());
    rig.fill();
    let put_off = GroupError::CoordinatorLoadInProgress.code();
    assert_eq!(delete(&mut rig, "g", "topic"), (put_off, 0));
    rig.release(Ok(()));
}

#[test]
fn version_8_asks_for_several_groups() {
    let mut rig = Rig::new();
    rig.commit("a", &none(), -1, 3);
    rig.commit("b", &none(), -1, 4);
    let mut wanted = OffsetFetchRequestTopics::default();
    wanted.name = "topic".into();
    wanted.partition_indexes = vec![0, 1];
    let group = |id: &str, topics| {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = id.into();
        group.topics = topics;
        group
    };
    let mut request = OffsetFetchRequest::default();
    request.groups = vec![
        group("a", None),
        group("b", Some(vec![wanted.clone()])),
        group("nobody", Some(vec![wanted])),
        group("no one", None),
    ];
    let slot = rig.request(9, |c, _, call| c.fetch_offsets(call, &request));
    let Some(Response::Fetch(response)) = rig.answer(slot) else {
        panic!("no answer");
    };
    let offsets: Vec<Vec<i64>> = response
        .groups
        .iter()
        .map(|group| {
            assert_eq!(group.error_code, 0);
            let partitions = group.topics.iter().flat_map(|topic| &topic.partitions);
            partitions
                .map(|partition| partition.committed_offset)
                .collect()
        })
        .collect();
    assert_eq!(offsets, [vec![3], vec![4, -1], vec![-1, -1], vec![]]);
}

fn delete_request(group: &str, topic: &str) -> OffsetDeleteRequest {
    let mut entry = OffsetDeleteRequestTopic::default();
    entry.name = topic.into();
    entry.partitions = vec![OffsetDeleteRequestPartition::default()];
    let mut request = OffsetDeleteRequest::default();
    request.group_id = group.into();
    request.topics = vec![entry];
    request
}

/// Group code, partition code.
fn delete(rig: &mut Rig, group: &str, topic: &str) -> (i16, i16) {
    let request = delete_request(group, topic);
    let slot = rig.request(0, |c, now, call| {
        c.delete_offsets(now, call, &request, |name| topics(name, 0).is_some());
    });
    match rig.answer(slot) {
        Some(Response::OffsetDelete(response)) => {
            let partition = response.topics.first().map(|topic| &topic.partitions[0]);
            (response.error_code, partition.map_or(0, |p| p.error_code))
        }
        other => panic!("no answer to an OffsetDelete: {other:?}"),
    }
}

#[test]
fn offsets_are_deleted_unless_the_topic_is_in_use() {
    let mut rig = Rig::new();
    let not_found = GroupError::GroupIdNotFound.code();
    assert_eq!(delete(&mut rig, "g", "topic"), (not_found, 0));
    let ids = rig.stable_group("g", 1);
    let slot = rig.commit("g", &ids[0], 1, 5);
    assert_eq!(rig.commit_answer(slot), 0);
    let in_use = GroupError::GroupSubscribedToTopic.code();
    assert_eq!(delete(&mut rig, "g", "topic"), (0, in_use));
    let unknown = GroupError::UnknownTopicOrPartition.code();
    assert_eq!(delete(&mut rig, "g", "missing"), (0, unknown));
    rig.leave("g", &ids[0]);
    assert_eq!(delete(&mut rig, "g", "topic"), (0, 0));
    assert_eq!(rig.fetch("g"), -1);
    rig.restart();
    assert_eq!(rig.fetch("g"), -1);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    rig.hold = true;
    let on_the_way = rig.commit("g", &none(), -1, 6);
    rig.coordinator.topic_deleted(rig.now, "topic");
    rig.hold = false;
    rig.pump();
    assert_eq!(rig.commit_answer(on_the_way), 0);
    assert_eq!(rig.fetch("g"), -1);
    rig.restart();
    assert_eq!(rig.fetch("g"), -1);
}

#[test]
fn offsets_expire_a_retention_after_the_group_became_empty() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    rig.commit("g", &ids[0], 1, 5);
    for _ in 0..WEEK_MS / 5_000_000 + 10 {
        // A member that stays keeps its offsets, however old.
        rig.now.wall_ms += 5_000_000;
        rig.heartbeat("g", &ids[0], 1);
        rig.pass(5_000);
    }
    assert_eq!(rig.fetch("g"), 5);
    rig.leave("g", &ids[0]);
    rig.pass(WEEK_MS - 600_000);
    assert_eq!(rig.fetch("g"), 5);
    rig.pass(1_300_000);
    assert_eq!((rig.fetch("g"), rig.coordinator.group_count()), (-1, 0));
    rig.restart();
    assert_eq!(rig.coordinator.group_count(), 0);
}

#[test]
fn offsets_without_a_group_expire_a_retention_after_the_commit() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    rig.pass(WEEK_MS / 2);
    rig.commit("g", &none(), -1, 6);
    rig.pass(WEEK_MS - 600_000);
    assert_eq!(rig.fetch("g"), 6);
    rig.pass(1_300_000);
    assert_eq!((rig.fetch("g"), rig.coordinator.group_count()), (-1, 0));
}

#[test]
fn a_retention_of_the_clients_own_is_kept_to() {
    let mut rig = Rig::new();
    let mut request = commit_request("g", &none(), -1, "topic", 5);
    request.retention_time_ms = 3_600_000;
    rig.request(4, |c, now, call| c.commit(now, call, &request, topics));
    rig.restart();
    rig.pass(3_000_000);
    assert_eq!(rig.fetch("g"), 5);
    rig.pass(1_300_000);
    assert_eq!(rig.fetch("g"), -1);
}

#[test]
fn a_partition_that_goes_elsewhere_answers_its_commits() {
    let mut rig = Rig::new();
    rig.hold = true;
    let sent = rig.commit("g", &none(), -1, 5);
    let partition = partition_of("g", 4);
    rig.coordinator.disown(rig.now, partition);
    rig.coordinator.own(partition);
    rig.coordinator.loaded(rig.now, partition);
    rig.release(Ok(()));
    assert_eq!(rig.commit_answer(sent), 0);
    assert_eq!(
        rig.fetch("g"),
        -1,
        "what another time of ownership wrote is not taken in"
    );
    assert!(rig.coordinator.is_written());
}

#[test]
fn offsets_are_committed_and_fetched_by_topic_id() {
    let mut rig = Rig::new();
    let known = crate::wire::uuid(TopicId([9; 16]));
    let unknown = crate::wire::uuid(TopicId([7; 16]));
    let catalog = consumer::FakeTopics::new();
    let mut request = commit_request("g", &"".into(), -1, "", 5);
    let mut second = request.topics[0].clone();
    request.topics[0].topic_id = known;
    second.topic_id = unknown;
    request.topics.push(second);
    name_committed(&mut request, &catalog);
    let slot = rig.request(10, |c, now, call| c.commit(now, call, &request, topics));
    let Some(Response::Commit(response)) = rig.answer(slot) else {
        panic!("no answer to an OffsetCommit");
    };
    let told: Vec<_> = response
        .topics
        .iter()
        .map(|t| (t.topic_id, t.partitions[0].error_code))
        .collect();
    assert_eq!(
        told,
        [(known, 0), (unknown, GroupError::UnknownTopicId.code())]
    );
    let mut fetch = |asked: Option<Vec<kafka_wire_core::Uuid>>| {
        let mut group = kafka_wire::offset_fetch_request::OffsetFetchRequestGroup::default();
        group.group_id = "g".into();
        group.topics = asked.map(|ids| {
            let topics = ids.into_iter().map(|id| {
                let mut topic =
                    kafka_wire::offset_fetch_request::OffsetFetchRequestTopics::default();
                topic.topic_id = id;
                topic.partition_indexes = vec![0];
                topic
            });
            topics.collect()
        });
        let mut request = OffsetFetchRequest::default();
        request.groups = vec![group];
        let slot = rig.request(10, |c, _, call| {
            c.fetch_offsets_by_id(call, request, &catalog)
        });
        match rig.answer(slot) {
            Some(Response::Fetch(mut response)) => {
                let topics = response.groups.remove(0).topics.into_iter();
                let told = topics.map(|t| {
                    (
                        t.topic_id,
                        t.partitions[0].committed_offset,
                        t.partitions[0].error_code,
                    )
                });
                told.collect::<Vec<_>>()
            }
            other => panic!("no answer to an OffsetFetch: {other:?}"),
        }
    };
    let code = GroupError::UnknownTopicId.code();
    assert_eq!(
        fetch(Some(vec![unknown, known])),
        [(unknown, -1, code), (known, 5, 0)]
    );
    assert_eq!(fetch(None), [(known, 5, 0)]);
}
