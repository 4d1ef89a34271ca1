//! Questions of this shard to coordinators: may this producer write to these partitions in its transaction? A partition that
//! knows the transaction already needs no answer.

use hashbrown::HashMap;
use kafka_wire::TxnOffsetCommitRequest;
use ringlog_engine::id::Part;
use ringlog_engine::shard::{ConnId, Cx};

use super::{TxnMail, coordinator_of, post};
use crate::app::Server;
use crate::conn::Token;
use crate::txn::{Add, Origin};
use crate::wire::error;

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A connection whose Produce request is parked, and the partitions it is about.
    Produce { conn: ConnId, parts: Vec<Part> },
    /// A TxnOffsetCommit request.
    Commit {
        token: Token,
        version: i16,
        client_id: String,
        request: Box<TxnOffsetCommitRequest>,
    },
}

/// Questions without an answer.
#[derive(Debug, Default)]
pub(super) struct Asks {
    next: u64,
    table: HashMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    add: Add,
    /// A marker came in between: the answer may be of the transaction that it ended.
    stale: bool,
}

impl Asks {
    /// A transaction was decided in a partition.
    pub(super) fn decided(&mut self, part: Part, producer_id: i64) {
        for asked in self.table.values_mut() {
            if let Ask::Produce { parts, .. } = &asked.ask
                && asked.add.producer_id == producer_id
                && parts.contains(&part)
            {
                asked.stale = true;
            }
        }
    }
}

/// Asks the coordinator of a transaction; the origin in `add` is set here.
pub(crate) fn ask(server: &mut Server, mut add: Add, ask: Ask) {
    let asks = &mut server.txn.asks;
    asks.next += 1;
    let id = asks.next;
    add.origin = Origin::Shard {
        shard: server.env.shard,
        id,
    };
    let asked = Asked {
        ask,
        add: add.clone(),
        stale: false,
    };
    asks.table.insert(id, asked);
    let mail = match coordinator_of(server, &add.transactional_id) {
        Some(shard) => (shard, TxnMail::Add(add)),
        None => {
            let results = vec![error::COORDINATOR_NOT_AVAILABLE; add.partitions.len()];
            (server.env.shard, TxnMail::Answer { id, results })
        }
    };
    post(server, mail.0, mail.1);
}

pub(super) fn answered(server: &mut Server, cx: &mut Cx<'_>, id: u64, results: Vec<i16>) {
    let Some(asked) = server.txn.asks.table.remove(&id) else {
        return;
    };
    if asked.stale {
        // Of the ended transaction, or of the next one, whose producer need not wait for markers: asked again, the
        // coordinator knows.
        return ask(server, asked.add, asked.ask);
    }
    match asked.ask {
        Ask::Produce { conn, .. } => crate::api::produce::verified(server, cx, conn, results),
        Ask::Commit {
            token,
            version,
            client_id,
            request,
        } => {
            let code = results.first().copied().unwrap_or(error::NONE);
            let call = (token, version, client_id.as_str());
            crate::api::groups::commit_in_transaction(server, cx, call, &request, code);
        }
    }
}
