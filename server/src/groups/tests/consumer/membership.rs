//! Members come, go, stall and come back.

use super::super::super::consumer::Assignor;
use super::*;

fn all(clients: &[Client]) -> Vec<i32> {
    let mut all: Vec<i32> = clients
        .iter()
        .flat_map(|c| c.reads.iter().copied())
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_first_member_has_everything_at_once() {
    let mut rig = Rig::new();
    let mut a = Client::new("a");
    rig.beat(&mut a);
    assert_eq!((a.epoch, a.reads.len()), (1, 6));
    let again = rig.ask(&a.short());
    assert_eq!((again.member_epoch, again.assignment), (1, None));
    assert_eq!(again.heartbeat_interval_ms, 5_000);
}

#[test]
fn partitions_are_given_up_before_others_have_them() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (Client::new("a"), Client::new("b"));
    rig.beat(&mut a);
    rig.pass(1_000);
    let joined = rig.ask(&b.full());
    b.take(&joined);
    // Its half is another's still.
    assert_eq!((b.epoch, b.reads.len()), (2, 0));
    let mut request = a.short();
    request.topic_partitions = None;
    let told = rig.ask(&request);
    assert_eq!(
        told.member_epoch, 1,
        "it stays in its epoch while it is to give up"
    );
    let kept = partitions(&told).unwrap();
    assert_eq!(kept.len(), 3);
    // It still reads all: nothing moves.
    let mut busy = a.short();
    busy.topic_partitions = Some(a.owned());
    assert_eq!(rig.ask(&busy).assignment, None);
    rig.beat(&mut b);
    assert!(b.reads.is_empty());
    a.reads = kept;
    rig.beat(&mut a);
    assert_eq!(a.epoch, 2);
    rig.beat(&mut b);
    let mut both = [a, b];
    assert_eq!(all(&both), [0, 1, 2, 3, 4, 5]);
    rig.settle(&mut both);
    assert_eq!((both[0].reads.len(), both[1].reads.len()), (3, 3));
}

#[test]
fn who_leaves_or_is_not_heard_of_makes_room() {
    let mut rig = Rig::new();
    let mut clients = [Client::new("a"), Client::new("b"), Client::new("c")];
    rig.settle(&mut clients);
    assert!(clients.iter().all(|client| client.reads.len() == 2));
    let mut request = clients[2].short();
    request.member_epoch = -1;
    let left = rig.ask(&request);
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    assert_eq!(
        rig.refused(&clients[2].short()),
        GroupError::UnknownMemberId.code()
    );
    rig.settle(&mut clients[..2]);
    assert!(clients[..2].iter().all(|client| client.reads.len() == 3));
    // The second says nothing more.
    for _ in 0..10 {
        rig.pass(5_000);
        rig.beat(&mut clients[0]);
    }
    assert_eq!(clients[0].reads.len(), 6);
    let late = rig.refused(&clients[1].short());
    assert_eq!(late, GroupError::UnknownMemberId.code());
    // Nobody is left: only the group stays.
    rig.pass(45_000);
    assert_eq!(
        rig.refused(&clients[0].short()),
        GroupError::UnknownMemberId.code()
    );
    assert_eq!(rig.coordinator.timers.len(), 0);
}

#[test]
fn who_keeps_what_it_is_to_give_up_is_out_in_the_end() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (Client::new("a"), Client::new("b"));
    rig.beat(&mut a);
    rig.pass(1_000);
    rig.beat(&mut b);
    let mut stubborn = a.short();
    stubborn.topic_partitions = Some(a.owned());
    for _ in 0..6 {
        assert_eq!(rig.ask(&stubborn).error_code, 0);
        rig.pass(5_000);
        rig.beat(&mut b);
    }
    assert_eq!(rig.refused(&stubborn), GroupError::UnknownMemberId.code());
    rig.pass(1_000);
    rig.beat(&mut b);
    assert_eq!(b.reads.len(), 6);
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again() {
    let mut rig = Rig::new();
    let (mut a, b) = (Client::new("a"), Client::new("b"));
    rig.beat(&mut a);
    rig.pass(1_000);
    rig.ask(&b.full());
    rig.beat(&mut a);
    a.reads = a.told.clone();
    let mut request = a.full();
    request.member_epoch = 1;
    let first = rig.ask(&request);
    assert_eq!(first.member_epoch, 2);
    // It did not hear that, and says the same again.
    let second = rig.ask(&request);
    assert_eq!(
        (second.member_epoch, partitions(&second)),
        (2, Some(a.told.clone()))
    );
    // With more than it has it cannot be heard.
    request.topic_partitions.as_mut().unwrap()[0]
        .partitions
        .push(5);
    assert_eq!(rig.refused(&request), GroupError::FencedMemberEpoch.code());
    request.member_epoch = 3;
    assert_eq!(rig.refused(&request), GroupError::FencedMemberEpoch.code());
    // It gives everything up and joins again under its id.
    let mut again = Client::new("a");
    rig.beat(&mut again);
    assert_eq!(again.reads, a.told);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut rig = Rig::new();
    let mut clients = [
        Client::with_instance("a", "i"),
        Client::with_instance("b", "j"),
    ];
    rig.settle(&mut clients);
    let had = clients[0].reads.clone();
    let epoch = clients[0].epoch;
    let mut usurper = Client::with_instance("x", "i");
    assert_eq!(
        rig.refused(&usurper.full()),
        GroupError::UnreleasedInstanceId.code()
    );
    usurper.epoch = epoch;
    assert_eq!(
        rig.refused(&usurper.short()),
        GroupError::FencedInstanceId.code()
    );
    let mut request = clients[0].short();
    request.member_epoch = -2;
    assert_eq!(rig.ask(&request).member_epoch, -2);
    rig.pass(10_000);
    rig.beat(&mut clients[1]);
    assert_eq!(
        clients[1].reads.len(),
        3,
        "nobody gets what it is to come back to"
    );
    let mut back = Client::with_instance("c", "i");
    rig.beat(&mut back);
    assert_eq!((back.epoch, &back.reads), (epoch, &had));
    assert_eq!(
        rig.refused(&clients[0].short()),
        GroupError::FencedInstanceId.code()
    );
    // The next time it does not come back.
    let mut request = back.short();
    request.member_epoch = -2;
    rig.ask(&request);
    for _ in 0..10 {
        rig.pass(5_000);
        rig.beat(&mut clients[1]);
    }
    assert_eq!(clients[1].reads.len(), 6);
}

#[test]
fn new_partitions_and_topics_are_assigned() {
    let mut rig = Rig::new();
    rig.topics(|topics| *topics = FakeTopics::new());
    let mut clients = [Client::new("a"), Client::new("b")];
    rig.settle(&mut clients);
    rig.topics(|topics| topics.put("topic", TOPIC, 8));
    rig.settle(&mut clients);
    assert_eq!(all(&clients), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(clients.iter().all(|client| client.reads.len() == 4));
    let epoch = clients[0].epoch;
    rig.topics(|topics| topics.put("other", TopicId([5; 16]), 3));
    rig.settle(&mut clients);
    assert_eq!(clients[0].epoch, epoch, "nobody subscribes to it");
    rig.topics(|topics| topics.remove("topic"));
    rig.settle(&mut clients);
    assert_eq!(all(&clients), [0i32; 0]);
}

#[test]
fn a_regular_expression_follows_the_topics() {
    let mut rig = Rig::new();
    rig.topics(|topics| *topics = FakeTopics::new());
    let mut a = Client::new("a");
    let mut request = a.full();
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some("to(pic|es)".into());
    a.take(&rig.ask(&request));
    assert_eq!(a.reads.len(), 6);
    rig.topics(|topics| topics.put("toes", TopicId([4; 16]), 2));
    rig.pass(10_000);
    let told = rig.ask(&a.short());
    a.epoch = told.member_epoch;
    let told = told.assignment.unwrap();
    let counts: Vec<usize> = told
        .topic_partitions
        .iter()
        .map(|of| of.partitions.len())
        .collect();
    assert_eq!(counts, [2, 6]);
    let mut request = Client::new("b").full();
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some("to(pic".into());
    assert_eq!(
        rig.refused(&request),
        GroupError::InvalidRegularExpression.code()
    );
    // Another expression, which matches nothing: it is to give everything up.
    let mut request = a.short();
    request.subscribed_topic_regex = Some("x.*".into());
    request.topic_partitions = Some(a.owned());
    let told = rig.ask(&request);
    assert_eq!(partitions(&told), Some(Vec::new()));
}

#[test]
fn members_choose_among_the_brokers_assignors() {
    let mut config = config();
    config.assignors = vec![Assignor::Uniform, Assignor::Range];
    let mut rig = Rig::with(config);
    let mut request = Client::new("a").full();
    request.server_assignor = Some("sticky".into());
    assert_eq!(
        rig.refused(&request),
        GroupError::UnsupportedAssignor.code()
    );
    request.server_assignor = Some("range".into());
    let told = rig.ask(&request);
    assert_eq!(partitions(&told).map(|of| of.len()), Some(6));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut rig = Rig::new();
    let invalid = GroupError::InvalidRequest.code();
    let unknown = GroupError::GroupIdNotFound.code();
    let member = Client::new("a");
    let mut cases: Vec<(ConsumerGroupHeartbeatRequest, i16)> = Vec::new();
    let mut case = |code, change: &dyn Fn(&mut ConsumerGroupHeartbeatRequest)| {
        let mut request = member.full();
        change(&mut request);
        cases.push((request, code));
    };
    case(invalid, &|r| r.group_id = "".into());
    case(invalid, &|r| r.member_id = "".into());
    case(invalid, &|r| r.instance_id = Some("".into()));
    case(invalid, &|r| r.rack_id = Some("".into()));
    case(invalid, &|r| r.rebalance_timeout_ms = -1);
    case(invalid, &|r| r.topic_partitions = None);
    case(invalid, &|r| r.subscribed_topic_names = None);
    case(invalid, &|r| r.member_epoch = -3);
    case(invalid, &|r| r.member_epoch = -2);
    case(invalid, &|r| r.instance_id = Some("x".repeat(300).into()));
    case(unknown, &|r| r.member_epoch = 1);
    case(unknown, &|r| r.member_epoch = -1);
    for (request, code) in cases {
        assert_eq!(rig.refused(&request), code, "{request:?}");
    }
    assert_eq!(rig.coordinator.group_count(), 0);
    let mut config = config();
    config.consumer_group_size_max = 1;
    let mut rig = Rig::with(config);
    rig.ask(&member.full());
    assert_eq!(
        rig.refused(&Client::new("b").full()),
        GroupError::GroupMaxSizeReached.code()
    );
}
