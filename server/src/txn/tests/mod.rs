//! A coordinator over a log in memory, with producers that repeat requests, crashes that lose what was not durable, and
//! markers that arrive late: every transaction is committed or aborted, never both, and what a producer was told holds.

use std::collections::{BTreeMap, VecDeque};

use kafka_wire::{EndTxnRequest, InitProducerIdRequest};
use ringlog_engine::batch::BatchHeader;
use ringlog_engine::id::Now;
use ringlog_engine::shard::ConnId;

use super::*;
use crate::conn::Token;
use crate::groups::{Append, partition_of};
use crate::message;
use crate::wire::error;

mod limits;

const ID: &str = "id";
const STEPS: u32 = 600;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// What a request is about, to judge its answer.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Init,
    End { producer: (i64, i16), commit: bool },
}

struct World {
    random: Random,
    now: Now,
    coordinator: Coordinator,
    partition: i32,
    log: Vec<Vec<u8>>,
    /// Appended, not durable.
    disk: VecDeque<Append>,
    /// Markers on their way.
    jobs: Vec<MarkJob>,
    /// The producer's own view.
    producer: Option<(i64, i16)>,
    asked: BTreeMap<u64, Asked>,
    tokens: u64,
    next_id: i64,
    /// The newest epoch that anybody was told.
    newest: (i64, i16),
    /// Decisions by producer id and epoch of their markers.
    decided: BTreeMap<(i64, i16), bool>,
    /// Ends that producers were told of.
    promised: u32,
    crashes: u32,
}

fn config() -> TxnConfig {
    TxnConfig {
        abort_interval_ms: 50,
        ..TxnConfig::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: Now {
                mono_ns: 1,
                wall_ms: 1_000_000,
            },
            coordinator: Coordinator::new(config()),
            partition: partition_of(ID, config().state_partitions),
            log: Vec::new(),
            disk: VecDeque::new(),
            jobs: Vec::new(),
            producer: None,
            asked: BTreeMap::new(),
            tokens: 0,
            next_id: 0,
            newest: (-1, -1),
            decided: BTreeMap::new(),
            promised: 0,
            crashes: 0,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.coordinator = Coordinator::new(config());
        self.coordinator.own(self.partition);
        for batch in &self.log {
            BatchHeader::validate(batch).expect("a batch");
            self.coordinator
                .replay(self.partition, batch)
                .expect("records");
        }
        self.coordinator.loaded(self.now, self.partition);
    }

    fn crash(&mut self) {
        self.crashes += 1;
        // What was not durable may have reached the disk, from the front.
        let kept = self.random.below(self.disk.len() as u64 + 1);
        self.log.extend(
            self.disk
                .drain(..)
                .take(kept as usize)
                .map(|append| append.batch),
        );
        self.jobs.clear();
        self.asked.clear();
        self.start();
    }

    fn token(&mut self, asked: Asked) -> Token {
        self.tokens += 1;
        self.asked.insert(self.tokens, asked);
        Token {
            conn: ConnId(1),
            slot: self.tokens,
        }
    }

    fn init(&mut self) {
        let token = self.token(Asked::Init);
        let request = message!(InitProducerIdRequest {
            transactional_id: Some(ID.into()),
            transaction_timeout_ms: 400,
            producer_id: -1,
            producer_epoch: -1,
        });
        let next = &mut self.next_id;
        self.coordinator.init(self.now, token, 4, &request, || {
            *next += 1;
            Some(*next)
        });
    }

    fn add(&mut self, producer: (i64, i16)) {
        let add = Add {
            origin: Origin::Shard { shard: 0, id: 0 },
            transactional_id: ID.into(),
            producer_id: producer.0,
            epoch: producer.1,
            verify_only: false,
            partitions: vec![("t".into(), self.random.below(3) as i32)],
        };
        self.coordinator.add(self.now, add);
    }

    fn end(&mut self, producer: (i64, i16)) {
        let commit = self.random.below(2) == 0;
        let token = self.token(Asked::End { producer, commit });
        let request = message!(EndTxnRequest {
            transactional_id: ID.into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            committed: commit,
        });
        let next = &mut self.next_id;
        self.coordinator.end(self.now, token, 5, &request, || {
            *next += 1;
            Some(*next)
        });
    }

    fn outputs(&mut self) {
        while let Some(output) = self.coordinator.next_output() {
            match output {
                Output::Mark(job) => self.jobs.push(job),
                Output::Answer { .. } => {}
                Output::Respond(token, response) => self.answered(token, &response),
            }
        }
    }

    fn answered(&mut self, token: Token, response: &Response) {
        let asked = self.asked.remove(&token.slot).expect("answered once");
        match (asked, response) {
            (Asked::Init, Response::Init(answer)) if answer.error_code == 0 => {
                let told = (answer.producer_id, answer.producer_epoch);
                assert!(told > self.newest, "{told:?} after {:?}", self.newest);
                self.newest = told;
                self.producer = Some(told);
            }
            (Asked::End { producer, commit }, Response::End(answer)) if answer.error_code == 0 => {
                let told = (answer.producer_id, answer.producer_epoch);
                // A promise: markers of that transaction say nothing else, whenever they are written.
                self.promised += 1;
                let epoch = producer.1 + 1;
                let said = *self.decided.entry((producer.0, epoch)).or_insert(commit);
                assert_eq!(said, commit, "{producer:?}");
                self.newest = self.newest.max(told);
                self.producer = Some(told);
            }
            (_, Response::Init(answer)) => assert_ne!(answer.error_code, 0),
            (_, Response::End(answer)) => {
                if answer.error_code == error::PRODUCER_FENCED {
                    self.producer = None;
                }
            }
            (_, other) => panic!("{other:?}"),
        }
    }

    fn step(&mut self) {
        self.now.mono_ns += 5_000_000;
        self.now.wall_ms += 5;
        match (self.random.below(20), self.producer) {
            (0, _) => self.crash(),
            (1, _) | (2..=8, None) => self.init(),
            (2..=6, Some(producer)) => self.add(producer),
            (7..=9, Some(producer)) => self.end(producer),
            (10..=13, _) => {
                if let Some(append) = self.disk.pop_front() {
                    self.log.push(append.batch);
                    self.coordinator.appended(self.now, append.id, Ok(()));
                }
            }
            (14..=16, _) if !self.jobs.is_empty() => {
                let at = self.random.below(self.jobs.len() as u64) as usize;
                let job = self.jobs.swap_remove(at);
                self.coordinator.marked(self.now, job.job);
            }
            _ => {}
        }
        self.coordinator.tick(self.now);
        self.outputs();
        while let Some(append) = self.coordinator.next_append(self.now) {
            self.disk.push_back(append);
        }
        for job in &self.jobs {
            // Every end raises the epoch, so it names one transaction.
            if let Some(said) = self.decided.get(&(job.producer_id, job.epoch)) {
                assert_eq!(*said, job.committed, "{job:?}");
            }
        }
    }
}

#[test]
fn a_decision_outlives_any_crash_and_epochs_never_go_back() {
    let (mut promised, mut crashes) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        promised += world.promised;
        crashes += world.crashes;
    }
    assert!(promised > 1_000 && crashes > 1_000, "{promised} {crashes}");
}
