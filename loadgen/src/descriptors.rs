//! The limit of open files, raised as far as it goes before connections are made.

use ringlog_engine::ring::raise_descriptors;
use thiserror::Error;

/// Descriptors besides those of connections: standard streams, pollers, files of records and results, short-lived
/// connections for metadata.
const OTHERS: u64 = 64;

/// More connections are wanted than files may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{needed} open files are needed for {connections} {what}, and {limit} are allowed: raise the hard limit with \
     'ulimit -Hn {needed}' or LimitNOFILE={needed} in a unit, or ask for fewer connections"
)]
pub struct TooFew {
    /// Descriptors needed.
    pub needed: u64,
    /// What for, as many of `what`.
    pub connections: u64,
    /// Kind of the connections.
    pub what: &'static str,
    /// Descriptors allowed.
    pub limit: u64,
}

/// Raises the limit of open files to the hard limit, and checks that `connections` fit.
///
/// # Errors
/// [`TooFew`]: the hard limit is too low.
pub fn ensure(connections: usize, what: &'static str) -> Result<(), TooFew> {
    let needed = needed(connections);
    let limit = raise_descriptors();
    if limit >= needed {
        return Ok(());
    }
    Err(TooFew {
        needed,
        connections: connections as u64,
        what,
        limit,
    })
}

fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_add(OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_connections_always_fit_and_too_many_are_refused_with_the_remedy() {
        assert_eq!(ensure(8, "connections"), Ok(()));
        let error = ensure(usize::MAX / 2, "connections").unwrap_err();
        assert_eq!(error.needed, needed(usize::MAX / 2));
        let line = error.to_string();
        assert!(
            line.contains("ulimit -Hn") && !line.contains('\n'),
            "{line}"
        );
    }
}
