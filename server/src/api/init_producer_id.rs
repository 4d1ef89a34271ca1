//! InitProducerId: producers that are idempotent but not transactional each get an id no producer ever had; transactional
//! ones are the coordinator's.

use kafka_wire::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_engine::shard::Cx;

use super::{Request, txn};
use crate::app::{Env, Server};
use crate::message;
use crate::wire::{Malformed, error};

/// Bits of an id that count within one run and shard: 2^26 producers.
const COUNT_BITS: u32 = 26;
/// Bits of an id that name the shard.
const SHARD_BITS: u32 = 10;

/// Hands out ids: 0, 27 bits of the run, 10 of the shard, 26 of a counter. Unique for ever, because a run's number
/// never comes back, and without a write to disk.
#[derive(Debug)]
pub(crate) struct State {
    prefix: i64,
    next: i64,
}

impl State {
    pub(crate) fn new(env: &Env) -> Self {
        let run = i64::from(env.run.run) & ((1 << (63 - COUNT_BITS - SHARD_BITS)) - 1);
        let shard = i64::from(env.shard) & ((1 << SHARD_BITS) - 1);
        Self {
            prefix: (run << SHARD_BITS | shard) << COUNT_BITS,
            next: 0,
        }
    }

    /// `None` when this run and shard have no more.
    pub(crate) fn next(&mut self) -> Option<i64> {
        (self.next < 1 << COUNT_BITS).then(|| {
            self.next += 1;
            self.prefix | (self.next - 1)
        })
    }
}

pub(crate) fn handle(
    server: &mut Server,
    cx: &mut Cx<'_>,
    request: &Request<'_>,
) -> Result<(), Malformed> {
    let body: InitProducerIdRequest = request.decode()?;
    let refused = |code| {
        message!(InitProducerIdResponse {
            error_code: code,
            producer_id: -1,
            producer_epoch: -1,
        })
    };
    if body.transactional_id.is_some() {
        return txn::handle(server, cx, request);
    }
    let response = match server.producer_ids.next() {
        Some(id) => message!(InitProducerIdResponse {
            producer_id: id,
            producer_epoch: 0,
        }),
        None => refused(error::UNKNOWN_SERVER_ERROR),
    };
    server.conns.reply(request.token, &response);
    Ok(())
}
