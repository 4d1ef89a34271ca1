//! One group under simulated members of both protocols that join, leave, crash, stall and lose connections, over a coordinator that is
//! killed and starts from its log, while topics come, grow and go. A connection keeps the order of what is on it; what was
//! sent over a lost one may still arrive, so requests come again, late and in another order.

mod member;
mod old;

use std::collections::{BTreeSet, VecDeque};

use kafka_wire::OffsetCommitRequest;

use super::super::random::{Lines, Random, pop_due, send};
use super::*;
use member::{BEAT_MS, Member, Phase, REVOCATION_MS};
use old::Stage;

const STEP_MS: u64 = 50;
const FAULTS_MS: u64 = 120_000;
const CALM_MS: u64 = 40_000;

/// A partition of any topic.
type Place = (TopicId, i32);

enum Ask {
    Beat(ConsumerGroupHeartbeatRequest),
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
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
    /// Changes of protocol under members of both.
    turns: u64,
    was_consumer: bool,
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
        // Of some worlds all members begin under the same protocol.
        let old_in_four = random.below(5);
        let members = (0..count).map(|at| Member::new(at, random.below(4) < old_in_four));
        let members = members.collect();
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
            members,
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
            turns: 0,
            was_consumer: false,
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
                    version: match ask {
                        Ask::Beat(_) => 1,
                        Ask::Sync(_) | Ask::Leave(_) => 5,
                        _ => 9,
                    },
                    client_id: "sim",
                    client_host: "/sim",
                };
                let topics = &self.topics;
                let id_of = |name: &str, _| topics.topic(name).map(|topic| topic.id);
                match ask {
                    Ask::Join(request) => {
                        // Members of the classic protocol have given up everything when they join.
                        self.held.remove(&request.member_id);
                        self.coordinator.join(now, &call, &request, topics);
                    }
                    Ask::Sync(request) => self.coordinator.sync(now, &call, &request, topics),
                    Ask::Heartbeat(request) => {
                        self.coordinator.heartbeat(now, &call, &request, topics);
                    }
                    Ask::Leave(request) => self.coordinator.leave(now, &call, &request, topics),
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
            // An answer that nobody waits for any more tells nobody.
            let mut members = self.members.iter();
            let is_awaited = members.any(|member| member.awaiting == Some(token.slot));
            if let (true, Some(asker), Some(told)) = (is_awaited, asker, self.told(&response)) {
                self.check_told(&asker, told);
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

    /// What an answer tells its member to read, if it does.
    fn told(&self, response: &Response) -> Option<BTreeSet<Place>> {
        match response {
            Response::ConsumerHeartbeat(response) if response.error_code == 0 => {
                let topics = response.assignment.as_ref()?.topic_partitions.iter();
                let places =
                    topics.flat_map(|of| of.partitions.iter().map(|p| (topic_id(of.topic_id), *p)));
                Some(places.collect())
            }
            Response::Sync(response) if response.error_code == 0 => {
                let id = self.topics.topic("topic")?.id;
                let partitions = embedded::read_assignment(&response.assignment).into_iter();
                Some(partitions.map(|partition| (id, partition)).collect())
            }
            _ => None,
        }
    }

    /// Nobody is told to read what another member was told and has not given up.
    fn check_told(&mut self, id: &StrBytes, told: BTreeSet<Place>) {
        self.assignments += 1;
        let group = self.coordinator.groups.get(&StrBytes::from("g"));
        let is_member = |id: &StrBytes| {
            group.is_some_and(|group| {
                let consumer = group.consumer.as_ref();
                group.has_member(id) || consumer.is_some_and(|consumer| consumer.has_member(id))
            })
        };
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
        let group = self.group();
        let has_members = group.is_some_and(|group| !group.is_without_members());
        let is_consumer = group.is_some_and(|group| group.consumer.is_some());
        self.turns += u64::from(has_members && is_consumer != self.was_consumer);
        self.was_consumer = is_consumer;
    }

    /// What the log gives is what there is.
    fn check_replay(&self) {
        let again = self.read_log();
        let of = |coordinator: &Coordinator| {
            let group = coordinator.groups.get(&StrBytes::from("g"))?;
            assert!(
                group.members().len() == 0 || !group.is_shared(),
                "seed {}: of both protocols at once",
                self.seed
            );
            let consumer = group.consumer.as_ref().map(|consumer| consumer.stored());
            // A classic group is stored when its leader has assigned.
            let is_stored = consumer.is_some() || !group.offsets.is_empty();
            is_stored.then(|| (consumer, group.offsets.clone()))
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
        let Some(group) = self.group() else {
            panic!("seed {seed}: no group");
        };
        let (epoch, members) = match &group.consumer {
            Some(consumer) => (consumer.settled_epoch(), consumer.member_count()),
            None => (Some(group.generation), group.members().len()),
        };
        assert!(epoch.is_some(), "seed {seed}: {alive:#?} of {group:#?}");
        assert_eq!(
            members,
            alive.len(),
            "seed {seed}: {alive:#?} of {group:#?}"
        );
        let is_old = alive.iter().all(|member| member.is_old);
        assert_eq!(is_old, group.consumer.is_none(), "seed {seed}");
        let mut read: Vec<Place> = Vec::new();
        let mut wanted: BTreeSet<Place> = BTreeSet::new();
        for member in &alive {
            assert_eq!(member.phase, Phase::Live, "seed {seed}: {member:#?}");
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

/// How often a seed's world did what it is there to do: assignments, commits, runs, changes of protocol.
fn live(seed: u64) -> [u64; 4] {
    let mut world = World::new(seed);
    while world.now_ms < FAULTS_MS {
        world.step();
    }
    world.calm = true;
    while world.now_ms < FAULTS_MS + CALM_MS {
        world.step();
    }
    world.check_end();
    [
        world.assignments,
        world.commits,
        world.runs.into(),
        world.turns,
    ]
}

#[test]
fn consumer_groups_come_to_rest_and_lose_nothing() {
    let seeds = std::env::var("RINGLOG_GROUP_SEEDS").ok();
    let seeds = seeds.and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut lived = [0; 4];
    for seed in 0..seeds {
        let of_seed = live(seed);
        lived.iter_mut().zip(of_seed).for_each(|(sum, n)| *sum += n);
    }
    let [assignments, commits, runs, turns] = lived;
    println!(
        "{seeds} seeds: {assignments} assignments, {commits} commits, {runs} runs, {turns} changes of protocol"
    );
    // A world in which nothing happens would prove nothing.
    assert!(assignments > 20 * seeds && commits > 50 * seeds && runs > 3 * seeds);
    assert!(turns > seeds);
}
