//! Threads that read batches: every connection fetches its partitions of one leader, again and again.

mod aborted;
mod check;
mod connection;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use aborted::Aborted;
pub use check::Checker;

use crate::cluster::Cluster;
use crate::net::Poller;
use crate::shared::{Counter, Message, Outcome, RECONNECT_PAUSE, Role, Shared};
use connection::{Connection, Context, Position};

/// Longest time to reach the producers' last record after they are done.
const CATCH_UP_WAIT: Duration = Duration::from_secs(30);
/// Longest sleep: bounds how late a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The first record there is.
    Earliest,
    /// The next record there will be.
    Latest,
}

/// How long a consumer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The schedule's end.
    Time,
    /// The end of every partition as it was when the consumer began.
    End,
    /// The schedule's end, beginning anew at every end of a partition.
    Repeat,
    /// The last record the producers of the same run got in.
    CaughtUp,
}

/// How to consume.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumeOptions {
    /// Connections over all threads.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// Where to begin.
    pub from: From,
    /// How long to go on.
    pub until: Until,
    /// Longest a fetch waits for data, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes worth answering a fetch for.
    pub min_bytes: i32,
    /// Most bytes of an answer.
    pub max_bytes: i32,
    /// Most bytes of a partition in an answer.
    pub partition_max_bytes: i32,
    /// Whether records of transactions that are open or aborted are left out.
    pub read_committed: bool,
    /// Whether the checksum of every batch is computed.
    pub check_crc: bool,
    /// Whether stamps are checked.
    pub verify: bool,
    /// Whether stamps give end-to-end latencies.
    pub end_to_end: bool,
    /// With `verify`: the only run whose records count; `None` for all.
    pub run_id: Option<u64>,
}

impl ConsumeOptions {
    /// Whether records are looked at one by one.
    #[must_use]
    pub fn reads_records(&self) -> bool {
        self.verify || self.end_to_end
    }
}

/// Shares out partitions: to every connection those of one leader, as evenly as it goes. With fewer connections than
/// leaders, every leader still gets one.
#[must_use]
pub fn assignments(cluster: &Cluster, connections: usize) -> Vec<(i32, Vec<u32>)> {
    let leaders = cluster.leaders();
    let count = connections.max(leaders.len());
    let mut shares = Vec::new();
    for (order, &leader) in leaders.iter().enumerate() {
        let mine = (order..count).step_by(leaders.len()).count();
        let places: Vec<u32> = cluster
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, partition)| partition.leader == leader)
            .map(|(place, _)| place as u32)
            .collect();
        for first in 0..mine {
            let share: Vec<u32> = places.iter().copied().skip(first).step_by(mine).collect();
            if !share.is_empty() {
                shares.push((leader, share));
            }
        }
    }
    shares
}

/// One consuming thread.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    options: Arc<ConsumeOptions>,
    poller: Poller,
    connections: Vec<Connection>,
    context: Context,
    cluster: Arc<Cluster>,
    /// Set while partitions wait to go over to the connection to their new leader.
    moving: bool,
}

impl Consumer {
    /// The thread at `index` of the run's assignments. `starts` and `ends` are offsets by place.
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: Arc<ConsumeOptions>,
        starts: &[i64],
        ends: &[i64],
        index: usize,
        to: Sender<Message>,
    ) -> std::io::Result<Self> {
        let cluster = shared.cluster.current();
        let connections: Vec<_> = assignments(&cluster, options.connections)
            .into_iter()
            .skip(index)
            .step_by(options.threads)
            .enumerate()
            .map(|(token, (leader, places))| {
                let positions = places.iter().map(|&place| {
                    let at = place as usize;
                    let end = (options.until != Until::Time).then(|| ends[at]);
                    Position {
                        place,
                        partition: cluster.partitions[at],
                        next: starts[at],
                        start: starts[at],
                        end,
                    }
                });
                Connection::new(token, leader, positions.collect())
            })
            .collect();
        let whole = options.from == From::Earliest;
        let checker = options.verify.then(|| Checker::new(options.run_id, whole));
        Ok(Self {
            poller: Poller::new()?,
            context: Context {
                options: Arc::clone(&options),
                counter: Counter::new(Role::Consume, to),
                clock: shared.clock,
                checker,
                scratch: Vec::new(),
                wants_metadata: false,
            },
            shared,
            options,
            connections,
            cluster,
            moving: false,
        })
    }

    /// Runs until the options say that it is enough.
    pub(crate) fn run(mut self) {
        let mut deadline = None;
        let complete = loop {
            let now = Instant::now();
            self.context.counter.turn(&self.shared.schedule, now);
            if let Some(complete) = self.is_over(now, &mut deadline) {
                break complete;
            }
            self.step(now);
        };
        self.context
            .counter
            .turn(&self.shared.schedule, Instant::now());
        let findings = self
            .context
            .checker
            .take()
            .map(|checker| checker.findings());
        self.context.counter.finish(Outcome {
            findings,
            complete,
            ..Outcome::default()
        });
    }

    /// Whether to stop, and if so, whether everything was read.
    fn is_over(&mut self, now: Instant, deadline: &mut Option<Instant>) -> Option<bool> {
        if self.shared.stopped() {
            return Some(false);
        }
        let past_end = now >= self.shared.schedule.end();
        match self.options.until {
            Until::Time | Until::Repeat => past_end.then_some(true),
            Until::End if self.connections.iter().all(Connection::is_at_end) => Some(true),
            Until::End => past_end.then_some(false),
            Until::CaughtUp => {
                let targets = self.shared.targets()?;
                let until = *deadline.get_or_insert(now + CATCH_UP_WAIT);
                let reached = self.connections.iter().all(|c| c.has_reached(&targets));
                (reached || now > until).then_some(reached)
            }
        }
    }

    fn step(&mut self, now: Instant) {
        for connection in &mut self.connections {
            if connection.wants_link(now) {
                let address = self.cluster.brokers.get(&connection.leader);
                let connected = address
                    .ok_or_else(|| "LEADER_UNKNOWN".to_owned())
                    .and_then(|address| connection.connect(address, &self.poller, &self.options));
                if let Err(name) = connected {
                    self.context.counter.counts.error(name);
                    connection.retry_at = now + RECONNECT_PAUSE;
                    self.context.wants_metadata = true;
                }
            }
            connection.fetch(&mut self.context, &self.cluster);
        }
        let mut until = now + SLEEP_MAX;
        if let Some(end) = self.context.counter.interval_end(&self.shared.schedule) {
            until = until.min(end);
        }
        let timeout = until.saturating_duration_since(Instant::now());
        let (connections, context, cluster) =
            (&mut self.connections, &mut self.context, &self.cluster);
        let waited = self.poller.wait(timeout, |token| {
            if let Some(connection) = connections.get_mut(token) {
                connection.on_ready(context, cluster);
            }
        });
        if let Err(error) = waited {
            self.context
                .counter
                .counts
                .error(format!("EPOLL ({error})"));
        }
        if std::mem::take(&mut self.context.wants_metadata) {
            let seen = self.cluster.revision;
            self.cluster = self.shared.cluster.refresh(seen);
            self.moving |= self.cluster.revision != seen;
        }
        if self.moving {
            self.move_partitions();
        }
    }

    /// Hands partitions whose leader moved to a connection to the new one.
    fn move_partitions(&mut self) {
        let mut moved: BTreeMap<i32, Vec<Position>> = BTreeMap::new();
        for connection in &mut self.connections {
            for position in connection.take_moved(&self.cluster) {
                moved
                    .entry(position.partition.leader)
                    .or_default()
                    .push(position);
            }
        }
        for (leader, positions) in moved {
            match self
                .connections
                .iter_mut()
                .find(|c| c.leader == leader && c.is_idle())
            {
                Some(connection) => connection.take_over(positions),
                None => {
                    let token = self.connections.len();
                    self.connections
                        .push(Connection::new(token, leader, positions));
                }
            }
        }
        self.moving = self
            .connections
            .iter()
            .any(|connection| connection.has_moved(&self.cluster));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Partition;

    #[test]
    fn every_partition_has_one_connection_to_its_leader() {
        for (partitions, leaders, connections) in [(16, 2, 1), (16, 2, 5), (3, 3, 8), (1, 1, 4)] {
            let cluster = Cluster {
                topics: vec!["t".into()],
                partitions: (0..partitions)
                    .map(|index| Partition {
                        topic: 0,
                        index,
                        leader: index % leaders,
                    })
                    .collect(),
                brokers: (0..leaders)
                    .map(|leader| (leader, format!("h:{leader}")))
                    .collect(),
                revision: 0,
            };
            let shares = assignments(&cluster, connections);
            assert!(shares.len() >= (leaders as usize).min(partitions as usize));
            assert!(shares.len() <= connections.max(leaders as usize));
            let mut seen = Vec::new();
            for (leader, places) in shares {
                assert!(!places.is_empty());
                assert!(
                    places
                        .iter()
                        .all(|&p| cluster.partitions[p as usize].leader == leader)
                );
                seen.extend(places);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..partitions as u32).collect::<Vec<_>>());
        }
    }
}
