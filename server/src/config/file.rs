//! Reads settings in the syntax of Kafka's `server.properties`: Java properties without the exotic parts.

use thiserror::Error;

/// What is wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// The settings in `text` with their line numbers. `#` and `!` start comments, `=` or `:` ends a name, a backslash
/// at the end of a line goes on with the next.
///
/// # Errors
/// [`ConfigError`] for a line without a value.
pub fn parse_properties(text: &str) -> Result<Vec<(usize, String, String)>, ConfigError> {
    let mut settings = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut entry = line.trim_start().to_owned();
        if entry.is_empty() || entry.starts_with(['#', '!']) {
            continue;
        }
        while entry.ends_with('\\') {
            entry.pop();
            entry.push_str(lines.next().map_or("", |(_, next)| next.trim_start()));
        }
        let (name, value) = entry.split_once(['=', ':']).ok_or_else(|| ConfigError {
            line: number + 1,
            what: format!("{entry:?} is not of the form name=value"),
        })?;
        settings.push((number + 1, name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_comments_and_continuations() {
        let text = "# c\n! c\n\n a = b \nlist=x,\\\n  y\nd:e\n";
        let all = parse_properties(text).expect("valid");
        let all: Vec<_> = all
            .iter()
            .map(|(n, k, v)| (*n, k.as_str(), v.as_str()))
            .collect();
        assert_eq!(all, [(4, "a", "b"), (5, "list", "x,y"), (7, "d", "e")]);
        assert_eq!(
            parse_properties("a=b\nnonsense")
                .expect_err("no value")
                .line,
            2
        );
    }
}
