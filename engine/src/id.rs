//! Names of things: topics, partitions, time.

use std::fmt;

/// A topic's 128-bit id. A topic deleted and created again gets a new one, so it never adopts old data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The id of no topic, as Kafka's protocol uses it.
    pub const ZERO: Self = Self([0; 16]);

    /// Reads what [`fmt::Display`] writes: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest name of a file or directory, bytes: `NAME_MAX` of Linux, which ext4 and XFS share.
pub const NAME_MAX: usize = 255;

/// One partition of one topic, on every shard and across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number in the topic, from 0.
    pub partition: i32,
}

impl PartitionKey {
    /// The shard that owns the partition when there are `shards`: neighbours lie on different shards.
    ///
    /// # Panics
    /// If `shards` is 0.
    #[must_use]
    pub fn shard(&self, shards: u32) -> u32 {
        let first = u32::from_be_bytes([0, self.topic.0[0], self.topic.0[1], self.topic.0[2]]);
        first.wrapping_add(self.partition as u32) % shards
    }

    /// The partition's folder under `topics/`: `<topic>-<partition>.<topic id>`, at most [`NAME_MAX`] bytes. Of a topic
    /// whose name is too long for that it has the beginning: the id tells it from others.
    #[must_use]
    pub fn dir_name(&self, topic_name: &str) -> String {
        let unique = format!("-{}.{}", self.partition, self.topic);
        let kept = topic_name.floor_char_boundary(NAME_MAX - unique.len());
        format!("{}{unique}", &topic_name[..kept])
    }
}

/// A partition's place in one shard's table, valid while the process runs; never reused for another partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part(pub u32);

/// Sequence number of a journal frame; frames become durable in this order. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameSeq(pub u64);

/// What the clocks say, read once a turn by whoever drives the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic clock, nanoseconds since an arbitrary start.
    pub mono_ns: u64,
    /// Wall clock, milliseconds since 1970 (Kafka's timestamps).
    pub wall_ms: i64,
}

impl Now {
    /// The moment `ms` milliseconds later on the monotonic clock, in its nanoseconds.
    #[must_use]
    pub fn after_ms(&self, ms: u64) -> u64 {
        self.mono_ns.saturating_add(ms.saturating_mul(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_read_back_and_refuse_other_spellings() {
        let id = TopicId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("+00102030405060708090a0b0c0d0eff"), None);
        assert_eq!(TopicId::parse(&id.to_string().to_uppercase()), None);
        assert_eq!(TopicId::parse("00"), None);
    }

    #[test]
    fn a_directory_has_as_much_of_its_topic_as_fits_into_a_name() {
        let key = PartitionKey {
            topic: TopicId([0xab; 16]),
            partition: i32::MAX,
        };
        let unique = format!("-{}.{}", i32::MAX, "ab".repeat(16));
        assert_eq!(key.dir_name("logs"), format!("logs{unique}"));
        let fits = "t".repeat(NAME_MAX - unique.len());
        assert_eq!(key.dir_name(&fits), format!("{fits}{unique}"));
        let longest = "t".repeat(249);
        assert_eq!(key.dir_name(&longest), format!("{fits}{unique}"));
        assert_eq!(key.dir_name(&longest).len(), NAME_MAX);
        // Kafka's names are ASCII; another one is cut between its characters.
        assert_eq!(key.dir_name(&"\u{20ac}".repeat(100)).len(), NAME_MAX - 1);
    }

    #[test]
    fn neighbouring_partitions_spread_over_shards() {
        let key = |partition| PartitionKey {
            topic: TopicId([7; 16]),
            partition,
        };
        let mut seen: Vec<u32> = (0..4).map(|p| key(p).shard(4)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}
