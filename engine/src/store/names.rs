//! Where files lie, relative to the data directory.

/// The directory that holds all partitions' directories.
pub const TOPICS: &str = "topics";

/// A segment's three files, in Kafka's formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentFile {
    /// Record batches.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
}

impl SegmentFile {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Log, Self::Index, Self::TimeIndex];

    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
        }
    }
}

/// Path of a partition's directory from its [`dir_name`](crate::id::PartitionKey::dir_name).
#[must_use]
pub fn partition_dir(dir_name: &str) -> String {
    format!("{TOPICS}/{dir_name}")
}

/// Path of a segment's file: its base offset in 20 digits, as Kafka names it.
#[must_use]
pub fn segment_path(dir_name: &str, base_offset: i64, file: SegmentFile) -> String {
    format!("{TOPICS}/{dir_name}/{base_offset:020}.{}", file.suffix())
}

/// Path of a shard's directory.
#[must_use]
pub fn shard_dir(shard: u32) -> String {
    format!("shard-{shard}")
}

/// Path of the file that keeps space for what a shard's journal holds.
#[must_use]
pub fn reserve_path(shard: u32) -> String {
    format!("shard-{shard}/reserve")
}

/// Path of the directory of a shard's journal files.
#[must_use]
pub fn journal_dir(shard: u32) -> String {
    format!("shard-{shard}/journal")
}

/// Path of a journal file; its size is part of the name, so that a changed setting makes new files.
#[must_use]
pub fn journal_file(shard: u32, number: u32, bytes: u64) -> String {
    format!("shard-{shard}/journal/{number}-{bytes}")
}

/// Number and size of a journal file from its name without directories.
#[must_use]
pub fn journal_file_parse(name: &str) -> Option<(u32, u64)> {
    let (number, bytes) = name.split_once('-')?;
    Some((number.parse().ok()?, bytes.parse().ok()?))
}

/// Path of one of a shard's two checkpoint slots.
#[must_use]
pub fn checkpoint_path(shard: u32, slot: u32) -> String {
    format!("shard-{shard}/checkpoint-{slot}")
}

/// Path of one of the two slots of the merged checkpoint that each start writes.
#[must_use]
pub fn merged_path(slot: u32) -> String {
    format!("checkpoint-{slot}")
}
