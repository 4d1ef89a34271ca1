//! The two carriers of a shard, behind one face.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use ringlog_engine::id::Now;
use ringlog_engine::record::Recorder;
use ringlog_engine::ring::{self, CommitSync, RingConfig, RingStats, Shutdown, SpanPath};
use ringlog_engine::shard::{MailSender, Shard};

use super::{Args, ReadPath};
use crate::app::{Mail, Server};

/// Where a shard runs.
pub(super) struct Place<'a> {
    pub(super) args: &'a Args,
    pub(super) shard: u32,
    pub(super) cpu: Option<usize>,
    pub(super) connections_max: usize,
    pub(super) commit_sync: CommitSync,
    pub(super) recorder: Option<Arc<Recorder>>,
}

/// Something that runs shards.
pub(super) trait Driver {
    /// What reaches a shard besides its ring.
    type Inputs;

    fn inputs(
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> io::Result<(MailSender<Mail>, Self::Inputs)>;

    /// The driver's counters, before the shard starts.
    fn stats(inputs: &Self::Inputs) -> Arc<RingStats>;

    fn spawn(
        place: &Place<'_>,
        inputs: Self::Inputs,
        make_shard: impl FnOnce(Now) -> Shard<Server> + Send + 'static,
    ) -> io::Result<JoinHandle<()>>;
}

/// Our own loop on io_uring.
pub(super) struct Ring;

impl Driver for Ring {
    type Inputs = ring::ShardInputs<Mail>;

    fn inputs(
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> io::Result<(MailSender<Mail>, Self::Inputs)> {
        ring::ShardInputs::new(listener, shutdown)
    }

    fn stats(inputs: &Self::Inputs) -> Arc<RingStats> {
        inputs.stats()
    }

    fn spawn(
        place: &Place<'_>,
        inputs: Self::Inputs,
        make_shard: impl FnOnce(Now) -> Shard<Server> + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let config = RingConfig {
            cpu: place.cpu,
            max_connections: place.connections_max,
            commit_sync: place.commit_sync,
            recorder: place.recorder.clone(),
            span_path: match place.args.read_path {
                ReadPath::Splice => SpanPath::Splice,
                ReadPath::Mmap => SpanPath::Mmap,
                _ => SpanPath::Sendfile,
            },
            ..RingConfig::new(place.args.data.clone(), place.shard)
        };
        ring::spawn_shard(config, inputs, make_shard)
    }
}

/// A glommio executor.
#[cfg(feature = "glommio")]
pub(super) struct Glommio;

#[cfg(feature = "glommio")]
impl Driver for Glommio {
    type Inputs = ringlog_engine::glommio::ShardInputs<Mail>;

    fn inputs(
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> io::Result<(MailSender<Mail>, Self::Inputs)> {
        ringlog_engine::glommio::ShardInputs::new(listener, shutdown)
    }

    fn stats(inputs: &Self::Inputs) -> Arc<RingStats> {
        inputs.stats()
    }

    fn spawn(
        place: &Place<'_>,
        inputs: Self::Inputs,
        make_shard: impl FnOnce(Now) -> Shard<Server> + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        use ringlog_engine::glommio::{GlommioConfig, spawn_shard};
        let config = GlommioConfig {
            cpu: place.cpu,
            max_connections: place.connections_max,
            ..GlommioConfig::new(place.args.data.clone(), place.shard)
        };
        spawn_shard(config, inputs, make_shard)
    }
}
