//! Single look-ups in a stored partition: a fetch at a random offset, a search for a random time.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kafka_wire::ListOffsetsRequest;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire_core::StrBytes;
use ringlog_benches::claims::{Figures, Random};
use ringlog_engine::batch::BatchHeader;

use super::PointError;
use crate::net::ReceiveBuffer;
use crate::protocol::control::connect;
use crate::protocol::fetch::{self, Limits};
use crate::protocol::{ControlClient, error_code};
use crate::stats::{LatencyUs, latency_histogram};

const TIMEOUT: Duration = Duration::from_secs(10);
/// One batch, and no waiting for more.
const LIMITS: Limits = Limits {
    max_wait_ms: 0,
    min_bytes: 0,
    max_bytes: 1,
    partition_max_bytes: 1,
    read_committed: false,
};
/// ListOffsets by time in the version that answers with one offset.
const LIST_OFFSETS: i16 = 7;
/// Look-ups whose time is not counted.
const WARM: u32 = 50;
/// Newest records that are left alone, but half of all at most: a server may have them in memory, whatever its read path.
const NEWEST_RECORDS: i64 = 256 << 10;

/// Looks up in partition 0 of a topic, one after the other.
#[derive(Debug)]
pub struct LookUps {
    control: ControlClient,
    stream: TcpStream,
    receive: ReceiveBuffer,
    correlation: i32,
    topic: String,
    /// Offset after the last record.
    end: i64,
    /// Records before this one are looked up.
    old: i64,
    /// Times of the first and the last of them.
    times_ms: (i64, i64),
}

impl LookUps {
    /// Connects and asks where the partition begins and ends.
    ///
    /// # Errors
    /// [`PointError::Failed`].
    pub fn new(address: &str, topic: &str) -> Result<Self, PointError> {
        let stream = connect(address, TIMEOUT).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        let mut look_ups = Self {
            control: ControlClient::connect(address, TIMEOUT).map_err(failed)?,
            stream,
            receive: ReceiveBuffer::new(1 << 20),
            correlation: 0,
            topic: topic.to_owned(),
            end: 0,
            old: 0,
            times_ms: (0, 0),
        };
        look_ups.end = look_ups.by_time(-1)?;
        if look_ups.end < 2 {
            return Err(PointError::Failed(format!("{topic} holds nothing")));
        }
        look_ups.old = (look_ups.end - NEWEST_RECORDS).max(look_ups.end / 2);
        look_ups.times_ms = (
            look_ups.by_offset(0)?,
            look_ups.by_offset(look_ups.old - 1)?,
        );
        Ok(look_ups)
    }

    /// Fetches at random offsets, the newest left alone, for `window`.
    ///
    /// # Errors
    /// [`PointError::Failed`].
    pub fn offsets(&mut self, window: Duration, seed: u64) -> Result<Figures, PointError> {
        let (mut random, old) = (Random(seed), self.old as u64);
        self.repeat(window, |look_ups| {
            look_ups.by_offset(random.below(old) as i64)?;
            Ok(())
        })
    }

    /// Searches for random times between those of the first and the last of these records, for `window`.
    ///
    /// # Errors
    /// [`PointError::Failed`].
    pub fn times(&mut self, window: Duration, seed: u64) -> Result<Figures, PointError> {
        let mut random = Random(seed);
        let (first, last) = self.times_ms;
        let span = (last - first).max(0) as u64 + 1;
        self.repeat(window, |look_ups| {
            let time_ms = first + random.below(span) as i64;
            match look_ups.by_time(time_ms)? {
                offset if (0..look_ups.end).contains(&offset) => Ok(()),
                offset => Err(PointError::Failed(format!(
                    "time {time_ms} is said to be at offset {offset}"
                ))),
            }
        })
    }

    fn repeat(
        &mut self,
        window: Duration,
        mut look_up: impl FnMut(&mut Self) -> Result<(), PointError>,
    ) -> Result<Figures, PointError> {
        for _ in 0..WARM {
            look_up(self)?;
        }
        let mut histogram: Histogram<u64> = latency_histogram();
        let ends = Instant::now() + window;
        while Instant::now() < ends {
            let begun = Instant::now();
            look_up(self)?;
            histogram.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        let latency = LatencyUs::of(&histogram);
        Ok(Figures::from([
            ("p50_us".into(), latency.p50),
            ("p99_us".into(), latency.p99),
            (
                "look_ups_per_s".into(),
                latency.count as f64 / window.as_secs_f64(),
            ),
        ]))
    }

    /// Fetches the batch that holds `offset`; returns the time of its first record.
    fn by_offset(&mut self, offset: i64) -> Result<i64, PointError> {
        self.correlation += 1;
        let mut request = Vec::new();
        let wanted = [(0, offset)];
        let topics = std::iter::once((self.topic.as_str(), wanted.iter().copied()));
        fetch::put_request(&mut request, self.correlation, LIMITS, topics);
        self.stream.write_all(&request).map_err(failed)?;
        let place = loop {
            if let Some(place) = self.receive.next_frame().map_err(failed)? {
                break place;
            }
            self.receive.fill(&self.stream).map_err(failed)?;
        };
        let answer = self.receive.frame(place).get(4..).unwrap_or_default();
        let (mut error, mut found) = (0, None);
        let whole = fetch::read_response(answer, |part| {
            error = part.error;
            found = BatchHeader::parse(part.records)
                .ok()
                .filter(|header| (header.base_offset.get()..header.next_offset()).contains(&offset))
                .map(|header| header.base_timestamp.get());
        })
        .map_err(failed)?;
        match (whole, error, found) {
            (0, 0, Some(time_ms)) => Ok(time_ms),
            (0, 0, None) => Err(PointError::Failed(format!(
                "a fetch at offset {offset} brought another batch"
            ))),
            (code, 0, _) | (_, code, _) => Err(PointError::Failed(error_code::name(code))),
        }
    }

    /// The first offset with a record of this time or later; -1 asks for the end.
    fn by_time(&mut self, time_ms: i64) -> Result<i64, PointError> {
        let mut partition = ListOffsetsPartition::default();
        partition.current_leader_epoch = -1;
        partition.timestamp = time_ms;
        let mut topic = ListOffsetsTopic::default();
        topic.name = StrBytes::from(self.topic.as_str());
        topic.partitions.push(partition);
        let mut request = ListOffsetsRequest::default();
        request.replica_id = -1;
        request.topics.push(topic);
        let answer = self.control.call(&request, LIST_OFFSETS).map_err(failed)?;
        let partition = answer
            .topics
            .first()
            .and_then(|topic| topic.partitions.first());
        match partition {
            Some(partition) if partition.error_code == 0 => Ok(partition.offset),
            Some(partition) => Err(PointError::Failed(error_code::name(partition.error_code))),
            None => Err(PointError::Failed(
                "ListOffsets left the partition out".into(),
            )),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> PointError {
    PointError::Failed(error.to_string())
}
