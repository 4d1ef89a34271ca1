//! One consumer group under simulated members that join, leave, crash, stall and lose connections, over a coordinator that is
//! killed and starts from its log, while topics come, grow and go. A connection keeps the order of what is on it; what was
//! sent over a lost one may still arrive, so requests come again, late and in another order.

mod member;

use std::collections::{BTreeSet, VecDeque};

use kafka_wire::OffsetCommitRequest;

use super::super::random::{Lines, Random, pop_due, send};
use super::*;
use member::{Member, Phase};

const STEP_MS: u64 = 50;
const FAULTS_MS: u64 = 120_000;
const CALM_MS: u64 = 40_000;

/// A partition of any topic.
type Place = (TopicId, i32);

enum Ask {
    Beat(ConsumerGroupHeartbeatRequest),
    Commit(OffsetCommitRequest),
    Fetch(OffsetFetchRequest),
}

struct World {
    seed: u64,
    random: Random,
    now_ms: u64,
    runs: u32,
    calm: bool,
    topics: FakeTopics,
    ids: u8,
    coordinator: Coordinator,
    log: Vec<(i32, Vec<u8>)>,
    /// Appends and when they are durable.
    disk: VecDeque<(u64, Append)>,
    members: Vec<Member>,
    requests: Lines<Ask>,
    responses: Lines<Response>,
    /// Who asked, by the number of the request.
    askers: BTreeMap<u64, StrBytes>,
    conns: u64,
    slots: u64,
    names: u64,
    /// What each member was told to read and has not said since that it does not.
    held: BTreeMap<StrBytes, BTreeSet<Place>>,
    seen: BTreeMap<(StrBytes, i32), i64>,
    acked: BTreeMap<(StrBytes, i32), i64>,
    // What happened, so that a world in which nothing does is found out.
    assignments: u64,
    commits: u64,
}

fn sim_config() -> GroupsConfig {
    GroupsConfig {
        consumer_session_timeout_ms: 6_000,
        consumer_heartbeat_interval_ms: 1_000,
        assignment_interval_ms: 500,
        ..config()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(5) as usize;
        let mut world = Self {
            seed,
            random,
            now_ms: 0,
            runs: 0,
            calm: false,
            topics: FakeTopics::new(),
            ids: 10,
            coordinator: coordinator(sim_config()),
            log: Vec::new(),
            disk: VecDeque::new(),
            members: (0..count).map(Member::new).collect(),
            requests: Lines::new(),
            responses: Lines::new(),
            askers: BTreeMap::new(),
            conns: 0,
            slots: 0,
            names: 0,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            acked: BTreeMap::new(),
            assignments: 0,
            commits: 0,
        };
        world.topics.put("tales", TopicId([8; 16]), 4);
        world.restart();
        world
    }

    fn now(&self) -> Now {
        Now {
            mono_ns: self.now_ms * 1_000_000,
            wall_ms: 1_700_000_000_000 + self.now_ms as i64,
        }
    }

    fn read_log(&self) -> Coordinator {
        let mut ids = u128::from(self.runs) << 64;
        let mut coordinator = Coordinator::new(sim_config(), move || {
            ids += 1;
            ids
        });
        let now = self.now();
        for partition in 0..4 {
            coordinator.own(partition);
            for (_, batch) in self.log.iter().filter(|(at, _)| *at == partition) {
                coordinator.replay(now, partition, batch).unwrap();
            }
            coordinator.loaded(now, partition);
        }
        coordinator
    }

    /// The process is killed: some of what was on its way to the disk got there, nobody hears of it.
    fn restart(&mut self) {
        self.runs += 1;
        let kept = self.random.below(self.disk.len() as u64 + 1) as usize;
        for (_, append) in self.disk.drain(..).take(kept) {
            self.log.push((append.partition, append.batch));
        }
        self.coordinator = self.read_log();
        self.requests.clear();
        self.responses.clear();
        for member in 0..self.members.len() {
            self.reconnect(member);
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

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        if !self.calm {
            self.faults();
        }
        for member in 0..self.members.len() {
            self.act(member);
        }
        self.deliver();
        self.coordinator.tick(self.now());
        self.write();
        self.collect();
        self.answer();
        self.check();
    }

    fn faults(&mut self) {
        if self.random.one_in(500) {
            self.restart();
        }
        let member = self.random.below(self.members.len() as u64) as usize;
        match self.random.below(500) {
            0 => self.crash(member),
            1..=4 => self.start(member),
            5..=6 => self.reconnect(member),
            7 => self.leave(member),
            // It stalls, as in a long garbage collection.
            8 => self.members[member].next_act_ms = self.now_ms + 8_000,
            9 => self.resubscribe(member),
            10 => self.change_topics(),
            _ => {}
        }
    }

    fn change_topics(&mut self) {
        let size = self
            .topics
            .topic("topic")
            .map_or(6, |topic| topic.partitions);
        self.ids += 1;
        match self.random.below(4) {
            0 if size < 12 => self.topics.put("topic", TOPIC, size + 1),
            1 if self.topics.topic("tales").is_some() => self.topics.remove("tales"),
            2 => self.topics.put("tales", TopicId([self.ids; 16]), 3),
            _ => self.topics.put("others", TopicId([self.ids; 16]), 5),
        }
    }

    fn send(&mut self, member: usize, ask: Ask) {
        self.slots += 1;
        let at_ms = self.now_ms + self.delay_ms();
        let member = &mut self.members[member];
        member.awaiting = Some(self.slots);
        member.asked_ms = self.now_ms;
        self.askers.insert(self.slots, member.id.clone());
        send(&mut self.requests, member.conn, at_ms, self.slots, ask);
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
                    version: if matches!(ask, Ask::Beat(_)) { 1 } else { 9 },
                    client_id: "sim",
                    client_host: "/sim",
                };
                let topics = &self.topics;
                let id_of = |name: &str, _| topics.topic(name).map(|topic| topic.id);
                match ask {
                    Ask::Beat(request) => {
                        note_released(&mut self.held, &request);
                        self.coordinator
                            .consumer_heartbeat(now, &call, &request, topics);
                    }
                    Ask::Commit(request) => self.coordinator.commit(now, &call, &request, id_of),
                    Ask::Fetch(request) => self.coordinator.fetch_offsets(&call, &request),
                }
            }
        }
    }

    fn write(&mut self) {
        let now = self.now();
        while let Some(append) = self.coordinator.next_append(now) {
            if !self.calm && self.random.one_in(50) {
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
            let asker = self.askers.remove(&token.slot);
            if let (Some(asker), Response::ConsumerHeartbeat(response)) = (asker, &response) {
                self.check_told(&asker, response);
            }
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

    fn group(&self) -> Option<&group::Group> {
        self.coordinator.groups.get(&StrBytes::from("g"))
    }

    // --- what must hold ---

    /// Nobody is told to read what another member was told and has not given up.
    fn check_told(&mut self, id: &StrBytes, response: &ConsumerGroupHeartbeatResponse) {
        let Some(assignment) = response
            .assignment
            .as_ref()
            .filter(|_| response.error_code == 0)
        else {
            return;
        };
        self.assignments += 1;
        let topics = assignment.topic_partitions.iter();
        let told: BTreeSet<Place> = topics
            .flat_map(|of| of.partitions.iter().map(|p| (topic_id(of.topic_id), *p)))
            .collect();
        let group = self.coordinator.groups.get(&StrBytes::from("g"));
        let consumer = group.and_then(|group| group.consumer.as_ref());
        let is_member = |id: &StrBytes| consumer.is_some_and(|consumer| consumer.has_member(id));
        self.held.retain(|id, _| is_member(id));
        for (other, held) in self.held.iter().filter(|(other, _)| *other != id) {
            let both = held.intersection(&told).next();
            assert_eq!(
                both, None,
                "seed {}, {} ms: {other:?} and {id:?}",
                self.seed, self.now_ms
            );
        }
        if is_member(id) {
            self.held.entry(id.clone()).or_default().extend(told);
        }
    }

    fn check(&mut self) {
        let groups = self.coordinator.groups.values();
        assert_eq!(
            self.coordinator.bytes(),
            groups.map(group::Group::bytes).sum::<usize>(),
            "seed {}",
            self.seed
        );
        if let Some(consumer) = self.group().and_then(|group| group.consumer.as_ref()) {
            consumer.assert_sound();
        }
        if self.coordinator.is_written() && self.random.one_in(20) {
            self.check_replay();
        }
        self.check_offsets();
    }

    /// What the log gives is what there is.
    fn check_replay(&self) {
        let again = self.read_log();
        let of = |coordinator: &Coordinator| {
            let group = coordinator.groups.get(&StrBytes::from("g"))?;
            let consumer = group.consumer.as_ref().map(|consumer| consumer.stored());
            Some((consumer, group.offsets.clone()))
        };
        assert_eq!(
            of(&again),
            of(&self.coordinator),
            "seed {}, {} ms",
            self.seed,
            self.now_ms
        );
    }

    /// No committed offset goes back, none that was acknowledged is lost.
    fn check_offsets(&mut self) {
        let group = self.coordinator.groups.get(&StrBytes::from("g"));
        let offsets = group.map(|group| &group.offsets);
        let stored = |(topic, partition): &(StrBytes, i32)| {
            let of_topic = offsets.and_then(|offsets| offsets.get(topic));
            let offset = of_topic.and_then(|of_topic| of_topic.get(partition));
            offset.map_or(0, |offset| offset.offset)
        };
        let (seed, now_ms) = (self.seed, self.now_ms);
        for (place, least) in self.acked.iter().chain(&self.seen) {
            let offset = stored(place);
            assert!(
                offset >= *least,
                "seed {seed}, {now_ms} ms: {place:?} is at {offset} after {least}"
            );
        }
        for (topic, of_topic) in offsets.into_iter().flatten() {
            for (partition, offset) in of_topic {
                self.seen.insert((topic.clone(), *partition), offset.offset);
            }
        }
    }

    /// Faults have stopped: everybody has come to one assignment, which has every partition of their topics once.
    fn check_end(&self) {
        let alive = self
            .members
            .iter()
            .filter(|member| member.phase != Phase::Off);
        let alive: Vec<&Member> = alive.collect();
        let seed = self.seed;
        if alive.is_empty() {
            return;
        }
        let consumer = self.group().and_then(|group| group.consumer.as_ref());
        let consumer = consumer.unwrap_or_else(|| panic!("seed {seed}: no group"));
        let epoch = consumer.settled_epoch();
        assert!(
            epoch.is_some(),
            "seed {seed}: {alive:#?} of {:#?}",
            consumer.stored()
        );
        assert_eq!(consumer.member_count(), alive.len(), "seed {seed}");
        let mut read: Vec<Place> = Vec::new();
        let mut wanted: BTreeSet<Place> = BTreeSet::new();
        for member in &alive {
            assert_eq!(member.phase, Phase::Live, "seed {seed}");
            assert_eq!(Some(member.epoch), epoch, "seed {seed}");
            read.extend(&member.reads);
            for name in member.topics(&self.topics) {
                if let Some(topic) = self.topics.topic(&name) {
                    wanted.extend((0..topic.partitions).map(|p| (topic.id, p)));
                }
            }
        }
        read.sort_unstable();
        assert_eq!(read, wanted.into_iter().collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(
            self.coordinator.timers.len(),
            alive.len(),
            "seed {seed}: only sessions are timed"
        );
        self.check_replay();
    }
}

/// A heartbeat that says what its member reads says that it reads nothing else.
fn note_released(
    held: &mut BTreeMap<StrBytes, BTreeSet<Place>>,
    request: &ConsumerGroupHeartbeatRequest,
) {
    let Some(held) = held.get_mut(&request.member_id) else {
        return;
    };
    if request.member_epoch <= 0 {
        held.clear();
    }
    if let Some(owned) = &request.topic_partitions {
        let owned = owned.iter();
        let owned: BTreeSet<Place> = owned
            .flat_map(|of| of.partitions.iter().map(|p| (topic_id(of.topic_id), *p)))
            .collect();
        held.retain(|place| owned.contains(place));
    }
}

/// How often a seed's world did what it is there to do: assignments, commits, runs.
fn live(seed: u64) -> (u64, u64, u32) {
    let mut world = World::new(seed);
    while world.now_ms < FAULTS_MS {
        world.step();
    }
    world.calm = true;
    while world.now_ms < FAULTS_MS + CALM_MS {
        world.step();
    }
    world.check_end();
    (world.assignments, world.commits, world.runs)
}

#[test]
fn consumer_groups_come_to_rest_and_lose_nothing() {
    let seeds = std::env::var("RINGLOG_GROUP_SEEDS").ok();
    let seeds = seeds.and_then(|n| n.parse().ok()).unwrap_or(40);
    let (mut assignments, mut commits, mut runs) = (0, 0, 0);
    for seed in 0..seeds {
        let lived = live(seed);
        assignments += lived.0;
        commits += lived.1;
        runs += u64::from(lived.2);
    }
    // A world in which nothing happens would prove nothing.
    assert!(assignments > 20 * seeds && commits > 50 * seeds && runs > 3 * seeds);
    println!("{seeds} seeds: {assignments} assignments, {commits} commits, {runs} runs");
}
