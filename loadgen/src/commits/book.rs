//! What each group has committed: in memory during a run, as a file for the check after a crash.
//!
//! The file is text: a line of JSON with [`Header`], then a line for each group: the offset acknowledged last, the
//! offset sent last (each 0 for none), the group's name.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the file's shape.
const VERSION: u32 = 1;

/// First line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    version: u32,
    bootstrap: Vec<String>,
    topic: String,
    partitions: i32,
}

/// Offsets of one group; the same in all partitions of a commit, rising from one commit to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub group: String,
    /// Acknowledged last, 0 for none.
    pub acked: i64,
    /// Sent last, 0 for none: what was not acknowledged may be stored or not.
    pub sent: i64,
}

/// What all groups of a run have committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// Brokers to ask first.
    pub bootstrap: Vec<String>,
    /// Topic of the offsets.
    pub topic: String,
    /// Its partitions, all of them in every commit.
    pub partitions: i32,
    /// By group.
    pub entries: Vec<Entry>,
}

/// Why the file cannot be written or read.
#[derive(Debug, Error)]
pub enum BookError {
    /// As the system says.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not such a file, or one of another version.
    #[error("{path}, line {line}: {what}; it must be a file of `ringlog-load commits --book`")]
    Format {
        /// Where.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl Book {
    /// Writes the file.
    ///
    /// # Errors
    /// [`BookError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), BookError> {
        let io = |source| BookError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = BufWriter::new(fs::File::create(path).map_err(io)?);
        self.write_to(&mut file).map_err(io)?;
        file.flush().map_err(io)
    }

    fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        let header = Header {
            version: VERSION,
            bootstrap: self.bootstrap.clone(),
            topic: self.topic.clone(),
            partitions: self.partitions,
        };
        serde_json::to_writer(&mut *to, &header)?;
        writeln!(to)?;
        for entry in &self.entries {
            writeln!(to, "{} {} {}", entry.acked, entry.sent, entry.group)?;
        }
        Ok(())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`BookError`].
    pub fn read(path: &Path) -> Result<Self, BookError> {
        let text = fs::read_to_string(path).map_err(|source| BookError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, what)| BookError::Format {
            path: path.to_owned(),
            line,
            what,
        })
    }

    /// The line that is wrong, from 1, and what is wrong with it.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = text.lines().enumerate();
        let (_, first) = lines.next().ok_or((1, "the file is empty".to_owned()))?;
        let header: Header = serde_json::from_str(first).map_err(|error| (1, error.to_string()))?;
        if header.version != VERSION {
            return Err((1, format!("version {} is not known here", header.version)));
        }
        let entries = lines.map(|(index, line)| {
            entry(line).ok_or((index + 1, "two offsets and a group are wanted".to_owned()))
        });
        Ok(Self {
            bootstrap: header.bootstrap,
            topic: header.topic,
            partitions: header.partitions,
            entries: entries.collect::<Result<_, _>>()?,
        })
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(3, ' ');
    let mut offset = || words.next()?.parse::<i64>().ok().filter(|&n| n >= 0);
    let (acked, sent) = (offset()?, offset()?);
    let group = words.next().filter(|name| !name.is_empty())?.to_owned();
    (acked <= sent).then_some(Entry { group, acked, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        Book {
            bootstrap: vec!["h:9092".into()],
            topic: "t".into(),
            partitions: 3,
            entries: vec![
                Entry {
                    group: "g-0".into(),
                    acked: 17,
                    sent: 18,
                },
                Entry {
                    group: "with a space".into(),
                    acked: 0,
                    sent: 0,
                },
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        book().write(&path).unwrap();
        assert_eq!(Book::read(&path).unwrap(), book());
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_line() {
        let mut text = Vec::new();
        book().write_to(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(Book::parse(&text).unwrap(), book());
        let header = text.lines().next().unwrap();
        for (wrong, line) in [
            (String::new(), 1),
            ("{}".to_owned(), 1),
            (header.replace("\"version\":1", "\"version\":9"), 1),
            (format!("{header}\n1 2 g\n1 x g"), 3),
            (format!("{header}\n2 1 acked but never sent"), 2),
            (format!("{header}\n-1 1 g"), 2),
            (format!("{header}\n1 2 "), 2),
        ] {
            assert_eq!(Book::parse(&wrong).unwrap_err().0, line, "{wrong}");
        }
    }
}
