//! The ring driver's tests of connections and disk lanes, run on this driver, and what is its own.
//!
//! The files are the same; what they mean by `super::subject` differs.
#![allow(clippy::duplicate_mod)]

#[path = "../../ring/tests/disk.rs"]
mod disk;
#[path = "../../ring/tests/harness.rs"]
mod harness;
#[path = "../../ring/tests/network.rs"]
mod network;
mod own;

mod subject {
    pub(super) use crate::glommio::GlommioConfig as Config;
    pub(super) use crate::glommio::driver::{ShardInputs, run};

    /// Every way to commit.
    pub(super) const COMMITS: &[fn(&mut Config)] = &[|_| {}];

    pub(super) fn few_buffers(config: &mut Config) {
        config.recv_buffer_bytes = 4096;
    }
}
