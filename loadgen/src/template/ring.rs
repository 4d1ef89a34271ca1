//! Making batches of a payload, once.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use ringlog_engine::batch::{
    BatchBuilder, BatchHeader, CodecError, Compression, HEADER_LEN, NewRecord, codec,
};
use ringlog_engine::checksum::crc32c;
use rustix::time::{ClockId, clock_gettime};
use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::shift::CrcShift;
use super::{SENDFILE_LEN_MIN, Template, TemplateError};
use crate::payload::{BatchSize, KEY_DIGITS, PayloadSpec};
use crate::stamp::{STAMP_MAGIC, Stamp};

/// Bytes of generated batches to aim for: enough to differ, few enough to stay in a core's cache.
const RING_LEN_TARGET: usize = 1 << 20;
const RING_COUNT_MIN: usize = 4;
const RING_COUNT_MAX: usize = 256;

/// The ring of templates a stream goes through, again and again.
#[derive(Debug)]
pub struct TemplateRing {
    /// In the order they are sent.
    pub templates: Vec<Template>,
    /// Payloads of all records in order, without stamps.
    pub payloads: Vec<Vec<u8>>,
    /// Codec of the batches.
    pub codec: Compression,
    /// All bodies in a memory file, if they are large: the kernel sends from its pages without copying them.
    pub bodies: Option<File>,
    /// Processor time that it took to put all records into batches and to compress them, once.
    pub batching_cpu: Duration,
}

impl TemplateRing {
    /// Makes the templates.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn new(spec: &PayloadSpec, codec: Compression) -> Result<Self, TemplateError> {
        let payloads = spec.payloads(generated_count(spec))?;
        let mut shifts: Vec<(usize, Arc<CrcShift>)> = Vec::new();
        let mut templates = Vec::new();
        let mut next = 0;
        let records_max = match spec.batch {
            BatchSize::Records(records) => records.max(1),
            BatchSize::Bytes(bytes) if spec.files.is_empty() => records_in(spec, bytes),
            BatchSize::Bytes(_) => usize::MAX,
        };
        let mut batching_cpu = Duration::ZERO;
        while next < payloads.len() {
            let begun = thread_cpu();
            let (builder, places, end) = fill(spec, records_max, &payloads, next);
            let uncompressed_len = builder.uncompressed_len() - HEADER_LEN;
            let keyed = spec.keys as usize > payloads.len();
            // What changes from send to send is compressed when it is sent.
            let built_with = match spec.stamped || keyed {
                true => Compression::None,
                false => codec,
            };
            let batch = builder.compression(built_with).build()?;
            batching_cpu += thread_cpu().saturating_sub(begun);
            let built = Built {
                batch: &batch,
                uncompressed_len,
                codec: built_with,
                places: &places,
            };
            templates.push(finish(spec, keyed, codec, &built, &mut shifts)?);
            next = end;
        }
        let bodies = memory_file(&mut templates)?;
        Ok(Self {
            templates,
            payloads,
            codec,
            bodies,
            batching_cpu,
        })
    }

    /// Average length of a batch on the wire in bytes.
    #[must_use]
    pub fn mean_batch_len(&self) -> f64 {
        let total: usize = self.templates.iter().map(Template::batch_len).sum();
        total as f64 / self.templates.len() as f64
    }

    /// Average number of records in a batch.
    #[must_use]
    pub fn mean_records(&self) -> f64 {
        self.payloads.len() as f64 / self.templates.len() as f64
    }

    /// Bytes of record bodies before compression for each byte after.
    #[must_use]
    pub fn compression_ratio(&self) -> f64 {
        let (mut before, mut after) = (0, 0);
        for template in &self.templates {
            before += template.uncompressed_len;
            after += template.body.len();
        }
        before as f64 / after as f64
    }

    /// Processor seconds that it takes to put a record into a batch and to compress it there.
    #[must_use]
    pub fn batching_cpu_s_per_record(&self) -> f64 {
        self.batching_cpu.as_secs_f64() / self.payloads.len() as f64
    }

    /// Payload of the record with this sequence number in any stream.
    #[must_use]
    pub fn payload(&self, sequence: u64) -> &[u8] {
        &self.payloads[(sequence % self.payloads.len() as u64) as usize]
    }
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Writes the bodies into a memory file, unless all are small or change from send to send, and notes where each begins.
fn memory_file(templates: &mut [Template]) -> io::Result<Option<File>> {
    let large =
        |template: &Template| template.is_fixed() && template.body.len() >= SENDFILE_LEN_MIN;
    if !templates.iter().any(large) {
        return Ok(None);
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("ringlog-load-batches", flags)?);
    let mut offset = 0;
    for template in templates {
        template.file_offset = offset;
        file.write_all(&template.body)?;
        offset += template.body.len() as u64;
    }
    Ok(Some(file))
}

/// How many generated records make a ring of whole batches.
fn generated_count(spec: &PayloadSpec) -> usize {
    let overhead = 16 + if spec.keys > 0 { 13 } else { 0 };
    let (records, batch_len) = match spec.batch {
        BatchSize::Records(records) => (
            records.max(1),
            HEADER_LEN + records * (spec.record_size + overhead),
        ),
        BatchSize::Bytes(bytes) => (records_in(spec, bytes), bytes),
    };
    records * (RING_LEN_TARGET / batch_len.max(1)).clamp(RING_COUNT_MIN, RING_COUNT_MAX)
}

/// How many generated records a batch of so many bytes takes.
fn records_in(spec: &PayloadSpec, bytes: usize) -> usize {
    let value = vec![0; spec.record_size];
    let key = spec.key(0);
    let mut builder = BatchBuilder::new();
    loop {
        push(&mut builder, key.as_deref(), &value);
        if builder.uncompressed_len() > bytes {
            return (builder.record_count() - 1).max(1);
        }
    }
}

fn push(builder: &mut BatchBuilder, key: Option<&str>, value: &[u8]) -> usize {
    let record = NewRecord {
        key: key.map(str::as_bytes),
        value: Some(value),
        ..NewRecord::default()
    };
    builder.push(&record).start
}

/// Fills a batch from the payload at `start` on. Returns it with the values' places and the first payload not in it.
fn fill(
    spec: &PayloadSpec,
    records_max: usize,
    payloads: &[Vec<u8>],
    start: usize,
) -> (BatchBuilder, Vec<usize>, usize) {
    let mut builder = BatchBuilder::new();
    let mut places = Vec::new();
    let mut end = start;
    let mut value = Vec::new();
    while let Some(payload) = payloads.get(end) {
        // 60 bytes bound a record's lengths, deltas and stamp well enough to decide when a batch of lines is full.
        let fits = match spec.batch {
            BatchSize::Bytes(bytes) if records_max == usize::MAX => {
                builder.uncompressed_len() + payload.len() + 60 <= bytes
            }
            BatchSize::Bytes(_) | BatchSize::Records(_) => true,
        };
        let room = places.is_empty() || (places.len() < records_max && fits);
        if !room {
            break;
        }
        value.clear();
        if spec.stamped {
            let mut stamp = Stamp::new_zeroed();
            stamp.magic = STAMP_MAGIC;
            stamp.payload_crc = U32::new(crc32c(payload));
            value.extend_from_slice(stamp.as_bytes());
        }
        value.extend_from_slice(payload);
        places.push(push(&mut builder, spec.key(end as u64).as_deref(), &value));
        end += 1;
    }
    (builder, places, end)
}

/// A batch that was just built.
struct Built<'a> {
    batch: &'a [u8],
    /// Bytes of its body before compression.
    uncompressed_len: usize,
    /// What it is compressed with.
    codec: Compression,
    /// Where its values are, uncompressed.
    places: &'a [usize],
}

/// Makes a template of a batch that is to be sent with `codec`.
fn finish(
    spec: &PayloadSpec,
    keyed: bool,
    codec: Compression,
    built: &Built<'_>,
    shifts: &mut Vec<(usize, Arc<CrcShift>)>,
) -> Result<Template, TemplateError> {
    let (batch, places) = (built.batch, built.places);
    let Some(&header) = BatchHeader::read(batch) else {
        unreachable!("a batch that was just built has a header");
    };
    let mut header = header;
    header.attributes = (codec as i16).into();
    let body = batch[HEADER_LEN..].to_vec();
    let shift = match shifts.iter().find(|(length, _)| *length == body.len()) {
        Some((_, shift)) => Arc::clone(shift),
        None => {
            let shift = Arc::new(CrcShift::new(body.len()));
            shifts.push((body.len(), Arc::clone(&shift)));
            shift
        }
    };
    let stamps = places.iter().map(|place| (place - HEADER_LEN) as u32);
    let keys = places
        .iter()
        .map(|&place| digits_before(batch, place) - HEADER_LEN);
    Ok(Template {
        body_crc: crc32c(&body),
        shift,
        stamps: if spec.stamped {
            stamps.collect()
        } else {
            Vec::new()
        },
        keys: if keyed {
            keys.map(|at| at as u32).collect()
        } else {
            Vec::new()
        },
        different_keys: spec.keys,
        records: places.len() as u32,
        value_bytes: values_len(
            &body,
            header.record_count.get(),
            built.uncompressed_len,
            built.codec,
        )?,
        uncompressed_len: built.uncompressed_len,
        file_offset: 0,
        header,
        body,
    })
}

/// Where the digits of the key before the value at `place` start: between them lies the value's length, a varint.
fn digits_before(batch: &[u8], place: usize) -> usize {
    let digits = |at: usize| batch[at..at + KEY_DIGITS].iter().all(u8::is_ascii_digit);
    (1..=5)
        .map(|varint_len| place - varint_len - KEY_DIGITS)
        // A length may look like a digit, but then the key's first digit is taken for one: the dash before it is not.
        .find(|&at| batch[at - 1] == b'-' && digits(at))
        .unwrap_or_else(|| {
            unreachable!("a record that was just built has its key before its value")
        })
}

fn values_len(
    body: &[u8],
    count: i32,
    uncompressed_len: usize,
    codec: Compression,
) -> Result<u64, CodecError> {
    let mut plain = Vec::new();
    let body = if codec == Compression::None {
        body
    } else {
        codec::decompress(codec, body, uncompressed_len, &mut plain)?;
        &plain
    };
    Ok(ringlog_engine::batch::Records::new(body, count)
        .flatten()
        .map(|record| record.value.map_or(0, <[u8]>::len) as u64)
        .sum())
}
