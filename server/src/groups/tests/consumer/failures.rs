//! What is told waits for the log, what the log refuses is taken back, and what it holds is all there is.

use super::super::super::record::Key;
use super::*;

#[test]
fn nothing_is_told_before_it_is_durable() {
    let mut rig = Rig::new();
    rig.hold = true;
    let a = Client::new("a");
    let first = rig.consumer(&a.full());
    // The second changes nothing, and tells the same.
    let second = rig.consumer(&a.full());
    assert!(!rig.is_answered(first) && !rig.is_answered(second));
    rig.release(Ok(()));
    assert_eq!(rig.consumer_answer(first).member_epoch, 1);
    assert_eq!(
        partitions(&rig.consumer_answer(second)).map(|of| of.len()),
        Some(6)
    );
}

#[test]
fn what_the_log_refuses_is_taken_back() {
    let mut rig = Rig::new();
    let mut a = Client::new("a");
    rig.beat(&mut a);
    rig.pass(1_000);
    rig.hold = true;
    let b = Client::new("b");
    let joins = rig.consumer(&b.full());
    let mut request = a.short();
    request.topic_partitions = Some(a.owned());
    let revokes = rig.consumer(&request);
    rig.release(Err(AppendFailure::Unavailable));
    let lost = GroupError::CoordinatorNotAvailable.code();
    assert_eq!(rig.consumer_answer(joins).error_code, lost);
    assert_eq!(rig.consumer_answer(revokes).error_code, lost);
    rig.hold = false;
    // As if nothing had been.
    let same = rig.ask(&request);
    assert_eq!((same.member_epoch, same.assignment), (1, None));
    assert_eq!(
        rig.refused(
            &Client {
                epoch: 1,
                ..Client::new("b")
            }
            .short()
        ),
        GroupError::UnknownMemberId.code()
    );
    let mut both = [a, b];
    rig.settle(&mut both);
    assert!(both.iter().all(|client| client.reads.len() == 3));
    assert_eq!(rig.coordinator.timers.len(), 2);
}

#[test]
fn a_group_whose_first_record_is_refused_never_was() {
    let mut rig = Rig::new();
    rig.hold = true;
    let joins = rig.consumer(&Client::new("a").full());
    rig.release(Err(AppendFailure::TooLarge));
    assert_eq!(
        rig.consumer_answer(joins).error_code,
        GroupError::UnknownServerError.code()
    );
    assert_eq!(
        (rig.coordinator.group_count(), rig.coordinator.timers.len()),
        (0, 0)
    );
}

#[test]
fn members_go_on_where_they_were_after_a_restart() {
    let mut rig = Rig::new();
    let mut clients = [
        Client::new("a"),
        Client::with_instance("b", "i"),
        Client::new("c"),
    ];
    rig.settle(&mut clients);
    rig.restart();
    for client in &mut clients {
        let same = rig.ask(&client.short());
        assert_eq!(
            (same.error_code, same.member_epoch, same.assignment),
            (0, client.epoch, None)
        );
    }
    rig.restart();
    // Who does not come back is out.
    for _ in 0..10 {
        rig.pass(5_000);
        clients[..2].iter_mut().for_each(|client| rig.beat(client));
    }
    assert!(clients[..2].iter().all(|client| client.reads.len() == 3));
}

#[test]
fn a_deleted_group_leaves_tombstones_of_all_its_records() {
    let mut rig = Rig::new();
    let mut a = Client::new("a");
    let mut request = a.full();
    request.subscribed_topic_regex = Some("t.*".into());
    a.take(&rig.ask(&request));
    let mut request = a.short();
    request.member_epoch = -1;
    rig.ask(&request);
    let mut delete = kafka_wire::DeleteGroupsRequest::default();
    delete.groups_names = vec!["g".into()];
    let slot = rig.request(2, |c, now, call| c.delete(now, call, &delete));
    assert!(matches!(rig.answer(slot), Some(Response::Delete(r)) if r.results[0].error_code == 0));
    assert_eq!(rig.coordinator.group_count(), 0);
    let mut last: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    for (_, batch) in &rig.log {
        let mut scratch = Vec::new();
        for record in ringlog_engine::batch::body(batch, 1 << 20, &mut scratch).unwrap() {
            let record = record.unwrap();
            last.insert(record.key.unwrap().to_vec(), record.value.is_some());
        }
    }
    assert!(last.len() >= 6);
    for (key, has_value) in last {
        assert!(!has_value, "{:?} is left", Key::decode(&key));
    }
    rig.restart();
    assert_eq!(rig.coordinator.group_count(), 0);
}

#[test]
fn the_first_member_of_an_empty_group_decides_its_protocol() {
    let mut rig = Rig::new();
    let ids = rig.stable_group("g", 1);
    let slot = rig.commit("g", &ids[0], 1, 7);
    assert_eq!(rig.commit_answer(slot), 0);
    rig.leave("g", &ids[0]);
    let mut a = Client::new("a");
    rig.beat(&mut a);
    assert_eq!((a.reads.len(), rig.fetch("g")), (6, 7));
    rig.restart();
    rig.beat(&mut a);
    let mut request = a.short();
    request.member_epoch = -1;
    rig.ask(&request);
    rig.stable_group("g", 2);
    assert_eq!(rig.fetch("g"), 7);
    // What these members were assigned is nothing that a consumer can read, so it could not be taken over.
    rig.restart();
    assert_eq!(rig.refused(&a.full()), GroupError::GroupIdNotFound.code());
}

#[test]
fn members_commit_what_they_have() {
    let mut rig = Rig::new();
    let mut clients = [Client::new("a"), Client::new("b")];
    rig.beat(&mut clients[0]);
    let a = clients[0].id.clone();
    let commit = |rig: &mut Rig, member: &StrBytes, epoch, partition, version| {
        let mut request = commit_request("g", member, epoch, "topic", 5);
        request.topics[0].partitions[0].partition_index = partition;
        let slot = rig.request(version, |c, now, call| {
            c.commit(now, call, &request, topics)
        });
        rig.commit_answer(slot)
    };
    assert_eq!(commit(&mut rig, &a, 1, 0, 9), 0);
    assert_eq!(
        commit(&mut rig, &a, 1, 0, 8),
        GroupError::UnsupportedVersion.code()
    );
    assert_eq!(
        commit(&mut rig, &a, 2, 0, 9),
        GroupError::StaleMemberEpoch.code()
    );
    assert_eq!(
        commit(&mut rig, &"".into(), -1, 0, 9),
        GroupError::UnknownMemberId.code()
    );
    rig.settle(&mut clients);
    // With an earlier epoch only what it has had since.
    let kept = clients[0].reads[0];
    assert!(clients[0].epoch > 1);
    assert_eq!(commit(&mut rig, &a, 1, kept, 9), 0);
    let lost = clients[1].reads[0];
    assert_eq!(
        commit(&mut rig, &a, 1, lost, 9),
        GroupError::StaleMemberEpoch.code()
    );
    let mut group = kafka_wire::offset_fetch_request::OffsetFetchRequestGroup::default();
    group.group_id = "g".into();
    group.member_id = Some(a);
    let mut fetch = |epoch| {
        group.member_epoch = epoch;
        let mut request = OffsetFetchRequest::default();
        request.groups = vec![group.clone()];
        let slot = rig.request(9, |c, _, call| c.fetch_offsets(call, &request));
        match rig.answer(slot) {
            Some(Response::Fetch(response)) => response.groups[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(clients[0].epoch), 0);
    assert_eq!(
        fetch(clients[0].epoch - 1),
        GroupError::StaleMemberEpoch.code()
    );
}
