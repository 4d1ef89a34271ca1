//! What a file is, by its name and its place.

use std::path::Path;

/// Kinds of files in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Record batches.
    Segment,
    /// A segment's offset index.
    OffsetIndex,
    /// A segment's time index.
    TimeIndex,
    /// A journal file.
    Journal,
    /// A checkpoint, of a shard or merged.
    Checkpoint,
    /// Topics and settings.
    Catalog,
}

impl Kind {
    /// By a file's name; what is not known by it is told apart by its first bytes.
    pub(crate) fn of(path: &Path, start: &[u8]) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => return Some(Self::Segment),
            Some("index") => return Some(Self::OffsetIndex),
            Some("timeindex") => return Some(Self::TimeIndex),
            _ => {}
        }
        if name.starts_with("checkpoint-") {
            return Some(Self::Checkpoint);
        }
        let parent = path.parent().and_then(Path::file_name);
        if parent.is_some_and(|parent| parent == "journal") {
            return Some(Self::Journal);
        }
        match start.get(..4)? {
            b"RLJH" => Some(Self::Journal),
            b"RLCP" => Some(Self::Checkpoint),
            b"redb" => Some(Self::Catalog),
            _ => None,
        }
    }
}
