//! Transactions against a real server, in a process of its own that can be killed: this test's binary, started again.

#![allow(clippy::unwrap_used)]

mod server;

use std::thread;
use std::time::Duration;

use clap::Parser;
use ringlog_load::check::check;
use ringlog_load::cli::Cli;
use ringlog_load::report;
use ringlog_load::run::{RunResult, run};
use server::Server;

fn load(port: u16, line: &str) -> RunResult {
    let words = format!("ringlog-load {line} --bootstrap 127.0.0.1:{port}");
    let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
    let request = cli.command.request().unwrap().unwrap();
    let result = run(&request.options).unwrap();
    assert!(report::table(&request.options, &result).contains("transactions"));
    let json = report::json(&request.options, &result);
    let total = &result.produce.as_ref().unwrap().total.transactions;
    assert_eq!(
        json["produce"]["transactions"]["total_committed"],
        total.committed
    );
    result
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A port that is free now: a server that comes back must have the one it had.
fn two_free_ports() -> u16 {
    loop {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

#[test]
fn committed_records_are_read_once_in_either_generation() {
    let (data, logs) = (folder(), folder());
    let server = Server::start(data.path(), two_free_ports());
    for (number, options) in [
        "--transaction-generation 1 --transaction-records 1",
        "--transaction-generation 1 --transaction-records 60 --batch-records 7 --in-flight 3 --partitions-per-request 2",
        "--transaction-records 1 --connections 8 --threads 2",
        "--transaction-records 100 --batch-records 9 --in-flight 5 --compression lz4",
        "--transaction-records 10 --rate 2000",
        "--transaction-records 1000 --record-size 4000 --batch-bytes 100000 --in-flight 5",
    ]
    .iter()
    .enumerate()
    {
        let log = logs.path().join("acks");
        let result = load(
            server.port,
            &format!(
                "mixed -t both-{number} -p 4 --warmup 0.2 -d 0.6 --from earliest --verify --ack-log {} --transactional {options}",
                log.display()
            ),
        );
        let produce = result.produce.as_ref().unwrap();
        let (errors, counts) = (&produce.total.errors, &produce.total.transactions);
        assert!(errors.is_empty(), "{options}: {errors:?}");
        assert!(counts.committed > 3, "{options}: {counts:?}");
        assert_eq!((counts.aborted, counts.fenced), (0, 0), "{options}");
        let measured = &produce.measured.transactions;
        let latency = measured.latency.as_ref().unwrap();
        assert_eq!(latency.len(), measured.committed);
        assert!(latency.max() >= measured.end_latency.as_ref().unwrap().max());
        // The last transaction of a connection ends with the run, however full it is.
        let per_transaction = produce.total.records as f64 / counts.committed as f64;
        let asked = result.transactions.as_ref().unwrap().records as f64;
        assert!(per_transaction <= asked + 14.0, "{options}: {per_transaction}");
        assert!(report::is_well(&result, false), "{options}: {:?}", result.findings());
        assert_eq!(result.findings().unwrap().verified, produce.total.records);
        let checked = check(&log, None).unwrap();
        assert!(checked.is_clean() && checked.unacked_found == 0, "{options}: {checked:?}");
        assert_eq!(checked.acked_found, produce.total.records);
    }
}

#[test]
fn a_second_producer_with_the_same_id_fences_the_first() {
    let data = folder();
    let server = Server::start(data.path(), two_free_ports());
    for generation in [1, 2] {
        let line = format!(
            "mixed -t fence-{generation} -p 4 --warmup 0 --from earliest --verify --tolerate-errors --transactional \
             --transaction-generation {generation} --transactional-id same-{generation} --transaction-records 50 --batch-records 5 --connections 2"
        );
        let (first, port) = (format!("{line} -d 2.5"), server.port);
        let first = thread::spawn(move || load(port, &first));
        thread::sleep(Duration::from_millis(800));
        let second = load(port, &format!("{line} -d 0.8"));
        let first = first.join().unwrap();
        let of = |result: &RunResult| result.produce.as_ref().unwrap().total.clone();
        let (first_total, second_total) = (of(&first), of(&second));
        let counts = &first_total.transactions;
        assert_eq!(counts.fenced, 2, "{generation}: {:?}", first_total.errors);
        assert!(counts.committed > 0 && first_total.errors.contains_key("PRODUCER_FENCED"));
        assert!(!report::is_well(&first, false), "fencing is an error");
        let counts = &second_total.transactions;
        assert_eq!(counts.fenced, 0, "{generation}: {:?}", second_total.errors);
        assert!(counts.committed > 0);
        // What the first had sent when it was fenced is not there for who reads committed records.
        for result in [&first, &second] {
            assert!(
                !result.verify_failed() && result.complete(),
                "{:?}",
                result.findings()
            );
        }
    }
}

#[test]
fn transactions_go_on_when_the_coordinator_comes_back() {
    let (data, logs) = (folder(), folder());
    let log = logs.path().join("acks");
    let server = Server::start(data.path(), two_free_ports());
    let port = server.port;
    let line = format!(
        "produce -t restart -p 4 --warmup 0 -d 4 --verify --ack-log {} --tolerate-errors --transactional --transaction-records 40 \
         --batch-records 4 --in-flight 2 --connections 4",
        log.display()
    );
    let producer = thread::spawn(move || load(port, &line));
    thread::sleep(Duration::from_millis(1200));
    server.kill();
    thread::sleep(Duration::from_millis(300));
    let server = Server::start(data.path(), port);
    assert_eq!(server.port, port);
    let result = producer.join().unwrap();
    let produce = result.produce.as_ref().unwrap();
    let counts = &produce.total.transactions;
    assert!(
        counts.aborted > 0 && counts.fenced == 0,
        "{counts:?} {:?}",
        produce.total.errors
    );
    let last = produce.intervals.last().unwrap();
    assert!(
        last.0 > 0,
        "nothing was committed after the restart: {:?} {:?}",
        produce.intervals,
        produce.total.errors
    );
    let checked = check(&log, None).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
    assert_eq!(checked.acked_found, produce.total.records);
}

#[test]
fn a_refused_batch_aborts_its_transaction() {
    let data = folder();
    let server = Server::start(data.path(), two_free_ports());
    for generation in [1, 2] {
        let result = load(
            server.port,
            &format!(
                "mixed -t small-{generation} --topic-config max.message.bytes=2000 --warmup 0 -d 0.5 --from earliest --verify \
                 --tolerate-errors --transactional --transaction-generation {generation} --transaction-records 20 --batch-records 10"
            ),
        );
        let produce = result.produce.as_ref().unwrap();
        let counts = &produce.total.transactions;
        assert!(counts.aborted > 1 && counts.committed == 0, "{counts:?}");
        assert!(produce.total.errors["MESSAGE_TOO_LARGE"] > 1);
        assert_eq!(
            (produce.total.records, result.findings().unwrap().verified),
            (0, 0)
        );
    }
}
