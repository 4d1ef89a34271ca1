//! What a driver needs of a shard, so that drivers can be tested with scripts in its place.

use std::net::SocketAddr;

use bytes::BytesMut;

use crate::buf::BufPool;
use crate::core::Fatal;
use crate::disk::{Completion, Op};
use crate::id::Now;

use super::{App, CloseReason, ConnId, NetCommand, Shard};

/// The methods of [`Shard`] that drivers call; see there.
#[allow(clippy::missing_docs_in_private_items)]
pub(crate) trait Driven {
    type Mail: Send + 'static;

    fn accepted(&mut self, now: Now, conn: ConnId, peer: SocketAddr);
    fn received(&mut self, now: Now, conn: ConnId, data: &[u8]);
    fn filled(&mut self, now: Now, conn: ConnId, buf: BytesMut);
    fn sent(&mut self, now: Now, conn: ConnId, bytes: usize);
    fn closed(&mut self, now: Now, conn: ConnId, reason: CloseReason);
    fn mail(&mut self, now: Now, mail: Self::Mail);
    fn completed(&mut self, now: Now, completion: Completion);
    fn shutdown(&mut self, now: Now);
    fn turn(&mut self, now: Now);
    fn next_op(&mut self) -> Option<Op>;
    fn next_command(&mut self) -> Option<NetCommand>;
    fn deadline_ns(&self) -> Option<u64>;
    fn gathers(&self) -> bool;
    fn fatal(&self) -> Option<Fatal>;
    fn is_finished(&self) -> bool;
    fn memory(&self) -> &BufPool;
}

impl<A: App> Driven for Shard<A> {
    type Mail = A::Mail;

    fn accepted(&mut self, now: Now, conn: ConnId, peer: SocketAddr) {
        Self::accepted(self, now, conn, peer);
    }
    fn received(&mut self, now: Now, conn: ConnId, data: &[u8]) {
        Self::received(self, now, conn, data);
    }
    fn filled(&mut self, now: Now, conn: ConnId, buf: BytesMut) {
        Self::filled(self, now, conn, buf);
    }
    fn sent(&mut self, now: Now, conn: ConnId, bytes: usize) {
        Self::sent(self, now, conn, bytes);
    }
    fn closed(&mut self, now: Now, conn: ConnId, reason: CloseReason) {
        Self::closed(self, now, conn, reason);
    }
    fn mail(&mut self, now: Now, mail: Self::Mail) {
        Self::mail(self, now, mail);
    }
    fn completed(&mut self, now: Now, completion: Completion) {
        Self::completed(self, now, completion);
    }
    fn shutdown(&mut self, now: Now) {
        Self::shutdown(self, now);
    }
    fn turn(&mut self, now: Now) {
        Self::turn(self, now);
    }
    fn next_op(&mut self) -> Option<Op> {
        Self::next_op(self)
    }
    fn next_command(&mut self) -> Option<NetCommand> {
        Self::next_command(self)
    }
    fn deadline_ns(&self) -> Option<u64> {
        Self::deadline_ns(self)
    }
    fn gathers(&self) -> bool {
        Self::gathers(self)
    }
    fn fatal(&self) -> Option<Fatal> {
        Self::fatal(self)
    }
    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }
    fn memory(&self) -> &BufPool {
        Self::memory(self)
    }
}
