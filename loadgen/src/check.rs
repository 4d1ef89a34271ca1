//! Reading a run's topics back and checking them against its ack log: every acked record is there once, at the offset
//! of its ack, in order, byte for byte.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use ringlog_engine::batch::{BatchHeader, Compression, body};
use serde::Serialize;
use thiserror::Error;

use crate::ack_log::{self, AckLogError, AckedBatch};
use crate::cluster::{Cluster, ClusterError, ClusterHandle, Edge, Partition};
use crate::consumer::Aborted;
use crate::net::ReceiveBuffer;
use crate::protocol::control::{ControlError, connect};
use crate::protocol::error_code;
use crate::protocol::fetch::{self, Limits};
use crate::stamp::Stamp;
use crate::template::{TemplateError, TemplateRing};
use crate::verify::{Arrival, Sequences};

const TIMEOUT: Duration = Duration::from_secs(30);
const LIMITS: Limits = Limits {
    max_wait_ms: 100,
    min_bytes: 1,
    max_bytes: 16 << 20,
    partition_max_bytes: 8 << 20,
    read_committed: false,
};
/// Most bytes a batch may decompress to.
const DECOMPRESSED_LEN_MAX: usize = 256 << 20;
/// Faults described in words; all are counted.
const EXAMPLES_MAX: usize = 20;
/// Answers without a record in a row after which a partition counts as ending early.
const EMPTY_MAX: u32 = 50;

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Records that were acked.
    pub acked: u64,
    /// Acked records found at their offset.
    pub acked_found: u64,
    /// Acked records that are not at their offset.
    pub acked_lost: u64,
    /// When the first ack was read of a batch that is not there whole: `CLOCK_MONOTONIC`, nanoseconds.
    pub first_lost_acked_ns: Option<u64>,
    /// Records of the run that were not acked and are there all the same, which is allowed.
    pub unacked_found: u64,
    /// Records that are there more than once.
    pub duplicates: u64,
    /// Acked records that lie behind a later acked one of their stream. (What was sent over a connection that broke
    /// before its ack may come after what was sent next.)
    pub out_of_order: u64,
    /// Records whose bytes are not those sent, or in a partition they were not sent to.
    pub corrupt: u64,
    /// Offsets between two batches that no batch covers.
    pub offset_gaps: u64,
    /// Records without a stamp or of another run.
    pub foreign: u64,
    /// All records read.
    pub records: u64,
    /// Bytes of batches read.
    pub batch_bytes: u64,
    /// The first faults in words.
    pub examples: Vec<String>,
}

impl CheckResult {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.acked_lost == 0
            && self.duplicates == 0
            && self.out_of_order == 0
            && self.corrupt == 0
            && self.offset_gaps == 0
    }

    fn lost_since(&mut self, acked_ns: Option<u64>) {
        let first = self.first_lost_acked_ns.into_iter().chain(acked_ns).min();
        self.first_lost_acked_ns = first;
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// Why the check could not be made.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The ack log.
    #[error(transparent)]
    AckLog(#[from] AckLogError),
    /// The topics.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A request.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The payload to compare with.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Reading a partition.
    #[error("{address}: {source}")]
    Io {
        /// `HOST:PORT`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The broker does not give the records out.
    #[error("{topic}-{partition}: {reason}")]
    Fetch {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// What it says.
        reason: String,
    },
}

/// Reads the topics of the run back and checks them. `bootstrap` replaces the brokers that the log names.
///
/// # Errors
/// [`CheckError`] if the check cannot be made; faults are in the result.
pub fn check(ack_log: &Path, bootstrap: Option<&str>) -> Result<CheckResult, CheckError> {
    check_until(ack_log, bootstrap, u64::MAX)
}

/// The same for the acks that were read by `until_ns` (`CLOCK_MONOTONIC`); what was acked later counts as not acked.
///
/// # Errors
/// As [`check`].
pub fn check_until(
    ack_log: &Path,
    bootstrap: Option<&str>,
    until_ns: u64,
) -> Result<CheckResult, CheckError> {
    let (header, mut batches) = ack_log::read(ack_log)?;
    batches.retain(|batch| batch.acked_ns <= until_ns);
    let ring = TemplateRing::new(&header.payload, Compression::None)?;
    let mut topic = header.topic;
    if let Some(address) = bootstrap {
        topic.bootstrap = vec![address.to_owned()];
    }
    let cluster = ClusterHandle::prepare(topic, false)?;
    let (last, read_committed) = match header.transactional {
        true => (Edge::Stable, true),
        false => (Edge::Next, false),
    };
    let (starts, ends) = (cluster.offsets(Edge::First)?, cluster.offsets(last)?);
    let cluster = cluster.current();
    let mut acked: HashMap<(u32, i32), Vec<AckedBatch>> = HashMap::new();
    for batch in batches {
        acked
            .entry((batch.topic, batch.partition))
            .or_default()
            .push(batch);
    }
    let mut result = CheckResult::default();
    let mut readers: HashMap<i32, Reader> = HashMap::new();
    for (place, partition) in cluster.partitions.iter().enumerate() {
        let mut expected = acked
            .remove(&(partition.topic, partition.index))
            .unwrap_or_default();
        expected.sort_unstable_by_key(|batch| batch.base_offset);
        let reader = match readers.entry(partition.leader) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let address = &cluster.brokers[&partition.leader];
                entry.insert(Reader::new(address, read_committed)?)
            }
        };
        let name = cluster.topic_name(partition);
        let mut checker = PartitionCheck::new(
            *partition,
            name,
            header.run_id,
            &ring,
            expected,
            &mut result,
        );
        reader.read(
            &cluster,
            partition,
            starts[place],
            ends[place],
            &mut checker,
        )?;
        checker.finish();
    }
    for ((_, partition), batches) in acked {
        let records: u64 = batches.iter().map(|batch| u64::from(batch.records)).sum();
        result.acked += records;
        result.acked_lost += records;
        result.lost_since(batches.iter().map(|batch| batch.acked_ns).min());
        result.example(|| format!("partition {partition} is gone, and {records} acked records"));
    }
    Ok(result)
}

/// A blocking connection that reads partitions one after the other.
struct Reader {
    address: String,
    stream: TcpStream,
    receive: ReceiveBuffer,
    correlation: i32,
    limits: Limits,
}

impl Reader {
    fn new(address: &str, read_committed: bool) -> Result<Self, CheckError> {
        let io = |source| CheckError::Io {
            address: address.to_owned(),
            source,
        };
        let stream = connect(address, TIMEOUT).map_err(io)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
        let receive = ReceiveBuffer::new(1 << 20);
        Ok(Self {
            address: address.to_owned(),
            stream,
            receive,
            correlation: 0,
            limits: Limits {
                read_committed,
                ..LIMITS
            },
        })
    }

    fn read(
        &mut self,
        cluster: &Cluster,
        partition: &Partition,
        start: i64,
        end: i64,
        checker: &mut PartitionCheck<'_>,
    ) -> Result<(), CheckError> {
        let io = |source| CheckError::Io {
            address: self.address.clone(),
            source,
        };
        let name = cluster.topic_name(partition);
        let failed = |reason: String| CheckError::Fetch {
            topic: name.to_owned(),
            partition: partition.index,
            reason,
        };
        checker.next_offset = start;
        let mut empty = 0;
        while checker.next_offset < end {
            let before = checker.next_offset;
            self.correlation += 1;
            let mut request = Vec::new();
            let wanted = [(partition.index, before)];
            fetch::put_request(
                &mut request,
                self.correlation,
                self.limits,
                std::iter::once((name, wanted.iter().copied())),
            );
            self.stream.write_all(&request).map_err(io)?;
            let place = loop {
                if let Some(place) = self.receive.next_frame().map_err(io)? {
                    break place;
                }
                self.receive.fill(&self.stream).map_err(io)?;
            };
            let frame = self.receive.frame(place);
            let answer = frame.get(4..).unwrap_or_default();
            let mut error = 0;
            let (mut records, mut aborted) = (&[][..], &[][..]);
            let whole = fetch::read_response(answer, |part| {
                error = part.error;
                records = part.records;
                aborted = part.aborted;
            })
            .map_err(|malformed| failed(malformed.to_string()))?;
            if error != 0 || whole != 0 {
                return Err(failed(error_code::name(if error != 0 {
                    error
                } else {
                    whole
                })));
            }
            checker.batches(records, Aborted::new(aborted));
            empty = if checker.next_offset == before {
                empty + 1
            } else {
                0
            };
            if empty == EMPTY_MAX {
                return Err(failed(format!(
                    "nothing comes at offset {before}, though the log ends at {end}"
                )));
            }
        }
        Ok(())
    }
}

/// Follows one partition from its first to its last record.
struct PartitionCheck<'a> {
    partition: Partition,
    name: &'a str,
    run_id: u64,
    ring: &'a TemplateRing,
    /// Acked batches by base offset.
    expected: Vec<AckedBatch>,
    /// The first acked batch that ends after the present offset.
    at: usize,
    /// By stream: what was seen, and the sequence after the last acked record.
    streams: HashMap<u32, (Sequences, u64)>,
    next_offset: i64,
    /// Records found of each expected batch.
    found: Vec<u32>,
    scratch: Vec<u8>,
    result: &'a mut CheckResult,
}

impl<'a> PartitionCheck<'a> {
    fn new(
        partition: Partition,
        name: &'a str,
        run_id: u64,
        ring: &'a TemplateRing,
        expected: Vec<AckedBatch>,
        result: &'a mut CheckResult,
    ) -> Self {
        Self {
            partition,
            name,
            run_id,
            ring,
            found: vec![0; expected.len()],
            expected,
            at: 0,
            streams: HashMap::new(),
            next_offset: 0,
            scratch: Vec::new(),
            result,
        }
    }

    fn place(&self, offset: i64) -> String {
        format!("{}-{} offset {offset}", self.name, self.partition.index)
    }

    fn batches(&mut self, mut rest: &[u8], mut aborted: Aborted) {
        while let Ok(header) = BatchHeader::parse(rest) {
            let (batch, after) = rest.split_at(header.total_len());
            rest = after;
            let hidden = aborted.hides(header);
            if header.next_offset() <= self.next_offset {
                continue;
            }
            self.batch(header, batch, hidden);
            self.next_offset = header.next_offset();
        }
    }

    /// A batch that is `hidden` counts as bytes of the log alone.
    fn batch(&mut self, header: &BatchHeader, batch: &[u8], hidden: bool) {
        let base = header.base_offset.get();
        self.result.batch_bytes += batch.len() as u64;
        if base > self.next_offset {
            self.result.offset_gaps += (base - self.next_offset) as u64;
            let place = self.place(self.next_offset);
            self.result
                .example(|| format!("{place}: the next batch begins at {base}"));
        }
        if let Err(error) = BatchHeader::validate(batch) {
            self.result.corrupt += 1;
            let place = self.place(base);
            self.result.example(|| format!("{place}: {error}"));
        }
        if header.is_control() || hidden {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let trouble = match body(batch, DECOMPRESSED_LEN_MAX, &mut scratch) {
            Ok(records) => records
                .map(|record| {
                    record.map(|r| self.record(base + i64::from(r.offset_delta), r.value))
                })
                .find_map(Result::err)
                .map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = trouble {
            self.result.corrupt += 1;
            let place = self.place(base);
            self.result.example(|| format!("{place}: {error}"));
        }
        self.scratch = scratch;
    }

    fn record(&mut self, offset: i64, value: Option<&[u8]>) {
        self.result.records += 1;
        let stamped = value.and_then(Stamp::read);
        let Some((stamp, payload)) = stamped.filter(|(stamp, _)| stamp.run_id.get() == self.run_id)
        else {
            self.result.foreign += 1;
            return;
        };
        let sequence = stamp.sequence.get();
        let here = stamp.topic.get() == self.partition.topic
            && stamp.partition.get() == self.partition.index as u32;
        if !here || payload != self.ring.payload(sequence) {
            self.result.corrupt += 1;
            let place = self.place(offset);
            self.result
                .example(|| format!("{place}: not the bytes that were sent"));
            return;
        }
        let stream = stamp.stream.get();
        let expected = self.acked_here(offset, stream, sequence);
        let acked = expected.is_some();
        let (seen, acked_next) = self.streams.entry(stream).or_default();
        if seen.note(sequence) == Arrival::Duplicate {
            self.result.duplicates += 1;
            let place = self.place(offset);
            self.result
                .example(|| format!("{place}: stream {stream} sequence {sequence} again"));
        } else if acked && sequence < *acked_next {
            self.result.out_of_order += 1;
            let (place, next) = (self.place(offset), self.streams[&stream].1);
            self.result.example(|| {
                format!(
                    "{place}: stream {stream} sequence {sequence} comes after {}",
                    next - 1
                )
            });
        } else if acked {
            *acked_next = sequence + 1;
        }
        if let Some(expected) = expected {
            self.found[expected] += 1;
        } else {
            self.result.unacked_found += 1;
        }
    }

    /// Which expected batch names this record at this offset.
    fn acked_here(&mut self, offset: i64, stream: u32, sequence: u64) -> Option<usize> {
        let end = |batch: &AckedBatch| batch.base_offset + i64::from(batch.records);
        while self
            .expected
            .get(self.at)
            .is_some_and(|batch| end(batch) <= offset)
        {
            self.at += 1;
        }
        // Acks that overlap would be a fault of the broker: every batch that covers the offset is looked at.
        self.expected[self.at..]
            .iter()
            .take_while(|batch| batch.base_offset <= offset)
            .position(|batch| {
                let index = (offset - batch.base_offset) as u64;
                offset < end(batch)
                    && batch.stream == stream
                    && batch.first_sequence + index == sequence
            })
            .map(|place| self.at + place)
    }

    fn finish(self) {
        let acked: u64 = self
            .expected
            .iter()
            .map(|batch| u64::from(batch.records))
            .sum();
        self.result.acked += acked;
        let found: u64 = self.found.iter().map(|&found| u64::from(found)).sum();
        self.result.acked_found += found;
        let lost = acked.saturating_sub(found);
        self.result.acked_lost += lost;
        let missing = self.expected.iter().zip(&self.found);
        let missing = missing.filter(|(batch, found)| **found < batch.records);
        self.result
            .lost_since(missing.map(|(batch, _)| batch.acked_ns).min());
        if lost > 0 {
            let (name, index, end) = (self.name, self.partition.index, self.next_offset);
            let last = self
                .expected
                .iter()
                .map(|b| b.base_offset + i64::from(b.records))
                .max();
            self.result.example(|| {
                format!(
                    "{name}-{index}: {lost} of {acked} acked records are not at their offset; acks reach to {}, \
                     the log to {end}",
                    last.unwrap_or(0)
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{BatchSize, PayloadSpec};
    use crate::template::{Send, StampBatch};
    use ringlog_engine::batch::header::assign;

    const PARTITION: Partition = Partition {
        topic: 0,
        index: 2,
        leader: 0,
    };
    const RUN_ID: u64 = 77;

    fn ring() -> TemplateRing {
        let spec = PayloadSpec {
            record_size: 80,
            files: Vec::new(),
            compressibility: 0.0,
            seed: 1,
            keys: 0,
            batch: BatchSize::Records(3),
            stamped: true,
        };
        TemplateRing::new(&spec, Compression::None).unwrap()
    }

    /// The `number`th batch of stream 5, at `base_offset`.
    fn batch(ring: &TemplateRing, number: u64, base_offset: i64) -> Vec<u8> {
        let mut out = Vec::new();
        let send = Send {
            timestamp_ms: 0,
            producer: (-1, -1, -1),
            transactional: false,
        };
        let stamp = StampBatch {
            run_id: RUN_ID,
            stream: 5,
            topic: 0,
            partition: 2,
            first_sequence: number * 3,
            sent_unix_ns: 0,
        };
        let template = &ring.templates[number as usize % ring.templates.len()];
        template
            .put_filled(&mut out, send, &stamp, Compression::None, &mut Vec::new())
            .unwrap();
        assign(&mut out, base_offset, 0);
        out
    }

    fn ack(number: u64, base_offset: i64) -> AckedBatch {
        AckedBatch {
            topic: 0,
            partition: 2,
            stream: 5,
            base_offset,
            first_sequence: number * 3,
            records: 3,
            acked_ns: 1000 + number,
        }
    }

    fn judge(log: &[Vec<u8>], acked: Vec<AckedBatch>) -> CheckResult {
        let ring = ring();
        let mut result = CheckResult::default();
        let mut check = PartitionCheck::new(PARTITION, "t", RUN_ID, &ring, acked, &mut result);
        check.batches(&log.concat(), Aborted::new(&[]));
        check.finish();
        result
    }

    #[test]
    fn a_whole_log_is_clean_and_unacked_batches_may_be_there_or_not() {
        let ring = ring();
        let log = [batch(&ring, 0, 0), batch(&ring, 1, 3), batch(&ring, 3, 6)];
        let result = judge(&log, vec![ack(0, 0), ack(1, 3)]);
        assert!(result.is_clean(), "{result:?}");
        assert_eq!(
            (result.acked, result.acked_found, result.unacked_found),
            (6, 6, 3)
        );
    }

    #[test]
    fn loss_duplicate_order_place_and_bytes_are_each_found() {
        let ring = ring();
        let acked = || vec![ack(0, 0), ack(1, 3), ack(2, 6)];
        let lost = judge(&[batch(&ring, 0, 0), batch(&ring, 1, 3)], acked());
        assert_eq!((lost.acked_lost, lost.duplicates), (3, 0));
        assert_eq!(lost.first_lost_acked_ns, Some(1002));

        let twice = [
            batch(&ring, 0, 0),
            batch(&ring, 1, 3),
            batch(&ring, 2, 6),
            batch(&ring, 1, 9),
        ];
        let twice = judge(&twice, acked());
        assert_eq!(
            (twice.acked_lost, twice.duplicates, twice.out_of_order),
            (0, 3, 0)
        );

        let swapped = [batch(&ring, 0, 0), batch(&ring, 2, 3), batch(&ring, 1, 6)];
        let misplaced = judge(&swapped, acked());
        assert_eq!((misplaced.acked_lost, misplaced.out_of_order), (6, 0));
        let swapped = judge(&swapped, vec![ack(0, 0), ack(2, 3), ack(1, 6)]);
        assert_eq!((swapped.acked_lost, swapped.out_of_order), (0, 3));

        let mut changed = batch(&ring, 2, 6);
        let last = changed.len() - 2;
        changed[last] ^= 1;
        let changed = judge(&[batch(&ring, 0, 0), batch(&ring, 1, 3), changed], acked());
        assert_eq!(
            (changed.corrupt, changed.acked_lost),
            (2, 1),
            "checksum and record"
        );

        let gap = judge(&[batch(&ring, 0, 0), batch(&ring, 1, 5)], vec![ack(0, 0)]);
        assert_eq!((gap.offset_gaps, gap.acked_lost), (2, 0));
        for result in [lost, twice, misplaced, swapped, changed, gap] {
            assert!(!result.is_clean() && !result.examples.is_empty());
        }
    }
}
