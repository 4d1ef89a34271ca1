//! From the command line to running shards: settings, checks of the host, the directory's lock, the catalog, recovery,
//! listeners, shards. Whatever goes wrong ends with one line that says what and how to mend it, and a status of its
//! own.

mod args;
mod data_dir;
mod driver;
mod error;
mod listen;
mod space;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use ringlog_engine::core::{Core, CoreConfig, Durability};
use ringlog_engine::record::{RecordedDisk, Recorder};
use ringlog_engine::recovery::{Recovered, RecoveryOptions, recover};
use ringlog_engine::ring::{CommitSync, RealDisk, Shutdown, preflight};
use ringlog_engine::shard::Shard;

use crate::admin::Admin;
use crate::app::{Env, Server};
use crate::catalog::store::Store;
use crate::catalog::{Catalog, Snapshot};
use crate::config::Config;
use crate::control::{Command, Control, Controller, run as run_control};
use crate::counters::{self, Board};

use driver::{Driver, Place};
use listen::Ports;
use space::Space;

pub use args::{Args, DriverChoice, DurabilityChoice, ReadPath};
pub use error::StartError;

/// Journal files of a shard; destaging frees them one by one.
const JOURNAL_FILES: u64 = 8;
/// Memory of a shard besides its journal's image, for what stays cached behind it.
const CACHE_BYTES: u64 = 64 << 20;
/// Descriptors of a shard for segment files.
const OPEN_FILES_MAX: usize = 4096;

/// Runs the server until it is asked to end.
///
/// # Errors
/// [`StartError`].
pub fn run(args: &Args) -> Result<(), StartError> {
    error::log_to_stderr();
    let started = Instant::now();
    let board = Board::default();
    board
        .on_signal()
        .map_err(|e| StartError::host("signal handlers cannot be set up", &e))?;
    let mut config = args.config()?;
    let shards = args.shards()?;
    args.refuse_what_is_missing(&config)?;
    data_dir::prepare(&args.data)?;
    // The directory stays locked as long as this lives.
    let needs = args.host_needs(shards, &config);
    let host = preflight(&args.data, &needs).map_err(StartError::preflight)?;
    tracing::info!(
        kernel = host.kernel,
        file_system = host.file_system,
        free_bytes = host.free_bytes,
        descriptors = host.descriptors,
        "host checked"
    );
    let wanted = args::descriptors_wanted(shards, &config);
    if host.descriptors < wanted {
        tracing::warn!(
            "{} files may be open, fewer than {wanted} for max.connections={} on each of {shards} shards: beyond that clients wait; \
             raise the hard limit (ulimit -Hn) or set a smaller max.connections",
            host.descriptors,
            config.connections_max
        );
    }
    if args.check {
        println!(
            "ringlog: settings, host and {} are fine",
            args.data.display()
        );
        return Ok(());
    }
    if let Some(address) = args.admin {
        serve_admin(address, &board, started)?;
    }
    // A port that is taken is no reason to recover first; clients may connect when everything is there.
    let ports = Ports::bind(args, shards)?;
    let store = Store::open(&args.data.join("catalog"), &hex(random()))
        .map_err(|e| StartError::catalog(&args.data, e))?;
    let snapshot = store
        .load(&config)
        .map_err(|e| StartError::catalog(&args.data, e))?;
    let snapshot = Arc::new(snapshot);
    let core = core_config(args, &config, shards);
    let recovering = Instant::now();
    let recorder = recorder(&config)?;
    let recovered = recover_all(args, &snapshot, &core, recorder.clone())?;
    let recovery_ms = recovering.elapsed().as_millis();
    let (listeners, port) = ports.listen(args)?;
    config.port = port;
    let line = format!(
        "ringlog ready: {}:{port} ({shards} shard{}, data {}, {} driver, durability {}, {} topics with {} partitions, \
         recovered {} frames and {} bytes in {recovery_ms} ms{}, started in {} ms)",
        config.advertise,
        if shards == 1 { "" } else { "s" },
        args.data.display(),
        args.driver.name(),
        durability(&core),
        snapshot.topics().len(),
        snapshot.partitions(),
        recovered.frames,
        recovered.replayed_bytes,
        if recovered.unclean {
            " after an unclean stop"
        } else {
            ""
        },
        started.elapsed().as_millis(),
    );
    let parts = Parts {
        config: Arc::new(config),
        shards,
        snapshot,
        store,
        core,
        recovered,
        listeners,
        board,
        recorder,
    };
    match args.driver {
        DriverChoice::Ring => serve::<driver::Ring>(args, parts, &line),
        #[cfg(feature = "glommio")]
        DriverChoice::Glommio => serve::<driver::Glommio>(args, parts, &line),
        #[cfg(not(feature = "glommio"))]
        DriverChoice::Glommio => Err(args.not_built()),
    }
}

fn serve_admin(address: SocketAddr, board: &Board, started: Instant) -> Result<(), StartError> {
    let admin = Admin::bind(address, board.clone(), started).map_err(|error| {
        StartError::Port(format!(
            "cannot listen on {address}: {error}; give another --admin"
        ))
    })?;
    let address = admin.address();
    admin
        .start()
        .map_err(|e| StartError::host("the admin thread cannot be started", &e))?;
    if let Some(address) = address {
        tracing::info!(%address, "admin plane: /metrics, /status, /health");
    }
    Ok(())
}

/// What the shards start from.
struct Parts {
    config: Arc<Config>,
    shards: u32,
    snapshot: Arc<Snapshot>,
    store: Store,
    core: CoreConfig,
    recovered: Recovered,
    listeners: Vec<std::net::TcpListener>,
    board: Board,
    recorder: Option<Arc<Recorder>>,
}

fn serve<D: Driver>(args: &Args, mut parts: Parts, ready: &str) -> Result<(), StartError> {
    let shutdown = Shutdown::new();
    shutdown
        .on_signals()
        .map_err(|e| StartError::host("signal handlers cannot be set up", &e))?;
    let (commands, received) = channel();
    let (mut senders, mut inputs) = (Vec::new(), Vec::new());
    for listener in parts.listeners {
        let (sender, input) = D::inputs(listener, shutdown.clone())
            .map_err(|e| StartError::host("a shard's mailbox cannot be set up", &e))?;
        senders.push(sender);
        inputs.push(input);
    }
    let catalog = Catalog::new(
        parts.snapshot.clone(),
        parts.config.clone(),
        parts.shards,
        Box::new(random),
    );
    let cluster_id = parts.store.cluster_id.clone();
    let control = Control::new(catalog, parts.store, senders.len());
    let space = Space {
        data: args.data.clone(),
        free_bytes_min: parts.config.number("ringlog.disk.free.min.bytes") as u64,
        shards: senders.clone(),
    };
    std::thread::Builder::new()
        .name("space".into())
        .spawn(move || space.watch())
        .map_err(|e| StartError::host("a thread cannot be started", &e))?;
    let control = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || run_control(control, &received, &senders))
        .map_err(|e| StartError::host("the control thread cannot be started", &e))?;
    let counted: Vec<counters::Source> = inputs
        .iter()
        .map(|input| (Arc::default(), Some(D::stats(input))))
        .collect();
    parts.board.fill(counted.clone());
    let cpus = listen::cpus(parts.shards);
    let mut threads = Vec::new();
    for ((shard, inputs), (counters, _)) in (0..parts.shards).zip(inputs).zip(counted) {
        let env = Env {
            shard,
            shards: parts.shards,
            config: parts.config.clone(),
            run: parts.recovered.run,
            cluster_id: cluster_id.clone(),
        };
        let core = CoreConfig {
            shard,
            existing_journals: parts.recovered.existing_journals(shard),
            ..parts.core.clone()
        };
        let mine = |state: &ringlog_engine::recovery::PartitionState| {
            state.meta.key.shard(parts.shards) == shard
        };
        let (own, others) = std::mem::take(&mut parts.recovered.partitions)
            .into_iter()
            .partition(mine);
        parts.recovered.partitions = others;
        let controller = Controller::new(shard, commands.clone());
        let (run, snapshot) = (parts.recovered.run, parts.snapshot.clone());
        let place = Place {
            args,
            shard,
            cpu: cpus.get(shard as usize).copied(),
            connections_max: parts.config.connections_max,
            commit_sync: commit_sync(&parts.config),
            recorder: parts.recorder.clone(),
        };
        let make = move |now| {
            Shard::new(
                Core::new(core, run, own, now),
                Server::new(env, snapshot, controller).counting(counters),
            )
        };
        let thread = D::spawn(&place, inputs, make)
            .map_err(|e| StartError::host("a shard's thread cannot be started", &e))?;
        threads.push(thread);
    }
    println!("{ready}");
    for thread in threads {
        // A shard that fails ends the process itself.
        drop(thread.join());
    }
    drop(commands.send(Command::Stop));
    drop(control.join());
    tracing::info!("stopped");
    Ok(())
}

/// What `ringlog.disk.record` asks for.
fn recorder(config: &Config) -> Result<Option<Arc<Recorder>>, StartError> {
    let path = config.text("ringlog.disk.record");
    if path.is_empty() {
        return Ok(None);
    }
    let recorder = Recorder::create(path.as_ref())
        .map_err(|e| StartError::settings(format!("ringlog.disk.record={path}: {e}")))?;
    tracing::warn!(path, "every disk operation is recorded: slow, and large");
    Ok(Some(recorder))
}

/// What acknowledgements wait for, in words.
fn durability(core: &CoreConfig) -> String {
    match core.durability {
        Durability::Fsync => "fsync".into(),
        Durability::Write => "write".into(),
        Durability::WriteThenFlush { every_ms } => format!("write, flushed within {every_ms} ms"),
    }
}

fn commit_sync(config: &Config) -> CommitSync {
    match config.text("ringlog.commit.sync") {
        "dsync" => CommitSync::Dsync,
        _ => CommitSync::Fdatasync,
    }
}

fn core_config(args: &Args, config: &Config, shards: u32) -> CoreConfig {
    let journal = args.journal_bytes.max(JOURNAL_FILES * (8 << 20));
    CoreConfig {
        shard: 0,
        shards,
        durability: match args.durability {
            DurabilityChoice::Fsync => Durability::Fsync,
            DurabilityChoice::Write => config.written(),
        },
        commits_in_flight: config.number("ringlog.commits.in.flight") as usize,
        journal_file_bytes: journal / JOURNAL_FILES,
        journal_files: JOURNAL_FILES as usize,
        existing_journals: Vec::new(),
        memory_bytes: args.memory_bytes.unwrap_or(0).max(journal + CACHE_BYTES),
        max_batch_bytes: config.batch_bytes_max(),
        inspect: config.inspect(),
        decompressed_bytes_max: config.number("ringlog.inspect.decompressed.max.bytes") as usize,
        cold_reads: args.cold_reads(),
        producer_expiry_ms: config.number("producer.id.expiration.ms"),
        open_files: OPEN_FILES_MAX,
        reads_in_flight: config.number("ringlog.reads.in.flight") as usize,
        cleaner: config.cleaner(shards),
        mutations: Default::default(),
    }
}

fn recover_all(
    args: &Args,
    snapshot: &Snapshot,
    core: &CoreConfig,
    recorder: Option<Arc<Recorder>>,
) -> Result<Recovered, StartError> {
    let disk = RealDisk::new(&args.data).map_err(|e| StartError::directory(&args.data, &e))?;
    let mut disk = RecordedDisk::new(disk, recorder);
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64);
    let options = RecoveryOptions {
        shards: core.shards,
        journal_file_len: core.journal_file_len(),
        new_dir_id: random(),
        now_ms,
        mutations: Default::default(),
    };
    recover(&mut disk, &snapshot.metas(), options).map_err(|e| StartError::recovery(&args.data, &e))
}

/// 16 random bytes from the system.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            // Sixteen bytes fail only where the system call is forbidden.
            Err(error) => panic!("getrandom: {error}"),
        }
    }
    bytes
}

fn hex(bytes: [u8; 16]) -> String {
    ringlog_engine::id::TopicId(bytes).to_string()
}
