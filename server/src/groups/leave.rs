//! LeaveGroup.

use kafka_wire::leave_group_response::MemberResponse;
use kafka_wire::{LeaveGroupRequest, LeaveGroupResponse};
use ringlog_engine::id::Now;

use super::coordinator::{Call, Coordinator, Env, Response};
use super::error::GroupError;
use super::group::{Group, State};
use super::topics::Topics;
use super::{StrBytes, own, own_option};

/// Who is to leave: member id, instance id.
pub(super) type Leaving = (StrBytes, Option<StrBytes>);

impl Coordinator {
    /// LeaveGroup, versions 0 to 5: one member up to version 2, any number from version 3 on.
    pub fn leave(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &LeaveGroupRequest,
        topics: &dyn Topics,
    ) {
        let leaving: Vec<Leaving> = if call.version < 3 {
            vec![(own(&request.member_id), None)]
        } else {
            let members = request.members.iter();
            let leaving = members.map(|member| {
                (
                    own(&member.member_id),
                    own_option(member.group_instance_id.as_ref()),
                )
            });
            leaving.collect()
        };
        let left = self.admit_named(&request.group_id).and_then(|_| {
            let left = self.with_group(now, &request.group_id, |group, env| {
                match group.meets_consumers(env, topics) {
                    true => Ok(group.leave_shared(env, topics, &leaving)),
                    false => group.leave(env, &leaving),
                }
            });
            // Without a group there are no members.
            left.unwrap_or_else(|| Ok(vec![Err(GroupError::UnknownMemberId); leaving.len()]))
        });
        let response = Response::Leave(leave_response(call.version, leaving, left));
        match self.groups.get(&request.group_id) {
            Some(group) => self
                .writes
                .follow(group, &mut self.out, call.token, response),
            None => self.out.send(call.token, response),
        }
    }
}

fn leave_response(
    version: i16,
    leaving: Vec<Leaving>,
    left: Result<Vec<Result<(), GroupError>>, GroupError>,
) -> LeaveGroupResponse {
    let code = |result: &Result<(), GroupError>| result.err().map_or(0, GroupError::code);
    let mut response = LeaveGroupResponse::default();
    match left {
        Err(error) => response.error_code = error.code(),
        Ok(results) if version < 3 => {
            response.error_code = results.first().map_or(0, code);
        }
        Ok(results) => {
            let members = leaving.into_iter().zip(&results);
            let members = members.map(|((member_id, instance_id), result)| {
                let mut member = MemberResponse::default();
                member.member_id = member_id;
                member.group_instance_id = instance_id;
                member.error_code = code(result);
                member
            });
            response.members = members.collect();
        }
    }
    response
}

impl Group {
    fn leave(
        &mut self,
        env: &mut Env<'_>,
        leaving: &[Leaving],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let results: Vec<_> = leaving
            .iter()
            .map(|(member_id, instance_id)| self.leave_one(env, member_id, instance_id.as_ref()))
            .collect();
        if results.iter().any(Result::is_ok) && !self.is_in(State::Empty) {
            self.rebalance_or_complete(env);
        }
        Ok(results)
    }

    fn leave_one(
        &mut self,
        env: &mut Env<'_>,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<(), GroupError> {
        if self.forget_pending(env, member_id) {
            return Ok(());
        }
        let id = if member_id.is_empty() {
            // An administrator removes a static member by its instance id.
            let current = instance_id.and_then(|id| self.static_member(id));
            current.cloned().ok_or(GroupError::UnknownMemberId)?
        } else {
            self.validate_member(member_id, instance_id)?;
            member_id.clone()
        };
        self.expel(env, &id, GroupError::UnknownMemberId);
        Ok(())
    }
}
