//! What segments and their indexes hold.

use ringlog_engine::batch::{Compression, HEADER_LEN, body, header::ATTR_LOG_APPEND_TIME};
use serde_json::json;

use super::Dump;
use crate::disk::batches::{Batch, Found, batch_at};
use crate::disk::index::{OFFSET_ENTRY, TIME_ENTRY, offset_entry, time_entry};
use crate::disk::source::Source;
use crate::when::rfc3339;

/// Largest batch whose records are shown, bytes, before and after decompression.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Letters of a key or value that are shown.
const SHOWN_MAX: usize = 200;

impl Dump {
    pub(super) fn segment(&mut self, source: &mut Source) {
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

    pub(super) fn offset_index(&mut self, source: &mut Source) {
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

    pub(super) fn time_index(&mut self, source: &mut Source) {
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
