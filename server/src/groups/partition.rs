//! Which partition of the offsets topic, and so which broker, a group belongs to.

/// The internal topic that holds groups and their committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of [`OFFSETS_TOPIC`] that holds `group_id` when the topic has `partitions`: the absolute value of
/// Java's `String.hashCode` (0 for the one that has none), modulo the number of partitions, as in Apache Kafka.
///
/// # Panics
/// If `partitions` is not positive.
#[must_use]
pub fn partition_of(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has partitions");
    java_hash(group_id).checked_abs().unwrap_or(0) % partitions
}

/// Java's `String.hashCode`: over UTF-16 code units.
pub(super) fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_java_does() {
        // The first three stand in the Java documentation's terms: s[0]*31^(n-1) + ... + s[n-1].
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("a"), 97);
        assert_eq!(java_hash("ab"), 97 * 31 + 98);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        // U+1F600 is the surrogate pair D83D DE00.
        assert_eq!(java_hash("😀"), 0xD83D * 31 + 0xDE00);
    }

    #[test]
    fn every_group_has_a_partition_in_range() {
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        for n in 0..1000 {
            let partition = partition_of(&format!("group-{n}"), 7);
            assert!((0..7).contains(&partition));
        }
    }
}
