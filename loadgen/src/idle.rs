//! Connections that are made before the load, say hello, and then stay silent beside it.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::cluster::Cluster;
use crate::counters::resident_bytes;
use crate::protocol::{ControlClient, ControlError};

/// Longest wait for a connection and its first answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What brokers may do with connections that nobody uses takes a moment to show in their memory.
const SETTLE: Duration = Duration::from_millis(200);

/// Not all connections could be made.
#[derive(Debug, Error)]
#[error(
    "idle connection {number} of {wanted}: {source} (has the broker reached its limit of connections, max.connections, or \
     of open files?)"
)]
pub struct IdleError {
    /// Which one, from 1.
    pub number: usize,
    /// How many were asked for.
    pub wanted: usize,
    /// What happened.
    pub source: ControlError,
}

/// What the server had at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ServerState {
    /// Resident memory in bytes; kernel memory of sockets is not in it.
    pub resident_bytes: u64,
    /// Open files.
    pub descriptors: u64,
}

impl ServerState {
    /// Of these processes together; `None` without any, or when one cannot be looked at.
    #[must_use]
    pub fn take(pids: &[u32]) -> Option<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum.resident_bytes += resident_bytes(*pid)?;
            sum.descriptors += fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        }
        (!pids.is_empty()).then_some(sum)
    }
}

/// What idle connections cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IdleResult {
    /// How many there were.
    pub connections: usize,
    /// How long it took to make them, in seconds.
    pub open_s: f64,
    /// How many the broker closed before the end of the run.
    pub closed_by_broker: usize,
    /// The server before.
    pub before: Option<ServerState>,
    /// The server when all were there, before the load.
    pub with: Option<ServerState>,
}

impl IdleResult {
    /// Resident bytes of the server for each connection.
    #[must_use]
    pub fn bytes_per_connection(&self) -> Option<f64> {
        let (before, with) = (self.before?, self.with?);
        let more = with.resident_bytes as f64 - before.resident_bytes as f64;
        (self.connections > 0).then(|| more / self.connections as f64)
    }
}

/// Open connections; dropped, they are closed.
#[derive(Debug)]
pub struct IdleConnections {
    streams: Vec<TcpStream>,
    result: IdleResult,
}

impl IdleConnections {
    /// Makes `count` connections to the cluster's brokers in turns. Each asks for the broker's versions, as clients do.
    ///
    /// # Errors
    /// [`IdleError`].
    pub fn open(cluster: &Cluster, count: usize, pids: &[u32]) -> Result<Self, IdleError> {
        let addresses: Vec<&String> = cluster.brokers.values().collect();
        let before = ServerState::take(pids);
        let begun = Instant::now();
        let mut streams = Vec::with_capacity(count);
        for (number, address) in addresses.iter().cycle().take(count).enumerate() {
            let client = ControlClient::connect(address, TIMEOUT).map_err(|source| IdleError {
                number: number + 1,
                wanted: count,
                source,
            })?;
            streams.push(client.into_stream());
        }
        let open_s = begun.elapsed().as_secs_f64();
        std::thread::sleep(SETTLE);
        Ok(Self {
            result: IdleResult {
                connections: streams.len(),
                open_s,
                closed_by_broker: 0,
                before,
                with: ServerState::take(pids),
            },
            streams,
        })
    }

    /// What they cost, and how many are still there.
    #[must_use]
    pub fn finish(mut self) -> IdleResult {
        let closed = self.streams.iter().filter(|stream| is_closed(stream));
        self.result.closed_by_broker = closed.count();
        self.result
    }
}

/// Whether the other side has closed. Nothing is sent to a connection that asks for nothing.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0];
    match stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut byte))
    {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn closed_connections_are_told_from_silent_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, closed) = (
            TcpStream::connect(address).unwrap(),
            TcpStream::connect(address).unwrap(),
        );
        let _kept = listener.accept().unwrap();
        drop(listener.accept().unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !is_closed(&closed) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_closed(&closed) && !is_closed(&open));
    }

    #[test]
    fn memory_is_the_difference_over_the_connections() {
        let state = |resident_bytes| {
            Some(ServerState {
                resident_bytes,
                descriptors: 0,
            })
        };
        let mut result = IdleResult {
            connections: 10,
            before: state(1000),
            with: state(21_000),
            ..IdleResult::default()
        };
        assert_eq!(result.bytes_per_connection(), Some(2000.0));
        result.with = None;
        assert_eq!(result.bytes_per_connection(), None);
        assert!(ServerState::take(&[]).is_none());
        let own = ServerState::take(&[std::process::id()]).unwrap();
        assert!(own.resident_bytes > 0 && own.descriptors > 2);
        assert!(ServerState::take(&[u32::MAX]).is_none());
    }
}
