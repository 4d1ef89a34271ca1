//! The journals of the last run: which frames count, and whether one that was acknowledged is missing.

use std::collections::BTreeMap;
use std::path::Path;

use ringlog_engine::buf::BLOCK;
use ringlog_engine::journal::FrameHeader;
use ringlog_engine::store::{journal_dir, journal_file_parse};

use super::checkpoints::{Shard, State};
use super::names;
use super::report::Report;
use crate::disk::frames::{Frame, Payload, entries, file_header, frames};
use crate::disk::source::Source;

const REFUSES: &str = "a start refuses and changes nothing: restore the file from a backup, or move the directory aside to start empty";

/// A frame of the run.
struct Found {
    file: String,
    at: u64,
    end: u64,
    header: FrameHeader,
}

/// What a shard's files say.
#[derive(Default)]
struct Journal {
    whole: BTreeMap<u64, Found>,
    damaged: Vec<Found>,
    /// The newest frame of which something says that it was durable.
    vouched: u64,
    /// Generation of the newest checkpoint of which a frame says that it was durable.
    checkpoint: u64,
}

/// Reads the journals of all shards.
pub(super) fn check(data: &Path, state: &State, report: &mut Report) {
    for (number, shard) in state.shards.iter().enumerate() {
        let journal = read(data, number as u32, state, shard, report);
        let (counted, next) = count_frames(&journal, shard.cut(), report);
        report.checked.journal_frames += counted;
        missing(number as u32, &journal, next, report);
        older(number, shard, &journal, report);
    }
}

fn read(
    data: &Path,
    shard: u32,
    state: &State,
    checkpoints: &Shard,
    report: &mut Report,
) -> Journal {
    let dir = journal_dir(shard);
    let mut journal = Journal::default();
    for name in names(&data.join(&dir)) {
        let path = format!("{dir}/{name}");
        if journal_file_parse(&name).is_none() {
            report.note(
                &path,
                None,
                "is no journal file by its name",
                "a start removes it",
            );
            continue;
        }
        match Source::open(&data.join(&path)) {
            Ok(mut source) => {
                report.checked.journal_files += 1;
                read_file(
                    &path,
                    &mut source,
                    shard,
                    state,
                    checkpoints,
                    &mut journal,
                    report,
                );
                if let Some(error) = source.error() {
                    report.fault(&path, None, error.to_string(), "a start refuses");
                }
                report.read(&path, source.len());
            }
            Err(error) => report.fault(&path, None, error.to_string(), "a start refuses"),
        }
    }
    journal
}

fn read_file(
    path: &str,
    source: &mut Source,
    shard: u32,
    state: &State,
    checkpoints: &Shard,
    journal: &mut Journal,
    report: &mut Report,
) {
    let (run, cut) = (state.merged.run(), checkpoints.cut());
    let Some(header) = file_header(source) else {
        return headless(path, source, run, cut, report);
    };
    if header.dir_id() != state.merged.dir_id() || header.shard() != shard {
        let what = "belongs to another data directory or shard";
        return report.note(path, Some(0), what, "a start passes over it");
    }
    if header.incarnation().run() != run {
        return; // of an earlier run, and not used again yet
    }
    journal.vouched = journal.vouched.max(header.released().0);
    frames(source, Some(header.incarnation()), |source, frame| {
        let found = Found {
            file: path.to_owned(),
            at: frame.at,
            end: frame.at
                + (FrameHeader::LEN + frame.header.payload_len()).next_multiple_of(BLOCK) as u64,
            header: frame.header,
        };
        if frame.payload != Payload::Whole {
            return journal.damaged.push(found);
        }
        journal.vouched = journal.vouched.max(frame.header.durable_seq().0);
        journal.checkpoint = journal.checkpoint.max(frame.header.checkpoint());
        if frame.header.seq().0 > cut {
            check_entries(path, source, &frame, report);
        }
        journal.whole.insert(frame.header.seq().0, found);
    });
}

fn check_entries(path: &str, source: &mut Source, frame: &Frame, report: &mut Report) {
    if let Some(at) = entries(source, frame, |_| ()) {
        report.fault(
            path,
            Some(at),
            format!(
                "an entry of frame {} cannot be read, although its checksum holds",
                frame.header.seq().0
            ),
            "a start refuses; another version wrote it",
        );
    }
}

/// A file without an intact header is being made, or made ready for its next use; or its header is damaged.
fn headless(path: &str, source: &mut Source, run: u32, cut: u64, report: &mut Report) {
    let mut lost: Option<u64> = None;
    frames(source, None, |_, frame| {
        if frame.header.incarnation().run() == run && frame.header.seq().0 > cut {
            lost = lost.or(Some(frame.header.seq().0));
        }
    });
    let block = source.len().min(BLOCK as u64) as usize;
    let is_zero = source
        .bytes(0, block)
        .is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
    match lost {
        Some(seq) => report.fault(
            path,
            Some(0),
            format!("the file's header is damaged, and it holds frame {seq}, which counts"),
            REFUSES,
        ),
        None if is_zero => {}
        None => report.note(
            path,
            Some(0),
            "the file's header is not intact, and no frame in it counts",
            "a start passes over it",
        ),
    }
}

/// How many frames count, and the number of the first that does not.
fn count_frames(journal: &Journal, cut: u64, report: &mut Report) -> (u64, u64) {
    let mut next = cut + 1;
    let mut before: Option<&Found> = None;
    while let Some(found) = journal.whole.get(&next) {
        if before.is_some_and(|before| before.header.crc() != found.header.previous_crc()) {
            let what = format!("frame {next} does not continue the one before it");
            report.fault(&found.file, Some(found.at), what, REFUSES);
        }
        before = Some(found);
        next += 1;
    }
    (next - cut - 1, next)
}

/// Tells of frames that are not there, or damaged.
fn missing(shard: u32, journal: &Journal, next: u64, report: &mut Report) {
    for found in &journal.damaged {
        let seq = found.header.seq().0;
        let (file, at) = (&found.file, Some(found.at));
        if seq >= next && seq <= journal.vouched {
            report.fault(
                file,
                at,
                format!("frame {seq} is damaged, and its records had been acknowledged"),
                REFUSES,
            );
        } else if seq >= next {
            report.note(
                file,
                at,
                format!("frame {seq} was not written whole, and nothing in it was acknowledged"),
                "a start drops it",
            );
        } else {
            report.note(
                file,
                at,
                format!("frame {seq} is damaged, and what it held is in segments and a checkpoint"),
                "a start does not read it",
            );
        }
    }
    let told = journal
        .damaged
        .iter()
        .any(|found| found.header.seq().0 == next);
    if journal.vouched < next || told {
        return;
    }
    let (file, at) = place_of(journal, next)
        .map_or_else(|| (journal_dir(shard), None), |(file, at)| (file, Some(at)));
    report.fault(
        &file,
        at,
        format!(
            "there is no intact frame {next}, although everything up to frame {} had been acknowledged",
            journal.vouched
        ),
        REFUSES,
    );
}

/// Where a missing frame must have been: behind the one before it, or before the one behind it.
fn place_of(journal: &Journal, missing: u64) -> Option<(String, u64)> {
    let before = journal.whole.range(..missing).next_back();
    let behind = journal.whole.range(missing..).next();
    let start = BLOCK as u64;
    match (before, behind) {
        (Some((_, before)), Some((_, behind)))
            if before.file != behind.file && behind.at > start =>
        {
            Some((behind.file.clone(), start))
        }
        (Some((_, before)), _) => Some((before.file.clone(), before.end)),
        (None, Some((_, behind))) => Some((behind.file.clone(), start)),
        (None, None) => None,
    }
}

/// An older checkpoint than one that was durable knows less than was promised.
fn older(number: usize, shard: &Shard, journal: &Journal, report: &mut Report) {
    let newest = shard.newest.map_or(0, |header| header.generation());
    for path in &shard.broken {
        match newest < journal.checkpoint {
            true => report.fault(
                path,
                Some(0),
                format!(
                    "is no whole checkpoint; generation {} had been written, {} is the newest that can be read",
                    journal.checkpoint,
                    match newest {
                        0 => "none".to_owned(),
                        newest => format!("generation {newest}"),
                    }
                ),
                "a start refuses: restore the data directory from a backup",
            ),
            false => report.note(
                path,
                Some(0),
                "is no whole checkpoint: the server was killed while it wrote it, or it is damaged",
                "a start does without it: the journal still holds what it would have told",
            ),
        }
    }
    if newest < journal.checkpoint && shard.broken.is_empty() {
        report.fault(
            &format!("shard-{number}"),
            None,
            format!(
                "checkpoint generation {} had been written, and is not there",
                journal.checkpoint
            ),
            "a start refuses: restore the data directory from a backup",
        );
    }
}
