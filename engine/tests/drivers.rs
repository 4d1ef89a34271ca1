//! The core on the real drivers, with real sockets and a real disk: what was acknowledged is there, while running and
//! after a restart.
#![allow(clippy::unwrap_used)]

#[path = "mini/mod.rs"]
mod mini;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mini::{APPEND, BUSY, FETCH, HEAD, Mini, OK, answer, catalog, request};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::core::{
    ColdReads, Core, CoreConfig, Durability, Inspect, LogConfig, Mutations,
};
use ringlog_engine::id::Now;
use ringlog_engine::recovery::{RecoveryOptions, recover};
use ringlog_engine::ring::{
    RealDisk, RingConfig, RingStats, ShardInputs, Shutdown, SpanPath, now, spawn_shard,
};
use ringlog_engine::shard::Shard;

const PARTITIONS: u32 = 8;

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    stats: Arc<RingStats>,
    thread: JoinHandle<()>,
}

/// How cold data is read, and by which driver.
#[derive(Clone, Copy, Debug)]
struct Cold {
    spans: Option<SpanPath>,
    reads: ColdReads,
    glommio: bool,
}

impl Cold {
    const fn new(spans: Option<SpanPath>, reads: ColdReads) -> Self {
        let glommio = false;
        Self {
            spans,
            reads,
            glommio,
        }
    }
}

fn core_config() -> CoreConfig {
    CoreConfig {
        shard: 0,
        shards: 1,
        durability: Durability::Fsync,
        commits_in_flight: 4,
        journal_file_bytes: 8 << 20,
        journal_files: 3,
        existing_journals: Vec::new(),
        memory_bytes: 24 << 20,
        max_batch_bytes: mini::BATCH_MAX,
        cleaner: Default::default(),
        inspect: Inspect::Uncompressed,
        decompressed_bytes_max: 1 << 20,
        cold_reads: ColdReads::Cached,
        producer_expiry_ms: 86_400_000,
        open_files: 64,
        reads_in_flight: 16,
        mutations: Mutations::default(),
    }
}

fn start(dir: &Path, cold: Cold) -> Server {
    let mut config = core_config();
    config.cold_reads = cold.reads;
    let log = LogConfig {
        segment_bytes: 4 << 20,
        // The records' timestamps are years old.
        retention_ms: -1,
        ..LogConfig::default()
    };
    let mut disk = RealDisk::new(dir).unwrap();
    let options = RecoveryOptions {
        shards: 1,
        journal_file_len: config.journal_file_len(),
        new_dir_id: [9; 16],
        now_ms: now().wall_ms,
        mutations: Mutations::default(),
    };
    let recovered = recover(&mut disk, &catalog(PARTITIONS, &log), options).unwrap();
    config.existing_journals = recovered.existing_journals(0);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let (run, partitions) = (recovered.run, recovered.partitions);
    let make = move |now| {
        let core = Core::new(config, run, partitions, now);
        Shard::new(core, Mini::new(cold.spans.is_some()))
    };
    let (stats, thread) = if cold.glommio {
        on_glommio(dir, listener, &shutdown, make)
    } else {
        let (_, inputs) = ShardInputs::new(listener, shutdown.clone()).unwrap();
        let mut ring = RingConfig::new(dir.to_owned(), 0);
        ring.span_path = cold.spans.unwrap_or_default();
        (inputs.stats(), spawn_shard(ring, inputs, make).unwrap())
    };
    Server {
        address,
        shutdown,
        stats,
        thread,
    }
}

type Running = (Arc<RingStats>, JoinHandle<()>);

#[cfg(feature = "glommio")]
fn on_glommio(
    dir: &Path,
    listener: TcpListener,
    shutdown: &Shutdown,
    make: impl FnOnce(Now) -> Shard<Mini> + Send + 'static,
) -> Running {
    use ringlog_engine::glommio::{GlommioConfig, ShardInputs, spawn_shard};
    let (_, inputs) = ShardInputs::new(listener, shutdown.clone()).unwrap();
    let config = GlommioConfig::new(dir.to_owned(), 0);
    (inputs.stats(), spawn_shard(config, inputs, make).unwrap())
}

#[cfg(not(feature = "glommio"))]
fn on_glommio(
    _: &Path,
    _: TcpListener,
    _: &Shutdown,
    _: impl FnOnce(Now) -> Shard<Mini> + Send + 'static,
) -> Running {
    panic!("built without glommio")
}

impl Server {
    fn stop(self) {
        self.shutdown.request();
        self.thread.join().unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }
}

/// A batch with one record, which says what it is.
fn batch(partition: u32, number: u64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{partition}/{number}:").into_bytes();
    value.resize(bytes.max(value.len()), number as u8);
    let mut batch = BatchBuilder::new();
    batch.push(&NewRecord {
        timestamp_ms: 1_700_000_000_000 + number as i64,
        value: Some(&value),
        ..NewRecord::default()
    });
    batch.build().unwrap()
}

/// Appends `count` batches of sizes from tiny to large, one at a time; each must get the next offset.
fn produce(stream: &mut TcpStream, partition: u32, from: u64, count: u64) {
    for number in from..from + count {
        let bytes = [1, 100, 5_000, 60_000, 300_000][number as usize % 5];
        let batch = batch(partition, number, bytes);
        loop {
            let head = request(APPEND, partition, batch.len() as u64);
            stream.write_all(&[&head[..], &batch].concat()).unwrap();
            let mut back = [0; HEAD];
            stream.read_exact(&mut back).unwrap();
            match answer(&back) {
                (OK, offset) => break assert_eq!(offset, number),
                (BUSY, _) => std::thread::sleep(Duration::from_millis(2)),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Fetches `partition` from its start and compares every batch.
fn check(stream: &mut TcpStream, partition: u32, count: u64) {
    let mut offset = 0;
    while offset < count {
        stream
            .write_all(&request(FETCH, partition, offset))
            .unwrap();
        let mut back = [0; HEAD];
        stream.read_exact(&mut back).unwrap();
        let (status, len) = answer(&back);
        assert_eq!(status, OK, "partition {partition} offset {offset}");
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data).unwrap();
        let mut rest = &data[..];
        while rest.len() >= 12 {
            let len = 12 + u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            if len > rest.len() {
                break;
            }
            let bytes = [1, 100, 5_000, 60_000, 300_000][offset as usize % 5];
            let expected = batch(partition, offset, bytes);
            assert_eq!(rest[..8], offset.to_be_bytes());
            // Offset and leader epoch are the broker's; everything from the magic byte on is the producer's.
            assert!(rest[16..len] == expected[16..], "{partition}/{offset}");
            rest = &rest[len..];
            offset += 1;
        }
    }
    assert_eq!(offset, count);
}

fn produce_all(server: &Server, from: u64, count: u64) {
    std::thread::scope(|scope| {
        for partition in 0..PARTITIONS {
            let mut stream = server.connect();
            scope.spawn(move || produce(&mut stream, partition, from, count));
        }
    });
}

fn check_all(server: &Server, count: u64) {
    std::thread::scope(|scope| {
        for partition in 0..PARTITIONS {
            let mut stream = server.connect();
            scope.spawn(move || check(&mut stream, partition, count));
        }
    });
}

#[test]
fn what_is_acknowledged_is_there_by_every_read_path_and_after_restarts() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut ways = vec![
        Cold::new(Some(SpanPath::Sendfile), ColdReads::Cached),
        Cold::new(Some(SpanPath::Splice), ColdReads::Cached),
        Cold::new(Some(SpanPath::Mmap), ColdReads::Cached),
        Cold::new(Some(SpanPath::Sendfile), ColdReads::DirectOnce),
        Cold::new(None, ColdReads::DirectOnce),
        Cold::new(None, ColdReads::Cached),
        Cold::new(None, ColdReads::Direct),
    ];
    if cfg!(feature = "glommio") {
        ways.extend([ColdReads::Cached, ColdReads::Direct].map(|reads| Cold {
            glommio: true,
            ..Cold::new(None, reads)
        }));
    }
    // More than journal and memory together, so that most of it is read from segments.
    let (mut written, count) = (0, 60);
    for cold in ways {
        let server = start(dir.path(), cold);
        check_all(&server, written);
        produce_all(&server, written, count);
        written += count;
        check_all(&server, written);
        let stats = server.stats.snapshot();
        assert!(stats.commits > 0);
        if written > count {
            assert_eq!(stats.span_bytes > 0, cold.spans.is_some(), "{cold:?}");
        }
        server.stop();
    }
}

/// Ends this process as a shard does; the parent looks at how.
fn end_badly(way: &str, dir: &Path) {
    if way == "panic" {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_, inputs) = ShardInputs::new(listener, Shutdown::new()).unwrap();
        let config = RingConfig::new(dir.to_owned(), 0);
        let never = spawn_shard(config, inputs, |_| -> Shard<Mini> { panic!("on purpose") });
        never.unwrap().join().unwrap();
        return;
    }
    // The first journal file cannot be made this large.
    let limit = rustix::process::Rlimit {
        current: Some(4 << 20),
        maximum: None,
    };
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).unwrap();
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let mut cold = Cold::new(None, ColdReads::Cached);
    cold.glommio = way == "fatal in glommio";
    start(dir, cold).thread.join().unwrap();
}

#[test]
fn a_panic_and_a_fatal_failure_end_the_process_at_once() {
    const WAY: &str = "RINGLOG_TEST_END";
    const DIR: &str = "RINGLOG_TEST_DIR";
    if let (Ok(way), Ok(dir)) = (std::env::var(WAY), std::env::var(DIR)) {
        return end_badly(&way, Path::new(&dir));
    }
    let name = "a_panic_and_a_fatal_failure_end_the_process_at_once";
    for (way, status, line) in [
        ("panic", 101, "the shard thread panicked"),
        (
            "fatal",
            12,
            "ringlog: shard 0: journal file cannot be created",
        ),
    ] {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(WAY, way)
            .env(DIR, dir.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{way}: {errors}");
        assert!(errors.contains(line), "{way}: {errors}");
    }
}
