//! What was found, and how it is told.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::output::{bytes, count, line};

/// Findings told in full; of more only the number is kept, so that a ruined directory costs no memory.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong or worth knowing.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// The file, relative to the data directory.
    pub(super) file: String,
    /// Byte of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
    /// What is there, and what it means.
    pub(super) what: String,
    /// What a start of the server would do about it.
    pub(super) start: String,
}

/// How much was looked at.
#[derive(Debug, Default, Serialize)]
pub(super) struct Checked {
    pub(super) topics: u64,
    pub(super) partitions: u64,
    pub(super) checkpoints: u64,
    pub(super) journal_files: u64,
    /// Journal frames that a start would read.
    pub(super) journal_frames: u64,
    pub(super) segments: u64,
    pub(super) index_entries: u64,
    pub(super) batches: u64,
    pub(super) bytes: u64,
}

/// Findings of one kind: the first ones whole, the rest as a number.
#[derive(Default)]
struct Findings {
    told: Vec<Finding>,
    left_out: u64,
}

impl Findings {
    fn add(&mut self, file: &str, at: Option<u64>, what: String, start: &str) {
        if self.told.len() == FINDINGS_MAX {
            self.left_out += 1;
            return;
        }
        self.told.push(Finding {
            file: file.to_owned(),
            at,
            what,
            start: start.to_owned(),
        });
    }
}

/// What is told at the end.
pub(super) struct Report {
    data: PathBuf,
    pub(super) checked: Checked,
    faults: Findings,
    notes: Findings,
    start: Option<Result<String, String>>,
    bar: ProgressBar,
}

impl Report {
    pub(super) fn new(data: &Path, quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            data: data.to_owned(),
            checked: Checked::default(),
            faults: Findings::default(),
            notes: Findings::default(),
            start: None,
            bar,
        }
    }

    /// Something is wrong.
    pub(super) fn fault(
        &mut self,
        file: &str,
        at: Option<u64>,
        what: impl Into<String>,
        start: &str,
    ) {
        self.faults.add(file, at, what.into(), start);
    }

    /// Something is worth knowing, and no fault.
    pub(super) fn note(
        &mut self,
        file: &str,
        at: Option<u64>,
        what: impl Into<String>,
        start: &str,
    ) {
        self.notes.add(file, at, what.into(), start);
    }

    /// What a start would do: serve, or refuse.
    pub(super) fn start(&mut self, outcome: Result<String, String>) {
        self.start = Some(outcome);
    }

    /// There will be so many bytes to read.
    pub(super) fn expect(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    /// So many bytes of a file were read.
    pub(super) fn read(&mut self, file: &str, bytes: u64) {
        self.checked.bytes += bytes;
        self.bar.set_message(file.to_owned());
        self.bar.inc(bytes);
    }

    fn fault_count(&self) -> u64 {
        self.faults.told.len() as u64 + self.faults.left_out
    }

    /// Tells everything; a failure if something is wrong.
    pub(super) fn print(self, json: bool) -> Outcome {
        self.bar.finish_and_clear();
        // A start that refuses is a fault of its own only if nothing else explains it.
        let refused = matches!(self.start, Some(Err(_)));
        let clean = self.fault_count() == 0 && !refused;
        let start = match &self.start {
            None => "a start would refuse: the catalog cannot be read".to_owned(),
            Some(Ok(told)) => format!("a start would serve: {told}"),
            Some(Err(told)) => format!("a start would refuse: {told}"),
        };
        match json {
            true => line(&format!(
                "{:#}",
                json!({
                    "directory": self.data,
                    "clean": clean,
                    "faults": self.faults.told,
                    "faults_left_out": self.faults.left_out,
                    "notes": self.notes.told,
                    "notes_left_out": self.notes.left_out,
                    "start": start,
                    "checked": self.checked,
                })
            ))?,
            false => self.print_text(clean, &start)?,
        }
        match clean {
            true => Ok(()),
            false => Err(Failure::told()),
        }
    }

    fn print_text(&self, clean: bool, start: &str) -> Outcome {
        let (red, yellow, green) = (
            anstyle::AnsiColor::Red.on_default().bold(),
            anstyle::AnsiColor::Yellow.on_default(),
            anstyle::AnsiColor::Green.on_default().bold(),
        );
        let mut text = String::new();
        for (style, word, findings) in [(yellow, "note", &self.notes), (red, "fault", &self.faults)]
        {
            for finding in &findings.told {
                let at = finding
                    .at
                    .map_or(String::new(), |at| format!(" at byte {at}"));
                text += &format!(
                    "{style}{word}{style:#} {}{at}: {}; {}\n",
                    finding.file, finding.what, finding.start
                );
            }
            if findings.left_out > 0 {
                text += &format!("{style}{word}{style:#} {} more\n", findings.left_out);
            }
        }
        let checked = &self.checked;
        text += &format!(
            "checked {}, {}, {}, {} with {}, {} with {}, {}\n",
            count(checked.topics, "topic"),
            count(checked.partitions, "partition"),
            count(checked.checkpoints, "checkpoint"),
            count(checked.journal_files, "journal file"),
            count(checked.journal_frames, "frame"),
            count(checked.segments, "segment"),
            match checked.batches {
                1 => "1 batch".into(),
                n => format!("{n} batches"),
            },
            bytes(checked.bytes),
        );
        text += &match clean {
            true => format!("{green}nothing is wrong{green:#}\n"),
            false => format!("{red}{}{red:#}\n", count(self.fault_count(), "fault")),
        };
        text += start;
        anstream::print!("{text}\n");
        Ok(())
    }
}
