//! Settings of the ring driver.

use std::path::PathBuf;
use std::sync::Arc;

use crate::record::Recorder;

/// How a commit reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitSync {
    /// A write linked to an `fdatasync`.
    #[default]
    Fdatasync,
    /// One write with `RWF_DSYNC`: faster on some devices, slower on others.
    Dsync,
}

/// How the bytes of a [`FileSpan`](crate::core::FileSpan) get from the file to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanPath {
    /// `sendfile(2)`: of what the page cache has on the shard's thread, of the rest on helper threads.
    #[default]
    Sendfile,
    /// `mmap(2)` and `send(2)`, on the same threads.
    Mmap,
    /// `splice` through a pipe, both halves on the ring.
    Splice,
}

/// Settings of one shard's driver.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The shard's number, for names of threads and messages.
    pub shard: u32,
    /// The core to run on, by the system's number; `None` lets the scheduler choose.
    pub cpu: Option<usize>,
    /// Connections served at most; further ones are closed at once.
    pub max_connections: usize,
    /// Size of one receive buffer, bytes.
    pub recv_buffer_bytes: u32,
    /// Receive buffers, shared by all connections of the shard: a power of two up to 32,768.
    pub recv_buffers: u16,
    /// How file spans are sent.
    pub span_path: SpanPath,
    /// Threads that call `sendfile`.
    pub sendfile_threads: usize,
    /// How commits are made durable.
    pub commit_sync: CommitSync,
    /// How long a shutdown waits for slow readers to take what is queued for them, milliseconds.
    pub flush_ms: u64,
    /// Where disk operations are recorded, if they are.
    pub recorder: Option<Arc<Recorder>>,
}

impl RingConfig {
    /// The defaults, for one shard of `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf, shard: u32) -> Self {
        Self {
            data_dir,
            shard,
            cpu: None,
            max_connections: 10_000,
            recv_buffer_bytes: 32 * 1024,
            recv_buffers: 64,
            span_path: SpanPath::default(),
            sendfile_threads: 2,
            commit_sync: CommitSync::default(),
            flush_ms: 5_000,
            recorder: None,
        }
    }
}
