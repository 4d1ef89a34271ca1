//! The subcommand: what to measure, where, and what to write.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use super::claim::{Claim, Means, Scale};
use super::host::Host;
use super::lab::{Lab, check_space, free_bytes};
use super::record::{self, Identity, Journal};
use super::report::{self, Results};
use super::runner::{self, Planned};
use super::{ClaimsError, allowed, catalog, peers};

/// Most log files taken from /var/log.
const LOGS_MAX: usize = 4;

/// `claims`
#[derive(Debug, Args)]
pub struct ClaimsCommand {
    /// At most 8 minutes in all, with smaller files and thinner grids [default: an hour and a half]
    #[arg(long)]
    quick: bool,
    /// Seconds in all, figures without meaning: for tests of this tool
    #[arg(long, hide = true)]
    tiny: bool,
    /// Only these claims, for example C1,C7
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure these claims anew and keep what --out holds of the others, whichever build measured them
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "fresh"
    )]
    again: Vec<String>,
    /// Directory for report.html, summary.svg, results.json and the raw measurements
    #[arg(long, default_value = "claims-report")]
    out: PathBuf,
    /// Directory on the disk under test; everything written there is removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Discard what an interrupted run left in --out instead of going on with it
    #[arg(long)]
    fresh: bool,
    /// The server's binary [default: ringlog-server beside this one]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Files with real log lines (repeatable) [default: text files of /var/log]
    #[arg(long, value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// Figures of other brokers on this host, by `scripts/peers measure`, for C5, C6, C11, C15 and C19
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Print the plan with its time and space, and measure nothing
    #[arg(long)]
    plan: bool,
    /// Draw report.html and summary.svg from DIR's results.json once more and measure nothing
    #[arg(long, value_name = "DIR")]
    redraw: Option<PathBuf>,
    /// Print two results.json side by side and measure nothing
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Vec<PathBuf>,
}

impl ClaimsCommand {
    fn scale(&self) -> Scale {
        match (self.tiny, self.quick) {
            (true, _) => Scale::Tiny,
            (_, true) => Scale::Quick,
            _ => Scale::Full,
        }
    }

    /// What there is to measure with.
    fn means(&self) -> Result<Means, ClaimsError> {
        let anew = self.fresh || self.again.iter().any(|id| id.eq_ignore_ascii_case("C13"));
        Ok(Means {
            free_bytes: free_bytes(&self.dir)?,
            stored_mib: match anew {
                true => None,
                false => record::largest(&self.out, "C13", "x"),
            },
        })
    }

    fn lab(&self) -> Result<Lab, ClaimsError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(ClaimsError::file("signals".as_ref()))?;
        }
        let server = self.server.clone().or_else(beside);
        let logs = match self.logs.is_empty() {
            true => log_files(),
            false => self.logs.clone(),
        };
        Lab::new(&self.dir, self.scale(), server, logs, &self.out, stop)
    }
}

/// Carries the command out and returns what to print.
///
/// # Errors
/// [`ClaimsError`].
pub fn run(command: &ClaimsCommand) -> Result<String, ClaimsError> {
    if let [a, b] = command.compare.as_slice() {
        return report::compare(&report::load(a)?, &report::load(b)?);
    }
    if let Some(out) = &command.redraw {
        return redraw(out);
    }
    measure(command)
}

fn redraw(out: &Path) -> Result<String, ClaimsError> {
    let results = report::load(&out.join(report::JSON))?;
    report::draw(out, &results)?;
    Ok(format!(
        "{}\n{}",
        out.join(report::PAGE).display(),
        out.join(report::PICTURE).display()
    ))
}

fn measure(command: &ClaimsCommand) -> Result<String, ClaimsError> {
    let peers = command.peers.as_deref().map(peers::load).transpose()?;
    let claims = catalog::all(&command.means()?);
    let again = named(&command.again, &claims)?;
    let wanted = wanted(command, &claims, &again)?;
    let lab = command.lab()?;
    let planned: Vec<Planned<'_>> = claims
        .iter()
        .map(|claim| Planned::new(claim.as_ref(), &lab, wanted.contains(&claim.id())))
        .collect();
    check_spaces(command, &planned)?;
    if command.plan {
        return Ok(estimate(command, &planned, None));
    }
    let results = carry_out(command, &lab, &planned, &again, peers.as_ref());
    let results = results.map_err(|error| match error {
        // The same command would forget what it has measured.
        ClaimsError::Interrupted if !again.is_empty() => ClaimsError::Usage(
            "interrupted; the same command with --only instead of --again goes on where it was"
                .into(),
        ),
        error => error,
    })?;
    report::write(&command.out, &results)?;
    Ok(format!(
        "{}\nreport: {}",
        report::table(&results),
        command.out.join(report::PAGE).display()
    ))
}

/// Measures what is planned and judges it beside what --out holds.
fn carry_out(
    command: &ClaimsCommand,
    lab: &Lab,
    planned: &[Planned<'_>],
    again: &[&str],
    peers: Option<&peers::Peers>,
) -> Result<Results, ClaimsError> {
    let mut host = Host::look(&command.dir);
    let dir = command.dir.display().to_string();
    let identity = Identity::new(command.scale().name(), &dir, host.identity());
    // What is known of the plans of claims that are not measured now.
    let mut earlier = Vec::new();
    if command.fresh {
        let file = command.out.join(record::FILE);
        if file.exists() {
            fs::remove_file(&file).map_err(ClaimsError::file(&file))?;
        }
    } else if let Ok(results) = report::load(&command.out.join(report::JSON)) {
        earlier = results.claims;
    }
    let mut journal = Journal::open_without(&command.out, &identity, again)?;
    journal.measured_by(&report::name_of_build(lab.server.as_deref()));
    eprintln!("{}", estimate(command, planned, Some(&journal)));
    let refused = allowed::refused();
    for refused in &refused {
        eprintln!("{}", refused.line());
    }
    host.note_refused(&refused);
    let results = runner::run(planned, lab, &mut journal, &earlier)?;
    let mut results = Results::new(&identity, host, results, catalog::unbuilt());
    peers::apply(&mut results.claims, peers);
    Ok(results)
}

/// The ids to measure: those asked for, all by default.
fn wanted(
    command: &ClaimsCommand,
    claims: &[Box<dyn Claim>],
    again: &[&'static str],
) -> Result<Vec<&'static str>, ClaimsError> {
    if command.only.is_empty() && again.is_empty() {
        return Ok(claims.iter().map(|claim| claim.id()).collect());
    }
    let mut ids = named(&command.only, claims)?;
    ids.extend(again);
    Ok(ids)
}

/// The ids of claims by their names.
fn named(names: &[String], claims: &[Box<dyn Claim>]) -> Result<Vec<&'static str>, ClaimsError> {
    let built: Vec<&'static str> = claims.iter().map(|claim| claim.id()).collect();
    let mut ids = Vec::new();
    for name in names {
        let name = name.trim().to_uppercase();
        if let Some(id) = built.iter().find(|id| **id == name) {
            ids.push(*id);
        } else if let Some(missing) = catalog::unbuilt().iter().find(|m| m.id == name) {
            let why = &missing.conclusion.why;
            return Err(ClaimsError::Usage(format!(
                "{name} is not yet measured: {why}"
            )));
        } else {
            return Err(ClaimsError::Usage(format!(
                "{name} is no claim; there are {}",
                built.join(", ")
            )));
        }
    }
    Ok(ids)
}

fn beside() -> Option<PathBuf> {
    let server = std::env::current_exe()
        .ok()?
        .with_file_name("ringlog-server");
    server.is_file().then_some(server)
}

/// Files of /var/log with text, the largest first: real log lines.
fn log_files() -> Vec<PathBuf> {
    let mut files: Vec<(u64, PathBuf)> = fs::read_dir("/var/log")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let (path, size) = (entry.path(), entry.metadata().ok()?.len());
            let is_log = path.extension().is_some_and(|extension| extension == "log")
                || ["syslog", "messages"]
                    .iter()
                    .any(|name| path.ends_with(name));
            // Short ones say little, and very long ones are not read whole.
            let fits =
                (10_000..50_000_000).contains(&size) && !path.display().to_string().contains(' ');
            (is_log && fits && fs::read_to_string(&path).is_ok()).then_some((size, path))
        })
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    files
        .into_iter()
        .take(LOGS_MAX)
        .map(|(_, path)| path)
        .collect()
}

fn check_spaces(command: &ClaimsCommand, planned: &[Planned<'_>]) -> Result<(), ClaimsError> {
    let scale = command.scale();
    for planned in planned.iter().filter(|planned| planned.wanted) {
        let bytes = planned.claim.needs(scale).bytes;
        check_space(&command.dir, planned.claim.id(), bytes, scale)?;
    }
    Ok(())
}

fn estimate(command: &ClaimsCommand, planned: &[Planned<'_>], journal: Option<&Journal>) -> String {
    let wanted = || planned.iter().filter(|planned| planned.wanted);
    let scale = command.scale();
    let seconds: f64 = wanted()
        .map(|planned| match journal {
            Some(journal) => planned.expected_s(journal),
            None => planned.plan.thinning.expected_s,
        })
        .sum();
    let bytes = wanted()
        .map(|planned| planned.claim.needs(scale).bytes)
        .max();
    let mut lines: Vec<String> = Vec::new();
    if journal.is_none() {
        lines.extend(wanted().map(|planned| {
            let thinning = &planned.plan.thinning;
            format!(
                "{:<4} {:>4} of {:>4} points, {} repetitions, {:>5.0} s, {:>6} MiB{}",
                planned.claim.id(),
                thinning.kept,
                thinning.points,
                thinning.repeats,
                thinning.expected_s,
                planned.claim.needs(scale).bytes >> 20,
                thinning
                    .remark
                    .as_ref()
                    .map_or_else(String::new, |remark| format!("  {remark}"))
            )
        }));
    }
    for planned in wanted().filter(|_| journal.is_some()) {
        if let Some(remark) = &planned.plan.thinning.remark {
            lines.push(format!("{}: {remark}", planned.claim.id()));
        }
    }
    let done = journal.map_or(0, Journal::len);
    if done > 0 {
        lines.push(format!(
            "going on after {done} measurements in {}",
            command.out.display()
        ));
    }
    lines.push(format!(
        "{} claims, about {:.0} min {:02.0} s, at most {} MiB at a time in {}",
        wanted().count(),
        (seconds / 60.0).floor(),
        seconds % 60.0,
        bytes.unwrap_or(0) >> 20,
        command.dir.display()
    ));
    lines.join("\n")
}
