//! The ringlog storage engine: a shard-per-core log engine for Linux.

pub mod batch;
pub mod buf;
pub mod checksum;
pub mod compact;
pub mod core;
pub mod disk;
#[cfg(feature = "glommio")]
pub mod glommio;
pub mod id;
pub mod journal;
pub mod record;
pub mod recovery;
pub mod ring;
pub mod shard;
pub mod sim;
pub mod store;
