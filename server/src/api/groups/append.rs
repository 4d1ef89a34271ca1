//! The coordinator's batches, into the log and until they are durable.

use std::collections::VecDeque;

use ringlog_engine::core::AppendError;
use ringlog_engine::id::FrameSeq;
use ringlog_engine::shard::Cx;

use crate::app::Server;
use crate::groups::{Append, AppendFailure, AppendId, OFFSETS_TOPIC};

/// Batches on their way.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// Waits for room in the journal; those behind it stay with the coordinator.
    waiting: Option<Append>,
    /// In the journal, by the frame that makes them durable.
    in_flight: VecDeque<(FrameSeq, AppendId)>,
}

/// Reports what became durable.
pub(super) fn durable(server: &mut Server, cx: &mut Cx<'_>) {
    let durable = cx.core.durable();
    let groups = &mut server.groups;
    while let Some(&(frame, id)) = groups.appends.in_flight.front()
        && frame <= durable
    {
        groups.appends.in_flight.pop_front();
        groups.coordinator.appended(cx.now, id, Ok(()));
    }
}

/// Appends what the coordinator has to write, as far as the journal has room.
pub(super) fn send(server: &mut Server, cx: &mut Cx<'_>) {
    loop {
        let groups = &mut server.groups;
        let waiting = groups.appends.waiting.take();
        let Some(append) = waiting.or_else(|| groups.coordinator.next_append(cx.now)) else {
            return;
        };
        let topic = server.catalog.topic(OFFSETS_TOPIC);
        let key = topic.and_then(|topic| topic.key(append.partition));
        let result = match key.and_then(|key| cx.core.lookup(key)) {
            Some(part) => cx.core.append_internal(cx.now, part, &append.batch),
            None => Err(AppendError::UnknownPartition),
        };
        let failure = match result {
            Ok(appended) => {
                let in_flight = (appended.frame, append.id);
                groups.appends.in_flight.push_back(in_flight);
                continue;
            }
            Err(AppendError::Busy) => {
                // Tried again each turn; room comes with a turn.
                groups.appends.waiting = Some(append);
                return;
            }
            Err(AppendError::UnknownPartition | AppendError::Closed) => AppendFailure::NotOwner,
            Err(AppendError::StorageFull) => AppendFailure::Unavailable,
            Err(AppendError::TooLarge { .. }) => AppendFailure::TooLarge,
            Err(other) => {
                let partition = append.partition;
                tracing::error!(partition, error = %other, "the log refused a batch of the group coordinator");
                AppendFailure::Unavailable
            }
        };
        groups.coordinator.appended(cx.now, append.id, Err(failure));
    }
}
