//! Reading acks and counting them.

use std::time::Instant;

use super::connection::Context;
use super::request::{Flight, FlightPart, records_of};
use crate::protocol::Malformed;
use crate::protocol::error_code;
use crate::protocol::produce::{Ack, Format};

/// Counts a request that was answered.
pub(super) fn complete(context: &mut Context, flight: &Flight, now: Instant) {
    let latency = now.saturating_duration_since(flight.intended);
    let counts = &mut context.counter.counts;
    counts.latency.saturating_record(latency.as_nanos() as u64);
    counts.requests += 1;
}

/// Counts a batch that was acked, without its place in the log.
pub(super) fn count_batch(context: &mut Context, part: &FlightPart) {
    let template = &context.ring.templates[part.template as usize];
    let counts = &mut context.counter.counts;
    counts.batches += 1;
    counts.records += u64::from(template.records);
    counts.batch_bytes += u64::from(part.batch_len);
    counts.value_bytes += template.value_bytes;
}

/// Counts a batch that was acked, or committed, at this offset.
pub(super) fn accept(context: &mut Context, slot: usize, part: &FlightPart, base_offset: i64) {
    count_batch(context, part);
    let records = context.ring.templates[part.template as usize].records;
    if let Some(log) = &mut context.ack_log {
        let (partition, first) = (&part.partition, part.first_sequence);
        log.note(partition, slot, base_offset, first, records);
    }
}

/// Counts a batch that was refused.
pub(super) fn refuse(context: &mut Context, part: &FlightPart, error: i16) {
    context.wants_metadata |= error_code::wants_metadata(error);
    context.unacked_records += records_of(context, &[*part]);
    context.counter.counts.error(error_code::name(error));
}

/// Reads one answer; `each` gets every batch of the request that it speaks of. Returns whether it speaks of all.
pub(super) fn read(
    context: &mut Context,
    format: Format,
    flight: &Flight,
    body: &[u8],
    mut each: impl FnMut(&mut Context, &FlightPart, Ack<'_>),
) -> Result<bool, Malformed> {
    let mut answered = 0;
    let mut astray = false;
    complete(context, flight, Instant::now());
    format.read_response(body, |ack| {
        // Brokers mostly keep the request's order, but need not.
        let topics = &context.topics;
        let is_it = |part: &&FlightPart| {
            let topic = &topics[part.partition.topic as usize];
            part.partition.index == ack.partition && topic.as_bytes() == ack.topic
        };
        let guess = flight.parts.get(answered).filter(is_it);
        let Some(part) = guess.or_else(|| flight.parts.iter().find(is_it)) else {
            astray = true;
            return;
        };
        answered += 1;
        each(context, part, ack);
    })?;
    if astray {
        return Err(Malformed("ack of a partition that was not asked for"));
    }
    for _ in answered..flight.parts.len() {
        context.counter.counts.error("PARTITION_UNANSWERED");
    }
    Ok(answered >= flight.parts.len())
}
