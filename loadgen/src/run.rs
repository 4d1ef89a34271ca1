//! One run: topics, threads, intervals, counters.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::ack_log::{self, AckLog, AckLogError, AckLogHeader};
use crate::cluster::{ClusterError, ClusterHandle, Edge, TopicSpec};
use crate::consumer::{self, ConsumeOptions, Consumer, From as StartAt, Until};
use crate::coordinator::TransactionOptions;
use crate::counters::{Sample, Usage};
use crate::descriptors::{self, TooFew};
use crate::hist_log::HistogramLog;
use crate::idle::{IdleConnections, IdleError, IdleResult};
use crate::payload::SplitMix64;
use crate::producer::{ProduceOptions, Producer};
use crate::progress::Progress;
use crate::protocol::ControlError;
use crate::shared::{Clock, Message, Outcome, Role, Shared};
use crate::stats::{Counts, Schedule};
use crate::template::{TemplateError, TemplateRing};
use crate::verify::Findings;

/// Time for threads to start before load begins.
const START_DELAY: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The subcommand's name, for reports.
    pub command: String,
    /// Topics.
    pub topic: TopicSpec,
    /// How to produce, if at all.
    pub produce: Option<ProduceOptions>,
    /// How to consume, if at all.
    pub consume: Option<ConsumeOptions>,
    /// Load before the window that counts.
    pub warmup: Duration,
    /// The window that counts.
    pub duration: Duration,
    /// Processes whose CPU, bytes and switches are counted.
    pub server_pids: Vec<u32>,
    /// Cores the threads may run on; empty for all.
    pub cpus: Vec<usize>,
    /// Where to log acked batches.
    pub ack_log: Option<PathBuf>,
    /// Where to log histograms.
    pub hist_out: Option<PathBuf>,
    /// Tells this run's records from another's; `None` takes a new number.
    pub run_id: Option<u64>,
    /// Whether to show progress on a terminal.
    pub progress: bool,
    /// Whether the topics are deleted at the end.
    pub delete_topics: bool,
    /// Connections that stay silent beside the load.
    pub idle_connections: usize,
}

/// Why a run did not take place or broke off.
#[derive(Debug, Error)]
pub enum RunError {
    /// Topics.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A request outside the load.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The limit of open files.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// Connections that stay silent.
    #[error(transparent)]
    Idle(#[from] IdleError),
    /// Records.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The ack log.
    #[error(transparent)]
    AckLog(#[from] AckLogError),
    /// A file of ours.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not start or broke off.
    #[error("load thread: {0}")]
    Thread(String),
}

/// What one side did.
#[derive(Debug, Clone, Default)]
pub struct RoleResult {
    /// In the window that counts.
    pub measured: Counts,
    /// Records in each interval of the window, with its length in seconds.
    pub intervals: Vec<(u64, f64)>,
    /// Over the whole run, warm-up and drain included.
    pub total: Counts,
    /// What the threads found, added up.
    pub outcome: Outcome,
    /// Threads that ran.
    pub threads: usize,
    /// Connections that were used.
    pub connections: usize,
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct RunResult {
    /// In its records' stamps.
    pub run_id: u64,
    /// Milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Length of the window that counts, in seconds.
    pub window_s: f64,
    /// Producers.
    pub produce: Option<RoleResult>,
    /// Consumers.
    pub consume: Option<RoleResult>,
    /// What processes and disks did in the window.
    pub usage: Usage,
    /// Bytes of record bodies before compression for each byte after.
    pub compression_ratio: Option<f64>,
    /// Processor seconds that it took to put a record into a batch and to compress it, before the load began.
    pub batching_cpu_s_per_record: Option<f64>,
    /// How producers did transactions, with what was left to the broker filled in.
    pub transactions: Option<TransactionOptions>,
    /// Connections that stayed silent beside the load, if any were asked for.
    pub idle: Option<IdleResult>,
    /// Brokers that lead a partition.
    pub leaders: usize,
    /// Partitions of all topics.
    pub partitions: usize,
}

impl RunResult {
    /// What the check found, if there was one.
    #[must_use]
    pub fn findings(&self) -> Option<Findings> {
        self.consume.as_ref().and_then(|role| role.outcome.findings)
    }

    /// Acked records that the check did not see, over what it calls missing: the tail of streams.
    #[must_use]
    pub fn acked_but_not_read(&self) -> Option<u64> {
        let acked = self.produce.as_ref()?.total.records;
        Some(acked.saturating_sub(self.findings()?.verified))
    }

    /// Whether the check found what must not be. Records that were never acked may be missing, or lie behind later
    /// ones if their connection broke: brokers order what comes over one connection.
    #[must_use]
    pub fn verify_failed(&self) -> bool {
        let Some(findings) = self.findings() else {
            return false;
        };
        let excused = self
            .produce
            .as_ref()
            .map_or(0, |role| role.outcome.unacked_records);
        findings.duplicates + findings.corrupt > 0
            || findings.missing > excused
            || findings.out_of_order > excused
            || self.acked_but_not_read().unwrap_or(0) > 0
    }

    /// Number of errors of both sides, over the whole run.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        let roles = [&self.produce, &self.consume];
        roles
            .into_iter()
            .flatten()
            .flat_map(|role| role.total.errors.values())
            .sum()
    }

    /// Whether consumers read all they were meant to.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.consume
            .as_ref()
            .is_none_or(|role| role.outcome.complete)
    }
}

/// Carries out a run.
///
/// # Errors
/// [`RunError`]. Errors of single requests are counted in the result instead.
pub fn run(options: &RunOptions) -> Result<RunResult, RunError> {
    descriptors::ensure(connections(options), "connections")?;
    let ring = match &options.produce {
        Some(produce) => Some(Arc::new(TemplateRing::new(
            &produce.payload,
            produce.codec,
        )?)),
        None => None,
    };
    let cluster = Arc::new(ClusterHandle::prepare(
        options.topic.clone(),
        options.produce.is_some(),
    )?);
    let mut options = options.clone();
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seed = started.as_nanos() as u64 ^ u64::from(std::process::id()) << 40;
    let run_id = options.run_id.unwrap_or_else(|| SplitMix64(seed).next());
    let transactions = options
        .produce
        .as_mut()
        .and_then(|p| p.transactions.as_mut());
    if let Some(transactions) = transactions {
        cluster.settle(transactions, run_id)?;
    }
    let options = &options;
    let view = cluster.current();
    let consume = consume_plan(options, &cluster, run_id)?;
    let idle = match options.idle_connections {
        0 => None,
        count => Some(IdleConnections::open(&view, count, &options.server_pids)?),
    };
    let schedule = Schedule::new(
        Instant::now() + START_DELAY,
        options.warmup,
        options.duration,
    );
    let shared = Arc::new(Shared {
        cluster: Arc::clone(&cluster),
        schedule,
        clock: Clock::new(),
        run_id,
        stop: AtomicBool::new(false),
        targets: Mutex::new(None),
    });
    let ack_log = open_ack_log(options, run_id)?;
    let (to, from) = channel();
    let mut threads = Threads {
        shared: Arc::clone(&shared),
        handles: Vec::new(),
        cpus: options.cpus.clone(),
        to,
    };
    let mut result = RunResult {
        run_id,
        started_unix_ms: started.as_millis() as u64,
        leaders: view.leaders().len(),
        partitions: view.partitions.len(),
        transactions: options
            .produce
            .as_ref()
            .and_then(|p| p.transactions.clone()),
        compression_ratio: ring.as_ref().map(|ring| ring.compression_ratio()),
        batching_cpu_s_per_record: ring.as_ref().map(|ring| ring.batching_cpu_s_per_record()),
        ..RunResult::default()
    };
    if let Some(plan) = consume {
        result.consume = Some(threads.consumers(plan)?);
    }
    if let (Some(produce), Some(ring)) = (&options.produce, ring) {
        result.produce =
            Some(threads.producers(produce, view.leaders().len(), &ring, ack_log.as_ref())?);
    }
    let Threads { handles, to, .. } = threads;
    drop(to);
    let collected = Collector::new(options, &shared, &mut result)?.collect(&from);
    shared.stop.store(true, Ordering::Relaxed);
    for handle in handles {
        if handle.join().is_err() {
            return Err(RunError::Thread("panicked".into()));
        }
    }
    collected?;
    if let Some(source) = ack_log.and_then(|log| log.take_error()) {
        let path = options
            .ack_log
            .as_ref()
            .map_or(String::new(), |path| path.display().to_string());
        return Err(RunError::File { path, source });
    }
    result.idle = idle.map(IdleConnections::finish);
    if options.delete_topics {
        cluster.delete_topics()?;
    }
    Ok(result)
}

/// Connections that a run makes, about: how many brokers there are is not known yet.
fn connections(options: &RunOptions) -> usize {
    let producing = options.produce.as_ref().map_or(0, |produce| {
        // A transactional producer has a second one, to its coordinator.
        let each = 1 + usize::from(produce.transactions.is_some());
        produce.connections.saturating_mul(each)
    });
    let consuming = options
        .consume
        .as_ref()
        .map_or(0, |consume| consume.connections);
    let load = producing.saturating_add(consuming);
    load.saturating_add(options.idle_connections)
}

struct ConsumePlan {
    options: Arc<ConsumeOptions>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    connections: usize,
}

fn consume_plan(
    options: &RunOptions,
    cluster: &ClusterHandle,
    run_id: u64,
) -> Result<Option<ConsumePlan>, RunError> {
    let Some(consume) = &options.consume else {
        return Ok(None);
    };
    let mut consume = consume.clone();
    if options.produce.is_some() && consume.verify {
        consume.run_id = Some(run_id);
    }
    let last = match consume.read_committed {
        true => Edge::Stable,
        false => Edge::Next,
    };
    let starts = cluster.offsets(match consume.from {
        StartAt::Earliest => Edge::First,
        StartAt::Latest => last,
    })?;
    let ends = match consume.until {
        Until::End | Until::Repeat => cluster.offsets(last)?,
        Until::Time | Until::CaughtUp => starts.clone(),
    };
    let connections = consumer::assignments(&cluster.current(), consume.connections).len();
    consume.threads = consume.threads.clamp(1, connections.max(1));
    Ok(Some(ConsumePlan {
        options: Arc::new(consume),
        starts,
        ends,
        connections,
    }))
}

fn open_ack_log(options: &RunOptions, run_id: u64) -> Result<Option<Arc<AckLog>>, RunError> {
    let (Some(path), Some(produce)) = (&options.ack_log, &options.produce) else {
        return Ok(None);
    };
    let header = AckLogHeader {
        version: ack_log::VERSION,
        run_id,
        topic: options.topic.clone(),
        payload: produce.payload.clone(),
        transactional: produce.transactions.is_some(),
    };
    Ok(Some(Arc::new(AckLog::create(path, &header)?)))
}

struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    cpus: Vec<usize>,
    to: Sender<Message>,
}

impl Threads {
    fn producers(
        &mut self,
        options: &ProduceOptions,
        leaders: usize,
        ring: &Arc<TemplateRing>,
        ack_log: Option<&Arc<AckLog>>,
    ) -> Result<RoleResult, RunError> {
        let mut options = options.clone();
        // Every leader needs a connection, or its partitions would get nothing.
        options.connections = options.connections.max(leaders);
        options.threads = options.threads.clamp(1, options.connections);
        let options = Arc::new(options);
        for index in 0..options.threads {
            let thread = Producer::new(
                Arc::clone(&self.shared),
                Arc::clone(&options),
                Arc::clone(ring),
                ack_log,
                index,
                self.to.clone(),
            )
            .map_err(|error| RunError::Thread(error.to_string()))?;
            self.spawn(format!("produce-{index}"), move || thread.run())?;
        }
        Ok(RoleResult {
            threads: options.threads,
            connections: options.connections,
            ..RoleResult::default()
        })
    }

    fn consumers(&mut self, plan: ConsumePlan) -> Result<RoleResult, RunError> {
        for index in 0..plan.options.threads {
            let thread = Consumer::new(
                Arc::clone(&self.shared),
                Arc::clone(&plan.options),
                &plan.starts,
                &plan.ends,
                index,
                self.to.clone(),
            )
            .map_err(|error| RunError::Thread(error.to_string()))?;
            self.spawn(format!("consume-{index}"), move || thread.run())?;
        }
        Ok(RoleResult {
            threads: plan.options.threads,
            connections: plan.connections,
            outcome: Outcome {
                complete: true,
                ..Outcome::default()
            },
            ..RoleResult::default()
        })
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), RunError> {
        let cpus = self.cpus.clone();
        let to = self.to.clone();
        let handle = thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Err(error) = pin(&cpus) {
                    let _ = to.send(Message::Failed(format!("--cpus: {error}")));
                    return;
                }
                drop(to);
                work();
            })
            .map_err(|error| RunError::Thread(error.to_string()))?;
        self.handles.push(handle);
        Ok(())
    }
}

/// Binds the calling thread to the cores, all of them if none is named.
///
/// # Errors
/// If a core does not exist or is not allowed.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus {
        if cpu >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such core"));
        }
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Gathers what the threads send.
struct Collector<'a> {
    options: &'a RunOptions,
    shared: &'a Arc<Shared>,
    result: &'a mut RunResult,
    /// When the threads had been started.
    began: Instant,
    before: Option<Sample>,
    after: Option<Sample>,
    progress: Progress,
    log: Option<HistogramLog<File>>,
    producers_left: usize,
    threads_left: usize,
    last_finish: Instant,
}

impl<'a> Collector<'a> {
    fn new(
        options: &'a RunOptions,
        shared: &'a Arc<Shared>,
        result: &'a mut RunResult,
    ) -> Result<Self, RunError> {
        let log = match &options.hist_out {
            Some(path) => {
                let file = |source| RunError::File {
                    path: path.display().to_string(),
                    source,
                };
                Some(HistogramLog::new(File::create(path).map_err(file)?).map_err(file)?)
            }
            None => None,
        };
        let (window_begin, _) = shared.schedule.interval(shared.schedule.first_measured());
        result.window_s = (shared.schedule.end() - window_begin).as_secs_f64();
        let producers_left = result.produce.as_ref().map_or(0, |role| role.threads);
        let consumers = result.consume.as_ref().map_or(0, |role| role.threads);
        // Threads have begun: a run that ends with its work began with it, too.
        let with_work = options
            .consume
            .as_ref()
            .is_some_and(|consume| consume.until == Until::End);
        Ok(Self {
            options,
            shared,
            began: Instant::now(),
            before: with_work.then(|| Sample::take(&options.server_pids)),
            after: None,
            progress: Progress::new(options.progress, &shared.schedule),
            log,
            producers_left,
            threads_left: producers_left + consumers,
            last_finish: Instant::now(),
            result,
        })
    }

    /// Whether the run ends with its work rather than with its time.
    fn ends_with_work(&self) -> bool {
        self.options
            .consume
            .as_ref()
            .is_some_and(|consume| consume.until == Until::End)
    }

    fn collect(mut self, from: &Receiver<Message>) -> Result<(), RunError> {
        let schedule = self.shared.schedule.clone();
        let (begin, _) = schedule.interval(schedule.first_measured());
        while self.threads_left > 0 {
            let now = Instant::now();
            if self.before.is_none() && now >= begin {
                self.before = Some(Sample::take(&self.options.server_pids));
            }
            if self.after.is_none() && now >= schedule.end() {
                self.after = Some(Sample::take(&self.options.server_pids));
            }
            let next = match (&self.before, &self.after) {
                (None, _) => begin,
                (_, None) => schedule.end(),
                _ => now + Duration::from_secs(1),
            };
            match from.recv_timeout(next.saturating_duration_since(now)) {
                Ok(message) => self.take(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(RunError::Thread("ended without a word".into()));
                }
            }
        }
        if self.ends_with_work() {
            self.after = Some(Sample::take(&self.options.server_pids));
            self.result.window_s = (self.last_finish - self.began).as_secs_f64().max(1e-6);
        }
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            self.result.usage = after.since(before);
        }
        self.progress.finish();
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Interval {
                role,
                index,
                counts,
            } => self.interval(role, index, &counts)?,
            Message::Finished {
                role,
                tail,
                outcome,
            } => {
                self.last_finish = Instant::now();
                self.threads_left -= 1;
                let with_work = self.ends_with_work();
                if let Some(result) = self.role(role) {
                    result.total.add(&tail);
                    if with_work {
                        result.measured.add(&tail);
                    }
                    add_outcome(&mut result.outcome, outcome);
                }
                if role == Role::Produce {
                    self.producers_left -= 1;
                    if self.producers_left == 0 {
                        self.set_targets()?;
                    }
                }
            }
            Message::Failed(reason) => return Err(RunError::Thread(reason)),
        }
        Ok(())
    }

    fn role(&mut self, role: Role) -> Option<&mut RoleResult> {
        match role {
            Role::Produce => self.result.produce.as_mut(),
            Role::Consume => self.result.consume.as_mut(),
        }
    }

    fn interval(&mut self, role: Role, index: usize, counts: &Counts) -> Result<(), RunError> {
        let schedule = self.shared.schedule.clone();
        let first = schedule.first_measured();
        let (begin, end) = schedule.interval(index);
        if let Some(result) = self.role(role) {
            result.total.add(counts);
            if index >= first {
                result.measured.add(counts);
                let place = index - first;
                if result.intervals.len() <= place {
                    result.intervals.resize(place + 1, (0, 0.0));
                }
                result.intervals[place].0 += counts.records;
                result.intervals[place].1 = (end - begin).as_secs_f64();
            }
        }
        self.progress.interval(role, index, counts, end - begin);
        if index >= first
            && let Some(log) = &mut self.log
        {
            log.write(role, begin - schedule.start, end - begin, counts)
                .map_err(|source| {
                    let path = self
                        .options
                        .hist_out
                        .as_ref()
                        .map(|path| path.display().to_string());
                    RunError::File {
                        path: path.unwrap_or_default(),
                        source,
                    }
                })?;
        }
        Ok(())
    }

    /// Tells consumers where the producers' last records lie.
    fn set_targets(&mut self) -> Result<(), RunError> {
        let waits = |consume: &ConsumeOptions| consume.until == Until::CaughtUp;
        if self.options.consume.as_ref().is_some_and(waits) {
            let ends = Arc::new(self.shared.cluster.offsets(Edge::Next)?);
            *self
                .shared
                .targets
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(ends);
        }
        Ok(())
    }
}

fn add_outcome(sum: &mut Outcome, one: Outcome) {
    sum.unacked_records += one.unacked_records;
    sum.behind_s = sum.behind_s.max(one.behind_s);
    sum.complete &= one.complete;
    if let Some(findings) = one.findings {
        *sum.findings.get_or_insert_default() += findings;
    }
}
