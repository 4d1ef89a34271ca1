//! The server as a process, and a client on a socket.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_wire::{KafkaMessage, RequestResponsePair};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};
use tempfile::TempDir;

/// A directory on the disk that the build lies on, which is less likely to be tmpfs than the system's.
pub fn new_dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// The server's command line: small, on any free port.
pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog-server"));
    command
        .arg("--data")
        .arg(data)
        .args([
            "--port",
            "0",
            "--shards",
            "1",
            "--journal-bytes",
            "67108864",
        ])
        .arg("--any-file-system")
        .env("RUST_LOG", "warn");
    command
}

/// A start that is expected to fail: its status and its one line.
pub fn refused(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().expect("starts");
    let text = String::from_utf8(stderr).expect("text");
    let mut lines = text.lines().filter(|l| l.starts_with("ringlog: "));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no line in {text:?}"));
    assert_eq!(lines.next(), None, "one line");
    (status.code().expect("no signal"), line.to_owned())
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    stderr: Cell<Option<ChildStderr>>,
    pub port: u16,
    pub ready: String,
}

impl Server {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("a line");
        let place = ready
            .strip_prefix("ringlog ready: ")
            .expect("the ready line");
        let (_, rest) = place.split_once(':').expect("host:port");
        let digits = rest.split(' ').next().expect("a port");
        Self {
            stderr: Cell::new(child.stderr.take()),
            port: digits.parse().expect("a port"),
            child,
            ready,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("runs");
        self.child.wait().expect("ends");
    }

    /// SIGTERM; the exit status.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("runs");
        let status = self.child.wait().expect("ends");
        status.code().expect("no signal")
    }

    /// Collects the lines of standard error, which must have been piped, until the process ends.
    pub fn read_stderr(&self) -> JoinHandle<Vec<String>> {
        let mut stderr = self.stderr.take().expect("piped");
        std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("text");
            text.lines().map(str::to_owned).collect()
        })
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        Client {
            stream,
            correlation: 0,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already after a stop.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub fn call<R>(&mut self, version: i16, request: &R) -> R::Response
    where
        R: RequestResponsePair + KafkaEncode + KafkaMessage,
    {
        self.correlation += 1;
        let api = ApiVersion::new(version);
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&R::API_KEY.value().to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&self.correlation.to_be_bytes());
        frame.extend_from_slice(&[0xff, 0xff]);
        if R::is_flexible(api) {
            frame.extend_from_slice(&[0]);
        }
        request.encode_into(&mut frame, api).expect("encodes");
        let len = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&frame).expect("sends");
        let mut body = self.receive();
        let header = if R::is_flexible(api) { 5 } else { 4 };
        assert_eq!(body[..4], self.correlation.to_be_bytes());
        let body = body.split_off(header);
        R::Response::decode_from_bytes(body, api, DecodeLimits::default()).expect("decodes")
    }

    fn receive(&mut self) -> Bytes {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).expect("a response");
        let mut body = vec![0; i32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body).expect("all of it");
        Bytes::from(body)
    }
}

/// A path that holds what a test puts there.
pub fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("writes");
    path
}
