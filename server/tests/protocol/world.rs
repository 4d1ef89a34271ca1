//! A whole server without threads, sockets or files: shards over the simulated disk, the control state machine over
//! a store in memory, and clients that hand in bytes and take bytes out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::{Bytes, BytesMut};
use kafka_wire::{KafkaMessage, RequestResponsePair};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};
use ringlog_engine::core::{ColdReads, Core, CoreConfig, Durability};
use ringlog_engine::id::{Now, Part};
use ringlog_engine::recovery::{RecoveryOptions, recover};
use ringlog_engine::shard::{CloseReason, ConnId, NetCommand, SendData, Shard};
use ringlog_engine::sim::{DiskConfig, Rng, SimDisk};
use ringlog_server::app::{Env, Mail, Server};
use ringlog_server::catalog::store::StoreError;
use ringlog_server::catalog::{Catalog, Plan, Snapshot};
use ringlog_server::config::Config;
use ringlog_server::control::{Command, Commit, Control, Controller};
use ringlog_server::wire::versions;

/// A store that forgets: the tests keep the snapshot.
struct NoStore;

impl Commit for NoStore {
    fn commit(&mut self, _plan: &Plan) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The client's end of a connection.
#[derive(Default)]
struct Client {
    shard: usize,
    received: BytesMut,
    fill: Option<(BytesMut, usize)>,
    to_send: VecDeque<u8>,
    paused: bool,
    closed: bool,
    unread: bool,
    unsent: usize,
}

/// A connection, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conn(u64);

pub struct World {
    pub disk: SimDisk,
    shards: Vec<Shard<Server>>,
    control: Control<NoStore>,
    commands: Receiver<Command>,
    _sender: Sender<Command>,
    mail: Vec<VecDeque<Mail>>,
    clients: HashMap<Conn, Client>,
    now_ns: u64,
    next_conn: u64,
    correlation: i32,
}

/// Journal small enough to be filled by a test.
const JOURNAL_FILE_BYTES: u64 = 256 << 10;

impl World {
    pub fn new(shards: u32, settings: &[(&str, &str)]) -> Self {
        let mut config = Config::default();
        for (name, value) in settings {
            config.set(name, value).expect("a valid setting");
        }
        let config = Arc::new(config);
        let mut disk = SimDisk::new(Rng::new(7), DiskConfig::default());
        let (sender, commands) = channel();
        let core_config = CoreConfig {
            shard: 0,
            shards,
            durability: Durability::Fsync,
            commits_in_flight: 2,
            journal_file_bytes: JOURNAL_FILE_BYTES,
            journal_files: 4,
            existing_journals: Vec::new(),
            memory_bytes: 64 << 20,
            max_batch_bytes: 100 << 10,
            cleaner: config.cleaner(1),
            inspect: config.inspect(),
            decompressed_bytes_max: config.number("ringlog.inspect.decompressed.max.bytes")
                as usize,
            cold_reads: ColdReads::Cached,
            producer_expiry_ms: config.number("producer.id.expiration.ms"),
            open_files: 64,
            reads_in_flight: 8,
            mutations: Default::default(),
        };
        let options = RecoveryOptions {
            shards,
            journal_file_len: core_config.journal_file_len(),
            new_dir_id: [1; 16],
            now_ms: 1_000,
            mutations: Default::default(),
        };
        let recovered = recover(&mut disk.blocking(None), &[], options).expect("an empty disk");
        let now_ns = 1_000_000_000;
        let snapshot = Arc::new(Snapshot::default());
        let mut list = Vec::new();
        for shard in 0..shards {
            let env = Env {
                shard,
                shards,
                config: config.clone(),
                run: recovered.run,
                cluster_id: "test-cluster".into(),
            };
            let core = CoreConfig {
                shard,
                ..core_config.clone()
            };
            let core = Core::new(core, recovered.run, Vec::new(), at(now_ns));
            let server = Server::new(
                env,
                snapshot.clone(),
                Controller::new(shard, sender.clone()),
            );
            list.push(Shard::new(core, server));
        }
        let mut ids = Rng::new(11);
        let new_id = move || {
            let mut id = [0; 16];
            ids.fill(&mut id);
            id
        };
        let catalog = Catalog::new(snapshot, config, shards, Box::new(new_id));
        Self {
            disk,
            control: Control::new(catalog, NoStore, list.len()),
            mail: list.iter().map(|_| VecDeque::new()).collect(),
            shards: list,
            commands,
            _sender: sender,
            clients: HashMap::new(),
            now_ns,
            next_conn: 0,
            correlation: 0,
        }
    }

    pub fn connect(&mut self, shard: usize) -> Conn {
        self.next_conn += 1;
        let conn = Conn(self.next_conn);
        self.clients.insert(
            conn,
            Client {
                shard,
                ..Client::default()
            },
        );
        let now = at(self.now_ns);
        self.shards[shard].accepted(now, ConnId(conn.0), ([127, 0, 0, 1], 5).into());
        self.settle();
        conn
    }

    /// The client goes away.
    pub fn disconnect(&mut self, conn: Conn) {
        let client = self.clients.remove(&conn).expect("connected");
        if !client.closed {
            let now = at(self.now_ns);
            self.shards[client.shard].closed(now, ConnId(conn.0), CloseReason::Peer);
        }
        self.settle();
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self, conn: Conn) -> bool {
        self.clients[&conn].closed
    }

    /// Whether the server reads from the connection.
    pub fn is_paused(&self, conn: Conn) -> bool {
        self.clients[&conn].paused
    }

    /// From now on the client reads nothing.
    pub fn stop_reading(&mut self, conn: Conn) {
        self.clients.get_mut(&conn).expect("connected").unread = true;
    }

    /// The client reads again.
    pub fn read_again(&mut self, conn: Conn) {
        let client = self.clients.get_mut(&conn).expect("connected");
        client.unread = false;
        let (shard, bytes) = (client.shard, std::mem::take(&mut client.unsent));
        let now = at(self.now_ns);
        self.shards[shard].sent(now, ConnId(conn.0), bytes);
        self.settle();
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, conn: Conn, bytes: &[u8]) {
        let client = self.clients.get_mut(&conn).expect("connected");
        client.to_send.extend(bytes);
        self.settle();
    }

    /// A request's frame with header and a correlation id of its own.
    pub fn frame<R: RequestResponsePair + KafkaEncode>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Vec<u8> {
        let mut body = BytesMut::new();
        request
            .encode_into(&mut body, ApiVersion::new(version))
            .expect("a request of that version");
        self.frame_of(
            R::API_KEY.value(),
            version,
            R::is_flexible(ApiVersion::new(version)),
            &body,
        )
    }

    /// A frame of any body.
    pub fn frame_of(&mut self, key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
        self.correlation += 1;
        let mut frame = vec![0; 4];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(self.correlation.to_be_bytes());
        frame.extend([0, 4]);
        frame.extend(b"test");
        if flexible {
            frame.push(0);
        }
        frame.extend(body);
        let len = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        frame
    }

    /// Sends a request without waiting for its response.
    pub fn send<R: RequestResponsePair + KafkaEncode>(
        &mut self,
        conn: Conn,
        version: i16,
        request: &R,
    ) -> i32 {
        let frame = self.frame(version, request);
        self.send_raw(conn, &frame);
        self.correlation
    }

    /// The next response on a connection, if it is there.
    pub fn take<R: RequestResponsePair>(
        &mut self,
        conn: Conn,
        version: i16,
    ) -> Option<R::Response> {
        let (_, body) = self.take_raw(conn, R::API_KEY.value(), version)?;
        let version = ApiVersion::new(version);
        let response = R::Response::decode_from_bytes(body, version, DecodeLimits::default());
        Some(response.expect("a response of that version"))
    }

    /// The next response's correlation id and body.
    pub fn take_raw(&mut self, conn: Conn, key: i16, version: i16) -> Option<(i32, Bytes)> {
        let client = self.clients.get_mut(&conn).expect("connected");
        let len = i32::from_be_bytes(*client.received.first_chunk()?) as usize;
        assert!(client.received.len() >= 4 + len, "responses are sent whole");
        let mut frame = client.received.split_to(4 + len).freeze().split_off(4);
        let correlation = i32::from_be_bytes(*frame.first_chunk().expect("a header"));
        let flexible = versions::find(key).is_some_and(|api| api.is_flexible(version));
        let header = if flexible && key != versions::API_VERSIONS {
            5
        } else {
            4
        };
        Some((correlation, frame.split_off(header)))
    }

    /// Sends a request and takes its response, waiting up to a minute of simulated time.
    pub fn call<R: RequestResponsePair + KafkaEncode>(
        &mut self,
        conn: Conn,
        version: i16,
        request: &R,
    ) -> R::Response {
        self.send(conn, version, request);
        for _ in 0..600 {
            if let Some(response) = self.take::<R>(conn, version) {
                return response;
            }
            self.pass_ms(100);
        }
        panic!("no response to {} {version}", <R as KafkaMessage>::NAME);
    }

    /// Lets time pass.
    pub fn pass_ms(&mut self, ms: u64) {
        let until = self.now_ns + ms * 1_000_000;
        loop {
            let next = self
                .shards
                .iter()
                .filter_map(Shard::deadline_ns)
                .chain(self.disk.next_due_ns())
                .min()
                .unwrap_or(until);
            if next > until {
                break;
            }
            // At least a microsecond, as on a real host: a deadline of 0 means "at once".
            self.now_ns = next.max(self.now_ns + 1_000);
            self.settle();
            if self.now_ns >= until {
                break;
            }
        }
        self.now_ns = self.now_ns.max(until);
        self.settle();
    }

    pub fn server(&self, shard: usize) -> &Server {
        self.shards[shard].app()
    }

    pub fn core(&self, shard: usize) -> &Core {
        self.shards[shard].core()
    }

    /// Whether requests that reach `shard` may wait to be taken together.
    pub fn gathers(&self, shard: usize) -> bool {
        self.shards[shard].gathers()
    }

    /// A partition that `shard` has.
    pub fn part(&self, shard: usize, topic: &str, index: i32) -> Part {
        let topic = self.server(shard).catalog.topic(topic);
        let key = topic.and_then(|t| t.key(index)).expect("is there");
        self.core(shard).lookup(key).expect("is here")
    }

    pub fn shutdown(&mut self) {
        for shard in &mut self.shards {
            shard.shutdown(at(self.now_ns));
        }
        self.settle();
    }

    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(Shard::is_finished)
    }

    /// Turns at the present time until nothing moves.
    fn settle(&mut self) {
        while self.turns() {}
    }

    fn turns(&mut self) -> bool {
        let mut moved = self.feed_clients();
        while let Some((shard, completion)) = self.disk.complete(self.now_ns) {
            self.shards[shard as usize].completed(at(self.now_ns), completion);
            moved = true;
        }
        for shard in 0..self.shards.len() {
            while let Some(mail) = self.mail[shard].pop_front() {
                self.shards[shard].mail(at(self.now_ns), mail);
                moved = true;
            }
            self.shards[shard].turn(at(self.now_ns));
            assert!(self.shards[shard].fatal().is_none());
            while let Some(op) = self.shards[shard].next_op() {
                self.disk.submit(shard as u32, self.now_ns, op);
            }
            while let Some(command) = self.shards[shard].next_command() {
                self.carry_out(shard, command);
                moved = true;
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            let mail = &mut self.mail;
            self.control
                .handle(command, &mut |to, letter| mail[to].push_back(letter));
            moved = true;
        }
        moved
    }

    /// Hands the server what clients sent, in pieces, unless it does not read.
    fn feed_clients(&mut self) -> bool {
        let mut moved = false;
        let mut ids: Vec<Conn> = self.clients.keys().copied().collect();
        ids.sort_by_key(|conn| conn.0);
        for conn in ids {
            let client = self.clients.get_mut(&conn).expect("listed");
            if client.closed || client.to_send.is_empty() {
                continue;
            }
            let (shard, now) = (client.shard, at(self.now_ns));
            if let Some((mut buf, want)) = client.fill.take() {
                let n = want.min(client.to_send.len());
                buf.extend(client.to_send.drain(..n));
                moved = true;
                if n < want {
                    client.fill = Some((buf, want - n));
                } else {
                    self.shards[shard].filled(now, ConnId(conn.0), buf);
                }
            } else if !client.paused {
                let n = client.to_send.len().min(32 << 10);
                let piece: Vec<u8> = client.to_send.drain(..n).collect();
                self.shards[shard].received(now, ConnId(conn.0), &piece);
                moved = true;
            }
        }
        moved
    }

    fn carry_out(&mut self, shard: usize, command: NetCommand) {
        let now = at(self.now_ns);
        match command {
            NetCommand::Send { conn, data } => {
                let Some(client) = self.clients.get_mut(&Conn(conn.0)) else {
                    return;
                };
                let len = data.len();
                match data {
                    SendData::Bytes(bytes) => client.received.extend_from_slice(&bytes),
                    SendData::Slice(slice) => client.received.extend_from_slice(&slice),
                    SendData::Span(span) => {
                        let bytes = self
                            .disk
                            .span(shard as u32, span.file, span.offset, span.len);
                        client
                            .received
                            .extend_from_slice(&bytes.expect("an open file"));
                    }
                }
                if client.unread {
                    client.unsent += len;
                } else {
                    self.shards[shard].sent(now, conn, len);
                }
            }
            NetCommand::Close { conn } | NetCommand::Abort { conn } => {
                if let Some(client) = self.clients.get_mut(&Conn(conn.0)) {
                    client.closed = true;
                    self.shards[shard].closed(now, conn, CloseReason::Local);
                }
            }
            NetCommand::Pause { conn } => self.pause(conn, true),
            NetCommand::Resume { conn } => self.pause(conn, false),
            NetCommand::Fill { conn, buf, len } => {
                assert!(buf.capacity() - buf.len() >= len);
                if let Some(client) = self.clients.get_mut(&Conn(conn.0)) {
                    client.fill = Some((buf, len));
                }
            }
        }
    }

    fn pause(&mut self, conn: ConnId, paused: bool) {
        if let Some(client) = self.clients.get_mut(&Conn(conn.0)) {
            assert_ne!(client.paused, paused, "paused or resumed twice");
            client.paused = paused;
        }
    }
}

fn at(now_ns: u64) -> Now {
    Now {
        mono_ns: now_ns,
        wall_ms: 1_700_000_000_000 + (now_ns / 1_000_000) as i64,
    }
}
