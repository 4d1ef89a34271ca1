//! Looking at a data directory's files without a server: what they hold, and whether it is sound.

mod batches;
mod checkpoint;
mod files;
mod frames;
mod index;
mod source;

pub(crate) mod dump;
pub(crate) mod verify;
