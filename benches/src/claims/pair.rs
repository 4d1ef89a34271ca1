//! Two network namespaces with a pair of virtual Ethernet devices between them: a sender in one, its receiver in the other.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::namespace::own_network;

/// Addresses of the ends: from the range that is set aside for benchmarks (RFC 2544).
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];
/// Names of the devices, each in a namespace of its own.
const NAMES: [&str; 2] = ["claims0", "claims1"];

/// One end of a pair, with a loopback device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where the pair is made.
    Near,
    /// The other one.
    Far,
}

impl End {
    /// Its address, which the other end reaches over the pair and threads of this one over loopback.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        ADDRESSES[self as usize]
    }

    fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// Both namespaces. They end with this, with the threads that are in them and with the processes those started.
#[derive(Debug)]
pub struct Pair {
    ends: [OwnedFd; 2],
}

impl Pair {
    /// Makes the namespaces and the pair.
    ///
    /// # Errors
    /// The system's; privilege or the `ip` command may be missing.
    pub fn make() -> io::Result<Self> {
        let pair = Self {
            ends: [network()?, network()?],
        };
        let far = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            pair.ends[End::Far as usize].as_raw_fd()
        );
        let (near, peer) = (End::Near.name(), End::Far.name());
        pair.within(End::Near, || {
            let link = ["link", "add", near, "type", "veth", "peer", "name", peer];
            ip(&[link.as_slice(), &["netns", &far]].concat())
        })?;
        for end in [End::Near, End::Far] {
            pair.within(end, || {
                ip(&[
                    "addr",
                    "add",
                    &format!("{}/30", end.address()),
                    "dev",
                    end.name(),
                ])?;
                ip(&["link", "set", end.name(), "up"])?;
                ip(&["link", "set", "lo", "up"])
            })?;
        }
        Ok(pair)
    }

    /// Moves the calling thread to an end; threads and processes that it starts from then on are there too.
    ///
    /// # Errors
    /// The system's.
    pub fn enter(&self, end: End) -> io::Result<()> {
        let namespace = self.ends[end as usize].as_fd();
        Ok(move_into_link_name_space(
            namespace,
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Works at an end, in a thread of its own.
    ///
    /// # Errors
    /// Those of the work and of going there.
    pub fn within<T: Send>(
        &self,
        end: End,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        aside(|| {
            self.enter(end)?;
            work()
        })
    }
}

/// A new network without devices.
fn network() -> io::Result<OwnedFd> {
    aside(|| {
        own_network()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
}

/// Works in a thread that ends with the work: a namespace is a thread's.
fn aside<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let joined = std::thread::scope(|scope| scope.spawn(work).join());
    joined.map_err(|_| io::Error::other("the thread broke off"))?
}

/// Runs `ip`, in the namespace of the calling thread.
fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("ip (Debian: iproute2): {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!(
        "ip {}: {said}",
        arguments.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::time::Duration;

    use super::*;

    fn reaches(address: impl ToSocketAddrs) -> bool {
        let address = address.to_socket_addrs().unwrap().next().unwrap();
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    }

    #[test]
    fn an_end_is_reached_from_itself_and_from_the_other_one_and_from_nowhere_else() {
        let pair = match Pair::make() {
            Ok(pair) => pair,
            Err(error) => {
                // Without privilege the refusal is what there is to see.
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        let listener = pair
            .within(End::Far, || TcpListener::bind((End::Far.address(), 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        for end in [End::Near, End::Far] {
            assert!(
                pair.within(end, || Ok(reaches(address))).unwrap(),
                "{end:?}"
            );
        }
        let host = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = host.local_addr().unwrap();
        assert!(reaches(host));
        assert!(!pair.within(End::Near, || Ok(reaches(host))).unwrap());
    }
}
