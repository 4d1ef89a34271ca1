//! A partition that a request names more than once.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::wire::fetch::FetchTopic;

/// So many partitions are compared one by one, which takes no memory: most requests name no more.
const COMPARED_MAX: usize = 16;

/// Leaves one entry of each partition: what was said last, where it was named first. In Kafka a request's partitions go
/// into a map that keeps the order in which keys came (`FetchRequest.fetchData`).
pub(super) fn collapse(topics: &mut [FetchTopic<'_>]) {
    let count = topics.iter().map(|topic| topic.partitions.len()).sum();
    if count <= COMPARED_MAX && !repeats(topics) {
        return;
    }
    let mut firsts = HashMap::with_capacity(count);
    let mut again = Vec::new();
    for (t, topic) in topics.iter().enumerate() {
        for (p, wanted) in topic.partitions.iter().enumerate() {
            match firsts.entry((topic.name, wanted.index)) {
                Entry::Vacant(first) => {
                    first.insert((t, p));
                }
                Entry::Occupied(first) => again.push((*first.get(), *wanted)),
            }
        }
    }
    if again.is_empty() {
        return;
    }
    for ((t, p), wanted) in again {
        topics[t].partitions[p] = wanted;
    }
    for (t, topic) in topics.iter_mut().enumerate() {
        let (name, mut p) = (topic.name, 0);
        topic.partitions.retain(|wanted| {
            let is_first = firsts.get(&(name, wanted.index)) == Some(&(t, p));
            p += 1;
            is_first
        });
    }
}

fn repeats(topics: &[FetchTopic<'_>]) -> bool {
    let named = || {
        let of = |topic: &FetchTopic<'_>| topic.partitions.len();
        let names = topics
            .iter()
            .flat_map(move |topic| std::iter::repeat_n(topic.name, of(topic)));
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|wanted| wanted.index).zip(names)
    };
    named()
        .enumerate()
        .any(|(at, one)| named().take(at).any(|other| other == one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fetch::FetchPartition;

    fn topic<'a>(name: &'a str, wanted: &[(i32, i64)]) -> FetchTopic<'a> {
        let partition = |&(index, offset): &(i32, i64)| FetchPartition {
            index,
            current_leader_epoch: -1,
            offset,
            max_bytes: 1,
        };
        FetchTopic {
            name,
            partitions: wanted.iter().map(partition).collect(),
        }
    }

    fn collapsed<'a>(mut topics: Vec<FetchTopic<'a>>) -> Vec<FetchTopic<'a>> {
        collapse(&mut topics);
        topics
    }

    #[test]
    fn the_last_of_the_same_partition_counts_in_the_place_of_the_first() {
        let named = vec![
            topic("t", &[(0, 1), (1, 2), (0, 3)]),
            topic("u", &[(0, 4), (1, 5)]),
            topic("t", &[(2, 6), (1, 7), (0, 8)]),
        ];
        let left = [
            topic("t", &[(0, 8), (1, 7)]),
            topic("u", &[(0, 4), (1, 5)]),
            topic("t", &[(2, 6)]),
        ];
        assert_eq!(collapsed(named.clone()), left);
        // The same among so many that they are not compared one by one.
        let many: Vec<(i32, i64)> = (10..10 + COMPARED_MAX as i32).map(|i| (i, 0)).collect();
        let (named, left) = (named.into_iter(), left.into_iter());
        let more = || std::iter::once(topic("v", &many));
        assert_eq!(
            collapsed(named.chain(more()).collect()),
            left.chain(more()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_request_that_repeats_nothing_stays_as_it_is() {
        for partitions in [0, 1, COMPARED_MAX as i32, 1000] {
            let wanted: Vec<(i32, i64)> = (0..partitions).map(|i| (i, i.into())).collect();
            let named = vec![topic("t", &wanted), topic("u", &wanted)];
            assert_eq!(collapsed(named.clone()), named);
        }
    }
}
