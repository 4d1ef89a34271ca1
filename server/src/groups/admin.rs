//! DescribeGroups, ListGroups and DeleteGroups.

use kafka_wire::delete_groups_response::DeletableGroupResult;
use kafka_wire::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_wire::list_groups_response::ListedGroup;
use kafka_wire::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    ListGroupsRequest, ListGroupsResponse,
};
use ringlog_engine::id::Now;

use super::coordinator::{Call, Coordinator, Env, Response};
use super::error::GroupError;
use super::group::{CONSUMER, Group, State};
use super::member::Member;
use super::writes::Answer;
use super::{StrBytes, own};
use crate::repeats::distinct;

/// The type of a group of the classic protocol.
const TYPE_CLASSIC: &str = "classic";
/// `authorized_operations` when nobody asked.
pub(super) const OPERATIONS_UNKNOWN: i32 = i32::MIN;
/// Read, delete and describe a group: the bits of Kafka's `AclOperation` that groups have, for brokers without rules.
pub(super) const OPERATIONS_ALL: i32 = 1 << 3 | 1 << 6 | 1 << 8;

impl Coordinator {
    /// DescribeGroups, versions 0 to 6. A group that is named twice is described once.
    pub fn describe(&mut self, call: &Call<'_>, request: &DescribeGroupsRequest) {
        let mut response = DescribeGroupsResponse::default();
        for id in distinct(&request.groups, StrBytes::as_str) {
            let mut described = self.describe_one(call.version, id);
            described.group_id = own(id);
            described.authorized_operations =
                if call.version >= 3 && request.include_authorized_operations {
                    OPERATIONS_ALL
                } else {
                    OPERATIONS_UNKNOWN
                };
            response.groups.push(described);
        }
        self.out.send(call.token, Response::Describe(response));
    }

    fn describe_one(&self, version: i16, id: &StrBytes) -> DescribedGroup {
        let mut described = DescribedGroup::default();
        if let Err(error) = self.admit(id) {
            described.error_code = error.code();
            return described;
        }
        match self.groups.get(id) {
            Some(group) if group.consumer.is_some() => {
                missing(version, id, "is not a classic group", &mut described);
            }
            Some(group) if !group.is_in(State::Dead) => group.describe(&mut described),
            _ => missing(version, id, "not found", &mut described),
        }
        described
    }

    /// ListGroups, versions 0 to 5: the groups of this shard's partitions.
    pub fn list(&mut self, call: &Call<'_>, request: &ListGroupsRequest) {
        let mut response = ListGroupsResponse::default();
        if self.owned.is_loading() {
            response.error_code = GroupError::CoordinatorLoadInProgress.code();
        }
        let groups = self.groups.values().filter(|group| {
            let (kind, state) = (group.kind(), group.state_name());
            (request.types_filter.is_empty() || has_name(&request.types_filter, kind))
                && self.is_active(group.partition)
                && !group.is_in(State::Dead)
                && (request.states_filter.is_empty() || has_name(&request.states_filter, state))
        });
        let groups = groups.map(|group| {
            let mut listed = ListedGroup::default();
            listed.group_id = group.id.clone();
            listed.protocol_type = match group.consumer {
                Some(_) => CONSUMER.into(),
                None => group.protocol_type.clone().unwrap_or_default(),
            };
            if call.version >= 4 {
                listed.group_state = group.state_name().into();
            }
            if call.version >= 5 {
                listed.group_type = group.kind().into();
            }
            listed
        });
        response.groups = groups.collect();
        self.out.send(call.token, Response::List(response));
    }

    /// DeleteGroups, versions 0 to 3. The response comes when the groups are gone for good, and has each once, as Kafka's.
    pub fn delete(&mut self, now: Now, call: &Call<'_>, request: &DeleteGroupsRequest) {
        let mut response = DeleteGroupsResponse::default();
        let mut deleted: Vec<(usize, StrBytes)> = Vec::new();
        for id in distinct(&request.groups_names, StrBytes::as_str) {
            let mut result = DeletableGroupResult::default();
            result.group_id = own(id);
            match self.deletable(id) {
                Ok(()) => deleted.push((response.results.len(), own(id))),
                Err(error) => result.error_code = error.code(),
            }
            response.results.push(result);
        }
        let waiter = self.writes.wait(call.token, Answer::Delete(response));
        for (part, id) in deleted {
            self.with_group(now, &id, |group, env| group.delete(env, (waiter, part)));
        }
        if let Some((token, response)) = self.writes.seal(waiter) {
            self.out.send(token, response);
        }
    }

    fn deletable(&self, id: &StrBytes) -> Result<(), GroupError> {
        self.admit(id)?;
        if self.writes.is_full(self.config.unwritten_bytes_max) {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let group = self.groups.get(id);
        match group.map(Group::state) {
            None | Some(State::Dead) => Err(GroupError::GroupIdNotFound),
            _ if group.is_some_and(Group::has_undecided) => Err(GroupError::NonEmptyGroup),
            Some(_) if group.is_some_and(Group::is_without_members) => Ok(()),
            Some(_) => Err(GroupError::NonEmptyGroup),
        }
    }
}

/// A group that is not there for DescribeGroups: an error only where the version has one.
fn missing(version: i16, id: &StrBytes, why: &str, described: &mut DescribedGroup) {
    described.group_state = StrBytes::from("Dead");
    if version >= 6 {
        described.error_code = GroupError::GroupIdNotFound.code();
        described.error_message = Some(format!("Group {} {why}.", id.as_str()).into());
    }
}

fn has_name(names: &[StrBytes], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

impl Group {
    /// Its type, as ListGroups names it.
    fn kind(&self) -> &'static str {
        match self.consumer {
            Some(_) => super::consumer::TYPE,
            None => TYPE_CLASSIC,
        }
    }

    /// Its state, as ListGroups names it.
    fn state_name(&self) -> &'static str {
        match &self.consumer {
            Some(consumer) => consumer.state().name(),
            None => self.state().name(),
        }
    }

    fn describe(&self, described: &mut DescribedGroup) {
        described.group_state = self.state().name().into();
        described.protocol_type = self.protocol_type.clone().unwrap_or_default();
        let protocol = match self.state() {
            State::Stable => self.protocol.clone().unwrap_or_default(),
            _ => StrBytes::default(),
        };
        let members = self
            .members()
            .map(|member| describe_member(member, &protocol));
        described.members = members.collect();
        described.protocol_data = protocol;
    }

    fn delete(&mut self, env: &mut Env<'_>, waiter: (u64, usize)) {
        let member_ids: Vec<StrBytes> = self.pending.keys().cloned().collect();
        for id in member_ids {
            self.forget_pending(env, &id);
        }
        if self.consumer.is_some() {
            self.bury_consumer(env, Some(waiter));
        }
        self.transition(State::Dead, env.now.wall_ms);
        let changes = self.removals(|_| true);
        let batch_bytes_max = env.config.batch_bytes_max;
        env.writes
            .offsets(self, changes, true, Some(waiter), batch_bytes_max);
    }
}

/// A member; its metadata and assignment only under the protocol of a stable group.
fn describe_member(member: &Member, protocol: &StrBytes) -> DescribedGroupMember {
    let mut described = DescribedGroupMember::default();
    described.member_id = member.id.clone();
    described.group_instance_id = member.instance_id.clone();
    described.client_id = member.client_id.clone();
    described.client_host = member.client_host.clone();
    if !protocol.is_empty() {
        described.member_metadata = member.metadata(protocol);
        described.member_assignment = member.assignment.clone();
    }
    described
}
