//! The network as the application sees it: a queue of commands for the driver.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::buf::Slice;
use crate::core::FileSpan;

/// One connection of a shard; never reused in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Bytes to send. A connection's pieces leave in the order they were queued.
#[derive(Debug)]
pub enum SendData {
    /// Encoded by the application.
    Bytes(Bytes),
    /// Shared with the log's memory.
    Slice(Slice),
    /// Straight from a segment file, by `sendfile` or `splice`. A failure closes the connection: the response's
    /// length is already out.
    Span(FileSpan),
}

impl SendData {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Slice(slice) => slice.len(),
            Self::Span(span) => span.len,
        }
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the driver is to do with a connection.
#[derive(Debug)]
pub enum NetCommand {
    /// Queue bytes for sending.
    Send {
        /// The connection.
        conn: ConnId,
        /// What.
        data: SendData,
    },
    /// Close after everything queued has been sent.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Close at once, dropping what is queued.
    Abort {
        /// The connection.
        conn: ConnId,
    },
    /// Do not receive from the connection until [`NetCommand::Resume`]. Data already received may still arrive.
    Pause {
        /// The connection.
        conn: ConnId,
    },
    /// Receive again.
    Resume {
        /// The connection.
        conn: ConnId,
    },
    /// Receive the next `len` bytes straight into `buf`, behind what it holds, instead of through
    /// [`App::on_data`](super::App::on_data); its spare capacity is at least `len`. Given back through
    /// [`App::on_filled`](super::App::on_filled) when all are there. Issued only from within `on_data` or
    /// `on_filled` of the same connection, when no received byte is left unconsumed.
    Fill {
        /// The connection.
        conn: ConnId,
        /// Where they go.
        buf: BytesMut,
        /// Bytes.
        len: usize,
    },
}

/// The application's side of the network.
#[derive(Debug, Default)]
pub struct Net {
    commands: VecDeque<NetCommand>,
}

impl Net {
    /// Queues `data` to `conn`; empty data is dropped.
    pub fn send(&mut self, conn: ConnId, data: SendData) {
        if !data.is_empty() {
            self.commands.push_back(NetCommand::Send { conn, data });
        }
    }

    /// Closes `conn` once everything queued is sent.
    pub fn close(&mut self, conn: ConnId) {
        self.commands.push_back(NetCommand::Close { conn });
    }

    /// Closes `conn` at once.
    pub fn abort(&mut self, conn: ConnId) {
        self.commands.push_back(NetCommand::Abort { conn });
    }

    /// Stops receiving from `conn`.
    pub fn pause(&mut self, conn: ConnId) {
        self.commands.push_back(NetCommand::Pause { conn });
    }

    /// Receives from `conn` again.
    pub fn resume(&mut self, conn: ConnId) {
        self.commands.push_back(NetCommand::Resume { conn });
    }

    /// Receives the next `len` bytes of `conn` straight into `buf`; see [`NetCommand::Fill`].
    pub fn fill(&mut self, conn: ConnId, buf: BytesMut, len: usize) {
        debug_assert!(buf.capacity() - buf.len() >= len && len > 0);
        self.commands.push_back(NetCommand::Fill { conn, buf, len });
    }

    /// The next command, for the driver.
    pub fn next_command(&mut self) -> Option<NetCommand> {
        self.commands.pop_front()
    }
}
