//! What a server loses: killed under load, and cut off from power at chosen moments of the same run. There is no power switch
//! here: the server records what it does to its disk, and the directory is rebuilt as a loss of power could have left it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_engine::record::Records;
use ringlog_engine::sim::Replay;
use rustix::process::{Pid, Signal, kill_process};

use super::PointError;
use super::broker::Broker;
use super::claim::Scale;
use super::lab::Lab;
use crate::ack_log;
use crate::check::{CheckResult, check, check_until};
use crate::run::RunResult;

/// Names of the figures: of a million records acknowledged (or sent, without acks), and how long before the end the first
/// lost one was acknowledged.
pub(super) const KILL_LOST: &str = "lost_per_million";
/// After a loss of power.
pub(super) const POWER_LOST: &str = "power_lost_per_million";
/// Milliseconds.
pub(super) const POWER_WINDOW: &str = "power_window_ms";

/// Moments at which power is lost, in shares of what was recorded; shorter runs take the last ones.
const MOMENTS: [f64; 4] = [0.4, 0.65, 0.85, 1.0];

/// How many of them.
pub(super) fn images(scale: Scale) -> usize {
    scale.pick(1, 2, 4)
}
/// The topic.
const TOPIC: &str = "crash";

/// One server, one load, one kill.
pub(super) struct Crash<'a> {
    lab: &'a Lab,
    /// Arguments of the server.
    server: &'a str,
    /// A line of `ringlog-load produce` to `{topic}`.
    load: &'a str,
    /// Whether records are acknowledged; else those sent are counted.
    acked: bool,
    /// Tells this run's files from others', and the moment of its kill.
    number: u32,
}

/// What was there and what is gone, in several images.
#[derive(Debug, Default)]
struct Count {
    wanted: u64,
    lost: u64,
    window_ms: f64,
    images: u32,
    refused: u32,
}

impl<'a> Crash<'a> {
    /// A crash of a server with these arguments under this load.
    pub(super) fn new(
        lab: &'a Lab,
        server: &'a str,
        load: &'a str,
        acked: bool,
        number: u32,
    ) -> Self {
        Self {
            lab,
            server,
            load,
            acked,
            number,
        }
    }

    /// Runs, kills, counts.
    ///
    /// # Errors
    /// [`PointError`].
    pub(super) fn run(&self) -> Result<Figures, PointError> {
        let (acks, record) = (self.file("acks"), self.file("record"));
        let name = format!("crash-{}", self.number);
        let arguments = format!(
            "{} --set ringlog.disk.record={}",
            self.server,
            record.display()
        );
        let mut broker = Broker::start(self.lab, &name, &arguments)?;
        let sent = self.kill_under_load(&mut broker, &acks)?;
        let power = self.lose_power(&broker, &record, &acks, &sent)?;
        fs::remove_file(&record).map_err(io)?;
        broker.restart(self.lab, self.server)?;
        let mut kill = Count::default();
        self.count(&broker, &acks, &sent, None, &mut kill)?;
        if self.acked {
            fs::remove_file(&acks).map_err(io)?;
        }
        if kill.wanted == 0 || power.wanted == 0 {
            return Err(PointError::Failed(
                "nothing was sent before the crash".into(),
            ));
        }
        Ok(Figures::from([
            (KILL_LOST.into(), kill.per_million()),
            (POWER_LOST.into(), power.per_million()),
            (POWER_WINDOW.into(), power.window_ms),
            ("records".into(), kill.wanted as f64),
            ("lost".into(), kill.lost as f64),
            ("power_images".into(), f64::from(power.images)),
            ("power_refused".into(), f64::from(power.refused)),
            ("power_lost".into(), power.lost as f64),
        ]))
    }

    fn file(&self, what: &str) -> PathBuf {
        self.lab
            .scratch
            .path()
            .join(format!("{what}-{}", self.number))
    }

    fn kill_under_load(&self, broker: &mut Broker, acks: &Path) -> Result<RunResult, PointError> {
        let mut line = self.load.replace("{topic}", TOPIC);
        if self.acked {
            line = format!("{line} --ack-log {}", acks.display());
        }
        // Not the same moment every time: between two commits, in the middle of one, during a destage.
        let delay = Duration::from_millis(450 + u64::from(self.number) * 37 % 300);
        let sent = std::thread::scope(|scope| {
            let load = scope.spawn(|| broker.load_until_killed(&line));
            std::thread::sleep(delay);
            let killed =
                Pid::from_raw(broker.pid() as i32).map(|pid| kill_process(pid, Signal::KILL));
            match (killed, load.join()) {
                (Some(Ok(())), Ok(sent)) => sent,
                _ => Err(PointError::Failed(
                    "the server could not be killed under load".into(),
                )),
            }
        })?;
        broker.kill();
        Ok(sent)
    }

    /// Rebuilds the directory at each moment, starts a server on it, and counts.
    fn lose_power(
        &self,
        killed: &Broker,
        record: &Path,
        acks: &Path,
        sent: &RunResult,
    ) -> Result<Count, PointError> {
        let failed = |error: &dyn std::fmt::Display| PointError::Failed(error.to_string());
        let records = || Records::open(record).map_err(|error| failed(&error));
        let events = records()?.count();
        // Without acks only the end tells what was sent by then.
        let count = if self.acked {
            images(self.lab.scale)
        } else {
            1
        };
        let moments = MOMENTS[MOMENTS.len() - count..].iter();
        let mut cuts: Vec<usize> = moments
            .map(|share| (events as f64 * share) as usize)
            .collect();
        cuts.reverse();
        let (mut replay, mut count) = (Replay::new(), Count::default());
        for (index, event) in records()?.enumerate() {
            let event = event.map_err(|error| failed(&error))?;
            let time_ns = event.time_ns;
            replay.apply(event).map_err(|error| failed(&error))?;
            if cuts.last() == Some(&(index + 1)) {
                cuts.pop();
                self.lab.scratch.check()?;
                let name = format!("image-{}-{}", self.number, count.images);
                let data = self.lab.scratch.path().join(&name).join("data");
                fs::create_dir_all(&data).map_err(io)?;
                let seed = u64::from(self.number) * 16 + u64::from(count.images);
                replay.lose_power(seed).write_to(&data).map_err(io)?;
                // The catalog is a database of its own, synced before the topic was used, and not written since.
                fs::copy(killed.data().join("catalog"), data.join("catalog")).map_err(io)?;
                count.images += 1;
                match Broker::start(self.lab, &name, self.server) {
                    Ok(broker) => {
                        self.count(&broker, acks, sent, Some(time_ns), &mut count)?;
                    }
                    // It says what is damaged and does not serve: all that was acknowledged is out of reach.
                    Err(PointError::Unavailable(_)) if self.acked => {
                        count.refused += 1;
                        count.all_lost(acks, time_ns)?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }

    /// Counts what a server has of what it should have: all, or what was acknowledged by a moment.
    fn count(
        &self,
        broker: &Broker,
        acks: &Path,
        sent: &RunResult,
        until_ns: Option<u64>,
        count: &mut Count,
    ) -> Result<(), PointError> {
        if !self.acked {
            let sent = sent.produce.as_ref().map_or(0, |role| role.total.records);
            let read = broker.load(&format!("consume -t {TOPIC} --until end --duration 60"))?;
            let read = read.consume.map_or(0, |role| role.total.records);
            count.wanted += sent;
            count.lost += sent.saturating_sub(read);
            return Ok(());
        }
        let bootstrap = Some(broker.bootstrap());
        let found: CheckResult = match until_ns {
            Some(until_ns) => check_until(acks, bootstrap, until_ns),
            None => check(acks, bootstrap),
        }
        .map_err(|error| PointError::Failed(error.to_string()))?;
        count.wanted += found.acked;
        count.lost += found.acked_lost;
        if let (Some(until_ns), Some(first_ns)) = (until_ns, found.first_lost_acked_ns) {
            count.window(first_ns, until_ns);
        }
        Ok(())
    }
}

impl Count {
    fn per_million(&self) -> f64 {
        self.lost as f64 * 1e6 / self.wanted as f64
    }

    /// The first lost record was acknowledged at one moment, power went at another.
    fn window(&mut self, first_ns: u64, until_ns: u64) {
        let window_ms = until_ns.saturating_sub(first_ns) as f64 / 1e6;
        self.window_ms = self.window_ms.max(window_ms);
    }

    /// Everything that was acknowledged by a moment is out of reach.
    fn all_lost(&mut self, acks: &Path, until_ns: u64) -> Result<(), PointError> {
        let (_, mut batches) =
            ack_log::read(acks).map_err(|error| PointError::Failed(error.to_string()))?;
        batches.retain(|batch| batch.acked_ns <= until_ns);
        let acked: u64 = batches.iter().map(|batch| u64::from(batch.records)).sum();
        self.wanted += acked;
        self.lost += acked;
        if let Some(first_ns) = batches.iter().map(|batch| batch.acked_ns).min() {
            self.window(first_ns, until_ns);
        }
        Ok(())
    }
}

fn io(error: std::io::Error) -> PointError {
    PointError::Failed(error.to_string())
}
