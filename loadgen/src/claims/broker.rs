//! A server of our own for the claims that need a whole one: a child process on its own cores, gone with its data at the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Parser;
use ringlog_benches::claims::pair::{End, Pair};
use ringlog_benches::claims::transfer::Medium;
use ringlog_benches::claims::{Figures, make_cold, make_hot};
use rustix::process::{Pid, Signal, kill_process};

use super::PointError;
use super::lab::Lab;
use crate::cli::Cli;
use crate::run::{self, RoleResult, RunResult};
use crate::stats::LatencyUs;

/// Longest a start may take: a journal has to be filled.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest a stop may take before it is forced.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Small, so that what was written soon lies in segment files and not in memory.
const JOURNAL_BYTES: u64 = 128 << 20;

/// A running server.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    bootstrap: String,
    folder: PathBuf,
    cpus: Vec<usize>,
    /// The namespaces it and its clients are in, if not the host's.
    pair: Option<Arc<Pair>>,
}

impl Broker {
    /// Starts one with these arguments beside the ones every server gets; `name` is its folder's.
    ///
    /// # Errors
    /// [`PointError::Unavailable`] without a binary, with the server's own reason when it refuses, and when it takes too long.
    pub fn start(lab: &Lab, name: &str, arguments: &str) -> Result<Self, PointError> {
        Self::start_in(lab, name, arguments, None)
    }

    /// The same at the far end of a pair, if one is given: then [`Broker::load_over`] has both media.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_in(
        lab: &Lab,
        name: &str,
        arguments: &str,
        pair: Option<Arc<Pair>>,
    ) -> Result<Self, PointError> {
        let folder = lab.scratch.path().join(name);
        fs::create_dir_all(&folder).map_err(failed)?;
        let child = spawn(lab, &folder, arguments, pair.as_ref())?;
        let mut broker = Self {
            child,
            bootstrap: String::new(),
            folder,
            cpus: lab.cores.load.clone(),
            pair,
        };
        broker.bootstrap = broker.ready(lab)?;
        Ok(broker)
    }

    /// Kills it as a crash would, without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it some time after a load began, which may fail from then on, and returns what the load did.
    ///
    /// # Errors
    /// [`PointError::Failed`]: a wrong line, a run that broke off, a server that cannot be killed.
    pub fn kill_under_load(
        &mut self,
        line: &str,
        delay: Duration,
    ) -> Result<RunResult, PointError> {
        let sent = std::thread::scope(|scope| {
            let load = scope.spawn(|| self.load_until_killed(line));
            std::thread::sleep(delay);
            let killed = kill_process(Pid::from_child(&self.child), Signal::KILL);
            match (killed, load.join()) {
                (Ok(()), Ok(sent)) => sent,
                _ => Err(PointError::Failed(
                    "the server could not be killed under load".into(),
                )),
            }
        })?;
        self.kill();
        Ok(sent)
    }

    /// Stops it in order; its data stays until this is dropped.
    pub fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.wait();
    }

    /// Starts it again on the same data, after [`Broker::kill`].
    ///
    /// # Errors
    /// [`PointError`].
    pub fn restart(&mut self, lab: &Lab, arguments: &str) -> Result<(), PointError> {
        self.child = spawn(lab, &self.folder, arguments, self.pair.as_ref())?;
        self.bootstrap = self.ready(lab)?;
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Waits for the line that says where it listens.
    fn ready(&mut self, lab: &Lab) -> Result<String, PointError> {
        let stdout = self.child.stdout.take();
        let (to, from) = channel();
        std::thread::spawn(move || {
            for line in stdout
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines())
                .map_while(Result::ok)
            {
                // Read on, even when nobody listens: a full pipe would stop the server.
                let _ = to.send(line);
            }
        });
        let deadline = Instant::now() + START_MAX;
        loop {
            lab.scratch.check()?;
            if let Ok(line) = from.recv_timeout(Duration::from_millis(100))
                && let Some(rest) = line.strip_prefix("ringlog ready: ")
            {
                return Ok(rest.split(' ').next().unwrap_or_default().to_owned());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let reason = log.lines().last().unwrap_or("without a word").to_owned();
                return Err(PointError::Unavailable(format!(
                    "the server ended ({status}): {reason}"
                )));
            }
            if Instant::now() > deadline {
                return Err(PointError::Unavailable(
                    "the server was not ready in a minute".into(),
                ));
            }
        }
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a line of `ringlog-load` against it, on the load's cores.
    ///
    /// # Errors
    /// [`PointError::Failed`]: a wrong line, a run that broke off, an error in any request.
    pub fn load(&self, line: &str) -> Result<RunResult, PointError> {
        self.load_over(Medium::Loopback, line, None)
    }

    /// The same over either medium, and latencies go to a file.
    ///
    /// # Errors
    /// As [`Broker::load`]; [`PointError::Unavailable`] over a pair when it was started without one.
    pub fn load_over(
        &self,
        medium: Medium,
        line: &str,
        histogram: Option<&Path>,
    ) -> Result<RunResult, PointError> {
        let result = self.carry_out(medium, line, histogram)?;
        if result.error_count() > 0 {
            let roles = [&result.produce, &result.consume];
            let names: Vec<&String> = roles
                .into_iter()
                .flatten()
                .flat_map(|role| role.total.errors.keys())
                .collect();
            let count = result.error_count();
            return Err(PointError::Failed(format!(
                "{line}: {count} errors {names:?}"
            )));
        }
        Ok(result)
    }

    /// The same, and errors are no reason to fail.
    ///
    /// # Errors
    /// [`PointError::Failed`]: a wrong line, a run that broke off.
    fn load_until_killed(&self, line: &str) -> Result<RunResult, PointError> {
        self.carry_out(Medium::Loopback, line, None)
    }

    fn carry_out(
        &self,
        medium: Medium,
        line: &str,
        histogram: Option<&Path>,
    ) -> Result<RunResult, PointError> {
        let (bootstrap, pid) = (&self.bootstrap, self.pid());
        let words =
            format!("ringlog-load {line} --json --bootstrap {bootstrap} --server-pid {pid}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|error| {
            let error = error.to_string();
            PointError::Failed(format!(
                "{line}: {}",
                error.lines().next().unwrap_or_default()
            ))
        })?;
        let request = cli.command.request().map_err(PointError::Failed)?;
        let Some(mut request) = request else {
            return Err(PointError::Failed(format!("{line}: not a run")));
        };
        request.options.cpus.clone_from(&self.cpus);
        request.options.hist_out = histogram.map(Path::to_owned);
        let run = || {
            run::run(&request.options)
                .map_err(|error| PointError::Failed(format!("{line}: {error}")))
        };
        match (&self.pair, medium) {
            (None, Medium::Loopback) => run(),
            (None, Medium::Veth) => Err(PointError::Unavailable(
                "the server is not at an end of a pair of virtual devices".into(),
            )),
            (Some(pair), medium) => within(pair, end_of(medium), run),
        }
    }

    /// Takes its segment files out of the page cache, or brings them in; looks whether it worked.
    ///
    /// # Errors
    /// [`PointError`].
    pub fn set_cache(&self, hot: bool) -> Result<(), PointError> {
        for path in segments(&self.data().join("topics")) {
            let Ok(file) = File::options().read(true).write(!hot).open(&path) else {
                continue; // A deleted topic.
            };
            if file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                if hot {
                    make_hot(&file)?
                } else {
                    make_cold(&file)?
                };
            }
        }
        Ok(())
    }
}

/// Where the clients are: a server at the far end of a pair is reached over loopback from there, over the pair from the near end.
fn end_of(medium: Medium) -> End {
    match medium {
        Medium::Loopback => End::Far,
        Medium::Veth => End::Near,
    }
}

/// Works at an end of a pair, in a thread of its own: those that it starts are there too.
fn within<T: Send>(
    pair: &Pair,
    end: End,
    work: impl FnOnce() -> Result<T, PointError> + Send,
) -> Result<T, PointError> {
    pair.within(end, || Ok(work())).map_err(failed)?
}

/// Starts the server's process in `folder`, at the far end of a pair if one is given.
fn spawn(
    lab: &Lab,
    folder: &Path,
    arguments: &str,
    pair: Option<&Arc<Pair>>,
) -> Result<Child, PointError> {
    let binary = lab.server.as_ref().ok_or_else(|| {
        let reason =
            "ringlog-server is not beside ringlog-load: build it, or name it with --server";
        PointError::Unavailable(reason.into())
    })?;
    let log = File::create(folder.join("log")).map_err(failed)?;
    let mut command = Command::new(binary);
    command
        .arg("--data")
        .arg(folder.join("data"))
        .args(["--port", "0", "--shards", "1", "--journal-bytes"])
        .arg(JOURNAL_BYTES.to_string())
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let far = End::Far.address().to_string();
    if pair.is_some() {
        command.args(["--listen", &far, "--advertise", &far]);
    }
    // A child runs where the thread runs that starts it.
    let (cores, pair) = (lab.cores.server.clone(), pair.cloned());
    let child = std::thread::spawn(move || {
        if let Some(pair) = pair {
            pair.enter(End::Far)?;
        }
        run::pin(&cores)?;
        command.spawn()
    });
    let child = child
        .join()
        .map_err(|_| PointError::Failed("the server could not be started".into()))?
        .map_err(|error| PointError::Failed(format!("{}: {error}", binary.display())))?;
    Ok(child)
}

/// The segment files below `topics`.
fn segments(topics: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(topics).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

fn failed(error: std::io::Error) -> PointError {
    PointError::Failed(error.to_string())
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A process that has ended has given its number back.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What both roles of a run measured.
#[must_use]
pub fn figures(result: &RunResult) -> Figures {
    let mut figures = Figures::new();
    let mut add = |name: String, value: f64| {
        if value.is_finite() {
            figures.insert(name, value);
        }
    };
    // With both roles the figures without a prefix are the producers'.
    for (prefix, role) in [
        ("", result.produce.as_ref()),
        (
            if result.produce.is_some() {
                "read_"
            } else {
                ""
            },
            result.consume.as_ref(),
        ),
    ] {
        let Some(role) = role else { continue };
        role_figures(
            &mut |name, value| add(format!("{prefix}{name}"), value),
            role,
            result,
        );
    }
    figures
}

fn role_figures(add: &mut dyn FnMut(&str, f64), role: &RoleResult, result: &RunResult) {
    let counts = &role.measured;
    let seconds = result.window_s;
    let gigabytes = counts.batch_bytes as f64 / 1e9;
    add("records_per_s", counts.records as f64 / seconds);
    add("mb_per_s", counts.batch_bytes as f64 / 1e6 / seconds);
    add(
        "bytes_per_record",
        counts.batch_bytes as f64 / counts.records as f64,
    );
    add("requests_per_s", counts.requests as f64 / seconds);
    let latency = LatencyUs::of(&counts.latency);
    for (name, value) in [
        ("p50_us", latency.p50),
        ("p99_us", latency.p99),
        ("p999_us", latency.p999),
    ] {
        if latency.count > 0 {
            add(name, value);
        }
    }
    if let Some(histogram) = &counts.end_to_end {
        let latency = LatencyUs::of(histogram);
        add("end_to_end_p50_us", latency.p50);
        add("end_to_end_p99_us", latency.p99);
    }
    let transactions = &counts.transactions;
    if transactions.committed > 0 {
        add(
            "transactions_per_s",
            transactions.committed as f64 / seconds,
        );
    }
    for (name, histogram) in [
        ("transaction", &transactions.latency),
        ("end_txn", &transactions.end_latency),
    ] {
        if let Some(histogram) = histogram {
            let latency = LatencyUs::of(histogram);
            add(&format!("{name}_p50_us"), latency.p50);
            add(&format!("{name}_p99_us"), latency.p99);
        }
    }
    add(
        "client_cpu_s_per_gb",
        result.usage.client.cpu_s() / gigabytes,
    );
    add(
        "client_cpu_s_per_million_records",
        result.usage.client.cpu_s() * 1e6 / counts.records as f64,
    );
    if let Some(server) = &result.usage.server {
        add("server_cpu_s_per_gb", server.cpu_s() / gigabytes);
        add(
            "server_cpu_s_per_million_records",
            server.cpu_s() * 1e6 / counts.records as f64,
        );
        add(
            "server_written_per_byte",
            server.write_bytes as f64 / counts.batch_bytes as f64,
        );
        add("server_cores_busy", server.cpu_s() / seconds);
    }
    let halves: Vec<u64> = role.intervals.iter().map(|(records, _)| *records).collect();
    if halves.len() >= 4 {
        let (first, second) = halves.split_at(halves.len() / 2);
        let mean = |half: &[u64]| half.iter().sum::<u64>() as f64 / half.len() as f64;
        add("drift", mean(second) / mean(first));
    }
}
