//! Static members (KIP-345, KIP-814).

use super::super::group::State;
use super::*;

fn static_join(group: &str, member: &str, instance: &str) -> JoinGroupRequest {
    let mut request = join_request(group, member);
    request.group_instance_id = Some(instance.into());
    request
}

/// A stable group of static members `i-0`, `i-1`: their ids.
fn stable_static_group(rig: &mut Rig, n: usize) -> (Vec<StrBytes>, StrBytes) {
    let slots: Vec<_> = (0..n)
        .map(|i| rig.join(9, &static_join("g", "", &format!("i-{i}"))))
        .collect();
    rig.pass(10_000);
    let answers: Vec<_> = slots
        .into_iter()
        .map(|slot| rig.join_answer(slot))
        .collect();
    let ids: Vec<_> = answers
        .iter()
        .map(|answer| answer.member_id.clone())
        .collect();
    let leader = answers[0].leader.clone();
    for id in &ids {
        let assigned = if *id == leader { ids.as_slice() } else { &[] };
        rig.sync(&sync_request("g", id, 1, assigned));
    }
    (ids, leader)
}

fn state(rig: &Rig) -> State {
    rig.coordinator.groups[&StrBytes::from("g")].state()
}

#[test]
fn a_static_member_comes_back_to_its_place_without_a_rebalance() {
    let mut rig = Rig::new();
    let (ids, leader) = stable_static_group(&mut rig, 2);
    let follower = usize::from(leader == ids[0]);
    let instance = format!("i-{follower}");
    rig.hold = true;
    let slot = rig.join(9, &static_join("g", "", &instance));
    assert!(!rig.is_answered(slot), "its new id must be durable first");
    rig.hold = false;
    rig.pump();
    let answer = rig.join_answer(slot);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert_ne!(answer.member_id, ids[follower]);
    assert!(answer.member_id.starts_with(&format!("{instance}-")));
    assert!(!answer.skip_assignment && answer.members.is_empty());
    assert_eq!(state(&rig), State::Stable);
    let sync = rig.sync(&sync_request("g", &answer.member_id, 1, &[]));
    assert_eq!(
        &rig.sync_answer(sync).assignment[..],
        ids[follower].as_bytes()
    );
    // The predecessor is fenced where it says which instance it is, unknown where it does not.
    let mut request = HeartbeatRequest::default();
    request.group_id = "g".into();
    request.generation_id = 1;
    request.member_id = ids[follower].clone();
    request.group_instance_id = Some(instance.as_str().into());
    let slot = rig.request(4, |c, now, call| {
        with_topics(|topics| c.heartbeat(now, call, &request, topics));
    });
    match rig.answer(slot) {
        Some(Response::Heartbeat(response)) => {
            assert_eq!(response.error_code, GroupError::FencedInstanceId.code());
        }
        other => panic!("{other:?}"),
    }
    let unknown = GroupError::UnknownMemberId.code();
    assert_eq!(rig.heartbeat("g", &ids[follower], 1), unknown);
    rig.restart();
    assert_eq!(
        rig.heartbeat("g", &answer.member_id, 1),
        0,
        "and so after a restart"
    );
}

#[test]
fn a_static_leader_that_comes_back_skips_the_assignment() {
    let mut rig = Rig::new();
    let (ids, leader) = stable_static_group(&mut rig, 2);
    let leads = usize::from(leader != ids[0]);
    let instance = format!("i-{leads}");
    let slot = rig.join(9, &static_join("g", "", &instance));
    let answer = rig.join_answer(slot);
    assert!(answer.skip_assignment);
    assert_eq!(
        (answer.members.len(), &answer.leader),
        (2, &answer.member_id)
    );
    // Older clients are kept from assigning by the predecessor's id in the leader's place.
    let slot = rig.join(8, &static_join("g", "", &instance));
    let older = rig.join_answer(slot);
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, answer.member_id);
    assert_ne!(older.member_id, answer.member_id);
}

#[test]
fn a_static_member_survives_a_missed_join_phase_but_not_its_session() {
    let mut rig = Rig::new();
    let (ids, _) = stable_static_group(&mut rig, 2);
    let mut third = static_join("g", "", "i-2");
    third.session_timeout_ms = 60_000;
    third.rebalance_timeout_ms = 8_000;
    let mut again = static_join("g", &ids[0], "i-0");
    again.rebalance_timeout_ms = 8_000;
    rig.join(9, &third);
    let slot = rig.join(9, &again);
    rig.pass(8_000);
    rig.heartbeat("g", &ids[1], 1);
    assert!(
        !rig.is_answered(slot),
        "the longest rebalance time-out counts"
    );
    for _ in 0..5 {
        rig.pass(5_000);
        rig.heartbeat("g", &ids[1], 1);
    }
    let answer = rig.join_answer(slot);
    assert_eq!((answer.error_code, answer.generation_id), (0, 2));
    let group = &rig.coordinator.groups[&StrBytes::from("g")];
    assert_eq!(
        group.members().len(),
        3,
        "the one that stayed away is still in"
    );
}

#[test]
fn an_instance_that_starts_twice_is_fenced_while_it_joins() {
    let mut rig = Rig::new();
    let first = rig.join(9, &static_join("g", "", "i-0"));
    let second = rig.join(9, &static_join("g", "", "i-0"));
    assert_eq!(
        rig.join_answer(first).error_code,
        GroupError::FencedInstanceId.code()
    );
    rig.pass(10_000);
    assert_eq!(rig.join_answer(second).error_code, 0);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut rig = Rig::new();
    stable_static_group(&mut rig, 2);
    let mut identity = kafka_wire::leave_group_request::MemberIdentity::default();
    identity.group_instance_id = Some("i-1".into());
    let mut unknown = identity.clone();
    unknown.group_instance_id = Some("i-9".into());
    let mut request = LeaveGroupRequest::default();
    request.group_id = "g".into();
    request.members = vec![identity, unknown];
    let slot = rig.request(5, |c, now, call| {
        with_topics(|topics| c.leave(now, call, &request, topics));
    });
    match rig.answer(slot) {
        Some(Response::Leave(response)) => {
            let codes = response.members.iter().map(|member| member.error_code);
            let codes: Vec<_> = codes.collect();
            assert_eq!(codes, [0, GroupError::UnknownMemberId.code()]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(state(&rig), State::PreparingRebalance);
}

#[test]
fn too_much_unwritten_puts_a_static_member_off_that_comes_back() {
    let mut rig = Rig::with(GroupsConfig {
        unwritten_bytes_max: 1_000,
        ..config()
    });
    let (ids, _) = stable_static_group(&mut rig, 2);
    rig.fill();
    let written = rig.held.len();
    let slot = rig.join(9, &static_join("g", "", "i-0"));
    let put_off = GroupError::CoordinatorLoadInProgress.code();
    assert_eq!(rig.join_answer(slot).error_code, put_off);
    assert_eq!(rig.held.len(), written);
    assert_eq!(rig.heartbeat("g", &ids[0], 1), 0, "it is still there");
    rig.release(Ok(()));
    let slot = rig.join(9, &static_join("g", "", "i-0"));
    rig.release(Ok(()));
    let answer = rig.join_answer(slot);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
}
