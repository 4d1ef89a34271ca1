//! What the engine asks of a disk: asynchronous operations while running, blocking ones while recovering.
//!
//! Paths are relative to the data directory, with `/` between components. Drivers carry the operations out and
//! decide nothing; the simulator models what a crash leaves of each.

mod blocking;
mod error;
mod op;

pub use blocking::{Disk, DiskFile, EntryKind};
pub use error::DiskError;
pub use op::{Completion, FileId, Lane, Op, OpId, OpKind, OpenMode, Returned, WriteData};
