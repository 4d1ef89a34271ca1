//! Reading one queue of many: from a log that all share, by an index of the queue; and from a file of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Figures, device_reads, io_bytes, make_cold, make_hot};
use crate::disk::measure::Stopwatch;
use crate::disk::{BenchError, Fill, Scratch};

const LOG: &str = "shared-log";
const INDEX: &str = "queue-index";
const OWN: &str = "own-file";
/// Bytes of a record, and of an entry of the index: offset, length, and a hash as the documents' brokers keep it.
const RECORD: u64 = 1024;
const ENTRY: usize = 20;
/// Bytes of one read where reads are sequential.
const PIECE: usize = 1 << 20;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The queue's index in sequence, and each record from the shared log.
    SharedLog,
    /// The queue's own file in sequence.
    OwnFile,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePoint {
    /// Whether the files are in the page cache, or none of them is.
    pub hot: bool,
    /// Queues that share the log: records of one lie so many records apart.
    pub queues: u64,
    /// What is read.
    pub source: Source,
}

/// The files.
#[derive(Debug)]
pub struct Queues<'a> {
    scratch: &'a Scratch,
    log_bytes: u64,
}

impl<'a> Queues<'a> {
    /// Makes them: the log of `log_bytes`, and the same number of bytes as files of their own, of which one is read.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn prepare(scratch: &'a Scratch, log_bytes: u64) -> Result<Self, BenchError> {
        scratch.needs(2 * log_bytes)?;
        for name in [LOG, OWN] {
            let file = scratch.open(name, true)?;
            scratch.fill(&file, log_bytes, Fill::Noise)?;
        }
        Ok(Self { scratch, log_bytes })
    }

    /// Reads one queue once, to its end or for `window`.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(&self, point: &QueuePoint, window: Duration) -> Result<Figures, BenchError> {
        let records = self.log_bytes / RECORD / point.queues.max(1);
        if records == 0 {
            return Err(BenchError::Settings(format!(
                "{} queues in {} bytes",
                point.queues, self.log_bytes
            )));
        }
        let index = self.index(point.queues, records)?;
        let (log, own) = (
            self.scratch.open(LOG, false)?,
            self.scratch.open(OWN, false)?,
        );
        for file in [&index, &log, &own] {
            if point.hot {
                make_hot(file)?
            } else {
                make_cold(file)?
            };
        }
        let (read_before, device_before) = (io_bytes().0, device_reads());
        let watch = Stopwatch::start();
        let ends = Instant::now() + window;
        let (bytes, calls) = match point.source {
            Source::SharedLog => by_index(&index, &log, ends),
            Source::OwnFile => in_sequence(&own, records * RECORD, ends),
        }
        .map_err(BenchError::operation("reading a queue"))?;
        let wall_s = watch.wall_s();
        let megabytes = bytes as f64 / 1e6;
        self.scratch.check()?;
        Ok(Figures::from([
            ("mb_per_s".into(), megabytes / wall_s),
            ("read_calls_per_mb".into(), calls as f64 / megabytes),
            (
                "storage_bytes_per_byte".into(),
                (io_bytes().0 - read_before) as f64 / bytes as f64,
            ),
            (
                "device_reads_per_mb".into(),
                (device_reads() - device_before) as f64 / megabytes,
            ),
            ("cpu_s_per_gb".into(), watch.cpu_s() * 1e3 / megabytes),
        ]))
    }

    /// The index of one queue: where its records lie in the log.
    fn index(&self, queues: u64, records: u64) -> Result<std::sync::Arc<File>, BenchError> {
        let mut bytes = Vec::with_capacity(records as usize * ENTRY);
        for record in 0..records {
            let offset = record * queues * RECORD;
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&(RECORD as u32).to_le_bytes());
            bytes.extend_from_slice(&record.to_le_bytes());
        }
        let file = self.scratch.open(INDEX, false)?;
        file.set_len(0).map_err(BenchError::file(INDEX))?;
        file.write_all_at(&bytes, 0)
            .map_err(BenchError::file(INDEX))?;
        Ok(file)
    }
}

/// Returns bytes and calls.
fn by_index(index: &File, log: &File, ends: Instant) -> std::io::Result<(u64, u64)> {
    let mut entries = vec![0; ENTRY * 4096];
    let mut record = vec![0; RECORD as usize];
    let (mut at, mut bytes, mut calls) = (0, 0, 0);
    loop {
        let read = index.read_at(&mut entries, at)?;
        calls += 1;
        at += read as u64;
        for entry in entries[..read].chunks_exact(ENTRY) {
            let mut offset = [0; 8];
            offset.copy_from_slice(&entry[..8]);
            log.read_exact_at(&mut record, u64::from_le_bytes(offset))?;
            std::hint::black_box(&record);
            calls += 1;
            bytes += RECORD;
        }
        if read < ENTRY || Instant::now() > ends {
            return Ok((bytes, calls));
        }
    }
}

fn in_sequence(own: &File, len: u64, ends: Instant) -> std::io::Result<(u64, u64)> {
    let mut piece = vec![0; PIECE];
    let (mut at, mut calls) = (0, 0);
    while at < len {
        let wanted = PIECE.min((len - at) as usize);
        let read = own.read_at(&mut piece[..wanted], at)?;
        std::hint::black_box(&piece);
        calls += 1;
        at += read as u64;
        if read == 0 || Instant::now() > ends {
            break;
        }
    }
    Ok((at, calls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_queue_is_read_with_a_call_for_each_record_or_for_each_piece() {
        let stop = Arc::new(AtomicBool::new(false));
        let scratch = Scratch::new(env!("CARGO_MANIFEST_DIR").as_ref(), stop).unwrap();
        let queues = Queues::prepare(&scratch, 8 << 20).unwrap();
        let calls = |source, hot| {
            let point = QueuePoint {
                hot,
                queues: 4,
                source,
            };
            queues.measure(&point, Duration::from_secs(5)).unwrap()["read_calls_per_mb"]
        };
        // A record of 1,024 B each, and one for 4,096 entries.
        assert!((976.0..980.0).contains(&calls(Source::SharedLog, true)));
        assert!(calls(Source::OwnFile, false) < 2.0);
    }
}
