//! Reading partitions of an internal topic from their start, before what is in them is served.

use std::collections::VecDeque;

use hashbrown::HashMap;
use ringlog_engine::batch::BatchHeader;
use ringlog_engine::core::{Chunk, Core, FetchData, FetchError, FetchSpec, ReadId, Reply};
use ringlog_engine::id::{Now, Part};
use ringlog_engine::shard::Cx;

use super::Logged;
use crate::app::Env;
use crate::catalog::Snapshot;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 1 << 20;
/// Reads started or taken in during one turn: other work comes in between.
const STEPS_A_TURN: usize = 4;
/// When a read that failed is tried again, in milliseconds.
const RETRY_MS: u64 = 10_000;
/// When a read that found too many others is tried again, in milliseconds.
const BUSY_MS: u64 = 10;

/// A partition being read.
#[derive(Debug)]
struct Load {
    partition: i32,
    part: Part,
    /// Where to go on.
    offset: i64,
    /// The end of the log when reading began: nothing is written before it is read.
    end: i64,
}

/// All partitions being read.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    ready: VecDeque<Load>,
    reading: HashMap<ReadId, Load>,
    /// Failed reads and when they are tried again.
    failed: Vec<(u64, Load)>,
}

impl Loads {
    /// Starts to read this shard's partitions of the coordinator's topic from `first` on.
    pub(crate) fn take_on<C: Logged>(
        &mut self,
        core: &Core,
        (catalog, env): (&Snapshot, &Env),
        coordinator: &mut C,
        first: i32,
    ) {
        let Some(topic) = catalog.topic(C::TOPIC) else {
            return;
        };
        for key in topic.keys(first) {
            if key.shard(env.shards) == env.shard
                && let Some(part) = core.lookup(key)
            {
                coordinator.own(key.partition);
                self.begin(core, key.partition, part);
            }
        }
    }

    fn begin(&mut self, core: &Core, partition: i32, part: Part) {
        let offsets = core.offsets(part);
        self.ready.push_back(Load {
            partition,
            part,
            offset: offsets.map_or(0, |offsets| offsets.log_start),
            end: offsets.map_or(0, |offsets| offsets.high_watermark),
        });
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        if !self.ready.is_empty() {
            return Some(0);
        }
        self.failed.iter().map(|(at_ns, _)| *at_ns).min()
    }

    fn retry(&mut self, now: Now) {
        for (at_ns, load) in std::mem::take(&mut self.failed) {
            if at_ns <= now.mono_ns {
                self.ready.push_back(load);
            } else {
                self.failed.push((at_ns, load));
            }
        }
    }

    fn fail<C: Logged>(&mut self, now: Now, load: Load, error: FetchError) {
        let after_ms = match error {
            FetchError::Busy => BUSY_MS,
            _ => {
                let (topic, partition, offset) = (C::TOPIC, load.partition, load.offset);
                tracing::error!(topic, partition, offset, %error, "a coordinator's log cannot be read, its clients wait");
                RETRY_MS
            }
        };
        self.failed.push((now.after_ms(after_ms), load));
    }

    /// Takes in what was read.
    fn take_in<C: Logged>(
        &mut self,
        now: Now,
        mut load: Load,
        coordinator: &mut C,
        data: &FetchData,
    ) {
        let bytes = joined(data);
        let before = load.offset;
        let mut rest = bytes.as_slice();
        while let Ok(header) = BatchHeader::parse(rest) {
            let (batch, tail) = rest.split_at(header.total_len());
            rest = tail;
            if header.last_offset() < load.offset {
                continue;
            }
            load.offset = header.last_offset() + 1;
            if let Err(error) = coordinator.replay(now, load.partition, batch) {
                let (partition, offset) = (load.partition, header.base_offset.get());
                let topic = C::TOPIC;
                tracing::error!(topic, partition, offset, %error, "skipping a record");
            }
        }
        if load.offset == before {
            let position = 0;
            let segment = load.offset;
            self.fail::<C>(now, load, FetchError::Damaged { segment, position });
        } else {
            self.ready.push_back(load);
        }
    }

    /// Reads on, a few steps a turn.
    pub(crate) fn turn<C: Logged>(&mut self, cx: &mut Cx<'_>, coordinator: &mut C) {
        self.retry(cx.now);
        let mut steps = 0;
        while steps < STEPS_A_TURN
            && let Some(load) = self.ready.pop_front()
        {
            if load.offset >= load.end {
                coordinator.loaded(cx.now, load.partition);
                continue;
            }
            steps += 1;
            let spec = FetchSpec {
                offset: load.offset,
                max_bytes: READ_BYTES,
                min_one: true,
                spans: false,
                committed: false,
            };
            match cx.core.fetch(cx.now, load.part, spec) {
                Ok(Reply::Ready(data)) => self.take_in(cx.now, load, coordinator, &data),
                Ok(Reply::Pending(read)) => {
                    self.reading.insert(read, load);
                }
                Err(error) => self.fail::<C>(cx.now, load, error),
            }
        }
    }

    /// A read is done. Gives the result back if it was not one of these.
    pub(crate) fn fetched<C: Logged>(
        &mut self,
        cx: &mut Cx<'_>,
        coordinator: &mut C,
        read: ReadId,
        result: Result<FetchData, FetchError>,
    ) -> Option<Result<FetchData, FetchError>> {
        let Some(load) = self.reading.remove(&read) else {
            return Some(result);
        };
        match result {
            Ok(data) => self.take_in(cx.now, load, coordinator, &data),
            Err(error) => self.fail::<C>(cx.now, load, error),
        }
        None
    }
}

fn joined(data: &FetchData) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.bytes);
    for chunk in &data.chunks {
        // Files are not asked for.
        if let Chunk::Bytes(slice) = chunk {
            bytes.extend_from_slice(slice);
        }
    }
    bytes
}
