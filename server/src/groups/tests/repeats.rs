//! Requests that name the same thing again and again: their answers must not grow with it.

use kafka_wire::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_wire::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_wire::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetFetchResponse,
};

use super::consumer::{Client, TOPIC};
use super::*;

const TIMES: usize = 100_000;
/// How much of an answer that is too long a failure shows.
const SHOWN: usize = 5;

fn none() -> StrBytes {
    StrBytes::default()
}

/// A name many times, and another.
fn repeated(name: &str) -> Vec<StrBytes> {
    let mut names = vec![name.into(); TIMES];
    names.push("missing".into());
    names
}

#[test]
fn a_group_is_described_once_however_often_it_is_named() {
    let mut rig = Rig::new();
    rig.stable_group("g", 2);
    let mut request = DescribeGroupsRequest::default();
    request.groups = repeated("g");
    let slot = rig.request(5, |c, _, call| c.describe(call, &request));
    let Some(Response::Describe(response)) = rig.answer(slot) else {
        panic!("no answer to a DescribeGroups");
    };
    let groups = response.groups.iter().take(SHOWN);
    let groups: Vec<_> = groups
        .map(|group| (group.group_id.as_str(), group.members.len()))
        .collect();
    assert_eq!(groups, [("g", 2), ("missing", 0)]);
}

#[test]
fn a_consumer_group_is_described_once_however_often_it_is_named() {
    let mut rig = Rig::new();
    rig.beat(&mut Client::new("a"));
    let mut request = ConsumerGroupDescribeRequest::default();
    request.group_ids = repeated("g");
    let slot = rig.request(1, |c, _, call| {
        with_topics(|topics| c.describe_consumers(call, &request, topics));
    });
    let Some(Response::ConsumerDescribe(response)) = rig.answer(slot) else {
        panic!("no answer to a ConsumerGroupDescribe");
    };
    let groups = response.groups.iter().take(SHOWN);
    let groups: Vec<_> = groups
        .map(|group| (group.group_id.as_str(), group.members.len()))
        .collect();
    assert_eq!(groups, [("g", 1), ("missing", 0)]);
}

fn asked(group: &str, topics: Option<Vec<OffsetFetchRequestTopics>>) -> OffsetFetchRequestGroup {
    let mut asked = OffsetFetchRequestGroup::default();
    asked.group_id = group.into();
    asked.topics = topics;
    asked
}

fn fetch(rig: &mut Rig, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let catalog = consumer::FakeTopics::new();
    let slot = rig.request(version, |c, _, call| match version {
        10.. => c.fetch_offsets_by_id(call, request, &catalog),
        _ => c.fetch_offsets(call, &request),
    });
    match rig.answer(slot) {
        Some(Response::Fetch(response)) => response,
        other => panic!("no answer to an OffsetFetch: {other:?}"),
    }
}

#[test]
fn the_offsets_of_a_group_are_told_once_however_often_it_is_named() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    rig.commit("h", &none(), -1, 6);
    for version in [8, 9, 10] {
        let mut request = OffsetFetchRequest::default();
        request.groups = vec![asked("g", None); TIMES];
        // Ids that follow must stay with their groups.
        let mut topic = OffsetFetchRequestTopics::default();
        topic.name = "topic".into();
        topic.topic_id = crate::wire::uuid(TOPIC);
        topic.partition_indexes = vec![0];
        request.groups.push(asked("h", Some(vec![topic])));
        let response = fetch(&mut rig, version, request);
        let groups = response.groups.iter().take(SHOWN).map(|group| {
            let topic = &group.topics[0];
            assert_eq!(group.topics.len(), 1);
            let id = (version >= 10).then(|| crate::wire::topic_id(topic.topic_id));
            assert_eq!(id, (version >= 10).then_some(TOPIC));
            (
                group.group_id.as_str(),
                topic.partitions[0].committed_offset,
            )
        });
        assert_eq!(groups.collect::<Vec<_>>(), [("g", 5), ("h", 6)]);
    }
}

#[test]
fn an_offset_is_told_once_however_often_its_partition_is_named() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    let mut partitions = vec![0; TIMES];
    partitions.push(1);
    let mut request = OffsetFetchRequest::default();
    let mut topic = OffsetFetchRequestTopics::default();
    topic.name = "topic".into();
    topic.partition_indexes = partitions.clone();
    request.groups = vec![asked("g", Some(vec![topic; 2]))];
    let response = fetch(&mut rig, 9, request);
    let topics = response.groups[0].topics.iter();
    let told: Vec<Vec<i64>> = topics
        .map(|topic| {
            let partitions = topic.partitions.iter().take(SHOWN);
            partitions.map(|p| p.committed_offset).collect()
        })
        .collect();
    assert_eq!(told, [vec![5, -1], vec![]]);

    let mut request = OffsetFetchRequest::default();
    let mut topic = OffsetFetchRequestTopic::default();
    topic.name = "topic".into();
    topic.partition_indexes = partitions;
    request.group_id = "g".into();
    request.topics = Some(vec![topic]);
    let response = fetch(&mut rig, 7, request);
    assert_eq!(response.topics[0].partitions.len(), 2);
}

#[test]
fn an_offset_is_deleted_once_however_often_its_partition_is_named() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    let mut topic = OffsetDeleteRequestTopic::default();
    topic.name = "topic".into();
    topic.partitions = vec![OffsetDeleteRequestPartition::default(); TIMES / 2];
    let mut request = OffsetDeleteRequest::default();
    request.group_id = "g".into();
    request.topics = vec![topic; 2];
    rig.hold = true;
    let slot = rig.request(0, |c, now, call| {
        c.delete_offsets(now, call, &request, |name| topics(name, 0).is_some());
    });
    let written: usize = rig.held.iter().map(|append| append.batch.len()).sum();
    assert!(written < 1_000, "one record, not {written} bytes");
    rig.release(Ok(()));
    let Some(Response::OffsetDelete(response)) = rig.answer(slot) else {
        panic!("no answer to an OffsetDelete");
    };
    let answers = response.topics.iter().flat_map(|topic| &topic.partitions);
    assert!(answers.clone().all(|answer| answer.error_code == 0));
    assert_eq!((answers.count(), rig.fetch("g")), (TIMES, -1));
}

#[test]
fn a_group_is_deleted_once_however_often_it_is_named() {
    let mut rig = Rig::new();
    rig.commit("g", &none(), -1, 5);
    let mut request = DeleteGroupsRequest::default();
    request.groups_names = repeated("g");
    let slot = rig.request(2, |c, now, call| c.delete(now, call, &request));
    let Some(Response::Delete(response)) = rig.answer(slot) else {
        panic!("no answer to a DeleteGroups");
    };
    let results = response.results.iter().take(SHOWN);
    let results: Vec<_> = results
        .map(|result| (result.group_id.as_str(), result.error_code))
        .collect();
    let missing = GroupError::GroupIdNotFound.code();
    assert_eq!(results, [("g", 0), ("missing", missing)]);
}
