use std::os::unix::fs::MetadataExt;

use crate::buf::{AlignedBuf, BLOCK, BufPool};
use crate::disk::{
    Completion, DiskError, FileId, Lane, Op, OpId, OpKind, OpenMode, Returned, WriteData,
};

use super::harness::{Ask, Harness, Mode, Told};
use super::subject;

fn op(id: u64, lane: Lane, kind: OpKind) -> Op {
    Op {
        id: OpId(id),
        lane,
        kind,
    }
}

fn ok(completion: Completion) -> Returned {
    assert_eq!(completion.result, Ok(()));
    completion.returned
}

fn blocks(n: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(n * BLOCK);
    buf.fill(byte);
    buf
}

fn write(file: u64, offset: u64, data: AlignedBuf, sync: bool) -> OpKind {
    OpKind::Write {
        file: FileId(file),
        offset,
        data: WriteData::Owned(data),
        sync,
    }
}

fn read(file: u64, offset: u64, len: usize) -> OpKind {
    OpKind::Read {
        file: FileId(file),
        offset,
        len,
        buf: AlignedBuf::with_capacity(len),
    }
}

fn open(file: u64, path: &str, mode: OpenMode) -> OpKind {
    OpKind::Open {
        file: FileId(file),
        path: path.into(),
        mode,
    }
}

/// What was read.
fn bytes(returned: Returned) -> AlignedBuf {
    match returned {
        Returned::Buf(buf) => buf,
        other => panic!("{other:?}"),
    }
}

fn journal(harness: &Harness) {
    ok(harness.op(op(
        1,
        Lane::Background,
        OpKind::CreateDir {
            path: "journal".into(),
        },
    )));
    ok(harness.op(op(
        2,
        Lane::Background,
        OpKind::CreateZeroed {
            file: FileId(1),
            path: "journal/0".into(),
            len: 3 << 20,
        },
    )));
}

#[test]
fn commits_are_written_where_they_belong_and_slices_come_back() {
    for tune in subject::COMMITS {
        let harness = Harness::with(Mode::Listen, tune);
        journal(&harness);
        let path = harness.dir.path().join("journal/0");
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), 3 << 20);
        assert!(meta.blocks() * 512 >= 3 << 20, "only allocated");

        let pool = BufPool::new(1 << 20, 1);
        let mut writer = pool.writer();
        // Several commits at once, as the core has them in flight.
        for n in 0..8u64 {
            writer.append(&vec![n as u8 + 1; 10_000]);
            let kind = OpKind::Write {
                file: FileId(1),
                offset: n * 16384,
                data: WriteData::Slice(writer.freeze()),
                sync: n % 4 != 3,
            };
            harness.ask(Ask::Op(op(100 + n, Lane::Journal, kind)));
        }
        let mut ids: Vec<u64> = (0..8)
            .map(|_| match harness.next() {
                Told::Completed(completion) => {
                    let id = completion.id.0;
                    assert!(matches!(
                        ok(completion),
                        Returned::Data(WriteData::Slice(_))
                    ));
                    id
                }
                other => panic!("{other:?}"),
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (100..108).collect::<Vec<_>>());
        assert_eq!(harness.stats.snapshot().commits, 6);
        ok(harness.op(op(3, Lane::Journal, OpKind::Sync { file: FileId(1) })));
        for n in 0..8u64 {
            let buf = bytes(ok(harness.op(op(4, Lane::Read, read(1, n * 16384, 12288)))));
            assert!(buf[..10_000].iter().all(|&b| b == n as u8 + 1));
            assert!(buf[10_000..].iter().all(|&b| b == 0));
        }
        ok(harness.op(op(5, Lane::Background, OpKind::Close { file: FileId(1) })));
        harness.stop();
    }
}

#[test]
fn a_failed_write_is_its_own_error_not_its_syncs() {
    let harness = Harness::start(Mode::Listen);
    std::fs::write(harness.dir.path().join("read-only"), vec![0; 8192]).unwrap();
    ok(harness.op(op(
        1,
        Lane::Background,
        open(1, "read-only", OpenMode::ReadDirect),
    )));
    for lane in [Lane::Journal, Lane::Background] {
        let completion = harness.op(op(2, lane, write(1, 0, blocks(1, 1), true)));
        assert_eq!(completion.result, Err(DiskError(libc::EBADF)));
        assert!(matches!(completion.returned, Returned::Data(_)));
    }
    assert_eq!(
        harness.stats.snapshot().commits,
        0,
        "a failure is no commit"
    );
    harness.stop();
}

#[test]
fn reads_stop_at_the_files_end_on_both_rings_and_by_both_ways() {
    let harness = Harness::start(Mode::Listen);
    let content: Vec<u8> = (0..3 * BLOCK + 100).map(|i| (i / 7) as u8).collect();
    std::fs::write(harness.dir.path().join("f"), &content).unwrap();
    std::fs::write(harness.dir.path().join("whole"), &content[..2 * BLOCK]).unwrap();
    let b = Lane::Background;
    ok(harness.op(op(1, b, open(1, "f", OpenMode::ReadDirect))));
    ok(harness.op(op(1, b, open(2, "f", OpenMode::ReadBuffered))));
    ok(harness.op(op(1, b, open(3, "whole", OpenMode::ReadDirect))));
    for lane in [Lane::Read, Lane::Background] {
        for file in [1, 2] {
            let all = bytes(ok(harness.op(op(2, lane, read(file, 0, 8 * BLOCK)))));
            assert!(all[..] == content[..]);
            let middle = bytes(ok(harness.op(op(2, lane, read(file, 4096, 4096)))));
            assert!(middle[..] == content[4096..8192]);
        }
        let all = bytes(ok(harness.op(op(2, lane, read(3, 0, 8 * BLOCK)))));
        assert_eq!(all.len(), 2 * BLOCK);
        let none = bytes(ok(harness.op(op(2, lane, read(3, 16384, BLOCK)))));
        assert!(none.is_empty());
    }
    harness.stop();
}

#[test]
fn more_reads_than_fit_the_ring_are_all_answered() {
    let harness = Harness::start(Mode::Listen);
    let content: Vec<u8> = (0..256 * BLOCK).map(|i| (i / BLOCK) as u8).collect();
    std::fs::write(harness.dir.path().join("f"), &content).unwrap();
    ok(harness.op(op(
        0,
        Lane::Background,
        open(1, "f", OpenMode::ReadBuffered),
    )));
    for n in 0..256u64 {
        harness.ask(Ask::Op(op(n, Lane::Read, read(1, n * BLOCK as u64, BLOCK))));
    }
    for _ in 0..256 {
        let completion = harness.until(|told| match told {
            Told::Completed(completion) => Some(completion),
            _ => None,
        });
        let n = completion.id.0;
        assert!(bytes(ok(completion)).iter().all(|&b| b == n as u8));
    }
    harness.stop();
}

#[test]
fn a_destage_round_reaches_the_files() {
    let harness = Harness::start(Mode::Listen);
    let b = Lane::Background;
    ok(harness.op(op(0, b, OpKind::CreateDir { path: "t".into() })));
    ok(harness.op(op(0, b, OpKind::CreateDir { path: "t".into() })));
    let files = 200u64;
    for n in 0..files {
        harness.ask(Ask::Op(op(
            1,
            b,
            open(n, &format!("t/{n}"), OpenMode::WriteDirect),
        )));
    }
    for _ in 0..files {
        harness.until(|told| match told {
            Told::Completed(completion) => Some(ok(completion)),
            _ => None,
        });
    }
    for n in 0..files {
        let file = FileId(n);
        harness.ask(Ask::Op(op(
            2,
            b,
            OpKind::Allocate {
                file,
                offset: 0,
                len: 1 << 16,
            },
        )));
        harness.ask(Ask::Op(op(
            3,
            b,
            write(n, 0, blocks(4, n as u8), n % 2 == 0),
        )));
    }
    for _ in 0..2 * files {
        harness.until(|told| match told {
            Told::Completed(completion) => Some(ok(completion)),
            _ => None,
        });
    }
    ok(harness.op(op(4, b, OpKind::SyncFs)));
    ok(harness.op(op(5, b, OpKind::Sync { file: FileId(3) })));
    ok(harness.op(op(6, b, OpKind::SyncDir { path: "t".into() })));
    ok(harness.op(op(
        7,
        b,
        OpKind::Truncate {
            file: FileId(3),
            len: 5000,
        },
    )));
    let sizes: Vec<u64> = (0..files)
        .map(|n| {
            let data = std::fs::read(harness.dir.path().join(format!("t/{n}"))).unwrap();
            assert!(data.iter().all(|&byte| byte == n as u8));
            data.len() as u64
        })
        .collect();
    assert_eq!(sizes[3], 5000);
    assert!(sizes.iter().skip(4).all(|&size| size == 16384));
    ok(harness.op(op(8, b, OpKind::Close { file: FileId(3) })));
    let path = "t/3";
    ok(harness.op(op(9, b, OpKind::Unlink { path: path.into() })));
    ok(harness.op(op(9, b, OpKind::Unlink { path: path.into() })));
    assert!(!harness.dir.path().join(path).exists());
    for _ in 0..3 {
        harness.ask(Ask::Op(op(10, b, OpKind::RemoveDir { path: "t".into() })));
    }
    for _ in 0..3 {
        harness.until(|told| match told {
            Told::Completed(completion) => Some(ok(completion)),
            _ => None,
        });
    }
    assert!(!harness.dir.path().join("t").exists());
    harness.stop();
}

#[test]
fn mistakes_are_answered_with_errors() {
    let harness = Harness::start(Mode::Listen);
    let b = Lane::Background;
    let bad = Err(DiskError(libc::EBADF));
    for lane in [Lane::Journal, Lane::Read, Lane::Background] {
        let result = |kind| harness.op(op(1, lane, kind)).result;
        assert_eq!(result(write(9, 0, blocks(1, 0), true)), bad);
        assert_eq!(result(read(9, 0, BLOCK)), bad);
        assert_eq!(result(OpKind::Sync { file: FileId(9) }), bad);
    }
    let result = |kind| harness.op(op(1, b, kind)).result;
    assert_eq!(result(OpKind::Close { file: FileId(9) }), bad);
    assert_eq!(
        result(open(1, "absent", OpenMode::ReadDirect)),
        Err(DiskError::NOT_FOUND)
    );
    assert_eq!(
        result(open(1, "../outside", OpenMode::WriteDirect)),
        Err(DiskError::INVALID)
    );
    assert_eq!(
        result(OpKind::SyncDir {
            path: "absent".into()
        }),
        Err(DiskError::NOT_FOUND)
    );
    assert_eq!(
        result(OpKind::CreateZeroed {
            file: FileId(1),
            path: "absent/0".into(),
            len: 4096
        }),
        Err(DiskError::NOT_FOUND)
    );
    harness.stop();
}

/// The body of the next test, run in a process of its own because the limit holds for the whole process.
fn short_writes() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // The default action of the signal would end the process.
    signal_hook::flag::register(libc::SIGXFSZ, Default::default()).unwrap();
    let harness = Harness::start(Mode::Listen);
    journal(&harness);
    ok(harness.op(op(
        3,
        Lane::Background,
        open(2, "segment", OpenMode::WriteDirect),
    )));
    let limit = Some(1 << 20);
    let limit = Rlimit {
        current: limit,
        maximum: None,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
    let across = (1 << 20) - 2 * BLOCK as u64;
    // The journal's lane reports a part written as a failure, and does not sync it.
    let completion = harness.op(op(4, Lane::Journal, write(1, across, blocks(4, 1), true)));
    assert_eq!(completion.result, Err(DiskError::IO));
    let completion = harness.op(op(4, Lane::Journal, write(1, 1 << 20, blocks(1, 1), true)));
    assert_eq!(completion.result, Err(DiskError(libc::EFBIG)));
    // The background's goes on, and hears why it cannot.
    let completion = harness.op(op(
        5,
        Lane::Background,
        write(2, across, blocks(4, 1), true),
    ));
    assert_eq!(completion.result, Err(DiskError(libc::EFBIG)));
    harness.stop();
}

#[test]
fn a_short_write_is_never_a_success() {
    const CHILD: &str = "RINGLOG_TEST_SHORT_WRITES";
    if std::env::var_os(CHILD).is_some() {
        return short_writes();
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::a_short_write_is_never_a_success");
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
