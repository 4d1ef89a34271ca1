//! Lines in, lines out.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{fails, fed, fed_well, json, well};
use crate::server::{Server, new_dir};

/// Lines as logs have them: different lengths, some empty, some with letters that are none of ASCII's.
fn real_lines(count: usize) -> Vec<String> {
    let line = |n: usize| match n % 7 {
        0 => String::new(),
        1 => format!(
            "<34>1 2026-01-31T12:00:{:02}Z host app {n} - - grüße «{n}» ",
            n % 60
        ),
        _ => format!("{n} {}", "word ".repeat(n % 50)),
    };
    (0..count).map(line).collect()
}

#[test]
fn lines_come_back_as_they_went_with_every_codec() {
    let data = new_dir();
    let server = Server::start(data.path());
    let lines = real_lines(5000);
    let input = lines.join("\n") + "\n";
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        well(&mut server.ringlog(&["topic", "create", codec]));
        let sent = fed_well(
            &mut server.ringlog(&[
                "produce",
                codec,
                "-z",
                codec,
                "--json",
                "--batch-bytes",
                "4096",
            ]),
            input.as_bytes(),
        );
        let sent: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(sent["records"], 5000);
        assert_eq!(sent["partitions"][0]["last_offset"], 4999);
        assert_eq!(
            well(&mut server.ringlog(&["consume", codec])),
            input,
            "{codec}"
        );
    }
}

#[test]
fn keys_headers_and_partitions_are_kept() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "orders", "-p", "4"]));
    let input = "alice\tone\nbob\ttwo\nalice\tNULL\n";
    fed_well(
        &mut server.ringlog(&[
            "produce", "orders", "-K", "\\t", "-H", "host=a", "-H", "n=1", "--null", "NULL",
        ]),
        input.as_bytes(),
    );
    let out =
        well(&mut server.ringlog(&["consume", "orders", "--format", "%k %s %h", "--null", "~"]));
    let seen: BTreeSet<_> = out.lines().collect();
    assert_eq!(
        seen,
        BTreeSet::from([
            "alice one host=a,n=1",
            "bob two host=a,n=1",
            "alice ~ host=a,n=1"
        ])
    );

    // Through JSON into another topic: the same records, partitions and times.
    well(&mut server.ringlog(&["topic", "create", "copy", "-p", "4"]));
    let lines = well(&mut server.ringlog(&["consume", "orders", "--json"]));
    fed_well(
        &mut server.ringlog(&["produce", "copy", "--input", "json", "--acks", "1"]),
        lines.as_bytes(),
    );
    let copy = well(&mut server.ringlog(&["consume", "copy", "--json"]));
    let records = |text: &str| -> BTreeSet<String> {
        text.lines()
            .map(|line| line.replace("\"topic\":\"copy\"", "\"topic\":\"orders\""))
            .collect()
    };
    assert_eq!(records(&copy), records(&lines));
    let alice: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record["key"] == "alice")
        .collect();
    assert_eq!(alice.len(), 2);
    assert_eq!(
        alice[0]["partition"], alice[1]["partition"],
        "a key stays in its partition"
    );
    assert_eq!(alice[1]["value"], Value::Null);
    assert_eq!(
        alice[1]["headers"][1],
        serde_json::json!({ "name": "n", "value": "1" })
    );
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t"]));
    let lines = |from: i64| -> String {
        (0..10)
            .map(|n| {
                format!(
                    "{{\"value\":\"{n}\",\"timestamp_ms\":{}}}\n",
                    from + n * 60_000
                )
            })
            .collect()
    };
    // Ten records a minute apart, the last of them nine minutes after the first.
    let base = 1_764_000_000_000;
    fed_well(
        &mut server.ringlog(&["produce", "t", "--input", "json"]),
        lines(base).as_bytes(),
    );
    let consume = |arguments: &[&str]| {
        let arguments: Vec<_> = ["consume", "t"].iter().chain(arguments).copied().collect();
        well(&mut server.ringlog(&arguments)).replace('\n', "")
    };
    assert_eq!(consume(&[]), "0123456789");
    assert_eq!(consume(&["--from", "7"]), "789");
    assert_eq!(consume(&["--from", "7", "--count", "2"]), "78");
    assert_eq!(consume(&["--count", "0"]), "");
    assert_eq!(consume(&["--from", "end"]), "");
    assert_eq!(consume(&["--from", "2025-11-24T16:05:30Z"]), "6789");
    assert_eq!(
        consume(&["--from", "@1764000120", "--until", "@1764000240"]),
        "23"
    );
    assert_eq!(consume(&["--until", "3"]), "012");
    assert_eq!(consume(&["--from", "-1h"]), "", "the records are older");
    let out = well(&mut server.ringlog(&[
        "consume",
        "t",
        "--from",
        "9",
        "--format",
        "%t %p %o %T %d %S",
    ]));
    assert_eq!(out, "t 0 9 1764000540000 2025-11-24T16:09:00.000Z 1\n");
    // The newest are from now.
    fed_well(&mut server.ringlog(&["produce", "t"]), b"new");
    assert_eq!(consume(&["--from", "-1h"]), "new");
}

#[test]
fn following_shows_records_as_they_come_and_survives_the_server() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t", "-p", "2"]));
    fed_well(&mut server.ringlog(&["produce", "t"]), b"old\n");
    let mut child = server
        .ringlog(&["consume", "t", "--from", "end", "--follow", "--count", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut text = String::new();
        out.read_line(&mut text).unwrap();
        text
    };
    // Not before it has looked where the end is.
    std::thread::sleep(Duration::from_millis(500));
    let produce = |server: &Server, text: &[u8], partition| {
        fed_well(
            &mut server.ringlog(&["produce", "t", "-p", partition]),
            text,
        )
    };
    produce(&server, b"one\n", "0");
    assert_eq!(line(), "one\n");
    produce(&server, b"two\n", "1");
    assert_eq!(line(), "two\n");
    let port = server.port();
    server.kill();
    let server = Server::start_with(data.path(), port);
    produce(&server, b"three\n", "0");
    assert_eq!(line(), "three\n");
    assert!(child.wait().unwrap().success(), "three were wanted");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t"]));
    fed_well(
        &mut server.ringlog(&["produce", "t"]),
        "line\n".repeat(100_000).as_bytes(),
    );
    let mut child = server
        .ringlog(&["consume", "t"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert_eq!(first, "line\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn a_line_that_cannot_be_sent_is_named() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t", "-c", "max.message.bytes=2000"]));
    let input = format!("a\nb\n{}\nc\n", "x".repeat(5000));
    let output = fed(
        &mut server.ringlog(&["produce", "t", "--batch-bytes", "100"]),
        input.as_bytes(),
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("line") && text.contains('3') && text.contains("MESSAGE_TOO_LARGE"),
        "{text}"
    );
    let output = fed(
        &mut server.ringlog(&["produce", "t", "-K", "="]),
        b"k=v\nno key\n",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.starts_with("error: standard input, line 2: no \"=\" "),
        "{text}"
    );
    let output = fed(
        &mut server.ringlog(&["produce", "t", "--input", "json"]),
        b"{}\n{\"partition\":9}\n",
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("standard input, line 2: there is no partition 9"),
        "{text}"
    );
    // Idle for longer than lines are collected: what came is sent before the pipe ends.
    let mut child = server
        .ringlog(&["produce", "t"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"at once\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !well(&mut server.ringlog(&["consume", "t"])).contains("at once") {
        assert!(Instant::now() < deadline);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_comes_before_a_bad_line_is_stored_and_counted() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t"]));
    let good: String = (0..20_000).map(|n| format!("k={n}\n")).collect();
    let input = format!("{good}no key\nk=never\n");
    let words = ["produce", "t", "-K", "=", "--batch-bytes", "4096"];
    let output = fed(&mut server.ringlog(&words), input.as_bytes());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("line 20001") && text.contains("stored before it: 20000 records"),
        "{text}"
    );
    let stored = well(&mut server.ringlog(&["consume", "t"]));
    assert_eq!(stored.lines().count(), 20_000);
    assert_eq!(stored.lines().last(), Some("19999"));
}

#[test]
fn records_sent_while_the_server_is_killed_are_there_once_and_in_order() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t", "-p", "2"]));
    let mut child = server
        .ringlog(&[
            "produce",
            "t",
            "-p",
            "1",
            "--batch-bytes",
            "200",
            "--timeout",
            "60",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for n in 0..60_000 {
            writeln!(stdin, "{n}").unwrap();
            if n % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let port = server.port();
    std::thread::sleep(Duration::from_millis(300));
    server.kill();
    let server = Server::start_with(data.path(), port);
    feeder.join().unwrap();
    assert!(child.wait().unwrap().success());
    let out = well(&mut server.ringlog(&["consume", "t", "-p", "1"]));
    let expected: String = (0..60_000).map(|n| format!("{n}\n")).collect();
    assert!(out == expected, "{} lines", out.lines().count());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_asked() {
    let data = new_dir();
    let server = Server::start(data.path());
    well(&mut server.ringlog(&["topic", "create", "t"]));
    for arguments in [
        &["consume", "t", "--from", "middle"][..],
        &["consume", "t", "--format", "%x"],
        &["consume", "t", "--follow", "--until", "3"],
        &["produce", "t", "-K", ""],
        &["produce", "t", "--codec", "brotli"],
        &["topic", "alter", "t"],
    ] {
        let output = server.ringlog(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(
        json(&mut server.ringlog(&["topic", "describe", "t", "--json"]))["partitions"][0]["end"],
        0
    );
    let (_, line) = fails(&mut server.ringlog(&["consume", "u"]));
    assert!(line.starts_with("there is no topic"), "{line}");
}
