//! One consuming connection: fetching, walking over batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlog_engine::batch::{BatchHeader, body};

use super::{Aborted, Checker, ConsumeOptions, Until};
use crate::cluster::{Cluster, Partition};
use crate::net::{Link, Poller};
use crate::protocol::error_code;
use crate::protocol::fetch::{self, Fetched, Limits};
use crate::shared::{CONNECT_TIMEOUT, Clock, Counter, connection_error};
use crate::stats;

/// Kafka's code for an offset that is not, or no longer, there.
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// Most bytes a batch may decompress to.
const DECOMPRESSED_LEN_MAX: usize = 256 << 20;

/// How far a partition is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// In [`Cluster::partitions`].
    pub(super) place: u32,
    pub(super) partition: Partition,
    /// Offset to read next.
    pub(super) next: i64,
    /// Where reading began.
    pub(super) start: i64,
    /// Offset to stop at, or to begin anew at.
    pub(super) end: Option<i64>,
}

/// What the connections of a thread share.
pub(super) struct Context {
    pub(super) options: Arc<ConsumeOptions>,
    pub(super) counter: Counter,
    pub(super) clock: Clock,
    pub(super) checker: Option<Checker>,
    pub(super) scratch: Vec<u8>,
    /// Set when an answer says that a leader moved.
    pub(super) wants_metadata: bool,
}

/// A fetch on its way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    correlation: i32,
    sent: Instant,
}

/// One consuming connection.
pub(super) struct Connection {
    token: usize,
    pub(super) leader: i32,
    pub(super) retry_at: Instant,
    positions: Vec<Position>,
    link: Option<Link>,
    flight: Option<Flight>,
    correlation: i32,
}

impl Connection {
    pub(super) fn new(token: usize, leader: i32, positions: Vec<Position>) -> Self {
        Self {
            token,
            leader,
            retry_at: Instant::now(),
            positions,
            link: None,
            flight: None,
            correlation: 0,
        }
    }

    pub(super) fn wants_link(&self, now: Instant) -> bool {
        self.link.is_none() && !self.positions.is_empty() && now >= self.retry_at
    }

    /// Whether no fetch is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none()
    }

    /// Whether every partition is read to where it should.
    pub(super) fn is_at_end(&self) -> bool {
        self.positions
            .iter()
            .all(|p| p.end.is_some_and(|end| p.next >= end))
    }

    /// Whether every partition is read to its offset in `targets`.
    pub(super) fn has_reached(&self, targets: &[i64]) -> bool {
        self.positions
            .iter()
            .all(|p| p.next >= targets[p.place as usize])
    }

    pub(super) fn take_over(&mut self, positions: Vec<Position>) {
        self.positions.extend(positions);
        self.positions.sort_unstable_by_key(|p| p.place);
    }

    /// Whether another broker leads one of the partitions by now.
    pub(super) fn has_moved(&self, cluster: &Cluster) -> bool {
        self.positions.iter().any(|p| !self.keeps(p, cluster))
    }

    fn keeps(&self, position: &Position, cluster: &Cluster) -> bool {
        [self.leader, -1].contains(&cluster.partitions[position.place as usize].leader)
    }

    /// Removes and returns the partitions that another broker leads by now. Not while a fetch is on its way: its
    /// answer moves positions.
    pub(super) fn take_moved(&mut self, cluster: &Cluster) -> Vec<Position> {
        if self.flight.is_some() {
            return Vec::new();
        }
        let leader_of = |p: &Position| cluster.partitions[p.place as usize].leader;
        let positions = std::mem::take(&mut self.positions);
        let (stay, mut moved): (Vec<_>, Vec<_>) =
            positions.into_iter().partition(|p| self.keeps(p, cluster));
        self.positions = stay;
        for position in &mut moved {
            position.partition.leader = leader_of(position);
        }
        moved
    }

    pub(super) fn connect(
        &mut self,
        address: &str,
        poller: &Poller,
        options: &ConsumeOptions,
    ) -> Result<(), String> {
        let capacity = (options.max_bytes.max(0) as usize + (64 << 10)).clamp(64 << 10, 16 << 20);
        let link = Link::connect(address, CONNECT_TIMEOUT, poller, self.token, capacity)
            .map_err(|error| connection_error(&error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Sends a fetch if none is on its way and there is something to read.
    pub(super) fn fetch(&mut self, context: &mut Context, cluster: &Cluster) {
        if self.flight.is_some() || self.positions.is_empty() || Instant::now() < self.retry_at {
            return;
        }
        let done = context.options.until == Until::End && self.is_at_end();
        let Some(link) = self.link.as_mut().filter(|_| !done) else {
            return;
        };
        let options = &context.options;
        let limits = Limits {
            max_wait_ms: options.max_wait_ms,
            min_bytes: options.min_bytes,
            max_bytes: options.max_bytes,
            partition_max_bytes: options.partition_max_bytes,
            read_committed: options.read_committed,
        };
        // A partition that is read to its end is left out.
        let wanted: Vec<&Position> = self
            .positions
            .iter()
            .filter(|p| options.until != Until::End || p.end.is_none_or(|end| p.next < end))
            .collect();
        let topics: Vec<&[&Position]> = wanted
            .chunk_by(|a, b| a.partition.topic == b.partition.topic)
            .collect();
        self.correlation = self.correlation.wrapping_add(1);
        fetch::put_request(
            &mut link.send.bytes,
            self.correlation,
            limits,
            topics.iter().map(|positions| {
                let name = cluster.topic_name(&positions[0].partition);
                (name, positions.iter().map(|p| (p.partition.index, p.next)))
            }),
        );
        self.flight = Some(Flight {
            correlation: self.correlation,
            sent: Instant::now(),
        });
        if let Err(error) = link.flush(None) {
            self.fail(context, connection_error(&error));
        }
    }

    /// The socket has news: sends what waits, reads what came, and fetches on.
    pub(super) fn on_ready(&mut self, context: &mut Context, cluster: &Cluster) {
        while let Some(link) = &mut self.link {
            if !link.send.is_empty()
                && let Err(error) = link.flush(None)
            {
                return self.fail(context, connection_error(&error));
            }
            match link.fill() {
                Ok(None) => return,
                Ok(Some(more)) => {
                    if let Err(name) = self.read_answers(context, cluster) {
                        return self.fail(context, name);
                    }
                    self.fetch(context, cluster);
                    if !more {
                        return;
                    }
                }
                Err(error) => return self.fail(context, connection_error(&error)),
            }
        }
    }

    fn read_answers(&mut self, context: &mut Context, cluster: &Cluster) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        while let Some(place) = link
            .receive
            .next_frame()
            .map_err(|error| connection_error(&error))?
        {
            let frame = link.receive.frame(place);
            let now = Instant::now();
            let (Some(flight), Some((correlation, answer))) =
                (self.flight.take(), frame.split_first_chunk::<4>())
            else {
                return Err("PROTOCOL_VIOLATION (answer to nothing)".into());
            };
            if flight.correlation.to_be_bytes() != *correlation {
                return Err("PROTOCOL_VIOLATION (answer out of turn)".into());
            }
            let latency = now.saturating_duration_since(flight.sent);
            context
                .counter
                .counts
                .latency
                .saturating_record(latency.as_nanos() as u64);
            context.counter.counts.requests += 1;
            let positions = &mut self.positions;
            let mut guess = 0;
            let mut refused = false;
            let error = fetch::read_response(answer, |part| {
                // Answers mostly keep the request's order, with partitions left out.
                let is_it = |p: &Position| {
                    p.partition.index == part.partition
                        && cluster.topic_name(&p.partition).as_bytes() == part.topic
                };
                let found = (guess..positions.len())
                    .chain(0..guess.min(positions.len()))
                    .find(|&at| is_it(&positions[at]));
                if let Some(at) = found {
                    guess = at + 1;
                    refused |= part.error != 0;
                    take(context, &mut positions[at], part, now);
                }
            })
            .map_err(|error| format!("PROTOCOL_VIOLATION ({error})"))?;
            if error != 0 {
                context.counter.counts.error(error_code::name(error));
            }
            if error != 0 || refused {
                self.retry_at = now + Duration::from_millis(20);
            }
        }
        Ok(())
    }

    /// Gives the connection up; positions stay.
    fn fail(&mut self, context: &mut Context, name: String) {
        context.counter.counts.error(name);
        self.link = None;
        self.flight = None;
        self.retry_at = Instant::now() + Duration::from_millis(20);
        context.wants_metadata = true;
    }
}

/// Takes in what was fetched of one partition.
fn take(context: &mut Context, position: &mut Position, part: Fetched<'_>, now: Instant) {
    if part.error != 0 {
        context.counter.counts.error(error_code::name(part.error));
        context.wants_metadata |= error_code::wants_metadata(part.error);
        if part.error == OFFSET_OUT_OF_RANGE {
            position.next = position.next.max(part.log_start_offset);
        }
        return;
    }
    let mut aborted = Aborted::new(part.aborted);
    let mut rest = part.records;
    while !rest.is_empty() {
        // The last batch may be cut short by the size limit.
        let Ok(header) = BatchHeader::parse(rest) else {
            break;
        };
        let (batch, after) = rest.split_at(header.total_len());
        rest = after;
        let first = header.base_offset.get().max(position.next);
        let next = header.next_offset();
        let hidden = aborted.hides(header);
        if next <= position.next {
            continue;
        }
        if context.options.check_crc && BatchHeader::validate(batch).is_err() {
            context.counter.counts.error("BATCH_CHECKSUM_WRONG");
        }
        let counts = &mut context.counter.counts;
        counts.batches += 1;
        counts.batch_bytes += batch.len() as u64;
        if !header.is_control() && !hidden {
            counts.records += (next - first) as u64;
            if context.options.reads_records() {
                read_records(context, position, header, batch, now);
            }
        }
        position.next = next;
    }
    if context.options.until == Until::Repeat
        && position.end.is_some_and(|end| position.next >= end)
    {
        position.next = position.start;
    }
}

/// Looks at every record of a batch from the position on.
fn read_records(
    context: &mut Context,
    position: &Position,
    header: &BatchHeader,
    batch: &[u8],
    now: Instant,
) {
    let mut scratch = std::mem::take(&mut context.scratch);
    let now_unix_ns = context.clock.unix_ns(now);
    match body(batch, DECOMPRESSED_LEN_MAX, &mut scratch) {
        Ok(records) => {
            for record in records {
                let Ok(record) = record else {
                    context.counter.counts.error("RECORD_MALFORMED");
                    break;
                };
                if header.base_offset.get() + i64::from(record.offset_delta) < position.next {
                    continue;
                }
                let counts = &mut context.counter.counts;
                counts.value_bytes += record.value.map_or(0, <[u8]>::len) as u64;
                let stamp = match &mut context.checker {
                    Some(checker) => checker.check(&position.partition, record.value),
                    None => record
                        .value
                        .and_then(crate::stamp::Stamp::read)
                        .map(|(stamp, _)| stamp),
                };
                if context.options.end_to_end
                    && let Some(stamp) = stamp
                {
                    let nanoseconds = now_unix_ns.saturating_sub(stamp.sent_unix_ns.get());
                    stats::note(&mut counts.end_to_end, Duration::from_nanos(nanoseconds));
                }
            }
        }
        Err(_) => context.counter.counts.error("BATCH_UNREADABLE"),
    }
    context.scratch = scratch;
}
