use std::io::Read;
use std::time::Duration;

use bytes::Bytes;

use crate::core::FileSpan;
use crate::disk::{FileId, Lane, Op, OpId, OpKind, OpenMode};
use crate::ring::SpanPath;
use crate::shard::{CloseReason, ConnId, NetCommand, SendData};

use super::harness::{Harness, Mode};
use super::network::pattern;

const FILE: FileId = FileId(7);
const LEN: usize = 9 << 20;

fn with_file(path: SpanPath) -> (Harness, Vec<u8>) {
    let harness = Harness::with(Mode::Listen, |config| config.span_path = path);
    let content = pattern(3, LEN);
    std::fs::write(harness.dir.path().join("segment"), &content).unwrap();
    let open = OpKind::Open {
        file: FILE,
        path: "segment".into(),
        mode: OpenMode::ReadBuffered,
    };
    let op = Op {
        id: OpId(1),
        lane: Lane::Background,
        kind: open,
    };
    assert_eq!(harness.op(op).result, Ok(()));
    (harness, content)
}

fn bytes(harness: &Harness, conn: ConnId, data: &'static [u8]) {
    let data = SendData::Bytes(Bytes::from_static(data));
    harness.command(NetCommand::Send { conn, data });
}

fn span(harness: &Harness, conn: ConnId, offset: u64, len: usize) {
    let data = SendData::Span(FileSpan {
        file: FILE,
        offset,
        len,
    });
    harness.command(NetCommand::Send { conn, data });
}

#[test]
fn spans_arrive_in_order_with_what_surrounds_them_even_to_slow_readers() {
    for path in [SpanPath::Sendfile, SpanPath::Mmap, SpanPath::Splice] {
        let (harness, content) = with_file(path);
        let mut streams: Vec<_> = (0..3).map(|_| harness.connect()).collect();
        for _ in &streams {
            let conn = harness.accepted();
            bytes(&harness, conn, b"header");
            span(&harness, conn, 1234, LEN - 5000);
            span(&harness, conn, 0, 1);
            bytes(&harness, conn, b"trailer");
            harness.command(NetCommand::Close { conn });
        }
        let mut expected = b"header".to_vec();
        expected.extend_from_slice(&content[1234..1234 + LEN - 5000]);
        expected.push(content[0]);
        expected.extend_from_slice(b"trailer");
        std::thread::sleep(Duration::from_millis(50));
        for stream in &mut streams {
            let mut back = Vec::new();
            let mut piece = vec![0; 700_000];
            loop {
                match stream.read(&mut piece).unwrap() {
                    0 => break,
                    n => back.extend_from_slice(&piece[..n]),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(back == expected, "{path:?}: {} bytes", back.len());
        }
        for _ in &streams {
            assert_eq!(harness.closed().1, CloseReason::Local);
        }
        let stats = harness.stats.snapshot();
        assert_eq!(stats.span_bytes, 3 * (LEN as u64 - 4999));
        assert_eq!(stats.sent_bytes, 3 * expected.len() as u64);
        harness.stop();
    }
}

#[test]
fn a_span_that_cannot_be_sent_closes_the_connection() {
    for path in [SpanPath::Sendfile, SpanPath::Mmap, SpanPath::Splice] {
        let (harness, _) = with_file(path);
        // Past the file's end, and a file that is not open.
        let mut stream = harness.connect();
        let conn = harness.accepted();
        span(&harness, conn, LEN as u64 - 10, 20);
        assert_eq!(harness.closed(), (conn, CloseReason::Failed(libc::EIO)));
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back.len(), 10);

        let _stream = harness.connect();
        let conn = harness.accepted();
        let data = SendData::Span(FileSpan {
            file: FileId(99),
            offset: 0,
            len: 1,
        });
        harness.command(NetCommand::Send { conn, data });
        assert_eq!(harness.closed(), (conn, CloseReason::Failed(libc::EBADF)));
        harness.stop();
    }
}

#[test]
fn an_abort_and_a_vanished_peer_end_a_span() {
    for path in [SpanPath::Sendfile, SpanPath::Mmap, SpanPath::Splice] {
        let (harness, _) = with_file(path);
        for abort in [true, false] {
            let stream = harness.connect();
            let conn = harness.accepted();
            for _ in 0..4 {
                span(&harness, conn, 0, LEN);
            }
            std::thread::sleep(Duration::from_millis(50));
            if abort {
                harness.command(NetCommand::Abort { conn });
                assert_eq!(harness.closed(), (conn, CloseReason::Local));
            } else {
                drop(stream);
                let (closed, reason) = harness.closed();
                assert_eq!(closed, conn);
                assert_ne!(reason, CloseReason::Local);
            }
        }
        harness.stop();
    }
}
