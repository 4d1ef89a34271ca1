//! A Fetch request under way, and what is known of each of its partitions.

use std::sync::Arc;

use ringlog_engine::core::{Chunk, Core, FetchData};
use ringlog_engine::id::Part;

use crate::conn::Token;

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Scope {
    /// The partitions that it names; all of them are in the response.
    Full {
        topics: Vec<TopicFetch>,
        /// The response opens a session, if there is room for one.
        opens_session: bool,
    },
    /// What is new in a session.
    Incremental { session: i32 },
}

/// So many of a full request's partitions are this topic's.
#[derive(Debug)]
pub(super) struct TopicFetch {
    pub(super) name: Arc<str>,
    pub(super) partitions: usize,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) scope: Scope,
    pub(super) read_committed: bool,
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) deadline_ns: u64,
    /// All that a full request names, or those of a session that were looked at.
    pub(super) partitions: Vec<PartitionFetch>,
    /// Places of partitions to be looked at.
    pub(super) fresh: Vec<usize>,
    /// Places of partitions that something was found of.
    pub(super) found: Vec<usize>,
    /// Places of partitions whose end was reached since the request was last put aside.
    pub(super) ended: Vec<usize>,
    /// Bytes found, and asked of the disk.
    pub(super) bytes: usize,
    pub(super) reads: usize,
    pub(super) failures: usize,
    /// It is in the list of requests with news.
    pub(super) noted: bool,
}

#[derive(Debug)]
pub(super) struct PartitionFetch {
    pub(super) index: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: usize,
    pub(super) leader_epoch: i32,
    pub(super) part: Option<Part>,
    pub(super) state: Progress,
    /// What was found ends before what there is: more to come does not add to it.
    pub(super) cut: bool,
    /// A full request watches it. Watches of sessions are noted there.
    pub(super) watched: bool,
    /// Its place in the session.
    pub(super) slot: usize,
}

#[derive(Debug)]
pub(super) enum Progress {
    /// There may be something to read.
    Fresh,
    /// Nothing beyond the offset yet.
    AtEnd,
    /// The disk was asked for so many bytes.
    Reading(usize),
    /// Found.
    Data(FetchData),
    /// So many bytes were found, which was not enough; they are read again, so that nothing is held meanwhile.
    Held(usize),
    /// Kafka's error code.
    Failed(i16),
}

impl Pending {
    /// A partition at its end has moved.
    pub(super) fn moved(&mut self, at: usize) {
        let Some(partition) = self.partitions.get_mut(at) else {
            return;
        };
        partition.watched = false;
        if matches!(partition.state, Progress::AtEnd) {
            partition.state = Progress::Fresh;
            self.fresh.push(at);
        }
    }

    /// Whether so many bytes are there. A partition that has more than was taken of it counts with all that it may
    /// give, for Kafka fills that with a part of the next batch: what is missing from it would never come.
    /// (`DelayedFetch.tryComplete`)
    pub(super) fn has(&self, wanted: usize) -> bool {
        if self.bytes == 0 || self.bytes >= wanted {
            return self.bytes >= wanted;
        }
        let counted = |&at: &usize| {
            let partition = &self.partitions[at];
            let bytes = match &partition.state {
                Progress::Data(data) => data.bytes,
                _ => 0,
            };
            match partition.cut {
                true => bytes.max(partition.max_bytes.min(self.max_bytes)),
                false => bytes,
            }
        };
        let found = self.found.iter().map(counted);
        found.fold(0, usize::saturating_add) >= wanted
    }

    /// The places to look at now, in order; what was found and let go again among them.
    pub(super) fn take_fresh(&mut self) -> Vec<usize> {
        let mut fresh = std::mem::take(&mut self.fresh);
        let (partitions, bytes) = (&mut self.partitions, &mut self.bytes);
        self.found.retain(|&at| {
            let Progress::Held(held) = partitions[at].state else {
                return true;
            };
            *bytes -= held;
            partitions[at].state = Progress::Fresh;
            fresh.push(at);
            false
        });
        fresh.sort_unstable();
        fresh.dedup();
        fresh
    }

    /// Puts what was found aside, so that no memory and no file is held while the request waits.
    pub(super) fn hold(&mut self, core: &mut Core) {
        for &at in &self.found {
            let state = &mut self.partitions[at].state;
            if let Progress::Data(data) = state {
                release(core, data);
                *state = Progress::Held(data.bytes);
            }
        }
    }

    /// Gives back the files of what was found and will not be sent.
    pub(super) fn release(&self, core: &mut Core) {
        for partition in &self.partitions {
            if let Progress::Data(data) = &partition.state {
                release(core, data);
            }
        }
    }
}

/// Gives back the files of data that is not sent.
pub(super) fn release(core: &mut Core, data: &FetchData) {
    for chunk in &data.chunks {
        if let Chunk::Span(span) = chunk {
            core.release(*span);
        }
    }
}
