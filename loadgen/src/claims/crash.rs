//! What a server loses: killed under load, and cut off from power at chosen moments of the same run. There is no power switch
//! here: the server records what it does to its disk, and the directory is rebuilt as a loss of power could have left it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog_benches::claims::Figures;
use ringlog_engine::record::Records;
use ringlog_engine::sim::Replay;

use super::broker::Broker;
use super::claim::Scale;
use super::lab::Lab;
use super::{PointError, twice};
use crate::ack_log;
use crate::check::check_until;

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
pub(super) struct Count {
    /// Records that must be there.
    pub(super) wanted: u64,
    /// Those that are not.
    pub(super) lost: u64,
    window_ms: f64,
    images: u32,
    /// Servers that did not start again.
    refused: u32,
    /// Servers that started and did not give out what they have.
    unread: u32,
}

/// What a server owes its client: records that it acknowledged by a moment, or without acks those sent.
#[derive(Debug)]
pub(super) struct Owed<'a> {
    acks: Option<&'a Path>,
    records: u64,
    /// When the first of them was acknowledged, and the moment; `CLOCK_MONOTONIC`, nanoseconds.
    first_ns: Option<u64>,
    until_ns: Option<u64>,
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

    /// Runs, kills, counts. After the kill nothing is tried again: what is not there then is lost.
    ///
    /// # Errors
    /// [`PointError`] as long as nothing is known to be lost.
    pub(super) fn run(&self) -> Result<Figures, PointError> {
        let (acks, record) = (self.file("acks"), self.file("record"));
        let (mut broker, sent) = twice(|| self.killed(&acks, &record))?;
        let (mut power, mut kill) = (Count::default(), Count::default());
        let cut = self.lose_power(&broker, &record, &acks, sent, &mut power);
        let back = self.come_back(&mut broker, &acks, sent, &mut kill);
        match cut.and(back) {
            Err(PointError::Interrupted) => return Err(PointError::Interrupted),
            // What else could not be looked at does not bring back a record that was acknowledged.
            Err(error) if !self.acked || power.lost + kill.lost == 0 => return Err(error),
            _ => {}
        }
        // One that stays goes with the scratch folder: it must not cost the figures.
        for file in [&record, &acks] {
            let _ = fs::remove_file(file);
        }
        let mut figures = Figures::from([
            ("records".into(), kill.wanted as f64),
            ("lost".into(), kill.lost as f64),
            ("refused".into(), f64::from(kill.refused)),
            ("unread".into(), f64::from(kill.unread + power.unread)),
            ("power_images".into(), f64::from(power.images)),
            ("power_refused".into(), f64::from(power.refused)),
            ("power_lost".into(), power.lost as f64),
        ]);
        if kill.wanted > 0 {
            figures.insert(KILL_LOST.into(), kill.per_million());
        }
        if power.wanted > 0 {
            figures.insert(POWER_LOST.into(), power.per_million());
            figures.insert(POWER_WINDOW.into(), power.window_ms);
        }
        Ok(figures)
    }

    fn file(&self, what: &str) -> PathBuf {
        self.lab
            .scratch
            .path()
            .join(format!("{what}-{}", self.number))
    }

    /// A server that was killed under load, and the records it was sent.
    fn killed(&self, acks: &Path, record: &Path) -> Result<(Broker, u64), PointError> {
        let name = format!("crash-{}", self.number);
        let arguments = format!(
            "{} --set ringlog.disk.record={}",
            self.server,
            record.display()
        );
        // A first attempt may have left one.
        let _ = fs::remove_file(record);
        let mut broker = Broker::start(self.lab, &name, &arguments)?;
        let mut line = self.load.replace("{topic}", TOPIC);
        if self.acked {
            line = format!("{line} --ack-log {}", acks.display());
        }
        // Not the same moment every time: between two commits, in the middle of one, during a destage.
        let delay = Duration::from_millis(450 + u64::from(self.number) * 37 % 300);
        let sent = broker.kill_under_load(&line, delay)?;
        let sent = sent.produce.map_or(0, |role| role.total.records);
        if self.owed(acks, sent, None)?.records == 0 {
            return Err(PointError::Failed(
                "nothing was sent before the crash".into(),
            ));
        }
        Ok((broker, sent))
    }

    fn owed<'p>(
        &self,
        acks: &'p Path,
        sent: u64,
        until_ns: Option<u64>,
    ) -> Result<Owed<'p>, PointError> {
        match self.acked {
            true => Owed::acked(acks, until_ns),
            false => Ok(Owed::sent(sent)),
        }
    }

    /// Starts the killed server again on what it left, and counts.
    fn come_back(
        &self,
        broker: &mut Broker,
        acks: &Path,
        sent: u64,
        count: &mut Count,
    ) -> Result<(), PointError> {
        let owed = self.owed(acks, sent, None)?;
        let started = broker.restart(self.lab, self.server);
        owed.look(self.lab, started.map(|()| &*broker), count)
    }

    /// Rebuilds the directory at each moment, starts a server on it, and counts.
    fn lose_power(
        &self,
        killed: &Broker,
        record: &Path,
        acks: &Path,
        sent: u64,
        count: &mut Count,
    ) -> Result<(), PointError> {
        let failed = |error: &dyn std::fmt::Display| PointError::Failed(error.to_string());
        let records = || Records::open(record).map_err(|error| failed(&error));
        let events = records()?.count();
        // Without acks only the end tells what was sent by then.
        let images = if self.acked {
            images(self.lab.scale)
        } else {
            1
        };
        let moments = MOMENTS[MOMENTS.len() - images..].iter();
        let mut cuts: Vec<usize> = moments
            .map(|share| (events as f64 * share) as usize)
            .collect();
        cuts.reverse();
        let mut replay = Replay::new();
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
                let owed = self.owed(acks, sent, Some(time_ns))?;
                match Broker::start(self.lab, &name, self.server) {
                    Ok(broker) => owed.look(self.lab, Ok(&broker), count)?,
                    Err(error) => owed.look(self.lab, Err(error), count)?,
                }
            }
        }
        Ok(())
    }
}

impl<'a> Owed<'a> {
    /// What an ack log holds, up to a moment or all of it.
    ///
    /// # Errors
    /// [`PointError::Failed`]: the log cannot be read.
    pub(super) fn acked(acks: &'a Path, until_ns: Option<u64>) -> Result<Self, PointError> {
        let (_, mut batches) =
            ack_log::read(acks).map_err(|error| PointError::Failed(error.to_string()))?;
        batches.retain(|batch| until_ns.is_none_or(|until_ns| batch.acked_ns <= until_ns));
        Ok(Self {
            acks: Some(acks),
            records: batches.iter().map(|batch| u64::from(batch.records)).sum(),
            first_ns: batches.iter().map(|batch| batch.acked_ns).min(),
            until_ns,
        })
    }

    fn sent(records: u64) -> Self {
        Self {
            acks: None,
            records,
            first_ns: None,
            until_ns: None,
        }
    }

    /// Counts what a server has of it. One that does not start has lost all of it, and so has one that does not give it out:
    /// whoever was promised these records cannot read them.
    ///
    /// # Errors
    /// [`PointError`] for trouble that is not the server's: a signal, a full disk, a process that cannot be made.
    pub(super) fn look(
        &self,
        lab: &Lab,
        started: Result<&Broker, PointError>,
        count: &mut Count,
    ) -> Result<(), PointError> {
        match started {
            Ok(broker) => {
                let Ok((lost, first_ns)) = self.read_back(broker) else {
                    lab.scratch.check()?;
                    lab.scratch.needs(0)?;
                    count.unread += 1;
                    self.all_lost(count);
                    return Ok(());
                };
                count.wanted += self.records;
                count.lost += lost;
                count.window(first_ns, self.until_ns);
            }
            // It says what is damaged and does not serve.
            Err(PointError::Unavailable(_)) => {
                lab.scratch.check()?;
                lab.scratch.needs(0)?;
                count.refused += 1;
                self.all_lost(count);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Records that a running server does not have, and when the first of them was acknowledged.
    fn read_back(&self, broker: &Broker) -> Result<(u64, Option<u64>), PointError> {
        let Some(acks) = self.acks else {
            let read = broker.load(&format!("consume -t {TOPIC} --until end --duration 60"))?;
            let read = read.consume.map_or(0, |role| role.total.records);
            return Ok((self.records.saturating_sub(read), None));
        };
        let until_ns = self.until_ns.unwrap_or(u64::MAX);
        let found = check_until(acks, Some(broker.bootstrap()), until_ns)
            .map_err(|error| PointError::Failed(error.to_string()))?;
        Ok((found.acked_lost, found.first_lost_acked_ns))
    }

    fn all_lost(&self, count: &mut Count) {
        count.wanted += self.records;
        count.lost += self.records;
        count.window(self.first_ns, self.until_ns);
    }
}

impl Count {
    fn per_million(&self) -> f64 {
        self.lost as f64 * 1e6 / self.wanted as f64
    }

    /// The first lost record was acknowledged at one moment, power went at another.
    fn window(&mut self, first_ns: Option<u64>, until_ns: Option<u64>) {
        if let (Some(first_ns), Some(until_ns)) = (first_ns, until_ns) {
            let window_ms = until_ns.saturating_sub(first_ns) as f64 / 1e6;
            self.window_ms = self.window_ms.max(window_ms);
        }
    }
}

fn io(error: std::io::Error) -> PointError {
    PointError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::ack_log::{AckLog, AckLogHeader, VERSION};
    use crate::claims::lab::testing::lab_in;
    use crate::cluster::TopicSpec;
    use crate::payload::{BatchSize, PayloadSpec};

    /// A server that says it is ready where nobody listens; `again` is what it does when it is started a second time.
    fn lab(folder: &Path, again: &str) -> Lab {
        let server = folder.join("server");
        let text = format!(
            "#!/bin/sh\nif [ -e \"$2/before\" ]; then {again}; fi\nmkdir -p \"$2\"; : > \"$2/before\"\n\
             echo 'ringlog ready: 127.0.0.1:9 stub'; exec sleep 60\n"
        );
        // Written by another process: a file that this one has open for writing cannot be executed.
        let made = Command::new("sh")
            .args([
                "-c",
                "printf %s \"$1\" > \"$2\"; chmod +x \"$2\"",
                "sh",
                &text,
            ])
            .arg(&server)
            .status()
            .unwrap();
        assert!(made.success());
        lab_in(folder, Some(server), false)
    }

    /// An ack log of 7 records.
    fn acks(folder: &Path) -> PathBuf {
        let path = folder.join("acks");
        let header = AckLogHeader {
            version: VERSION,
            run_id: 1,
            topic: TopicSpec {
                bootstrap: vec!["127.0.0.1:9".into()],
                topic: TOPIC.into(),
                topics: 1,
                partitions: Some(1),
                replication_factor: -1,
                configs: Vec::new(),
            },
            payload: PayloadSpec {
                record_size: 128,
                files: Vec::new(),
                compressibility: 0.5,
                seed: 1,
                batch: BatchSize::Records(1),
                stamped: true,
                keys: 0,
            },
            transactional: false,
        };
        drop(AckLog::create(&path, &header).unwrap());
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("0 0 0 0 0 4 1000\n0 0 0 4 4 3 2000\n");
        fs::write(&path, text).unwrap();
        path
    }

    fn come_back(again: &str, acked: bool) -> Count {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (lab, acks) = (lab(folder.path(), again), acks(folder.path()));
        let mut broker = Broker::start(&lab, "stub", "").unwrap();
        broker.kill();
        let crash = Crash::new(&lab, "", "", acked, 1);
        let mut count = Count::default();
        crash.come_back(&mut broker, &acks, 5, &mut count).unwrap();
        count
    }

    #[test]
    fn a_server_that_does_not_start_after_a_kill_has_lost_everything() {
        let refuses = "echo 'the journal is damaged' >&2; exit 1";
        let count = come_back(refuses, true);
        assert_eq!((count.wanted, count.lost, count.refused), (7, 7, 1));
        let count = come_back(refuses, false);
        assert_eq!((count.wanted, count.lost, count.refused), (5, 5, 1));
    }

    #[test]
    fn a_server_that_starts_and_gives_nothing_out_has_lost_everything() {
        let count = come_back("true", true);
        assert_eq!((count.wanted, count.lost, count.unread), (7, 7, 1));
    }

    #[test]
    fn a_run_that_was_interrupted_has_lost_nothing() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let lab = lab_in(folder.path(), None, true);
        let mut count = Count::default();
        // A signal to the whole process group ends the server as well.
        let ended = Err(PointError::Unavailable("the server ended".into()));
        let looked = Owed::sent(5).look(&lab, ended, &mut count);
        assert!(matches!(looked, Err(PointError::Interrupted)));
        assert_eq!((count.wanted, count.lost), (0, 0));
    }
}
