//! Durable appends in closed loop against one shard on the ring driver: acknowledgements a second, latency,
//! system calls and CPU for each. The client is one thread with epoll, so that it costs little.
//!
//! `cargo run --release -p ringlog-engine --example drive -- --dir DIR --seconds 5`
#![allow(clippy::unwrap_used)]

#[path = "../tests/mini/mod.rs"]
#[allow(dead_code)]
mod mini;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use mini::{APPEND, HEAD, Mini, answer, catalog, request};
use ringlog_engine::batch::{BatchBuilder, NewRecord};
use ringlog_engine::core::{
    ColdReads, Core, CoreConfig, Durability, Inspect, LogConfig, Mutations,
};
use ringlog_engine::recovery::{RecoveryOptions, recover};
use ringlog_engine::ring::{
    CommitSync, RealDisk, RingConfig, ShardInputs, Shutdown, now, spawn_shard,
};
use ringlog_engine::shard::Shard;
use rustix::event::epoll;

#[derive(Parser)]
struct Args {
    /// An empty directory, on a disk.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of the one record in each batch.
    #[arg(long, default_value_t = 256)]
    record: usize,
    #[arg(long, default_value_t = 16)]
    partitions: u32,
    #[arg(long, default_value_t = 4)]
    commits_in_flight: usize,
    /// Acknowledge after the write, before the sync.
    #[arg(long)]
    no_sync: bool,
    /// RWF_DSYNC instead of a linked fdatasync.
    #[arg(long)]
    dsync: bool,
    /// The shard's core.
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long, default_value_t = 32)]
    recv_kib: u32,
}

fn main() {
    let args = Args::parse();
    let mut config = CoreConfig {
        shard: 0,
        shards: 1,
        durability: if args.no_sync {
            Durability::Write
        } else {
            Durability::Fsync
        },
        commits_in_flight: args.commits_in_flight,
        journal_file_bytes: 128 << 20,
        journal_files: 4,
        existing_journals: Vec::new(),
        memory_bytes: 768 << 20,
        max_batch_bytes: mini::BATCH_MAX,
        cleaner: Default::default(),
        inspect: Inspect::Uncompressed,
        decompressed_bytes_max: 1 << 20,
        cold_reads: ColdReads::Cached,
        producer_expiry_ms: 86_400_000,
        open_files: 1000,
        reads_in_flight: 64,
        mutations: Mutations::default(),
    };
    let mut disk = RealDisk::new(&args.dir).unwrap();
    let options = RecoveryOptions {
        shards: 1,
        journal_file_len: config.journal_file_len(),
        new_dir_id: [9; 16],
        now_ms: now().wall_ms,
        mutations: Mutations::default(),
    };
    let log = LogConfig::default();
    let recovered = recover(&mut disk, &catalog(args.partitions, &log), options).unwrap();
    config.existing_journals = recovered.existing_journals(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let (_, inputs) = ShardInputs::<()>::new(listener, shutdown.clone()).unwrap();
    let stats = inputs.stats();
    let mut ring = RingConfig::new(args.dir.clone(), 0);
    ring.cpu = args.cpu;
    ring.recv_buffer_bytes = args.recv_kib * 1024;
    if args.dsync {
        ring.commit_sync = CommitSync::Dsync;
    }
    let (run, partitions) = (recovered.run, recovered.partitions);
    let shard = spawn_shard(ring, inputs, move |now| {
        Shard::new(Core::new(config, run, partitions, now), Mini::new(false))
    })
    .unwrap();

    let mut client = Client::new(&args, address);
    client.run(Duration::from_secs(1));
    client.latencies_us.clear();
    let (before, cpu) = (stats.snapshot(), cpu_ms());
    let took = client.run(Duration::from_secs(args.seconds)).as_secs_f64();
    let (after, cpu) = (stats.snapshot(), cpu_ms() - cpu);
    let acks = client.latencies_us.len() as f64;
    client.latencies_us.sort_unstable();
    let at = |share: f64| client.latencies_us[(acks * share) as usize];
    let per_ack = |n: u64| n as f64 / acks;
    println!(
        "{:.0} acks/s, {:.0} MB/s, p50 {} us, p99 {} us, p99.9 {} us",
        acks / took,
        acks * client.request.len() as f64 / took / 1e6,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    let commits = after.commits - before.commits;
    println!(
        "{:.0} commits/s of {:.0} us, {:.3} enters an ack, shard {:.0}% busy, {:.1} CPU s per million acks \
         (client included), {} starved receives",
        commits as f64 / took,
        (after.commit_ns - before.commit_ns) as f64 / commits.max(1) as f64 / 1e3,
        per_ack(after.enters - before.enters),
        (after.busy_ns - before.busy_ns) as f64 / took / 1e7,
        cpu as f64 / 1e3 / acks * 1e6,
        after.recv_starved - before.recv_starved,
    );
    shutdown.request();
    shard.join().unwrap();
}

/// CPU time of this process, milliseconds, by the system's clock of 10 ms.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<u64>().unwrap();
    (ticks(12) + ticks(13)) * 10
}

struct Client {
    streams: Vec<(TcpStream, Instant)>,
    request: Vec<u8>,
    partitions: usize,
    epoll: std::os::fd::OwnedFd,
    latencies_us: Vec<u32>,
}

impl Client {
    fn new(args: &Args, address: std::net::SocketAddr) -> Self {
        let mut batch = BatchBuilder::new();
        batch.push(&NewRecord {
            timestamp_ms: now().wall_ms,
            value: Some(&vec![b'x'; args.record]),
            ..NewRecord::default()
        });
        let batch = batch.build().unwrap();
        let mut bytes = request(APPEND, 0, batch.len() as u64).to_vec();
        bytes.extend_from_slice(&batch);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let streams = (0..args.connections)
            .map(|n| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let data = epoll::EventData::new_u64(n as u64);
                epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).unwrap();
                (stream, Instant::now())
            })
            .collect();
        Self {
            streams,
            request: bytes,
            partitions: args.partitions as usize,
            epoll,
            latencies_us: Vec::new(),
        }
    }

    /// Keeps one request in flight on each connection for that long; ends with none.
    fn run(&mut self, length: Duration) -> Duration {
        let start = Instant::now();
        for n in 0..self.streams.len() {
            self.send(n);
        }
        let mut open = self.streams.len();
        let mut events = Vec::with_capacity(1024);
        while open > 0 {
            events.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            )
            .unwrap();
            for event in &events {
                let n = event.data.u64() as usize;
                let (stream, sent) = &mut self.streams[n];
                let mut back = [0; HEAD];
                stream.read_exact(&mut back).unwrap();
                let (status, _) = answer(&back);
                if status == mini::OK {
                    self.latencies_us.push(sent.elapsed().as_micros() as u32);
                } else {
                    assert_eq!(status, mini::BUSY);
                }
                if start.elapsed() < length {
                    self.send(n);
                } else {
                    open -= 1;
                }
            }
        }
        start.elapsed()
    }

    fn send(&mut self, n: usize) {
        let partition = (n % self.partitions) as u32;
        self.request[4..8].copy_from_slice(&partition.to_be_bytes());
        let (stream, sent) = &mut self.streams[n];
        *sent = Instant::now();
        stream.write_all(&self.request).unwrap();
    }
}
