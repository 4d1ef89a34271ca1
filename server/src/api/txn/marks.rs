//! Markers: from the coordinator to the shards of a transaction's partitions, into their logs, and the word back when all
//! are durable.

use std::collections::VecDeque;

use hashbrown::HashMap;
use ringlog_engine::batch::Marker;
use ringlog_engine::core::AppendError;
use ringlog_engine::id::{FrameSeq, PartitionKey};
use ringlog_engine::shard::Cx;

use super::write_markers::{self, Answering};
use super::{TxnMail, post};
use crate::app::Server;
use crate::groups::OFFSETS_TOPIC;
use crate::txn::MarkJob;
use crate::wire::error;

/// When markers that the log did not take are tried again, in milliseconds.
const RETRY_MS: u64 = 100;

/// Markers of one transaction for the partitions of one shard.
#[derive(Debug)]
pub struct Mark {
    to: Back,
    producer_id: i64,
    epoch: i16,
    marker: Marker,
    partitions: Vec<PartitionKey>,
    /// Error codes of partitions that are done.
    done: Vec<i16>,
    newest: FrameSeq,
}

/// Who wants to know when markers are durable.
#[derive(Debug)]
pub(super) enum Back {
    /// A coordinator.
    Coordinator { shard: u32, job: u64 },
    /// A WriteTxnMarkers request.
    Request(Answering),
}

impl Mark {
    pub(super) fn new(
        to: Back,
        (producer_id, epoch): (i64, i16),
        marker: Marker,
        partitions: Vec<PartitionKey>,
    ) -> Self {
        Self {
            to,
            producer_id,
            epoch,
            marker,
            done: Vec::with_capacity(partitions.len()),
            partitions,
            newest: FrameSeq(0),
        }
    }
}

/// Markers under way.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Not in the log yet, or not wholly.
    queue: VecDeque<Mark>,
    retry_ns: Option<u64>,
    /// In the log, by their newest frame.
    written: VecDeque<Mark>,
    /// Jobs of this shard's coordinator: shards that have not answered.
    jobs: HashMap<u64, usize>,
}

impl Marks {
    pub(super) fn push(&mut self, mark: Mark) {
        self.queue.push_back(mark);
        self.retry_ns = Some(0);
    }

    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.retry_ns
    }
}

/// Sends a job's markers to the shards of its partitions; deleted ones need none.
pub(super) fn spread(server: &mut Server, cx: &mut Cx<'_>, job: MarkJob) {
    let mut by_shard: HashMap<u32, Vec<PartitionKey>> = HashMap::new();
    for (name, partitions) in &job.partitions {
        let Some(topic) = server.catalog.topic(name) else {
            continue;
        };
        for key in partitions.iter().filter_map(|index| topic.key(*index)) {
            let shard = key.shard(server.env.shards);
            by_shard.entry(shard).or_default().push(key);
        }
    }
    if by_shard.is_empty() {
        server.txn.coordinator.marked(cx.now, job.job);
        return;
    }
    server.txn.marks.jobs.insert(job.job, by_shard.len());
    let marker = Marker {
        committed: job.committed,
        coordinator_epoch: job.coordinator_epoch,
    };
    let shard = server.env.shard;
    for (to, partitions) in by_shard {
        let back = Back::Coordinator {
            shard,
            job: job.job,
        };
        let producer = (job.producer_id, job.epoch);
        let mark = Mark::new(back, producer, marker, partitions);
        post(server, to, TxnMail::Mark(mark));
    }
}

/// A shard's markers are durable.
pub(super) fn marked(server: &mut Server, cx: &mut Cx<'_>, job: u64) {
    if let Some(left) = server.txn.marks.jobs.get_mut(&job) {
        *left -= 1;
        if *left == 0 {
            server.txn.marks.jobs.remove(&job);
            server.txn.coordinator.marked(cx.now, job);
        }
    }
}

/// Appends what waits, as far as the log takes it.
pub(super) fn send(server: &mut Server, cx: &mut Cx<'_>) {
    let retry_ns = server.txn.marks.retry_ns;
    if retry_ns.is_none_or(|at_ns| at_ns > cx.now.mono_ns) {
        return;
    }
    server.txn.marks.retry_ns = None;
    while let Some(mut mark) = server.txn.marks.queue.pop_front() {
        if !append(server, cx, &mut mark) {
            server.txn.marks.queue.push_front(mark);
            server.txn.marks.retry_ns = Some(cx.now.after_ms(RETRY_MS));
            return;
        }
        server.txn.marks.written.push_back(mark);
    }
}

/// Appends the markers; false if the log cannot take all of them now.
fn append(server: &mut Server, cx: &mut Cx<'_>, mark: &mut Mark) -> bool {
    let batch = mark
        .marker
        .batch(mark.producer_id, mark.epoch, cx.now.wall_ms);
    while let Some(&key) = mark.partitions.get(mark.done.len()) {
        let code = match cx.core.lookup(key) {
            None => error::UNKNOWN_TOPIC_OR_PARTITION,
            Some(part) => match cx.core.append_internal(cx.now, part, &batch) {
                Ok(appended) => {
                    mark.newest = mark.newest.max(appended.frame);
                    server.txn.asks.decided(part, mark.producer_id);
                    error::NONE
                }
                Err(AppendError::Busy | AppendError::StorageFull) => return false,
                // The process ends: the next one writes them.
                Err(AppendError::Closed) => return false,
                Err(refusal) => refused(key, mark, refusal),
            },
        };
        mark.done.push(code);
    }
    true
}

fn refused(key: PartitionKey, mark: &Mark, refusal: AppendError) -> i16 {
    let (topic, producer_id) = (key.topic, mark.producer_id);
    tracing::warn!(?topic, partition = key.partition, producer_id, %refusal, "a marker was refused");
    match refusal {
        AppendError::UnknownPartition => error::UNKNOWN_TOPIC_OR_PARTITION,
        AppendError::ProducerFenced { .. } => error::INVALID_PRODUCER_EPOCH,
        AppendError::CoordinatorFenced { .. } => error::TRANSACTION_COORDINATOR_FENCED,
        _ => error::UNKNOWN_SERVER_ERROR,
    }
}

/// Reports markers that became durable: to the group coordinator whose offsets they decide, and to whoever asked.
pub(super) fn durable(server: &mut Server, cx: &mut Cx<'_>) {
    let durable = cx.core.durable();
    while let Some(mark) = server.txn.marks.written.front()
        && mark.newest <= durable
    {
        let Some(mark) = server.txn.marks.written.pop_front() else {
            return;
        };
        let offsets = server.catalog.topic(OFFSETS_TOPIC).map(|topic| topic.id);
        for (key, code) in mark.partitions.iter().zip(&mark.done) {
            if Some(key.topic) == offsets && *code == error::NONE {
                let (id, committed) = (mark.producer_id, mark.marker.committed);
                crate::api::groups::decided(server, cx, key.partition, id, committed);
            }
        }
        match mark.to {
            Back::Coordinator { shard, job } => post(server, shard, TxnMail::Marked { job }),
            Back::Request(answering) => write_markers::written(server, &answering, &mark.done),
        }
    }
}
