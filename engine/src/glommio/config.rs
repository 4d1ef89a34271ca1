//! Settings of the glommio driver.

use std::path::PathBuf;

/// Settings of one shard's driver.
#[derive(Debug, Clone)]
pub struct GlommioConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The shard's number, for names of threads and messages.
    pub shard: u32,
    /// The core to run on, by the system's number; `None` lets the scheduler choose.
    pub cpu: Option<usize>,
    /// Connections served at most; further ones are closed at once.
    pub max_connections: usize,
    /// Bytes received at once; one buffer of this size serves all connections.
    pub recv_buffer_bytes: usize,
    /// Threads for what may block: destage and file-system metadata.
    pub blocking_threads: usize,
    /// Memory registered with the executor's rings for journal writes and reads, bytes. What goes beyond comes from
    /// the heap.
    pub io_memory_bytes: usize,
    /// How long a shutdown waits for slow readers to take what is queued for them, milliseconds.
    pub flush_ms: u64,
}

impl GlommioConfig {
    /// The defaults, for one shard of `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf, shard: u32) -> Self {
        Self {
            data_dir,
            shard,
            cpu: None,
            max_connections: 10_000,
            recv_buffer_bytes: 64 * 1024,
            blocking_threads: 8,
            io_memory_bytes: 16 << 20,
            flush_ms: 5_000,
        }
    }
}
