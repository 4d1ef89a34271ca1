//! DescribeTransactions and ListTransactions.

use kafka_wire::describe_transactions_response::{TopicData, TransactionState as Described};
use kafka_wire::list_transactions_response::TransactionState as Listed;
use kafka_wire::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse,
};
use ringlog_engine::id::Now;

use crate::conn::Token;
use crate::message;
use crate::wire::{StrBytes, error};

use super::coordinator::{Coordinator, Response};
use super::transaction::TxnState;

/// Names that Kafka's clients may filter by besides those of [`TxnState`]; nothing is ever in them here.
const OTHER_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

impl Coordinator {
    /// DescribeTransactions, version 0.
    pub fn describe(&mut self, token: Token, request: &DescribeTransactionsRequest) {
        let states = request.transactional_ids.iter();
        let response = message!(DescribeTransactionsResponse {
            transaction_states: states.map(|id| self.described(id)).collect(),
        });
        self.respond(token, Response::Describe(response));
    }

    fn described(&self, id: &StrBytes) -> Described {
        let found = self.admit(id).and_then(|_| {
            let found = self.transactions.get(id).filter(|t| t.value.epoch >= 0);
            found.ok_or(error::TRANSACTIONAL_ID_NOT_FOUND)
        });
        let value = match found {
            Ok(transaction) => &transaction.value,
            Err(code) => {
                return message!(Described {
                    transactional_id: id.clone(),
                    error_code: code,
                });
            }
        };
        let topic = |(name, partitions): (&StrBytes, &std::collections::BTreeSet<i32>)| {
            message!(TopicData {
                topic: name.clone(),
                partitions: partitions.iter().copied().collect(),
            })
        };
        message!(Described {
            transactional_id: id.clone(),
            transaction_state: value.state.name().into(),
            transaction_timeout_ms: value.timeout_ms,
            transaction_start_time_ms: value.started_ms,
            producer_id: value.producer_id,
            producer_epoch: value.epoch,
            topics: value.partitions.iter().map(topic).collect(),
        })
    }

    /// ListTransactions, versions 0 and 1.
    pub fn list(&mut self, now: Now, token: Token, request: &ListTransactionsRequest) {
        if self.owned.is_loading() {
            let response = message!(ListTransactionsResponse {
                error_code: error::COORDINATOR_LOAD_IN_PROGRESS,
            });
            return self.respond(token, Response::List(response));
        }
        let known = |name: &str| {
            TxnState::ALL.iter().any(|state| state.name() == name) || OTHER_STATES.contains(&name)
        };
        let states = &request.state_filters;
        let unknown = states.iter().filter(|name| !known(name)).cloned().collect();
        let wanted = self.transactions.iter().filter(|(_, transaction)| {
            let value = &transaction.value;
            let (ids, duration_ms) = (&request.producer_id_filters, request.duration_filter);
            value.epoch >= 0
                && (states.is_empty() || states.iter().any(|name| **name == *value.state.name()))
                && (ids.is_empty() || ids.contains(&value.producer_id))
                && (duration_ms < 0
                    || value.started_ms >= 0
                        && now.wall_ms.saturating_sub(value.started_ms) > duration_ms)
        });
        let listed = |(id, transaction): (&StrBytes, &super::transaction::Transaction)| {
            message!(Listed {
                transactional_id: id.clone(),
                producer_id: transaction.value.producer_id,
                transaction_state: transaction.value.state.name().into(),
            })
        };
        let response = message!(ListTransactionsResponse {
            unknown_state_filters: unknown,
            transaction_states: wanted.map(listed).collect(),
        });
        self.respond(token, Response::List(response));
    }
}
