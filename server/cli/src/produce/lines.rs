//! Lines of files or of standard input, read on a thread of their own so that a slow pipe delays nobody.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::failure::{Failure, Outcome};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Chunks that wait to be sent.
const CHUNKS_MAX: usize = 16;
/// Longest line: no broker takes a larger record.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Whole lines that came together.
#[derive(Debug)]
pub(crate) struct Chunk {
    source: Arc<str>,
    /// Number of the first line, from 1.
    first: u64,
    bytes: Vec<u8>,
}

/// Where a line came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    source: Arc<str>,
    /// From 1.
    pub(crate) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.source, self.line)
    }
}

impl Place {
    /// A place for tests.
    #[cfg(test)]
    pub(crate) fn of(source: &str, line: u64) -> Self {
        Self {
            source: source.into(),
            line,
        }
    }

    /// The lines from this one to another of the same source, or this one.
    pub(crate) fn to(&self, last: &Self) -> String {
        match self.source == last.source && last.line > self.line {
            true => format!("{}, lines {} to {}", self.source, self.line, last.line),
            false => self.to_string(),
        }
    }
}

impl Chunk {
    /// The lines, without their ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Place, &[u8])> {
        let bytes = match self.bytes.split_last() {
            Some((b'\n', bytes)) => bytes,
            _ => &self.bytes,
        };
        (self.first..)
            .zip(bytes.split(|&byte| byte == b'\n'))
            .map(|(line, bytes)| {
                (
                    Place {
                        source: self.source.clone(),
                        line,
                    },
                    bytes,
                )
            })
    }
}

/// Reads the files one after the other, or standard input if there are none.
pub(crate) fn read(files: &[PathBuf]) -> Outcome<Receiver<Outcome<Chunk>>> {
    let mut sources: Vec<(Arc<str>, Box<dyn Read + Send>)> = Vec::new();
    for file in files {
        sources.push(match file.as_path() == Path::new("-") {
            true => ("standard input".into(), Box::new(io::stdin())),
            false => {
                let opened = File::open(file)
                    .map_err(|e| Failure::unusable(format!("{}: {e}", file.display())))?;
                (file.display().to_string().into(), Box::new(opened))
            }
        });
    }
    if sources.is_empty() {
        sources.push(("standard input".into(), Box::new(io::stdin())));
    }
    let (tell, chunks) = sync_channel(CHUNKS_MAX);
    thread::spawn(move || {
        for (name, source) in sources {
            if read_source(&name, source, &tell).is_none() {
                return;
            }
        }
    });
    Ok(chunks)
}

/// Cuts a source into chunks; `None` once nobody listens.
fn read_source(
    name: &Arc<str>,
    mut source: impl Read,
    tell: &SyncSender<Outcome<Chunk>>,
) -> Option<()> {
    let mut line = 1;
    let mut bytes: Vec<u8> = Vec::new();
    let mut searched = 0;
    loop {
        let start = bytes.len();
        bytes.resize(start + READ_BYTES, 0);
        let read = match source.read(&mut bytes[start..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                bytes.truncate(start);
                continue;
            }
            Err(error) => {
                tell.send(Err(Failure::new(format!("{name}: {error}"))))
                    .ok()?;
                return None;
            }
        };
        bytes.truncate(start + read);
        if read == 0 {
            break;
        }
        let end = memchr::memrchr(b'\n', &bytes[searched..]).map(|at| searched + at + 1);
        let Some(end) = end else {
            searched = bytes.len();
            if bytes.len() > LINE_BYTES_MAX {
                let what = format!("{name}, line {line}: longer than {LINE_BYTES_MAX} bytes");
                tell.send(Err(Failure::new(what))).ok()?;
                return None;
            }
            continue;
        };
        let rest = bytes.split_off(end);
        let whole = std::mem::replace(&mut bytes, rest);
        searched = bytes.len();
        let lines = memchr::memchr_iter(b'\n', &whole).count() as u64;
        let chunk = Chunk {
            source: name.clone(),
            first: line,
            bytes: whole,
        };
        line += lines;
        tell.send(Ok(chunk)).ok()?;
    }
    if !bytes.is_empty() {
        let chunk = Chunk {
            source: name.clone(),
            first: line,
            bytes,
        };
        tell.send(Ok(chunk)).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes at a time, and a signal before each.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
        is_interrupted: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = self.step.min(into.len()).min(self.bytes.len());
            into[..len].copy_from_slice(&self.bytes[..len]);
            self.bytes = &self.bytes[len..];
            Ok(len)
        }
    }

    fn read_all(text: &[u8], step: usize) -> Vec<(u64, Vec<u8>)> {
        let (tell, chunks) = sync_channel(1000);
        let trickle = Trickle {
            bytes: text,
            step,
            is_interrupted: false,
        };
        read_source(&"text".into(), trickle, &tell).unwrap();
        drop(tell);
        let chunks: Vec<Chunk> = chunks.into_iter().map(Result::unwrap).collect();
        let lines = chunks.iter().flat_map(Chunk::lines);
        lines
            .map(|(place, line)| (place.line, line.to_vec()))
            .collect()
    }

    #[test]
    fn lines_and_their_numbers_do_not_depend_on_how_they_come() {
        let expected: Vec<(u64, Vec<u8>)> = [&b"one"[..], b"", b"three\r", b"", b"last"]
            .iter()
            .zip(1..)
            .map(|(line, number)| (number, line.to_vec()))
            .collect();
        for step in 1..20 {
            assert_eq!(
                read_all(b"one\n\nthree\r\n\nlast", step),
                expected,
                "{step}"
            );
            assert_eq!(
                read_all(b"one\n\nthree\r\n\nlast\n", step),
                expected,
                "{step}"
            );
        }
        assert_eq!(read_all(b"", 1), []);
        assert_eq!(read_all(b"\n", 1), [(1, vec![])]);
    }

    #[test]
    fn places_are_told_as_ranges() {
        let place = |line| Place::of("a.log", line);
        assert_eq!(place(3).to(&place(3)), "a.log, line 3");
        assert_eq!(place(3).to(&place(9)), "a.log, lines 3 to 9");
    }
}
