//! The simulated process: shards over one disk, clients, and a clock that jumps from event to event.
//!
//! One thread, one order: everything that happens follows from the seed.

use std::collections::{BTreeMap, BTreeSet};

use super::consumer::Consumer;
use super::damage::Vouched;
use super::disk::SimDisk;
use super::model::PartitionModel;
use super::plan::Plan;
use super::producer::Producer;
use super::rng::Rng;
use super::run::{RunOptions, Summary};
use super::trace::Trace;
use crate::core::{Core, Event, Fatal, ReadId, TimedOffset};
use crate::id::{FrameSeq, Now, PartitionKey};
use crate::recovery::{PartitionMeta, RunInfo};
use crate::store::SegmentName;

/// Simulated time after which something that waits is taken to wait for ever.
pub(super) const PATIENCE_NS: u64 = 900 * 1_000_000_000;
/// More between two steps of everybody else while everything is being read back.
const AUDIT_REST_NS: u64 = 100_000_000;
/// Turns in a row, each due at once by the core's own deadline, after which the core is taken to spin: a round over
/// the most partitions copies for fewer.
const SPIN_TURNS: u32 = 100;
/// No story is longer.
const TURNS_MAX: u64 = 300_000;

/// How a run of the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Crash,
    /// Shut down, and a durable checkpoint says so.
    Clean,
    /// Shut down on a failing disk: whether the checkpoint that says so is there is for the next start to see.
    Either,
}

/// Who acts next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    Producer(usize),
    Consumer(usize),
    Admin,
}

/// One shard of the running process.
pub(super) struct Shard {
    pub(super) core: Core,
    /// Last durable frame that was observed at a turn's end: acks went out.
    pub(super) durable: FrameSeq,
}

/// A look-up by time that waits for its answer.
#[derive(Debug, Clone)]
pub(super) struct TimeQuery {
    pub(super) key: PartitionKey,
    pub(super) timestamp_ms: i64,
    /// Where the log began when it was asked.
    pub(super) log_start: i64,
    /// Where its durable part ended.
    pub(super) high_watermark: i64,
    /// The right answer then.
    pub(super) expected: Option<TimedOffset>,
    pub(super) since_ns: u64,
}

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) options: RunOptions,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) now: Now,
    pub(super) disk: SimDisk,
    pub(super) shards: Vec<Shard>,
    /// The control plane's durable record of partitions.
    pub(super) catalog: BTreeMap<PartitionKey, PartitionMeta>,
    pub(super) models: BTreeMap<PartitionKey, PartitionModel>,
    pub(super) producers: Vec<Producer>,
    pub(super) consumers: Vec<Consumer>,
    pub(super) time_queries: BTreeMap<(u32, ReadId), TimeQuery>,
    /// Partitions to look at when the turn ends.
    pub(super) touched: BTreeSet<PartitionKey>,
    pub(super) fatal: Option<Fatal>,
    /// Faults of this life: errors are then to be expected.
    pub(super) faulty: bool,
    /// The disk has been full since the shards started.
    pub(super) full_since_start: bool,
    /// A clean shutdown is under way.
    pub(super) draining: bool,
    pub(super) steps: u64,
    pub(super) last_run: Option<RunInfo>,
    /// How the last run that served ended.
    pub(super) stopped: Stopped,
    /// The disk's failed changes when the shards started.
    pub(super) failures_at_start: u64,
    /// Everything is being read back: nobody falls idle meanwhile.
    pub(super) auditing: bool,
    /// Recovery has failed or crashed since.
    pub(super) disturbed: bool,
    /// A bit was flipped on the device: recovery may find it.
    pub(super) flipped: bool,
    /// For each shard, what damage must not take unnoticed.
    pub(super) vouched: BTreeMap<u32, Vouched>,
    /// Calls of the last whole recovery: where the next one may crash.
    pub(super) recovery_calls: u64,
    /// The segments of each partition as of the last shutdown.
    pub(super) segments: BTreeMap<PartitionKey, Vec<SegmentName>>,
    pub(super) summary: Summary,
    agenda: BTreeMap<(u64, u64), Actor>,
    agenda_next: u64,
    spins: u32,
    turns: u64,
}

impl World {
    pub(super) fn new(seed: u64, options: RunOptions) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng);
        plan.bend(&options);
        if options.compact {
            plan.compact(&mut rng);
        }
        let disk = SimDisk::new(rng.fork(), plan.disk);
        let mut producers: Vec<Producer> = (0..plan.producers)
            .map(|i| Producer::draw(&mut rng, i, plan.max_batch_bytes))
            .collect();
        if plan.compacts {
            producers.iter_mut().for_each(|p| p.overwrites(&mut rng));
        }
        if plan.transactions {
            producers.iter_mut().for_each(|p| p.may_transact(&mut rng));
        }
        let mut trace = Trace::new(options.trace);
        trace.note("plan", [seed, 0, 0], || format!("{plan:#?}"));
        Self {
            plan,
            options,
            rng,
            trace,
            now: Now {
                mono_ns: 1_000_000_000,
                wall_ms: 1_700_000_000_000,
            },
            disk,
            shards: Vec::new(),
            catalog: BTreeMap::new(),
            models: BTreeMap::new(),
            producers,
            consumers: Vec::new(),
            time_queries: BTreeMap::new(),
            touched: BTreeSet::new(),
            fatal: None,
            faulty: false,
            full_since_start: false,
            draining: false,
            steps: 0,
            last_run: None,
            stopped: Stopped::Crash,
            failures_at_start: 0,
            disturbed: false,
            auditing: false,
            flipped: false,
            vouched: BTreeMap::new(),
            recovery_calls: 30,
            segments: BTreeMap::new(),
            summary: Summary::default(),
            agenda: BTreeMap::new(),
            agenda_next: 0,
            spins: 0,
            turns: 0,
        }
    }

    /// Lets `actor` act in `delay_ns`.
    pub(super) fn schedule(&mut self, delay_ns: u64, actor: Actor) {
        self.agenda_next += 1;
        let at = (self.now.mono_ns + delay_ns, self.agenda_next);
        self.agenda.insert(at, actor);
    }

    /// As [`World::schedule`], after a pause as clients make.
    pub(super) fn schedule_after_pause(&mut self, actor: Actor) {
        let delay = self.rng.between(1_000, self.plan.pause_max_ns);
        let audits = matches!(actor, Actor::Consumer(i) if self.consumers[i].is_audit());
        // While everything is read back, which a slow disk makes long, the others go on, but hardly.
        let rest_ns = if self.auditing && !audits {
            AUDIT_REST_NS
        } else {
            0
        };
        self.schedule(delay + rest_ns, actor);
    }

    /// Forgets what was scheduled for `actor`.
    pub(super) fn unschedule(&mut self, actor: Actor) {
        self.agenda.retain(|_, planned| *planned != actor);
    }

    pub(super) fn clear_agenda(&mut self) {
        self.agenda.clear();
    }

    /// Every client waits for `delay_ns` more: the shards fall idle.
    pub(super) fn postpone_all(&mut self, delay_ns: u64) {
        let agenda = std::mem::take(&mut self.agenda);
        self.agenda = agenda
            .into_iter()
            .map(|((at, order), actor)| ((at + delay_ns, order), actor))
            .collect();
    }

    /// Jumps to the next thing that happens, lets it happen, and gives every shard its turn.
    pub(super) fn advance(&mut self) {
        let deadline = self
            .shards
            .iter()
            .filter_map(|s| s.core.deadline_ns())
            .min();
        let client = self.agenda.keys().next().map(|&(at, _)| at);
        let outside = [self.disk.next_due_ns(), client]
            .into_iter()
            .flatten()
            .min();
        let next = [outside, deadline].into_iter().flatten().min();
        let Some(next) = next else {
            panic!("invariant: nothing will ever happen again");
        };
        // A turn takes time too.
        let turn_ns = self.rng.between(500, 10_000);
        let before = self.now.mono_ns;
        self.set_time(next.max(before + turn_ns));
        let alone = outside.is_none_or(|at| at > self.now.mono_ns);
        let at_once = self.now.mono_ns == before + turn_ns;
        self.spins = if alone && at_once { self.spins + 1 } else { 0 };
        assert!(
            self.spins < SPIN_TURNS,
            "invariant: the core spins: its deadline is at once and nothing happens"
        );
        self.turns += 1;
        assert!(
            self.turns < TURNS_MAX,
            "invariant: {TURNS_MAX} turns and no end"
        );
        self.deliver_completions();
        self.act();
        self.turn();
    }

    fn set_time(&mut self, mono_ns: u64) {
        self.now.mono_ns = mono_ns;
        self.now.wall_ms = 1_700_000_000_000 + (mono_ns / 1_000_000) as i64;
        self.trace.now_ns = mono_ns;
    }

    fn deliver_completions(&mut self) {
        while let Some((shard, completion)) = self.disk.complete(self.now.mono_ns) {
            let failed = u64::from(completion.result.is_err());
            let numbers = [u64::from(shard), completion.id.0, failed];
            self.trace
                .note("done", numbers, || format!("{shard} {completion:?}"));
            self.shards[shard as usize]
                .core
                .complete(self.now, completion);
        }
        self.deliver_events();
    }

    fn act(&mut self) {
        while let Some((&(at, order), &actor)) = self.agenda.iter().next() {
            if at > self.now.mono_ns || self.fatal.is_some() {
                return;
            }
            self.agenda.remove(&(at, order));
            match actor {
                Actor::Producer(i) => self.produce(i),
                Actor::Consumer(i) => self.consume(i),
                Actor::Admin => self.administer(),
            }
            self.steps += 1;
        }
    }

    /// The process is about to end: what its shards did goes into the summary.
    pub(super) fn count_compactions(&mut self) {
        let stats = self.shards.iter().map(|s| s.core.stats());
        self.summary.compactions += stats.map(|s| s.compactions).sum::<u64>();
    }

    /// What the run did.
    pub(super) fn summarise(mut self, damage_found: bool) -> Summary {
        self.summary.hash = self.trace.hash();
        self.summary.steps = self.trace.steps();
        self.summary.damage_found = damage_found;
        self.summary
    }

    pub(super) fn turn(&mut self) {
        for shard in &mut self.shards {
            shard.core.poll(self.now);
        }
        self.deliver_events();
        for index in 0..self.shards.len() {
            while let Some(op) = self.shards[index].core.next_op() {
                self.trace.note("submit", [index as u64, op.id.0, 0], || {
                    format!("{index} {op:?}")
                });
                self.disk.submit(index as u32, self.now.mono_ns, op);
            }
        }
        // After a fatal failure nothing is acknowledged any more.
        if self.fatal.is_none() {
            self.observe();
        }
    }

    fn deliver_events(&mut self) {
        for index in 0..self.shards.len() {
            while let Some(event) = self.shards[index].core.next_event() {
                self.handle(index as u32, event);
            }
        }
    }

    fn handle(&mut self, shard: u32, event: Event) {
        match event {
            Event::Advanced(part) => {
                self.trace
                    .note("advanced", [u64::from(shard), u64::from(part.0), 0], || {
                        format!("{shard} {part:?}")
                    });
                self.advanced(shard, part);
            }
            Event::Fetched(id, result) => self.fetched(shard, id, result),
            Event::Timed(id, result) => self.timed(shard, id, result),
            Event::Room => {
                self.trace
                    .note("room", [u64::from(shard), 0, 0], || format!("{shard}"));
                self.room(shard);
            }
            Event::Fatal(fatal) => {
                self.trace.note("fatal", [u64::from(shard), 0, 0], || {
                    format!("{shard} {fatal}")
                });
                assert!(self.faulty, "invariant: {fatal} on a disk without faults");
                self.fatal = Some(fatal);
            }
        }
    }
}
