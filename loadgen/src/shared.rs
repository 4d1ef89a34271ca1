//! What the threads of a run share, and how they report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cluster::ClusterHandle;
use crate::stats::{Counts, Schedule};
use crate::verify::Findings;

/// How long a broken connection waits before it is tried again.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Longest a connection attempt may hold up its thread.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maps the monotonic clock to time since 1970, the same way for the whole run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
    base_unix: Duration,
}

impl Clock {
    /// Reads both clocks once.
    #[must_use]
    pub fn new() -> Self {
        let base_unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            base: Instant::now(),
            base_unix,
        }
    }

    /// Nanoseconds since 1970 at `at`.
    #[must_use]
    pub fn unix_ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base);
        let before = self.base.saturating_duration_since(at);
        (self.base_unix + since - before).as_nanos() as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Which side of the broker a thread is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends records.
    Produce,
    /// Reads records.
    Consume,
}

/// What a thread tells the main thread.
#[derive(Debug)]
pub enum Message {
    /// An interval of the schedule is over.
    Interval {
        /// Who counted.
        role: Role,
        /// Which interval.
        index: usize,
        /// What was counted in it.
        counts: Box<Counts>,
    },
    /// The thread is done.
    Finished {
        /// Who counted.
        role: Role,
        /// What came after the schedule's end.
        tail: Box<Counts>,
        /// What the thread found.
        outcome: Outcome,
    },
    /// The thread cannot go on.
    Failed(String),
}

/// What a thread knows at its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Records sent whose ack never came or was an error: each may be there or not.
    pub unacked_records: u64,
    /// How far behind an open loop was at the end, in seconds.
    pub behind_s: f64,
    /// What the check found, for a consumer that checks.
    pub findings: Option<Findings>,
    /// Whether a consumer read everything it was meant to.
    pub complete: bool,
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Topics and leaders.
    pub cluster: Arc<ClusterHandle>,
    /// When what is counted.
    pub schedule: Schedule,
    /// Time since 1970.
    pub clock: Clock,
    /// Tells this run's records from another's.
    pub run_id: u64,
    /// Set when the run is to end early.
    pub stop: AtomicBool,
    /// Where consumers may stop once producers are done: next offset of every partition.
    pub targets: Mutex<Option<Arc<Vec<i64>>>>,
}

impl Shared {
    /// Where consumers may stop, if that is known already.
    #[must_use]
    pub fn targets(&self) -> Option<Arc<Vec<i64>>> {
        self.targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the run is to end early.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Counts the current interval and hands it over when it ends.
#[derive(Debug)]
pub(crate) struct Counter {
    role: Role,
    index: usize,
    pub(crate) counts: Counts,
    to: Sender<Message>,
}

impl Counter {
    pub(crate) fn new(role: Role, to: Sender<Message>) -> Self {
        Self {
            role,
            index: 0,
            counts: Counts::new(),
            to,
        }
    }

    /// When the current interval ends, `None` after the last.
    pub(crate) fn interval_end(&self, schedule: &Schedule) -> Option<Instant> {
        (self.index < schedule.len()).then(|| schedule.interval(self.index).1)
    }

    /// Hands over the intervals that are over.
    pub(crate) fn turn(&mut self, schedule: &Schedule, now: Instant) {
        while self.interval_end(schedule).is_some_and(|end| now >= end) {
            let counts = Box::new(std::mem::take(&mut self.counts));
            // The main thread outlives its threads; if it is gone, nobody wants the counts.
            let _ = self.to.send(Message::Interval {
                role: self.role,
                index: self.index,
                counts,
            });
            self.index += 1;
        }
    }

    pub(crate) fn finish(self, outcome: Outcome) {
        let _ = self.to.send(Message::Finished {
            role: self.role,
            tail: Box::new(self.counts),
            outcome,
        });
    }
}

/// A name for an I/O error as the tables show it.
pub(crate) fn connection_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof => "CONNECTION_CLOSED".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "CONNECTION_RESET".into(),
        ErrorKind::ConnectionRefused => "CONNECTION_REFUSED".into(),
        ErrorKind::TimedOut => "CONNECTION_TIMED_OUT".into(),
        ErrorKind::InvalidData => format!("PROTOCOL_VIOLATION ({error})"),
        kind => format!("CONNECTION_FAILED ({kind})"),
    }
}
