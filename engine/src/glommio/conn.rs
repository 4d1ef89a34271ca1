//! One connection: a task that reads and a task that writes, in order. The last of them to end closes it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use crate::shard::{CloseReason, ConnId, Driven, NetCommand};

use super::queue::SendQueue;
use super::state::State;

/// Bytes of a fill received by one call at most.
const FILL_BYTES: usize = 256 * 1024;
/// Receives in a row before others get their turn.
const READS_IN_A_ROW: u32 = 4;

/// State of one connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    stream: RefCell<TcpStream>,
    paused: Cell<bool>,
    /// The peer sends nothing more. It still gets what is queued.
    eof: Cell<bool>,
    /// Close once everything queued is sent.
    close_when_sent: Cell<bool>,
    /// Being torn down, for this reason; nothing more is told to the application but its end.
    ending: Cell<Option<CloseReason>>,
    fill: RefCell<Option<Fill>>,
    queue: RefCell<SendQueue>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    /// Tasks that are still there.
    tasks: Cell<u8>,
}

/// A receive straight into the application's buffer.
struct Fill {
    buf: BytesMut,
    /// Bytes still missing.
    left: usize,
}

/// What reading brought.
enum Input {
    /// So many bytes, in the scratch buffer.
    Bytes(usize),
    Filled(BytesMut),
    Eof,
    Failed(io::Error),
    /// Nothing will be read any more.
    Over,
}

/// Serves `stream` as `id` until it ends. Called on the executor's thread.
pub(super) fn serve<D: Driven + 'static>(state: &Rc<State<D>>, id: ConnId, stream: StdStream) {
    let conn = Rc::new(Conn {
        id,
        stream: RefCell::new(TcpStream::from(socket2::Socket::from(stream))),
        paused: Cell::new(false),
        eof: Cell::new(false),
        close_when_sent: Cell::new(false),
        ending: Cell::new(None),
        fill: RefCell::new(None),
        queue: RefCell::default(),
        reader: RefCell::new(None),
        writer: RefCell::new(None),
        tasks: Cell::new(2),
    });
    state.conns.borrow_mut().insert(id, conn.clone());
    glommio::spawn_local(read(state.clone(), conn.clone())).detach();
    glommio::spawn_local(write(state.clone(), conn)).detach();
}

async fn read<D: Driven>(state: Rc<State<D>>, conn: Rc<Conn>) {
    let mut in_a_row = 0;
    loop {
        match poll_fn(|cx| conn.poll_read(cx, &state)).await {
            Input::Bytes(bytes) => state.received(&conn, bytes),
            Input::Filled(buf) => state.filled(&conn, buf),
            // What was received before may still be answered in the turn to come.
            Input::Eof => {
                state.ended_reading(conn.clone());
                break;
            }
            Input::Failed(error) => {
                conn.end(failed(&error));
                break;
            }
            Input::Over => break,
        }
        in_a_row += 1;
        if in_a_row == READS_IN_A_ROW {
            in_a_row = 0;
            glommio::executor().yield_now().await;
        }
    }
    conn.leave(&state);
}

async fn write<D: Driven>(state: Rc<State<D>>, conn: Rc<Conn>) {
    while let Some(written) = poll_fn(|cx| conn.poll_write(cx, &state)).await {
        match written {
            Ok(bytes) => {
                conn.queue.borrow_mut().consume(bytes);
                state.sent(&conn, bytes);
            }
            Err(error) => conn.end(failed(&error)),
        }
        glommio::yield_if_needed().await;
    }
    conn.leave(&state);
}

fn failed(error: &io::Error) -> CloseReason {
    CloseReason::Failed(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Conn {
    // --- commands ---

    /// Carries out one command about this connection.
    pub(super) fn command(&self, command: NetCommand) {
        match command {
            NetCommand::Send { data, .. } => {
                if !self.is_heard() {
                    return;
                }
                if !self.queue.borrow_mut().push(data) {
                    tracing::error!("a file span cannot be sent: read path needs --driver ring");
                    self.end(CloseReason::Failed(libc::ENOTSUP));
                }
                wake(&self.writer);
            }
            NetCommand::Close { .. } => {
                self.close_when_sent.set(true);
                wake(&self.reader);
                wake(&self.writer);
            }
            NetCommand::Abort { .. } => self.end(CloseReason::Local),
            NetCommand::Pause { .. } => self.paused.set(true),
            NetCommand::Resume { .. } => {
                self.paused.set(false);
                wake(&self.reader);
            }
            NetCommand::Fill { buf, len, .. } => self.fill(buf, len),
        }
    }

    /// Receives the next `len` bytes into `buf`.
    pub(super) fn fill(&self, buf: BytesMut, len: usize) {
        let room = buf.capacity() - buf.len();
        let mut fill = self.fill.borrow_mut();
        if fill.is_some() || len > room || len == 0 {
            // Going on would mix up the stream.
            tracing::error!(
                "fill of {len} bytes out of turn on connection {}",
                self.id.0
            );
            return self.end(CloseReason::Failed(libc::EINVAL));
        }
        *fill = Some(Fill { buf, left: len });
        wake(&self.reader);
    }

    // --- reading ---

    fn poll_read<D: Driven>(&self, cx: &mut Context<'_>, state: &State<D>) -> Poll<Input> {
        if !self.is_heard() {
            return Poll::Ready(Input::Over);
        }
        let polled = if self.fill.borrow().is_some() {
            self.poll_fill(cx, state)
        } else if self.paused.get() {
            Poll::Pending
        } else {
            let mut scratch = state.scratch.borrow_mut();
            let mut stream = self.stream.borrow_mut();
            Pin::new(&mut *stream)
                .poll_read(cx, &mut scratch)
                .map(|read| match read {
                    Ok(0) => Input::Eof,
                    Ok(bytes) => {
                        state.stats.received_bytes.add(bytes as u64);
                        Input::Bytes(bytes)
                    }
                    Err(error) => Input::Failed(error),
                })
        };
        if polled.is_pending() {
            remember(&self.reader, cx);
        }
        polled
    }

    fn poll_fill<D: Driven>(&self, cx: &mut Context<'_>, state: &State<D>) -> Poll<Input> {
        let mut place = self.fill.borrow_mut();
        let Some(mut fill) = place.take() else {
            return Poll::Pending;
        };
        while fill.left > 0 {
            let (start, most) = (fill.buf.len(), fill.left.min(FILL_BYTES));
            fill.buf.resize(start + most, 0);
            let mut stream = self.stream.borrow_mut();
            let read = Pin::new(&mut *stream).poll_read(cx, &mut fill.buf[start..]);
            let bytes = match &read {
                Poll::Ready(Ok(bytes)) => *bytes,
                _ => 0,
            };
            fill.buf.truncate(start + bytes);
            fill.left -= bytes;
            state.stats.received_bytes.add(bytes as u64);
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Input::Eof),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Input::Failed(error)),
                Poll::Pending => {
                    *place = Some(fill);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Input::Filled(fill.buf))
    }

    /// The peer sends nothing more, and what it sent before has been handled.
    pub(super) fn end_of_input(&self) {
        self.eof.set(true);
        wake(&self.writer);
    }

    // --- writing ---

    /// Bytes written, or `None` when nothing will be any more.
    fn poll_write<D: Driven>(
        &self,
        cx: &mut Context<'_>,
        state: &State<D>,
    ) -> Poll<Option<io::Result<usize>>> {
        if self.is_sent() {
            if self.close_when_sent.get() {
                self.end(CloseReason::Local);
            } else if self.eof.get() {
                self.end(CloseReason::Peer);
            }
        }
        if self.ending.get().is_some() {
            return Poll::Ready(None);
        }
        let queue = self.queue.borrow();
        let mut together = state.together.borrow_mut();
        let polled = if queue.is_empty() {
            Poll::Pending
        } else {
            let mut stream = self.stream.borrow_mut();
            Pin::new(&mut *stream).poll_write(cx, queue.next(&mut together))
        };
        if polled.is_pending() {
            remember(&self.writer, cx);
        }
        polled.map(Some)
    }

    // --- ending ---

    /// Whether the application still hears of what arrives.
    fn is_heard(&self) -> bool {
        self.ending.get().is_none() && !self.close_when_sent.get()
    }

    fn is_sent(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Whether nothing is left to send, or it will not be sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_sent() || self.ending.get().is_some()
    }

    /// Begins to tear the connection down; the first reason counts.
    pub(super) fn end(&self, reason: CloseReason) {
        if self.ending.get().is_none() {
            self.ending.set(Some(reason));
        }
        wake(&self.reader);
        wake(&self.writer);
    }

    fn leave<D: Driven>(&self, state: &State<D>) {
        self.tasks.set(self.tasks.get() - 1);
        if self.tasks.get() > 0 {
            return;
        }
        self.queue.borrow_mut().clear();
        state.closed(self, self.ending.get().unwrap_or(CloseReason::Local));
    }
}

fn remember(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place
        .as_ref()
        .is_some_and(|known| known.will_wake(cx.waker()))
    {
        *place = Some(cx.waker().clone());
    }
}

fn wake(task: &RefCell<Option<Waker>>) {
    if let Some(task) = task.take() {
        task.wake();
    }
}
