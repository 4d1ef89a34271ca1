//! Which partitions go into one request.

use std::ops::Range;
use std::sync::Arc;

use crate::cluster::{Cluster, Partition};

/// What one leader gets, cut into requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderPlan {
    /// Node id.
    pub leader: i32,
    /// `HOST:PORT`.
    pub address: String,
    /// The leader's partitions by topic and index, each with its place in [`Cluster::partitions`].
    pub partitions: Vec<(u32, Partition)>,
    /// Ranges of `partitions`, one for each request; never empty.
    pub groups: Vec<Range<usize>>,
}

/// One plan for every leader, in the order of node ids.
pub(super) fn plans(cluster: &Cluster, partitions_per_request: usize) -> Vec<Arc<LeaderPlan>> {
    cluster
        .leaders()
        .into_iter()
        .map(|leader| {
            let partitions: Vec<_> = cluster
                .partitions
                .iter()
                .enumerate()
                .filter(|(_, partition)| partition.leader == leader)
                .map(|(place, partition)| (place as u32, *partition))
                .collect();
            let step = partitions_per_request.max(1);
            let groups = (0..partitions.len())
                .step_by(step)
                .map(|start| start..(start + step).min(partitions.len()))
                .collect();
            let address = cluster.brokers[&leader].clone();
            Arc::new(LeaderPlan {
                leader,
                address,
                partitions,
                groups,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_in_one_request_of_its_leader() {
        let partitions = (0..10)
            .map(|index| Partition {
                topic: (index / 5) as u32,
                index: index % 5,
                leader: index % 2,
            })
            .collect();
        let brokers = [
            (0, "a:1".to_owned()),
            (1, "b:2".to_owned()),
            (2, "c:3".to_owned()),
        ];
        let topics = vec!["s".into(), "t".into()];
        let cluster = Cluster {
            topics,
            partitions,
            brokers: brokers.into(),
            revision: 0,
        };
        let plans = plans(&cluster, 2);
        assert_eq!(plans.len(), 2);
        let mut seen = Vec::new();
        for plan in &plans {
            assert_eq!(plan.groups.len(), 3);
            for group in &plan.groups {
                for (place, partition) in &plan.partitions[group.clone()] {
                    assert_eq!(partition.leader, plan.leader);
                    seen.push(*place);
                }
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(plans[1].address, "b:2");
    }
}
