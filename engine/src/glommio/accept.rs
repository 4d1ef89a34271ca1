//! Accepting connections, on a thread of its own.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ring::RingError;
use crate::shard::{MailSender, Mailbox};

use super::ExecutorWaker;

/// Pause before accepting again after a failure, such as no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause between two log lines about the same trouble.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// The executor's side of the thread.
pub(super) struct Acceptor {
    listener: Arc<TcpListener>,
    stop: Arc<AtomicBool>,
    accepted: Mailbox<Accepted>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts the thread; it wakes `shard` for every connection.
    pub(super) fn start(
        listener: TcpListener,
        number: u32,
        shard: Arc<ExecutorWaker>,
    ) -> Result<Self, RingError> {
        // Accepted sockets inherit it: a Kafka response must not wait for the peer's acknowledgement.
        rustix::net::sockopt::set_tcp_nodelay(&listener, true)
            .map_err(|error| RingError::setup("TCP_NODELAY on the listener")(error.into()))?;
        let (sender, accepted) = Mailbox::new(shard);
        let listener = Arc::new(listener);
        let stop = Arc::<AtomicBool>::default();
        let (theirs, told) = (listener.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name(format!("ringlog-net-{number}"))
            .spawn(move || accept_all(&theirs, &told, &sender))
            .map_err(RingError::setup("starting the accepting thread"))?;
        Ok(Self {
            listener,
            stop,
            accepted,
            thread: Some(thread),
        })
    }

    /// The next connection, without waiting.
    pub(super) fn next(&self) -> Option<Accepted> {
        self.accepted.poll()
    }

    /// Accepts nothing from now on; what comes is refused by the system.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Ends an accept that waits. It fails only if the listener is shut down already.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all(listener: &TcpListener, stop: &AtomicBool, shard: &MailSender<Accepted>) {
    let mut logged: Option<Instant> = None;
    loop {
        let error = match listener.accept() {
            _ if stop.load(Ordering::SeqCst) => return,
            Ok(accepted) => {
                if !shard.send(accepted) {
                    return;
                }
                continue;
            }
            Err(error) => error,
        };
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
        ) {
            continue;
        }
        if logged.is_none_or(|last| last.elapsed() >= LOG_PAUSE) {
            logged = Some(Instant::now());
            tracing::warn!("cannot accept connections: {error}");
        }
        std::thread::sleep(PAUSE);
    }
}
