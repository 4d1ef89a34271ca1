//! Fetch: batches from many partitions, from memory at once, from the disk when the reads are done, or, when there
//! is nothing yet, once enough has arrived or the client's patience ends.

mod deadlines;
mod duplicates;
mod pending;
mod respond;
mod session;
mod watch;

use std::sync::Arc;

use hashbrown::HashMap;
use ringlog_engine::core::{Core, FetchData, FetchError, FetchSpec, ReadId, Reply};
use ringlog_engine::id::Part;
use ringlog_engine::shard::Cx;

use super::{Request, check_epoch, fetch_error, local};
use crate::app::{Env, Server};
use crate::wire::fetch::{FetchRequest, FetchTopic};
use crate::wire::{Malformed, error};

use deadlines::Deadlines;
use pending::{PartitionFetch, Pending, Progress, Scope, TopicFetch, release};
use session::{Sessions, SlotState, Watched};
use watch::{Watcher, Watchers};

/// Epochs of requests that name all their partitions (KIP-227): this one opens a session.
const INITIAL_EPOCH: i32 = 0;
/// This one does not.
const FINAL_EPOCH: i32 = -1;

/// Requests that are not answered yet, and the sessions of clients.
#[derive(Debug)]
pub(crate) struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    watchers: Watchers,
    sessions: Sessions,
    /// Partitions of requests that wait for the disk.
    reads: HashMap<ReadId, (u64, usize)>,
    deadlines: Deadlines,
    /// Requests to look at in this turn.
    news: Vec<u64>,
    /// Requests that found too many reads in flight.
    crowded_out: Vec<u64>,
    /// Requests that found too many responses waiting for their clients.
    held_back: Vec<u64>,
}

/// How much of a response there is memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowance {
    /// All that was asked for.
    Full,
    /// A little, so that clients that do read are served: memory is short.
    Small,
    /// Nothing.
    None,
}

/// Bytes of records in a response while memory is short, unless the first batch is larger.
const SMALL_BYTES: usize = 64 << 10;

/// How much there is of what fetches hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that wait.
    pub waiting: usize,
    /// Deadlines that are kept, those of requests that are over among them.
    pub deadlines: usize,
    /// Sessions.
    pub sessions: usize,
    /// Partitions of all sessions.
    pub session_partitions: usize,
    /// Partitions that somebody waits for.
    pub watched_partitions: usize,
}

impl State {
    pub(crate) fn new(env: &Env) -> Self {
        let seed = (u64::from(env.run.run) << 32) + (u64::from(env.shard) << 24);
        Self {
            next: 0,
            pending: HashMap::new(),
            watchers: Watchers::default(),
            sessions: Sessions::new(env.config.fetch_sessions_max, seed),
            reads: HashMap::new(),
            deadlines: Deadlines::default(),
            news: Vec::new(),
            crowded_out: Vec::new(),
            held_back: Vec::new(),
        }
    }

    /// What is held now.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            waiting: self.pending.len(),
            deadlines: self.deadlines.len(),
            sessions: self.sessions.len(),
            session_partitions: self.sessions.partitions(),
            watched_partitions: self.watchers.len(),
        }
    }

    /// A watched partition has news.
    pub(crate) fn advanced(&mut self, part: Part) {
        for watcher in self.watchers.take(part) {
            match watcher {
                Watcher::Request { id, at } => {
                    if let Some(pending) = self.pending.get_mut(&id) {
                        pending.moved(at);
                    }
                    self.notify(id);
                }
                Watcher::Session { id, slot } => self.session_advanced(id, slot),
            }
        }
    }

    fn session_advanced(&mut self, id: i32, slot: usize) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let waiting = session.waiting;
        let Some(found) = session.slots.get_mut(slot) else {
            return;
        };
        found.watched = false;
        match found.state {
            SlotState::Ready => {}
            SlotState::Idle => session.rouse(slot),
            SlotState::Active(at) => {
                if let Some(pending) = waiting.and_then(|id| self.pending.get_mut(&id)) {
                    pending.moved(at);
                }
            }
        }
        if let Some(waiting) = waiting {
            self.notify(waiting);
        }
    }

    /// Has a request looked at in this turn.
    fn notify(&mut self, id: u64) {
        if let Some(pending) = self.pending.get_mut(&id)
            && !pending.noted
        {
            pending.noted = true;
            self.news.push(id);
        }
    }

    /// Whether requests wait to be looked at.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// When the next request's patience ends.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.deadlines.next_ns()
    }

    /// Has the core tell when a request's partition moves.
    fn watch(&mut self, core: &mut Core, pending: &mut Pending, id: u64, at: usize) {
        let partition = &mut pending.partitions[at];
        let Some(part) = partition.part else { return };
        let watcher = match pending.scope {
            Scope::Full { .. } => {
                if std::mem::replace(&mut partition.watched, true) {
                    return;
                }
                Watcher::Request { id, at }
            }
            Scope::Incremental { session: id } => {
                let slot = partition.slot;
                let found = self.sessions.get(id).and_then(|s| s.slots.get_mut(slot));
                if found.is_none_or(|s| std::mem::replace(&mut s.watched, true)) {
                    return;
                }
                Watcher::Session { id, slot }
            }
        };
        self.watchers.add(core, part, watcher);
    }

    fn unwatch(&mut self, left: Vec<Watched>) {
        for (part, id, slot) in left {
            self.watchers.remove(part, Watcher::Session { id, slot });
        }
    }

    /// A request is over: nobody is to wake it. Partitions of its session that it leaves `unanswered` are looked at
    /// by the next.
    fn end(&mut self, id: u64, pending: &Pending, unanswered: bool) {
        match pending.scope {
            Scope::Full { .. } => {
                for (at, partition) in pending.partitions.iter().enumerate() {
                    if let (Some(part), true) = (partition.part, partition.watched) {
                        self.watchers.remove(part, Watcher::Request { id, at });
                    }
                }
            }
            Scope::Incremental { session } => {
                if let Some(session) = self.sessions.get(session) {
                    session.waiting = None;
                    for partition in pending.partitions.iter().filter(|_| unanswered) {
                        session.settle(partition.slot, false);
                    }
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
    let mut body = FetchRequest::parse(request.body, version)?;
    duplicates::collapse(&mut body.topics);
    let scope = match scope(server, cx, &body) {
        Ok(scope) => scope,
        Err(code) => {
            respond::refuse(server, request.token, code);
            return Ok(());
        }
    };
    let wait_ms = body.max_wait_ms.max(0) as u64;
    let limit = server.env.config.fetch_bytes_max;
    let max_bytes = (body.max_bytes.max(0) as usize).min(limit);
    let mut pending = Pending {
        token: request.token,
        scope,
        read_committed: body.isolation_level == 1,
        // No response has more than the most. (`KafkaApis.handleFetchRequest`)
        min_bytes: (body.min_bytes.max(0) as usize).min(max_bytes),
        max_bytes,
        deadline_ns: cx.now.after_ms(wait_ms),
        partitions: Vec::new(),
        fresh: Vec::new(),
        found: Vec::new(),
        ended: Vec::new(),
        bytes: 0,
        reads: 0,
        failures: 0,
        noted: false,
    };
    if matches!(pending.scope, Scope::Full { .. }) {
        for topic in &body.topics {
            for wanted in &topic.partitions {
                let epoch = wanted.current_leader_epoch;
                let part = find(server, cx.core, topic.name, wanted.index)
                    .and_then(|part| check_epoch(&server.env, epoch).map(|()| part));
                pending.failures += usize::from(part.is_err());
                pending.partitions.push(PartitionFetch {
                    index: wanted.index,
                    offset: wanted.offset,
                    max_bytes: wanted.max_bytes.max(0) as usize,
                    leader_epoch: epoch,
                    part: part.ok(),
                    state: part.map_or_else(Progress::Failed, |_| Progress::Fresh),
                    cut: false,
                    watched: false,
                    slot: 0,
                });
            }
        }
        pending.fresh = (0..pending.partitions.len()).collect();
    }
    let id = server.fetch.next;
    server.fetch.next += 1;
    advance(server, cx, id, pending);
    Ok(())
}

/// Whether a request is full or goes on in a session. (`FetchManager.newContext`)
fn scope(server: &mut Server, cx: &mut Cx<'_>, body: &FetchRequest<'_>) -> Result<Scope, i16> {
    let full = |topics: &[FetchTopic<'_>], opens_session| Scope::Full {
        topics: topics
            .iter()
            .map(|topic| TopicFetch {
                name: Arc::from(topic.name),
                partitions: topic.partitions.len(),
            })
            .collect(),
        opens_session,
    };
    let id = body.session_id;
    if matches!(body.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
        close_session(server, cx, id);
        return Ok(full(&body.topics, body.session_epoch == INITIAL_EPOCH));
    }
    let waiting = server.fetch.sessions.expect(id, body.session_epoch)?;
    if let Some(earlier) = waiting.waiting {
        // The client did not wait for its last response: that one finds the session's epoch changed.
        interrupt(server, cx, earlier, error::INVALID_FETCH_SESSION_EPOCH);
    }
    let mut left = Vec::new();
    let state = &mut server.fetch;
    let (topics, forgotten) = (&body.topics, &body.forgotten);
    let goes_on = state
        .sessions
        .update(id, topics, forgotten, cx.now.mono_ns, &mut left);
    state.unwatch(left);
    Ok(if goes_on {
        Scope::Incremental { session: id }
    } else {
        full(topics, false)
    })
}

/// Ends a session, if it is there, and the request that waits in it.
fn close_session(server: &mut Server, cx: &mut Cx<'_>, id: i32) {
    let mut left = Vec::new();
    let waiting = server.fetch.sessions.remove(id, &mut left);
    server.fetch.unwatch(left);
    if let Some(waiting) = waiting {
        interrupt(server, cx, waiting, error::FETCH_SESSION_ID_NOT_FOUND);
    }
}

/// Answers a request that waits with an error.
fn interrupt(server: &mut Server, cx: &mut Cx<'_>, id: u64, code: i16) {
    if let Some(pending) = server.fetch.pending.remove(&id) {
        pending.release(cx.core);
        server.fetch.end(id, &pending, true);
        if let Some(conn) = server.conns.get(pending.token.conn) {
            conn.fetches.retain(|other| *other != id);
        }
        respond::refuse(server, pending.token, code);
    }
}

fn find(server: &Server, core: &Core, topic: &str, index: i32) -> Result<Part, i16> {
    let key = local(&server.env, &server.catalog, topic, index)?;
    core.lookup(key).ok_or(error::UNKNOWN_TOPIC_OR_PARTITION)
}

/// Reads what can be read and answers the request if that is enough; else it goes on waiting.
fn advance(server: &mut Server, cx: &mut Cx<'_>, id: u64, mut pending: Pending) {
    pending.noted = false;
    let allowance = allowance(server, &pending);
    let crowded = match allowance {
        Allowance::None => {
            server.fetch.held_back.push(id);
            true
        }
        Allowance::Full | Allowance::Small => read(server, cx, id, &mut pending, allowance),
    };
    let asks_nothing = matches!(pending.scope, Scope::Full { .. }) && pending.partitions.is_empty();
    let wanted = match allowance {
        Allowance::Small => pending.min_bytes.min(SMALL_BYTES),
        _ => pending.min_bytes,
    };
    let enough = (pending.has(wanted) && !crowded)
        || cx.now.mono_ns >= pending.deadline_ns
        || pending.failures > 0
        || asks_nothing;
    if pending.reads == 0 && enough {
        if pending.bytes > 0 {
            server.hurry(cx.now);
        }
        server.fetch.end(id, &pending, false);
        if let Some(conn) = server.conns.get(pending.token.conn) {
            conn.fetches.retain(|other| *other != id);
        }
        respond::respond(server, cx, pending);
        return;
    }
    if pending.reads == 0 {
        pending.hold(cx.core);
    }
    let ended = std::mem::take(&mut pending.ended);
    let held = pending.found.clone();
    for at in ended.into_iter().chain(held) {
        let partition = &pending.partitions[at];
        let grows = match partition.state {
            Progress::AtEnd => true,
            // Where nothing could be taken, what comes may change that.
            Progress::Held(bytes) => bytes == 0 || !partition.cut,
            _ => false,
        };
        if grows {
            server.fetch.watch(cx.core, &mut pending, id, at);
        }
    }
    if crowded && allowance != Allowance::None {
        server.fetch.crowded_out.push(id);
    }
    wait(server, id, pending);
}

/// What a request's response may take now. Up to the limit all; up to twice the limit a little, for connections that
/// have taken responses and left none; beyond it nothing. So clients that never read cannot use up the memory of all,
/// and those that do read are served.
fn allowance(server: &mut Server, pending: &Pending) -> Allowance {
    let (unsent, limit) = (server.conns.unsent(), server.env.config.response_bytes_max);
    if unsent < limit {
        return Allowance::Full;
    }
    let conn = server.conns.get(pending.token.conn);
    let takes = conn.is_some_and(|conn| conn.has_taken_all());
    if takes && unsent < 2 * limit {
        Allowance::Small
    } else {
        Allowance::None
    }
}

/// Responses have left: requests that were held back may go on.
pub(crate) fn sent(server: &mut Server) {
    let state = &mut server.fetch;
    if !state.held_back.is_empty()
        && server.conns.unsent() < 2 * server.env.config.response_bytes_max
    {
        for id in std::mem::take(&mut state.held_back) {
            state.notify(id);
        }
    }
}

fn wait(server: &mut Server, id: u64, pending: Pending) {
    if let Scope::Incremental { session } = pending.scope
        && let Some(session) = server.fetch.sessions.get(session)
    {
        session.waiting = Some(id);
    }
    if let Some(conn) = server.conns.get(pending.token.conn)
        && !conn.fetches.contains(&id)
    {
        conn.fetches.push(id);
        server.fetch.deadlines.add(pending.deadline_ns, id);
    }
    let state = &mut server.fetch;
    state.pending.insert(id, pending);
    let waiting = &state.pending;
    state
        .deadlines
        .tidy(waiting.len(), |id| waiting.contains_key(&id));
}

/// Asks the core for what may be there; returns whether it had to turn a read away.
fn read(
    server: &mut Server,
    cx: &mut Cx<'_>,
    id: u64,
    pending: &mut Pending,
    allowance: Allowance,
) -> bool {
    let mut crowded = false;
    let max_bytes = match allowance {
        Allowance::Full => pending.max_bytes,
        _ => pending.max_bytes.min(SMALL_BYTES),
    };
    let mut places = pending.take_fresh().into_iter();
    loop {
        let left = max_bytes.saturating_sub(pending.bytes);
        if left == 0 && pending.bytes > 0 {
            pending.fresh.extend(places);
            return crowded;
        }
        let next = places.next();
        let Some(at) = next.or_else(|| next_of_session(server, cx.core, pending)) else {
            return crowded;
        };
        crowded |= !read_partition(server, cx, (id, at), pending, left);
    }
}

/// Takes the next ready partition of the request's session into the request; its place there.
fn next_of_session(server: &mut Server, core: &Core, pending: &mut Pending) -> Option<usize> {
    let Scope::Incremental { session: id } = pending.scope else {
        return None;
    };
    let at = pending.partitions.len();
    let session = server.fetch.sessions.get(id)?;
    let place = session.next_ready(at)?;
    let slot = session.slots.get(place)?;
    let (index, offset, max_bytes) = (slot.index, slot.offset, slot.max_bytes);
    let epoch = slot.leader_epoch;
    let part = match slot.part {
        // A watch on a partition that is gone is about to be answered: until then its place stays as it is.
        Some(part) if slot.watched || core.offsets(part).is_some() => Ok(part),
        _ => {
            let topic = slot.topic.clone();
            find(server, core, &topic, index)
        }
    };
    if let Some(slot) = server
        .fetch
        .sessions
        .get(id)
        .and_then(|s| s.slots.get_mut(place))
    {
        slot.part = part.ok();
    }
    let part = part.and_then(|part| check_epoch(&server.env, epoch).map(|()| part));
    pending.failures += usize::from(part.is_err());
    pending.partitions.push(PartitionFetch {
        index,
        offset,
        max_bytes,
        leader_epoch: epoch,
        part: part.ok(),
        state: part.map_or_else(Progress::Failed, |_| Progress::Fresh),
        cut: false,
        watched: false,
        slot: place,
    });
    Some(at)
}

/// Asks the core for one partition's batches; false when it has too many reads in flight.
fn read_partition(
    server: &mut Server,
    cx: &mut Cx<'_>,
    (id, at): (u64, usize),
    pending: &mut Pending,
    left: usize,
) -> bool {
    let partition = &mut pending.partitions[at];
    let (Some(part), Progress::Fresh) = (partition.part, &partition.state) else {
        return true;
    };
    let spec = FetchSpec {
        offset: partition.offset,
        max_bytes: partition.max_bytes.min(left),
        min_one: pending.bytes == 0,
        spans: server.env.config.spans,
        committed: pending.read_committed,
    };
    let state = match cx.core.fetch(cx.now, part, spec) {
        Ok(Reply::Ready(data)) if data.bytes == 0 => at_end(cx.core, part, spec),
        Ok(Reply::Ready(data)) => Progress::Data(data),
        Ok(Reply::Pending(read)) => {
            server.fetch.reads.insert(read, (id, at));
            Progress::Reading(spec.max_bytes.max(1))
        }
        Err(FetchError::Busy) => {
            pending.fresh.push(at);
            return false;
        }
        Err(failure) => Progress::Failed(fetch_error(failure)),
    };
    match &state {
        Progress::Data(data) => {
            partition.cut = data.end < readable_end(cx.core, part, spec.committed);
            pending.bytes += data.bytes;
            pending.found.push(at);
        }
        Progress::Reading(asked) => {
            pending.bytes += asked;
            pending.reads += 1;
        }
        Progress::Failed(_) => pending.failures += 1,
        _ => {}
    }
    let ended = matches!(state, Progress::AtEnd);
    partition.state = state;
    match pending.scope {
        // What is idle in a session is watched whether a request waits or not.
        Scope::Incremental { .. } if ended => server.fetch.watch(cx.core, pending, id, at),
        Scope::Full { .. } if ended => pending.ended.push(at),
        _ => {}
    }
    true
}

/// Nothing came back: because nothing is there yet, or because the first batch is larger than what was left.
fn at_end(core: &Core, part: Part, spec: FetchSpec) -> Progress {
    if core.offsets(part).is_none() {
        Progress::Failed(error::UNKNOWN_TOPIC_OR_PARTITION)
    } else if spec.offset < readable_end(core, part, spec.committed) {
        Progress::Data(FetchData::default())
    } else {
        Progress::AtEnd
    }
}

/// Nothing at or behind this offset is served; 0 if the partition is gone.
fn readable_end(core: &Core, part: Part, committed: bool) -> i64 {
    core.offsets(part).map_or(0, |offsets| match committed {
        true => offsets.last_stable,
        false => offsets.high_watermark,
    })
}

/// A read from the disk is done.
pub(crate) fn fetched(
    server: &mut Server,
    cx: &mut Cx<'_>,
    read: ReadId,
    result: Result<FetchData, FetchError>,
) {
    for id in std::mem::take(&mut server.fetch.crowded_out) {
        server.fetch.notify(id);
    }
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
            let committed = pending.read_committed;
            let end = |part| readable_end(cx.core, part, committed);
            partition.cut = data.end < partition.part.map_or(0, end);
            pending.bytes += data.bytes;
            pending.found.push(at);
            Progress::Data(data)
        }
        Err(FetchError::Busy) => {
            pending.fresh.push(at);
            Progress::Fresh
        }
        Err(failure) => {
            pending.failures += 1;
            Progress::Failed(fetch_error(failure))
        }
    };
    server.fetch.notify(id);
}

/// Once a turn: looks at requests with news and at those whose patience has ended.
pub(crate) fn turn(server: &mut Server, cx: &mut Cx<'_>) {
    while let Some(id) = server.fetch.deadlines.take_due(cx.now.mono_ns) {
        server.fetch.notify(id);
    }
    for id in std::mem::take(&mut server.fetch.news) {
        if let Some(pending) = server.fetch.pending.remove(&id) {
            advance(server, cx, id, pending);
        }
    }
}

/// Answers every request with what there is.
pub(crate) fn end_all(server: &mut Server, cx: &mut Cx<'_>) {
    let mut ids = Vec::new();
    for (id, pending) in &mut server.fetch.pending {
        pending.deadline_ns = cx.now.mono_ns;
        ids.push(*id);
    }
    for id in ids {
        server.fetch.notify(id);
    }
}

/// Forgets the requests of a connection that is gone.
pub(crate) fn forget(server: &mut Server, core: &mut Core, ids: &[u64]) {
    for id in ids {
        if let Some(pending) = server.fetch.pending.remove(id) {
            pending.release(core);
            server.fetch.end(*id, &pending, true);
        }
    }
}
