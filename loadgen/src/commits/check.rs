//! Reads back what groups have committed, from when a broker answers at all until it has answered for every group, and
//! compares it with what a run was told.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kafka_wire_core::StrBytes;
use serde::Serialize;

use super::book::{Book, Entry};
use super::groups::{self, Committed};
use super::{BookError, CommitsError};
use crate::protocol::{ControlClient, ControlError, error_code};

/// Pause before a broker that is not there or not ready is asked again.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest wait for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Faults that are told in words.
const EXAMPLES_MAX: usize = 10;

/// What was found. Times are from the first try.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Restored {
    /// Groups asked for.
    pub groups: usize,
    /// Groups whose offsets are those acknowledged last.
    pub exact: usize,
    /// Groups with a later commit whose answer had not come: stored all the same.
    pub unacked_found: usize,
    /// Groups with less than was acknowledged.
    pub lost: usize,
    /// Groups with what was never sent.
    pub foreign: usize,
    /// Until a broker answered, in seconds.
    pub connected_s: f64,
    /// Until every group was answered for, in seconds.
    pub served_s: f64,
    /// The first faults in words.
    pub examples: Vec<String>,
}

impl Restored {
    /// Whether every group has what it was told, or what was under way.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.foreign == 0
    }

    fn judge(&mut self, entry: &Entry, offsets: &[i64]) {
        self.groups += 1;
        let count = match verdict(entry, offsets) {
            Verdict::Exact => &mut self.exact,
            Verdict::UnackedFound => &mut self.unacked_found,
            Verdict::Lost => &mut self.lost,
            Verdict::Foreign => &mut self.foreign,
        };
        *count += 1;
        if matches!(verdict(entry, offsets), Verdict::Lost | Verdict::Foreign)
            && self.examples.len() < EXAMPLES_MAX
        {
            self.examples.push(format!(
                "group {}: {} was acknowledged, {} sent, and there is {offsets:?}",
                entry.group, entry.acked, entry.sent
            ));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Exact,
    UnackedFound,
    Lost,
    Foreign,
}

/// What a group's offsets say: by the one that is furthest back for what is lost, by the furthest ahead for what is foreign.
fn verdict(entry: &Entry, offsets: &[i64]) -> Verdict {
    let low = offsets.iter().copied().min().unwrap_or(-1);
    let high = offsets.iter().copied().max().unwrap_or(-1);
    match (low, high) {
        // In this run nothing was acknowledged: what was there before may still be.
        _ if entry.sent == 0 => Verdict::Exact,
        _ if entry.acked == 0 && high < entry.sent => Verdict::Exact,
        _ if low < entry.acked => Verdict::Lost,
        _ if high > entry.sent => Verdict::Foreign,
        _ if low == entry.acked && high == entry.acked => Verdict::Exact,
        _ => Verdict::UnackedFound,
    }
}

/// Asks for all groups of a file that `commits` wrote, for `patience` at most until all are answered for. Without
/// `bootstrap` the file says whom to ask.
///
/// # Errors
/// [`CommitsError`]: no such file, a broker that refuses, or one that is not there in time.
pub fn check(
    path: &Path,
    bootstrap: &[String],
    patience: Duration,
) -> Result<Restored, CommitsError> {
    let mut book = Book::read(path)?;
    if book.entries.is_empty() {
        return Err(BookError::Format {
            path: path.to_owned(),
            line: 2,
            what: "no group is in it".into(),
        }
        .into());
    }
    if !bootstrap.is_empty() {
        book.bootstrap = bootstrap.to_vec();
    }
    let begun = Instant::now();
    let mut asker = Asker {
        book: &book,
        names: names(&book),
        found: vec![None; book.entries.len()],
        connected: None,
    };
    loop {
        let last = match asker.ask() {
            Ok(None) => break,
            Ok(Some(code)) => error_code::name(code),
            Err(ControlError::Refused { code, name, .. }) if error_code::passes(code) => name,
            Err(ControlError::Io { source, .. }) => source.to_string(),
            Err(error) => return Err(error.into()),
        };
        if begun.elapsed() > patience {
            return Err(CommitsError::NotServed {
                groups: asker
                    .found
                    .iter()
                    .filter(|offsets| offsets.is_none())
                    .count(),
                waited_s: begun.elapsed().as_secs_f64(),
                last,
            });
        }
        thread::sleep(PAUSE);
    }
    let mut restored = Restored {
        served_s: begun.elapsed().as_secs_f64(),
        connected_s: asker.connected.map_or(0.0, |at| (at - begun).as_secs_f64()),
        ..Restored::default()
    };
    for (entry, offsets) in book.entries.iter().zip(&asker.found) {
        restored.judge(entry, offsets.as_deref().unwrap_or_default());
    }
    Ok(restored)
}

fn names(book: &Book) -> Vec<StrBytes> {
    let entries = book.entries.iter();
    entries
        .map(|entry| StrBytes::from(entry.group.as_str()))
        .collect()
}

struct Asker<'a> {
    book: &'a Book,
    names: Vec<StrBytes>,
    /// Offsets by partition of each group that was answered for.
    found: Vec<Option<Vec<i64>>>,
    connected: Option<Instant>,
}

impl Asker<'_> {
    /// Asks for all groups that were not answered for. `None` if that is all of them now, else a code that will pass.
    fn ask(&mut self) -> Result<Option<i16>, ControlError> {
        let mut client = self.connect()?;
        self.connected.get_or_insert_with(Instant::now);
        let wanted: Vec<usize> = (0..self.found.len())
            .filter(|&group| self.found[group].is_none())
            .collect();
        let asked: Vec<StrBytes> = wanted.iter().map(|&g| self.names[g].clone()).collect();
        let mut by_address: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (address, &group) in groups::find(&mut client, &asked)?.into_iter().zip(&wanted) {
            by_address.entry(address).or_default().push(group);
        }
        let mut passing = None;
        for (address, members) in by_address {
            let mut client = ControlClient::connect(&address, ANSWER_WAIT)?;
            let asked: Vec<StrBytes> = members.iter().map(|&g| self.names[g].clone()).collect();
            let told = groups::read(&mut client, &asked, &self.book.topic, self.book.partitions)?;
            for (told, &group) in told.into_iter().zip(&members) {
                match told {
                    Committed::Offsets(offsets) => self.found[group] = Some(offsets),
                    Committed::Refused(code) if error_code::passes(code) => passing = Some(code),
                    Committed::Refused(code) => {
                        let what = format!("offsets of group {}", self.names[group].as_str());
                        return Err(ControlError::refused(what, code, None));
                    }
                }
            }
        }
        Ok(passing)
    }

    fn connect(&self) -> Result<ControlClient, ControlError> {
        let mut last = ControlError::refused("no bootstrap address", 8, None);
        for address in &self.book.bootstrap {
            match ControlClient::connect(address, ANSWER_WAIT) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(acked: i64, sent: i64) -> Entry {
        Entry {
            group: "g".into(),
            acked,
            sent,
        }
    }

    #[test]
    fn offsets_are_judged_by_what_was_acknowledged_and_what_was_sent() {
        for (acked, sent, offsets, expected) in [
            (7, 7, vec![7, 7], Verdict::Exact),
            (7, 8, vec![7, 7], Verdict::Exact),
            (7, 8, vec![8, 8], Verdict::UnackedFound),
            // Nobody was told of the second commit, and a part of it is there.
            (7, 8, vec![7, 8], Verdict::UnackedFound),
            (7, 8, vec![6, 8], Verdict::Lost),
            (7, 7, vec![-1, -1], Verdict::Lost),
            (7, 7, vec![7, -1], Verdict::Lost),
            (7, 8, vec![9, 9], Verdict::Foreign),
            (7, 7, Vec::new(), Verdict::Lost),
            // Nothing was acknowledged: none, or what an earlier run left.
            (0, 9, vec![-1], Verdict::Exact),
            (0, 9, vec![5], Verdict::Exact),
            (0, 9, vec![9], Verdict::UnackedFound),
            (0, 9, vec![10], Verdict::Foreign),
            (0, 0, vec![-1], Verdict::Exact),
            (0, 0, vec![5], Verdict::Exact),
        ] {
            let found = verdict(&entry(acked, sent), &offsets);
            assert_eq!(found, expected, "{acked} {sent} {offsets:?}");
        }
    }

    #[test]
    fn faults_are_counted_and_the_first_ones_told() {
        let mut restored = Restored::default();
        restored.judge(&entry(7, 7), &[7]);
        assert!(restored.is_clean());
        for _ in 0..20 {
            restored.judge(&entry(7, 7), &[3]);
        }
        assert_eq!(
            (restored.groups, restored.exact, restored.lost),
            (21, 1, 20)
        );
        assert!(!restored.is_clean());
        assert_eq!(restored.examples.len(), EXAMPLES_MAX);
        assert!(restored.examples[0].contains("[3]"));
    }
}
