//! How much the kernel holds of what a connection has sent.
//!
//! The kernel lets a socket's buffer grow to megabytes. A copy into it costs the same in any size, and larger sends are
//! fewer. But pages that `sendfile` lends, to a peer on this host, are best taken at once: with megabytes of them under
//! way every packet finds its receiver asleep and wakes it. Over a distance the buffer is the kernel's affair: it must
//! hold what the line does.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Buffer wanted for pages lent to a peer on this host, bytes; the kernel doubles it.
const LENT_BYTES: usize = 100 << 10;
/// The option that says which buffers the kernel leaves alone (`asm-generic/socket.h`).
const SO_BUF_LOCK: i32 = 72;

/// What is known of a connection's buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Window {
    /// The kernel's; where the peer is has not been asked.
    #[default]
    Unknown,
    /// The kernel's, for good: the peer is on another host.
    Far,
    /// The kernel's; the peer is on this host.
    Wide,
    /// Narrow.
    Narrow,
}

impl Window {
    /// Before pages of a file are lent.
    pub(super) fn for_pages(&mut self, socket: RawFd) {
        if *self == Self::Unknown {
            *self = if is_local(socket) {
                Self::Wide
            } else {
                Self::Far
            };
        }
        if *self == Self::Wide && narrow(socket) {
            *self = Self::Narrow;
        }
    }

    /// Before `bytes` are copied.
    pub(super) fn for_copies(&mut self, socket: RawFd, bytes: usize) {
        if *self == Self::Narrow && bytes > LENT_BYTES && widen(socket) {
            *self = Self::Wide;
        }
    }
}

fn borrow(socket: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: the connection keeps its socket open while this is used, within one call.
    unsafe { BorrowedFd::borrow_raw(*socket) }
}

fn is_local(socket: RawFd) -> bool {
    let socket = borrow(&socket);
    let ip = |address| SocketAddr::try_from(address).ok().map(|at| at.ip());
    let here: Option<IpAddr> = rustix::net::getsockname(socket).ok().and_then(ip);
    let peer = rustix::net::getpeername(socket).ok().flatten().and_then(ip);
    here.is_some() && here == peer
}

fn narrow(socket: RawFd) -> bool {
    rustix::net::sockopt::set_socket_send_buffer_size(borrow(&socket), LENT_BYTES).is_ok()
}

/// Lets the kernel choose the size again.
fn widen(socket: RawFd) -> bool {
    let nothing: libc::c_int = 0;
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            borrow(&socket).as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BUF_LOCK,
            (&raw const nothing).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn pages_to_this_host_get_a_narrow_window_and_copies_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let size = || rustix::net::sockopt::socket_send_buffer_size(&near).unwrap();
        let kernels = size();
        let (mut window, socket) = (Window::default(), near.as_raw_fd());
        window.for_copies(socket, 1 << 20);
        assert_eq!((window, size()), (Window::Unknown, kernels));
        window.for_pages(socket);
        assert_eq!((window, size()), (Window::Narrow, 2 * LENT_BYTES));
        window.for_copies(socket, 100);
        assert_eq!(window, Window::Narrow);
        window.for_copies(socket, 1 << 20);
        assert_eq!(window, Window::Wide);
    }
}
