//! The admin plane of a running server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::process::{Server, command, new_dir, refused};
use super::{create, produce};

/// Status and body of a GET.
fn get(port: u16, path: &str) -> (u16, String) {
    request(
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
}

/// Status and body of the answer to what is sent.
fn request(port: u16, head: &str) -> (u16, String) {
    let mut stream = send(port, head);
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

fn send(port: u16, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("listens");
    stream.write_all(text.as_bytes()).expect("sends");
    stream
}

#[test]
fn requests_with_bodies_and_clients_that_say_nothing_hold_nobody_up() {
    let dir = new_dir();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let mut server = command(&dir.path().join("data"));
    let server = Server::start(server.args(["--admin", &format!("127.0.0.1:{port}")]));
    let mut held = vec![send(port, ""), send(port, "GET /health HT")];
    for length in ["2000", "4000000000000000000", "18446744073709551615", "-1"] {
        let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        held.push(send(port, &head));
    }
    held.push(send(port, &"x".repeat(1 << 20)));
    let started = Instant::now();
    assert_eq!(get(port, "/health"), (200, "ok\n".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(3));
    let (status, _) = request(
        port,
        "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(status, 405);
    assert_eq!(
        request(port, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        (200, String::new())
    );
    assert_eq!(server.stop(), 0);
}

#[test]
fn administrators_see_metrics_status_and_health() {
    let dir = new_dir();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    let address = format!("127.0.0.1:{port}");
    let taken = refused(command(&dir.path().join("x")).args(["--admin", &address]));
    assert_eq!(taken.0, 7, "{}", taken.1);
    drop(free);
    let data = dir.path().join("data");
    let server = Server::start(command(&data).args(["--admin", &address]));
    assert_eq!(get(port, "/health"), (200, "ok\n".to_owned()));
    let mut client = server.connect();
    create(&mut client, "t");
    for _ in 0..3 {
        produce(&mut client, "t", "value");
    }
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.contains(&"ringlog_batches_total{shard=\"0\"} 3"),
        "{text}"
    );
    assert!(
        lines.contains(&"# TYPE ringlog_backlog_bytes gauge"),
        "{text}"
    );
    assert_eq!(lines.last(), Some(&"# EOF"));
    let (status, text) = get(port, "/status?pretty");
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["shards"][0]["records"], 3);
    assert_eq!(json["ready"], true);
    assert_eq!(get(port, "/").0, 404);
    assert_eq!(server.stop(), 0);
}
