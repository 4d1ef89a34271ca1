//! One connection of the load: requests of its groups in flight, in order.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::net::{Link, Poller};
use crate::shared::{CONNECT_TIMEOUT, RECONNECT_PAUSE, connection_error};

/// Answers are small; a burst of them is read at once.
const RECEIVE_CAPACITY: usize = 4 * 1024;

/// What a request in flight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A commit of this offset.
    Commit(i64),
    /// A heartbeat.
    Heartbeat,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Flight {
    correlation: i32,
    pub(super) group: usize,
    pub(super) due: Instant,
    pub(super) kind: Kind,
}

/// A connection to a coordinator.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    token: usize,
    link: Option<Link>,
    in_flight: VecDeque<Flight>,
    correlation: i32,
    retry_at: Instant,
}

impl Connection {
    pub(super) fn new(address: String, token: usize) -> Self {
        Self {
            address,
            token,
            link: None,
            in_flight: VecDeque::new(),
            correlation: 0,
            retry_at: Instant::now(),
        }
    }

    /// Whether it is to be connected now.
    pub(super) fn wants_link(&self, now: Instant) -> bool {
        self.link.is_none() && now >= self.retry_at
    }

    /// Connects; the error is a name for the tables.
    pub(super) fn connect(&mut self, poller: &Poller) -> Result<(), String> {
        let link = Link::connect(
            &self.address,
            CONNECT_TIMEOUT,
            poller,
            self.token,
            RECEIVE_CAPACITY,
        );
        match link {
            Ok(link) => {
                self.link = Some(link);
                Ok(())
            }
            Err(error) => {
                self.retry_at = Instant::now() + RECONNECT_PAUSE;
                Err(connection_error(&error))
            }
        }
    }

    /// Whether another request may be sent.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        self.link.is_some() && self.in_flight.len() < in_flight
    }

    /// Whether answers are outstanding.
    pub(super) fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Sends what `encode` makes of a new correlation id. The error is a name for the tables.
    pub(super) fn send(
        &mut self,
        group: usize,
        due: Instant,
        kind: Kind,
        encode: impl FnOnce(i32) -> Result<BytesMut, String>,
    ) -> Result<(), String> {
        let Some(link) = &mut self.link else {
            return Err("NOT_CONNECTED".into());
        };
        self.correlation = self.correlation.wrapping_add(1);
        link.send
            .bytes
            .extend_from_slice(&encode(self.correlation)?);
        self.in_flight.push_back(Flight {
            correlation: self.correlation,
            group,
            due,
            kind,
        });
        link.flush(None).map_err(|error| connection_error(&error))?;
        Ok(())
    }

    /// The socket has news: sends what waits, hands every answer to `each`. The error is a name for the tables.
    pub(super) fn on_ready(
        &mut self,
        mut each: impl FnMut(Flight, Bytes) -> Result<(), String>,
    ) -> Result<(), String> {
        let name = |error: io::Error| connection_error(&error);
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        link.flush(None).map_err(name)?;
        loop {
            let Some(more) = link.fill().map_err(name)? else {
                return Ok(());
            };
            while let Some(place) = link.receive.next_frame().map_err(name)? {
                let frame = Bytes::copy_from_slice(link.receive.frame(place));
                let flight = self
                    .in_flight
                    .pop_front()
                    .filter(|flight| frame.starts_with(&flight.correlation.to_be_bytes()))
                    .ok_or("PROTOCOL_VIOLATION (answer out of turn)")?;
                each(flight, frame)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Gives the connection up. Returns what was in flight.
    pub(super) fn fail(&mut self) -> Vec<Flight> {
        self.link = None;
        self.retry_at = Instant::now() + RECONNECT_PAUSE;
        self.in_flight.drain(..).collect()
    }
}
