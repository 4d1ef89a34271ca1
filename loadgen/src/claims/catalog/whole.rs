//! What the claims about a whole server share: points that are a server and a line of `ringlog-load`, and their rig.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlog_benches::claims::Figures;
use ringlog_benches::claims::counts::ProcessCalls;
use ringlog_benches::claims::pair::Pair;
use ringlog_benches::claims::transfer::Medium;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::stored::fill;
use crate::claims::PointError;
use crate::claims::broker::{Broker, figures};
use crate::claims::claim::{Claim, Needs, Rig, Scale};
use crate::claims::crash::Crash;
use crate::claims::lab::Lab;
use crate::claims::outcome::{Conclusion, Finding, Mark, Series, find};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number;
use crate::claims::verdict::{self, Expect, Verdict};

/// A claim whose points are all lines of `ringlog-load` against a server. Arrays are for the scales, the smallest first.
pub(super) struct WholeClaim {
    pub(super) id: &'static str,
    pub(super) sentence: &'static str,
    pub(super) points: fn(Scale) -> Vec<Point>,
    /// GiB on the disk under test, at most at a time.
    pub(super) space_gib: [u64; 3],
    /// Seconds to start servers and to store what is read.
    pub(super) setup_s: [f64; 3],
    /// Seconds in all.
    pub(super) budget_s: [f64; 3],
    pub(super) judge: fn(&[Measurement]) -> Conclusion,
}

impl Claim for WholeClaim {
    fn id(&self) -> &'static str {
        self.id
    }

    fn sentence(&self) -> &'static str {
        self.sentence
    }

    fn points(&self, scale: Scale) -> Vec<Point> {
        (self.points)(scale)
    }

    fn needs(&self, scale: Scale) -> Needs {
        Needs {
            bytes: scale.of(self.space_gib) << 30,
            setup_s: scale.of(self.setup_s),
        }
    }

    fn budget_s(&self, scale: Scale) -> f64 {
        scale.of(self.budget_s)
    }

    fn rig<'a>(&self, lab: &'a Lab, points: &[Point]) -> Result<Box<dyn Rig + 'a>, PointError> {
        let mut rig = WholeRig::new(lab, self.id)?;
        if points.iter().any(|p| p.params.contains_key("medium")) {
            rig.between_namespaces();
        }
        Ok(Box::new(rig))
    }

    fn judge(&self, measurements: &[Measurement]) -> Conclusion {
        (self.judge)(measurements)
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Whole {
    /// What it stands for in its claim.
    pub(super) side: String,
    /// The number that is varied.
    pub(super) x: u64,
    /// Arguments of the server.
    pub(super) server: String,
    /// What is stored before, once for each server: a line of `ringlog-load produce` without its topic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) stored: String,
    /// State of the page cache before each repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hot: Option<bool>,
    /// The line that is measured: `{topic}` is a new topic, `{stored}` the one stored before, `{time}` warm-up and window,
    /// `{logs}` the files with log lines.
    pub(super) load: String,
    /// A line that runs at the same time and is not measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) beside: String,
    /// The server's system calls are counted meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) calls: bool,
    /// The server is crashed under this load, which wants these acks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crashed: Option<String>,
    /// What lies between server and clients, in a claim that has both media.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) medium: Option<Medium>,
}

impl Whole {
    /// A produce or consume line against a server with these arguments.
    pub(super) fn new(side: &str, x: u64, server: &str, load: impl Into<String>) -> Self {
        Self {
            side: side.into(),
            x,
            server: server.into(),
            stored: String::new(),
            hot: None,
            load: load.into(),
            beside: String::new(),
            calls: false,
            crashed: None,
            medium: None,
        }
    }

    /// The same over a medium.
    pub(super) fn over(mut self, medium: Medium) -> Self {
        self.medium = Some(medium);
        self
    }

    /// The same after something was stored, with the page cache hot or cold.
    pub(super) fn after(mut self, stored: impl Into<String>, hot: bool) -> Self {
        self.stored = stored.into();
        self.hot = Some(hot);
        self
    }

    /// Its point; a run takes its time and what it takes to begin and end.
    pub(super) fn point(&self, rank: u32, scale: Scale) -> Point {
        let (warmup_s, window_s) = time(scale);
        let idle_s = scale.pick(0.1, 0.05, 0.3);
        Point::new(self, rank, warmup_s + window_s + idle_s)
    }
}

/// Seconds of warm-up and of the window that counts.
pub(super) fn time(scale: Scale) -> (f64, f64) {
    scale.pick((0.1, 0.2), (0.3, 0.9), (1.0, 4.0))
}

/// What a producer's processor does before it sends, and with sending together, seconds for a million records.
pub(super) const BATCHING_CPU: &str = "batching_cpu_s_per_million_records";
pub(super) const CLIENT_CPU: &str = "client_all_cpu_s_per_million_records";

/// Starts each server when it is first needed and keeps it to the end of the claim.
pub(super) struct WholeRig<'a> {
    lab: &'a Lab,
    /// For the names of histograms.
    claim: &'static str,
    servers: BTreeMap<String, Result<Broker, String>>,
    /// Topics by server and line, or why it cannot be stored.
    stored: BTreeMap<(String, String), Result<String, String>>,
    topics: u32,
    crashes: u32,
    /// Where servers and clients are, if not in the host's network; or why there is no such place.
    pair: Option<Result<Arc<Pair>, String>>,
}

impl<'a> WholeRig<'a> {
    pub(super) fn new(lab: &'a Lab, claim: &'static str) -> Result<Self, PointError> {
        if lab.server.is_none() {
            let reason =
                "ringlog-server is not beside ringlog-load: build it, or name it with --server";
            return Err(PointError::Unavailable(reason.into()));
        }
        Ok(Self {
            lab,
            claim,
            servers: BTreeMap::new(),
            stored: BTreeMap::new(),
            topics: 0,
            crashes: 0,
            pair: None,
        })
    }

    /// From now on servers start at one end of a pair of virtual devices, where that is allowed.
    fn between_namespaces(&mut self) {
        let pair = Pair::make().map_err(|error| error.to_string());
        self.pair = Some(pair.map(Arc::new));
    }

    /// Why there is nothing but loopback.
    fn check_medium(&self, medium: Medium) -> Result<(), PointError> {
        match (&self.pair, medium) {
            (Some(Err(reason)), Medium::Veth) => Err(PointError::Unavailable(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Address and topic of what a point wants stored, with the page cache as it wants it.
    pub(super) fn stored(&mut self, whole: &Whole) -> Result<(String, String), PointError> {
        self.server(&whole.server)?;
        let topic = self.store(whole)?;
        let broker = self.broker(&whole.server)?;
        if let Some(hot) = whole.hot {
            broker.set_cache(hot)?;
        }
        Ok((broker.bootstrap().to_owned(), topic))
    }

    fn server(&mut self, arguments: &str) -> Result<(), PointError> {
        if !self.servers.contains_key(arguments) {
            let name = format!("server-{}", self.servers.len());
            let pair = self.pair.as_ref().and_then(|pair| pair.as_ref().ok());
            let started = match Broker::start_in(self.lab, &name, arguments, pair.cloned()) {
                Ok(broker) => Ok(broker),
                Err(PointError::Interrupted) => return Err(PointError::Interrupted),
                // Said once more for every point that needs it, without trying again.
                Err(error) => Err(error.to_string()),
            };
            self.servers.insert(arguments.to_owned(), started);
        }
        Ok(())
    }

    /// The topic that holds what a point wants stored.
    fn store(&mut self, whole: &Whole) -> Result<String, PointError> {
        let key = (whole.server.clone(), whole.stored.clone());
        if let Some(stored) = self.stored.get(&key) {
            return stored.clone().map_err(PointError::Unavailable);
        }
        // A new one each time: an attempt that failed has left records in its own.
        let topic = format!("stored-{}", self.topics);
        self.topics += 1;
        let broker = self.broker(&whole.server)?;
        let filled = fill(&whole.stored, |line| {
            self.lab.scratch.check()?;
            let result = broker.load(&format!("{line} -t {topic}"))?;
            Ok(result.produce.map_or(0, |role| role.total.records))
        });
        let stored = match filled {
            Ok(()) => Ok(topic),
            // The disk will be as slow for the next point.
            Err(PointError::Unavailable(reason)) => Err(reason),
            Err(error) => return Err(error),
        };
        self.stored.insert(key, stored.clone());
        stored.map_err(PointError::Unavailable)
    }

    /// Where a repetition's latencies go, as an interval log of HdrHistogram.
    fn histogram(&self, whole: &Whole, repetition: u32) -> Result<PathBuf, PointError> {
        let folder = self.lab.out.join("histograms");
        std::fs::create_dir_all(&folder)
            .map_err(|error| PointError::Failed(format!("{}: {error}", folder.display())))?;
        let side: String = whole
            .side
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let hot = match whole.hot {
            Some(true) => "-hot",
            Some(false) => "-cold",
            None => "",
        };
        let over = match whole.medium {
            Some(Medium::Veth) => "-veth",
            _ => "",
        };
        Ok(folder.join(format!(
            "{}-{side}-{}{hot}{over}-{repetition}.hlog",
            self.claim, whole.x
        )))
    }

    /// The files with log lines as arguments, if the point wants any.
    fn logs(&self, whole: &Whole) -> Result<String, PointError> {
        if whole.load.contains("{logs}") && self.lab.logs.is_empty() {
            let reason = "no log files were found in /var/log: name some with --logs";
            return Err(PointError::Unavailable(reason.into()));
        }
        let words = self
            .lab
            .logs
            .iter()
            .map(|path| format!("--file {}", path.display()));
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    fn broker(&self, arguments: &str) -> Result<&Broker, PointError> {
        match self.servers.get(arguments) {
            Some(Ok(broker)) => Ok(broker),
            Some(Err(reason)) => Err(PointError::Unavailable(reason.clone())),
            None => Err(PointError::Failed("no server was started".into())),
        }
    }
}

impl Rig for WholeRig<'_> {
    fn measure(&mut self, point: &Point, repetition: u32) -> Result<Figures, PointError> {
        let whole: Whole = point.typed()?;
        if let Some(acks) = &whole.crashed {
            self.crashes += 1;
            let (server, load) = (&whole.server, &whole.load);
            return Crash::new(self.lab, server, load, acks != "0", self.crashes).run();
        }
        let medium = whole.medium.unwrap_or(Medium::Loopback);
        self.check_medium(medium)?;
        self.server(&whole.server)?;
        let topic = format!("claims-{}", self.topics);
        self.topics += 1;
        let stored = match whole.stored.is_empty() {
            true => String::new(),
            false => self.store(&whole)?,
        };
        let logs = self.logs(&whole)?;
        let broker = self.broker(&whole.server)?;
        if let Some(hot) = whole.hot {
            broker.set_cache(hot)?;
        }
        let (warmup_s, window_s) = time(self.lab.scale);
        let line = |line: &str| {
            line.replace("{topic}", &topic)
                .replace("{stored}", &stored)
                .replace("{logs}", &logs)
                .replace(
                    "{time}",
                    &format!("--warmup {warmup_s} --duration {window_s}"),
                )
        };
        let histogram = self.histogram(&whole, repetition)?;
        let (load, beside) = (line(&whole.load), line(&whole.beside));
        let mut calls_s = None;
        let result = std::thread::scope(|scope| {
            let other = (!beside.is_empty()).then(|| scope.spawn(|| broker.load(&beside)));
            let count = || calls_per_s(broker.pid(), warmup_s, window_s);
            let counting = whole.calls.then(|| scope.spawn(count));
            let result = broker.load_over(medium, &load, Some(&histogram));
            calls_s = counting.and_then(|counting| counting.join().ok().flatten());
            match other.map(std::thread::ScopedJoinHandle::join) {
                Some(Ok(Err(error))) => Err(error),
                Some(Err(_)) => Err(PointError::Failed("the load beside broke off".into())),
                _ => result,
            }
        })?;
        let mut figures = figures(&result);
        if let (Some(calls_s), Some(acks_s)) = (calls_s, figures.get("requests_per_s")) {
            figures.insert("system_calls_per_ack".into(), calls_s / acks_s);
        }
        if let Some(ratio) = result.compression_ratio {
            figures.insert("compression_ratio".into(), ratio);
        }
        if let Some(batching_s) = result.batching_cpu_s_per_record {
            let batching = batching_s * 1e6;
            figures.insert(BATCHING_CPU.into(), batching);
            if let Some(sending) = figures.get("client_cpu_s_per_million_records").copied() {
                figures.insert(CLIENT_CPU.into(), batching + sending);
            }
        }
        Ok(figures)
    }

    fn first_counts(&self, point: &Point) -> bool {
        point.params.contains_key("crashed")
    }

    fn pids(&self) -> Vec<u32> {
        self.servers.values().flatten().map(Broker::pid).collect()
    }
}

/// System calls a second of a process in the middle of the window; `None` where the kernel does not tell.
fn calls_per_s(pid: u32, warmup_s: f64, window_s: f64) -> Option<f64> {
    std::thread::sleep(Duration::from_secs_f64(warmup_s + window_s * 0.1));
    let started = Instant::now();
    let mut calls = ProcessCalls::start(pid)?;
    std::thread::sleep(Duration::from_secs_f64(window_s * 0.8));
    Some(calls.read() as f64 / started.elapsed().as_secs_f64())
}

/// A side's measurement at `x`.
pub(super) fn of<'a>(
    measurements: &'a [Measurement],
    side: &str,
    x: u64,
) -> Option<&'a Measurement> {
    find(measurements, &json!({ "side": side, "x": x }))
}

/// A figure of each side over x; sides without a mark are left out.
pub(super) fn series(measurements: &[Measurement], sides: &[&str], figure: &str) -> Vec<Series> {
    let all = sides.iter().map(|side| {
        let mut marks: Vec<Mark> = measurements
            .iter()
            .filter(|m| m.params["side"] == *side)
            .filter_map(|m| {
                let y = *m.figures.get(figure)?;
                Some(Mark {
                    x: m.params["x"].as_u64()? as f64,
                    y,
                })
            })
            .collect();
        marks.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series {
            name: (*side).to_owned(),
            marks,
        }
    });
    all.filter(|series| !series.marks.is_empty()).collect()
}

/// A figure of two points against each other; `None` unless both were measured.
pub(super) fn compare(
    measurements: &[Measurement],
    question: &str,
    above: (&str, u64, &str),
    below: (&str, u64, &str),
    figure: (&str, &str),
    expect: Expect,
) -> Option<Finding> {
    let (a, b) = (
        of(measurements, above.0, above.1)?,
        of(measurements, below.0, below.1)?,
    );
    if !(a.figures.contains_key(figure.0) && b.figures.contains_key(figure.0)) {
        return None;
    }
    Some(Finding::compare(
        question,
        (above.2, a),
        (below.2, b),
        figure,
        expect,
    ))
}

/// The claim's verdict from findings that must all hold, or that the points for them are missing.
pub(super) fn conclude(
    findings: Vec<Finding>,
    why: String,
    measurements: &[Measurement],
) -> Conclusion {
    let verdict = match findings.is_empty() {
        true => Verdict::Undecided,
        false => verdict::all(findings.iter().map(|finding| finding.verdict)),
    };
    let why = match findings.is_empty() {
        true => "the points for a verdict are missing".into(),
        false => why,
    };
    Conclusion {
        findings,
        notes: missing(measurements),
        ..Conclusion::without(verdict, why)
    }
}

/// Median of a finding's ratio as text.
pub(super) fn times(finding: Option<&Finding>) -> String {
    let ratio = finding.and_then(|finding| finding.ratio);
    ratio.map_or_else(|| "–".into(), |ratio| report_number(ratio.median))
}

/// Why points of a side are missing.
pub(super) fn missing(measurements: &[Measurement]) -> Vec<String> {
    let mut reasons: Vec<String> = measurements
        .iter()
        .filter_map(|m| {
            let side = m.params.get("side")?.as_str()?;
            Some(format!("Left out, {side}: {}.", m.left_out.as_ref()?))
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    reasons
}
