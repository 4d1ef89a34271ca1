//! The journal's layout on disk: file headers, frames, entries. FORMAT.md draws it.

mod layout;
mod scan;

pub use layout::{
    ENTRY_ROLL, EntryHeader, EntryKind, FileHeader, FrameHeader, Incarnation, entry_len,
};
pub use scan::{BatchEntry, EntryError, FrameFault, ScannedFrame, entries, scan_block};
