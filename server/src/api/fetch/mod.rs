//! Fetch: batches from many partitions, from memory at once, from the disk when the reads are done, or, when there
//! is nothing yet, once enough has arrived or the client's patience ends.

mod respond;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;
use ringlog_engine::core::{Chunk, Core, FetchData, FetchError, FetchSpec, ReadId, Reply};
use ringlog_engine::id::Part;
use ringlog_engine::shard::Cx;

use super::{Request, fetch_error, local};
use crate::app::Server;
use crate::conn::Token;
use crate::wire::fetch::{FetchPartition, FetchRequest};
use crate::wire::{Malformed, error};

/// Requests that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    /// Requests that wait for a partition's high watermark to rise.
    watchers: HashMap<Part, Vec<u64>>,
    /// Partitions of requests that wait for the disk.
    reads: HashMap<ReadId, (u64, usize)>,
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    /// Requests to look at in this turn.
    news: Vec<u64>,
    /// Requests that found too many reads in flight.
    crowded_out: Vec<u64>,
}

/// A request under way.
#[derive(Debug)]
struct Pending {
    token: Token,
    read_committed: bool,
    min_bytes: usize,
    max_bytes: usize,
    deadline_ns: u64,
    session_id: i32,
    topics: Vec<TopicFetch>,
    partitions: Vec<PartitionFetch>,
    /// Bytes found, and asked of the disk.
    bytes: usize,
    reads: usize,
}

#[derive(Debug)]
struct TopicFetch {
    name: Box<str>,
    partitions: usize,
}

#[derive(Debug)]
struct PartitionFetch {
    index: i32,
    offset: i64,
    max_bytes: usize,
    part: Option<Part>,
    state: Progress,
}

#[derive(Debug)]
enum Progress {
    /// There may be something to read.
    Fresh,
    /// Nothing beyond the offset yet; being watched.
    AtEnd,
    /// The disk was asked for so many bytes.
    Reading(usize),
    /// Found.
    Data(FetchData),
    /// So many bytes were found, which was not enough; they are read again, so that nothing is held meanwhile.
    Held(usize),
    /// Kafka's error code.
    Failed(i16),
}

impl State {
    /// A watched partition has news.
    pub(crate) fn advanced(&mut self, part: Part) {
        for id in self.watchers.remove(&part).unwrap_or_default() {
            let Some(pending) = self.pending.get_mut(&id) else {
                continue;
            };
            for partition in &mut pending.partitions {
                if partition.part == Some(part) && matches!(partition.state, Progress::AtEnd) {
                    partition.state = Progress::Fresh;
                }
            }
            self.news.push(id);
        }
    }

    /// Whether requests wait to be looked at.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// When the next request's patience ends.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.deadlines.peek().map(|Reverse((ns, _))| *ns)
    }

    fn watch(&mut self, core: &mut Core, part: Part, id: u64) {
        let waiting = self.watchers.entry(part).or_default();
        if waiting.is_empty() {
            core.watch(part);
        }
        if !waiting.contains(&id) {
            waiting.push(id);
        }
    }

    fn unwatch(&mut self, pending: &Pending, id: u64) {
        for partition in &pending.partitions {
            if let Some(part) = partition.part
                && let Some(waiting) = self.watchers.get_mut(&part)
            {
                waiting.retain(|other| *other != id);
                if waiting.is_empty() {
                    self.watchers.remove(&part);
                }
            }
        }
    }
}

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let version = request.header.api_version;
    let body = FetchRequest::parse(request.body, version)?;
    let wait_ms = body.max_wait_ms.max(0) as u64;
    let limit = server.env.config.fetch_bytes_max;
    let mut pending = Pending {
        token: request.token,
        read_committed: body.isolation_level == 1,
        min_bytes: body.min_bytes.max(0) as usize,
        max_bytes: (body.max_bytes.max(0) as usize).min(limit),
        deadline_ns: cx.now.after_ms(wait_ms),
        session_id: 0,
        topics: Vec::with_capacity(body.topics.len()),
        partitions: Vec::new(),
        bytes: 0,
        reads: 0,
    };
    for topic in &body.topics {
        pending.topics.push(TopicFetch {
            name: topic.name.into(),
            partitions: topic.partitions.len(),
        });
        for wanted in &topic.partitions {
            let found = find(server, cx.core, topic.name, wanted);
            pending.partitions.push(found);
        }
    }
    let id = server.fetch.next;
    server.fetch.next += 1;
    advance(server, cx, id, pending);
    Ok(())
}

fn find(server: &Server, core: &Core, topic: &str, wanted: &FetchPartition) -> PartitionFetch {
    let part = local(&server.env, &server.catalog, topic, wanted.index)
        .and_then(|key| core.lookup(key).ok_or(error::UNKNOWN_TOPIC_OR_PARTITION));
    PartitionFetch {
        index: wanted.index,
        offset: wanted.offset,
        max_bytes: wanted.max_bytes.max(0) as usize,
        part: part.ok(),
        state: part.map_or_else(Progress::Failed, |_| Progress::Fresh),
    }
}

/// Reads what can be read and answers the request if that is enough; else it goes on waiting.
fn advance(server: &mut Server, cx: &mut Cx<'_>, id: u64, mut pending: Pending) {
    for partition in &mut pending.partitions {
        if let Progress::Held(bytes) = partition.state {
            pending.bytes -= bytes;
            partition.state = Progress::Fresh;
        }
    }
    let crowded = read(server, cx, id, &mut pending);
    let failed = |p: &PartitionFetch| matches!(p.state, Progress::Failed(_));
    let enough = (pending.bytes >= pending.min_bytes && !crowded)
        || cx.now.mono_ns >= pending.deadline_ns
        || pending.partitions.iter().any(failed);
    if pending.reads == 0 && (enough || pending.partitions.is_empty() && pending.min_bytes == 0) {
        server.fetch.unwatch(&pending, id);
        if let Some(conn) = server.conns.get(pending.token.conn) {
            conn.fetches.retain(|other| *other != id);
        }
        respond::respond(server, cx, pending);
        return;
    }
    for partition in &mut pending.partitions {
        if let Progress::Data(data) = &partition.state
            && pending.reads == 0
        {
            release(cx.core, data);
            partition.state = Progress::Held(data.bytes);
        }
        if let (Some(part), Progress::AtEnd | Progress::Held(_)) =
            (partition.part, &partition.state)
        {
            server.fetch.watch(cx.core, part, id);
        }
    }
    if crowded {
        server.fetch.crowded_out.push(id);
    }
    if let Some(conn) = server.conns.get(pending.token.conn)
        && !conn.fetches.contains(&id)
    {
        conn.fetches.push(id);
        let deadline = Reverse((pending.deadline_ns, id));
        server.fetch.deadlines.push(deadline);
    }
    server.fetch.pending.insert(id, pending);
}

/// Asks the core for what may be there; returns whether it had to turn a read away.
fn read(server: &mut Server, cx: &mut Cx<'_>, id: u64, pending: &mut Pending) -> bool {
    let mut crowded = false;
    for (at, partition) in pending.partitions.iter_mut().enumerate() {
        let (Some(part), Progress::Fresh) = (partition.part, &partition.state) else {
            continue;
        };
        let left = pending.max_bytes.saturating_sub(pending.bytes);
        if left == 0 && pending.bytes > 0 {
            break;
        }
        let spec = FetchSpec {
            offset: partition.offset,
            max_bytes: partition.max_bytes.min(left),
            min_one: pending.bytes == 0,
            spans: server.env.config.spans,
        };
        partition.state = match cx.core.fetch(cx.now, part, spec) {
            Ok(Reply::Ready(data)) if data.bytes == 0 => at_end(cx.core, part, spec),
            Ok(Reply::Ready(data)) => {
                pending.bytes += data.bytes;
                Progress::Data(data)
            }
            Ok(Reply::Pending(read)) => {
                server.fetch.reads.insert(read, (id, at));
                pending.reads += 1;
                pending.bytes += spec.max_bytes.max(1);
                Progress::Reading(spec.max_bytes.max(1))
            }
            Err(FetchError::Busy) => {
                crowded = true;
                Progress::Fresh
            }
            Err(failure) => Progress::Failed(fetch_error(failure)),
        };
    }
    crowded
}

/// Nothing came back: because nothing is there yet, or because the first batch is larger than what was left.
fn at_end(core: &Core, part: Part, spec: FetchSpec) -> Progress {
    match core.offsets(part) {
        Some(offsets) if spec.offset < offsets.high_watermark => {
            Progress::Data(FetchData::default())
        }
        Some(_) => Progress::AtEnd,
        None => Progress::Failed(error::UNKNOWN_TOPIC_OR_PARTITION),
    }
}

/// A read from the disk is done.
pub(crate) fn fetched(
    server: &mut Server,
    cx: &mut Cx<'_>,
    read: ReadId,
    result: Result<FetchData, FetchError>,
) {
    let crowded_out = std::mem::take(&mut server.fetch.crowded_out);
    server.fetch.news.extend(crowded_out);
    let place = server.fetch.reads.remove(&read);
    let found = place.and_then(|(id, at)| Some((id, at, server.fetch.pending.get_mut(&id)?)));
    let Some((id, at, pending)) = found else {
        // The client has gone in the meantime.
        if let Ok(data) = result {
            release(cx.core, &data);
        }
        return;
    };
    let partition = &mut pending.partitions[at];
    if let Progress::Reading(asked) = partition.state {
        pending.reads -= 1;
        pending.bytes -= asked;
    }
    partition.state = match result {
        Ok(data) => {
            pending.bytes += data.bytes;
            Progress::Data(data)
        }
        Err(FetchError::Busy) => Progress::Fresh,
        Err(failure) => Progress::Failed(fetch_error(failure)),
    };
    server.fetch.news.push(id);
}

/// Gives back the files of data that is not sent.
fn release(core: &mut Core, data: &FetchData) {
    for chunk in &data.chunks {
        if let Chunk::Span(span) = chunk {
            core.release(*span);
        }
    }
}

/// Once a turn: looks at requests with news and at those whose patience has ended.
pub(crate) fn turn(server: &mut Server, cx: &mut Cx<'_>) {
    while let Some(&Reverse((ns, id))) = server.fetch.deadlines.peek()
        && ns <= cx.now.mono_ns
    {
        server.fetch.deadlines.pop();
        server.fetch.news.push(id);
    }
    for id in std::mem::take(&mut server.fetch.news) {
        if let Some(pending) = server.fetch.pending.remove(&id) {
            advance(server, cx, id, pending);
        }
    }
}

/// Answers every request with what there is.
pub(crate) fn end_all(server: &mut Server, cx: &mut Cx<'_>) {
    for (id, pending) in &mut server.fetch.pending {
        pending.deadline_ns = cx.now.mono_ns;
        server.fetch.news.push(*id);
    }
}

/// Forgets the requests of a connection that is gone.
pub(crate) fn forget(server: &mut Server, core: &mut Core, ids: &[u64]) {
    for id in ids {
        if let Some(pending) = server.fetch.pending.remove(id) {
            server.fetch.unwatch(&pending, *id);
            for partition in &pending.partitions {
                if let Progress::Data(data) = &partition.state {
                    release(core, data);
                }
            }
        }
    }
}
