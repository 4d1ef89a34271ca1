//! Many groups that commit offsets at a steady rate, and whether a broker that was killed still has what it acknowledged.

mod agenda;
mod book;
pub mod check;
mod connection;
mod drive;
mod groups;
mod members;
mod messages;
pub mod report;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use serde::Serialize;
use thiserror::Error;

pub use book::{Book, BookError, Entry};

use crate::cluster::{ClusterError, ClusterHandle, TopicSpec};
use crate::counters::{Sample, Usage};
use crate::descriptors::{self, TooFew};
use crate::protocol::ControlError;
use crate::run::pin;
use crate::stats::{ErrorCounts, Schedule, latency_histogram};

/// Longest wait for an answer outside the load.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Time from the last preparation to the first commit, in which connections are made: so much, and so much for each.
const START_DELAY: Duration = Duration::from_millis(50);
const CONNECTION_DELAY: Duration = Duration::from_micros(500);
/// Most partitions of one commit: an answer names each of them.
pub const PARTITIONS_MAX: i32 = 10_000;
/// Most groups: names and offsets of all are kept in memory.
pub const GROUPS_MAX: usize = 1_000_000;

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Nobody is in the group: what tools and engines with offsets of their own do.
    None,
    /// One member a group, with JoinGroup, SyncGroup and heartbeats.
    Classic,
}

/// What to do.
#[derive(Debug, Clone, Serialize)]
pub struct CommitsOptions {
    /// Brokers to ask first, `HOST:PORT` each.
    pub bootstrap: Vec<String>,
    /// Topic whose offsets are committed.
    pub topic: String,
    /// Partitions of the topic, all of them in every commit.
    pub partitions: i32,
    /// Number of groups.
    pub groups: usize,
    /// Start of their names; a number follows.
    pub group_prefix: String,
    /// Time between two commits of a group.
    #[serde(serialize_with = "in_seconds")]
    pub interval: Duration,
    /// Who commits.
    pub membership: Membership,
    /// Time between two heartbeats of a member.
    #[serde(serialize_with = "in_seconds")]
    pub heartbeat: Duration,
    /// How long the coordinator waits for a member's heartbeat, in milliseconds.
    pub session_timeout_ms: i32,
    /// Connections over all coordinators; each gets at least one.
    pub connections: usize,
    /// Requests without an answer on a connection; beyond it what is due waits.
    pub in_flight: usize,
    /// Load before the window that counts.
    #[serde(serialize_with = "in_seconds")]
    pub warmup: Duration,
    /// The window that counts.
    #[serde(serialize_with = "in_seconds")]
    pub duration: Duration,
    /// Ends as soon as a connection breaks, as when the broker is killed.
    pub until_broken: bool,
    /// Processes whose CPU, bytes and switches are counted.
    pub server_pids: Vec<u32>,
    /// Cores to run on; empty for all.
    pub cpus: Vec<usize>,
    /// Where to write what each group has committed.
    pub book: Option<PathBuf>,
}

fn in_seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

impl CommitsOptions {
    /// Names of the groups, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (0..self.groups)
            .map(|number| format!("{}-{number}", self.group_prefix))
            .collect()
    }

    /// Whether there are members, who send heartbeats.
    #[must_use]
    pub fn has_members(&self) -> bool {
        self.membership == Membership::Classic
    }
}

/// Why a run did not take place or broke off.
#[derive(Debug, Error)]
pub enum CommitsError {
    /// The topic, or a coordinator.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A request outside the load.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The limit of open files.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// The file of what was committed.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A member's request was refused.
    #[error("group {group}: {source}")]
    Member {
        /// Its name.
        group: String,
        /// What the broker said.
        source: ControlError,
    },
    /// A thread broke off.
    #[error("a thread of the generator broke off")]
    Thread,
    /// The broker did not come back in time.
    #[error("{groups} groups are not served after {waited_s:.1} s: {last}")]
    NotServed {
        /// How many.
        groups: usize,
        /// How long it was tried.
        waited_s: f64,
        /// What was heard last.
        last: String,
    },
}

/// What was counted of requests of one kind.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Answered without an error, of those due in the window.
    pub measured: u64,
    /// From when they were due to the answer, of those.
    pub latency: Histogram<u64>,
    /// From when they were due to when they were sent, of those.
    pub send_lag: Histogram<u64>,
    /// Answered without an error in the whole run.
    pub total: u64,
    /// What went wrong in the whole run, by name.
    pub errors: ErrorCounts,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            measured: 0,
            latency: latency_histogram(),
            send_lag: latency_histogram(),
            total: 0,
            errors: ErrorCounts::new(),
        }
    }
}

impl Tally {
    /// Number of errors.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    fn error(&mut self, name: impl Into<String>) {
        *self.errors.entry(name.into()).or_default() += 1;
    }
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct CommitsResult {
    /// Milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Length of the window that counts, in seconds.
    pub window_s: f64,
    /// Brokers that coordinate a group.
    pub coordinators: usize,
    /// Connections that were used.
    pub connections: usize,
    /// Commits.
    pub commits: Tally,
    /// Heartbeats, of groups with members.
    pub heartbeats: Tally,
    /// Requests whose answer never came.
    pub unanswered: u64,
    /// How far behind the load was at its end, in seconds.
    pub behind_s: f64,
    /// Whether a connection broke and ended the run, as was asked for.
    pub broken: bool,
    /// What processes and disks did in the window.
    pub usage: Usage,
}

impl CommitsResult {
    /// Number of errors of the whole run.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.commits.error_count() + self.heartbeats.error_count()
    }

    /// Whether a run counts as good: without errors, unless they are tolerated or the broken connection was waited for.
    #[must_use]
    pub fn is_well(&self, tolerate_errors: bool) -> bool {
        tolerate_errors || self.broken || self.error_count() == 0
    }
}

/// Carries out a run.
///
/// # Errors
/// [`CommitsError`]. Errors of single requests are counted in the result instead.
pub fn run(options: &CommitsOptions) -> Result<CommitsResult, CommitsError> {
    pin(&options.cpus).map_err(system("--cpus"))?;
    descriptors::ensure(options.connections, "connections")?;
    let cluster = ClusterHandle::prepare(topic(options), true)?;
    let plan = groups::plan(&cluster, options)?;
    let versions = messages::Versions::of(&plan)?;
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let members = match options.membership {
        Membership::None => Vec::new(),
        Membership::Classic => members::join(options, &plan)?,
    };
    let schedule = Schedule::new(
        Instant::now() + START_DELAY + CONNECTION_DELAY * plan.connections.len() as u32,
        options.warmup,
        options.duration,
    );
    let (begin, _) = schedule.interval(schedule.first_measured());
    let sampler = sampler(begin, schedule.end(), options.server_pids.clone())?;
    let base = started.as_millis() as i64;
    let mut driver = drive::Driver::new(options, &plan, versions, &members, base, &schedule)
        .map_err(system("epoll"))?;
    driver.run(&schedule).map_err(system("epoll"))?;
    let ended = Instant::now().min(schedule.end());
    let (mut result, book) = driver.finish();
    result.started_unix_ms = started.as_millis() as u64;
    // A run that was broken off has the window that there was.
    let window_end = if result.broken { ended } else { schedule.end() };
    let window = window_end.saturating_duration_since(begin);
    result.window_s = window.as_secs_f64().max(1e-6);
    result.coordinators = plan.coordinators();
    result.connections = plan.connections.len();
    if !result.broken {
        result.usage = sampler.join().map_err(|_| CommitsError::Thread)?;
        if !members.is_empty() {
            // What does not leave is given up by its session timeout.
            let left = members::leave(&plan, &members);
            if let Err(error) = left {
                result.heartbeats.error(format!("LeaveGroup: {error}"));
            }
        }
    }
    if let Some(path) = &options.book {
        book.write(path)?;
    }
    Ok(result)
}

fn topic(options: &CommitsOptions) -> TopicSpec {
    TopicSpec {
        bootstrap: options.bootstrap.clone(),
        topic: options.topic.clone(),
        topics: 1,
        partitions: Some(options.partitions),
        replication_factor: -1,
        configs: Vec::new(),
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> CommitsError {
    move |source| CommitsError::System { what, source }
}

/// Looks at the clocks when the window begins and when it ends: /proc takes longer than a commit may be late.
fn sampler(
    begin: Instant,
    end: Instant,
    pids: Vec<u32>,
) -> Result<std::thread::JoinHandle<Usage>, CommitsError> {
    std::thread::Builder::new()
        .name("sampler".into())
        .spawn(move || {
            std::thread::sleep(begin.saturating_duration_since(Instant::now()));
            let before = Sample::take(&pids);
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            Sample::take(&pids).since(&before)
        })
        .map_err(system("thread"))
}
