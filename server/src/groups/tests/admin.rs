//! Describing, listing and deleting groups.

use kafka_wire::{
    DeleteGroupsRequest, DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest,
};

use super::*;

fn describe(rig: &mut Rig, version: i16, group: &str) -> DescribeGroupsResponse {
    let mut request = DescribeGroupsRequest::default();
    request.groups = vec![group.into()];
    let slot = rig.request(version, |c, _, call| c.describe(call, &request));
    match rig.answer(slot) {
        Some(Response::Describe(response)) => response,
        other => panic!("no answer to a DescribeGroups: {other:?}"),
    }
}

fn list(rig: &mut Rig, states: &[&str], types: &[&str]) -> Vec<(String, String)> {
    let mut request = ListGroupsRequest::default();
    request.states_filter = states.iter().map(|&name| name.into()).collect();
    request.types_filter = types.iter().map(|&name| name.into()).collect();
    let slot = rig.request(5, |c, _, call| c.list(call, &request));
    match rig.answer(slot) {
        Some(Response::List(response)) => response
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect(),
        other => panic!("no answer to a ListGroups: {other:?}"),
    }
}

fn delete(rig: &mut Rig, groups: &[&str]) -> u64 {
    let mut request = DeleteGroupsRequest::default();
    request.groups_names = groups.iter().map(|&name| name.into()).collect();
    rig.request(2, |c, now, call| c.delete(now, call, &request))
}

fn delete_codes(rig: &mut Rig, slot: u64) -> Vec<i16> {
    match rig.answer(slot) {
        Some(Response::Delete(response)) => response
            .results
            .iter()
            .map(|result| result.error_code)
            .collect(),
        other => panic!("no answer to a DeleteGroups: {other:?}"),
    }
}

#[test]
fn a_description_shows_members_and_their_assignments() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let described = &describe(&mut rig, 5, "g").groups[0];
    assert_eq!(described.group_state.as_str(), "Stable");
    assert_eq!(described.protocol_type.as_str(), "consumer");
    assert_eq!(described.protocol_data.as_str(), "range");
    assert_eq!(described.members.len(), 2);
    for member in &described.members {
        assert!(ids.contains(&member.member_id));
        assert_eq!(&member.member_assignment[..], member.member_id.as_bytes());
        assert_eq!(
            member.member_metadata,
            protocol("range", &["topic"]).metadata
        );
        assert_eq!(member.client_id.as_str(), "client");
        assert_eq!(member.client_host.as_str(), "/127.0.0.1");
    }
}

#[test]
fn an_unknown_group_is_dead_and_from_version_6_on_an_error() {
    let mut rig = Rig::new();
    for (version, code) in [(5, 0), (6, GroupError::GroupIdNotFound.code())] {
        let described = &describe(&mut rig, version, "g").groups[0];
        assert_eq!(described.group_state.as_str(), "Dead");
        assert_eq!(described.error_code, code);
        assert_eq!(described.error_message.is_some(), version == 6);
    }
}

#[test]
fn lists_are_filtered_by_state_and_type() {
    let mut rig = Rig::new();
    rig.stable_group("stable", 1);
    rig.commit("simple", &StrBytes::default(), -1, 1);
    let stable = ("stable".to_owned(), "Stable".to_owned());
    let simple = ("simple".to_owned(), "Empty".to_owned());
    assert_eq!(list(&mut rig, &[], &[]), [simple.clone(), stable.clone()]);
    assert_eq!(list(&mut rig, &["stable"], &["Classic"]), [stable]);
    assert_eq!(list(&mut rig, &["Empty", "Dead"], &[]), [simple]);
    assert_eq!(list(&mut rig, &[], &["consumer"]), []);
}

#[test]
fn groups_are_deleted_for_good_with_what_is_on_the_way() {
    let mut rig = Rig::new();
    rig.stable_group("idle", 1);
    rig.pass(10_000);
    rig.stable_group("busy", 1);
    rig.commit("idle", &StrBytes::default(), -1, 1);
    rig.hold = true;
    let commit = rig.commit("idle", &StrBytes::default(), -1, 2);
    let slot = delete(&mut rig, &["busy", "idle", "missing", "idle"]);
    assert!(!rig.is_answered(slot), "not before it is durable");
    let again = rig.commit("idle", &StrBytes::default(), -1, 3);
    let dead = GroupError::CoordinatorNotAvailable.code();
    assert_eq!(rig.commit_answer(again), dead);
    rig.hold = false;
    rig.pump();
    assert_eq!(rig.commit_answer(commit), 0);
    let missing = GroupError::GroupIdNotFound.code();
    let expected = [GroupError::NonEmptyGroup.code(), 0, missing];
    assert_eq!(delete_codes(&mut rig, slot), expected);
    rig.restart();
    assert_eq!(
        list(&mut rig, &[], &[]),
        [("busy".to_owned(), "Stable".to_owned())]
    );
    assert_eq!(rig.fetch("idle"), -1);
}

#[test]
fn a_deletion_that_fails_leaves_the_group() {
    let mut rig = Rig::new();
    rig.commit("g", &StrBytes::default(), -1, 1);
    rig.hold = true;
    let slot = delete(&mut rig, &["g"]);
    rig.release(Err(AppendFailure::Unavailable));
    let dead = GroupError::CoordinatorNotAvailable.code();
    assert_eq!(delete_codes(&mut rig, slot), [dead]);
    assert_eq!(rig.fetch("g"), 1);
    rig.hold = false;
    let slot = delete(&mut rig, &["g"]);
    assert_eq!(delete_codes(&mut rig, slot), [0]);
    assert_eq!(rig.coordinator.group_count(), 0);
}

#[test]
fn a_group_with_offsets_of_an_open_transaction_is_not_deleted() {
    let mut rig = Rig::new();
    rig.commit("g", &StrBytes::default(), -1, 1);
    rig.hold = true;
    let commit = rig.commit_in_transaction("g", 2);
    let in_use = [GroupError::NonEmptyGroup.code()];
    let slot = delete(&mut rig, &["g"]);
    assert_eq!(delete_codes(&mut rig, slot), in_use, "on the way");
    rig.release(Ok(()));
    assert_eq!(rig.commit_answer(commit), 0);
    let slot = delete(&mut rig, &["g"]);
    assert_eq!(delete_codes(&mut rig, slot), in_use, "durable");
    let partition = partition_of("g", 4);
    rig.coordinator.decided(rig.now, partition, PRODUCER, false);
    // One that is lost is in nobody's way.
    rig.commit_in_transaction("g", 3);
    rig.release(Err(AppendFailure::Unavailable));
    rig.hold = false;
    let slot = delete(&mut rig, &["g"]);
    assert_eq!(delete_codes(&mut rig, slot), [0]);
    assert_eq!(rig.coordinator.group_count(), 0);
}

#[test]
fn a_group_that_its_last_member_has_just_left_is_deleted() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    rig.hold = true;
    assert_eq!(rig.leave("g", &ids[0]), 0);
    assert_eq!(rig.held.len(), 1, "the group without members");
    let slot = delete(&mut rig, &["g"]);
    rig.hold = false;
    rig.pump();
    assert_eq!(delete_codes(&mut rig, slot), [0]);
    rig.restart();
    assert_eq!(rig.coordinator.group_count(), 0);
}

#[test]
fn too_much_unwritten_puts_deletions_off() {
    let mut rig = Rig::with(GroupsConfig {
        unwritten_bytes_max: 1_000,
        ..config()
    });
    rig.commit("g", &StrBytes::default(), -1, 1);
    rig.fill();
    let slot = delete(&mut rig, &["g"]);
    let put_off = GroupError::CoordinatorLoadInProgress.code();
    assert_eq!(delete_codes(&mut rig, slot), [put_off]);
    rig.release(Ok(()));
    let slot = delete(&mut rig, &["g"]);
    rig.release(Ok(()));
    assert_eq!(delete_codes(&mut rig, slot), [0]);
}
