//! Stores and the server under the same kill and the same flipped bits: what they lose, what they notice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ringlog_benches::claims::stores::Kind;
use ringlog_benches::claims::{Figures, harm};

use super::PointError;
use super::broker::Broker;
use super::lab::Lab;
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
    let place = |name: &str| -> Result<PathBuf, PointError> {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).map_err(failed)?;
        Ok(place)
    };
    let killed = place("killed")?;
    let committed = write_until(kind, &killed, None)?;
    let right = read(kind, &killed)?.map_or(0, |found| found.right);
    let whole = place("whole")?;
    let stored = write_until(kind, &whole, Some(RECORDS))?;
    let mut count = Flips::default();
    for flip in 0..flips {
        lab.scratch.check()?;
        let image = place("image")?;
        harm::copy(&whole, &image).map_err(failed)?;
        harm::flip(&image, seed + flip).map_err(failed)?;
        match read(kind, &image)? {
            None => count.noticed += 1,
            Some(found) if found.right == stored && found.wrong == 0 => count.harmless += 1,
            Some(_) => count.silent += 1,
        }
        std::fs::remove_dir_all(&image).map_err(failed)?;
    }
    Ok(count.figures(committed, committed.saturating_sub(right)))
}

/// The server, under the same: a reader checks every batch's checksum, as Kafka's clients do.
pub(super) fn server(lab: &Lab, seed: u64, flips: u64) -> Result<Figures, PointError> {
    let acks = lab.scratch.path().join("harm-acks");
    let line = |seconds: f64| {
        format!(
            "produce -t harm -p 1 -s 1024 --batch-records 4 --warmup 0 --duration {seconds} --rate {} --tolerate-errors \
             --ack-log {}",
            RECORDS * 2,
            acks.display()
        )
    };
    let mut broker = Broker::start(lab, "harm-killed", SERVER)?;
    let (load, pid) = (line(1.0), broker.pid());
    std::thread::scope(|scope| {
        let load = scope.spawn(|| broker.load_until_killed(&load));
        std::thread::sleep(KILLED_AFTER * 2);
        let killed = rustix::process::Pid::from_raw(pid as i32)
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        match (killed, load.join()) {
            (Some(Ok(())), Ok(sent)) => sent.map(drop),
            _ => Err(PointError::Failed("the server could not be killed".into())),
        }
    })?;
    broker.kill();
    broker.restart(lab, SERVER)?;
    let found = check(&acks, Some(broker.bootstrap())).map_err(|error| wrong(&error))?;
    let (committed, lost) = (found.acked, found.acked_lost);
    drop(broker);

    let mut whole = Broker::start(lab, "harm-whole", SERVER)?;
    whole.load(&line(0.5))?;
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
            Ok(broker) => match check(&acks, Some(broker.bootstrap())) {
                Err(_) => count.noticed += 1,
                Ok(found) if found.corrupt > 0 => count.noticed += 1,
                Ok(found) if found.acked_lost > 0 => count.silent += 1,
                Ok(_) => count.harmless += 1,
            },
        }
    }
    std::fs::remove_file(&acks).map_err(failed)?;
    Ok(count.figures(committed, lost))
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
