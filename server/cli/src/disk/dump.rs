//! `ringlog dump`: what a file holds, item by item. Items are printed as they are read, so memory stays the same.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ringlog_engine::batch::{Compression, HEADER_LEN, body, header::ATTR_LOG_APPEND_TIME};
use ringlog_engine::store::{CheckpointHeader, OwnedRecord};
use serde_json::{Value, json};

use super::batches::{Batch, Found, batch_at};
use super::checkpoint::{Slot, records, slot};
use super::files::Kind;
use super::frames::{Frame, Payload, entries, file_header, frames};
use super::index::{OFFSET_ENTRY, TIME_ENTRY, offset_entry, time_entry};
use super::source::Source;
use crate::failure::{Failure, Outcome};
use crate::when::rfc3339;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ringlog dump topics/logs-0.0f…/00000000000000000000.log --records
  ringlog dump shard-0/journal/* shard-0/checkpoint-0
  ringlog dump /var/lib/ringlog --json | jq 'select(.intact == false)'

Files are told apart by their names, else by their first bytes; a directory stands for all files in it. A file may be
damaged or cut: what can be read is shown, and where it ends.";

/// Largest batch whose records are shown, bytes, before and after decompression.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Letters of a key or value that are shown.
const SHOWN_MAX: usize = 200;

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

    fn segment(&mut self, source: &mut Source) {
        let mut at = 0;
        while self.failed.is_none()
            && let Some(found) = batch_at(source, at)
        {
            match found {
                Found::Batch(batch) => {
                    self.batch(&batch);
                    if self.records {
                        self.batch_records(source, &batch);
                    }
                    at += batch.len();
                }
                Found::Unreadable { at, bytes, why } => {
                    let what = why.to_string();
                    return self.item(
                        at,
                        json!({ "kind": "unreadable", "bytes": bytes, "why": what }),
                        || format!("{bytes} bytes that are no batch: {what}"),
                    );
                }
            }
        }
    }

    fn batch(&mut self, batch: &Batch) {
        let header = &batch.header;
        let codec = codec(header.attributes.get());
        let intact = batch.is_intact();
        let json = json!({
            "kind": "batch",
            "first_offset": header.base_offset.get(),
            "last_offset": batch.last_offset(),
            "records": header.record_count.get(),
            "bytes": batch.len(),
            "codec": codec,
            "leader_epoch": header.partition_leader_epoch.get(),
            "producer_id": header.producer_id.get(),
            "producer_epoch": header.producer_epoch.get(),
            "first_sequence": header.base_sequence.get(),
            "first_timestamp_ms": header.base_timestamp.get(),
            "largest_timestamp_ms": header.max_timestamp.get(),
            "append_time": header.attributes.get() & ATTR_LOG_APPEND_TIME != 0,
            "transactional": header.is_transactional(),
            "control": header.is_control(),
            "crc": format!("{:08x}", header.crc.get()),
            "intact": intact,
        });
        self.item(batch.at, json, || {
            let mut text = format!(
                "batch {}..{}  {} records, {} bytes, {codec}, epoch {}, until {}",
                header.base_offset.get(),
                batch.last_offset(),
                header.record_count.get(),
                batch.len(),
                header.partition_leader_epoch.get(),
                rfc3339(header.max_timestamp.get()),
            );
            if header.is_idempotent() {
                text += &format!(
                    ", producer {}/{} from {}",
                    header.producer_id.get(),
                    header.producer_epoch.get(),
                    header.base_sequence.get()
                );
            }
            text += if header.is_transactional() {
                ", transactional"
            } else {
                ""
            };
            text += if header.is_control() { ", control" } else { "" };
            text + if intact {
                ""
            } else {
                "  CHECKSUM DOES NOT MATCH"
            }
        });
    }

    fn batch_records(&mut self, source: &mut Source, batch: &Batch) {
        let wrong = |dump: &mut Self, what: String| {
            dump.item(
                batch.at,
                json!({ "kind": "unreadable records", "why": what }),
                || format!("    records cannot be read: {what}"),
            );
        };
        let Some(bytes) = source.copy(batch.at, batch.len(), RECORDS_BYTES_MAX) else {
            return wrong(self, format!("{} bytes are too many to show", batch.len()));
        };
        let mut scratch = Vec::new();
        let records = match body(&bytes, RECORDS_BYTES_MAX, &mut scratch) {
            Ok(records) => records,
            Err(error) => return wrong(self, error.to_string()),
        };
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => return wrong(self, error.to_string()),
            };
            let base = batch.header.base_offset.get();
            let offset = base.saturating_add(i64::from(record.offset_delta));
            let time = batch
                .header
                .base_timestamp
                .get()
                .saturating_add(record.timestamp_delta);
            let (key, value) = (shown(record.key), shown(record.value));
            let headers = record.headers.len();
            let json = json!({
                "kind": "record", "offset": offset, "timestamp_ms": time, "key": key, "value": value, "headers": headers,
            });
            self.item(batch.at + HEADER_LEN as u64, json, || {
                format!(
                    "    {offset}  {}  {} {}{}",
                    rfc3339(time),
                    key.as_deref().unwrap_or("-"),
                    value.as_deref().unwrap_or("-"),
                    if headers > 0 {
                        format!("  ({headers} headers)")
                    } else {
                        String::new()
                    }
                )
            });
        }
    }

    fn offset_index(&mut self, source: &mut Source) {
        let mut n = 0;
        while self.failed.is_none()
            && let Some(entry) = offset_entry(source, n)
        {
            let (offset, position) = (entry.relative_offset, entry.position);
            let json =
                json!({ "kind": "offset entry", "relative_offset": offset, "position": position });
            self.item(n * OFFSET_ENTRY as u64, json, || {
                format!("offset +{offset} at byte {position}")
            });
            n += 1;
        }
        self.left_over(source, n * OFFSET_ENTRY as u64);
    }

    fn time_index(&mut self, source: &mut Source) {
        let mut n = 0;
        while self.failed.is_none()
            && let Some(entry) = time_entry(source, n)
        {
            let (time, offset) = (entry.timestamp_ms, entry.relative_offset);
            let json =
                json!({ "kind": "time entry", "timestamp_ms": time, "relative_offset": offset });
            self.item(n * TIME_ENTRY as u64, json, || {
                format!("{} up to offset +{offset}", rfc3339(time))
            });
            n += 1;
        }
        self.left_over(source, n * TIME_ENTRY as u64);
    }

    fn left_over(&mut self, source: &Source, at: u64) {
        let bytes = source.len().saturating_sub(at);
        if bytes > 0 && self.failed.is_none() {
            self.item(at, json!({ "kind": "unreadable", "bytes": bytes }), || {
                format!("{bytes} bytes that are no whole entry")
            });
        }
    }

    fn journal(&mut self, source: &mut Source) {
        let header = file_header(source);
        match &header {
            Some(header) => {
                let (run, incarnation) = (header.incarnation().run(), header.incarnation().0);
                let (shard, released) = (header.shard(), header.released().0);
                let json = json!({
                    "kind": "journal file", "shard": shard, "run": run, "use": incarnation as u32,
                    "released": released, "intact": true,
                });
                self.item(0, json, || {
                    format!(
                        "journal of shard {shard}, run {run}, use {}; frames up to {released} were released",
                        incarnation as u32
                    )
                });
            }
            None => self.item(
                0,
                json!({ "kind": "journal file", "intact": false }),
                || "no intact header of a journal file: frames of any use are shown".into(),
            ),
        }
        let incarnation = header.map(|header| header.incarnation());
        frames(source, incarnation, |source, frame| {
            if self.failed.is_none() {
                self.frame(source, &frame);
            }
        });
    }

    fn frame(&mut self, source: &mut Source, frame: &Frame) {
        let header = &frame.header;
        let intact = frame.payload == Payload::Whole;
        let json = json!({
            "kind": "frame", "seq": header.seq().0, "run": header.incarnation().run(), "durable": header.durable_seq().0,
            "checkpoint": header.checkpoint(), "entries": header.entry_count(), "payload_bytes": header.payload_len(),
            "intact": intact,
        });
        self.item(frame.at, json, || {
            let what = match header.entry_count() {
                0 => "marker".to_owned(),
                n => format!("{n} batches, {} bytes", header.payload_len()),
            };
            let fault = match frame.payload {
                Payload::Whole => "",
                Payload::Damaged => "  CHECKSUM DOES NOT MATCH",
                Payload::Cut => "  THE FILE ENDS BEFORE IT DOES",
            };
            format!(
                "frame {}  {what}, durable up to {}, checkpoint {}{fault}",
                header.seq().0,
                header.durable_seq().0,
                header.checkpoint()
            )
        });
        if !intact {
            return;
        }
        let stopped = entries(source, frame, |entry| {
            let (first, count) = (
                entry.batch.base_offset.get(),
                entry.batch.record_count.get(),
            );
            let (key, bytes) = (entry.key, entry.batch.total_len());
            let json = json!({
                "kind": "entry", "topic_id": key.topic.to_string(), "partition": key.partition, "first_offset": first,
                "records": count, "bytes": bytes, "new_segment": entry.roll,
            });
            self.item(entry.at, json, || {
                format!(
                    "    {}/{}  offset {first}, {count} records, {bytes} bytes{}",
                    key.topic,
                    key.partition,
                    if entry.roll { ", begins a segment" } else { "" }
                )
            });
        });
        if let Some(at) = stopped {
            self.item(at, json!({ "kind": "unreadable", "why": "entry" }), || {
                "an entry that cannot be read: another version wrote it".into()
            });
        }
    }

    fn checkpoint(&mut self, source: &mut Source) {
        let (header, intact) = match slot(source) {
            Slot::Whole(header) => (header, true),
            Slot::NotWhole(header) => (header, false),
            other => {
                let what = match other {
                    Slot::Empty => "an empty slot: never written, or struck out".to_owned(),
                    Slot::Foreign(version) => {
                        format!("a checkpoint of version {version} of the format")
                    }
                    _ => "no intact header of a checkpoint".to_owned(),
                };
                return self.item(
                    0,
                    json!({ "kind": "checkpoint", "intact": false, "why": what }),
                    || what.clone(),
                );
            }
        };
        self.checkpoint_header(&header, intact);
        if !intact {
            return;
        }
        let stopped = records(source, &header, |at, record| self.partition(at, &record));
        if let Some(at) = stopped {
            self.item(at, json!({ "kind": "unreadable", "why": "record" }), || {
                "a record that cannot be read: another version wrote it".into()
            });
        }
    }

    fn checkpoint_header(&mut self, header: &CheckpointHeader, intact: bool) {
        let scope = match header.scope() {
            CheckpointHeader::MERGED => None,
            shard => Some(shard),
        };
        let json = json!({
            "kind": "checkpoint", "shard": scope, "run": header.run(), "shards": header.shards(),
            "leader_epoch": header.leader_epoch(), "generation": header.generation(), "cut": header.cut().0,
            "clean": header.is_clean(), "partitions": header.record_count(), "body_bytes": header.body_len(),
            "intact": intact,
        });
        self.item(0, json, || {
            format!(
                "{} of run {}, generation {}, cut at frame {}, {} shards, leader epoch {}, {} partitions in {} bytes{}{}",
                scope.map_or("merged checkpoint".to_owned(), |shard| format!("checkpoint of shard {shard}")),
                header.run(),
                header.generation(),
                header.cut().0,
                header.shards(),
                header.leader_epoch(),
                header.record_count(),
                header.body_len(),
                if header.is_clean() { ", after a clean stop" } else { "" },
                if intact { "" } else { "  ITS BODY IS NOT THE ONE IT DESCRIBES" },
            )
        });
    }

    fn partition(&mut self, at: u64, record: &OwnedRecord) {
        let log = &record.log;
        let end = log.next_offset().unwrap_or(record.log_start);
        let odd = log.odd.as_ref().map_or(0, |odd| odd.len());
        let segments = log.segments.iter().map(|segment| {
            json!({
                "base_offset": segment.base_offset, "next_offset": segment.next_offset, "bytes": segment.bytes,
                "largest_timestamp_ms": segment.max_timestamp, "sealed": segment.sealed,
                "revision": segment.revision,
            })
        });
        let json = json!({
            "kind": "partition", "topic_id": record.key.topic.to_string(), "partition": record.key.partition,
            "log_start": record.log_start, "stored_end": end, "durable_end": record.durable_end, "bytes": log.bytes(),
            "odd_tail_bytes": odd, "segments": segments.collect::<Vec<_>>(), "epochs": record.epochs.entries(),
            "producers": record.producers.len(),
        });
        self.item(at, json, || {
            format!(
                "    {}/{}  offsets {}..{end}, {} segments, {} bytes, odd tail {odd}, {} epochs, {} producers",
                record.key.topic,
                record.key.partition,
                record.log_start,
                log.segments.len(),
                log.bytes(),
                record.epochs.entries().len(),
                record.producers.len(),
            )
        });
    }
}

fn codec(attributes: i16) -> &'static str {
    match Compression::from_attributes(attributes) {
        Some(Compression::None) => "uncompressed",
        Some(Compression::Gzip) => "gzip",
        Some(Compression::Snappy) => "snappy",
        Some(Compression::Lz4) => "lz4",
        Some(Compression::Zstd) => "zstd",
        None => "unknown codec",
    }
}

/// The beginning of some bytes, with escapes for what is no text.
fn shown(bytes: Option<&[u8]>) -> Option<String> {
    let bytes = bytes?;
    let start = &bytes[..bytes.len().min(SHOWN_MAX)];
    let mut text: String = String::from_utf8_lossy(start)
        .chars()
        .flat_map(char::escape_debug)
        .collect();
    if bytes.len() > SHOWN_MAX {
        text += &format!("… ({} bytes)", bytes.len());
    }
    Some(text)
}
