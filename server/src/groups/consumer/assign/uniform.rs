//! As many partitions for each member as its subscription allows, and as few moves as that takes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Input, Partitions};

/// No member.
const NOBODY: usize = usize::MAX;

pub(super) fn assign(input: &Input<'_>) -> Vec<Partitions> {
    let mut table = Table::new(input);
    let is_same = |pair: &[super::Subscriber<'_>]| pair[0].topics == pair[1].topics;
    if input.members.windows(2).all(is_same) {
        table.share_alike();
    } else {
        table.share_by_subscription();
    }
    table.into_assigned()
}

/// Who has which partition. Partitions of all topics are numbered through.
struct Table<'a> {
    input: &'a Input<'a>,
    /// The number of each topic's first partition, and of what follows the last.
    first: Vec<usize>,
    /// By number of the partition.
    owner: Vec<usize>,
    /// By member.
    load: Vec<usize>,
}

impl<'a> Table<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        let mut first = vec![0];
        for topic in &input.topics {
            let last = first.last().copied().unwrap_or(0);
            first.push(last + topic.partitions.max(0) as usize);
        }
        let count = first.last().copied().unwrap_or(0);
        Self {
            input,
            first,
            owner: vec![NOBODY; count],
            load: vec![0; input.members.len()],
        }
    }

    fn give(&mut self, partition: usize, member: usize) {
        let before = std::mem::replace(&mut self.owner[partition], member);
        if before != NOBODY {
            self.load[before] -= 1;
        }
        self.load[member] += 1;
    }

    /// Numbers of the partitions that a member was to have and may have.
    fn earlier(&self, member: usize) -> Vec<usize> {
        let subscriber = &self.input.members[member];
        let Some(target) = subscriber.target else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for at in &subscriber.topics {
            let topic = self.input.topics[*at];
            let partitions = target.get(&topic.id).into_iter().flatten();
            let there = partitions.filter(|p| (0..topic.partitions).contains(*p));
            found.extend(there.map(|partition| self.first[*at] + *partition as usize));
        }
        found
    }

    /// Everybody subscribes to the same: loads differ by one at most.
    fn share_alike(&mut self) {
        let members = self.input.members.len();
        if members == 0 {
            return;
        }
        let topics = self.input.members[0].topics.iter();
        let mine: Vec<usize> = topics
            .flat_map(|at| self.first[*at]..self.first[at + 1])
            .collect();
        let (floor, mut extra) = (mine.len() / members, mine.len() % members);
        let mut quota = vec![floor; members];
        for (member, quota) in quota.iter_mut().enumerate() {
            let earlier = self.earlier(member);
            // Who has one more keeps it, as long as some may.
            if earlier.len() > floor && extra > 0 {
                extra -= 1;
                *quota += 1;
            }
            for partition in earlier.into_iter().take(*quota) {
                if self.owner[partition] == NOBODY {
                    self.give(partition, member);
                }
            }
        }
        for quota in quota
            .iter_mut()
            .filter(|quota| **quota == floor)
            .take(extra)
        {
            *quota += 1;
        }
        let wants = |load: &[usize], member: usize| load[member] < quota[member];
        let mut needy: VecDeque<usize> = (0..members).filter(|m| wants(&self.load, *m)).collect();
        for partition in mine {
            if self.owner[partition] != NOBODY {
                continue;
            }
            // The quotas add up to the partitions.
            let Some(member) = needy.pop_front() else {
                return;
            };
            self.give(partition, member);
            if wants(&self.load, member) {
                needy.push_back(member);
            }
        }
    }

    /// Subscriptions differ: what is free goes to the least loaded who may have it, those first that few may have; then
    /// partitions move from the most loaded as long as that evens loads out.
    fn share_by_subscription(&mut self) {
        for member in 0..self.input.members.len() {
            for partition in self.earlier(member) {
                if self.owner[partition] == NOBODY {
                    self.give(partition, member);
                }
            }
        }
        let mut subscribers: Vec<Vec<usize>> = vec![Vec::new(); self.input.topics.len()];
        for (member, subscriber) in self.input.members.iter().enumerate() {
            for topic in &subscriber.topics {
                subscribers[*topic].push(member);
            }
        }
        let mut order: Vec<usize> = (0..subscribers.len()).collect();
        order.sort_by_key(|topic| subscribers[*topic].len());
        for topic in order {
            self.give_free(topic, &subscribers[topic]);
        }
        self.even_out(&subscribers);
    }

    fn give_free(&mut self, topic: usize, subscribers: &[usize]) {
        let by_load = subscribers.iter().map(|m| Reverse((self.load[*m], *m)));
        let mut least: BinaryHeap<Reverse<(usize, usize)>> = by_load.collect();
        for partition in self.first[topic]..self.first[topic + 1] {
            if self.owner[partition] != NOBODY {
                continue;
            }
            let Some(Reverse((_, member))) = least.pop() else {
                return;
            };
            self.give(partition, member);
            least.push(Reverse((self.load[member], member)));
        }
    }

    fn even_out(&mut self, subscribers: &[Vec<usize>]) {
        let mut has: Vec<Vec<usize>> = vec![Vec::new(); self.load.len()];
        for (partition, owner) in self.owner.iter().enumerate() {
            if *owner != NOBODY {
                has[*owner].push(partition);
            }
        }
        let mut most: BinaryHeap<(usize, usize)> =
            (0..has.len()).map(|m| (self.load[m], m)).collect();
        // Every move makes loads more even, so there are fewer than this.
        let mut moves_left = self.owner.len().saturating_mul(2);
        while let Some((load, member)) = most.pop() {
            if load != self.load[member] {
                continue;
            }
            let Some((place, to)) = self.best_move(member, &has[member], subscribers) else {
                continue;
            };
            let partition = has[member].swap_remove(place);
            self.give(partition, to);
            has[to].push(partition);
            most.push((self.load[member], member));
            most.push((self.load[to], to));
            moves_left -= 1;
            if moves_left == 0 {
                return;
            }
        }
    }

    /// A partition of `member` (its place among `has`) and the least loaded of those who may have it and have two less.
    fn best_move(
        &self,
        member: usize,
        has: &[usize],
        subscribers: &[Vec<usize>],
    ) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        let mut seen = None;
        for (place, partition) in has.iter().enumerate() {
            let topic = self.first.partition_point(|first| first <= partition) - 1;
            // Its neighbours are often of the same topic.
            if seen == Some(topic) {
                continue;
            }
            seen = Some(topic);
            let least = subscribers[topic].iter().map(|m| (self.load[*m], *m)).min();
            if let Some((load, to)) = least
                && best.is_none_or(|(least, ..)| load < least)
            {
                best = Some((load, place, to));
            }
        }
        let (load, place, to) = best?;
        (load + 2 <= self.load[member]).then_some((place, to))
    }

    fn into_assigned(self) -> Vec<Partitions> {
        let mut assigned = vec![Partitions::new(); self.input.members.len()];
        for (at, topic) in self.input.topics.iter().enumerate() {
            for partition in self.first[at]..self.first[at + 1] {
                let owner = self.owner[partition];
                if owner != NOBODY {
                    let of_topic = assigned[owner].entry(topic.id).or_default();
                    of_topic.insert((partition - self.first[at]) as i32);
                }
            }
        }
        assigned
    }
}
