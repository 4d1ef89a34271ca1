//! A segment's two index files, in Kafka's formats.

use super::source::Source;

/// Bytes of an entry of the offset index.
pub(crate) const OFFSET_ENTRY: usize = 8;
/// Bytes of an entry of the time index.
pub(crate) const TIME_ENTRY: usize = 12;

/// Relative offset of a batch's end, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

/// Largest timestamp so far, and the relative offset of the batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) relative_offset: u32,
}

/// The `n`th entry of an offset index.
pub(crate) fn offset_entry(source: &mut Source, n: u64) -> Option<OffsetEntry> {
    let bytes: [u8; OFFSET_ENTRY] = source
        .bytes(n * OFFSET_ENTRY as u64, OFFSET_ENTRY)?
        .try_into()
        .ok()?;
    let [a, b, c, d, e, f, g, h] = bytes;
    Some(OffsetEntry {
        relative_offset: u32::from_be_bytes([a, b, c, d]),
        position: u32::from_be_bytes([e, f, g, h]),
    })
}

/// The `n`th entry of a time index.
pub(crate) fn time_entry(source: &mut Source, n: u64) -> Option<TimeEntry> {
    let bytes = source.bytes(n * TIME_ENTRY as u64, TIME_ENTRY)?;
    let (time, offset) = bytes.split_first_chunk::<8>()?;
    Some(TimeEntry {
        timestamp_ms: i64::from_be_bytes(*time),
        relative_offset: u32::from_be_bytes(*offset.first_chunk()?),
    })
}
