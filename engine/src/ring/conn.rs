//! One connection: what is known about it and what waits to be sent.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use bytes::BytesMut;

use crate::core::FileSpan;
use crate::shard::{CloseReason, ConnId, SendData};

use super::pipe::Pipe;
use super::window::Window;

/// Pieces sent by one operation at most: the system's limit.
const PIECES: usize = 1024;
/// Bytes sent by one operation at most: what a socket's buffer takes.
pub(super) const SEND_BYTES: usize = 4 << 20;

/// State of one connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) fd: RawFd,
    /// Operations of the kernel or of a helper thread that name the connection. It is torn down only at zero.
    pub(super) in_flight: u8,
    pub(super) recv_armed: bool,
    /// The last receive said that there is more: try at once instead of waiting for readiness.
    pub(super) more: bool,
    pub(super) paused: bool,
    /// The peer sends nothing more. It still gets what is queued.
    pub(super) eof: bool,
    /// Close once everything queued is sent.
    pub(super) close_when_sent: bool,
    /// Being torn down, for this reason; nothing more is told to the application but its end.
    pub(super) ending: Option<CloseReason>,
    pub(super) fill: Option<Fill>,
    pub(super) queue: SendQueue,
    pub(super) sending: Sending,
    /// In the list of connections to look at before the loop waits.
    pub(super) listed: bool,
    pub(super) window: Window,
}

/// A receive straight into the application's buffer.
pub(super) struct Fill {
    pub(super) buf: BytesMut,
    /// Bytes still missing.
    pub(super) left: usize,
}

/// What is being sent.
pub(super) enum Sending {
    /// Nothing.
    Idle,
    /// One piece from memory: the front of the queue.
    One,
    /// Several pieces from memory, gathered.
    Many(Box<Gather>),
    /// The span at the front of the queue, by `sendfile`.
    Helper,
    /// The span at the front of the queue, through a pipe that holds this many bytes of it.
    Pipe { pipe: Pipe, held: usize },
    /// Waiting for room in the socket before `sendfile` goes on.
    Room,
}

impl Conn {
    pub(super) fn new(id: ConnId, fd: RawFd) -> Self {
        Self {
            id,
            fd,
            in_flight: 0,
            recv_armed: false,
            more: false,
            paused: false,
            eof: false,
            close_when_sent: false,
            ending: None,
            fill: None,
            queue: SendQueue::default(),
            sending: Sending::Idle,
            listed: false,
            window: Window::default(),
        }
    }

    pub(super) fn wants_recv(&self) -> bool {
        let open = !self.eof && !self.close_when_sent && self.ending.is_none();
        open && !self.recv_armed && (!self.paused || self.fill.is_some())
    }

    /// Whether the application still hears of what arrives.
    pub(super) fn is_heard(&self) -> bool {
        self.ending.is_none() && !self.close_when_sent
    }

    pub(super) fn is_sent(&self) -> bool {
        self.queue.is_empty() && matches!(self.sending, Sending::Idle)
    }
}

/// Bytes to send, in order. The front piece may have been sent in part.
#[derive(Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<SendData>,
    /// Bytes of the front piece that are sent.
    front_done: usize,
    /// Bytes left to send.
    bytes: usize,
}

impl SendQueue {
    pub(super) fn push(&mut self, data: SendData) {
        self.bytes += data.len();
        self.pieces.push_back(data);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes left to send.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is left of the span at the front, if that is one.
    pub(super) fn front_span(&self) -> Option<FileSpan> {
        match self.pieces.front() {
            Some(SendData::Span(span)) => Some(FileSpan {
                file: span.file,
                offset: span.offset + self.front_done as u64,
                len: span.len - self.front_done,
            }),
            _ => None,
        }
    }

    /// What is left of the bytes at the front, `most` of them, when nothing can be gathered with them.
    pub(super) fn front_alone(&self, most: usize) -> Option<&[u8]> {
        let front = bytes_of(self.pieces.front()?)?;
        let alone = match self.pieces.get(1) {
            Some(next) => bytes_of(next).is_none() || front.len() - self.front_done >= most,
            None => true,
        };
        let rest = &front[self.front_done..];
        alone.then_some(&rest[..rest.len().min(most)])
    }

    /// Whether a span follows the `sent` bytes next: the system may then hold them back for a fuller packet.
    pub(super) fn span_after_front(&self) -> bool {
        matches!(self.pieces.get(1), Some(SendData::Span(_)))
    }

    /// Collects pieces from the front into `gather`, up to a span and `most` bytes.
    pub(super) fn gather(&self, gather: &mut Gather, most: usize) {
        gather.clear();
        let mut skip = self.front_done;
        for piece in &self.pieces {
            let Some(bytes) = bytes_of(piece) else {
                gather.before_span = true;
                return;
            };
            if gather.pieces.len() == PIECES || gather.bytes == most {
                return;
            }
            let rest = &bytes[std::mem::take(&mut skip)..];
            gather.add(&rest[..rest.len().min(most - gather.bytes)]);
        }
    }

    /// Drops `bytes` sent bytes from the front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.front_done += bytes;
        self.bytes = self.bytes.saturating_sub(bytes);
        while let Some(front) = self.pieces.front() {
            if self.front_done < front.len() {
                return;
            }
            self.front_done -= front.len();
            self.pieces.pop_front();
        }
        debug_assert_eq!(self.front_done, 0, "more sent than queued");
    }
}

fn bytes_of(data: &SendData) -> Option<&[u8]> {
    match data {
        SendData::Bytes(bytes) => Some(bytes),
        SendData::Slice(slice) => Some(slice),
        SendData::Span(_) => None,
    }
}

/// The kernel's view of several pieces to send together. Boxed while in use: the kernel reads it where it lies.
pub(super) struct Gather {
    pieces: Vec<libc::iovec>,
    message: libc::msghdr,
    pub(super) bytes: usize,
    /// A span follows.
    pub(super) before_span: bool,
}

impl Gather {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            pieces: Vec::new(),
            // SAFETY: a message header of zeros is one without address, pieces or control data.
            message: unsafe { std::mem::zeroed() },
            bytes: 0,
            before_span: false,
        })
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
        self.before_span = false;
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.pieces.push(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
    }

    /// The header to hand to the kernel. Valid while `self` is neither moved out of its box nor changed, and the
    /// queue it was gathered from keeps its front.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        self.message.msg_iov = self.pieces.as_mut_ptr();
        self.message.msg_iovlen = self.pieces.len();
        &raw const self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FileId;
    use bytes::Bytes;

    fn gathered(queue: &SendQueue) -> (Vec<usize>, bool) {
        let mut gather = Gather::new();
        queue.gather(&mut gather, SEND_BYTES);
        let lens = gather.pieces.iter().map(|p| p.iov_len).collect();
        (lens, gather.before_span)
    }

    #[test]
    fn pieces_are_gathered_in_order_up_to_a_span_and_consumed_across_borders() {
        let mut queue = SendQueue::default();
        for len in [3, 5, 7] {
            queue.push(SendData::Bytes(Bytes::from(vec![0; len])));
        }
        queue.push(SendData::Span(FileSpan {
            file: FileId(1),
            offset: 100,
            len: 50,
        }));
        queue.push(SendData::Bytes(Bytes::from_static(b"end")));
        assert!(queue.front_alone(SEND_BYTES).is_none());
        assert_eq!(gathered(&queue), (vec![3, 5, 7], true));
        queue.consume(4);
        assert_eq!(gathered(&queue), (vec![4, 7], true));
        queue.consume(10);
        assert_eq!(queue.front_alone(SEND_BYTES).map(<[u8]>::len), Some(1));
        assert!(queue.span_after_front());
        queue.consume(1);
        queue.consume(20);
        let rest = queue.front_span().unwrap();
        assert_eq!((rest.offset, rest.len), (120, 30));
        queue.consume(30);
        assert!(queue.front_span().is_none());
        queue.consume(3);
        assert!(queue.is_empty());
    }

    #[test]
    fn one_operation_is_bounded_in_pieces_and_bytes() {
        let mut queue = SendQueue::default();
        for _ in 0..2 * PIECES {
            queue.push(SendData::Bytes(Bytes::from_static(b"x")));
        }
        assert_eq!(gathered(&queue).0.len(), PIECES);
        let mut queue = SendQueue::default();
        queue.push(SendData::Bytes(Bytes::from(vec![0; SEND_BYTES - 1])));
        queue.push(SendData::Bytes(Bytes::from(vec![0; SEND_BYTES])));
        assert_eq!(gathered(&queue).0, [SEND_BYTES - 1, 1]);
        queue.consume(SEND_BYTES);
        assert_eq!(
            queue.front_alone(SEND_BYTES).map(<[u8]>::len),
            Some(SEND_BYTES - 1)
        );
    }
}
