use std::collections::BTreeSet;

use super::*;

struct Members {
    ids: Vec<StrBytes>,
    topics: Vec<Vec<usize>>,
    targets: Vec<Partitions>,
}

impl Members {
    fn new(topics: &[&[usize]]) -> Self {
        Self {
            ids: (0..topics.len())
                .map(|at| format!("m{at}").into())
                .collect(),
            topics: topics.iter().map(|of| of.to_vec()).collect(),
            targets: vec![Partitions::new(); topics.len()],
        }
    }

    fn remove(&mut self, at: usize) {
        self.ids.remove(at);
        self.topics.remove(at);
        self.targets.remove(at);
    }

    /// Assigns, checks what must hold of every assignment, and returns how many partitions moved between members.
    fn assign(&mut self, assignor: Assignor, partitions: &[i32]) -> usize {
        let topics = partitions.iter().enumerate();
        let topics = topics.map(|(at, partitions)| Topic {
            id: TopicId([at as u8 + 1; 16]),
            partitions: *partitions,
        });
        let input = Input {
            topics: topics.collect(),
            members: (0..self.ids.len())
                .map(|at| Subscriber {
                    id: &self.ids[at],
                    instance_id: None,
                    topics: self.topics[at].clone(),
                    target: Some(&self.targets[at]),
                })
                .collect(),
        };
        let next = assignor.assign(&input);
        for (at, topic) in input.topics.iter().enumerate() {
            let subscribers = self
                .topics
                .iter()
                .filter(|topics| topics.contains(&at))
                .count();
            let mut all: Vec<i32> = Vec::new();
            for (member, assigned) in next.iter().enumerate() {
                let mine = assigned.get(&topic.id);
                assert!(
                    mine.is_none() || self.topics[member].contains(&at),
                    "a stranger's topic"
                );
                all.extend(mine.into_iter().flatten());
            }
            all.sort_unstable();
            let expected: Vec<i32> = match subscribers {
                0 => Vec::new(),
                _ => (0..topic.partitions).collect(),
            };
            assert_eq!(all, expected, "every partition once");
        }
        let before = flat(&self.targets);
        let after = flat(&next);
        let had: BTreeSet<_> = before.iter().map(|(_, what)| what).collect();
        let moved = after
            .difference(&before)
            .filter(|(_, what)| had.contains(what))
            .count();
        drop(input);
        self.targets = next;
        moved
    }

    fn loads(&self) -> Vec<usize> {
        let load = |of: &Partitions| of.values().map(BTreeSet::len).sum();
        self.targets.iter().map(load).collect()
    }
}

/// Targets as pairs of member and partition, members by what they have, since places change.
fn flat(targets: &[Partitions]) -> BTreeSet<(usize, (TopicId, i32))> {
    let all = targets.iter().enumerate();
    all.flat_map(|(at, of)| {
        of.iter()
            .flat_map(move |(t, ps)| ps.iter().map(move |p| (at, (*t, *p))))
    })
    .collect()
}

#[test]
fn uniform_shares_alike_and_moves_no_more_than_it_must() {
    let mut members = Members::new(&[&[0, 1], &[0, 1], &[0, 1]]);
    members.assign(Assignor::Uniform, &[7, 5]);
    assert_eq!(members.loads(), [4, 4, 4]);
    assert_eq!(members.assign(Assignor::Uniform, &[7, 5]), 0);
    // A newcomer takes its share, one from each.
    members.ids.push("m9".into());
    members.topics.push(vec![0, 1]);
    members.targets.push(Partitions::new());
    assert_eq!(members.assign(Assignor::Uniform, &[7, 5]), 3);
    assert_eq!(members.loads(), [3, 3, 3, 3]);
    // The last one leaves: nothing moves between the others.
    members.remove(3);
    assert_eq!(members.assign(Assignor::Uniform, &[7, 5]), 0);
    assert_eq!(members.loads(), [4, 4, 4]);
    // More partitions than before.
    assert_eq!(members.assign(Assignor::Uniform, &[7, 7]), 0);
    assert_eq!(members.loads(), [5, 5, 4]);
}

#[test]
fn uniform_has_members_without_partitions_when_there_are_few() {
    let mut members = Members::new(&[&[0], &[0], &[0]]);
    members.assign(Assignor::Uniform, &[2]);
    assert_eq!(members.loads(), [1, 1, 0]);
    let mut nobody = Members::new(&[]);
    nobody.assign(Assignor::Uniform, &[3]);
}

#[test]
fn uniform_evens_out_where_subscriptions_differ() {
    let mut members = Members::new(&[&[0], &[0, 1], &[1]]);
    members.assign(Assignor::Uniform, &[6, 6]);
    assert_eq!(members.loads(), [4, 4, 4]);
    assert_eq!(members.assign(Assignor::Uniform, &[6, 6]), 0);
    let mut uneven = Members::new(&[&[0], &[0, 1]]);
    uneven.assign(Assignor::Uniform, &[2, 10]);
    assert_eq!(uneven.loads(), [2, 10]);
    // All had been one member's.
    let mut late = Members::new(&[&[0, 1], &[0]]);
    late.targets[0] = Partitions::from([
        (TopicId([1; 16]), (0..8).collect()),
        (TopicId([2; 16]), [0].into()),
    ]);
    late.assign(Assignor::Uniform, &[8, 1]);
    assert_eq!(late.loads(), [5, 4]);
}

#[test]
fn range_gives_neighbours_and_the_same_ones_in_topics_of_one_size() {
    let mut members = Members::new(&[&[0, 1, 2], &[0, 1], &[0, 1]]);
    members.assign(Assignor::Range, &[7, 7, 2]);
    let ranges: Vec<Vec<i32>> = members
        .targets
        .iter()
        .map(|of| of[&TopicId([1; 16])].iter().copied().collect())
        .collect();
    assert_eq!(ranges, [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
    for target in &members.targets {
        assert_eq!(target[&TopicId([1; 16])], target[&TopicId([2; 16])]);
    }
    assert_eq!(members.targets[0][&TopicId([3; 16])].len(), 2);
}
