//! What a shard's journals and checkpoints hold.

use ringlog_engine::store::{CheckpointHeader, OwnedRecord};
use serde_json::json;

use super::Dump;
use crate::disk::checkpoint::{Slot, records, slot};
use crate::disk::frames::{Frame, Payload, entries, file_header, frames};
use crate::disk::source::Source;

impl Dump {
    pub(super) fn journal(&mut self, source: &mut Source) {
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

    pub(super) fn checkpoint(&mut self, source: &mut Source) {
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
