//! One shard's server: bytes of connections in, requests to their handlers, responses out.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use ringlog_engine::core::Event;
use ringlog_engine::id::Now;
use ringlog_engine::recovery::RunInfo;
use ringlog_engine::shard::{App, CloseReason, ConnId, Cx};

use crate::api::txn::TxnMail;
use crate::api::{self, Handled, Request};
use crate::catalog::{Snapshot, Update};
use crate::config::Config;
use crate::conn::Conns;
use crate::control::{Controller, Done};
use crate::counters::ShardCounters;
use crate::input::RequestMemory;
use crate::log_gate::LogGate;
use crate::ops::Ops;
use crate::wire::header::{self, Prefix};
use crate::wire::{Malformed, versions};

/// How long a shutdown waits for clients to take their last responses, in milliseconds.
const DRAIN_MS_MAX: u64 = 2_000;
/// How long after something that was in a hurry everything is taken as it comes, in milliseconds.
const HURRY_MS: u64 = 100;
/// How often connections are looked over for idle ones, in milliseconds.
const SWEEP_MS: u64 = 1_000;

/// What a shard's server knows about its place in the process.
#[derive(Debug, Clone)]
pub struct Env {
    /// This shard, which is also its broker id.
    pub shard: u32,
    /// Shards of this process.
    pub shards: u32,
    /// Settings.
    pub config: Arc<Config>,
    /// This run.
    pub run: RunInfo,
    /// The cluster's id as clients see it.
    pub cluster_id: Arc<str>,
}

impl Env {
    /// Port of broker `node`.
    #[must_use]
    pub fn port(&self, node: u32) -> i32 {
        i32::from(self.config.port) + node as i32
    }
}

/// A message to a shard's server.
#[derive(Debug)]
pub enum Mail {
    /// The catalog changed; answered by [`Controller::applied`].
    Catalog(Arc<Update>),
    /// A request to the catalog is carried out, and every shard knows.
    Done(Done),
    /// From another shard, about transactions.
    Txn(TxnMail),
    /// The disk has become short of free space, or no longer is.
    SpaceShort(bool),
}

/// One shard's server.
pub struct Server {
    /// Its place.
    pub env: Env,
    /// The catalog as of the last update.
    pub catalog: Arc<Snapshot>,
    /// Clients and their responses.
    pub conns: Conns,
    /// What waits for the catalog.
    pub ops: Ops,
    pub(crate) produce: api::produce::State,
    pub(crate) fetch: api::fetch::State,
    pub(crate) list_offsets: api::list_offsets::State,
    pub(crate) delete_records: api::delete_records::State,
    pub(crate) groups: api::groups::State,
    pub(crate) txn: api::txn::State,
    pub(crate) producer_ids: api::init_producer_id::State,
    pub(crate) memory: RequestMemory,
    pub(crate) log: LogGate,
    counters: Arc<ShardCounters>,
    drain_until_ns: Option<u64>,
    sweep_ns: u64,
    /// Until then requests in a hurry are expected.
    hurry_until_ns: u64,
    drained: bool,
}

impl Server {
    /// A server without clients.
    #[must_use]
    pub fn new(env: Env, catalog: Arc<Snapshot>, controller: Controller) -> Self {
        Self {
            memory: RequestMemory::new(env.config.request_memory_bytes),
            producer_ids: api::init_producer_id::State::new(&env),
            groups: api::groups::State::new(&env, &catalog),
            txn: api::txn::State::new(&env, &catalog),
            fetch: api::fetch::State::new(&env),
            env,
            catalog,
            conns: Conns::default(),
            ops: Ops::new(controller),
            produce: api::produce::State::default(),
            list_offsets: api::list_offsets::State::default(),
            delete_records: api::delete_records::State::default(),
            log: LogGate::default(),
            counters: Arc::default(),
            drain_until_ns: None,
            sweep_ns: 0,
            hurry_until_ns: 0,
            drained: false,
        }
    }

    /// Publishes the shard's counters to `counters` from now on.
    #[must_use]
    pub fn counting(mut self, counters: Arc<ShardCounters>) -> Self {
        self.counters = counters;
        self
    }

    /// Handles the whole frames at the start of `data`, as long as the connection may go on; returns the bytes
    /// that were used up.
    pub(crate) fn frames(&mut self, cx: &mut Cx<'_>, id: ConnId, data: &[u8]) -> usize {
        let mut at = 0;
        loop {
            match self.conns.get(id) {
                Some(conn) if !conn.is_blocked() => {}
                // A request that is taken up again has its place already: what blocks new ones does not block it.
                Some(conn) if self.produce.is_resuming() && !conn.closing => {}
                Some(conn) if conn.closing => return data.len(),
                Some(_) => return at,
                None => return data.len(),
            }
            let Some((len, rest)) = data[at..].split_first_chunk() else {
                return at;
            };
            let len = i32::from_be_bytes(*len);
            if len < 0 || len as usize > self.env.config.request_bytes_max {
                self.refuse(cx, id, &format!("a request of {len} bytes"));
                return data.len();
            }
            let Some(frame) = rest.get(..len as usize) else {
                return at;
            };
            match self.request(cx, id, frame) {
                Ok(Handled::Done) => at += 4 + frame.len(),
                Ok(Handled::Parked) => return at,
                Err(malformed) => {
                    self.refuse(cx, id, &malformed.to_string());
                    return data.len();
                }
            }
        }
    }

    fn request(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: &[u8]) -> Result<Handled, Malformed> {
        let prefix = Prefix::read(frame)?;
        let unknown = || {
            Malformed::Decoder(format!(
                "api {} version {} is not supported",
                prefix.api_key, prefix.api_version
            ))
        };
        let api = versions::find(prefix.api_key).ok_or_else(unknown)?;
        if !api.serves(prefix.api_version) {
            if api.key == versions::API_VERSIONS {
                api::api_versions::unsupported(self, id, prefix);
                return Ok(Handled::Done);
            }
            return Err(unknown());
        }
        let (header, body) = header::split(frame, api)?;
        let Some(token) = self.produce.unpark(&mut self.conns, id, &header) else {
            return Ok(Handled::Done);
        };
        let request = Request {
            header,
            body,
            token,
        };
        if !api::is_patient(api.key) {
            self.hurry(cx.now);
        }
        api::dispatch(self, cx, &request)
    }

    /// Something was in a hurry: more of it is expected.
    pub(crate) fn hurry(&mut self, now: Now) {
        self.hurry_until_ns = now.after_ms(HURRY_MS);
    }

    /// Ends a connection that does not follow the protocol, as Kafka does.
    pub(crate) fn refuse(&mut self, cx: &mut Cx<'_>, id: ConnId, why: &str) {
        if let Some(conn) = self.conns.get(id) {
            conn.closing = true;
            let peer = conn.peer;
            self.log
                .warn(cx.now, format_args!("closing connection {peer}: {why}"));
            self.conns.mark(id);
        }
    }

    /// Sends ready responses and goes on with connections that were held up.
    fn flush(&mut self, cx: &mut Cx<'_>) {
        while let Some(id) = self.conns.next_dirty() {
            if self.conns.flush(id, cx.net) {
                cx.net.close(id);
                continue;
            }
            self.go_on(cx, id);
        }
    }

    fn sweep(&mut self, cx: &mut Cx<'_>) {
        if cx.now.mono_ns < self.sweep_ns {
            return;
        }
        self.sweep_ns = cx.now.after_ms(SWEEP_MS);
        let idle_ns = self
            .env
            .config
            .connections_max_idle_ms
            .saturating_mul(1_000_000);
        let stalled_ns = self.env.config.request_stall_ms.saturating_mul(1_000_000);
        let starving = self.memory.is_contended();
        let crowded = self.conns.unsent() >= self.env.config.response_bytes_max;
        let mut close = Vec::new();
        for (id, conn) in self.conns.iter_mut() {
            conn.rest();
            let silent_ns = cx.now.mono_ns.saturating_sub(conn.last_active_ns);
            let still_ns = conn.still_ns(cx.now.mono_ns);
            let why = if starving && conn.holds_memory_idly() && silent_ns > stalled_ns {
                "half a request, then silence, while others wait for memory"
            } else if crowded && still_ns > stalled_ns {
                "it does not take its responses while others wait for memory"
            } else if silent_ns > idle_ns && conn.is_idle() {
                ""
            } else {
                continue;
            };
            close.push((id, why, conn.peer));
        }
        for (id, why, peer) in close {
            if !why.is_empty() {
                self.log
                    .warn(cx.now, format_args!("closing connection {peer}: {why}"));
            }
            cx.net.abort(id);
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_>) {
        let Some(until_ns) = self.drain_until_ns else {
            return;
        };
        let quiet = self.produce.is_idle()
            && self.groups.is_idle()
            && self.txn.is_idle()
            && self.delete_records.is_idle()
            && self.conns.iter().all(|(_, c)| c.is_idle());
        self.drained = quiet || cx.now.mono_ns >= until_ns;
    }
}

impl App for Server {
    type Mail = Mail;

    fn on_accept(&mut self, cx: &mut Cx<'_>, conn: ConnId, peer: SocketAddr) {
        if self.drain_until_ns.is_some() || self.conns.len() >= self.env.config.connections_max {
            self.log.warn(
                cx.now,
                format_args!("refusing connection {peer}: max.connections reached or stopping"),
            );
            cx.net.abort(conn);
            return;
        }
        self.conns.open(conn, peer, cx.now.mono_ns);
    }

    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId, data: &[u8]) {
        self.received(cx, conn, data);
    }

    fn on_filled(&mut self, cx: &mut Cx<'_>, conn: ConnId, buf: BytesMut) {
        self.filled(cx, conn, buf);
    }

    fn on_sent(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: usize) {
        let core = &mut *cx.core;
        self.conns.on_sent(conn, bytes, |span| core.release(span));
        if self.conns.get(conn).is_some_and(|c| c.paused) {
            self.conns.mark(conn);
        }
        api::fetch::sent(self);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, reason: CloseReason) {
        tracing::debug!(conn = conn.0, ?reason, "connection closed");
        if let Some((closed, spans)) = self.conns.remove(conn) {
            for span in spans {
                cx.core.release(span);
            }
            api::fetch::forget(self, cx.core, &closed.fetches);
            self.memory.forget(closed);
            api::fetch::sent(self);
            self.wake_starved(cx);
        }
    }

    fn on_event(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Advanced(part) => self.fetch.advanced(part),
            Event::Fetched(id, result) => {
                let result = api::groups::fetched(self, cx, id, result);
                let result = result.and_then(|result| api::txn::fetched(self, cx, id, result));
                if let Some(result) = result {
                    api::fetch::fetched(self, cx, id, result);
                }
            }
            Event::Timed(id, result) => api::list_offsets::timed(self, cx, id, result),
            Event::Room => api::produce::room(self, cx),
            // The driver ends the process.
            Event::Fatal(_) => {}
        }
    }

    fn on_mail(&mut self, cx: &mut Cx<'_>, mail: Mail) {
        self.hurry(cx.now);
        match mail {
            Mail::Catalog(update) => self.apply(cx, &update),
            Mail::Done(done) => api::done(self, cx, done),
            Mail::Txn(mail) => api::txn::mail(self, cx, mail),
            Mail::SpaceShort(short) => cx.core.set_space_short(short),
        }
    }

    fn on_turn(&mut self, cx: &mut Cx<'_>) {
        api::produce::durable(self, cx);
        api::groups::turn(self, cx);
        api::txn::turn(self, cx);
        api::delete_records::turn(self, cx);
        api::fetch::turn(self, cx);
        self.flush(cx);
        self.sweep(cx);
        self.drain(cx);
        self.counters.publish(&cx.core.stats());
    }

    fn deadline_ns(&self) -> Option<u64> {
        if self.conns.has_dirty() || self.fetch.has_news() {
            return Some(0);
        }
        let sweep = (!self.conns.is_empty()).then_some(self.sweep_ns);
        [
            sweep,
            self.fetch.deadline_ns(),
            self.produce.deadline_ns(),
            self.groups.deadline_ns(),
            self.txn.deadline_ns(),
            self.delete_records.deadline_ns(),
            self.drain_until_ns.filter(|_| !self.drained),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// While offsets wait for those of others anyway, what makes them may, too.
    fn gathers(&self) -> bool {
        let until_ns = self.groups.lingers_until_ns();
        until_ns.is_some_and(|until_ns| self.hurry_until_ns <= until_ns)
    }

    fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        self.drain_until_ns = Some(cx.now.after_ms(DRAIN_MS_MAX));
        api::fetch::end_all(self, cx);
        api::txn::end(self, cx);
        api::groups::end(self, cx);
    }

    fn is_drained(&self) -> bool {
        self.drained
    }
}

impl Server {
    /// Takes over a changed catalog and brings this shard's partitions in line.
    fn apply(&mut self, cx: &mut Cx<'_>, update: &Update) {
        self.catalog = update.snapshot.clone();
        let (shard, shards) = (self.env.shard, self.env.shards);
        for change in &update.changes {
            change.carry_out(cx.core, cx.now, shard, shards);
            api::groups::changed(self, cx, change);
            api::txn::changed(self, cx, change);
        }
        self.delete_records.changed();
        self.ops.applied(update.version);
    }

    /// What waiting fetches and fetch sessions hold.
    #[must_use]
    pub fn fetches(&self) -> api::fetch::Gauges {
        self.fetch.gauges()
    }

    /// The time, for handlers that have no context.
    #[must_use]
    pub fn is_draining(&self, _now: Now) -> bool {
        self.drain_until_ns.is_some()
    }
}
