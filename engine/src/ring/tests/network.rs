use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::core::Fatal;
use crate::disk::DiskError;
use crate::ring::RingError;
use crate::shard::{CloseReason, NetCommand, SendData};

use super::harness::{Ask, Harness, Mode, Told};
use super::subject;

/// Bytes that differ from place to place and from `seed` to `seed`.
pub(super) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31).wrapping_add(i >> 8) ^ seed) as u8)
        .collect()
}

fn send(conn: crate::shard::ConnId, bytes: Vec<u8>) -> NetCommand {
    let data = SendData::Bytes(Bytes::from(bytes));
    NetCommand::Send { conn, data }
}

/// Writes `data` and half-closes, while another thread reads until the end.
fn exchange(stream: TcpStream, data: &[u8]) -> Vec<u8> {
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        back
    });
    let mut stream = stream;
    stream.write_all(data).unwrap();
    stream.shutdown(Half::Write).unwrap();
    reading.join().unwrap()
}

#[test]
fn everything_comes_back_to_a_peer_that_half_closes() {
    let harness = Harness::start(Mode::Echo);
    for len in [1, 3, 4096, 100_000, 9_000_001] {
        let data = pattern(len, len);
        assert!(exchange(harness.connect(), &data) == data, "{len} bytes");
        assert_eq!(harness.closed().1, CloseReason::Peer);
    }
    harness.stop();
}

#[test]
fn many_connections_share_few_buffers() {
    let harness = Harness::with(Mode::Echo, subject::few_buffers);
    std::thread::scope(|scope| {
        for seed in 0..32 {
            let stream = harness.connect();
            scope.spawn(move || {
                let data = pattern(seed, 200_000 + seed);
                assert!(exchange(stream, &data) == data);
            });
        }
    });
    let total: usize = (0..32).map(|seed| 200_000 + seed).sum();
    let stats = harness.stats.snapshot();
    assert_eq!(stats.received_bytes, total as u64);
    assert_eq!(stats.sent_bytes, total as u64);
    harness.stop();
}

#[test]
fn a_thousand_connections_come_and_go() {
    let harness = Harness::start(Mode::Echo);
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| harness.connect()).collect();
    for round in 0..3u8 {
        for stream in &mut streams {
            stream.write_all(&[round; 100]).unwrap();
        }
        for stream in &mut streams {
            let mut back = [0; 100];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, [round; 100]);
        }
    }
    let stats = harness.stats.snapshot();
    assert_eq!((stats.accepted, stats.connections), (1000, 1000));
    drop(streams);
    for _ in 0..1000 {
        harness.closed();
    }
    let start = Instant::now();
    while harness.stats.snapshot().connections > 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    harness.stop();
}

#[test]
fn connections_get_their_own_names_small_packets_at_once_and_a_limit() {
    let harness = Harness::with(Mode::Listen, |config| config.max_connections = 2);
    let (first, second) = (harness.connect(), harness.connect());
    let names = [harness.accepted(), harness.accepted()];
    assert_ne!(names[0], names[1]);
    let mut refused = harness.connect();
    assert_eq!(refused.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(harness.stats.snapshot().refused, 1);
    drop(first);
    assert_eq!(harness.closed(), (names[0], CloseReason::Peer));
    // The place is free again, under a new name, and commands to the old one are dropped.
    let start = Instant::now();
    let (third, name) = loop {
        let mut stream = harness.connect();
        harness.command(send(names[0], b"to nobody".to_vec()));
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                break (stream, harness.accepted());
            }
            Ok(0) => assert!(start.elapsed() < Duration::from_secs(10)),
            other => panic!("{other:?}"),
        }
    };
    assert!(!names.contains(&name));
    drop((second, third));
    harness.stop();
}

#[test]
fn a_fill_gets_exactly_its_bytes_however_they_arrive() {
    let harness = Harness::start(Mode::Fill);
    let mut stream = harness.connect();
    let conn = harness.until(|told| match told {
        Told::Accepted(conn, peer) => {
            assert_eq!(peer, stream.local_addr().unwrap());
            Some(conn)
        }
        _ => None,
    });
    for len in [1usize, 5000, 5_000_000] {
        let data = pattern(len, len);
        stream.write_all(&(len as u32).to_be_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        for piece in data.chunks(1_700_000) {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let buf = harness.until(|told| match told {
            Told::Filled(filled, buf) => {
                assert_eq!(filled, conn);
                Some(buf)
            }
            _ => None,
        });
        assert!(buf == data, "{len} bytes");
    }
    // The peer goes in the middle of a fill.
    stream.write_all(&100u32.to_be_bytes()).unwrap();
    stream.write_all(&[1; 50]).unwrap();
    drop(stream);
    assert_eq!(harness.closed().1, CloseReason::Peer);
    harness.stop();
}

#[test]
fn a_reader_that_never_reads_is_cut_off_by_an_abort() {
    let harness = Harness::start(Mode::Listen);
    let mut stream = harness.connect();
    let conn = harness.accepted();
    for seed in 0..64 {
        harness.command(send(conn, pattern(seed, 1 << 20)));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(harness.stats.snapshot().sent_bytes < 32 << 20);
    harness.command(NetCommand::Abort { conn });
    assert_eq!(harness.closed(), (conn, CloseReason::Local));
    // What was on its way may arrive; then it is over.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20);
    harness.stop();
}

#[test]
fn a_close_waits_for_what_is_queued() {
    let harness = Harness::start(Mode::Listen);
    let mut stream = harness.connect();
    let conn = harness.accepted();
    let mut expected = Vec::new();
    for seed in 0..3000 {
        let piece = pattern(seed, 1 + seed);
        expected.extend_from_slice(&piece);
        harness.command(send(conn, piece));
    }
    harness.command(NetCommand::Close { conn });
    harness.command(send(conn, b"too late".to_vec()));
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == expected, "{} of {}", back.len(), expected.len());
    assert_eq!(harness.closed(), (conn, CloseReason::Local));
    harness.stop();
}

#[test]
fn a_paused_connection_is_not_read() {
    let harness = Harness::start(Mode::Listen);
    let mut stream = harness.connect();
    let conn = harness.accepted();
    harness.command(NetCommand::Pause { conn });
    // One receive may have been under way.
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(&[1; 10]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = harness.stats.snapshot().received_bytes;
    stream.write_all(&[2; 10]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(harness.stats.snapshot().received_bytes, before);
    harness.command(NetCommand::Resume { conn });
    let mut all = Vec::new();
    while all.len() < 20 {
        all.extend(harness.until(|told| match told {
            Told::Received(from, data) if from == conn => Some(data),
            _ => None,
        }));
    }
    assert_eq!(all, [[1; 10], [2; 10]].concat());
    harness.stop();
}

#[test]
fn an_idle_shard_sleeps_and_a_message_wakes_it() {
    let harness = Harness::start(Mode::Listen);
    let _stream = harness.connect();
    let conn = harness.accepted();
    std::thread::sleep(Duration::from_millis(20));
    let before = harness.stats.snapshot();
    std::thread::sleep(Duration::from_millis(300));
    let idle = harness.stats.snapshot();
    assert_eq!((idle.turns, idle.enters), (before.turns, before.enters));
    let start = Instant::now();
    for _ in 0..100 {
        harness.command(send(conn, vec![0; 8]));
        harness.until(|told| match told {
            Told::Sent(8) => Some(()),
            _ => None,
        });
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    harness.stop();
}

#[test]
fn what_may_wait_is_taken_together() {
    let harness = Harness::start(Mode::Gather);
    let mut stream = harness.connect();
    stream.set_nodelay(true).unwrap();
    let taken = || {
        harness.until(|told| match told {
            Told::Taken(bytes) => Some(bytes),
            _ => None,
        })
    };
    stream.write_all(&[0]).unwrap();
    // Nothing is gathered yet.
    assert_eq!(taken(), 1);
    let start = Instant::now();
    let before = harness.stats.snapshot().turns;
    for byte in 0..20 {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(taken(), 20);
    assert!(start.elapsed() < Duration::from_secs(2));
    let turns = harness.stats.snapshot().turns - before;
    assert!(turns <= 3, "{turns} turns");
    // Nor is any of a crowd lost, which is more than is waited for.
    let mut streams: Vec<TcpStream> = (0..200).map(|_| harness.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&[1]).unwrap();
    }
    let mut all = 0;
    while all < streams.len() {
        all += taken();
    }
    harness.stop();
}

#[test]
fn messages_from_many_threads_all_arrive() {
    let harness = Harness::start(Mode::Listen);
    let counter = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (asks, counter) = (harness.asks.clone(), counter.clone());
            std::thread::spawn(move || {
                for i in 0..20_000 {
                    let counter = counter.clone();
                    let run = move || {
                        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    };
                    assert!(asks.send(Ask::Run(Box::new(run))));
                    if i % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let start = Instant::now();
    while counter.load(std::sync::atomic::Ordering::Relaxed) < 80_000 {
        assert!(start.elapsed() < Duration::from_secs(10), "a wake was lost");
        std::thread::sleep(Duration::from_millis(1));
    }
    harness.stop();
}

#[test]
fn a_fatal_failure_sends_nothing_of_its_turn() {
    let mut harness = Harness::start(Mode::Listen);
    let mut stream = harness.connect();
    let conn = harness.accepted();
    let fatal = Fatal::Journal(DiskError::IO);
    harness.ask(Ask::FailSending(conn, Bytes::from_static(b"a lie"), fatal));
    let ended = harness.join();
    assert!(matches!(ended, Err(RingError::Fatal(f)) if f == fatal));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn a_shutdown_delivers_what_is_queued_and_gives_up_on_who_does_not_read() {
    let mut harness = Harness::with(Mode::Listen, |config| config.flush_ms = 3000);
    let (mut reading, mut stuck) = (harness.connect(), harness.connect());
    let (a, b) = (harness.accepted(), harness.accepted());
    for conn in [a, b] {
        for seed in 0..32 {
            harness.command(send(conn, pattern(seed, 1 << 20)));
        }
    }
    harness.shutdown.request();
    let mut back = Vec::new();
    reading.read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), 32 << 20);
    harness.join().unwrap();
    assert!(!harness.asks.send(Ask::Run(Box::new(|| ()))));
    let _ = stuck.read_to_end(&mut back);
}
