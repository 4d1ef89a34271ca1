//! peers.json, read and checked.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use crate::claims::ClaimsError;
use crate::claims::record::Measurement;
use crate::claims::stats::Estimate;

/// The shape that this tool reads.
const SCHEMA: u32 = 1;
/// A file larger than this is none that scripts/peers wrote.
const BYTES_MAX: u64 = 16 << 20;
/// The figure of an entry's [`Measurement`].
pub(super) const FIGURE: (&str, &str) = ("messages_per_s", "messages/s");

/// What was measured.
#[derive(Debug, Clone, Deserialize)]
pub struct Peers {
    schema: u32,
    /// What it was measured on.
    pub host: PeersHost,
    /// Systems, or ways to drive them, that were not measured.
    pub left_out: Vec<LeftOut>,
    /// What was measured, one entry for each system, tool, setting and record size.
    pub entries: Vec<Entry>,
}

/// Facts of the host.
#[derive(Debug, Clone, Deserialize)]
pub struct PeersHost {
    cores: u32,
    cpu: String,
    memory_gib: f64,
    kernel: String,
    file_system: String,
}

impl PeersHost {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} cores ({}), {} GiB memory, Linux {}, {}",
            self.cores, self.cpu, self.memory_gib, self.kernel, self.file_system
        )
    }
}

/// Something that is missing.
#[derive(Debug, Clone, Deserialize)]
pub struct LeftOut {
    /// Which system.
    pub system: String,
    /// Why.
    pub reason: String,
    /// How to get it.
    pub install: String,
}

/// One system, driven in one way.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    /// "throughput", "confirms", "acks" or "kill".
    pub group: String,
    /// Its name.
    pub system: String,
    /// Its version.
    pub version: String,
    /// The load tool with its options.
    pub tool: String,
    /// How it is driven, in words.
    pub shape: String,
    /// The broker's settings.
    pub settings: String,
    /// Whether an answer means that the disk has it.
    pub durable: bool,
    /// Bytes of a record's value.
    pub record_bytes: u64,
    repetitions: Vec<Repetition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Repetition {
    messages_per_s: f64,
    /// Where the broker was killed: of a million records acknowledged, those it had lost.
    #[serde(default)]
    lost_per_million: Option<f64>,
}

impl Entry {
    /// As the claims' code has measurements.
    #[must_use]
    pub fn measurement(&self) -> Measurement {
        let values: Vec<f64> = self.repetitions.iter().map(|r| r.messages_per_s).collect();
        let name = || FIGURE.0.to_owned();
        let params = json!({ "system": self.system, "tool": self.tool, "shape": self.shape, "settings": self.settings });
        Measurement {
            params: params.as_object().cloned().unwrap_or_default(),
            figures: Estimate::of(&values)
                .map(|e| (name(), e))
                .into_iter()
                .collect(),
            repetitions: values.iter().map(|v| [(name(), *v)].into()).collect(),
            ..Measurement::default()
        }
    }

    /// Median of its messages a second, 0 without any.
    #[must_use]
    pub fn median(&self) -> f64 {
        let figures = self.measurement().figures;
        figures
            .get(FIGURE.0)
            .map_or(0.0, |estimate| estimate.median)
    }

    /// The most that it lost in a kill, of a million records acknowledged; `None` if it was not killed.
    #[must_use]
    pub fn lost_per_million(&self) -> Option<f64> {
        let lost = self.repetitions.iter().filter_map(|r| r.lost_per_million);
        lost.reduce(f64::max)
    }

    /// Its system with version.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.system, self.version)
    }

    /// The durability in words.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        match self.durable {
            true => "fsync before each ack",
            false => "no fsync before an ack",
        }
    }
}

/// Reads a peers.json.
///
/// # Errors
/// [`ClaimsError`]: it is not there, or it is none.
pub fn load(path: &Path) -> Result<Peers, ClaimsError> {
    let wrong =
        |why: String| ClaimsError::Usage(format!("{} is no peers.json: {why}", path.display()));
    let size = fs::metadata(path).map_err(ClaimsError::file(path))?.len();
    if size > BYTES_MAX {
        return Err(wrong(format!("{size} bytes are too many")));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(ClaimsError::file(path))?;
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(ClaimsError::file(path))?;
    let peers: Peers = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if peers.schema != SCHEMA {
        return Err(wrong(format!(
            "its schema is {}, this tool reads {SCHEMA}",
            peers.schema
        )));
    }
    match peers.entries.iter().find(|e| {
        e.repetitions
            .iter()
            .any(|r| !(r.messages_per_s.is_finite() && r.messages_per_s > 0.0))
    }) {
        Some(entry) => Err(wrong(format!("{} has a rate that is none", entry.name()))),
        None => Ok(peers),
    }
}
