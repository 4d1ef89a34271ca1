//! A server to talk to, as a process of its own: this test program once more, told to be the server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use clap::Parser;
use ringlog_server::start::{Args, run};
use tempfile::TempDir;

/// Set for the process that is to be the server: its arguments, a line each.
const ARGUMENTS: &str = "RINGLOG_TEST_SERVER";

/// The server's process: what every other test starts. It ends when it is killed.
#[test]
#[ignore = "the server that the other tests start"]
fn be_the_server() {
    let arguments = std::env::var(ARGUMENTS).expect("only the other tests run this");
    let arguments = std::iter::once("ringlog-server").chain(arguments.lines());
    run(&Args::parse_from(arguments)).expect("the server runs");
}

/// A directory on the disk that the build lies on, which is less likely to be tmpfs than the system's.
pub(crate) fn new_dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open: the process says on it how it ended.
    _stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    /// Starts one on any free port.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, 0)
    }

    /// Starts one on this port.
    pub(crate) fn start_with(data: &Path, port: u16) -> Self {
        let arguments = format!(
            "--data\n{}\n--port\n{port}\n--shards\n1\n--journal-bytes\n67108864\n--any-file-system",
            data.display()
        );
        let mut child = Command::new(std::env::current_exe().expect("a program"))
            .args([
                "server::be_the_server",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(ARGUMENTS, arguments)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let ready = (&mut stdout)
            .lines()
            .map(|line| line.expect("a line"))
            .find_map(|line| Some(line.split_once("ringlog ready: ")?.1.to_owned()))
            .expect("the ready line");
        let (_, rest) = ready.split_once(':').expect("host:port");
        let digits = rest.split(' ').next().expect("a port");
        let port = digits.parse().expect("a port");
        Self {
            child,
            _stdout: stdout,
            port,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `ringlog` with these arguments, told where the server is.
    pub(crate) fn ringlog(&self, arguments: &[&str]) -> Command {
        let mut command = ringlog(arguments);
        command.env("RINGLOG_BOOTSTRAP", format!("127.0.0.1:{}", self.port));
        command
    }

    /// SIGTERM: a clean stop.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("runs");
        assert!(self.child.wait().expect("ends").success());
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("runs");
        self.child.wait().expect("ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already after a kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `ringlog` with these arguments.
pub(crate) fn ringlog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog"));
    command
        .args(arguments)
        .env_remove("RINGLOG_BOOTSTRAP")
        .stdin(Stdio::null());
    command
}
