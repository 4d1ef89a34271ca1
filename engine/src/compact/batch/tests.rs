use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::batch::header::assign;
use crate::batch::{BatchBuilder, NewRecord};
use crate::store::AbortedTransaction;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 1_700_000_000_000;

/// A record as a consumer sees it: offset, timestamp, key, value.
type Seen = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// One step of those who write the log.
#[derive(Debug, Clone)]
enum Step {
    Plain(Vec<(Option<u8>, Option<u8>)>, i16),
    Transactional(i64, Vec<(Option<u8>, Option<u8>)>, i16),
    End(i64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let record = (
        prop::option::weighted(0.9, 0u8..6),
        prop::option::weighted(0.7, any::<u8>()),
    );
    let records = || prop::collection::vec(record.clone(), 1..6);
    prop_oneof![
        3 => (records(), 0i16..5).prop_map(|(r, c)| Step::Plain(r, c)),
        3 => (1i64..4, records(), 0i16..5).prop_map(|(p, r, c)| Step::Transactional(p, r, c)),
        2 => (1i64..4, any::<bool>()).prop_map(|(p, c)| Step::End(p, c)),
    ]
}

/// A log as a partition holds it, with its aborted transactions.
#[derive(Debug, Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    end: i64,
    open: BTreeMap<i64, i64>,
    aborted: Vec<AbortedTransaction>,
}

impl Log {
    fn write(steps: &[Step]) -> Self {
        let mut log = Self::default();
        for step in steps {
            match step {
                Step::Plain(records, codec) => log.data(None, records, *codec),
                Step::Transactional(id, records, codec) => {
                    log.open.entry(*id).or_insert(log.end);
                    log.data(Some(*id), records, *codec);
                }
                Step::End(id, committed) => log.marker(*id, *committed),
            }
        }
        // Only what is decided is cleaned.
        for id in log.open.keys().copied().collect::<Vec<_>>() {
            log.marker(id, id % 2 == 0);
        }
        log
    }

    fn push(&mut self, mut batch: Vec<u8>) {
        assign(&mut batch, self.end, 3);
        self.end = BatchHeader::read(&batch).unwrap().next_offset();
        self.batches.push(batch);
    }

    fn data(&mut self, id: Option<i64>, records: &[(Option<u8>, Option<u8>)], codec: i16) {
        let mut builder =
            BatchBuilder::new().compression(Compression::from_attributes(codec).unwrap());
        if let Some(id) = id {
            builder = builder.producer(id, 0, self.end as i32).transactional(true);
        }
        for (i, (key, value)) in records.iter().enumerate() {
            builder.push(&NewRecord {
                timestamp_ms: NOW_MS - 1000 + self.end + i as i64,
                key: key.as_ref().map(std::slice::from_ref),
                value: value.as_ref().map(std::slice::from_ref),
                headers: &[("h", Some(b"v"))],
            });
        }
        self.push(builder.build().unwrap());
    }

    fn marker(&mut self, id: i64, committed: bool) {
        let Some(first_offset) = self.open.remove(&id) else {
            return;
        };
        if !committed {
            self.aborted.push(AbortedTransaction {
                producer_id: id,
                first_offset,
                last_offset: self.end,
                stable_offset: self.end + 1,
            });
        }
        let marker = Marker {
            committed,
            coordinator_epoch: 1,
        };
        self.push(marker.batch(id, 0, NOW_MS));
    }

    /// What a committed read delivers, as Kafka's consumer filters it: by the list and by the markers it meets.
    fn committed(&self) -> Vec<Seen> {
        let mut pending = self.aborted.clone();
        pending.sort_by_key(|t| t.first_offset);
        let mut skipping = std::collections::HashSet::new();
        let mut seen = Vec::new();
        for batch in &self.batches {
            let header = BatchHeader::read(batch).unwrap();
            while pending
                .first()
                .is_some_and(|t| t.first_offset <= header.last_offset())
            {
                skipping.insert(pending.remove(0).producer_id);
            }
            let id = header.producer_id.get();
            if header.is_control() {
                if Marker::read(batch).is_some_and(|m| !m.committed) {
                    skipping.remove(&id);
                }
            } else if !(header.is_transactional() && skipping.contains(&id)) {
                seen.extend(records(batch));
            }
        }
        seen
    }

    /// One pass over everything.
    fn clean(&mut self, now_ms: i64, map_bytes: usize) {
        let mut from = 0;
        while from < self.end {
            let mut map = KeyMap::new(map_bytes, 1 << 20, [5; 16]);
            let mut met = CleanTransactions::new(self.aborted.clone());
            let mut scratch = Vec::new();
            for batch in &self.batches {
                if BatchHeader::read(batch).unwrap().last_offset() >= from
                    && !index_batch(&mut map, &mut met, batch, from, &mut scratch)
                {
                    break;
                }
            }
            assert!(map.end() > from || map.end() == 0, "every pass gets on");
            let last = map.end();
            from = if last == 0 { self.end } else { last };
            let policy = Policy {
                now_ms,
                delete_retention_ms: DAY_MS,
            };
            let transactions = CleanTransactions::new(self.aborted.clone());
            let mut cleaner = Cleaner::new(map, policy, transactions);
            let holders: Vec<i64> = self.holders();
            let mut out = Vec::new();
            for batch in &self.batches {
                let header = *BatchHeader::read(batch).unwrap();
                let at = out.len();
                let holds = holders.contains(&header.last_offset());
                let cleaned = cleaner.clean(batch, holds, &mut out);
                match cleaned.cleaned {
                    Cleaned::Dropped => assert_eq!(out.len(), at),
                    Cleaned::Kept => out.extend_from_slice(batch),
                    Cleaned::Rewritten => {
                        let new = BatchHeader::read(&out[at..]).unwrap();
                        assert_eq!(new.base_offset, header.base_offset);
                        assert_eq!(new.last_offset_delta, header.last_offset_delta);
                        assert_eq!(new.base_sequence, header.base_sequence);
                        assert_eq!(new.total_len(), out.len() - at);
                        let codec = header.attributes.get() & ATTR_COMPRESSION;
                        let kept = new.attributes.get() & ATTR_COMPRESSION;
                        assert!(kept == codec || new.record_count.get() == 0);
                    }
                }
            }
            let gone = cleaner.transactions().take_gone();
            self.aborted.retain(|t| !gone.contains(t));
            let mut batches = Batches::new(&out);
            self.batches = batches.by_ref().map(|b| b.unwrap().to_vec()).collect();
            assert!(batches.rest().is_empty());
        }
    }

    /// Last offsets of the batches by which producers are known.
    fn holders(&self) -> Vec<i64> {
        let mut last = BTreeMap::new();
        for batch in &self.batches {
            let header = BatchHeader::read(batch).unwrap();
            if header.is_idempotent() && !header.is_control() {
                last.insert(header.producer_id.get(), header.last_offset());
            }
        }
        last.into_values().collect()
    }
}

fn records(batch: &[u8]) -> Vec<Seen> {
    let header = BatchHeader::read(batch).unwrap();
    let mut scratch = Vec::new();
    let found = records_of(batch, &mut scratch).unwrap();
    let found: Vec<Seen> = found
        .map(|r| r.unwrap())
        .map(|r| {
            (
                header.base_offset.get() + i64::from(r.offset_delta),
                header.base_timestamp.get() + r.timestamp_delta,
                r.key.map(<[u8]>::to_vec),
                r.value.map(<[u8]>::to_vec),
            )
        })
        .collect();
    if !found.is_empty() && !header.is_control() {
        let newest = found.iter().map(|r| r.1).max();
        assert_eq!(newest, Some(header.max_timestamp.get()));
    }
    found
}

/// What must be left of a committed view: of each key the newest.
fn newest(seen: &[Seen]) -> BTreeMap<Vec<u8>, Seen> {
    let keyed = seen.iter().filter_map(|r| Some((r.2.clone()?, r.clone())));
    keyed.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn committed_values_survive_at_their_offsets(
        steps in prop::collection::vec(step(), 1..40),
        map_bytes in prop::sample::select(vec![0usize, 24 * 20, 1 << 20]),
    ) {
        let mut log = Log::write(&steps);
        let before = log.committed();
        let (expected, end) = (newest(&before), log.end);
        log.clean(NOW_MS, map_bytes);
        let after = log.committed();
        prop_assert!(after.iter().all(|r| before.contains(r)), "nothing is made up");
        prop_assert!(after.is_sorted_by(|a, b| a.0 < b.0));
        // A pass with room for all keys leaves the newest of each, and that is all a committed read sees.
        prop_assert_eq!(&newest(&after), &expected);
        if map_bytes == 1 << 20 {
            prop_assert_eq!(after.len(), expected.len());
        }
        // Until the horizon nothing more happens, behind it tombstones go.
        log.clean(NOW_MS + 10, map_bytes);
        let before_second = log.batches.clone();
        log.clean(NOW_MS + DAY_MS - 1, map_bytes);
        prop_assert_eq!(&newest(&log.committed()), &expected);
        prop_assert_eq!(&log.batches, &before_second);
        log.clean(NOW_MS + 3 * DAY_MS, map_bytes);
        log.clean(NOW_MS + 6 * DAY_MS, map_bytes);
        let values = |of: &BTreeMap<Vec<u8>, Seen>| {
            of.values().filter(|r| r.3.is_some()).cloned().collect::<Vec<_>>()
        };
        let last = newest(&log.committed());
        prop_assert_eq!(values(&last), values(&expected));
        prop_assert!(last.values().all(|r| r.3.is_some()), "tombstones are gone");
        prop_assert_eq!(log.end, end);
        // What is left of transactions: batches with records, those that stand for a producer, and their markers.
        for t in &log.aborted {
            let there = |b: &Vec<u8>| BatchHeader::read(b).unwrap().producer_id.get() == t.producer_id;
            prop_assert!(log.batches.iter().any(there), "{t:?} is of no use");
        }
    }

    #[test]
    fn bytes_of_any_kind_are_no_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 61..400),
        magic in any::<bool>(),
    ) {
        if magic {
            bytes[16] = 2;
            let len = (bytes.len() - LOG_OVERHEAD) as i32;
            bytes[8..12].copy_from_slice(&len.to_be_bytes());
            let crc = crc32c(&bytes[CRC_START..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let batches: Vec<_> = Batches::new(&bytes).take(3).collect();
        for batch in batches.into_iter().flatten() {
            let mut map = KeyMap::new(1000, 10, [0; 16]);
            let mut met = CleanTransactions::default();
            index_batch(&mut map, &mut met, batch, 0, &mut Vec::new());
            let policy = Policy { now_ms: 0, delete_retention_ms: i64::MAX };
            let mut cleaner = Cleaner::new(map, policy, CleanTransactions::default());
            cleaner.clean(batch, true, &mut Vec::new());
        }
    }
}

#[test]
fn a_delete_horizon_is_what_kafka_writes() {
    let mut builder = BatchBuilder::new();
    for (timestamp_ms, value) in [(100, None), (140, Some(&b"v"[..]))] {
        builder.push(&NewRecord {
            timestamp_ms,
            key: Some(if value.is_some() { b"b" } else { b"a" }),
            value,
            headers: &[],
        });
    }
    let batch = builder.build().unwrap();
    let map = KeyMap::new(1000, 10, [0; 16]);
    let policy = Policy {
        now_ms: 1000,
        delete_retention_ms: 50,
    };
    let mut cleaner = Cleaner::new(map, policy, CleanTransactions::default());
    let mut out = Vec::new();
    let cleaned = cleaner.clean(&batch, false, &mut out);
    assert_eq!(cleaned.cleaned, Cleaned::Rewritten);
    let header = BatchHeader::validate(&out).unwrap();
    assert_eq!(header.attributes.get(), 0x40);
    assert_eq!(header.base_timestamp.get(), 1050);
    assert_eq!(header.max_timestamp.get(), 140);
    let times: Vec<i64> = records(&out).iter().map(|r| r.1).collect();
    assert_eq!(times, [100, 140]);
}

#[test]
fn the_batch_a_producer_is_known_by_stays_without_its_records() {
    let mut builder = BatchBuilder::new()
        .compression(Compression::Zstd)
        .producer(7, 2, 40);
    for _ in 0..3 {
        builder.push(&NewRecord {
            timestamp_ms: 100,
            key: Some(b"a"),
            value: Some(b"v"),
            headers: &[],
        });
    }
    let mut batch = builder.build().unwrap();
    assign(&mut batch, 10, 1);
    let mut map = KeyMap::new(1000, 10, [0; 16]);
    assert!(map.put(b"a", 20));
    let policy = Policy {
        now_ms: 1000,
        delete_retention_ms: 50,
    };
    let mut cleaner = Cleaner::new(map, policy, CleanTransactions::default());
    let mut out = Vec::new();
    let cleaned = cleaner.clean(&batch, true, &mut out);
    let expected = CleanedBatch {
        cleaned: Cleaned::Rewritten,
        dropped_records: 3,
    };
    assert_eq!(cleaned, expected);
    assert_eq!(out.len(), HEADER_LEN);
    let empty = BatchHeader::parse(&out).unwrap();
    assert_eq!((empty.base_offset.get(), empty.last_offset()), (10, 12));
    assert_eq!(
        (empty.base_sequence.get(), empty.record_count.get()),
        (40, 0)
    );
    assert_eq!(
        (empty.attributes.get(), empty.max_timestamp.get()),
        (0, 100)
    );
    // The next time it is left alone, and dropped when its producer has gone on.
    let again = cleaner.clean(&out.clone(), true, &mut Vec::new());
    assert_eq!(again.cleaned, Cleaned::Kept);
    let again = cleaner.clean(&out.clone(), false, &mut Vec::new());
    assert_eq!(again.cleaned, Cleaned::Dropped);
}

#[test]
fn what_cannot_be_read_is_kept() {
    let mut builder = BatchBuilder::new().compression(Compression::Gzip);
    builder.push(&NewRecord {
        timestamp_ms: 1,
        key: Some(b"a"),
        value: Some(b"v"),
        headers: &[],
    });
    let mut batch = builder.build().unwrap();
    batch[HEADER_LEN..].fill(0xa5);
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let mut map = KeyMap::new(1000, 10, [0; 16]);
    assert!(map.put(b"a", 20));
    let policy = Policy {
        now_ms: 1000,
        delete_retention_ms: 50,
    };
    let mut cleaner = Cleaner::new(map, policy, CleanTransactions::default());
    let cleaned = cleaner.clean(&batch, false, &mut Vec::new());
    assert_eq!(cleaned.cleaned, Cleaned::Kept);
    batch[HEADER_LEN] ^= 1;
    assert!(matches!(
        Batches::new(&batch).next(),
        Some(Err(BatchError::Crc { .. }))
    ));
}
