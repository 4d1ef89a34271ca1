//! The default driver: one thread, one io_uring, pinned to a core, for the network, the journal and the reads of
//! one shard.
//!
//! The loop decides nothing. It hands what happened to a [`Shard`](crate::shard::Shard), lets it take its turn,
//! and carries out what it asks for. What may block (opening, creating, syncing whole file systems, sending from
//! files that are not in memory) runs on helper threads, so the shard's thread makes no blocking system call:
//! it enters its ring, and little else.
//!
//! | file | what it does |
//! |---|---|
//! | `driver`, `spawn` | entry points and set-up |
//! | `turns` | the loop |
//! | `uring` | the ring itself: submitting, waiting, reaping |
//! | `net`, `conn`, `send`, `span` | connections |
//! | `lanes` | journal commits and reads on the shard's ring |
//! | `background`, `slow`, `zero` | everything else on the disk, on helper threads |
//! | `files` | the blocking disk recovery runs on |
//! | `shutdown`, `signals` | signals, kept away from every thread but one |
//! | `preflight` | can this host and directory be used at all, and if not, why and what mends it |
#![allow(unsafe_code)]

mod background;
mod cached;
mod clock;
mod config;
mod conn;
mod driver;
mod error;
mod files;
mod lanes;
mod mapped;
mod net;
mod pipe;
mod pool;
mod preflight;
mod root;
mod send;
mod sendfile;
mod shutdown;
mod signals;
mod slow;
mod spawn;
mod stats;
mod stock;
mod table;
mod turns;
mod uring;
mod waker;
mod window;
mod worker;
mod zero;

pub use clock::now;
pub use config::{CommitSync, RingConfig, SpanPath};
pub use driver::{ShardInputs, run_shard, spawn_shard};
pub use error::{RingError, exit_status};
pub use files::RealDisk;
pub use preflight::{Preflight, PreflightError, PreflightOptions, preflight, raise_descriptors};
pub use shutdown::Shutdown;
pub use signals::on_signals;
pub use spawn::Inputs;
pub use stats::{RingStats, RingStatsSnapshot};
pub use waker::ShardWaker;

// What the other driver on the same system shares.
#[cfg(feature = "glommio")]
pub(crate) use {
    clock::mono_ns,
    error::ExitOnPanic,
    root::{Root, allocate},
    slow::carry_out as carry_out_slow,
    spawn::spawn,
    stock::Stock,
};

#[cfg(test)]
pub(crate) mod tests;
