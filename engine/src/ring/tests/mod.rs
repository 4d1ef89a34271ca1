//! Tests of the driver with a script in the shard's place, on real sockets and a real directory.

mod calls;
mod disk;
mod harness;
mod network;
mod spans;

/// The driver that `disk`, `harness` and `network` test; another driver's tests put theirs in its place.
mod subject {
    use crate::ring::CommitSync;

    pub(super) use crate::ring::RingConfig as Config;
    pub(super) use crate::ring::driver::{ShardInputs, run};

    /// Every way to commit.
    pub(super) const COMMITS: &[fn(&mut Config)] = &[
        |config| config.commit_sync = CommitSync::Fdatasync,
        |config| config.commit_sync = CommitSync::Dsync,
    ];

    pub(super) fn few_buffers(config: &mut Config) {
        config.recv_buffers = 4;
        config.recv_buffer_bytes = 4096;
    }
}
