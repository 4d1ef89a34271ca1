//! Kafka's rules for topic names.

/// Longest name.
pub const NAME_BYTES_MAX: usize = 249;

/// Why `name` may not be a topic's name.
#[must_use]
pub fn invalid(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("topic name is empty".into());
    }
    if name == "." || name == ".." {
        return Some("topic name cannot be \".\" or \"..\"".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Some(format!(
            "topic name has {} characters, at most {NAME_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return Some(format!(
            "topic name {name:?} has characters other than ASCII letters, digits, '.', '_' and '-'"
        ));
    }
    None
}

/// What is the same for all names that metrics names cannot tell apart: those that differ in '.' and '_' alone. `None`
/// for a name that has neither and so is like no other.
#[must_use]
pub fn folded(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_rules() {
        for good in ["a", "A-b_c.9", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(invalid(good), None);
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(250)] {
            assert!(invalid(bad).is_some(), "{bad:?}");
        }
        assert_eq!(folded("a.b"), folded("a_b"));
        assert_ne!(folded("a.b"), folded("a.c"));
        assert_eq!(folded("a-b"), None);
    }
}
