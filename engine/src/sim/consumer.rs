//! Simulated consumers: at the tail, catching up, at random places, by time; every byte is held against the model.

use super::model::PartitionModel;
use super::world::{Actor, PATIENCE_NS, TimeQuery, World};
use crate::core::{Chunk, FetchData, FetchError, FetchSpec, FileSpan, ReadId, Reply, TimedOffset};
use crate::id::{Part, PartitionKey};

/// Pieces of answers that a slow connection still holds.
const HELD_MAX: usize = 4;

/// What a consumer does when it reaches the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Reads on, for ever.
    Follow,
    /// Jumps to random offsets.
    Roam,
    /// Reads a partition once up to the given offset, to see that a restart kept everything.
    Audit(i64),
}

#[derive(Debug)]
struct Pending {
    shard: u32,
    id: ReadId,
    spec: FetchSpec,
    /// What could be read when it was asked ended here.
    readable: i64,
    since_ns: u64,
}

/// One client that reads one partition at a time.
#[derive(Debug)]
pub(super) struct Consumer {
    key: Option<PartitionKey>,
    manner: Manner,
    /// It reads what is committed.
    committed: bool,
    position: i64,
    pending: Option<Pending>,
    /// Watching for the high watermark to pass this.
    watching: Option<i64>,
    held: Vec<(u32, Chunk, Vec<u8>)>,
    pub(super) done: bool,
}

impl Consumer {
    pub(super) fn new(manner: Manner, at: Option<(PartitionKey, i64)>) -> Self {
        Self {
            key: at.map(|(key, _)| key),
            manner,
            committed: false,
            position: at.map_or(0, |(_, position)| position),
            pending: None,
            watching: None,
            held: Vec::new(),
            done: false,
        }
    }

    /// The same, of what is committed.
    pub(super) fn committed(mut self, on: bool) -> Self {
        self.committed = on;
        self
    }

    pub(super) fn is_audit(&self) -> bool {
        matches!(self.manner, Manner::Audit(_))
    }
}

impl World {
    /// A consumer's step.
    pub(super) fn consume(&mut self, index: usize) {
        if let Some(pending) = &self.consumers[index].pending {
            let waited_ns = self.now.mono_ns - pending.since_ns;
            assert!(
                waited_ns < PATIENCE_NS,
                "invariant: a fetch waits for ever: {pending:?}"
            );
            return self.schedule(PATIENCE_NS, Actor::Consumer(index));
        }
        self.release_held(index);
        if self.draining {
            // Connections are closed before the shards are asked to end: nobody asks any more.
            return;
        }
        let Some(key) = self.partition_to_read(index) else {
            return self.schedule_after_pause(Actor::Consumer(index));
        };
        if self.rng.percent(10) {
            self.ask_by_time(key);
        }
        let model = &self.models[&key];
        let (shard, part) = (model.shard, model.part);
        let readable = if self.consumers[index].committed {
            model.transactions.last_stable()
        } else {
            model.high_watermark
        };
        if self.consumers[index].manner == Manner::Roam {
            let low = model.log_start.max(1) - 1;
            self.consumers[index].position =
                self.rng.between(low as u64, model.end() as u64 + 1) as i64;
        }
        let spec = self.draw_spec(index);
        let core = &mut self.shards[shard as usize].core;
        let below = core
            .offsets(part)
            .is_some_and(|o| spec.offset < o.log_start);
        let reply = core.fetch(self.now, part, spec);
        assert!(
            !below || matches!(reply, Err(FetchError::OutOfRange { .. })),
            "invariant: deleted records are served: {spec:?} of {key:?}"
        );
        let numbers = [
            u64::from(shard),
            spec.offset as u64,
            u64::from(reply.is_ok()),
        ];
        self.trace.note("fetch", numbers, || {
            format!("{shard} {key:?} {spec:?}: {reply:?}")
        });
        match reply {
            Ok(Reply::Ready(data)) => self.answered(index, shard, spec, readable, Ok(data)),
            Err(error) => self.answered(index, shard, spec, readable, Err(error)),
            Ok(Reply::Pending(id)) => {
                self.consumers[index].pending = Some(Pending {
                    shard,
                    id,
                    spec,
                    readable,
                    since_ns: self.now.mono_ns,
                });
                self.schedule(PATIENCE_NS, Actor::Consumer(index));
            }
        }
    }

    fn draw_spec(&mut self, index: usize) -> FetchSpec {
        let max_bytes = if self.auditing && self.consumers[index].is_audit() {
            // Batch by batch would take too long where a read does.
            self.rng.pick(&[60_000, 3_000_000])
        } else {
            self.rng.pick(&[0, 100, 5000, 60_000, 3_000_000])
        };
        FetchSpec {
            offset: self.consumers[index].position,
            max_bytes,
            min_one: self.consumers[index].is_audit() || self.rng.percent(80),
            spans: self.rng.percent(30),
            committed: self.consumers[index].committed,
        }
    }

    fn partition_to_read(&mut self, index: usize) -> Option<PartitionKey> {
        let consumer = &mut self.consumers[index];
        if let Some(key) = consumer.key
            && self.catalog.contains_key(&key)
        {
            return Some(key);
        }
        if consumer.is_audit() {
            consumer.done = true;
            return None;
        }
        let keys: Vec<PartitionKey> = self.catalog.keys().copied().collect();
        let key = (!keys.is_empty()).then(|| self.rng.pick(&keys))?;
        let model = &self.models[&key];
        consumer.key = Some(key);
        consumer.position = self.rng.pick(&[model.log_start, model.high_watermark]);
        consumer.watching = None;
        Some(key)
    }

    /// An answer to a fetch came as an event.
    pub(super) fn fetched(
        &mut self,
        shard: u32,
        id: ReadId,
        result: Result<FetchData, FetchError>,
    ) {
        let numbers = [u64::from(shard), id.0, u64::from(result.is_ok())];
        self.trace
            .note("fetched", numbers, || format!("{shard} {id:?}: {result:?}"));
        let waits = |c: &Consumer| {
            c.pending
                .as_ref()
                .is_some_and(|p| p.shard == shard && p.id == id)
        };
        let Some(index) = self.consumers.iter().position(waits) else {
            panic!("invariant: {id:?} was answered and nobody asked, or twice");
        };
        if let Some(pending) = self.consumers[index].pending.take() {
            self.unschedule(Actor::Consumer(index));
            self.answered(index, shard, pending.spec, pending.readable, result);
        }
    }

    fn answered(
        &mut self,
        index: usize,
        shard: u32,
        spec: FetchSpec,
        readable: i64,
        result: Result<FetchData, FetchError>,
    ) {
        self.summary.fetches += 1;
        let Some(key) = self.consumers[index].key else {
            panic!("a consumer that asked has a partition");
        };
        let offsets = self.shards[shard as usize]
            .core
            .offsets(self.models[&key].part);
        match result {
            Ok(data) => {
                let high_watermark = offsets.map_or(i64::MAX, |o| o.high_watermark);
                let bound = match offsets {
                    Some(offsets) if spec.committed => offsets.last_stable,
                    _ => high_watermark,
                };
                let bytes = self.collect(shard, &data);
                let model = &self.models[&key];
                let mut next = if model.compacts {
                    let core = &self.shards[shard as usize].core;
                    let end = core.compacted_end(model.part).max(model.compacted_end);
                    model.check_compacted(&spec, &bytes, (bound, end))
                } else {
                    model.check_fetched(&spec, &bytes, bound)
                };
                if spec.committed {
                    self.check_shown(shard, key, &data, &bytes);
                    let model = &self.models[&key];
                    // Where the undecided follows what compaction has emptied, a committed read has nothing to give.
                    if model.compacts
                        && bytes.is_empty()
                        && model.is_range_to_go(spec.offset, readable)
                    {
                        next = next.max(readable);
                    }
                }
                self.summary.fetched_bytes += bytes.len() as u64;
                assert!(
                    next > spec.offset || spec.offset >= readable || !spec.min_one,
                    "invariant: nothing fetched at {}, below {readable}, which could be read",
                    spec.offset
                );
                self.hold(index, shard, data, &bytes);
                self.fetched_up_to(index, key, next, (bound, high_watermark));
            }
            Err(FetchError::UnknownPartition) => {
                assert!(self.models[&key].deleted, "invariant: {key:?} is unknown");
                self.schedule_after_pause(Actor::Consumer(index));
            }
            Err(FetchError::OutOfRange {
                offset,
                log_start_offset,
                log_end_offset,
            }) => {
                let model = &self.models[&key];
                assert!(
                    offset == spec.offset
                        && (offset < log_start_offset || offset > log_end_offset)
                        && log_end_offset <= model.end()
                        && offsets.is_none_or(|o| o.log_start == log_start_offset),
                    "invariant: {offset} is in range of {offsets:?}"
                );
                let manner = self.consumers[index].manner;
                assert!(
                    manner == Manner::Roam || offset < log_start_offset,
                    "invariant: what a consumer saw is gone: log ends at {log_end_offset}, it was at {offset}"
                );
                self.consumers[index].position = log_start_offset;
                self.schedule_after_pause(Actor::Consumer(index));
            }
            Err(FetchError::Busy) => self.schedule_after_pause(Actor::Consumer(index)),
            // A start that goes by an older checkpoint, because the newest is damaged, knows segments that retention
            // has removed since. Reading them fails, and loudly.
            Err(FetchError::Disk(_) | FetchError::Damaged { .. }) if self.flipped => {
                self.consumers[index].done = true;
                self.schedule_after_pause(Actor::Consumer(index));
            }
            Err(FetchError::Disk(error)) => {
                assert!(
                    self.faulty,
                    "invariant: fetch failed on a disk without faults: {error}"
                );
                self.schedule_after_pause(Actor::Consumer(index));
            }
            Err(error @ FetchError::Damaged { .. }) => {
                panic!("invariant: {key:?} at {}: {error}", spec.offset)
            }
        }
    }

    /// A committed read shows what counts and nothing else.
    fn check_shown(&mut self, shard: u32, key: PartitionKey, data: &FetchData, bytes: &[u8]) {
        let Some(model) = self.models.get_mut(&key) else {
            return;
        };
        let core = &self.shards[shard as usize].core;
        // What became durable in this turn counts for the core already.
        model.observe_durable(core.durable());
        self.summary.hidden += model.check_committed(bytes, data.aborted.clone());
    }

    /// `bound` is the end of what can be read, `high_watermark` what is watched.
    fn fetched_up_to(
        &mut self,
        index: usize,
        key: PartitionKey,
        next: i64,
        (bound, high_watermark): (i64, i64),
    ) {
        let consumer = &mut self.consumers[index];
        consumer.position = consumer.position.max(next);
        if let Manner::Audit(target) = consumer.manner
            && consumer.position >= target
        {
            consumer.done = true;
            return;
        }
        if consumer.manner == Manner::Follow && next >= bound && !self.models[&key].deleted {
            consumer.watching = Some(high_watermark);
            let model = &self.models[&key];
            self.shards[model.shard as usize].core.watch(model.part);
            return;
        }
        self.schedule_after_pause(Actor::Consumer(index));
    }

    /// A watched partition moved: its followers read on.
    pub(super) fn advanced(&mut self, shard: u32, part: Part) {
        for index in 0..self.consumers.len() {
            let consumer = &mut self.consumers[index];
            let model = consumer.key.and_then(|key| self.models.get(&key));
            if consumer.watching.is_some()
                && model.is_some_and(|m| m.shard == shard && m.part == part)
            {
                consumer.watching = None;
                self.schedule_after_pause(Actor::Consumer(index));
            }
        }
    }

    /// Nobody sleeps through what it waits for.
    pub(super) fn check_watches(&self) {
        for consumer in &self.consumers {
            if let (Some(watched), Some(key)) = (consumer.watching, consumer.key) {
                let model = &self.models[&key];
                assert!(
                    !model.deleted && model.high_watermark <= watched,
                    "invariant: {key:?} went from {watched} to {} and its watcher sleeps",
                    model.high_watermark
                );
            }
        }
    }

    /// The bytes of an answer, spans read as `sendfile` would.
    fn collect(&mut self, shard: u32, data: &FetchData) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(data.bytes);
        for chunk in &data.chunks {
            bytes.extend_from_slice(&self.chunk_bytes(shard, chunk));
        }
        assert_eq!(
            bytes.len(),
            data.bytes,
            "invariant: an answer's length is the sum of its pieces"
        );
        bytes
    }

    fn chunk_bytes(&self, shard: u32, chunk: &Chunk) -> Vec<u8> {
        match chunk {
            Chunk::Bytes(slice) => slice.to_vec(),
            Chunk::Span(span) => self.span_bytes(shard, span),
        }
    }

    fn span_bytes(&self, shard: u32, span: &FileSpan) -> Vec<u8> {
        match self.disk.span(shard, span.file, span.offset, span.len) {
            Some(bytes) => bytes,
            None => panic!("invariant: the file ends before {span:?}"),
        }
    }

    /// A slow connection keeps pieces for a while: they may not change under it.
    fn hold(&mut self, index: usize, shard: u32, data: FetchData, bytes: &[u8]) {
        let mut at = 0;
        for chunk in data.chunks {
            let piece = bytes[at..at + chunk.len()].to_vec();
            at += chunk.len();
            self.consumers[index].held.push((shard, chunk, piece));
        }
        if self.rng.percent(70) || self.consumers[index].held.len() > HELD_MAX {
            self.release_held(index);
        }
    }

    fn release_held(&mut self, index: usize) {
        for (shard, chunk, bytes) in std::mem::take(&mut self.consumers[index].held) {
            assert!(
                self.chunk_bytes(shard, &chunk) == bytes,
                "invariant: bytes changed in a consumer's hands"
            );
            if let Chunk::Span(span) = chunk {
                self.shards[shard as usize].core.release(span);
            }
        }
    }

    /// Gives everything back, as connections that close.
    pub(super) fn release_all(&mut self) {
        for index in 0..self.consumers.len() {
            self.release_held(index);
        }
    }

    fn ask_by_time(&mut self, key: PartitionKey) {
        let model = &self.models[&key];
        let readable = &model.entries[model.entry_at(model.log_start)..model.durable];
        let timestamp_ms = if readable.is_empty() {
            self.now.wall_ms
        } else {
            let entry = &readable[self.rng.index(readable.len())];
            entry.timestamps[self.rng.index(entry.timestamps.len())] + self.rng.pick(&[-1, 0, 1])
        };
        let expected = model.find_time(model.log_start, model.high_watermark, timestamp_ms);
        let (shard, part, log_start) = (model.shard, model.part, model.log_start);
        let high_watermark = model.high_watermark;
        let reply = self.shards[shard as usize]
            .core
            .offset_for_time(self.now, part, timestamp_ms);
        let query = TimeQuery {
            key,
            timestamp_ms,
            log_start,
            high_watermark,
            expected,
            since_ns: self.now.mono_ns,
        };
        self.trace
            .note("time", [u64::from(shard), timestamp_ms as u64, 0], || {
                format!("{shard} {query:?}: {reply:?}")
            });
        match reply {
            Ok(Reply::Ready(found)) => self.check_time(&query, Ok(found)),
            Err(error) => self.check_time(&query, Err(error)),
            Ok(Reply::Pending(id)) => {
                self.time_queries.insert((shard, id), query);
            }
        }
    }

    /// An answer to a look-up by time came as an event.
    pub(super) fn timed(
        &mut self,
        shard: u32,
        id: ReadId,
        result: Result<Option<TimedOffset>, FetchError>,
    ) {
        self.trace.note("timed", [u64::from(shard), id.0, 0], || {
            format!("{shard} {id:?}: {result:?}")
        });
        match self.time_queries.remove(&(shard, id)) {
            Some(query) => self.check_time(&query, result),
            None => panic!("invariant: {id:?} was answered and nobody asked, or twice"),
        }
    }

    fn check_time(&mut self, query: &TimeQuery, result: Result<Option<TimedOffset>, FetchError>) {
        let model = &self.models[&query.key];
        match result {
            Ok(found) => {
                // The log may have moved at both ends since the question.
                let offsets = self.shards[model.shard as usize].core.offsets(model.part);
                if model.compacts {
                    let log_start = offsets.map_or(i64::MAX, |o| o.log_start);
                    return model.check_time(query, found, log_start.max(query.log_start));
                }
                let now = offsets.and_then(|o| {
                    model.find_time(o.log_start, o.high_watermark, query.timestamp_ms)
                });
                assert!(
                    found == query.expected || found == now,
                    "invariant: {query:?}: got {found:?}, now {now:?}"
                );
            }
            Err(FetchError::UnknownPartition) => assert!(model.deleted, "invariant: {query:?}"),
            Err(FetchError::Busy) => {}
            // Retention, or a deletion, was faster.
            Err(FetchError::OutOfRange {
                log_start_offset, ..
            }) if log_start_offset > query.log_start
                || query.expected.is_none_or(|e| e.offset < log_start_offset) => {}
            Err(FetchError::Disk(_) | FetchError::Damaged { .. }) if self.flipped => {}
            Err(FetchError::Disk(_)) => assert!(self.faulty, "invariant: {query:?}: {result:?}"),
            Err(error) => panic!("invariant: {query:?}: {error}"),
        }
    }
}

impl PartitionModel {
    /// Holds fetched bytes against the log; returns the offset to go on at.
    fn check_fetched(&self, spec: &FetchSpec, bytes: &[u8], high_watermark: i64) -> i64 {
        let mut next = spec.offset;
        let mut rest = bytes;
        for (i, entry) in self.entries[self.entry_at(spec.offset)..]
            .iter()
            .enumerate()
        {
            if rest.is_empty() {
                break;
            }
            assert!(
                entry.end() <= high_watermark,
                "invariant: fetch at {} passed high watermark {high_watermark}",
                spec.offset
            );
            let len = rest.len().min(entry.bytes.len());
            assert!(
                rest[..len] == entry.bytes[..len],
                "invariant: offset {} of {:?} reads differently from what was written",
                entry.base_offset,
                self.key
            );
            if len == entry.bytes.len() {
                next = entry.end();
            } else {
                assert!(i > 0, "invariant: the first batch of an answer is cut");
            }
            let first_alone = i == 0 && spec.min_one && len == bytes.len();
            assert!(
                bytes.len() <= spec.max_bytes || first_alone,
                "invariant: {} bytes answer {spec:?}",
                bytes.len()
            );
            rest = &rest[len..];
        }
        assert!(
            rest.is_empty(),
            "invariant: {} bytes behind the log's end",
            rest.len()
        );
        next
    }
}
