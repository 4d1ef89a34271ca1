//! Members of both protocols in one group, and the group's change from one protocol to the other.

use kafka_wire::{ConsumerGroupDescribeRequest, LeaveGroupRequest};

use super::embedded::{read_assignment, said, write_assignment};
use super::*;

/// A member of the classic protocol as its client has it.
struct Old {
    id: StrBytes,
    instance: Option<StrBytes>,
    generation: i32,
    /// Gives up no more than it must, as cooperative assignors have it; else everything before it joins.
    keeps: bool,
    reads: Vec<i32>,
}

impl Old {
    fn new(keeps: bool) -> Self {
        Self {
            id: StrBytes::default(),
            instance: None,
            generation: -1,
            keeps,
            reads: Vec::new(),
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let owned: &[i32] = if self.keeps { &self.reads } else { &[] };
        let mut request = join_request("g", &self.id);
        request.group_instance_id = self.instance.clone();
        request.protocols[0].metadata = said(&["topic"], owned, 1);
        request
    }

    fn sync_request(&self) -> SyncGroupRequest {
        let mut request = sync_request("g", &self.id, self.generation, &[]);
        request.group_instance_id = self.instance.clone();
        request
    }
}

impl Rig {
    /// A classic group of members with a share of the six partitions each, from the first leader's assignment.
    fn old_group(&mut self, keeps: bool, n: usize) -> Vec<Old> {
        let mut members: Vec<Old> = (0..n).map(|_| Old::new(keeps)).collect();
        let mut slots = Vec::new();
        for member in &mut members {
            member.id = self.member_id("g");
            slots.push(self.join(9, &member.join_request()));
        }
        self.pass(10_000);
        let answers: Vec<_> = slots.into_iter().map(|s| self.join_answer(s)).collect();
        let leader = answers[0].leader.clone();
        for (member, answer) in members.iter_mut().zip(&answers) {
            member.generation = answer.generation_id;
        }
        let shares: Vec<Vec<i32>> = (0..n)
            .map(|i| (0..6).filter(|p| *p as usize % n == i).collect())
            .collect();
        let mut assigned = Vec::new();
        for (member, share) in members.iter().zip(&shares) {
            let mut entry = SyncGroupRequestAssignment::default();
            entry.member_id = member.id.clone();
            entry.assignment = write_assignment(share, None);
            assigned.push(entry);
        }
        let syncs: Vec<u64> = members
            .iter()
            .map(|member| {
                let mut request = member.sync_request();
                if member.id == leader {
                    request.assignments = assigned.clone();
                }
                self.sync(&request)
            })
            .collect();
        for (member, slot) in members.iter_mut().zip(syncs) {
            let answer = self.sync_answer(slot);
            assert_eq!(answer.error_code, 0);
            member.reads = read_assignment(&answer.assignment);
        }
        assert!(
            members
                .iter()
                .zip(&shares)
                .all(|(m, share)| m.reads == *share)
        );
        members
    }

    /// Joins and asks for the assignment, as often as the member has to.
    fn rejoin(&mut self, member: &mut Old) {
        if !member.keeps {
            member.reads.clear();
        }
        let slot = self.join(9, &member.join_request());
        let answer = self.join_answer(slot);
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.protocol_name.as_deref(), Some("range"));
        assert_ne!(answer.leader, answer.member_id, "nobody leads");
        member.id = answer.member_id;
        member.generation = answer.generation_id;
        let slot = self.sync(&member.sync_request());
        let answer = self.sync_answer(slot);
        if answer.error_code == GroupError::RebalanceInProgress.code() {
            // The last assignment was made less than a second ago.
            self.pass(1_000);
            return self.rejoin(member);
        }
        assert_eq!(answer.error_code, 0);
        let reads = read_assignment(&answer.assignment);
        let has_revoked = member.reads.iter().any(|p| !reads.contains(p));
        member.reads = reads;
        if has_revoked && member.keeps {
            self.rejoin(member);
        }
    }

    fn old_beat(&mut self, member: &mut Old) {
        match self.heartbeat("g", &member.id, member.generation) {
            0 => {}
            code => {
                assert_eq!(code, GroupError::RebalanceInProgress.code());
                self.rejoin(member);
            }
        }
    }

    /// Heartbeats of all until nothing more is to come.
    fn settle_both(&mut self, old: &mut [Old], new: &mut [Client]) {
        for _ in 0..4 {
            self.pass(3_000);
            old.iter_mut().for_each(|member| self.old_beat(member));
            new.iter_mut().for_each(|client| self.beat(client));
        }
        let all = old.iter().map(|member| &member.reads);
        let all = all.chain(new.iter().map(|client| &client.reads));
        let mut read: Vec<i32> = all.flatten().copied().collect();
        read.sort_unstable();
        assert_eq!(
            read,
            [0, 1, 2, 3, 4, 5],
            "each partition is read by one member"
        );
    }

    fn group_type(&mut self) -> (String, String) {
        let slot = self.request(5, |c, _, call| c.list(call, &Default::default()));
        match self.answer(slot) {
            Some(Response::List(response)) => {
                let group = &response.groups[0];
                (group.group_type.to_string(), group.group_state.to_string())
            }
            other => panic!("no answer to a ListGroups: {other:?}"),
        }
    }
}

/// Ids and types of the members, as ConsumerGroupDescribe tells them.
fn member_types(rig: &mut Rig) -> Vec<(StrBytes, i8)> {
    let mut request = ConsumerGroupDescribeRequest::default();
    request.group_ids = vec!["g".into()];
    let slot = rig.request(1, |c, _, call| {
        with_topics(|topics| c.describe_consumers(call, &request, topics));
    });
    match rig.answer(slot) {
        Some(Response::ConsumerDescribe(response)) => {
            let members = response.groups[0].members.iter();
            members
                .map(|member| (member.member_id.clone(), member.member_type))
                .collect()
        }
        other => panic!("no answer to a ConsumerGroupDescribe: {other:?}"),
    }
}

fn both_ways(keeps: bool) {
    let mut rig = Rig::new();
    let mut old = rig.old_group(keeps, 2);
    let slot = rig.commit("g", &old[0].id, old[0].generation, 42);
    assert_eq!(rig.commit_answer(slot), 0);

    // A member of the new protocol joins: the group is of that now, and the others go on in it.
    let mut new = [Client::new("new")];
    rig.beat(&mut new[0]);
    assert_eq!(new[0].epoch, old[0].generation + 1);
    assert_eq!(rig.group_type().0, "consumer");
    rig.settle_both(&mut old, &mut new);
    assert!(old.iter().all(|member| member.reads.len() == 2));
    assert_eq!(new[0].reads.len(), 2);
    let mut types = member_types(&mut rig);
    types.sort_by_key(|(_, kind)| *kind);
    let kinds: Vec<i8> = types.iter().map(|(_, kind)| *kind).collect();
    assert_eq!((kinds, types[2].0.as_str()), (vec![0, 0, 1], "new"));
    assert_eq!(rig.fetch("g"), 42);

    // A member of the old protocol commits with its generation, in the version it has.
    let slot = rig.commit("g", &old[1].id, old[1].generation, 50);
    assert_eq!(rig.commit_answer(slot), 0);
    let slot = rig.commit("g", &old[1].id, old[1].generation - 1, 51);
    assert_eq!(
        rig.commit_answer(slot),
        GroupError::IllegalGeneration.code()
    );

    // Another of the old protocol joins while it is of the new one.
    old.push(Old::new(keeps));
    let slot = rig.join(9, &old[2].join_request());
    let answer = rig.join_answer(slot);
    assert_eq!(answer.error_code, GroupError::MemberIdRequired.code());
    old[2].id = answer.member_id;
    rig.rejoin(&mut old[2]);
    rig.settle_both(&mut old, &mut new);

    // What the log has is all there is to it.
    rig.restart();
    rig.settle_both(&mut old, &mut new);
    assert_eq!(rig.fetch("g"), 50);

    // The last member of the new protocol leaves: the group is classic again, and assigns by a leader.
    let mut leave = new[0].short();
    leave.member_epoch = -1;
    let answer = rig.ask(&leave);
    assert_eq!(answer.error_code, 0);
    assert_eq!(rig.group_type().0, "classic");
    let slots: Vec<u64> = old
        .iter()
        .map(|member| {
            let code = rig.heartbeat("g", &member.id, member.generation);
            // Its generation is that of the group's last epoch, which not every member has come to.
            let asked = [
                GroupError::RebalanceInProgress,
                GroupError::IllegalGeneration,
            ];
            assert!(asked.map(GroupError::code).contains(&code), "{code}");
            rig.join(9, &member.join_request())
        })
        .collect();
    let answers: Vec<_> = slots.into_iter().map(|s| rig.join_answer(s)).collect();
    assert!(answers.iter().all(|answer| answer.error_code == 0));
    let led = answers
        .iter()
        .filter(|answer| answer.leader == answer.member_id);
    assert_eq!(
        led.map(|answer| answer.members.len()).collect::<Vec<_>>(),
        [3]
    );
    assert!(answers[0].generation_id > old[0].generation);
    assert_eq!(rig.fetch("g"), 50);
    rig.restart();
    assert_eq!(
        rig.group_type(),
        ("classic".to_owned(), "Stable".to_owned())
    );
}

#[test]
fn a_group_changes_its_protocol_and_back_under_its_members() {
    both_ways(false);
}

#[test]
fn members_that_keep_what_they_may_change_it_as_well() {
    both_ways(true);
}

#[test]
fn a_member_of_the_old_protocol_joins_a_group_of_the_new_one() {
    let mut rig = Rig::new();
    let mut new = [Client::new("a"), Client::new("b")];
    rig.beat(&mut new[0]);
    rig.beat(&mut new[1]);
    let mut old = [Old::new(true)];
    old[0].id = rig.member_id("g");
    rig.rejoin(&mut old[0]);
    assert!(
        old[0].reads.is_empty(),
        "the others have not given anything up yet"
    );
    rig.settle_both(&mut old, &mut new);
    assert_eq!(old[0].reads.len(), 2);
    // One that does not know the protocol of consumers cannot join them.
    let mut foreign = join_request("g", "");
    foreign.protocol_type = "connect".into();
    let slot = rig.join(9, &foreign);
    let code = rig.join_answer(slot).error_code;
    assert_eq!(code, GroupError::InconsistentGroupProtocol.code());
    // Nor one without a protocol that the others have.
    let mut foreign = join_request("g", "");
    foreign.protocols = vec![protocol("other", &["topic"])];
    let slot = rig.join(9, &foreign);
    let code = rig.join_answer(slot).error_code;
    assert_eq!(code, GroupError::InconsistentGroupProtocol.code());
    assert_eq!(rig.leave("g", &old[0].id), 0);
    rig.settle_both(&mut [], &mut new);
}

#[test]
fn a_group_whose_last_new_member_is_not_heard_of_turns_back() {
    let mut rig = Rig::new();
    let mut old = rig.old_group(false, 1);
    let mut new = [Client::new("new")];
    rig.beat(&mut new[0]);
    rig.settle_both(&mut old, &mut new);
    for _ in 0..20 {
        rig.pass(3_000);
        if rig.group_type().0 == "classic" {
            let slot = rig.join(9, &old[0].join_request());
            let answer = rig.join_answer(slot);
            assert_eq!(answer.leader, answer.member_id);
            return;
        }
        let code = rig.heartbeat("g", &old[0].id, old[0].generation);
        let asked = [
            0,
            GroupError::RebalanceInProgress.code(),
            GroupError::IllegalGeneration.code(),
        ];
        assert!(asked.contains(&code), "{code}");
    }
    panic!("the group is {:?}", rig.group_type());
}

#[test]
fn a_member_that_does_not_join_again_or_does_not_sync_is_out() {
    let mut rig = Rig::new();
    let mut old = rig.old_group(false, 2);
    let mut new = [Client::new("new")];
    rig.beat(&mut new[0]);
    // The first one keeps sending heartbeats, the second one joins and never asks for its assignment.
    let slot = rig.join(9, &old[1].join_request());
    old[1].generation = rig.join_answer(slot).generation_id;
    for _ in 0..9 {
        rig.pass(3_000);
        let code = rig.heartbeat("g", &old[0].id, old[0].generation);
        assert_eq!(code, GroupError::RebalanceInProgress.code());
        let code = rig.heartbeat("g", &old[1].id, old[1].generation);
        assert_eq!(code, 0);
        rig.beat(&mut new[0]);
    }
    rig.pass(3_000);
    rig.beat(&mut new[0]);
    rig.pass(3_000);
    for member in &old {
        let code = rig.heartbeat("g", &member.id, member.generation);
        assert_eq!(code, GroupError::UnknownMemberId.code());
    }
    rig.settle_both(&mut [], &mut new);
}

#[test]
fn a_change_of_protocol_that_the_log_refuses_is_taken_back() {
    let mut rig = Rig::new();
    let mut old = rig.old_group(false, 2);
    rig.hold = true;
    let mut new = Client::new("new");
    let slot = rig.consumer(&new.full());
    assert_eq!(rig.group_type().0, "consumer");
    rig.release(Err(AppendFailure::Unavailable));
    rig.hold = false;
    let answer = rig.consumer_answer(slot);
    assert_eq!(
        answer.error_code,
        GroupError::CoordinatorNotAvailable.code()
    );
    assert_eq!(rig.group_type().0, "classic");
    // The members are asked to join, as after any rebalance, and the group goes on.
    let slots: Vec<u64> = old
        .iter()
        .map(|member| {
            let code = rig.heartbeat("g", &member.id, member.generation);
            assert_eq!(code, GroupError::RebalanceInProgress.code());
            rig.join(9, &member.join_request())
        })
        .collect();
    for (member, slot) in old.iter_mut().zip(slots) {
        let answer = rig.join_answer(slot);
        assert_eq!(answer.error_code, 0);
        member.generation = answer.generation_id;
    }
    // And so is the way back.
    rig.beat(&mut new);
    let mut new = [new];
    rig.settle_both(&mut old, &mut new);
    rig.hold = true;
    let mut leave = new[0].short();
    leave.member_epoch = -1;
    let slot = rig.consumer(&leave);
    assert_eq!(rig.group_type().0, "classic");
    rig.release(Err(AppendFailure::Unavailable));
    rig.hold = false;
    assert_ne!(rig.consumer_answer(slot).error_code, 0);
    assert_eq!(rig.group_type().0, "consumer");
    rig.settle_both(&mut old, &mut new);
}

#[test]
fn a_join_that_waits_is_told_to_come_again() {
    let mut rig = Rig::new();
    let mut first = Old::new(false);
    first.id = rig.member_id("g");
    let waiting = rig.join(9, &first.join_request());
    assert!(!rig.is_answered(waiting));
    let mut new = [Client::new("new")];
    rig.beat(&mut new[0]);
    let code = rig.join_answer(waiting).error_code;
    assert_eq!(code, GroupError::RebalanceInProgress.code());
    rig.rejoin(&mut first);
    rig.settle_both(&mut [first], &mut new);
}

#[test]
fn a_policy_and_what_would_be_lost_forbid_the_change() {
    let mut rig = Rig::with(GroupsConfig {
        online_upgrade: false,
        online_downgrade: false,
        ..config()
    });
    let old = rig.old_group(false, 1);
    let code = rig.refused(&Client::new("new").full());
    assert_eq!(code, GroupError::GroupIdNotFound.code());
    assert_eq!(rig.heartbeat("g", &old[0].id, old[0].generation), 0);

    // What a custom assignor has put into its assignments would be lost.
    let mut rig = Rig::new();
    let mut member = Old::new(false);
    member.id = rig.member_id("g");
    let slot = rig.join(9, &member.join_request());
    rig.pass(10_000);
    member.generation = rig.join_answer(slot).generation_id;
    let mut entry = SyncGroupRequestAssignment::default();
    entry.member_id = member.id.clone();
    entry.assignment = write_assignment(&[0], Some(b"mine"));
    let mut request = member.sync_request();
    request.assignments = vec![entry];
    let slot = rig.sync(&request);
    assert_eq!(rig.sync_answer(slot).error_code, 0);
    let code = rig.refused(&Client::new("new").full());
    assert_eq!(code, GroupError::GroupIdNotFound.code());
    assert_eq!(rig.heartbeat("g", &member.id, member.generation), 0);
    assert_eq!(rig.group_type().0, "classic");
}

#[test]
fn a_static_member_comes_back_with_the_other_protocol() {
    let mut rig = Rig::new();
    let mut other = [Old::new(true)];
    other[0].id = rig.member_id("g");
    let mut old = Old::new(true);
    old.instance = Some("i".into());
    let slots = [&other[0], &old].map(|member| rig.join(9, &member.join_request()));
    rig.pass(10_000);
    let answers = slots.map(|slot| rig.join_answer(slot));
    other[0].generation = answers[0].generation_id;
    old.id = answers[1].member_id.clone();

    let mut new = [Client::with_instance("new", "i")];
    rig.beat(&mut new[0]);
    let code = rig.heartbeat("g", &old.id, answers[1].generation_id);
    assert_eq!(
        code,
        GroupError::UnknownMemberId.code(),
        "its place is taken"
    );
    rig.settle_both(&mut other, &mut new);

    // The same in the other direction; as nobody speaks the new protocol then, the group turns back.
    let mut again = Old::new(true);
    again.instance = Some("i".into());
    let slot = rig.join(9, &again.join_request());
    let answer = rig.join_answer(slot);
    assert_eq!(answer.error_code, 0);
    let mut late = new[0].short();
    late.instance_id = Some("i".into());
    assert_eq!(rig.refused(&late), GroupError::FencedInstanceId.code());
    let code = rig.heartbeat("g", &other[0].id, other[0].generation);
    assert_eq!(code, GroupError::RebalanceInProgress.code());
    assert_eq!(rig.group_type().0, "classic");
    // An administrator removes it by its instance id alone.
    let mut request = LeaveGroupRequest::default();
    request.group_id = "g".into();
    let mut leaving = kafka_wire::leave_group_request::MemberIdentity::default();
    leaving.group_instance_id = Some("i".into());
    request.members = vec![leaving];
    let slot = rig.request(5, |c, now, call| {
        with_topics(|topics| c.leave(now, call, &request, topics));
    });
    match rig.answer(slot) {
        Some(Response::Leave(response)) => assert_eq!(response.members[0].error_code, 0),
        other => panic!("no answer to a LeaveGroup: {other:?}"),
    }
}
