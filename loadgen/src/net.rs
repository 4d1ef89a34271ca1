//! Non-blocking connections and waiting for many of them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::fs::Timespec;

use crate::protocol::control::connect;
use crate::template::TemplateRing;

/// Largest response accepted.
const FRAME_LEN_MAX: usize = 512 << 20;
/// Batches up to this size are copied behind their header; larger ones are sent from the template.
pub const INLINE_BODY_LEN_MAX: usize = 4096;
/// Slices in one system call.
const SLICES_MAX: usize = 64;
/// Events taken in one system call.
const EVENTS_MAX: usize = 256;

/// Waits for readiness, edge-triggered: whoever is told reads and writes until the socket would block.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// A poller without connections.
    ///
    /// # Errors
    /// As the system says.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches a socket for as long as it is open.
    ///
    /// # Errors
    /// As the system says.
    pub fn add(&self, stream: impl AsFd, token: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            stream,
            epoll::EventData::new_u64(token as u64),
            flags,
        )?)
    }

    /// Waits at most `timeout` and calls `each` with the tokens of connections that have news.
    ///
    /// # Errors
    /// As the system says; an interruption is no error.
    pub fn wait(&self, timeout: Duration, mut each: impl FnMut(usize)) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        match epoll::wait(&self.epoll, &mut buffer, Some(&timeout)) {
            Ok((events, _)) => {
                for event in events {
                    each(event.data.u64() as usize);
                }
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What waits to be sent: bytes of its own and bodies of templates, in order.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Request fronts and copied batches; emptied when everything is sent.
    pub bytes: Vec<u8>,
    segments: VecDeque<Segment>,
    /// How much of `bytes` is in segments.
    claimed: usize,
    /// How much of the first segment is sent.
    sent: usize,
}

#[derive(Debug, Clone)]
enum Segment {
    Own(Range<usize>),
    Body(usize),
}

impl SendQueue {
    /// Queues what was appended to `bytes` since the last call.
    pub fn claim(&mut self) {
        if self.bytes.len() > self.claimed {
            match self.segments.back_mut() {
                Some(Segment::Own(range)) => range.end = self.bytes.len(),
                _ => self
                    .segments
                    .push_back(Segment::Own(self.claimed..self.bytes.len())),
            }
            self.claimed = self.bytes.len();
        }
    }

    /// Queues the body of a template after what was appended so far.
    pub fn push_body(&mut self, template: usize) {
        self.claim();
        self.segments.push_back(Segment::Body(template));
    }

    /// Whether everything is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
        self.claimed = 0;
        self.sent = 0;
    }

    /// Sends what `to` takes; `send_file` is called with the place and length of large bodies in the ring's file.
    fn flush(
        &mut self,
        mut to: impl Write,
        ring: Option<&TemplateRing>,
        mut send_file: impl FnMut(&File, u64, usize) -> io::Result<usize>,
    ) -> io::Result<u64> {
        let mut total = 0;
        while !self.segments.is_empty() {
            let written = {
                let result = match self.front_in_file(ring) {
                    Some((file, offset, length)) => send_file(file, offset, length),
                    None => self.write_slices(&mut to, ring),
                };
                match result {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                }
            };
            total += written as u64;
            self.advance(written, ring);
        }
        self.clear();
        Ok(total)
    }

    /// Place and length of what is left of the first segment, if it is a body in the ring's file.
    fn front_in_file<'a>(&self, ring: Option<&'a TemplateRing>) -> Option<(&'a File, u64, usize)> {
        let Some(Segment::Body(index)) = self.segments.front() else {
            return None;
        };
        let ring = ring?;
        let template = &ring.templates[*index];
        let file = ring.bodies.as_ref()?;
        let offset = template.file_offset() + self.sent as u64;
        Some((file, offset, template.body().len() - self.sent))
    }

    fn write_slices(&self, to: &mut impl Write, ring: Option<&TemplateRing>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for segment in self.segments.iter().take(SLICES_MAX) {
            let bytes = match segment {
                Segment::Own(range) => &self.bytes[range.clone()],
                Segment::Body(_) if ring.is_some_and(|ring| ring.bodies.is_some()) => break,
                Segment::Body(index) => ring.map_or(&[][..], |ring| ring.templates[*index].body()),
            };
            let skip = if used == 0 { self.sent } else { 0 };
            slices[used] = IoSlice::new(&bytes[skip..]);
            used += 1;
        }
        if used == 1 {
            to.write(&slices[0])
        } else {
            to.write_vectored(&slices[..used])
        }
    }

    fn advance(&mut self, written: usize, ring: Option<&TemplateRing>) {
        self.sent += written;
        while let Some(segment) = self.segments.front() {
            let length = match segment {
                Segment::Own(range) => range.len(),
                Segment::Body(index) => ring.map_or(0, |ring| ring.templates[*index].body().len()),
            };
            if self.sent < length {
                return;
            }
            self.sent -= length;
            self.segments.pop_front();
        }
    }
}

/// What was received and not yet read as frames.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    /// A buffer of `capacity` bytes that grows with larger frames.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity.max(64)],
            start: 0,
            end: 0,
        }
    }

    /// The next whole frame's place, without its length; see [`ReceiveBuffer::frame`].
    ///
    /// # Errors
    /// If a frame's length is negative or out of bounds.
    pub fn next_frame(&mut self) -> io::Result<Option<Range<usize>>> {
        let Some(&length) = self.bytes[self.start..self.end].first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "frame length out of bounds",
            ));
        }
        let from = self.start + 4;
        if self.end - from < length {
            self.make_room(4 + length);
            return Ok(None);
        }
        self.start = from + length;
        let frame = from..from + length;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        Ok(Some(frame))
    }

    /// Bytes of a frame just found, good until the next read.
    #[must_use]
    pub fn frame(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Makes room for `length` bytes from `start` on.
    fn make_room(&mut self, length: usize) {
        if self.start + length > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if length > self.bytes.len() {
                self.bytes.resize(length.next_power_of_two(), 0);
            }
        }
    }

    /// Reads once. `None` if there is nothing now; the flag says whether more may wait.
    ///
    /// # Errors
    /// As the reader says, `UnexpectedEof` at its end.
    pub fn fill(&mut self, mut from: impl Read) -> io::Result<Option<bool>> {
        if self.end == self.bytes.len() {
            self.make_room(self.end - self.start + 1);
        }
        let room = self.bytes.len() - self.end;
        match from.read(&mut self.bytes[self.end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.end += read;
                Ok(Some(read == room))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(true)),
            Err(error) => Err(error),
        }
    }
}

/// A connection to a broker.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// What waits to be sent.
    pub send: SendQueue,
    /// What was received.
    pub receive: ReceiveBuffer,
}

impl Link {
    /// Connects to `HOST:PORT` and has `poller` watch the connection.
    ///
    /// # Errors
    /// As the system says.
    pub fn connect(
        address: &str,
        timeout: Duration,
        poller: &Poller,
        token: usize,
        receive_capacity: usize,
    ) -> io::Result<Self> {
        let stream = connect(address, timeout)?;
        Self::adopt(stream, poller, token, receive_capacity)
    }

    /// Takes over a connected stream.
    ///
    /// # Errors
    /// As the system says.
    pub fn adopt(
        stream: TcpStream,
        poller: &Poller,
        token: usize,
        receive_capacity: usize,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, token)?;
        Ok(Self {
            stream,
            send: SendQueue::default(),
            receive: ReceiveBuffer::new(receive_capacity),
        })
    }

    /// Sends what the socket takes. Returns the bytes sent.
    ///
    /// # Errors
    /// As the system says; a full socket is no error.
    pub fn flush(&mut self, ring: Option<&TemplateRing>) -> io::Result<u64> {
        self.send.claim();
        self.send
            .flush(&self.stream, ring, |file, mut offset, length| {
                Ok(rustix::fs::sendfile(
                    &self.stream,
                    file,
                    Some(&mut offset),
                    length,
                )?)
            })
    }

    /// Reads once. `None` if there is nothing now; the flag says whether more may wait.
    ///
    /// # Errors
    /// As the system says, `UnexpectedEof` if the broker closed.
    pub fn fill(&mut self) -> io::Result<Option<bool>> {
        self.receive.fill(&self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `step` bytes a call.
    struct Trickle<'a> {
        taken: &'a mut Vec<u8>,
        step: usize,
    }

    impl Write for Trickle<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.taken.len() % 3 == 2 {
                self.taken.push(b'|');
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = bytes.len().min(self.step);
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn segments_leave_in_order_however_little_is_taken() {
        for step in 1..7 {
            let mut queue = SendQueue::default();
            queue.bytes.extend_from_slice(b"abcdef");
            queue.claim();
            queue.bytes.extend_from_slice(b"ghi");
            queue.claim();
            let mut taken = Vec::new();
            let mut sent = 0;
            for _ in 0..40 {
                sent += queue
                    .flush(
                        Trickle {
                            taken: &mut taken,
                            step,
                        },
                        None,
                        |_, _, _| unreachable!("no ring, no file"),
                    )
                    .unwrap();
            }
            taken.retain(|&byte| byte != b'|');
            assert_eq!((taken.as_slice(), sent), (&b"abcdefghi"[..], 9));
            assert!(queue.is_empty() && queue.bytes.is_empty());
        }
    }

    #[test]
    fn frames_are_found_whatever_the_reads_cut() {
        let mut wire = Vec::new();
        for length in [0usize, 3, 200, 1, 64] {
            wire.extend_from_slice(&(length as i32).to_be_bytes());
            wire.extend(std::iter::repeat_n(length as u8, length));
        }
        for step in 1..wire.len() {
            let mut buffer = ReceiveBuffer::new(64);
            let mut lengths = Vec::new();
            for chunk in wire.chunks(step) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    buffer.fill(&mut rest).unwrap();
                    while let Some(place) = buffer.next_frame().unwrap() {
                        let frame = buffer.frame(place);
                        assert!(frame.iter().all(|&byte| byte as usize == frame.len()));
                        lengths.push(frame.len());
                    }
                }
            }
            assert_eq!(lengths, [0, 3, 200, 1, 64], "in steps of {step}");
        }
        let mut buffer = ReceiveBuffer::new(64);
        buffer.fill(&[0xff; 4][..]).unwrap();
        assert!(buffer.next_frame().is_err());
    }
}
