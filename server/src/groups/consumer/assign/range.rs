//! Neighbouring partitions of each topic for each member.

use super::{Input, Partitions};

pub(super) fn assign(input: &Input<'_>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..input.members.len()).collect();
    // Static members first, so that they keep their ranges when they come back under another id.
    order.sort_by_key(|at| {
        let member = &input.members[*at];
        (member.instance_id.is_none(), member.instance_id, member.id)
    });
    let mut subscribers: Vec<Vec<usize>> = vec![Vec::new(); input.topics.len()];
    for at in order {
        for topic in &input.members[at].topics {
            subscribers[*topic].push(at);
        }
    }
    let mut assigned = vec![Partitions::new(); input.members.len()];
    for (topic, members) in input.topics.iter().zip(subscribers) {
        let count = members.len() as i32;
        let mut first = 0;
        for (place, member) in members.into_iter().enumerate() {
            // The first members take one more each until nothing is left over.
            let more = i32::from((place as i32) < topic.partitions % count);
            let next = first + topic.partitions / count + more;
            if next > first {
                assigned[member].insert(topic.id, (first..next).collect());
            }
            first = next;
        }
    }
    assigned
}
