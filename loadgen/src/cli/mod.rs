//! The command line.

mod commits;
mod request;
pub mod sweep;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringlog_engine::batch::Compression;

pub use commits::{CheckCommitsCommand, CommitsCommand};
pub use request::Request;

use crate::claims::command::ClaimsCommand;
use crate::claims::harm::StoreCommand;
use crate::cluster::TopicSpec;
use crate::consumer::{ConsumeOptions, From, Until};
use crate::coordinator::{Generation, TransactionOptions};
use crate::payload::{BatchSize, KEYS_MAX, PayloadSpec};
use crate::producer::ProduceOptions;
use crate::protocol::produce::Acks;
use crate::run::RunOptions;
use crate::stamp::STAMP_LEN;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "ringlog-load", version, about = ABOUT, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const ABOUT: &str = "Load for any broker that speaks Kafka's protocol: how fast, how late, and was every record kept";

const EXAMPLES: &str = "\
Examples:
  As fast as it goes, 64 connections with one 256-byte record in flight each:
    ringlog-load produce -b 127.0.0.1:9092 --partitions 16 --connections 64 --record-size 256 --batch-records 1
  1 KiB records in 250 KiB batches:
    ringlog-load produce -b 127.0.0.1:9092 --partitions 16 --connections 4 --in-flight 5 --batch-bytes 256000
  Lines of real logs at 50,000 records a second, latency counted from when each should have been sent:
    ringlog-load produce -b 127.0.0.1:9092 --file /var/log/syslog --rate 50000 --compression zstd
  Read everything that is there, with checksums:
    ringlog-load consume -b 127.0.0.1:9092 --topic load --until end --check-crc
  End-to-end latency at 1,000 records a second:
    ringlog-load e2e -b 127.0.0.1:9092 --rate 1000
  Producers beside a consumer, every record checked for loss, duplicates and order:
    ringlog-load mixed -b 127.0.0.1:9092 --partitions 4 --connections 8 --verify
  Transactions of 100 records, checked by a consumer that reads what is committed:
    ringlog-load mixed -b 127.0.0.1:9092 --transactional --transaction-records 100 --verify
  Is every acked record there after a crash?
    ringlog-load produce -b 127.0.0.1:9092 --verify --ack-log acks --tolerate-errors
    ringlog-load check --ack-log acks
  5,000 groups that commit offsets every second (more in `commits --help`):
    ringlog-load commits -b 127.0.0.1:9092 --groups 5000 --interval 1
  2,000 connections at work beside 10,000 that are silent, and what the server takes for each of those:
    ringlog-load produce -b 127.0.0.1:9092 --partitions 16 --connections 2000 --batch-records 1 --idle-connections 10000
  Flat in partitions? One line for each, three times over:
    ringlog-load sweep --vary partitions=1,16,1000 --repeat 3 -- produce -b 127.0.0.1:9092 --batch-bytes 16384
  Which of the documents' claims hold here, in eight minutes?
    ringlog-load claims --quick --out claims-report --dir /var/tmp
  The generator's own ceiling:
    ringlog-load null-sink --port 19099 &
    ringlog-load produce -b 127.0.0.1:19099 --partitions 16 --connections 64 --record-size 256 --batch-records 1

Exit status: 0 all well, 1 errors or a failed check, 2 a wrong command line or a run that could not start.";

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send batches, as fast as they are acked or at a rate
    Produce(ProduceCommand),
    /// Read batches
    Consume(ConsumeCommand),
    /// Send at a rate and read at once: latency from intended send to receipt
    E2e(EndToEndCommand),
    /// Send and read at the same time
    Mixed(MixedCommand),
    /// Commit offsets of many groups at a steady rate
    Commits(CommitsCommand),
    /// Read back what `commits` committed, from a broker that may have been killed
    CheckCommits(CheckCommitsCommand),
    /// Repeat a run over lists of parameters
    Sweep(sweep::SweepCommand),
    /// Read a run's topics back and check them against its ack log
    Check(CheckCommand),
    /// Measure the documents' claims on this host: a report with verdicts
    Claims(Box<ClaimsCommand>),
    /// A store as a process of its own, for `claims` to kill
    #[command(hide = true)]
    Store(StoreCommand),
    /// A server that throws everything away, to measure the generator itself
    NullSink(NullSinkCommand),
}

/// Codecs by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Codec {
    /// As they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

/// Generations of the transaction protocol.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum GenerationName {
    /// What the broker has
    Auto,
    /// AddPartitionsToTxn before the first write to a partition
    #[value(name = "1")]
    First,
    /// Partitions join when they are written to
    #[value(name = "2")]
    Second,
}

/// Acks as producers' configurations write them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AcksName {
    /// The broker never answers
    #[value(name = "0")]
    None,
    /// When the leader has it
    #[value(name = "1")]
    Leader,
    /// When all replicas in sync have it
    #[value(name = "all", alias = "-1")]
    All,
}

/// Whom to ask first.
#[derive(Debug, Args)]
pub struct Brokers {
    /// Broker to ask first (repeatable or comma-separated)
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:9092"
    )]
    pub bootstrap: Vec<String>,
}

/// Options of every run against a broker.
#[derive(Debug, Args)]
pub struct Common {
    /// Whom to ask first.
    #[command(flatten)]
    pub brokers: Brokers,
    /// Topic; with --topics, the start of their names
    #[arg(short, long, default_value = "load")]
    pub topic: String,
    /// Number of topics, called TOPIC-0, TOPIC-1 and so on
    #[arg(long, default_value_t = 1)]
    pub topics: usize,
    /// Partitions of a topic, which is created if absent [default: as they are, or 1]
    #[arg(short, long)]
    pub partitions: Option<i32>,
    /// Replicas of a new topic, -1 for the broker's default
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub replication_factor: i16,
    /// Configuration of a new topic (repeatable), e.g. retention.ms=3600000
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub topic_config: Vec<(String, String)>,
    /// Delete the topics at the end
    #[arg(long)]
    pub delete_topics: bool,
    /// Load before the window that counts, in seconds
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", value_parser = seconds)]
    pub warmup: f64,
    /// The window that counts, in seconds
    #[arg(short, long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    pub duration: f64,
    /// Print one JSON object instead of the table (its fields: loadgen/REPORT.md; those of transactions:
    /// produce.transactions with generation, committed, latency_us, end_latency_us, waits, total_aborted, total_fenced)
    #[arg(long)]
    pub json: bool,
    /// Write latencies as an HdrHistogram interval log, in nanoseconds
    #[arg(long, value_name = "FILE")]
    pub hist_out: Option<PathBuf>,
    /// A server on this host (repeatable): adds its CPU, bytes and context switches in the window, and the disks'
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Cores for the load threads, e.g. 1 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub cpus: Option<CpuList>,
    /// Exit with 0 in spite of errors (they are counted all the same; a failed check still counts)
    #[arg(long)]
    pub tolerate_errors: bool,
    /// The run's number in checked records [default: a new one]
    #[arg(long)]
    pub run_id: Option<u64>,
}

/// A list of cores.
#[derive(Debug, Clone)]
pub struct CpuList(Vec<usize>);

/// Options of whatever sends.
#[derive(Debug, Args)]
pub struct Produce {
    /// Connections; every leader gets at least one
    #[arg(short, long, default_value_t = 1)]
    pub connections: usize,
    /// Requests without an answer on a connection
    #[arg(long, default_value_t = 1)]
    pub in_flight: usize,
    /// Sending threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Bytes of a generated record's value (with --verify its first 44 are the stamp)
    #[arg(short = 's', long, default_value_t = 1024)]
    pub record_size: usize,
    /// Bytes of a batch before compression [default: 16384]
    #[arg(long, conflicts_with = "batch_records")]
    pub batch_bytes: Option<usize>,
    /// Records of a batch
    #[arg(long)]
    pub batch_records: Option<usize>,
    /// Partitions that get a batch in one request
    #[arg(long, default_value_t = 1)]
    pub partitions_per_request: usize,
    /// Codec of the batches
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Codec,
    /// When the broker answers
    #[arg(long, value_enum, default_value = "all", allow_hyphen_values = true)]
    pub acks: AcksName,
    /// How long the broker may take for an ack, in milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub ack_timeout_ms: i32,
    /// Number of different keys, 0 for none; each partition goes through them in order, again and again
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(KEYS_MAX)))]
    pub keys: u32,
    /// Send the lines of this file (repeatable) instead of generated records
    #[arg(long)]
    pub file: Vec<PathBuf>,
    /// Share of a generated record that is the same in every record, 0 to 1
    #[arg(long, default_value_t = 0.5)]
    pub compressibility: f64,
    /// Start of the random numbers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Records per second: open loop, latency from when a batch should have been sent [default: closed loop, as fast
    /// as acks come]
    #[arg(short, long)]
    pub rate: Option<f64>,
    /// Every connection an idempotent producer
    #[arg(long)]
    pub idempotent: bool,
    /// Every connection a transactional producer: records count when their transaction is committed. The table's commit
    /// line is the time from when a transaction's first record was due to EndTxn's answer, its EndTxn line the last part of
    /// it; waits are requests repeated because the transaction before was not quite over
    #[arg(long)]
    pub transactional: bool,
    /// Records of a transaction: it ends with the batch that reaches them
    #[arg(long, default_value_t = 100, requires = "transactional", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub transaction_records: u64,
    /// Start of the transactional ids; a connection's number follows, and whoever had an id is fenced [default: new ones]
    #[arg(long, requires = "transactional", value_name = "PREFIX")]
    pub transactional_id: Option<String>,
    /// How long the coordinator leaves a transaction open, in milliseconds
    #[arg(long, default_value_t = 60_000, requires = "transactional")]
    pub transaction_timeout_ms: i32,
    /// Generation of the protocol: 1 announces partitions with AddPartitionsToTxn, 2 (KIP-890) writes to them at once;
    /// auto as the broker's feature transaction.version says
    #[arg(long, value_enum, default_value = "auto", requires = "transactional")]
    pub transaction_generation: GenerationName,
    /// Open loop: poll rather than sleep for the last so many microseconds before a send
    #[arg(long, default_value_t = 0)]
    pub spin_us: u64,
    /// Connections that are made first, ask for the broker's versions, and stay silent beside the load. With --server-pid
    /// the report says what memory the server has taken for each
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub idle_connections: usize,
    /// Write every acked batch to this file, for `check` (implies stamped records)
    #[arg(long, value_name = "FILE")]
    pub ack_log: Option<PathBuf>,
}

/// Options of whatever reads.
#[derive(Debug, Args)]
pub struct Consume {
    /// Longest a fetch waits for data, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub max_wait_ms: i32,
    /// Bytes worth answering a fetch for
    #[arg(long, default_value_t = 1)]
    pub min_bytes: i32,
    /// Most bytes of an answer
    #[arg(long, default_value_t = 8 << 20)]
    pub max_bytes: i32,
    /// Most bytes of a partition in an answer
    #[arg(long, default_value_t = 1 << 20)]
    pub partition_max_bytes: i32,
    /// Leave out records of transactions that are open or aborted (what mixed and e2e do with --transactional)
    #[arg(long)]
    pub read_committed: bool,
    /// Compute the checksum of every batch read
    #[arg(long)]
    pub check_crc: bool,
}

/// `produce`
#[derive(Debug, Args)]
pub struct ProduceCommand {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    produce: Produce,
    /// Stamp every record with run, stream and sequence, for `consume --verify` and `check`
    #[arg(long)]
    verify: bool,
}

/// Where to begin, by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FromName {
    /// The first record there is
    Earliest,
    /// The next record there will be
    Latest,
}

/// How long to go on, by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum UntilName {
    /// --warmup and --duration are over
    Time,
    /// All that was there at the start is read; no warm-up, and --duration is the longest it may take
    End,
    /// As time, beginning anew at every end
    Repeat,
}

/// `consume`
#[derive(Debug, Args)]
pub struct ConsumeCommand {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    consume: Consume,
    /// Connections; every leader gets at least one, and no partition more than one
    #[arg(short, long, default_value_t = 1)]
    connections: usize,
    /// Reading threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where to begin
    #[arg(long, value_enum, default_value = "earliest")]
    from: FromName,
    /// When to stop
    #[arg(long, value_enum, default_value = "time")]
    until: UntilName,
    /// Check the stamps of records for loss, duplicates, order and bytes
    #[arg(long)]
    verify: bool,
    /// With stamped records: latency from intended send to receipt
    #[arg(long)]
    latency: bool,
}

/// `e2e`
#[derive(Debug, Args)]
pub struct EndToEndCommand {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    produce: Produce,
    #[command(flatten)]
    consume: Consume,
}

/// `mixed`
#[derive(Debug, Args)]
pub struct MixedCommand {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    produce: Produce,
    #[command(flatten)]
    consume: Consume,
    /// Reading connections
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Reading threads
    #[arg(long, default_value_t = 1)]
    consumer_threads: usize,
    /// Where the consumers begin
    #[arg(long, value_enum, default_value = "latest")]
    from: FromName,
    /// Check every record for loss, duplicates, order and bytes
    #[arg(long)]
    verify: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckCommand {
    /// The log that `produce --ack-log` wrote
    #[arg(long, value_name = "FILE")]
    pub ack_log: PathBuf,
    /// Broker to ask instead of the one in the log
    #[arg(short, long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `null-sink`
#[derive(Debug, Args)]
pub struct NullSinkCommand {
    /// Port on loopback
    #[arg(long, default_value_t = 19_099)]
    pub port: u16,
    /// Records of the batch that fetches get
    #[arg(long, default_value_t = 250)]
    pub fetch_batch_records: usize,
    /// Bytes of each of those records' values
    #[arg(long, default_value_t = 1024)]
    pub fetch_record_size: usize,
    /// Cores to run on
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub cpus: Option<CpuList>,
}

impl NullSinkCommand {
    /// Cores to run on; empty for all.
    #[must_use]
    pub fn cpus(&self) -> Vec<usize> {
        self.cpus.clone().map(|list| list.0).unwrap_or_default()
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1e7).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("out of range".into())
    }
}

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|&cpu| cpu < 4096);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err("not a list such as 0,2-3".into());
        };
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn request(line: &str) -> Result<Request, String> {
        let words = std::iter::once("ringlog-load").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.command.request().map(|request| request.expect("a run"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        for line in EXAMPLES
            .lines()
            .filter_map(|line| line.trim().strip_prefix("ringlog-load "))
        {
            let words = line.trim_end_matches('&').split_whitespace();
            let words = std::iter::once("ringlog-load").chain(words);
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn options_reach_the_run() {
        let run =
            request("produce -b a:1,b:2 --acks -1 --batch-records 7 --cpus 0,2-3 -r 5 --keys 3")
                .unwrap()
                .options;
        assert_eq!(run.topic.bootstrap, ["a:1", "b:2"]);
        assert_eq!(run.cpus, [0, 2, 3]);
        let produce = run.produce.unwrap();
        assert_eq!(produce.payload.batch, BatchSize::Records(7));
        assert_eq!((produce.acks, produce.rate), (Acks::All, Some(5.0)));
        let consume = request("e2e").unwrap().options.consume.unwrap();
        assert_eq!(consume.until, Until::CaughtUp);
        assert_eq!(
            request("consume --until end").unwrap().options.warmup,
            Duration::ZERO
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "produce --verify --record-size 43",
            "produce --ack-log x --acks 0",
            "produce --idempotent --in-flight 6",
            "produce --transactional --in-flight 6",
            "produce --transactional --acks 1",
            "produce --transactional --transaction-records 5 --batch-records 6",
            "produce --transaction-records 5",
            "produce --transactional --transaction-records 0",
            "produce --rate 0",
            "produce --batch-bytes 1 --batch-records 1",
            "consume --verify --until repeat",
            "produce --cpus 3-x",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}
