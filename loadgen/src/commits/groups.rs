//! Who coordinates which group, which connection serves it, and what it has committed.

use std::collections::HashMap;

use kafka_wire::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_wire::{FindCoordinatorRequest, OffsetFetchRequest};
use kafka_wire_core::StrBytes;

use super::{ANSWER_WAIT, CommitsError, CommitsOptions};
use crate::cluster::ClusterHandle;
use crate::protocol::{ControlClient, ControlError, error_code};

/// Keys of coordinators: a group, not a transactional id.
const GROUP: i8 = 0;
/// Groups in one FindCoordinator request.
const KEYS_MAX: usize = 1000;
/// Groups in one OffsetFetch request.
const FETCH_GROUPS_MAX: usize = 500;
/// Offsets in one answer, about: partitions count.
const FETCH_OFFSETS_MAX: usize = 100_000;
/// The first versions that ask for many groups at once, which are also the last that name topics.
mod version {
    pub(super) const FIND_COORDINATOR: i16 = 4;
    pub(super) const OFFSET_FETCH: i16 = 8;
}

/// A connection of the load: where it goes, and whose requests it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `HOST:PORT`.
    pub(super) address: String,
    /// Numbers of its groups.
    pub(super) groups: Vec<usize>,
}

/// The groups of a run and their connections.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Names, by number.
    pub(super) names: Vec<StrBytes>,
    /// All connections.
    pub(super) connections: Vec<Route>,
    /// Which connection serves a group.
    pub(super) connection_of: Vec<usize>,
}

impl Plan {
    /// Spreads groups over connections: each coordinator has as many as its share of the groups asks for, at least one.
    fn new(names: Vec<StrBytes>, coordinators: &[String], connections: usize) -> Self {
        let mut by_address: Vec<(&String, Vec<usize>)> = Vec::new();
        let mut places: HashMap<&String, usize> = HashMap::new();
        for (group, address) in coordinators.iter().enumerate() {
            let place = *places.entry(address).or_insert_with(|| {
                by_address.push((address, Vec::new()));
                by_address.len() - 1
            });
            by_address[place].1.push(group);
        }
        let mut plan = Self {
            connection_of: vec![0; names.len()],
            names,
            connections: Vec::new(),
        };
        let up_to = |groups: usize| connections.saturating_mul(groups) / coordinators.len().max(1);
        let mut before = 0;
        for (address, groups) in by_address {
            let share = up_to(before + groups.len()) - up_to(before);
            before += groups.len();
            let count = share.clamp(1, groups.len());
            let first = plan.connections.len();
            for _ in 0..count {
                plan.connections.push(Route {
                    address: address.clone(),
                    groups: Vec::new(),
                });
            }
            for (turn, &group) in groups.iter().enumerate() {
                let connection = first + turn % count;
                plan.connections[connection].groups.push(group);
                plan.connection_of[group] = connection;
            }
        }
        plan
    }

    /// Where coordinators are, each once.
    pub(super) fn addresses(&self) -> Vec<&str> {
        let mut addresses: Vec<&str> = self
            .connections
            .iter()
            .map(|c| c.address.as_str())
            .collect();
        addresses.dedup();
        addresses
    }

    /// How many coordinators there are.
    pub(super) fn coordinators(&self) -> usize {
        self.addresses().len()
    }
}

/// Finds the groups' coordinators, waits until these answer for them, and spreads the connections.
pub(super) fn plan(
    cluster: &ClusterHandle,
    options: &CommitsOptions,
) -> Result<Plan, CommitsError> {
    let names: Vec<StrBytes> = options
        .names()
        .into_iter()
        .map(|name| StrBytes::from(name.as_str()))
        .collect();
    let coordinators =
        cluster.patiently(|cluster| find(&mut cluster.any_client(ANSWER_WAIT)?, &names))?;
    let plan = Plan::new(names, &coordinators, options.connections);
    cluster.patiently(|_| is_ready(&plan, options))?;
    Ok(plan)
}

/// Whether every coordinator has read what its groups committed before.
fn is_ready(plan: &Plan, options: &CommitsOptions) -> Result<(), ControlError> {
    for address in plan.addresses() {
        let mut client = ControlClient::connect(address, ANSWER_WAIT)?;
        let routes = plan.connections.iter();
        let groups = routes
            .filter(|route| route.address == address)
            .flat_map(|route| &route.groups)
            .map(|&group| plan.names[group].clone());
        let groups: Vec<StrBytes> = groups.collect();
        for answer in read(&mut client, &groups, &options.topic, 1)? {
            if let Committed::Refused(code) = answer {
                return Err(ControlError::refused("OffsetFetch", code, None));
            }
        }
    }
    Ok(())
}

/// Who coordinates each group, as `HOST:PORT`.
pub(super) fn find(
    client: &mut ControlClient,
    groups: &[StrBytes],
) -> Result<Vec<String>, ControlError> {
    let mut found = Vec::with_capacity(groups.len());
    for chunk in groups.chunks(KEYS_MAX) {
        let mut request = FindCoordinatorRequest::default();
        request.key_type = GROUP;
        request.coordinator_keys = chunk.to_vec();
        let answer = client.call_at(&request, version::FIND_COORDINATOR)?;
        let mut by_key = HashMap::with_capacity(chunk.len());
        for one in &answer.coordinators {
            if one.error_code != 0 {
                let what = format!("the coordinator of group {}", one.key.as_str());
                return Err(ControlError::refused(what, one.error_code, None));
            }
            let address = format!("{}:{}", one.host.as_str(), one.port);
            by_key.insert(one.key.clone(), address);
        }
        for group in chunk {
            let address = by_key.remove(group).ok_or_else(|| left_out(group))?;
            found.push(address);
        }
    }
    Ok(found)
}

/// What a group has committed for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Committed {
    /// By partition, -1 for none.
    Offsets(Vec<i64>),
    /// The coordinator does not say, with this error code.
    Refused(i16),
}

/// What groups of one coordinator have committed for `partitions` of a topic, in their order.
pub(super) fn read(
    client: &mut ControlClient,
    groups: &[StrBytes],
    topic: &str,
    partitions: i32,
) -> Result<Vec<Committed>, ControlError> {
    let most = FETCH_OFFSETS_MAX / partitions.max(1) as usize;
    let mut found = Vec::with_capacity(groups.len());
    for chunk in groups.chunks(most.clamp(1, FETCH_GROUPS_MAX)) {
        let mut request = OffsetFetchRequest::default();
        request.groups = chunk
            .iter()
            .map(|group| wanted(group, topic, partitions))
            .collect();
        let answer = client.call_at(&request, version::OFFSET_FETCH)?;
        let mut by_group: HashMap<StrBytes, Committed> = answer
            .groups
            .into_iter()
            .map(|group| {
                let told = told(&group, partitions);
                (group.group_id, told)
            })
            .collect();
        for group in chunk {
            found.push(by_group.remove(group).ok_or_else(|| left_out(group))?);
        }
    }
    Ok(found)
}

fn wanted(group: &StrBytes, topic: &str, partitions: i32) -> OffsetFetchRequestGroup {
    let mut wanted = OffsetFetchRequestGroup::default();
    wanted.group_id = group.clone();
    wanted.member_epoch = -1;
    let mut of_topic = OffsetFetchRequestTopics::default();
    of_topic.name = StrBytes::from(topic);
    of_topic.partition_indexes = (0..partitions).collect();
    wanted.topics = Some(vec![of_topic]);
    wanted
}

fn told(
    group: &kafka_wire::offset_fetch_response::OffsetFetchResponseGroup,
    partitions: i32,
) -> Committed {
    if group.error_code != 0 {
        return Committed::Refused(group.error_code);
    }
    let mut offsets = vec![-1; partitions.max(0) as usize];
    for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code != 0 {
            return Committed::Refused(partition.error_code);
        }
        let place = usize::try_from(partition.partition_index).ok();
        if let Some(offset) = place.and_then(|place| offsets.get_mut(place)) {
            *offset = partition.committed_offset;
        }
    }
    Committed::Offsets(offsets)
}

fn left_out(group: &StrBytes) -> ControlError {
    let what = format!("group {}", group.as_str());
    // As a broker would say that it cannot tell.
    ControlError::refused(what, error_code::UNKNOWN_SERVER_ERROR, Some("left out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<StrBytes> {
        (0..count)
            .map(|n| StrBytes::from(format!("g-{n}").as_str()))
            .collect()
    }

    fn spread(coordinators: &[&str], connections: usize) -> Plan {
        let coordinators: Vec<String> = coordinators.iter().map(ToString::to_string).collect();
        let plan = Plan::new(names(coordinators.len()), &coordinators, connections);
        for (group, &connection) in plan.connection_of.iter().enumerate() {
            let route = &plan.connections[connection];
            assert_eq!(route.address, coordinators[group]);
            assert!(route.groups.contains(&group));
        }
        let carried: usize = plan.connections.iter().map(|c| c.groups.len()).sum();
        assert_eq!(carried, coordinators.len());
        plan
    }

    #[test]
    fn every_group_goes_to_its_coordinator_over_one_connection() {
        let plan = spread(&["a:1", "b:2", "a:1", "a:1", "b:2", "a:1"], 3);
        assert_eq!((plan.connections.len(), plan.coordinators()), (3, 2));
        assert_eq!(plan.addresses(), ["a:1", "b:2"]);
        assert_eq!(plan.connections[0].groups, [0, 3]);
        assert_eq!(plan.connections[1].groups, [2, 5]);
        assert_eq!(plan.connections[2].groups, [1, 4]);
    }

    #[test]
    fn a_coordinator_has_a_connection_however_few_groups_it_has_and_no_more_than_groups() {
        let mut coordinators = vec!["a:1"; 99];
        coordinators.push("b:2");
        assert_eq!(spread(&coordinators, 1).connections.len(), 2);
        assert_eq!(spread(&coordinators, 10).connections.len(), 10);
        assert_eq!(spread(&["a:1", "a:1"], 50).connections.len(), 2);
    }

    #[test]
    fn an_answer_is_read_by_partition_and_an_error_is_not_taken_for_an_offset() {
        use kafka_wire::offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
        };
        let partition = |index, offset, error| {
            let mut partition = OffsetFetchResponsePartitions::default();
            partition.partition_index = index;
            partition.committed_offset = offset;
            partition.error_code = error;
            partition
        };
        let group = |partitions| {
            let mut group = OffsetFetchResponseGroup::default();
            let mut topic = OffsetFetchResponseTopics::default();
            topic.partitions = partitions;
            group.topics = vec![topic];
            group
        };
        let two = group(vec![partition(2, 7, 0), partition(0, 5, 0)]);
        assert_eq!(told(&two, 3), Committed::Offsets(vec![5, -1, 7]));
        let refused = group(vec![partition(0, 5, 0), partition(1, -1, 14)]);
        assert_eq!(told(&refused, 3), Committed::Refused(14));
        let foreign = group(vec![partition(9, 5, 0), partition(-1, 5, 0)]);
        assert_eq!(told(&foreign, 1), Committed::Offsets(vec![-1]));
        let mut loading = group(Vec::new());
        loading.error_code = 14;
        assert_eq!(told(&loading, 1), Committed::Refused(14));
    }
}
