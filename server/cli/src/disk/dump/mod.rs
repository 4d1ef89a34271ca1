//! `ringlog dump`: what a file holds, item by item. Items are printed as they are read, so memory stays the same.

mod segment;
mod shard;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::Kind;
use super::source::Source;
use crate::failure::{Failure, Outcome};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog dump topics/logs-0.0f…/00000000000000000000.log --records
  ringlog dump shard-0/journal/* shard-0/checkpoint-0
  ringlog dump /var/lib/ringlog --json | jq 'select(.intact == false)'

Files are told apart by their names, else by their first bytes; a directory stands for all files in it. A file may be
damaged or cut: what can be read is shown, and where it ends.";

/// `ringlog dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct DumpArgs {
    /// Files, or directories for all files in them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Take the files for this, whatever they are called.
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Show the records of each batch, too.
    #[arg(long)]
    records: bool,
    /// Print a line of JSON for each item.
    #[arg(long)]
    json: bool,
}

/// Kinds by name.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindArg {
    Segment,
    Index,
    Timeindex,
    Journal,
    Checkpoint,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Segment => Self::Segment,
            KindArg::Index => Self::OffsetIndex,
            KindArg::Timeindex => Self::TimeIndex,
            KindArg::Journal => Self::Journal,
            KindArg::Checkpoint => Self::Checkpoint,
        }
    }
}

/// Carries the command out.
pub(crate) fn run(args: &DumpArgs) -> Outcome {
    let mut dump = Dump {
        out: BufWriter::new(io::stdout()),
        json: args.json,
        records: args.records,
        file: String::new(),
        failed: None,
    };
    for path in &args.paths {
        dump.path(path, args.kind.map(Kind::from), true)?;
    }
    dump.end()
}

/// Writes items.
struct Dump {
    out: BufWriter<io::Stdout>,
    json: bool,
    records: bool,
    file: String,
    /// Standard output does not take more.
    failed: Option<io::Error>,
}

impl Dump {
    /// A file, or all files of a directory. Those found in one that are nothing of ringlog's are passed over.
    fn path(&mut self, path: &Path, kind: Option<Kind>, given: bool) -> Outcome {
        let wrong = |e: io::Error| Failure::unusable(format!("{}: {e}", path.display()));
        if fs::metadata(path).map_err(wrong)?.is_dir() {
            let entries = fs::read_dir(path).map_err(wrong)?;
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort_unstable();
            return paths
                .iter()
                .try_for_each(|path| self.path(path, kind, false));
        }
        let mut source = Source::open(path).map_err(wrong)?;
        let first = source.len().min(4) as usize;
        let start = source.bytes(0, first).unwrap_or_default().to_vec();
        let Some(kind) = kind.or_else(|| Kind::of(path, &start)) else {
            return match given {
                false => Ok(()),
                true => Err(Failure::unusable(format!(
                    "{} is nothing that ringlog writes, by its name and first bytes",
                    path.display()
                ))
                .remedy("--kind says what to take it for")),
            };
        };
        self.file = path.display().to_string();
        if !self.json {
            self.line(&format!("{} ({} bytes)", self.file, source.len()));
        }
        match kind {
            Kind::Segment => self.segment(&mut source),
            Kind::OffsetIndex => self.offset_index(&mut source),
            Kind::TimeIndex => self.time_index(&mut source),
            Kind::Journal => self.journal(&mut source),
            Kind::Checkpoint => self.checkpoint(&mut source),
            Kind::Catalog => self.item(0, json!({ "kind": "catalog" }), || {
                "a redb database; `ringlog verify` reads it".into()
            }),
        }
        if let Some(error) = source.error() {
            return Err(Failure::new(format!("{}: {error}", path.display())));
        }
        self.check_output()
    }

    /// An item at a byte of the file.
    fn item(&mut self, at: u64, mut json: Value, text: impl FnOnce() -> String) {
        if !self.json {
            return self.line(&format!("{at:>12}  {}", text()));
        }
        if let Some(object) = json.as_object_mut() {
            object.insert("file".into(), self.file.clone().into());
            object.insert("at".into(), at.into());
        }
        self.line(&json.to_string());
    }

    fn line(&mut self, text: &str) {
        if self.failed.is_none()
            && let Err(error) = writeln!(self.out, "{text}")
        {
            self.failed = Some(error);
        }
    }

    fn check_output(&mut self) -> Outcome {
        match self.failed.take() {
            Some(error) => Err(Failure::output(&error)),
            None => Ok(()),
        }
    }

    fn end(mut self) -> Outcome {
        self.out.flush().map_err(|e| Failure::output(&e))
    }
}
