//! The ack log: every acked batch, so that a later check knows what must be there.
//!
//! A text file. The first line is a JSON object ([`AckLogHeader`]); every further line is one acked batch: seven
//! decimal numbers, separated by spaces: topic index, partition, stream, base offset, first sequence, number of records, and when
//! the ack was read (`CLOCK_MONOTONIC`, nanoseconds).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::{Partition, TopicSpec};
use crate::payload::PayloadSpec;

/// Version of the file's format.
pub const VERSION: u32 = 2;
/// Lines kept back before they are written.
const BUFFER_LEN: usize = 64 * 1024;

/// What a check must know about the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AckLogHeader {
    /// Version of the file's format, [`VERSION`].
    pub version: u32,
    /// The run, as in its records' stamps.
    pub run_id: u64,
    /// Its topics.
    pub topic: TopicSpec,
    /// Its records.
    pub payload: PayloadSpec,
    /// Whether an ack is a transaction's commit, and only committed records count.
    #[serde(default)]
    pub transactional: bool,
}

/// One acked batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedBatch {
    /// Index of the topic.
    pub topic: u32,
    /// Partition.
    pub partition: i32,
    /// Producing connection.
    pub stream: u32,
    /// Offset the broker gave to the first record.
    pub base_offset: i64,
    /// Sequence of the first record.
    pub first_sequence: u64,
    /// Number of records.
    pub records: u32,
    /// When the ack was read: `CLOCK_MONOTONIC`, nanoseconds.
    pub acked_ns: u64,
}

/// Why an ack log cannot be used.
#[derive(Debug, Error)]
pub enum AckLogError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The first line is not a header of this version.
    #[error("{path}: line 1 is not the header of an ack log: {reason}")]
    Header {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A line is not an acked batch.
    #[error("{path}: line {line} is not an acked batch")]
    Line {
        /// Its path.
        path: String,
        /// Number, from 1.
        line: usize,
    },
}

/// The file, shared by all threads.
#[derive(Debug)]
pub struct AckLog {
    file: Mutex<(File, Option<io::Error>)>,
}

impl AckLog {
    /// Makes the file and writes its header.
    ///
    /// # Errors
    /// [`AckLogError`].
    pub fn create(path: &Path, header: &AckLogHeader) -> Result<Self, AckLogError> {
        let io = |source| AckLogError::Io {
            path: path.display().to_string(),
            source,
        };
        let mut file = File::create(path).map_err(io)?;
        let mut line = serde_json::to_vec(header).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        file.write_all(&line).map_err(io)?;
        Ok(Self {
            file: Mutex::new((file, None)),
        })
    }

    fn append(&self, lines: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.1.is_none() {
            file.1 = file.0.write_all(lines.as_bytes()).err();
        }
    }

    /// The first error of writing, if any: then the log lacks acks and must not be trusted.
    #[must_use]
    pub fn take_error(&self) -> Option<io::Error> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .take()
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A thread's part of the log.
#[derive(Debug)]
pub(crate) struct AckLogBuffer {
    log: std::sync::Arc<AckLog>,
    lines: String,
}

impl AckLogBuffer {
    pub(crate) fn new(log: std::sync::Arc<AckLog>) -> Self {
        Self {
            log,
            lines: String::new(),
        }
    }

    pub(crate) fn note(
        &mut self,
        partition: &Partition,
        stream: usize,
        base_offset: i64,
        first_sequence: u64,
        records: u32,
    ) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.lines,
            "{} {} {stream} {base_offset} {first_sequence} {records} {}",
            partition.topic,
            partition.index,
            monotonic_ns()
        );
        if self.lines.len() >= BUFFER_LEN {
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        self.log.append(&self.lines);
        self.lines.clear();
    }
}

/// Reads a whole ack log.
///
/// # Errors
/// [`AckLogError`]. A last line without its end (the generator was killed) is left out.
pub fn read(path: &Path) -> Result<(AckLogHeader, Vec<AckedBatch>), AckLogError> {
    let name = || path.display().to_string();
    let io = |source| AckLogError::Io {
        path: name(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(io)?;
    let header: AckLogHeader =
        serde_json::from_str(&line).map_err(|error| AckLogError::Header {
            path: name(),
            reason: error.to_string(),
        })?;
    if header.version != VERSION {
        let reason = format!("version {}", header.version);
        return Err(AckLogError::Header {
            path: name(),
            reason,
        });
    }
    let mut batches = Vec::new();
    for number in 2.. {
        line.clear();
        reader.read_line(&mut line).map_err(io)?;
        let Some(text) = line.strip_suffix('\n') else {
            break;
        };
        let batch = parse(text).ok_or_else(|| AckLogError::Line {
            path: name(),
            line: number,
        })?;
        batches.push(batch);
    }
    Ok((header, batches))
}

fn parse(line: &str) -> Option<AckedBatch> {
    let mut words = line.split(' ');
    let batch = AckedBatch {
        topic: words.next()?.parse().ok()?,
        partition: words.next()?.parse().ok()?,
        stream: words.next()?.parse().ok()?,
        base_offset: words.next()?.parse().ok()?,
        first_sequence: words.next()?.parse().ok()?,
        records: words.next()?.parse().ok()?,
        acked_ns: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::BatchSize;
    use std::sync::Arc;

    fn header() -> AckLogHeader {
        AckLogHeader {
            version: VERSION,
            run_id: 0xfedc_ba98_7654_3210,
            topic: TopicSpec {
                bootstrap: vec!["localhost:9092".into()],
                topic: "logs".into(),
                topics: 1,
                partitions: Some(4),
                replication_factor: -1,
                configs: Vec::new(),
            },
            payload: PayloadSpec {
                record_size: 128,
                files: Vec::new(),
                compressibility: 0.25,
                seed: 1,
                keys: 0,
                batch: BatchSize::Records(10),
                stamped: true,
            },
            transactional: false,
        }
    }

    #[test]
    fn what_is_noted_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acks");
        let log = Arc::new(AckLog::create(&path, &header()).unwrap());
        let mut buffer = AckLogBuffer::new(Arc::clone(&log));
        let before = monotonic_ns();
        buffer.note(
            &Partition {
                topic: 1,
                index: 3,
                leader: 0,
            },
            7,
            1000,
            500,
            10,
        );
        buffer.flush();
        assert!(log.take_error().is_none());
        let (read_header, batches) = read(&path).unwrap();
        assert_eq!(read_header, header());
        assert!((before..=monotonic_ns()).contains(&batches[0].acked_ns));
        let expected = AckedBatch {
            topic: 1,
            partition: 3,
            stream: 7,
            base_offset: 1000,
            first_sequence: 500,
            records: 10,
            acked_ns: batches[0].acked_ns,
        };
        assert_eq!(batches, [expected]);

        // A line cut by a kill is left out, any other wrong line is an error.
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}1 3 7 10")).unwrap();
        assert_eq!(read(&path).unwrap().1.len(), 1);
        std::fs::write(&path, format!("{whole}1 3 7 10\n")).unwrap();
        assert!(matches!(
            read(&path),
            Err(AckLogError::Line { line: 3, .. })
        ));
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(read(&path), Err(AckLogError::Header { .. })));
    }
}
