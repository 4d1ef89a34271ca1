//! Dynamic members: joining, rebalances, time-outs.

use super::*;

fn none() -> StrBytes {
    StrBytes::default()
}

#[test]
fn two_members_get_what_the_leader_assigns() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    assert_eq!(rig.heartbeat("g", &ids[0], 1), 0);
    assert_eq!(rig.heartbeat("g", &ids[1], 1), 0);
    assert_eq!(
        rig.heartbeat("g", &ids[1], 0),
        GroupError::IllegalGeneration.code()
    );
    let stranger = "stranger".into();
    assert_eq!(
        rig.heartbeat("g", &stranger, 1),
        GroupError::UnknownMemberId.code()
    );
    assert_eq!(
        rig.heartbeat("h", &ids[0], 1),
        GroupError::UnknownMemberId.code()
    );
}

#[test]
fn only_the_leader_hears_of_all_members() {
    let mut rig = Rig::new();
    let ids: Vec<_> = (0..3).map(|_| rig.member_id("g")).collect();
    let slots: Vec<_> = ids
        .iter()
        .map(|id| rig.join(9, &join_request("g", id)))
        .collect();
    rig.pass(10_000);
    for (slot, id) in slots.into_iter().zip(&ids) {
        let answer = rig.join_answer(slot);
        assert_eq!((answer.error_code, answer.generation_id), (0, 1));
        assert_eq!(answer.protocol_name.as_deref(), Some("range"));
        assert_eq!(answer.protocol_type.as_deref(), Some("consumer"));
        let is_leader = answer.leader == *id;
        assert_eq!(answer.members.len(), if is_leader { 3 } else { 0 });
    }
}

#[test]
fn an_empty_group_waits_for_more_members_and_longer_when_they_come() {
    let mut rig = Rig::new();
    let (a, b) = (rig.member_id("g"), rig.member_id("g"));
    let first = rig.join(9, &join_request("g", &a));
    rig.pass(2_000);
    let second = rig.join(9, &join_request("g", &b));
    rig.pass(1_500);
    assert!(!rig.is_answered(first), "extended by the second member");
    rig.pass(3_000);
    assert_eq!(rig.join_answer(first).generation_id, 1);
    assert_eq!(rig.join_answer(second).generation_id, 1);
}

#[test]
fn without_a_delay_the_first_member_goes_on_at_once() {
    let mut rig = Rig::with(GroupsConfig {
        initial_rebalance_delay_ms: 0,
        ..config()
    });
    let id = rig.member_id("g");
    let slot = rig.join(9, &join_request("g", &id));
    rig.pass(0);
    assert_eq!(rig.join_answer(slot).generation_id, 1);
}

#[test]
fn old_clients_join_without_the_round_for_an_id() {
    let mut rig = Rig::new();
    let slot = rig.join(3, &join_request("g", ""));
    rig.pass(3_000);
    let answer = rig.join_answer(slot);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert_eq!(answer.leader, answer.member_id);
    assert!(answer.member_id.starts_with("client-"));
}

#[test]
fn a_third_member_makes_the_others_join_again() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let third = rig.member_id("g");
    assert_eq!(
        rig.heartbeat("g", &ids[0], 1),
        0,
        "an id alone changes nothing"
    );
    let third_join = rig.join(9, &join_request("g", &third));
    let rebalance = GroupError::RebalanceInProgress.code();
    assert_eq!(rig.heartbeat("g", &ids[0], 1), rebalance);
    let old_sync = rig.sync(&sync_request("g", &ids[0], 1, &[]));
    assert_eq!(rig.sync_answer(old_sync).error_code, rebalance);
    let joins: Vec<_> = ids
        .iter()
        .map(|id| rig.join(9, &join_request("g", id)))
        .collect();
    assert_eq!(rig.join_answer(third_join).generation_id, 2);
    for join in joins {
        assert_eq!(rig.join_answer(join).generation_id, 2);
    }
    let illegal = GroupError::IllegalGeneration.code();
    assert_eq!(rig.heartbeat("g", &third, 1), illegal);
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_out() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let third = rig.member_id("g");
    let third_join = rig.join(9, &join_request("g", &third));
    let first_join = rig.join(9, &join_request("g", &ids[0]));
    // The one that stays away keeps its session alive, but that is not enough.
    for _ in 0..6 {
        assert!(!rig.is_answered(first_join));
        rig.heartbeat("g", &ids[1], 1);
        rig.pass(5_000);
    }
    assert_eq!(rig.join_answer(first_join).generation_id, 2);
    assert_eq!(rig.join_answer(third_join).generation_id, 2);
    assert_eq!(
        rig.heartbeat("g", &ids[1], 1),
        GroupError::UnknownMemberId.code()
    );
}

#[test]
fn a_silent_member_loses_its_session() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    for _ in 0..3 {
        rig.pass(4_000);
        rig.heartbeat("g", &ids[0], 1);
    }
    assert_eq!(
        rig.heartbeat("g", &ids[1], 1),
        GroupError::UnknownMemberId.code()
    );
    assert_eq!(
        rig.heartbeat("g", &ids[0], 1),
        GroupError::RebalanceInProgress.code()
    );
    let join = rig.join(9, &join_request("g", &ids[0]));
    assert_eq!(rig.join_answer(join).generation_id, 2);
}

#[test]
fn a_group_whose_members_all_vanish_is_empty_and_stored_as_such() {
    let mut rig = Rig::new();
    rig.stable_group("g", 3);
    rig.pass(60_000);
    assert_eq!(rig.coordinator.timers.len(), 0, "no alarm is left behind");
    rig.restart();
    assert_eq!(rig.coordinator.timers.len(), 0);
    let ids = rig.stable_group("g", 1);
    assert_eq!(rig.heartbeat("g", &ids[0], 3), 0, "generations go on");
}

#[test]
fn members_that_never_ask_for_their_assignment_are_out() {
    let mut rig = Rig::new();
    let (a, b) = (rig.member_id("g"), rig.member_id("g"));
    let joins = [&a, &b].map(|id| rig.join(9, &join_request("g", id)));
    rig.pass(6_000);
    let leader = rig.join_answer(joins[0]).leader;
    rig.join_answer(joins[1]);
    let follower = if leader == a { &b } else { &a };
    let sync = rig.sync(&sync_request("g", follower, 1, &[]));
    // The follower waits, the leader only sends heartbeats.
    for _ in 0..7 {
        rig.heartbeat("g", &leader, 1);
        rig.pass(5_000);
    }
    let answer = rig.sync_answer(sync);
    assert_eq!(answer.error_code, GroupError::RebalanceInProgress.code());
    assert_eq!(
        rig.heartbeat("g", &leader, 1),
        GroupError::UnknownMemberId.code()
    );
    let join = rig.join(9, &join_request("g", follower));
    assert_eq!(rig.join_answer(join).leader, *follower);
}

#[test]
fn a_follower_repeats_its_join_without_a_rebalance_and_a_leader_asks_for_one() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let join = rig.join(9, &join_request("g", &ids[1]));
    let answer = rig.join_answer(join);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    let sync = rig.sync(&sync_request("g", &ids[1], 1, &[]));
    assert_eq!(&rig.sync_answer(sync).assignment[..], ids[1].as_bytes());
    rig.join(9, &join_request("g", &ids[0]));
    assert_eq!(
        rig.heartbeat("g", &ids[1], 1),
        GroupError::RebalanceInProgress.code()
    );
}

#[test]
fn a_follower_with_other_metadata_asks_for_a_rebalance() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    let mut request = join_request("g", &ids[1]);
    request.protocols = vec![protocol("range", &["topic", "other"])];
    rig.join(9, &request);
    assert_eq!(
        rig.heartbeat("g", &ids[0], 1),
        GroupError::RebalanceInProgress.code()
    );
}

#[test]
fn leaving_rebalances_at_once() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 2);
    assert_eq!(rig.leave("g", &ids[0]), 0);
    assert_eq!(rig.leave("g", &ids[0]), GroupError::UnknownMemberId.code());
    let join = rig.join(9, &join_request("g", &ids[1]));
    let answer = rig.join_answer(join);
    assert_eq!((answer.generation_id, &answer.leader), (2, &ids[1]));
    assert_eq!(rig.leave("g", &ids[1]), 0);
    let state = rig.coordinator.groups[&StrBytes::from("g")].state();
    assert_eq!(state, super::super::group::State::Empty);
}

#[test]
fn the_protocol_all_support_and_most_prefer_is_chosen() {
    let mut rig = Rig::new();
    let preferences: [&[&str]; 3] = [&["a", "b", "c"], &["b", "c"], &["c", "b"]];
    let slots: Vec<_> = preferences
        .iter()
        .map(|names| {
            let mut request = join_request("g", &none());
            request.protocols = names.iter().map(|name| protocol(name, &[])).collect();
            rig.join(3, &request)
        })
        .collect();
    let mut odd = join_request("g", &none());
    odd.protocols = vec![protocol("a", &[])];
    let refused = rig.join(3, &odd);
    let inconsistent = GroupError::InconsistentGroupProtocol.code();
    assert_eq!(rig.join_answer(refused).error_code, inconsistent);
    odd.protocol_type = "connect".into();
    odd.protocols = vec![protocol("b", &[])];
    let refused = rig.join(3, &odd);
    assert_eq!(rig.join_answer(refused).error_code, inconsistent);
    rig.pass(10_000);
    for slot in slots {
        assert_eq!(rig.join_answer(slot).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn a_rebalance_that_lost_all_its_members_lets_the_next_one_in() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    let next = rig.member_id("g");
    assert_eq!(rig.leave("g", &ids[0]), 0);
    let join = rig.join(9, &join_request("g", &next));
    rig.pass(10_000);
    let answer = rig.join_answer(join);
    assert_eq!((answer.error_code, &answer.leader), (0, &next));
}

#[test]
fn requests_outside_the_limits_are_refused() {
    let mut rig = Rig::with(GroupsConfig {
        group_size_max: 1,
        ..config()
    });
    for session_timeout_ms in [5_999, 1_800_001] {
        let mut request = join_request("g", &none());
        request.session_timeout_ms = session_timeout_ms;
        let slot = rig.join(9, &request);
        let answer = rig.join_answer(slot);
        assert_eq!(answer.error_code, GroupError::InvalidSessionTimeout.code());
    }
    let slot = rig.join(9, &join_request("", &none()));
    assert_eq!(
        rig.join_answer(slot).error_code,
        GroupError::InvalidGroupId.code()
    );
    let slot = rig.join(9, &join_request("g", "unheard-of"));
    assert_eq!(
        rig.join_answer(slot).error_code,
        GroupError::UnknownMemberId.code()
    );
    let mut request = join_request("g", &none());
    request.protocols.clear();
    let slot = rig.join(9, &request);
    let answer = rig.join_answer(slot);
    assert_eq!(
        answer.error_code,
        GroupError::InconsistentGroupProtocol.code()
    );
    assert_eq!(
        rig.coordinator.group_count(),
        0,
        "nothing is kept of a refused member"
    );
    rig.stable_group("g", 1);
    let slot = rig.join(9, &join_request("g", &none()));
    assert_eq!(
        rig.join_answer(slot).error_code,
        GroupError::GroupMaxSizeReached.code()
    );
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut rig = Rig::with(GroupsConfig {
        groups_max: 2,
        group_bytes_max: 50_000,
        pending_members_max: 3,
        ..config()
    });
    let full = GroupError::GroupMaxSizeReached.code();
    let mut request = join_request("g", &none());
    request.protocols[0].metadata = Bytes::from(vec![0; 60_000]);
    let slot = rig.join(9, &request);
    assert_eq!(rig.join_answer(slot).error_code, full);
    assert_eq!(
        (rig.coordinator.group_count(), rig.coordinator.bytes()),
        (0, 0)
    );
    for _ in 0..3 {
        rig.member_id("g");
    }
    let slot = rig.join(9, &join_request("g", &none()));
    assert_eq!(rig.join_answer(slot).error_code, full);
    rig.member_id("h");
    let slot = rig.join(9, &join_request("i", &none()));
    assert_eq!(rig.join_answer(slot).error_code, full);
    rig.pass(11_000);
    assert_eq!(
        (rig.coordinator.group_count(), rig.coordinator.bytes()),
        (0, 0)
    );
    assert_eq!(rig.coordinator.timers.len(), 0);
}

#[test]
fn names_that_the_log_cannot_hold_are_refused() {
    let mut rig = Rig::new();
    let long = "x".repeat(40_000);
    let mut request = join_request("g", &none());
    request.protocols[0].name = long.as_str().into();
    let slot = rig.join(9, &request);
    assert_eq!(
        rig.join_answer(slot).error_code,
        GroupError::InvalidRequest.code()
    );
    let slot = rig.join(9, &join_request(&long, &none()));
    assert_eq!(
        rig.join_answer(slot).error_code,
        GroupError::InvalidGroupId.code()
    );
}

#[test]
fn an_assignment_that_cannot_be_stored_is_not_given_out() {
    let mut rig = Rig::new();
    let id = rig.member_id("g");
    let join = rig.join(9, &join_request("g", &id));
    rig.pass(3_000);
    rig.join_answer(join);
    rig.hold = true;
    let sync = rig.sync(&sync_request("g", &id, 1, std::slice::from_ref(&id)));
    assert!(!rig.is_answered(sync), "not before it is durable");
    rig.release(Err(AppendFailure::Unavailable));
    let answer = rig.sync_answer(sync);
    assert_eq!(
        answer.error_code,
        GroupError::CoordinatorNotAvailable.code()
    );
    rig.hold = false;
    let join = rig.join(9, &join_request("g", &id));
    assert_eq!(rig.join_answer(join).generation_id, 2);
}

/// A group of one member that has joined and not assigned yet, its limit on what waits to be written small.
fn about_to_assign() -> (Rig, SyncGroupRequest) {
    let mut rig = Rig::with(GroupsConfig {
        unwritten_bytes_max: 1_000,
        ..config()
    });
    let id = rig.member_id("g");
    let join = rig.join(9, &join_request("g", &id));
    rig.pass(3_000);
    rig.join_answer(join);
    let request = sync_request("g", &id, 1, std::slice::from_ref(&id));
    (rig, request)
}

#[test]
fn a_leader_that_repeats_its_assignment_waits_for_the_first_one() {
    let (mut rig, request) = about_to_assign();
    rig.hold = true;
    let first = rig.sync(&request);
    let second = rig.sync(&request);
    assert_eq!(rig.held.len(), 1, "stored once");
    let again = GroupError::RebalanceInProgress.code();
    assert_eq!(rig.sync_answer(first).error_code, again);
    rig.release(Err(AppendFailure::Unavailable));
    let lost = GroupError::CoordinatorNotAvailable.code();
    assert_eq!(rig.sync_answer(second).error_code, lost);
    // The next generation is stored, whatever became of the last.
    let join = rig.join(9, &join_request("g", &request.member_id));
    assert_eq!(rig.join_answer(join).generation_id, 2);
    let mut request = request;
    request.generation_id = 2;
    let third = rig.sync(&request);
    rig.release(Ok(()));
    assert_eq!(rig.sync_answer(third).error_code, 0);
}

#[test]
fn too_much_unwritten_puts_assignments_off() {
    let (mut rig, request) = about_to_assign();
    rig.fill();
    let written = rig.held.len();
    let slot = rig.sync(&request);
    let put_off = GroupError::CoordinatorNotAvailable.code();
    assert_eq!(rig.sync_answer(slot).error_code, put_off);
    assert_eq!(rig.held.len(), written);
    rig.release(Ok(()));
    let slot = rig.sync(&request);
    rig.release(Ok(()));
    assert_eq!(rig.sync_answer(slot).error_code, 0);
}

#[test]
fn a_stable_group_outlives_a_restart() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 3);
    rig.restart();
    for id in ids.iter().rev() {
        assert_eq!(rig.heartbeat("g", id, 1), 0);
        let sync = rig.sync(&sync_request("g", id, 1, &[]));
        assert_eq!(&rig.sync_answer(sync).assignment[..], id.as_bytes());
        let join = rig.join(9, &join_request("g", id));
        if *id == ids[0] {
            assert!(!rig.is_answered(join), "the leader asks for a rebalance");
        }
    }
}

#[test]
fn groups_that_are_not_here_or_not_loaded_yet_are_told_so() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    let partition = partition_of("g", 4);
    rig.coordinator.disown(rig.now, partition);
    assert_eq!(
        rig.heartbeat("g", &ids[0], 1),
        GroupError::NotCoordinator.code()
    );
    assert_eq!(
        (rig.coordinator.group_count(), rig.coordinator.bytes()),
        (0, 0)
    );
    assert_eq!(rig.coordinator.timers.len(), 0);
    rig.coordinator.own(partition);
    assert_eq!(
        rig.heartbeat("g", &ids[0], 1),
        0,
        "answered blindly while loading"
    );
    let slot = rig.join(9, &join_request("g", &ids[0]));
    let answer = rig.join_answer(slot);
    assert_eq!(
        answer.error_code,
        GroupError::CoordinatorLoadInProgress.code()
    );
    let slot = rig.sync(&sync_request("g", &ids[0], 1, &[]));
    let answer = rig.sync_answer(slot);
    assert_eq!(answer.error_code, GroupError::RebalanceInProgress.code());
}
