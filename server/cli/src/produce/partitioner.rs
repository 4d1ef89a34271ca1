//! Which partition a record goes to, as Kafka's own clients decide it.

/// Records without a key that go to one partition before the next has its turn.
const STICKY_RECORDS: u32 = 200;

/// Decides by key, else in turns.
#[derive(Debug)]
pub(crate) struct Partitioner {
    partitions: Vec<i32>,
    fixed: Option<i32>,
    turn: usize,
    left: u32,
}

impl Partitioner {
    /// Among `partitions`, by number; with `fixed` always that one.
    pub(crate) fn new(partitions: Vec<i32>, fixed: Option<i32>) -> Self {
        Self {
            partitions,
            fixed,
            turn: 0,
            left: STICKY_RECORDS,
        }
    }

    /// The partition of a record that asks for `wanted`, or has this key; `None` if there is no such partition.
    pub(crate) fn choose(&mut self, wanted: Option<i32>, key: Option<&[u8]>) -> Option<i32> {
        let count = self.partitions.len();
        if let Some(fixed) = self.fixed.or(wanted) {
            return self.partitions.contains(&fixed).then_some(fixed);
        }
        if let Some(key) = key {
            let hash = (murmur2(key) & 0x7fff_ffff) as usize;
            return self.partitions.get(hash.checked_rem(count)?).copied();
        }
        if self.left == 0 {
            self.left = STICKY_RECORDS;
            self.turn += 1;
        }
        self.left -= 1;
        self.partitions.get(self.turn.checked_rem(count)?).copied()
    }
}

/// MurmurHash2 with the seed of org.apache.kafka.common.utils.Utils.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafkas_clients_send_them() {
        // From UtilsTest.testMurmur2 of Apache Kafka.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn without_a_key_partitions_take_turns() {
        let mut partitioner = Partitioner::new(vec![0, 1, 2], None);
        let mut counts = [0; 3];
        for _ in 0..6 * STICKY_RECORDS {
            counts[partitioner.choose(None, None).unwrap() as usize] += 1;
        }
        assert_eq!(counts, [2 * STICKY_RECORDS; 3]);
        assert_eq!(partitioner.choose(Some(1), Some(b"k")), Some(1));
        assert_eq!(partitioner.choose(Some(9), None), None);
        let mut fixed = Partitioner::new(vec![0, 1], Some(1));
        assert_eq!(fixed.choose(None, Some(b"21")), Some(1));
        assert_eq!(
            Partitioner::new(vec![], None).choose(None, Some(b"k")),
            None
        );
    }
}
