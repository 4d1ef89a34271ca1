//! Produce requests: which batches are next, and their bytes.

use std::time::Instant;

use smallvec::SmallVec;

use super::connection::Context;
use crate::cluster::{Cluster, Partition};
use crate::net::{INLINE_BODY_LEN_MAX, Link};
use crate::protocol::produce::{self, Format, Front};
use crate::template::{Send, StampBatch};

/// What a connection has sent to a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stream {
    pub(super) sequence: u64,
    /// Sequence at which the present producer id and epoch began.
    producer_start: u64,
    /// Which [`Identity`] that was.
    identity: u32,
    pub(super) template: u32,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlightPart {
    /// In [`Cluster::partitions`].
    pub(super) place: u32,
    pub(super) partition: Partition,
    pub(super) template: u32,
    /// Length of the batch in bytes, as sent.
    pub(super) batch_len: u32,
    pub(super) first_sequence: u64,
}

pub(super) type Parts = SmallVec<[FlightPart; 1]>;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) correlation: i32,
    pub(super) intended: Instant,
    pub(super) parts: Parts,
}

/// Who a connection is to brokers.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Producer id and epoch, -1 for none.
    pub(super) producer: (i64, i16),
    /// Rises with every new one: sequences begin anew.
    number: u32,
    /// Of a transactional producer.
    pub(super) transactional_id: Option<String>,
    /// Layout of its requests.
    pub(super) format: Format,
}

impl Identity {
    pub(super) fn new(transactional_id: Option<String>, format: Format) -> Self {
        Self {
            producer: (-1, -1),
            number: 0,
            transactional_id,
            format,
        }
    }

    pub(super) fn renew(&mut self, producer: (i64, i16)) {
        self.producer = producer;
        self.number = self.number.wrapping_add(1);
    }
}

/// Takes the next batch of each of these partitions.
pub(super) fn next_parts(
    context: &Context,
    streams: &mut [Stream],
    identity: &Identity,
    members: &[(u32, Partition)],
) -> Parts {
    let templates = &context.ring.templates;
    let next = |&(place, partition): &(u32, Partition)| {
        let stream = &mut streams[place as usize];
        if stream.identity != identity.number {
            stream.identity = identity.number;
            stream.producer_start = stream.sequence;
        }
        let part = FlightPart {
            place,
            partition,
            template: stream.template,
            batch_len: 0,
            first_sequence: stream.sequence,
        };
        stream.sequence += u64::from(templates[part.template as usize].records);
        stream.template = (stream.template + 1) % templates.len() as u32;
        part
    };
    members.iter().map(next).collect()
}

/// Number of records in batches.
pub(super) fn records_of(context: &Context, parts: &[FlightPart]) -> u64 {
    let templates = &context.ring.templates;
    let records = |part: &FlightPart| u64::from(templates[part.template as usize].records);
    parts.iter().map(records).sum()
}

/// Where a request comes from.
pub(super) struct Sender<'a> {
    pub(super) slot: usize,
    pub(super) identity: &'a Identity,
    pub(super) streams: &'a [Stream],
}

impl Sender<'_> {
    /// Queues a request with these batches. The error is a name for the tables.
    pub(super) fn put(
        &self,
        context: &mut Context,
        cluster: &Cluster,
        link: &mut Link,
        flight: &mut Flight,
    ) -> Result<(), String> {
        let format = self.identity.format;
        link.send.claim();
        let start = link.send.bytes.len();
        let parts = &mut flight.parts;
        let front = Front {
            correlation: flight.correlation,
            transactional_id: self.identity.transactional_id.as_deref(),
            acks: context.options.acks,
            timeout_ms: context.options.timeout_ms,
            topics: parts
                .chunk_by(|a, b| a.partition.topic == b.partition.topic)
                .count(),
        };
        let sent_unix_ns = context.clock.unix_ns(flight.intended);
        format.put_front(&mut link.send.bytes, &front);
        let mut elsewhere = 0;
        for topic in parts.chunk_by_mut(|a, b| a.partition.topic == b.partition.topic) {
            let name = cluster.topic_name(&topic[0].partition);
            format.put_topic(&mut link.send.bytes, name, topic.len());
            for part in topic {
                elsewhere += self.put_part(context, link, part, sent_unix_ns)?;
                format.put_tags(&mut link.send.bytes);
            }
            format.put_tags(&mut link.send.bytes);
        }
        format.put_tags(&mut link.send.bytes);
        produce::finish(&mut link.send.bytes, start, elsewhere);
        Ok(())
    }

    /// Queues a batch. Returns how many bytes of it are sent from the template.
    fn put_part(
        &self,
        context: &mut Context,
        link: &mut Link,
        part: &mut FlightPart,
        sent_unix_ns: u64,
    ) -> Result<usize, String> {
        let format = self.identity.format;
        let template = &context.ring.templates[part.template as usize];
        let producer = self.identity.producer;
        let base_sequence = match producer.0 {
            -1 => -1,
            // Sequence numbers of producers go from 0 to i32::MAX and start again.
            _ => {
                let start = self.streams[part.place as usize].producer_start;
                ((part.first_sequence - start) & 0x7fff_ffff) as i32
            }
        };
        let send = Send {
            timestamp_ms: (sent_unix_ns / 1_000_000) as i64,
            producer: (producer.0, producer.1, base_sequence),
            transactional: self.identity.transactional_id.is_some(),
        };
        let out = &mut link.send.bytes;
        if template.is_fixed() {
            part.batch_len = template.batch_len() as u32;
            format.put_partition(out, part.partition.index, template.batch_len());
            template.put_header(out, send);
            if template.body().len() <= INLINE_BODY_LEN_MAX {
                out.extend_from_slice(template.body());
                return Ok(0);
            }
            link.send.push_body(part.template as usize);
            return Ok(template.body().len());
        }
        let stamp = StampBatch {
            run_id: context.run_id,
            stream: self.slot as u32,
            topic: part.partition.topic,
            partition: part.partition.index as u32,
            first_sequence: part.first_sequence,
            sent_unix_ns,
        };
        let batch = &mut context.batch;
        batch.clear();
        template
            .put_filled(
                batch,
                send,
                &stamp,
                context.options.codec,
                &mut context.scratch,
            )
            .map_err(|error| format!("CODEC ({error})"))?;
        part.batch_len = batch.len() as u32;
        format.put_partition(out, part.partition.index, batch.len());
        out.extend_from_slice(batch);
        Ok(0)
    }
}
