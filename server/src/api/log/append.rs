//! A coordinator's batches, into the log and until they are durable.

use std::collections::VecDeque;

use ringlog_engine::core::AppendError;
use ringlog_engine::id::FrameSeq;
use ringlog_engine::shard::Cx;

use super::Logged;
use crate::catalog::Snapshot;
use crate::groups::{Append, AppendFailure, AppendId};

/// Batches on their way.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// Waits for room in the journal; those behind it stay with the coordinator.
    waiting: Option<Append>,
    /// In the journal, by the frame that makes them durable.
    in_flight: VecDeque<(FrameSeq, AppendId)>,
}

impl Appends {
    /// Reports what became durable.
    pub(crate) fn durable<C: Logged>(&mut self, cx: &mut Cx<'_>, coordinator: &mut C) {
        let durable = cx.core.durable();
        while let Some(&(frame, id)) = self.in_flight.front()
            && frame <= durable
        {
            self.in_flight.pop_front();
            coordinator.appended(cx.now, id, Ok(()));
        }
    }

    /// Appends what the coordinator has to write, as far as the journal has room.
    pub(crate) fn send<C: Logged>(
        &mut self,
        cx: &mut Cx<'_>,
        catalog: &Snapshot,
        coordinator: &mut C,
    ) {
        loop {
            let waiting = self.waiting.take();
            let Some(append) = waiting.or_else(|| coordinator.next_append(cx.now)) else {
                return;
            };
            let topic = catalog.topic(C::TOPIC);
            let key = topic.and_then(|topic| topic.key(append.partition));
            let result = match key.and_then(|key| cx.core.lookup(key)) {
                Some(part) => cx.core.append_internal(cx.now, part, &append.batch),
                None => Err(AppendError::UnknownPartition),
            };
            let failure = match result {
                Ok(appended) => {
                    self.in_flight.push_back((appended.frame, append.id));
                    continue;
                }
                Err(AppendError::Busy) => {
                    // Tried again each turn; room comes with a turn.
                    self.waiting = Some(append);
                    return;
                }
                Err(AppendError::UnknownPartition | AppendError::Closed) => AppendFailure::NotOwner,
                Err(AppendError::StorageFull) => AppendFailure::Unavailable,
                Err(AppendError::TooLarge { .. }) => AppendFailure::TooLarge,
                Err(AppendError::ProducerFenced { .. }) => AppendFailure::Fenced,
                Err(other) => {
                    let (topic, partition) = (C::TOPIC, append.partition);
                    tracing::error!(topic, partition, error = %other, "the log refused a batch of a coordinator");
                    AppendFailure::Unavailable
                }
            };
            coordinator.appended(cx.now, append.id, Err(failure));
        }
    }
}
