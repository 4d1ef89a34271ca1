//! Ports and cores of the shards.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use rustix::thread::sched_getaffinity;

use super::{Args, StartError};

/// How often a free range of ports is looked for when the system may choose.
const TRIES: u32 = 50;

/// A listener for each shard, on neighbouring ports, and the first port.
pub(super) fn listen(args: &Args, shards: u32) -> Result<(Vec<TcpListener>, u16), StartError> {
    let mut tries = if args.port == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        match listen_from(args, args.port, shards) {
            Err(_) if tries > 0 => {}
            other => return other,
        }
    }
}

fn listen_from(args: &Args, port: u16, shards: u32) -> Result<(Vec<TcpListener>, u16), StartError> {
    let first = bind(args, port)?;
    let port = match first.local_addr() {
        Ok(address) => address.port(),
        Err(e) => return Err(refused(args, port, &e)),
    };
    let mut listeners = vec![first];
    for shard in 1..shards {
        let Ok(next) = u16::try_from(u32::from(port) + shard) else {
            return Err(StartError::Port(format!(
                "there is no port for shard {shard}"
            )));
        };
        listeners.push(bind(args, next)?);
    }
    Ok((listeners, port))
}

fn bind(args: &Args, port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind(SocketAddr::new(args.listen, port)).map_err(|e| refused(args, port, &e))
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
