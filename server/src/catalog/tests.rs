//! What is decided about many topics at once.

use std::sync::Arc;
use std::time::Instant;

use super::action::{Action, NewTopic};
use super::{Catalog, Snapshot, Topic};
use crate::config::Config;
use crate::wire::error;
use ringlog_engine::id::TopicId;

fn catalog(topics: impl Iterator<Item = String>) -> Catalog {
    let topic = |(at, name): (usize, String)| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&at.to_be_bytes());
        Arc::new(Topic {
            name: name.into(),
            id: TopicId(id),
            partitions: 1,
            configs: Default::default(),
            internal: false,
            log: Default::default(),
        })
    };
    let snapshot = Snapshot::new(topics.enumerate().map(topic));
    let mut next = 1_u128 << 127;
    let new_id = move || {
        next += 1;
        next.to_be_bytes()
    };
    let config = Arc::new(Config::default());
    Catalog::new(Arc::new(snapshot), config, 1, Box::new(new_id))
}

fn create(names: impl Iterator<Item = String>) -> Action {
    let topic = |name| NewTopic {
        name,
        partitions: 1,
        replication_factor: 1,
        ..NewTopic::default()
    };
    Action::CreateTopics {
        topics: names.map(topic).collect(),
        validate_only: false,
    }
}

#[test]
fn names_alike_are_found_without_looking_at_all_names() {
    let mut catalog = catalog((0..150_000).map(|n| format!("old.{n:06}")));
    let begun = Instant::now();
    let plan = catalog.plan(&create((0..10_000).map(|n| format!("new.{n:06}"))));
    assert!(plan.outcome.0.iter().all(Result::is_ok));
    let alike = catalog.plan(&create((0..10_000).map(|n| format!("old_{n:06}"))));
    let codes = alike.outcome.0.iter().map(|item| item.as_ref().err());
    let codes = codes.map(|refusal| refusal.map(|r| r.code));
    assert!({ codes }.all(|code| code == Some(error::INVALID_TOPIC_EXCEPTION)));
    // Each with each takes half a minute.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn a_deleted_name_is_like_no_other() {
    let mut catalog = catalog(["a.b".to_owned()].into_iter());
    let other = || create(["a_b".to_owned()].into_iter());
    assert!(catalog.plan(&other()).update.is_none());
    let id = catalog.snapshot().topic("a.b").expect("there").id;
    let deleted = catalog.plan(&Action::DeleteTopics(vec![id]));
    catalog.adopt(&deleted.update.expect("a change"));
    assert!(catalog.plan(&other()).update.is_some());
    let twins = ["x.y", "x_y"].map(str::to_owned);
    let twins = catalog.plan(&create(twins.into_iter())).outcome.0;
    assert_eq!([twins[0].is_ok(), twins[1].is_ok()], [true, false]);
}
