//! The load itself: an open loop on one thread. What is due is sent whatever comes back; a full connection or one that is
//! broken holds up what comes after, and latencies go on counting from when each request was due.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_wire_core::{DecodeError, StrBytes};

use super::agenda::{Agenda, Task};
use super::book::{Book, Entry};
use super::connection::{Connection, Flight, Kind};
use super::groups::Plan;
use super::members::Member;
use super::messages::{self, Commit, Verdict, Versions};
use super::{CommitsOptions, CommitsResult, Tally};
use crate::net::Poller;
use crate::protocol::error_code;
use crate::stats::Schedule;

/// Longest wait for outstanding answers after the last send.
const DRAIN_WAIT: Duration = Duration::from_secs(15);
/// Longest sleep: bounds how late a broken connection is tried again.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What answers change.
struct Ledger<'a> {
    versions: Versions,
    partitions: i32,
    /// From here on a due request counts.
    begin: Instant,
    entries: Vec<Entry>,
    commits: Tally,
    heartbeats: Tally,
    unanswered: u64,
    members: &'a [Member],
}

/// The load.
pub(super) struct Driver<'a> {
    options: &'a CommitsOptions,
    plan: &'a Plan,
    topic: StrBytes,
    agenda: Agenda,
    poller: Poller,
    connections: Vec<Connection>,
    /// How often each group has committed.
    rounds: Vec<i64>,
    /// Offset before a group's first.
    base: i64,
    ledger: Ledger<'a>,
    broken: bool,
    behind: Duration,
}

impl<'a> Driver<'a> {
    /// Ready to begin; offsets are `base` and the number of the group's commit.
    pub(super) fn new(
        options: &'a CommitsOptions,
        plan: &'a Plan,
        versions: Versions,
        members: &'a [Member],
        base: i64,
        schedule: &Schedule,
    ) -> io::Result<Self> {
        let heartbeat = options.has_members().then_some(options.heartbeat);
        let groups = plan.names.len();
        let entries = plan.names.iter().map(|name| Entry {
            group: name.as_str().to_owned(),
            acked: 0,
            sent: 0,
        });
        let routes = plan.connections.iter().enumerate();
        let (begin, _) = schedule.interval(schedule.first_measured());
        Ok(Self {
            options,
            plan,
            topic: StrBytes::from(options.topic.as_str()),
            agenda: Agenda::new(schedule.start, groups, options.interval, heartbeat),
            poller: Poller::new()?,
            connections: routes
                .map(|(token, route)| Connection::new(route.address.clone(), token))
                .collect(),
            rounds: vec![0; groups],
            base,
            ledger: Ledger {
                versions,
                partitions: options.partitions,
                begin,
                entries: entries.collect(),
                commits: Tally::default(),
                heartbeats: Tally::default(),
                unanswered: 0,
                members,
            },
            broken: false,
            behind: Duration::ZERO,
        })
    }

    /// Runs until the schedule ends and answers are in, or a connection breaks where that is the end.
    pub(super) fn run(&mut self, schedule: &Schedule) -> io::Result<()> {
        // Without this, waits end up to 50 µs late.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let end = schedule.end();
        while Instant::now() < end && !self.is_over() {
            self.reconnect();
            self.send_due(end);
            let (due, _) = self.agenda.next();
            let until = if self.next_may_go() {
                due.min(end)
            } else {
                end
            };
            let left = until.saturating_duration_since(Instant::now());
            self.listen(left.min(SLEEP_MAX))?;
        }
        let (due, _) = self.agenda.next();
        self.behind = Instant::now().min(end).saturating_duration_since(due);
        let deadline = Instant::now() + DRAIN_WAIT;
        while self.connections.iter().any(Connection::is_waiting)
            && Instant::now() < deadline
            && !self.is_over()
        {
            self.listen(SLEEP_MAX)?;
        }
        for connection in &mut self.connections {
            let lost = connection.fail();
            self.ledger.forsake(&lost);
        }
        Ok(())
    }

    /// What was counted, and what each group has committed.
    pub(super) fn finish(self) -> (CommitsResult, Book) {
        let broken = self.is_over();
        let result = CommitsResult {
            commits: self.ledger.commits,
            heartbeats: self.ledger.heartbeats,
            unanswered: self.ledger.unanswered,
            behind_s: self.behind.as_secs_f64(),
            broken,
            ..CommitsResult::default()
        };
        let book = Book {
            bootstrap: self.options.bootstrap.clone(),
            topic: self.options.topic.clone(),
            partitions: self.options.partitions,
            entries: self.ledger.entries,
        };
        (result, book)
    }

    /// Whether a connection broke, and that is the end.
    fn is_over(&self) -> bool {
        self.broken && self.options.until_broken
    }

    fn reconnect(&mut self) {
        let now = Instant::now();
        for connection in &mut self.connections {
            if connection.wants_link(now)
                && let Err(name) = connection.connect(&self.poller)
            {
                self.ledger.commits.error(name);
                self.broken = true;
            }
        }
    }

    /// Whether the connection of what comes next has room.
    fn next_may_go(&self) -> bool {
        let (_, task) = self.agenda.next();
        let connection = self.plan.connection_of[task.group()];
        self.connections[connection].has_room(self.options.in_flight)
    }

    fn send_due(&mut self, end: Instant) {
        loop {
            let (due, task) = self.agenda.next();
            if due > Instant::now() || due >= end || !self.next_may_go() {
                return;
            }
            self.agenda.take();
            self.send(due, task);
        }
    }

    fn send(&mut self, due: Instant, task: Task) {
        let group = task.group();
        let name = &self.plan.names[group];
        let member = self.ledger.members.get(group);
        let versions = self.ledger.versions;
        let connection = &mut self.connections[self.plan.connection_of[group]];
        let sent = match (task, member) {
            (Task::Heartbeat(_), None) => Ok(()),
            (Task::Heartbeat(_), Some(member)) => {
                connection.send(group, due, Kind::Heartbeat, |correlation| {
                    messages::heartbeat(name, member, correlation, versions.heartbeat)
                        .map_err(|error| error.to_string())
                })
            }
            (Task::Commit(_), _) => {
                self.rounds[group] += 1;
                let offset = self.base + self.rounds[group];
                self.ledger.entries[group].sent = offset;
                let commit = Commit {
                    group: name,
                    topic: &self.topic,
                    partitions: self.ledger.partitions,
                    member,
                    offset,
                };
                connection.send(group, due, Kind::Commit(offset), |correlation| {
                    commit
                        .encode(correlation, versions.commit)
                        .map_err(|error| error.to_string())
                })
            }
        };
        self.ledger.note_sent(task, due);
        if let Err(error) = sent {
            let lost = connection.fail();
            self.ledger.commits.error(error);
            self.ledger.forsake(&lost);
            self.broken = true;
        }
    }

    /// Waits for news of sockets, `timeout` at most, and takes them in.
    fn listen(&mut self, timeout: Duration) -> io::Result<()> {
        let Self {
            poller,
            connections,
            ledger,
            broken,
            ..
        } = self;
        poller.wait(timeout, |token| {
            let Some(connection) = connections.get_mut(token) else {
                return;
            };
            let now = Instant::now();
            let heard = connection.on_ready(|flight, frame| ledger.answered(&flight, frame, now));
            if let Err(name) = heard {
                let lost = connection.fail();
                ledger.commits.error(name);
                ledger.forsake(&lost);
                *broken = true;
            }
        })
    }
}

impl Ledger<'_> {
    /// Where requests of a kind are counted.
    fn tally(&mut self, commit: bool) -> &mut Tally {
        match commit {
            true => &mut self.commits,
            false => &mut self.heartbeats,
        }
    }

    fn note_sent(&mut self, task: Task, due: Instant) {
        if due >= self.begin {
            let tally = self.tally(matches!(task, Task::Commit(_)));
            tally.send_lag.saturating_record(nanoseconds(due.elapsed()));
        }
    }

    /// Takes an answer in; the error says what about it is not the protocol's.
    fn answered(&mut self, flight: &Flight, frame: Bytes, now: Instant) -> Result<(), String> {
        let violation = |error: DecodeError| format!("PROTOCOL_VIOLATION ({error})");
        let refused = match flight.kind {
            Kind::Commit(offset) => {
                let verdict = messages::committed(frame, self.versions.commit, self.partitions);
                match verdict.map_err(violation)? {
                    Verdict::Stored => {
                        self.entries[flight.group].acked = offset;
                        None
                    }
                    Verdict::Refused(code) => Some(error_code::name(code)),
                    Verdict::LeftOut => Some("PARTITION_LEFT_OUT".to_owned()),
                }
            }
            Kind::Heartbeat => {
                let code = messages::heard(frame, self.versions.heartbeat).map_err(violation)?;
                (code != 0).then(|| error_code::name(code))
            }
        };
        let begin = self.begin;
        let tally = self.tally(matches!(flight.kind, Kind::Commit(_)));
        match refused {
            Some(name) => tally.error(name),
            None => {
                tally.total += 1;
                if flight.due >= begin {
                    tally.measured += 1;
                    let latency = now.saturating_duration_since(flight.due);
                    tally.latency.saturating_record(nanoseconds(latency));
                }
            }
        }
        Ok(())
    }

    /// Answers to these will not come.
    fn forsake(&mut self, lost: &[Flight]) {
        for flight in lost {
            self.unanswered += 1;
            self.tally(matches!(flight.kind, Kind::Commit(_)))
                .error("REQUEST_UNANSWERED");
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
