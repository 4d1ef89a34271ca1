//! The second driver: the same [`Shard`](crate::shard::Shard) on a glommio executor, so that anyone can compare the
//! two runtimes on their own host.
//!
//! Its entry points have the shape of the [`ring`](crate::ring) driver's, and share its shutdown, counters and
//! errors. What differs:
//!
//! - A commit is two awaits, a write and then an `fdatasync`: glommio cannot link operations. So it costs a trip
//!   through the executor more, and a second enter.
//! - Journal writes and reads are copied once: glommio's files take only buffers of its own.
//! - Sockets wait for readiness and are then read and written by plain calls, one piece at a time; small pieces are
//!   copied together first. Connections are accepted on a thread of their own, because glommio's listener cannot
//!   take over a socket that is bound already.
//! - Destage runs in glommio's pool of blocking threads rather than on its ring, where extending writes would share
//!   the kernel's worker threads with the sync of a commit.
//! - [`SendData::Span`](crate::shard::SendData::Span) cannot be carried out: there is neither `sendfile` nor `splice`
//!   on this executor. A server refuses such read paths at start; a span that comes all the same ends its
//!   connection.
//!
//! | file | what it does |
//! |---|---|
//! | `driver` | entry points and set-up |
//! | `turns` | the task that takes the shard's turns |
//! | `state` | what the tasks of one shard share |
//! | `accept`, `conn`, `queue` | connections: a task each for reading and for writing |
//! | `disk` | journal commits and reads |
//! | `blocking` | everything else on the disk, on blocking threads |

mod accept;
mod blocking;
mod config;
mod conn;
mod disk;
mod driver;
mod queue;
mod state;
mod turns;
mod waker;

pub use config::GlommioConfig;
pub use driver::{ShardInputs, run_shard, spawn_shard};
pub use waker::ExecutorWaker;

#[cfg(test)]
mod tests;
