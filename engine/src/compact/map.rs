//! The newest offset of each key, in bounded memory: a hash of the key stands for it, as in Kafka's
//! `SkimpyOffsetMap`.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Words of a slot: the key's hash in two, and its newest offset plus one; 0 is a free slot.
const SLOT_WORDS: usize = 3;
/// Bytes of a slot.
const SLOT_BYTES: usize = SLOT_WORDS * 8;
/// Fewest slots.
const SLOTS_MIN: usize = 16;
/// Of 10 slots so many are used at most (`log.cleaner.io.buffer.load.factor` is 0.9 in Kafka).
const LOAD_TENTHS: usize = 9;

/// Newest offsets by key. Two keys with the same 128-bit hash count as one: the hash is keyed with something that
/// producers do not know.
#[derive(Debug)]
pub struct KeyMap {
    words: Vec<u64>,
    slots: usize,
    len: usize,
    secret: [u8; 16],
    end: i64,
    /// Wrong on purpose: the oldest record of each key counts.
    keeps_oldest: bool,
}

impl KeyMap {
    /// A map for `keys` keys, should so many fit into `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize, keys: u64, secret: [u8; 16]) -> Self {
        let most = (bytes_max / SLOT_BYTES).max(SLOTS_MIN);
        let wanted = usize::try_from(keys).unwrap_or(most);
        let wanted = (wanted.min(most) * 10 / LOAD_TENTHS + 1).max(SLOTS_MIN);
        let slots = wanted.min(most);
        Self {
            words: vec![0; slots * SLOT_WORDS],
            slots,
            len: 0,
            secret,
            end: 0,
            keeps_oldest: false,
        }
    }

    /// The same with a fault that tests must notice.
    #[must_use]
    pub fn keeping_oldest(mut self, wrong: bool) -> Self {
        self.keeps_oldest = wrong;
        self
    }

    /// Keys in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Offset behind the last record that it has seen; what lies behind is not decided by it.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Everything before `end` has been looked at.
    pub fn seen_to(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Notes that the record of `key` at `offset`, which is newer than all before, exists; false when there is no room
    /// for another key.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        let is_new = self.words[at + 2] == 0;
        if is_new {
            if self.len >= self.slots * LOAD_TENTHS / 10 {
                return false;
            }
            self.len += 1;
            (self.words[at], self.words[at + 1]) = hash;
        }
        if is_new || !self.keeps_oldest {
            self.words[at + 2] = offset.cast_unsigned() + 1;
        }
        self.seen_to(offset + 1);
        true
    }

    /// Newest offset of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let at = self.find(self.hash(key));
        self.words[at + 2].checked_sub(1).map(u64::cast_signed)
    }

    /// Whether a newer record of the key makes the one at `offset` superfluous.
    #[must_use]
    pub fn supersedes(&self, key: &[u8], offset: i64) -> bool {
        let newest = self.get(key);
        if self.keeps_oldest {
            return newest.is_some_and(|first| offset > first);
        }
        newest.is_some_and(|newest| offset < newest)
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(key);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    /// First word of the slot of `hash`, or of the free one where it belongs. One in ten is free, so this ends.
    fn find(&self, hash: (u64, u64)) -> usize {
        // The high half of the product: no division, and no power of two.
        let mut slot = ((u128::from(hash.0) * self.slots as u128) >> 64) as usize;
        loop {
            let at = slot * SLOT_WORDS;
            let (words, offset) = (&self.words[at..at + 2], self.words[at + 2]);
            if offset == 0 || words == [hash.0, hash.1] {
                return at;
            }
            slot = if slot + 1 == self.slots { 0 } else { slot + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn memory_is_bounded_and_a_full_map_says_so() {
        let mut map = KeyMap::new(24 * 100, 1 << 40, [3; 16]);
        assert_eq!(map.bytes(), 24 * 100);
        let taken = (0..1000).take_while(|n: &i64| map.put(&n.to_le_bytes(), *n));
        assert_eq!(taken.count(), 90);
        assert_eq!((map.len(), map.end()), (90, 90));
        assert!(
            map.put(&5i64.to_le_bytes(), 2000),
            "a key that is there needs no room"
        );
        assert_eq!(map.get(&5i64.to_le_bytes()), Some(2000));
        assert_eq!(map.get(&95i64.to_le_bytes()), None);
        assert!(KeyMap::new(1 << 40, 10, [0; 16]).bytes() <= 24 * SLOTS_MIN);
    }

    #[test]
    fn room_for_the_keys_expected_is_enough() {
        for keys in [0u64, 1, 14, 15, 100, 12_345] {
            let mut map = KeyMap::new(1 << 30, keys, [1; 16]);
            for n in 0..keys {
                assert!(map.put(&n.to_le_bytes(), n as i64), "{n} of {keys}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map(keys in prop::collection::vec(prop::collection::vec(0u8..4, 0..5), 0..300)) {
            let mut map = KeyMap::new(1 << 20, keys.len() as u64, [7; 16]);
            let mut model = HashMap::new();
            for (offset, key) in keys.iter().enumerate() {
                prop_assert!(map.put(key, offset as i64));
                model.insert(key.clone(), offset as i64);
            }
            prop_assert_eq!(map.len(), model.len());
            for (key, offset) in model {
                prop_assert_eq!(map.get(&key), Some(offset));
                prop_assert!(!map.supersedes(&key, offset) && map.supersedes(&key, offset - 1));
            }
            prop_assert_eq!(map.get(b"another"), None);
        }
    }
}
