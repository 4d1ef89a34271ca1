//! A real server for these tests, in a process of its own that can be killed: the test's binary, started again.

// Each test binary uses a part.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::Parser;

/// Where the server's command line is, one word a line.
const ARGUMENTS: &str = "RINGLOG_TEST_SERVER";
/// What to call the binary with.
const SERVE: [&str; 5] = [
    "server::serve",
    "--exact",
    "--ignored",
    "--nocapture",
    "--quiet",
];

#[test]
#[ignore = "no test: the server of the tests here, as a process of its own"]
fn serve() {
    let Ok(words) = std::env::var(ARGUMENTS) else {
        return;
    };
    let words = std::iter::once("ringlog-server").chain(words.lines());
    let arguments = ringlog_server::start::Args::parse_from(words);
    if let Err(error) = ringlog_server::start::run(&arguments) {
        eprintln!("ringlog: {error}");
        std::process::exit(error.status());
    }
}

/// A file in `folder` that runs the server as its own binary would.
pub(crate) fn executable(folder: &Path) -> PathBuf {
    let path = folder.join("ringlog-server");
    let binary = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n{ARGUMENTS}=$(printf '%s\\n' \"$@\") exec '{}' {}\n",
        binary.display(),
        SERVE.join(" ")
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Two shards, so that coordinators and partitions lie on different brokers.
    pub(crate) fn start(data: &Path, port: u16) -> Self {
        let (data, port) = (data.display().to_string(), port.to_string());
        #[rustfmt::skip]
        let words = ["--data", &data, "--port", &port, "--shards", "2", "--journal-bytes", "67108864", "--any-file-system"];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(SERVE)
            .env(ARGUMENTS, words.join("\n"))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("ringlog ready: ")?.1.to_owned()));
        let ready = ready.expect("the ready line");
        let (_, rest) = ready.split_once(':').unwrap();
        let port = rest.split(' ').next().unwrap().parse().unwrap();
        Self { child, port }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
