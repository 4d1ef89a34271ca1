//! A TCP connection to a thread that reads and throws away: over loopback, or between two network namespaces.
//!
//! The reading thread does not sleep: to wake it would fall to the sender, which pays for no reader on another host, and which
//! of the two waits for the other changes from one moment to the next.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::super::pair::{End, Pair};
use super::pin;

/// Longest a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What lies between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// The loopback device.
    Loopback,
    /// A pair of virtual Ethernet devices between two network namespaces.
    Veth,
}

/// How much the socket takes before a sender has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendBuffer {
    /// As much as the kernel lets it grow to.
    #[default]
    Grown,
    /// [`NARROW_BYTES`].
    Narrow,
}

/// Bytes of a narrow send buffer (SO_SNDBUF; the kernel doubles it for its own bookkeeping).
pub const NARROW_BYTES: usize = 100 << 10;

#[derive(Debug, Default)]
struct Taken {
    bytes: AtomicU64,
    cpu_ns: AtomicU64,
}

/// The sending end; the other one reads until this one is dropped.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Option<TcpStream>,
    taken: Arc<Taken>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Link {
    /// Connects; the reading thread runs on `cpus`. With [`Medium::Veth`] the calling thread moves into a network
    /// namespace of its own for the rest of its life: it must be a thread made for this. Both namespaces and the pair end
    /// with the two threads.
    ///
    /// # Errors
    /// The system's; for a pair, privilege or the `ip` command may be missing.
    pub(super) fn open(medium: Medium, buffer: SendBuffer, cpus: &[usize]) -> io::Result<Self> {
        let taken = Arc::new(Taken::default());
        let pair = match medium {
            Medium::Loopback => None,
            Medium::Veth => Some(Arc::new(Pair::make()?)),
        };
        let (to, from) = channel();
        let (counted, cpus, far) = (Arc::clone(&taken), cpus.to_vec(), pair.clone());
        let thread = std::thread::Builder::new()
            .name("claims-reader".into())
            .spawn(move || {
                pin(&cpus)?;
                let address = match far {
                    None => Ipv4Addr::LOCALHOST,
                    Some(pair) => {
                        pair.enter(End::Far)?;
                        End::Far.address()
                    }
                };
                read(address, &to, &counted)
            })?;
        let mut link = Self {
            stream: None,
            taken,
            thread: Some(thread),
        };
        if let Some(pair) = &pair {
            pair.enter(End::Near)?;
        }
        let Ok(address) = from.recv() else {
            return Err(link.why());
        };
        let stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        if buffer == SendBuffer::Narrow {
            set_socket_send_buffer_size(&stream, NARROW_BYTES)?;
        }
        link.stream = Some(stream);
        Ok(link)
    }

    /// Why the reading thread gave up.
    fn why(&mut self) -> io::Error {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => io::Error::other("the reading end gave up"),
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// None once it is open.
    pub(super) fn stream(&self) -> io::Result<&TcpStream> {
        self.stream
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Waits until the other end has read `bytes` in all.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn wait_for(&self, bytes: u64) -> io::Result<()> {
        while self.taken.bytes.load(Ordering::Acquire) < bytes {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// CPU seconds that the reading thread has used.
    pub(super) fn reader_cpu_s(&self) -> f64 {
        self.taken.cpu_ns.load(Ordering::Acquire) as f64 / 1e9
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stream = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects over a medium and lets go of it again, in a thread of its own.
///
/// # Errors
/// Why it is not to be had here.
pub fn reach(medium: Medium) -> io::Result<()> {
    let thread = std::thread::spawn(move || Link::open(medium, SendBuffer::Grown, &[]).map(drop));
    let broken = |_| io::Error::other("the thread broke off");
    thread.join().map_err(broken)?
}

/// Tells its address, takes one connection and throws away what comes.
fn read(address: Ipv4Addr, to: &Sender<SocketAddr>, taken: &Taken) -> io::Result<()> {
    let listener = TcpListener::bind((address, 0))?;
    let _ = to.send(listener.local_addr()?);
    // Whoever was to connect may have given up.
    set_socket_timeout(&listener, Timeout::Recv, Some(CONNECT_MAX))?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // On one core the sender gets its turn.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::yield_now();
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let cpu_ns = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        taken.cpu_ns.store(cpu_ns, Ordering::Release);
        taken.bytes.fetch_add(read as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_a_waiting_reader_uses_is_known_at_any_moment() {
        let link = Link::open(Medium::Loopback, SendBuffer::Grown, &[]).unwrap();
        // Nothing is sent: or the time it waits would be the sender's.
        let (started, first_s) = (Instant::now(), link.reader_cpu_s());
        while link.reader_cpu_s() - first_s < 0.001 {
            assert!(started.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
