//! Transactions in the simulation: who ends them, what is decided and what is not, so where the last stable offset lies,
//! which aborted ones a consumer must be told of, and what a committed read may show.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::model::{Entry, PartitionModel};
use super::traffic::{Kind, Sent};
use super::world::World;
use crate::batch::BatchHeader;
use crate::compact::Batches;
use crate::core::LogOffsets;
use crate::id::PartitionKey;
use crate::store::AbortedTransaction;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Undecided,
    Committed,
    Aborted,
}

/// A transaction with a marker.
#[derive(Debug, Clone, Copy)]
struct Ended {
    producer_id: i64,
    first: i64,
    marker: i64,
    committed: bool,
}

/// Transactions of one partition.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// First offset of each producer's transaction that has no marker.
    ongoing: BTreeMap<i64, i64>,
    /// Those whose marker was not seen durable, in the order of their markers.
    ending: VecDeque<Ended>,
    /// The others, by producer and first offset.
    decided: BTreeMap<(i64, i64), Ended>,
    /// Last seen last stable offset.
    last_stable: i64,
}

impl Transactions {
    /// The log took an entry of the producer.
    pub(super) fn accepted(&mut self, producer_id: i64, entry: &Entry) {
        match entry.kind {
            Kind::Plain => {}
            Kind::Transactional => {
                self.ongoing.entry(producer_id).or_insert(entry.base_offset);
            }
            Kind::Marker { committed } => {
                let first = self.ongoing.remove(&producer_id);
                self.ending.extend(first.map(|first| Ended {
                    producer_id,
                    first,
                    marker: entry.base_offset,
                    committed,
                }));
            }
        }
    }

    /// The marker at `offset` is durable: what it ended, if anything.
    fn decide(&mut self, offset: i64) -> Option<Ended> {
        let ended = self.ending.pop_front_if(|ended| ended.marker == offset)?;
        self.decided.insert((ended.producer_id, ended.first), ended);
        Some(ended)
    }

    /// Everything is to be accepted again. What was seen is forgotten only if damage may have undone it.
    pub(super) fn restarted(&mut self, damaged: bool) {
        let last_stable = if damaged { 0 } else { self.last_stable };
        *self = Self {
            last_stable,
            ..Self::default()
        };
    }

    /// Where the first transaction begins whose end is not durable.
    fn first_undecided(&self) -> Option<i64> {
        let ending = self.ending.iter().map(|ended| ended.first);
        self.ongoing.values().copied().chain(ending).min()
    }

    /// The producer's last transaction that begins at `offset` or before, if it has a durable marker.
    fn decided_at(&self, producer_id: i64, offset: i64) -> Option<&Ended> {
        let mut before = self.decided.range(..=(producer_id, offset));
        let (_, ended) = before.next_back()?;
        (ended.producer_id == producer_id).then_some(ended)
    }

    /// Last seen last stable offset.
    pub(super) fn last_stable(&self) -> i64 {
        self.last_stable
    }
}

impl PartitionModel {
    /// The entries `from..to` are durable: notes what that decides, and the keys of what counts now.
    pub(super) fn decide(&mut self, from: usize, to: usize) {
        for at in from..to {
            match self.entries[at].kind {
                Kind::Plain => self.note_keys(at),
                Kind::Transactional => {}
                Kind::Marker { .. } => {
                    let ended = self.transactions.decide(self.entries[at].base_offset);
                    if let Some(ended) = ended.filter(|ended| ended.committed) {
                        for index in self.entries_of(ended, at) {
                            self.note_keys(index);
                        }
                    }
                }
            }
        }
    }

    /// The entries of a transaction, whose marker is at index `marker`.
    fn entries_of(&self, ended: Ended, marker: usize) -> Vec<usize> {
        let from = self.entry_at(ended.first);
        let is_of = |entry: &Entry| {
            entry.kind == Kind::Transactional
                && entry.producer.is_some_and(|p| p.0 == ended.producer_id)
        };
        (from..marker)
            .filter(|&at| is_of(&self.entries[at]))
            .collect()
    }

    /// What became of an entry, as far as markers are durable.
    pub(super) fn fate(&self, entry: &Entry) -> Fate {
        let (Kind::Transactional, Some((id, ..))) = (entry.kind, entry.producer) else {
            return Fate::Committed;
        };
        match self.transactions.decided_at(id, entry.base_offset) {
            Some(ended) if ended.marker > entry.base_offset => {
                if ended.committed {
                    Fate::Committed
                } else {
                    Fate::Aborted
                }
            }
            _ => Fate::Undecided,
        }
    }

    /// Whether compaction may have dropped everything of the transaction that this marker ended.
    pub(super) fn is_all_to_go(&self, marker: &Entry) -> bool {
        let Some((id, ..)) = marker.producer else {
            return true;
        };
        let ended = self.transactions.decided_at(id, marker.base_offset);
        let Some(&ended) = ended.filter(|ended| ended.marker == marker.base_offset) else {
            return true; // it ended nothing
        };
        let of_it = self.entries_of(ended, self.entry_at(marker.base_offset));
        // What lies before the log's start is gone, too.
        let is_gone = |at: usize| self.entries[at].end() <= self.log_start;
        of_it.into_iter().all(|at| is_gone(at) || self.is_to_go(at))
    }

    /// Whether compaction may have dropped every record of the entry at `index`.
    fn is_to_go(&self, index: usize) -> bool {
        let entry = &self.entries[index];
        (0..entry.keys.len()).all(|at| self.may_go(entry, at))
    }

    /// Whether compaction may have dropped every record from `from` up to `to`.
    pub(super) fn is_range_to_go(&self, from: i64, to: i64) -> bool {
        let mut range = self.entry_at(from)..self.entry_at(to);
        range.all(|at| self.is_to_go(at))
    }

    /// The last stable offset is where the first transaction without a durable end begins, and never goes back.
    pub(super) fn check_stable(&mut self, offsets: LogOffsets) {
        let (start, end) = (offsets.log_start, offsets.high_watermark);
        let expected = match self.transactions.first_undecided() {
            Some(first) => first.max(start).min(end),
            None => end,
        };
        assert_eq!(
            offsets.last_stable, expected,
            "invariant: last stable offset of {:?}, {offsets:?}",
            self.key
        );
        assert!(
            expected >= self.transactions.last_stable,
            "invariant: last stable offset of {:?} went back from {} to {expected}",
            self.key,
            self.transactions.last_stable
        );
        self.transactions.last_stable = expected;
    }

    /// Goes through fetched batches as a consumer of committed records does, with the list of aborted transactions that
    /// came along: what it shows counts, what it leaves out was aborted. Returns how many batches it left out.
    pub(super) fn check_committed(&self, bytes: &[u8], mut listed: Vec<AbortedTransaction>) -> u64 {
        listed.sort_by_key(|t| std::cmp::Reverse(t.first_offset));
        let (mut skipped, mut hidden) = (BTreeSet::new(), 0);
        for batch in Batches::new(bytes) {
            let Some(header) = batch.ok().and_then(BatchHeader::read) else {
                panic!("invariant: {:?} serves what is no batch", self.key)
            };
            let id = header.producer_id.get();
            while let Some(t) = listed.pop_if(|t| t.first_offset <= header.last_offset()) {
                skipped.insert(t.producer_id);
            }
            let entry = &self.entries[self.entry_at(header.base_offset.get())];
            match entry.kind {
                Kind::Marker { committed: false } => {
                    skipped.remove(&id);
                }
                Kind::Marker { .. } => {}
                _ if header.record_count.get() == 0 => {}
                _ => {
                    let is_hidden = header.is_transactional() && skipped.contains(&id);
                    let fate = self.fate(entry);
                    assert!(
                        match fate {
                            Fate::Committed => !is_hidden,
                            Fate::Aborted => is_hidden,
                            Fate::Undecided => false,
                        },
                        "invariant: a committed read of {:?} met offset {}, which is {fate:?}, and left it out: {is_hidden}",
                        self.key,
                        entry.base_offset
                    );
                    hidden += u64::from(is_hidden);
                }
            }
        }
        hidden
    }

    /// Holds the list of aborted transactions in `from..to` against those there were: all of them, or, where a log is
    /// compacted, perhaps without those of which nothing is left, which reading finds out.
    fn check_list(&self, from: i64, to: i64, listed: &[AbortedTransaction]) {
        let aborted = self.transactions.decided.values();
        let expected: BTreeSet<(i64, i64, i64)> = aborted
            .filter(|t| !t.committed && t.marker >= from && t.first < to)
            .map(|t| (t.marker, t.producer_id, t.first))
            .collect();
        let found: BTreeSet<(i64, i64, i64)> = listed
            .iter()
            .map(|t| (t.last_offset, t.producer_id, t.first_offset))
            .collect();
        let is_right = if self.compacts {
            found.is_subset(&expected)
        } else {
            found == expected
        };
        assert!(
            is_right && found.len() == listed.len(),
            "invariant: aborted transactions of {:?} in {from}..{to} are {expected:?}, {found:?} are listed",
            self.key
        );
    }
}

impl World {
    /// The coordinator aborts transactions that nobody will end: their producers have gone on to something else.
    pub(super) fn abort_forsaken(&mut self) {
        let owned: BTreeSet<(PartitionKey, i64)> =
            self.producers.iter().filter_map(|p| p.owns()).collect();
        let forsaken = self
            .models
            .iter()
            .filter(|(_, m)| !m.deleted)
            .find_map(|(&key, model)| {
                let mut ids = model.transactions.ongoing.keys();
                let id = *ids.find(|&&id| !owned.contains(&(key, id)))?;
                Some((key, id, model.epoch_of(id)))
            });
        if let Some((key, id, epoch)) = forsaken {
            let marker = Sent::marker((id, epoch + 1), false, self.now.wall_ms);
            // Where there is no room now, it is tried again.
            let _ = self.append(key, &marker);
        }
    }

    /// Asks for the aborted transactions of a range, as if somebody had fetched it.
    pub(super) fn check_listed(&mut self) {
        let Some(key) = self.some_key() else { return };
        let Some(model) = self.models.get_mut(&key) else {
            return;
        };
        let core = &self.shards[model.shard as usize].core;
        let Some(offsets) = core.offsets(model.part) else {
            return;
        };
        model.observe_durable(core.durable());
        let (start, end) = (offsets.log_start, offsets.last_stable);
        let from = self.rng.between(start as u64, end as u64) as i64;
        let to = self.rng.between(from as u64, end as u64) as i64;
        let to = self.rng.pick(&[to, end, i64::MAX]);
        let listed = core.aborted(model.part, from, to);
        model.check_list(from, to, &listed);
    }
}
