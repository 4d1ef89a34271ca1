//! The ways of a file's bytes to a socket. Each sends whole slices and counts the system calls it makes.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ringlog_engine::buf::{AlignedBuf, BLOCK};
use rustix::fs::sendfile;
use rustix::pipe::{fcntl_setpipe_size, pipe};
use serde::{Deserialize, Serialize};

use super::super::mapping::Mapping;
use super::super::ring_net::NetRing;
use crate::disk::files::buffers;
use crate::uring::Ring;

/// Reads or sends under way where a path has several.
const DEPTH: usize = 4;

/// The largest pipe that Linux lets everybody have, unless set otherwise (fs.pipe-max-size).
const PIPE_BYTES: usize = 1 << 20;

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// pread(2) into a buffer, send(2) from it.
    ReadSend,
    /// The same, and every byte is looked at in between: a checksum over it, the least that a filter must do.
    InspectSend,
    /// mmap(2) the slice, send(2) from the mapping, munmap(2).
    MmapSend,
    /// send(2) from one mapping of the whole file that stays.
    MappedSend,
    /// sendfile(2).
    Sendfile,
    /// splice through the ring: file to pipe, pipe to socket, linked.
    Splice,
    /// O_DIRECT reads through the ring, four ahead, send(2).
    DirectSend,
    /// pread(2) into buffers, send_zc through the ring, four under way.
    SendZc,
    /// From memory, without a file: send(2) from it.
    MemorySend,
    /// From memory that is a file of its own (memfd_create(2)): sendfile(2), its pages lent to the socket.
    MemorySendfile,
}

impl Path {
    /// Whether the bytes lie in memory to begin with, and no file is read.
    #[must_use]
    pub fn from_memory(self) -> bool {
        matches!(self, Self::MemorySend | Self::MemorySendfile)
    }
}

/// Opens a way; `file` is the file, or the memory for a path that sends from it, `direct` the file past the page cache, and `chunk`
/// the most that one call moves.
pub(super) fn open(
    path: Path,
    file: &Arc<File>,
    direct: &Arc<File>,
    chunk: usize,
) -> io::Result<Box<dyn Way>> {
    Ok(match path {
        Path::ReadSend | Path::InspectSend => Box::new(ReadSend {
            file: Arc::clone(file),
            buffer: vec![0; chunk],
            inspects: path == Path::InspectSend,
        }),
        Path::MmapSend => Box::new(MmapSend {
            file: Arc::clone(file),
            chunk,
        }),
        Path::MappedSend | Path::MemorySend => Box::new(MappedSend {
            mapping: Mapping::of(file).map_err(io::Error::other)?,
            chunk,
        }),
        Path::Sendfile | Path::MemorySendfile => Box::new(Sendfile {
            file: Arc::clone(file),
            chunk,
        }),
        Path::Splice => {
            let (read, write) = pipe()?;
            // Whole chunks fit, if the system allows pipes so large: otherwise chunks are those that fit.
            let held = [chunk.max(BLOCK), PIPE_BYTES]
                .into_iter()
                .find_map(|bytes| fcntl_setpipe_size(&write, bytes).ok())
                .unwrap_or(64 << 10);
            Box::new(Splice {
                file: Arc::clone(file),
                pipe: (read, write),
                ring: NetRing::new(2)?,
                chunk: chunk.min(held),
            })
        }
        Path::DirectSend => Box::new(DirectSend {
            file: Arc::clone(direct),
            ring: Ring::new(DEPTH)?,
            buffers: buffers(DEPTH, chunk),
            chunk,
        }),
        Path::SendZc => Box::new(SendZc {
            file: Arc::clone(file),
            ring: NetRing::new(DEPTH)?,
            buffers: (0..DEPTH).map(|_| AlignedBuf::zeroed(chunk)).collect(),
            chunk,
        }),
    })
}

/// Sends slices of a file; returns the system calls made.
pub(super) trait Way {
    /// Sends `len` bytes from `offset`, which is a multiple of the page size.
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64>;

    /// Waits until nothing is under way.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends all of `bytes`.
fn send_all(mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<u64> {
    let mut calls = 0;
    while !bytes.is_empty() {
        calls += 1;
        match to.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(calls)
}

struct ReadSend {
    file: Arc<File>,
    buffer: Vec<u8>,
    inspects: bool,
}

impl Way for ReadSend {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let (mut done, mut calls) = (0, 0);
        while done < len {
            let piece = self.buffer.len().min(len - done);
            let read = self
                .file
                .read_at(&mut self.buffer[..piece], offset + done as u64)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.inspects {
                std::hint::black_box(crc32fast::hash(&self.buffer[..read]));
            }
            calls += 1 + send_all(to, &self.buffer[..read])?;
            done += read;
        }
        Ok(calls)
    }
}

struct MmapSend {
    file: Arc<File>,
    chunk: usize,
}

impl Way for MmapSend {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let mapping = Mapping::slice(&self.file, offset, len).map_err(io::Error::other)?;
        // Mapping and unmapping are two.
        let mut calls = 2;
        for piece in mapping.chunks(self.chunk) {
            calls += send_all(to, piece)?;
        }
        Ok(calls)
    }
}

struct MappedSend {
    mapping: Mapping,
    chunk: usize,
}

impl Way for MappedSend {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let start = offset as usize;
        let slice = self
            .mapping
            .get(start..start + len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut calls = 0;
        for piece in slice.chunks(self.chunk) {
            calls += send_all(to, piece)?;
        }
        Ok(calls)
    }
}

struct Sendfile {
    file: Arc<File>,
    chunk: usize,
}

impl Way for Sendfile {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let (mut at, end) = (offset, offset + len as u64);
        let mut calls = 0;
        while at < end {
            let piece = self.chunk.min((end - at) as usize);
            calls += 1;
            match sendfile(to, &*self.file, Some(&mut at), piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(calls)
    }
}

struct Splice {
    file: Arc<File>,
    pipe: (OwnedFd, OwnedFd),
    ring: NetRing,
    chunk: usize,
}

impl Way for Splice {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let before = self.ring.enters();
        let mut done = 0;
        while done < len {
            let piece = self.chunk.min(len - done);
            let at = offset + done as u64;
            done += self.ring.splice(&self.file, at, &self.pipe, to, piece)?;
        }
        Ok(self.ring.enters() - before)
    }
}

struct DirectSend {
    file: Arc<File>,
    ring: Ring,
    buffers: Vec<AlignedBuf>,
    chunk: usize,
}

impl Way for DirectSend {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let pieces = len.div_ceil(self.chunk);
        let mut arrived: Vec<Option<AlignedBuf>> = (0..pieces).map(|_| None).collect();
        let (mut asked, mut sent, mut calls) = (0, 0, 0);
        while sent < pieces {
            while asked < pieces
                && self.ring.has_room()
                && let Some(mut buffer) = self.buffers.pop()
            {
                // Whole blocks: the last piece reads up to a block more than it sends.
                let wanted = self.chunk.min(len - asked * self.chunk);
                if wanted.next_multiple_of(BLOCK) < buffer.capacity() {
                    buffer = AlignedBuf::with_capacity(wanted.next_multiple_of(BLOCK));
                }
                let at = offset + (asked * self.chunk) as u64;
                self.ring.read(&self.file, at, buffer, asked as u64);
                asked += 1;
            }
            if arrived[sent].is_none() {
                self.ring.wait()?;
                calls += 1;
                while let Some(done) = self.ring.next_done() {
                    done.result?;
                    arrived[done.tag as usize] = Some(done.buf);
                }
            }
            while sent < pieces
                && let Some(buffer) = arrived[sent].take()
            {
                let wanted = self.chunk.min(len - sent * self.chunk);
                let bytes = buffer.get(..wanted).ok_or(io::ErrorKind::UnexpectedEof)?;
                calls += send_all(to, bytes)?;
                let full = buffer.capacity() >= self.chunk;
                self.buffers.push(if full {
                    buffer
                } else {
                    AlignedBuf::with_capacity(self.chunk)
                });
                sent += 1;
            }
        }
        Ok(calls)
    }
}

struct SendZc {
    file: Arc<File>,
    ring: NetRing,
    buffers: Vec<AlignedBuf>,
    chunk: usize,
}

impl Way for SendZc {
    fn send(&mut self, to: &TcpStream, offset: u64, len: usize) -> io::Result<u64> {
        let before = self.ring.enters();
        let (mut done, mut calls) = (0, 0);
        while done < len {
            let Some(mut buffer) = self.buffers.pop() else {
                self.ring.wait_for_buffer(&mut self.buffers)?;
                continue;
            };
            let piece = self.chunk.min(len - done);
            buffer.set_len(self.chunk);
            self.file
                .read_exact_at(&mut buffer[..piece], offset + done as u64)?;
            calls += 1;
            buffer.set_len(piece);
            self.ring.send_zc(to, buffer)?;
            done += piece;
        }
        Ok(calls + self.ring.enters() - before)
    }

    fn settle(&mut self) -> io::Result<()> {
        while self.buffers.len() < DEPTH {
            self.ring.wait_for_buffer(&mut self.buffers)?;
        }
        Ok(())
    }
}
