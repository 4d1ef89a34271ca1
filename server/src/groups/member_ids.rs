//! Where the random part of member ids comes from.

use std::hash::{DefaultHasher, Hash, Hasher};

use ringlog_engine::recovery::RunInfo;

/// Numbers that no other run or shard of a data directory gives. They are no secrets: DescribeGroups shows member
/// ids to everybody.
#[derive(Debug)]
pub struct MemberIds {
    seed: ([u8; 16], u32, u32),
    count: u64,
}

impl MemberIds {
    /// The numbers of one shard in one run.
    #[must_use]
    pub fn new(run: RunInfo, shard: u32) -> Self {
        Self {
            seed: (run.dir_id, run.run, shard),
            count: 0,
        }
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u128 {
        self.count += 1;
        let half = |half: u8| {
            let mut hasher = DefaultHasher::new();
            (self.seed, self.count, half).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_shards_differ() {
        let ids = |run, shard| {
            let run = RunInfo {
                run,
                leader_epoch: 0,
                dir_id: [7; 16],
            };
            let mut ids = MemberIds::new(run, shard);
            [ids.next(), ids.next()]
        };
        let all = [ids(1, 0), ids(1, 1), ids(2, 0)].concat();
        for (at, id) in all.iter().enumerate() {
            assert!(!all[..at].contains(id));
        }
        assert_eq!(ids(1, 0), ids(1, 0));
    }
}
