use std::io::Read;

use crate::core::FileSpan;
use crate::disk::FileId;
use crate::shard::{CloseReason, NetCommand, SendData};

use super::harness::{Harness, Mode};

#[test]
fn a_span_ends_its_connection_and_no_other() {
    let harness = Harness::start(Mode::Listen);
    let (mut stream, mut other) = (harness.connect(), harness.connect());
    let names = [harness.accepted(), harness.accepted()];
    let span = FileSpan {
        file: FileId(1),
        offset: 0,
        len: 1,
    };
    let data = SendData::Span(span);
    harness.command(NetCommand::Send {
        conn: names[0],
        data,
    });
    let failed = CloseReason::Failed(libc::ENOTSUP);
    assert_eq!(harness.closed(), (names[0], failed));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    let data = SendData::Bytes(bytes::Bytes::from_static(b"fine"));
    harness.command(NetCommand::Send {
        conn: names[1],
        data,
    });
    let mut back = [0; 4];
    other.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"fine");
    harness.stop();
}

/// The body of the next test, in a process of its own because the limit holds for the whole process.
fn little_locked_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit {
        current: Some(64 << 10),
        maximum: Some(64 << 10),
    };
    setrlimit(Resource::Memlock, limit).unwrap();
    let mut harness = Harness::start(Mode::Listen);
    let error = harness.join().unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n'));
    for part in ["65536 bytes", "ulimit -l 512", "--driver ring"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn too_little_locked_memory_is_explained_in_one_line() {
    const CHILD: &str = "RINGLOG_TEST_LOCKED_MEMORY";
    if std::env::var_os(CHILD).is_some() {
        return little_locked_memory();
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::too_little_locked_memory_is_explained_in_one_line");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
