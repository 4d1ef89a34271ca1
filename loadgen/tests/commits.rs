//! Commits of many groups against a real server of two shards, which is killed.

#![allow(clippy::unwrap_used)]

mod server;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use ringlog_load::cli::{Cli, Command};
use ringlog_load::commits::{Book, CommitsOptions, CommitsResult, check, run};
use server::Server;

fn options(port: u16, line: &str) -> CommitsOptions {
    let bootstrap = format!("127.0.0.1:{port}");
    let words = [
        "ringlog-load",
        "commits",
        "-b",
        &bootstrap,
        "--interval",
        "0.2",
    ];
    let words = words.into_iter().chain(line.split_whitespace());
    match Cli::try_parse_from(words).unwrap().command {
        Command::Commits(command) => command.options().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn commit(port: u16, line: &str, book: &Path) -> CommitsResult {
    let mut options = options(port, line);
    options.book = Some(book.to_owned());
    run(&options).unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_the_server_was_killed() {
    let folder = folder();
    let (data, book) = (folder.path().join("data"), folder.path().join("book"));
    let server = Server::start(&data, 0);
    let port = server.port;
    let line = "--groups 40 --partitions 3 --connections 5 --warmup 0.2 --duration 1";
    let result = commit(port, line, &book);
    assert_eq!(result.error_count(), 0, "{:?}", result.commits.errors);
    // 40 groups, each five times a second.
    assert!((190..=210).contains(&result.commits.measured));
    assert!(result.commits.total >= result.commits.measured);
    assert_eq!((result.coordinators, result.connections), (2, 5));
    server.kill();

    let patience = Duration::from_secs(30);
    let server = Server::start(&data, port);
    let found = check::check(&book, &[], patience).unwrap();
    assert_eq!((found.groups, found.exact), (40, 40), "{found:?}");
    assert!(found.is_clean() && found.connected_s <= found.served_s);

    // A file that promises more than there is.
    let mut more = Book::read(&book).unwrap();
    more.entries[7].acked += 1;
    more.entries[7].sent += 1;
    more.entries[9].group = "commits-none".into();
    more.write(&book).unwrap();
    let found = check::check(&book, &[], patience).unwrap();
    assert_eq!((found.exact, found.lost), (38, 2), "{found:?}");
    server.kill();
}

#[test]
fn a_kill_in_the_middle_ends_the_run_and_loses_nothing_that_was_acknowledged() {
    let folder = folder();
    let (data, book) = (folder.path().join("data"), folder.path().join("book"));
    let server = Server::start(&data, 0);
    let port = server.port;
    let run = std::thread::spawn({
        let book = book.clone();
        move || {
            commit(
                port,
                "--groups 200 --warmup 0 --duration 60 --until-broken",
                &book,
            )
        }
    });
    std::thread::sleep(Duration::from_millis(1500));
    server.kill();
    let result = run.join().unwrap();
    assert!(result.broken && result.is_well(false));
    assert!(
        result.window_s < 30.0,
        "of 60 s, {} passed",
        result.window_s
    );
    let server = Server::start(&data, port);
    let found = check::check(&book, &[], Duration::from_secs(30)).unwrap();
    assert!(found.is_clean(), "{found:?}");
    assert_eq!(found.exact + found.unacked_found, 200);
    let acked = Book::read(&book).unwrap().entries;
    assert!(acked.iter().any(|entry| entry.acked > 0));
    server.kill();
}

#[test]
fn members_join_commit_and_leave_so_that_others_can_come_at_once() {
    let folder = folder();
    let book = folder.path().join("book");
    let server = Server::start(&folder.path().join("data"), 0);
    let line =
        "--groups 12 --membership classic --heartbeat 0.2 --connections 3 --warmup 0 --duration 1";
    for _ in 0..2 {
        let result = commit(server.port, line, &book);
        let errors = (&result.commits.errors, &result.heartbeats.errors);
        assert_eq!(result.error_count(), 0, "{errors:?}");
        assert!((55..=65).contains(&result.commits.measured));
        assert!((55..=65).contains(&result.heartbeats.measured));
    }
    let found = check::check(&book, &[], Duration::from_secs(30)).unwrap();
    assert_eq!(found.exact, 12, "{found:?}");
    server.kill();
}

#[test]
fn a_broker_that_is_not_there_is_told_with_what_was_tried() {
    let folder = folder();
    let book = folder.path().join("book");
    let entries = vec![ringlog_load::commits::Entry {
        group: "g".into(),
        acked: 1,
        sent: 1,
    }];
    let nobody = Book {
        // Port 1 is nobody's.
        bootstrap: vec!["127.0.0.1:1".into()],
        topic: "t".into(),
        partitions: 1,
        entries,
    };
    nobody.write(&book).unwrap();
    let error = check::check(&book, &[], Duration::from_millis(50)).unwrap_err();
    let line = error.to_string();
    assert!(line.starts_with("1 groups are not served after"), "{line}");
    assert!(run(&options(1, "")).is_err());
}
