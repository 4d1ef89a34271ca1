//! From what a member has to what it is to have: first it gives up what others are to have, then it gets what others
//! have given up.

use std::collections::BTreeMap;

use ringlog_engine::id::TopicId;

use super::member::{Assigned, Current, MemberState, Partitions};

/// What a member is to have.
pub(super) struct Goal<'a> {
    /// The target assignment's epoch.
    pub(super) epoch: i32,
    pub(super) target: &'a Partitions,
}

/// The next step of a member towards its goal, if there is one now. `owned` is what it says it reads, if it said so;
/// `is_subscribed` tells the topics it may have, `is_free` whether nobody but the member has a partition.
pub(super) fn reconcile(
    current: &Current,
    goal: &Goal<'_>,
    is_subscribed: impl Fn(TopicId) -> bool,
    is_free: impl Fn(TopicId, i32) -> bool,
    owned: Option<&Partitions>,
) -> Option<Current> {
    match current.state {
        MemberState::Stable => {
            let has_foreign = current.assigned.keys().any(|topic| !is_subscribed(*topic));
            if current.epoch == goal.epoch && !has_foreign {
                return None;
            }
        }
        MemberState::UnrevokedPartitions => {
            if reads_any(owned, &current.pending_revocation) {
                return None;
            }
        }
        MemberState::UnreleasedPartitions => {}
    }
    let next = next(current, goal, is_subscribed, is_free, owned);
    (next != *current).then_some(next)
}

fn next(
    current: &Current,
    goal: &Goal<'_>,
    is_subscribed: impl Fn(TopicId) -> bool,
    is_free: impl Fn(TopicId, i32) -> bool,
    owned: Option<&Partitions>,
) -> Current {
    let is_meant = |topic: TopicId, partition: i32| {
        let target = goal.target.get(&topic);
        is_subscribed(topic) && target.is_some_and(|target| target.contains(&partition))
    };
    let (mut assigned, revoked) = split(&current.assigned, is_meant);
    if !revoked.is_empty() && reads_any(owned, &revoked) {
        return Current {
            epoch: current.epoch,
            previous_epoch: current.epoch,
            state: MemberState::UnrevokedPartitions,
            assigned,
            pending_revocation: revoked,
        };
    }
    let mut is_waiting = false;
    for (topic, partitions) in goal
        .target
        .iter()
        .filter(|(topic, _)| is_subscribed(**topic))
    {
        for partition in partitions {
            if has(&assigned, *topic, *partition) {
                continue;
            }
            if is_free(*topic, *partition) {
                let of_topic = assigned.entry(*topic).or_default();
                of_topic.insert(*partition, goal.epoch);
            } else {
                is_waiting = true;
            }
        }
    }
    Current {
        epoch: goal.epoch,
        previous_epoch: current.epoch,
        state: match is_waiting {
            true => MemberState::UnreleasedPartitions,
            false => MemberState::Stable,
        },
        assigned,
        pending_revocation: Assigned::new(),
    }
}

/// What of `assigned` is kept, and what is not.
fn split(assigned: &Assigned, is_kept: impl Fn(TopicId, i32) -> bool) -> (Assigned, Assigned) {
    let (mut kept, mut rest) = (Assigned::new(), Assigned::new());
    for (topic, partitions) in assigned {
        let (yes, no): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) = partitions
            .iter()
            .partition(|(partition, _)| is_kept(*topic, **partition));
        if !yes.is_empty() {
            kept.insert(*topic, yes);
        }
        if !no.is_empty() {
            rest.insert(*topic, no);
        }
    }
    (kept, rest)
}

fn has(assigned: &Assigned, topic: TopicId, partition: i32) -> bool {
    let partitions = assigned.get(&topic);
    partitions.is_some_and(|partitions| partitions.contains_key(&partition))
}

/// Whether a member that reads `owned` reads any of `partitions`; one that does not say may.
fn reads_any(owned: Option<&Partitions>, partitions: &Assigned) -> bool {
    let Some(owned) = owned else {
        return true;
    };
    owned
        .iter()
        .any(|(topic, owned)| owned.iter().any(|p| has(partitions, *topic, *p)))
}

/// Whether a member that reads `owned` reads nothing but what it has; one that does not say may read more.
pub(super) fn reads_only(owned: Option<&Partitions>, assigned: &Assigned) -> bool {
    owned.is_some_and(|owned| {
        let mut topics = owned.iter();
        topics.all(|(topic, owned)| owned.iter().all(|p| has(assigned, *topic, *p)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId([1; 16]);

    fn partitions(of: &[i32]) -> Partitions {
        Partitions::from([(TOPIC, of.iter().copied().collect())])
    }

    fn current(epoch: i32, of: &[i32]) -> Current {
        let assigned = of.iter().map(|partition| (*partition, epoch)).collect();
        Current {
            epoch,
            previous_epoch: epoch - 1,
            assigned: Assigned::from([(TOPIC, assigned)]),
            ..Current::default()
        }
    }

    fn step(
        from: &Current,
        epoch: i32,
        target: &[i32],
        taken: &[i32],
        reads: Option<&[i32]>,
    ) -> Option<Current> {
        let (target, owned) = (partitions(target), reads.map(partitions));
        let goal = Goal {
            epoch,
            target: &target,
        };
        let is_free = |_, partition| !taken.contains(&partition);
        reconcile(from, &goal, |_| true, is_free, owned.as_ref())
    }

    #[test]
    fn what_others_are_to_have_is_given_up_first() {
        let start = current(1, &[0, 1, 2]);
        let revoking = step(&start, 2, &[0, 3], &[], None).unwrap();
        assert_eq!(revoking.state, MemberState::UnrevokedPartitions);
        assert_eq!((revoking.epoch, revoking.previous_epoch), (1, 1));
        assert_eq!(revoking.assigned[&TOPIC], BTreeMap::from([(0, 1)]));
        assert_eq!(
            revoking.pending_revocation[&TOPIC],
            BTreeMap::from([(1, 1), (2, 1)])
        );
        // As long as it reads one of them, or does not say, it waits.
        assert_eq!(step(&revoking, 2, &[0, 3], &[], Some(&[0, 2])), None);
        assert_eq!(step(&revoking, 2, &[0, 3], &[], None), None);
        let done = step(&revoking, 2, &[0, 3], &[], Some(&[0])).unwrap();
        assert!(done.is_reconciled_to(2));
        assert_eq!(done.assigned[&TOPIC], BTreeMap::from([(0, 1), (3, 2)]));
        assert_eq!(step(&done, 2, &[0, 3], &[], None), None);
    }

    #[test]
    fn what_others_have_is_waited_for_in_the_new_epoch() {
        let start = current(1, &[]);
        let waiting = step(&start, 2, &[0, 1], &[1], Some(&[])).unwrap();
        assert_eq!(
            (waiting.epoch, waiting.state),
            (2, MemberState::UnreleasedPartitions)
        );
        assert_eq!(waiting.assigned[&TOPIC], BTreeMap::from([(0, 2)]));
        let done = step(&waiting, 2, &[0, 1], &[], None).unwrap();
        assert!(done.is_reconciled_to(2));
        assert_eq!(done.assigned[&TOPIC], BTreeMap::from([(0, 2), (1, 2)]));
    }

    #[test]
    fn a_topic_it_no_longer_subscribes_to_is_given_up_at_once() {
        let start = current(3, &[0]);
        let target = partitions(&[0]);
        let goal = Goal {
            epoch: 3,
            target: &target,
        };
        let left = reconcile(&start, &goal, |_| false, |_, _| true, None).unwrap();
        assert_eq!(left.state, MemberState::UnrevokedPartitions);
        assert!(left.assigned.is_empty());
    }
}
