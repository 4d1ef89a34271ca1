//! One group under simulated members that join, leave, crash, lose connections and are late, over a coordinator that
//! restarts from its log. Requests of one connection keep their order, as TCP does; nothing else does.

mod members;

use std::collections::{BTreeMap, VecDeque};

use super::random::{Lines, Random, pop_due, send};
use super::*;

const STEP_MS: u64 = 50;
const FAULTS_MS: u64 = 150_000;
const CALM_MS: u64 = 150_000;
const PARTITIONS: usize = 7;
const GROUP: &str = "g";
/// A client gives a request up after this; a JoinGroup may take as long as a rebalance.
const PATIENCE_MS: u64 = 40_000;

enum Ask {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    Commit(OffsetCommitRequest),
    Fetch(OffsetFetchRequest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off,
    /// Is to send a JoinGroup.
    Unjoined,
    Joining,
    Syncing,
    Fetching,
    Stable,
}

struct Client {
    instance: Option<StrBytes>,
    phase: Phase,
    member_id: StrBytes,
    generation: i32,
    /// Owned partitions and the next offset to commit.
    owned: BTreeMap<i32, i64>,
    conn: u64,
    next_act_ms: u64,
    asked_ms: u64,
    awaiting: Option<u64>,
}

struct World {
    seed: u64,
    random: Random,
    now_ms: u64,
    run: u32,
    coordinator: Coordinator,
    log: Vec<(i32, Vec<u8>)>,
    /// Appends and when they are durable.
    disk: VecDeque<(u64, Append)>,
    clients: Vec<Client>,
    /// By connection: when they arrive.
    requests: Lines<Ask>,
    responses: Lines<Response>,
    conns: u64,
    slots: u64,
    calm: bool,
    // What has been seen, for the invariants.
    leaders: BTreeMap<(u32, i32), StrBytes>,
    owners: BTreeMap<(i32, i32), String>,
    seen: BTreeMap<i32, i64>,
    acked: BTreeMap<i32, i64>,
    commits: u64,
}

fn sim_config() -> GroupsConfig {
    GroupsConfig {
        initial_rebalance_delay_ms: 1_000,
        ..config()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(5) as usize;
        let client = |i: usize| Client {
            instance: (i.is_multiple_of(3)).then(|| format!("instance-{i}").into()),
            phase: Phase::Unjoined,
            member_id: StrBytes::default(),
            generation: -1,
            owned: BTreeMap::new(),
            conn: 0,
            next_act_ms: 0,
            asked_ms: 0,
            awaiting: None,
        };
        let mut world = Self {
            seed,
            random,
            now_ms: 0,
            run: 0,
            coordinator: coordinator(sim_config()),
            log: Vec::new(),
            disk: VecDeque::new(),
            clients: (0..count).map(client).collect(),
            requests: BTreeMap::new(),
            responses: BTreeMap::new(),
            conns: 0,
            slots: 0,
            calm: false,
            leaders: BTreeMap::new(),
            owners: BTreeMap::new(),
            seen: BTreeMap::new(),
            acked: BTreeMap::new(),
            commits: 0,
        };
        world.restart();
        world
    }

    fn now(&self) -> Now {
        Now {
            mono_ns: self.now_ms * 1_000_000,
            wall_ms: 1_700_000_000_000 + self.now_ms as i64,
        }
    }

    /// The process is killed: some of what was on its way to the disk got there, nobody hears of it.
    fn restart(&mut self) {
        self.run += 1;
        let kept = self.random.below(self.disk.len() as u64 + 1) as usize;
        for (_, append) in self.disk.drain(..).take(kept) {
            self.log.push((append.partition, append.batch));
        }
        let mut ids = u128::from(self.run) << 64;
        self.coordinator = Coordinator::new(sim_config(), move || {
            ids += 1;
            ids
        });
        let now = self.now();
        for partition in 0..4 {
            self.coordinator.own(partition);
            for (_, batch) in self.log.iter().filter(|(at, _)| *at == partition) {
                self.coordinator.replay(now, partition, batch).unwrap();
            }
            self.coordinator.loaded(now, partition);
        }
        self.requests.clear();
        self.responses.clear();
        for client in 0..self.clients.len() {
            self.reconnect(client);
        }
    }

    fn reconnect(&mut self, client: usize) {
        self.conns += 1;
        let client = &mut self.clients[client];
        // The old connection's responses are lost; what it sent may still arrive. Not so commits: one that arrives
        // behind a newer one takes the offset back, which is the client's doing.
        self.responses.remove(&client.conn);
        if let Some(sent) = self.requests.get_mut(&client.conn) {
            sent.retain(|(_, _, ask)| !matches!(ask, Ask::Commit(_)));
        }
        client.conn = self.conns;
        client.awaiting = None;
        match client.phase {
            Phase::Off => {}
            Phase::Stable => {}
            _ => client.phase = Phase::Unjoined,
        }
    }

    fn delay_ms(&mut self) -> u64 {
        if self.calm {
            return self.random.below(20);
        }
        match self.random.below(20) {
            0 => self.random.below(8_000),
            1..4 => self.random.below(1_000),
            _ => self.random.below(50),
        }
    }

    fn ask(&mut self, client: usize, ask: Ask) {
        self.slots += 1;
        let at_ms = self.now_ms + self.delay_ms();
        let conn = self.clients[client].conn;
        send(&mut self.requests, conn, at_ms, self.slots, ask);
        self.clients[client].awaiting = Some(self.slots);
        self.clients[client].asked_ms = self.now_ms;
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        if !self.calm {
            self.faults();
        }
        for client in 0..self.clients.len() {
            self.act(client);
        }
        self.deliver();
        self.coordinator.tick(self.now());
        self.write();
        self.collect();
        self.answer();
        let groups = self.coordinator.groups.values();
        assert_eq!(
            self.coordinator.bytes(),
            groups.map(group::Group::bytes).sum::<usize>()
        );
    }

    fn faults(&mut self) {
        if self.random.one_in(600) {
            self.restart();
        }
        let client = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(400) {
            // It crashes, to start anew without an id.
            0 => self.clients[client].phase = Phase::Off,
            1..=3 if self.clients[client].phase == Phase::Off => {
                self.clients[client].phase = Phase::Unjoined;
                self.clients[client].member_id = StrBytes::default();
                self.reconnect(client);
            }
            5 => self.reconnect(client),
            6 => self.leave(client),
            // It stalls, as in a long garbage collection.
            7 => self.clients[client].next_act_ms = self.now_ms + 15_000,
            _ => {}
        }
    }

    fn deliver(&mut self) {
        let now = self.now();
        let conns: Vec<u64> = self.requests.keys().copied().collect();
        for conn in conns {
            while let Some((_, slot, ask)) = pop_due(&mut self.requests, conn, self.now_ms) {
                let call = Call {
                    token: Token {
                        conn: ConnId(conn),
                        slot,
                    },
                    version: 9,
                    client_id: "sim",
                    client_host: "/sim",
                };
                let coordinator = &mut self.coordinator;
                match ask {
                    Ask::Join(request) => {
                        with_topics(|topics| coordinator.join(now, &call, &request, topics))
                    }
                    Ask::Sync(request) => {
                        with_topics(|topics| coordinator.sync(now, &call, &request, topics))
                    }
                    Ask::Heartbeat(request) => {
                        with_topics(|topics| coordinator.heartbeat(now, &call, &request, topics))
                    }
                    Ask::Leave(request) => {
                        with_topics(|topics| coordinator.leave(now, &call, &request, topics))
                    }
                    Ask::Commit(request) => coordinator.commit(now, &call, &request, topics),
                    Ask::Fetch(request) => coordinator.fetch_offsets(&call, &request),
                }
            }
        }
    }

    fn write(&mut self) {
        let now = self.now();
        while let Some(append) = self.coordinator.next_append(now) {
            if !self.calm && self.random.one_in(100) {
                let failure = Err(AppendFailure::Unavailable);
                self.coordinator.appended(now, append.id, failure);
                continue;
            }
            let at_ms = self.now_ms + self.delay_ms() / 4;
            let at_ms = self.disk.back().map_or(at_ms, |(last, _)| at_ms.max(*last));
            self.disk.push_back((at_ms, append));
        }
        while self.disk.front().is_some_and(|(at, _)| *at <= self.now_ms) {
            if let Some((_, append)) = self.disk.pop_front() {
                self.log.push((append.partition, append.batch));
                self.coordinator.appended(now, append.id, Ok(()));
            }
        }
    }

    fn collect(&mut self) {
        while let Some((token, response)) = self.coordinator.next_response() {
            self.check(&response);
            let at_ms = self.now_ms + self.delay_ms();
            send(
                &mut self.responses,
                token.conn.0,
                at_ms,
                token.slot,
                response,
            );
        }
    }

    /// What must hold of every answer, whether it arrives or not.
    fn check(&mut self, response: &Response) {
        if let Response::Join(join) = response
            && join.error_code == 0
        {
            let key = (self.run, join.generation_id);
            let group = &self.coordinator.groups[&StrBytes::from(GROUP)];
            // A static leader that comes back leads on under another id.
            let leader = group.member(&join.leader);
            if join.skip_assignment || leader.is_some_and(|member| member.instance_id.is_some()) {
                self.leaders.insert(key, join.leader.clone());
            }
            let leader = self
                .leaders
                .entry(key)
                .or_insert_with(|| join.leader.clone());
            assert_eq!(
                *leader, join.leader,
                "seed {}: one leader a generation",
                self.seed
            );
            let is_leader = join.leader == join.member_id;
            assert_eq!(is_leader, !join.members.is_empty(), "seed {}", self.seed);
            assert!(join.generation_id <= group.generation);
        }
    }

    /// Committed offsets as they are: none ever goes back, none that was acknowledged is lost.
    fn check_offsets(&mut self) {
        let group = self.coordinator.groups.get(&StrBytes::from(GROUP));
        let offsets = group.and_then(|group| group.offsets.get(&StrBytes::from("topic")));
        let offset = |partition| {
            let offset = offsets.and_then(|offsets| offsets.get(partition));
            offset.map_or(0, |offset| offset.offset)
        };
        for (partition, acked) in &self.acked {
            let (seed, now_ms) = (self.seed, self.now_ms);
            assert!(
                offset(partition) >= *acked,
                "seed {seed}, {now_ms} ms: partition {partition} is at {}, {acked} was acknowledged",
                offset(partition)
            );
        }
        for (partition, seen) in &self.seen {
            assert!(offset(partition) >= *seen, "seed {}: went back", self.seed);
        }
        for (partition, offset) in offsets.into_iter().flatten() {
            self.seen.insert(*partition, offset.offset);
        }
    }

    /// Faults have stopped: everyone who stays is stable, in one generation that covers every partition.
    fn check_end(&self) {
        let alive = self.clients.iter().filter(|c| c.phase != Phase::Off);
        let alive: Vec<&Client> = alive.collect();
        let Some(first) = alive.first() else {
            return;
        };
        let mut owned: Vec<i32> = Vec::new();
        for client in &alive {
            assert_eq!(client.phase, Phase::Stable, "seed {}", self.seed);
            assert_eq!(client.generation, first.generation, "seed {}", self.seed);
            owned.extend(client.owned.keys());
        }
        owned.sort_unstable();
        let all: Vec<i32> = (0..PARTITIONS as i32).collect();
        assert_eq!(owned, all, "seed {}", self.seed);
        let group = &self.coordinator.groups[&StrBytes::from(GROUP)];
        assert_eq!(group.members().len(), alive.len(), "seed {}", self.seed);
        assert_eq!(
            self.coordinator.timers.len(),
            alive.len(),
            "seed {}: only sessions are timed",
            self.seed
        );
    }
}

/// How often a seed's world did what it is there to do: generations, commits, runs.
fn live(seed: u64) -> (usize, u64, u32) {
    let mut world = World::new(seed);
    while world.now_ms < FAULTS_MS {
        world.step();
        world.check_offsets();
    }
    world.calm = true;
    while world.now_ms < FAULTS_MS + CALM_MS {
        world.step();
        world.check_offsets();
    }
    world.check_end();
    (world.leaders.len(), world.commits, world.run)
}

#[test]
fn groups_come_to_rest_and_lose_nothing() {
    let seeds = std::env::var("RINGLOG_GROUP_SEEDS").ok();
    let seeds = seeds.and_then(|n| n.parse().ok()).unwrap_or(200);
    let (mut generations, mut commits, mut runs) = (0, 0, 0);
    for seed in 0..seeds {
        let lived = live(seed);
        generations += lived.0 as u64;
        commits += lived.1;
        runs += u64::from(lived.2);
    }
    // A world in which nothing happens would prove nothing.
    assert!(generations > 5 * seeds && commits > 50 * seeds && runs > 3 * seeds);
    println!("{seeds} seeds: {generations} generations, {commits} commits, {runs} runs");
}
