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

/// What tells the files of a partition's segments apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Offset at which the segment begins.
    pub base_offset: i64,
    /// 0 as it was written first; each segment that compaction makes has a number that is new in its partition.
    pub revision: u32,
}

impl From<i64> for SegmentName {
    fn from(base_offset: i64) -> Self {
        Self {
            base_offset,
            revision: 0,
        }
    }
}

impl SegmentName {
    /// Whose file this is, by its name without directories; `None` for files of another kind.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let (base, rest) = file_name.split_once('.')?;
        let revision = match rest.split_once('.') {
            Some((revision, _)) => revision.parse().ok()?,
            None => 0,
        };
        Some(Self {
            base_offset: base.parse().ok()?,
            revision,
        })
    }
}

/// Path of a segment's file: its base offset in 20 digits, as Kafka names it, and its revision if that is not 0.
#[must_use]
pub fn segment_path(dir_name: &str, name: impl Into<SegmentName>, file: SegmentFile) -> String {
    let (name, suffix) = (name.into(), file.suffix());
    let base = name.base_offset;
    match name.revision {
        0 => format!("{TOPICS}/{dir_name}/{base:020}.{suffix}"),
        revision => format!("{TOPICS}/{dir_name}/{base:020}.{revision}.{suffix}"),
    }
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
