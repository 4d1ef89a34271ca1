//! Subscriptions by regular expression. Kafka's syntax is that of RE2, which the `regex` crate shares: no look-around, no
//! back-references, time linear in the text.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::super::StrBytes;

/// The longest expression, in bytes.
const PATTERN_BYTES_MAX: usize = 16 << 10;
/// What an expression may take in memory when compiled, in bytes.
const COMPILED_BYTES_MAX: usize = 2 << 20;

/// What an expression matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) topics: BTreeSet<StrBytes>,
    /// Version of the catalog it was matched against.
    pub(crate) version: i64,
    /// When, milliseconds since 1970.
    pub(crate) timestamp_ms: i64,
}

impl Resolved {
    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let topics = self.topics.iter();
        let topics = topics.map(|topic| size_of::<StrBytes>() + topic.len());
        size_of::<Self>() + topics.sum::<usize>()
    }
}

/// Compiles an expression that is to match whole topic names.
///
/// # Errors
/// Why it is none, for people.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
    };
    // Alone first: what follows must not close a parenthesis that it opens.
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        // The first line says what is wrong, the others draw it.
        .map_err(|error| {
            error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match() {
        let regex = compile("a|ab.*").unwrap();
        assert!(regex.is_match("a") && regex.is_match("abc"));
        assert!(!regex.is_match("ba") && !regex.is_match("ac"));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        for pattern in [
            "a(",
            "a)(b",
            "*",
            "(?!x)",
            r"(a)\1",
            "(?x) a # b",
            "((a{1000}){1000}){1000}",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
