//! Fetch sessions: what a client fetches, remembered between its requests, so that requests name only what changed
//! and responses only what is new.
//!
//! Source: KIP-227; epochs, limits and eviction are those of `FetchManager` and `FetchSessionCache` of Apache Kafka 4.
//! As there, a session belongs to no connection.
//!
//! A partition of a session is either ready, which means that there may be something to say about it, or idle, which
//! means that its end was reached and said, and that the core was asked to tell when it moves. A request looks at
//! ready partitions alone, however many the session has.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use ringlog_engine::core::LogOffsets;
use ringlog_engine::id::Part;
use slab::Slab;

use crate::wire::error;
use crate::wire::fetch::{FetchPartition, FetchTopic};

/// A session that was used or made within this time is not evicted for another; Kafka's
/// `min.incremental.fetch.session.eviction.ms`.
const EVICTION_NS: u64 = 120_000_000_000;
/// Partitions of all sessions of a shard together; a request that would go beyond it gets no session.
const PARTITIONS_MAX: usize = 1_000_000;

/// Where a partition of a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// In the session's queue: there may be something to say.
    Ready,
    /// Nothing to say until the core reports a change.
    Idle,
    /// In the request that waits, at this place.
    Active(usize),
}

/// A partition of a session.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) topic: Arc<str>,
    pub(super) index: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: usize,
    /// The leader epoch that the client believes in, or -1.
    pub(super) leader_epoch: i32,
    /// Where it is on this shard, as far as known.
    pub(super) part: Option<Part>,
    /// High watermark and log start as the client was told last, -1 for never.
    told: (i64, i64),
    pub(super) state: SlotState,
    /// The core was asked to report.
    pub(super) watched: bool,
}

impl Slot {
    /// What a response says about the partition; whether it has to be in it.
    /// (`CachedPartition.maybeUpdateResponseData`)
    pub(super) fn tell(
        &mut self,
        offsets: Option<LogOffsets>,
        records_bytes: usize,
        error: i16,
    ) -> bool {
        let now = offsets.map_or((-1, -1), |o| (o.high_watermark, o.log_start));
        let news = self.told != now || records_bytes > 0 || error != error::NONE;
        self.told = now;
        if error != error::NONE {
            // When the error is gone, the partition is told of again.
            self.told.0 = -1;
        }
        news
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    id: i32,
    /// Epoch of the next request.
    epoch: i32,
    created_ns: u64,
    used_ns: u64,
    /// Its partitions when it was last used.
    size: usize,
    topics: HashMap<Arc<str>, HashMap<i32, usize>>,
    pub(super) slots: Slab<Slot>,
    /// Ready partitions in the order in which they are served: those that had data last come last.
    ready: VecDeque<usize>,
    /// The request under way.
    pub(super) waiting: Option<u64>,
}

impl Session {
    /// Adds a partition, or moves it. (`FetchSession.update`)
    fn set(&mut self, topic: &str, wanted: &FetchPartition) {
        let (offset, max_bytes) = (wanted.offset, wanted.max_bytes.max(0) as usize);
        let known = self.topics.get_key_value(topic);
        let slot = known.and_then(|(_, indexes)| indexes.get(&wanted.index));
        if let Some(&slot) = slot {
            let found = &mut self.slots[slot];
            found.offset = offset;
            found.max_bytes = max_bytes;
            found.leader_epoch = wanted.current_leader_epoch;
            self.rouse(slot);
            return;
        }
        let name = known.map_or_else(|| Arc::from(topic), |(name, _)| name.clone());
        let slot = self.slots.insert(Slot {
            topic: name.clone(),
            index: wanted.index,
            offset,
            max_bytes,
            leader_epoch: wanted.current_leader_epoch,
            part: None,
            told: (-1, -1),
            state: SlotState::Ready,
            watched: false,
        });
        self.topics
            .entry(name)
            .or_default()
            .insert(wanted.index, slot);
        self.ready.push_back(slot);
    }

    fn take_out(&mut self, topic: &str, index: i32) -> Option<(usize, Slot)> {
        let indexes = self.topics.get_mut(topic)?;
        let slot = indexes.remove(&index)?;
        if indexes.is_empty() {
            self.topics.remove(topic);
        }
        Some((slot, self.slots.remove(slot)))
    }

    /// An idle partition has news.
    pub(super) fn rouse(&mut self, slot: usize) {
        if let Some(found) = self.slots.get_mut(slot)
            && found.state == SlotState::Idle
        {
            found.state = SlotState::Ready;
            self.ready.push_back(slot);
        }
    }

    /// The next ready partition, to be put at place `at` of the request under way.
    pub(super) fn next_ready(&mut self, at: usize) -> Option<usize> {
        loop {
            let slot = self.ready.pop_front()?;
            if let Some(found) = self.slots.get_mut(slot)
                && found.state == SlotState::Ready
            {
                found.state = SlotState::Active(at);
                return Some(slot);
            }
        }
    }

    /// A partition leaves the request under way: `idle`, or else it is looked at again by the next.
    pub(super) fn settle(&mut self, slot: usize, idle: bool) {
        let Some(found) = self.slots.get_mut(slot) else {
            return;
        };
        found.state = if idle {
            SlotState::Idle
        } else {
            SlotState::Ready
        };
        if !idle {
            self.ready.push_back(slot);
        }
    }
}

/// A partition that left its session while it was being watched.
pub(super) type Watched = (Part, i32, usize);

/// The sessions of a shard.
#[derive(Debug)]
pub(super) struct Sessions {
    limit: usize,
    table: HashMap<i32, Session>,
    by_use: BTreeSet<(u64, i32)>,
    /// Sessions that are old enough to make way for larger ones, the smallest first.
    evictable: BTreeSet<(usize, i32)>,
    /// Sum of the sessions' sizes.
    partitions: usize,
    next_id: u64,
}

impl Sessions {
    /// At most `limit` sessions; `seed` makes their ids differ from those of other runs and shards.
    pub(super) fn new(limit: usize, seed: u64) -> Self {
        Self {
            limit,
            table: HashMap::new(),
            by_use: BTreeSet::new(),
            evictable: BTreeSet::new(),
            partitions: 0,
            next_id: seed,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn partitions(&self) -> usize {
        self.partitions
    }

    pub(super) fn get(&mut self, id: i32) -> Option<&mut Session> {
        self.table.get_mut(&id)
    }

    /// The session of an incremental request, if the request is its next. (`FetchManager.newContext`)
    ///
    /// # Errors
    /// Kafka's error code.
    pub(super) fn expect(&mut self, id: i32, epoch: i32) -> Result<&mut Session, i16> {
        match self.table.get_mut(&id) {
            None => Err(error::FETCH_SESSION_ID_NOT_FOUND),
            Some(session) if session.epoch != epoch => Err(error::INVALID_FETCH_SESSION_EPOCH),
            Some(session) => Ok(session),
        }
    }

    /// Carries out what a request says of a session's partitions and counts its epoch on; false when none is left
    /// or too many are there, and the session is gone. Watched partitions that left it are added to `left`.
    pub(super) fn update(
        &mut self,
        id: i32,
        topics: &[FetchTopic<'_>],
        forgotten: &[(&str, Vec<i32>)],
        now_ns: u64,
        left: &mut Vec<Watched>,
    ) -> bool {
        let Some(session) = self.table.get_mut(&id) else {
            return false;
        };
        for topic in topics {
            for wanted in &topic.partitions {
                session.set(topic.name, wanted);
            }
        }
        let mut unready = false;
        for (topic, indexes) in forgotten {
            for index in indexes {
                let Some((slot, gone)) = session.take_out(topic, *index) else {
                    continue;
                };
                unready |= gone.state == SlotState::Ready;
                if let (Some(part), true) = (gone.part, gone.watched) {
                    left.push((part, id, slot));
                }
            }
        }
        if unready {
            // Places of the table are used again: no stale entry may stay in the queue.
            let slots = &session.slots;
            session.ready.retain(|slot| {
                slots
                    .get(*slot)
                    .is_some_and(|s| s.state == SlotState::Ready)
            });
        }
        let others = self.partitions - session.size;
        if session.slots.is_empty() || others + session.slots.len() > PARTITIONS_MAX {
            self.remove(id, left);
            return false;
        }
        session.epoch = next_epoch(session.epoch);
        self.touch(id, now_ns);
        true
    }

    /// Makes room for and adds a session, where Kafka would; its id, or 0. What was evicted for it is in `evicted`.
    /// (`FetchSessionCacheShard.maybeCreateSession`)
    pub(super) fn create(
        &mut self,
        partitions: impl ExactSizeIterator<Item = NewSlot>,
        now_ns: u64,
        evicted: &mut Vec<i32>,
    ) -> i32 {
        let size = partitions.len();
        let crowded = self.table.len() >= self.limit;
        let victim = if crowded {
            self.victim(size, now_ns)
        } else {
            None
        };
        if self.limit == 0 || size == 0 || crowded && victim.is_none() {
            return 0;
        }
        let freed = victim
            .and_then(|id| self.table.get(&id))
            .map_or(0, |s| s.size);
        if self.partitions - freed + size > PARTITIONS_MAX {
            return 0;
        }
        evicted.extend(victim);
        let id = self.new_id();
        let mut session = Session {
            id,
            epoch: 1,
            created_ns: now_ns,
            used_ns: now_ns,
            size: 0,
            topics: HashMap::new(),
            slots: Slab::with_capacity(size),
            ready: VecDeque::with_capacity(size),
            waiting: None,
        };
        for new in partitions {
            session.set(&new.topic, &new.wanted);
            let slot = session.topics[&*new.topic][&new.wanted.index];
            let slot = &mut session.slots[slot];
            slot.part = new.part;
            slot.tell(new.offsets, 0, new.error);
        }
        self.table.insert(id, session);
        self.touch(id, now_ns);
        id
    }

    /// Who makes way for a session of `size` partitions: one that was not used for long, else one that is not
    /// worth more.
    fn victim(&self, size: usize, now_ns: u64) -> Option<i32> {
        let &(used_ns, oldest) = self.by_use.first()?;
        if now_ns.saturating_sub(used_ns) > EVICTION_NS {
            return Some(oldest);
        }
        let &(smallest, id) = self.evictable.first()?;
        // As Kafka compares (size, id) with (size, 0): one of the same size stays.
        (size > smallest).then_some(id)
    }

    fn new_id(&mut self) -> i32 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            let id = (scramble(self.next_id) >> 33) as i32;
            if id > 0 && !self.table.contains_key(&id) {
                return id;
            }
        }
    }

    fn touch(&mut self, id: i32, now_ns: u64) {
        let Some(session) = self.table.get_mut(&id) else {
            return;
        };
        self.by_use.remove(&(session.used_ns, id));
        self.evictable.remove(&(session.size, id));
        self.partitions = self.partitions - session.size + session.slots.len();
        session.used_ns = now_ns;
        session.size = session.slots.len();
        self.by_use.insert((now_ns, id));
        if now_ns.saturating_sub(session.created_ns) > EVICTION_NS {
            self.evictable.insert((session.size, id));
        }
    }

    /// Ends a session; the request that waits in it, if any. Its watched partitions are added to `left`.
    pub(super) fn remove(&mut self, id: i32, left: &mut Vec<Watched>) -> Option<u64> {
        let session = self.table.remove(&id)?;
        self.by_use.remove(&(session.used_ns, session.id));
        self.evictable.remove(&(session.size, session.id));
        self.partitions -= session.size;
        for (slot, found) in &session.slots {
            if let (Some(part), true) = (found.part, found.watched) {
                left.push((part, id, slot));
            }
        }
        session.waiting
    }
}

/// A partition of a session to be.
pub(super) struct NewSlot {
    pub(super) topic: Arc<str>,
    pub(super) wanted: FetchPartition,
    pub(super) part: Option<Part>,
    /// As told by the response that opens the session.
    pub(super) offsets: Option<LogOffsets>,
    pub(super) error: i16,
}

/// The epoch after `epoch`: 0 opens a session, so it is left out. (`FetchMetadata.nextEpoch`)
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// SplitMix64's output function: ids that nobody guesses by counting.
fn scramble(mut x: u64) -> u64 {
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(count: i32) -> Vec<NewSlot> {
        let slot = |index| NewSlot {
            topic: "t".into(),
            wanted: FetchPartition {
                index,
                current_leader_epoch: -1,
                offset: 0,
                max_bytes: 1,
            },
            part: None,
            offsets: None,
            error: 0,
        };
        (0..count).map(slot).collect()
    }

    fn create(sessions: &mut Sessions, count: i32, now_ns: u64) -> i32 {
        let mut evicted = Vec::new();
        let id = sessions.create(slots(count).into_iter(), now_ns, &mut evicted);
        for id in evicted {
            assert_eq!(sessions.remove(id, &mut Vec::new()), None);
        }
        id
    }

    #[test]
    fn epochs_never_become_that_of_a_new_session() {
        assert_eq!((next_epoch(1), next_epoch(i32::MAX)), (2, 1));
    }

    #[test]
    fn a_full_cache_keeps_young_sessions_and_gives_up_idle_ones() {
        let mut sessions = Sessions::new(2, 5);
        let first = create(&mut sessions, 3, 0);
        let second = create(&mut sessions, 3, 1);
        assert!(first > 0 && second > 0 && first != second);
        assert_eq!(create(&mut sessions, 9, 2), 0, "both are young");
        // The first was not used for two minutes.
        let third = create(&mut sessions, 1, EVICTION_NS + 1);
        assert!(third > 0 && sessions.get(first).is_none() && sessions.get(second).is_some());
        assert_eq!(sessions.len(), 2);
        assert_eq!(sessions.partitions(), 4);
    }

    #[test]
    fn old_sessions_in_use_make_way_only_for_larger_ones() {
        let mut sessions = Sessions::new(2, 5);
        let (small, large) = (create(&mut sessions, 3, 0), create(&mut sessions, 5, 0));
        let now_ns = EVICTION_NS + 7;
        for id in [small, large] {
            assert!(sessions.update(id, &[], &[], now_ns, &mut Vec::new()));
        }
        assert_eq!(create(&mut sessions, 3, now_ns), 0, "worth no more");
        let newer = create(&mut sessions, 4, now_ns);
        assert!(newer > 0 && sessions.get(small).is_none() && sessions.get(large).is_some());
        assert_eq!(sessions.by_use.len(), 2);
        assert_eq!(sessions.evictable.len(), 1);
        for id in [large, newer] {
            sessions.remove(id, &mut Vec::new());
        }
        let left = (sessions.partitions, sessions.by_use.len());
        assert_eq!((left, sessions.evictable.len()), ((0, 0), 0));
    }

    #[test]
    fn requests_name_what_changes_and_wrong_ones_have_kafkas_codes() {
        let mut sessions = Sessions::new(2, 5);
        let id = create(&mut sessions, 3, 0);
        let code = |r: Result<&mut Session, i16>| r.err().unwrap_or(0);
        assert_eq!(
            code(sessions.expect(id + 1, 1)),
            error::FETCH_SESSION_ID_NOT_FOUND
        );
        assert_eq!(
            code(sessions.expect(id, 2)),
            error::INVALID_FETCH_SESSION_EPOCH
        );
        assert_eq!(code(sessions.expect(id, 1)), 0);
        let forgotten = [("t", vec![0, 1, 7]), ("u", vec![0])];
        assert!(sessions.update(id, &[], &forgotten, 1, &mut Vec::new()));
        assert_eq!(
            code(sessions.expect(id, 1)),
            error::INVALID_FETCH_SESSION_EPOCH
        );
        let session = sessions.expect(id, 2).expect("counted on");
        let slot = session.next_ready(0).expect("the third is left");
        assert_eq!(session.slots[slot].index, 2);
        assert_eq!(session.next_ready(1), None);
        session.settle(slot, true);
        session.rouse(slot);
        session.rouse(slot);
        assert_eq!(session.next_ready(0), Some(slot));
        assert_eq!(session.next_ready(0), None, "queued once");
        assert!(!sessions.update(id, &[], &[("t", vec![2])], 2, &mut Vec::new()));
        assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    }

    #[test]
    fn a_place_used_again_is_served_once() {
        let mut sessions = Sessions::new(1, 5);
        let id = create(&mut sessions, 1, 0);
        let again = [FetchTopic {
            name: "u",
            partitions: vec![FetchPartition {
                index: 4,
                current_leader_epoch: -1,
                offset: 0,
                max_bytes: 1,
            }],
        }];
        assert!(sessions.update(id, &again, &[("t", vec![0])], 1, &mut Vec::new()));
        let more = [FetchTopic {
            name: "v",
            ..again[0].clone()
        }];
        assert!(sessions.update(id, &more, &[], 2, &mut Vec::new()));
        let session = sessions.get(id).expect("there");
        let mut served = Vec::new();
        while let Some(slot) = session.next_ready(0) {
            served.push(session.slots[slot].topic.to_string());
        }
        assert_eq!(served, ["u", "v"]);
    }

    #[test]
    fn a_partition_is_told_of_when_anything_changed() {
        let mut sessions = Sessions::new(1, 5);
        let id = create(&mut sessions, 1, 0);
        let slot = &mut sessions.get(id).expect("there").slots[0];
        let at = |log_start, high_watermark| {
            Some(LogOffsets {
                log_start,
                high_watermark,
                last_stable: high_watermark,
                log_end: high_watermark,
                leader_epoch: 0,
            })
        };
        assert!(slot.tell(at(0, 5), 0, 0));
        assert!(!slot.tell(at(0, 5), 0, 0), "nothing new");
        assert!(slot.tell(at(0, 5), 9, 0), "records");
        assert!(slot.tell(at(0, 6), 0, 0), "a high watermark");
        assert!(slot.tell(at(1, 6), 0, 0), "a log start");
        assert!(slot.tell(at(1, 6), 0, error::NOT_LEADER_OR_FOLLOWER));
        assert!(slot.tell(at(1, 6), 0, 0), "the error is gone");
        assert!(!slot.tell(at(1, 6), 0, 0));
    }
}
