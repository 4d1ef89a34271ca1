//! Stores and the server under the same kill and the same flipped bits: what they lose, what they notice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ringlog_benches::claims::stores::Kind;
use ringlog_benches::claims::{Figures, harm};

use super::broker::Broker;
use super::crash::{Count, Owed};
use super::lab::Lab;
use super::{PointError, twice};
use crate::check::check;

/// Figures: of a million committed or acknowledged records after a kill; of a hundred flips.
pub(super) const KILL_LOST: &str = "kill_lost_per_million";
pub(super) const NOTICED: &str = "flips_noticed_percent";
pub(super) const SILENT: &str = "flips_silent_percent";
pub(super) const HARMLESS: &str = "flips_harmless_percent";

/// How long a store is written to before it is killed.
const KILLED_AFTER: Duration = Duration::from_millis(300);
/// Records that flips are tried on.
const RECORDS: u64 = 2048;
/// Longest a store may take to be read; then it counts as one that has noticed.
const READ_MAX: Duration = Duration::from_secs(20);
/// Small journals: they are copied for each flip.
const SERVER: &str = "--journal-bytes 67108864";

/// `store`: a process of its own, that may be killed.
#[derive(Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Commit records and print how many are durable
    Write(Place),
    /// Read everything and print what is there
    Read(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// Its name
    #[arg(long, value_parser = kind)]
    kind: Kind,
    /// Its folder
    #[arg(long)]
    dir: PathBuf,
    /// Records
    #[arg(long, default_value_t = u64::MAX)]
    most: u64,
}

fn kind(name: &str) -> Result<Kind, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

fn name_of(kind: Kind) -> String {
    let name = serde_json::to_value(kind).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

/// Carries the command out and returns what to print.
///
/// # Errors
/// The store's, in words.
pub fn run(command: &StoreCommand) -> Result<String, String> {
    match &command.action {
        Action::Write(place) => {
            harm::write(place.kind, &place.dir, place.most, std::io::stdout().lock())
                .map(|()| String::new())
                .map_err(|error| error.to_string())
        }
        Action::Read(place) => {
            let found = harm::read(place.kind, &place.dir).map_err(|error| error.to_string())?;
            serde_json::to_string(&found).map_err(|error| error.to_string())
        }
    }
}

/// What became of flipped bits.
#[derive(Debug, Default)]
struct Flips {
    noticed: u32,
    silent: u32,
    harmless: u32,
}

impl Flips {
    fn figures(&self, committed: u64, lost: u64) -> Figures {
        let all = f64::from((self.noticed + self.silent + self.harmless).max(1));
        let share = |count: u32| f64::from(count) * 100.0 / all;
        Figures::from([
            (
                KILL_LOST.into(),
                lost as f64 * 1e6 / committed.max(1) as f64,
            ),
            ("committed".into(), committed as f64),
            (NOTICED.into(), share(self.noticed)),
            (SILENT.into(), share(self.silent)),
            (HARMLESS.into(), share(self.harmless)),
            ("flips".into(), all),
        ])
    }
}

/// A store: killed while it commits, then read; written again, and read after each of `flips` bits.
pub(super) fn store(lab: &Lab, kind: Kind, seed: u64, flips: u64) -> Result<Figures, PointError> {
    let folder = lab.scratch.path().join("harm");
    let outcome = store_in(lab, kind, seed, flips, &folder);
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    outcome
}

fn store_in(
    lab: &Lab,
    kind: Kind,
    seed: u64,
    flips: u64,
    folder: &Path,
) -> Result<Figures, PointError> {
    let count = twice(|| store_flips(lab, kind, seed, flips, folder))?;
    // The kill comes last: no trouble of another kind can cost what it shows.
    let killed = folder.join("killed");
    let committed = twice(|| write_until(kind, &fresh(&killed)?, None))?;
    let right = read(kind, &killed)?.map_or(0, |found| found.right);
    // A signal ends the reading process, too.
    lab.scratch.check()?;
    Ok(count.figures(committed, committed.saturating_sub(right)))
}

/// A store that was written and closed, read after each of `flips` bits.
fn store_flips(
    lab: &Lab,
    kind: Kind,
    seed: u64,
    flips: u64,
    folder: &Path,
) -> Result<Flips, PointError> {
    let whole = fresh(&folder.join("whole"))?;
    let stored = write_until(kind, &whole, Some(RECORDS))?;
    let mut count = Flips::default();
    for flip in 0..flips {
        lab.scratch.check()?;
        let image = fresh(&folder.join("image"))?;
        harm::copy(&whole, &image).map_err(failed)?;
        harm::flip(&image, seed + flip).map_err(failed)?;
        match read(kind, &image)? {
            None => count.noticed += 1,
            Some(found) if found.right == stored && found.wrong == 0 => count.harmless += 1,
            Some(_) => count.silent += 1,
        }
    }
    Ok(count)
}

/// An empty folder.
fn fresh(folder: &Path) -> Result<PathBuf, PointError> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    Ok(folder.to_owned())
}

/// The server, under the same: a reader checks every batch's checksum, as Kafka's clients do.
pub(super) fn server(lab: &Lab, seed: u64, flips: u64) -> Result<Figures, PointError> {
    let acks = lab.scratch.path().join("harm-acks");
    let count = twice(|| server_flips(lab, seed, flips, &acks))?;
    // The kill comes last, as a store's.
    let mut broker = twice(|| {
        let mut broker = Broker::start(lab, "harm-killed", SERVER)?;
        broker.kill_under_load(&line(1.0, &acks), KILLED_AFTER * 2)?;
        Ok(broker)
    })?;
    let mut killed = Count::default();
    let started = broker.restart(lab, SERVER);
    Owed::acked(&acks, None)?.look(lab, started.map(|()| &broker), &mut killed)?;
    // One that stays goes with the scratch folder.
    let _ = std::fs::remove_file(&acks);
    Ok(count.figures(killed.wanted, killed.lost))
}

/// What the server is sent.
fn line(seconds: f64, acks: &Path) -> String {
    format!(
        "produce -t harm -p 1 -s 1024 --batch-records 4 --warmup 0 --duration {seconds} --rate {} --tolerate-errors \
         --ack-log {}",
        RECORDS * 2,
        acks.display()
    )
}

/// What a server stored, read after each of `flips` bits.
fn server_flips(lab: &Lab, seed: u64, flips: u64, acks: &Path) -> Result<Flips, PointError> {
    let mut whole = Broker::start(lab, "harm-whole", SERVER)?;
    whole.load(&line(0.5, acks))?;
    whole.stop();
    let mut count = Flips::default();
    for flip in 0..flips {
        lab.scratch.check()?;
        let image = lab.scratch.path().join("harm-image").join("data");
        harm::copy(&whole.data(), &image).map_err(failed)?;
        harm::flip(&image, seed + flip).map_err(failed)?;
        match Broker::start(lab, "harm-image", SERVER) {
            Err(PointError::Unavailable(_)) => count.noticed += 1,
            Err(error) => return Err(error),
            Ok(broker) => match check(acks, Some(broker.bootstrap())) {
                Err(_) => count.noticed += 1,
                Ok(found) if found.corrupt > 0 => count.noticed += 1,
                Ok(found) if found.acked_lost > 0 => count.silent += 1,
                Ok(_) => count.harmless += 1,
            },
        }
    }
    Ok(count)
}

fn child(kind: Kind, folder: &Path, action: &str, most: Option<u64>) -> Result<Child, PointError> {
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(["store", action, "--kind", &name_of(kind), "--dir"])
        .arg(folder);
    if let Some(most) = most {
        command.arg("--most").arg(most.to_string());
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)
}

/// Records that a store has said are durable: up to `most`, or until it is killed.
fn write_until(kind: Kind, folder: &Path, most: Option<u64>) -> Result<u64, PointError> {
    let mut child = child(kind, folder, "write", most)?;
    let stdout = child.stdout.take();
    let told = std::thread::spawn(move || {
        let lines = stdout
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines());
        let last = lines
            .map_while(Result::ok)
            .filter_map(|line| line.parse().ok());
        last.last().unwrap_or(0u64)
    });
    if most.is_none() {
        std::thread::sleep(KILLED_AFTER);
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let told = told
        .join()
        .map_err(|_| PointError::Failed("reading from a store's process broke off".into()))?;
    if most.is_some_and(|most| told < most) || told == 0 {
        return Err(PointError::Failed(format!(
            "{kind:?} ended ({status}) after {told} records"
        )));
    }
    Ok(told)
}

/// What a store gives back; `None` when it reports an error, breaks down or hangs.
fn read(kind: Kind, folder: &Path) -> Result<Option<harm::Found>, PointError> {
    let mut child = child(kind, folder, "read", None)?;
    let deadline = Instant::now() + READ_MAX;
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&output.stdout).ok())
}

fn failed(error: std::io::Error) -> PointError {
    wrong(&error)
}

fn wrong(error: &dyn std::fmt::Display) -> PointError {
    PointError::Failed(error.to_string())
}
