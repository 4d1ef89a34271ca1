//! Ports and cores of the shards.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, getsockname, listen, socket_with};
use rustix::thread::sched_getaffinity;

use super::{Args, StartError};

/// How often a free range of ports is looked for when the system may choose.
const TRIES: u32 = 50;
/// How long a port is waited for. A server that was killed leaves its listeners to the kernel, which lets go of what an
/// io_uring held some milliseconds after the process has gone; a supervisor is quicker.
const LINGER: Duration = Duration::from_secs(1);
/// Between two tries.
const LINGER_STEP: Duration = Duration::from_millis(10);
/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// Sockets bound to neighbouring ports, one for each shard, that do not listen yet: a port that another program listens
/// on is found out at once, and no client waits in vain during recovery.
pub(super) struct Ports {
    sockets: Vec<OwnedFd>,
    first: u16,
}

impl Ports {
    /// Takes the ports.
    pub(super) fn bind(args: &Args, shards: u32) -> Result<Self, StartError> {
        let mut tries = if args.port == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_from(args, args.port, shards) {
                Err(_) if tries > 0 => {}
                other => return other,
            }
        }
    }

    fn bind_from(args: &Args, port: u16, shards: u32) -> Result<Self, StartError> {
        let first = bind(args, port)?;
        let address = getsockname(&first).ok().and_then(|a| a.try_into().ok());
        let port = address.map_or(port, |address: SocketAddr| address.port());
        let mut sockets = vec![first];
        for shard in 1..shards {
            let Ok(next) = u16::try_from(u32::from(port) + shard) else {
                return Err(StartError::Port(format!(
                    "there is no port for shard {shard}"
                )));
            };
            sockets.push(bind(args, next)?);
        }
        Ok(Self {
            sockets,
            first: port,
        })
    }

    /// Lets clients connect; the listeners and the first port.
    pub(super) fn listen(self, args: &Args) -> Result<(Vec<TcpListener>, u16), StartError> {
        let mut listeners = Vec::new();
        for (port, socket) in (self.first..).zip(self.sockets) {
            listen(&socket, BACKLOG).map_err(|e| refused(args, port, &e.into()))?;
            listeners.push(TcpListener::from(socket));
        }
        Ok((listeners, self.first))
    }
}

fn bind(args: &Args, port: u16) -> Result<OwnedFd, StartError> {
    let address = SocketAddr::new(args.listen, port);
    let family = match args.listen {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let bound = || {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // A restart does not wait for old connections to be forgotten.
        set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    let limit = Instant::now() + LINGER;
    loop {
        match bound() {
            // With a port of the system's choice others are tried instead.
            Err(Errno::ADDRINUSE) if args.port != 0 && Instant::now() < limit => {
                std::thread::sleep(LINGER_STEP);
            }
            other => return other.map_err(|e: Errno| refused(args, port, &e.into())),
        }
    }
}

fn refused(args: &Args, port: u16, error: &std::io::Error) -> StartError {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program has it: stop that one or give another --port (each shard takes one, from --port on)"
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: give a higher one"
        }
        ErrorKind::AddrNotAvailable => {
            "this host does not have that address: give another --listen"
        }
        _ => "give another --listen or --port",
    };
    StartError::Port(format!(
        "cannot listen on {}: {error}; {remedy}",
        SocketAddr::new(args.listen, port)
    ))
}

/// Cores for the shards: those this process may run on, one each, as long as there are enough; else none is pinned.
pub(super) fn cpus(shards: u32) -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    let all: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect();
    if all.len() < shards as usize {
        return Vec::new();
    }
    all
}
