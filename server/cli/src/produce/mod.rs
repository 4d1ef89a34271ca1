//! `ringlog produce`: a record for each line that comes in.

mod lines;
mod parse;
mod partitioner;
mod pending;
mod sender;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use ringlog_engine::batch::Compression;
use serde_json::json;

use crate::client::{Client, Connect};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, bytes, count, note};

use lines::Place;
use parse::{HeaderArg, Parser, Separator};
use partitioner::Partitioner;
use pending::{Batch, Limits, Pending};
use sender::Sender;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog produce logs < /var/log/syslog
  ringlog produce logs /var/log/*.log --codec zstd
  journalctl -f | ringlog produce logs --header host=web1
  echo 'alice:{\"n\":1}' | ringlog produce orders --key-separator :
  ringlog consume a --json | ringlog produce b --input json

With --input json each line is an object with any of key, value, headers ([{\"name\":…, \"value\":…}] or an object),
partition and timestamp_ms; key_base64 and value_base64 hold bytes that are no text. A value of null is a tombstone.";

/// `ringlog produce`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProduceArgs {
    /// Name of the topic.
    topic: String,
    /// Files to read [default: standard input].
    files: Vec<PathBuf>,
    /// What a line is.
    #[arg(long, value_enum, default_value_t = Input::Lines)]
    input: Input,
    /// What parts key and value in a line; a line without it is an error.
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with = "key")]
    key_separator: Option<Separator>,
    /// The key of every record.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// A header of every record, as often as needed.
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE")]
    headers: Vec<HeaderArg>,
    /// What stands for a value that is absent (a tombstone).
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// The partition of every record [default: by the key as Kafka's clients do it, else in turns].
    #[arg(long, short)]
    partition: Option<i32>,
    /// How batches are compressed.
    #[arg(long, short = 'z', value_enum, default_value_t = Codec::None)]
    codec: Codec,
    /// When a batch counts as stored: once all copies have it, once the leader has it, or unasked.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Bytes of records collected for a batch.
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 10, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    batch_bytes: u32,
    /// Longest a line waits for a batch to fill while no others come.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    linger_ms: u64,
    /// Requests under way to each broker.
    #[arg(long, value_name = "REQUESTS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=5))]
    in_flight: u8,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    /// A value, or a key and a value.
    Lines,
    /// An object, as `ringlog consume --json` prints it.
    Json,
}

/// Codecs by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// Which acknowledgement is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Acks {
    /// None: what is lost on the way is lost unseen.
    #[value(name = "0")]
    None,
    /// Of the leader.
    #[value(name = "1")]
    Leader,
    /// Of all copies in sync; sent again after a fault, and stored once.
    All,
}

/// Carries the command out.
pub(crate) fn run(args: &ProduceArgs) -> Outcome {
    let began = Instant::now();
    let mut client = Client::connect(&args.connect)?;
    let topic = client.topic(&args.topic)?;
    if let Some(partition) = args.partition {
        topic.choose(&[partition])?;
    }
    let numbers = topic
        .partitions
        .iter()
        .map(|partition| partition.index)
        .collect();
    let partitioner = Partitioner::new(numbers, args.partition);
    let parser = match args.input {
        Input::Json => Parser::json(&args.headers),
        Input::Lines => Parser::lines(
            args.key_separator.clone(),
            args.key.as_deref(),
            &args.headers,
            args.null.as_deref(),
        ),
    };
    let limits = Limits {
        batch_bytes: args.batch_bytes as usize,
        codec: args.codec.into(),
    };
    let sender = Sender::new(client, topic, args.acks, usize::from(args.in_flight))?;
    let mut producer = Producer {
        parser,
        pending: Pending::new(partitioner, limits),
        sender,
    };
    let linger = Duration::from_millis(args.linger_ms);
    let outcome = producer.produce(&args.files, linger);
    let sent = producer.sender.stored();
    outcome.map_err(|failure| match sent.records {
        0 => failure,
        records => failure.also(&format!("stored before it: {}", count(records, "record"))),
    })?;
    if args.output.json {
        let partitions: Vec<_> = sent
            .partitions
            .iter()
            .map(|(partition, stored)| {
                json!({
                    "partition": partition,
                    "records": stored.records,
                    "first_offset": stored.first_offset,
                    "last_offset": stored.last_offset,
                })
            })
            .collect();
        let summary = json!({ "topic": args.topic, "records": sent.records, "bytes": sent.bytes, "partitions": partitions });
        return crate::output::line(&format!("{summary:#}"));
    }
    if std::io::stderr().is_terminal() {
        let seconds = began.elapsed().as_secs_f64();
        note(&format!(
            "{}, {} in {} of {}, {seconds:.1} s",
            count(sent.records, "record"),
            bytes(sent.bytes),
            count(sent.partitions.len() as u64, "partition"),
            args.topic
        ));
    }
    Ok(())
}

/// From lines to requests.
struct Producer {
    parser: Parser,
    pending: Pending,
    sender: Sender,
}

impl Producer {
    fn produce(&mut self, files: &[PathBuf], linger: Duration) -> Outcome {
        let lines = lines::read(files)?;
        loop {
            let chunk = match lines.recv_timeout(linger) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Timeout) => {
                    // Nothing came for a while: what there is goes, and is waited for.
                    self.flush()?;
                    match lines.recv() {
                        Ok(chunk) => chunk,
                        Err(_) => break,
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match chunk {
                Ok(chunk) => self.chunk(&chunk)?,
                Err(failure) => return Err(self.settle(failure)),
            }
        }
        self.flush()
    }

    /// What came before a fault of the input goes, and is waited for: what is told to be stored then ends right before it.
    fn settle(&mut self, failure: Failure) -> Failure {
        match self.flush() {
            Ok(()) => failure,
            Err(worse) => worse.also(&failure.to_string()),
        }
    }

    fn chunk(&mut self, chunk: &lines::Chunk) -> Outcome {
        for (place, line) in chunk.lines() {
            match self.line(&place, line) {
                Ok(None) => {}
                Ok(Some(batch)) => self.sender.send(vec![batch])?,
                Err(failure) => return Err(self.settle(failure)),
            }
        }
        Ok(())
    }

    /// Takes in one line; returns a batch that it filled.
    fn line(&mut self, place: &Place, line: &[u8]) -> Outcome<Option<Batch>> {
        let record = self
            .parser
            .parse(line)
            .map_err(|what| Failure::new(format!("{place}: {what}")))?;
        self.pending.push(&record, place)
    }

    /// Sends everything and waits for it.
    fn flush(&mut self) -> Outcome {
        let batches = self.pending.take_all();
        if !batches.is_empty() {
            self.sender.send(batches)?;
        }
        self.sender.drain()
    }
}
