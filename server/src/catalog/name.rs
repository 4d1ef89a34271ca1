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

/// Whether two names differ only in '.' and '_', which metrics names cannot tell apart.
#[must_use]
pub fn collide(a: &str, b: &str) -> bool {
    let fold = |b: u8| if b == b'.' { b'_' } else { b };
    a != b && a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
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
        assert!(collide("a.b", "a_b") && !collide("a.b", "a.b") && !collide("a.b", "a-b"));
    }
}
