//! One member a group: joining before the load, leaving after it.

use std::thread;

use bytes::{Bytes, BytesMut};
use kafka_wire::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::sync_group_request::SyncGroupRequestAssignment;
use kafka_wire::{
    ConsumerProtocolSubscription, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
    encode_consumer_protocol_subscription,
};
use kafka_wire_core::{ApiVersion, StrBytes};

use super::groups::{Plan, Route};
use super::{ANSWER_WAIT, CommitsError, CommitsOptions};
use crate::protocol::{ControlClient, ControlError};

/// Connections that join and leave at the same time.
const AT_ONCE: usize = 32;
/// Groups that join over one connection without an answer: brokers answer a connection's requests in order.
const PIPELINED: usize = 16;
/// What members of consumers' groups call themselves, and an assignor that every broker has heard of.
const CONSUMER: &str = "consumer";
const ASSIGNOR: &str = "range";
/// Versions without a second round trip for the member's id, and the last that names one member.
mod version {
    pub(super) const JOIN_GROUP: i16 = 3;
    pub(super) const SYNC_GROUP: i16 = 3;
    pub(super) const LEAVE_GROUP: i16 = 2;
}

/// A group's only member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: StrBytes,
    pub(super) generation: i32,
}

/// A member joins every group. In the order of the groups.
pub(super) fn join(options: &CommitsOptions, plan: &Plan) -> Result<Vec<Member>, CommitsError> {
    let subscription = subscription(&options.topic)?;
    let joined = on_all(plan, |route, client| {
        join_some(options, plan, route, &subscription, client)
    })?;
    let mut members = vec![None; plan.names.len()];
    for (group, member) in joined.into_iter().flatten() {
        members[group] = Some(member);
    }
    // Every group is on one route, and every route was joined or failed.
    members
        .into_iter()
        .collect::<Option<Vec<Member>>>()
        .ok_or(CommitsError::Thread)
}

/// All members leave: nobody has to wait for their session timeout.
pub(super) fn leave(plan: &Plan, members: &[Member]) -> Result<(), CommitsError> {
    on_all(plan, |route, client| {
        for chunk in route.groups.chunks(PIPELINED) {
            let mut sent = Vec::with_capacity(chunk.len());
            for &group in chunk {
                let mut request = LeaveGroupRequest::default();
                request.group_id = plan.names[group].clone();
                request.member_id = members[group].id.clone();
                sent.push(client.send(&request, version::LEAVE_GROUP)?);
            }
            for (sent, &group) in sent.iter().zip(chunk) {
                let answer = client.receive(sent)?;
                check(plan, group, "LeaveGroup", answer.error_code)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Does `work` for every route, some at a time, each over a connection of its own.
fn on_all<T: Send>(
    plan: &Plan,
    work: impl Fn(&Route, &mut ControlClient) -> Result<T, CommitsError> + Sync,
) -> Result<Vec<T>, CommitsError> {
    let mut done = Vec::with_capacity(plan.connections.len());
    let work = &work;
    for routes in plan.connections.chunks(AT_ONCE) {
        let results = thread::scope(|scope| {
            let threads: Vec<_> = routes
                .iter()
                .map(|route| {
                    scope.spawn(move || {
                        let mut client = ControlClient::connect(&route.address, ANSWER_WAIT)?;
                        work(route, &mut client)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(Err(CommitsError::Thread)))
                .collect::<Vec<_>>()
        });
        for result in results {
            done.push(result?);
        }
    }
    Ok(done)
}

fn join_some(
    options: &CommitsOptions,
    plan: &Plan,
    route: &Route,
    subscription: &Bytes,
    client: &mut ControlClient,
) -> Result<Vec<(usize, Member)>, CommitsError> {
    let mut joined = Vec::with_capacity(route.groups.len());
    for chunk in route.groups.chunks(PIPELINED) {
        let mut sent = Vec::with_capacity(chunk.len());
        for &group in chunk {
            let request = join_request(options, &plan.names[group], subscription);
            sent.push(client.send(&request, version::JOIN_GROUP)?);
        }
        let mut members = Vec::with_capacity(chunk.len());
        for (sent, &group) in sent.iter().zip(chunk) {
            let answer = client.receive(sent)?;
            check(plan, group, "JoinGroup", answer.error_code)?;
            let member = Member {
                id: answer.member_id,
                generation: answer.generation_id,
            };
            members.push((group, member));
        }
        let mut sent = Vec::with_capacity(chunk.len());
        for (group, member) in &members {
            let request = sync_request(&plan.names[*group], member);
            sent.push(client.send(&request, version::SYNC_GROUP)?);
        }
        for (sent, (group, _)) in sent.iter().zip(&members) {
            let answer = client.receive(sent)?;
            check(plan, *group, "SyncGroup", answer.error_code)?;
        }
        joined.extend(members);
    }
    Ok(joined)
}

fn join_request(
    options: &CommitsOptions,
    group: &StrBytes,
    subscription: &Bytes,
) -> JoinGroupRequest {
    let mut request = JoinGroupRequest::default();
    request.group_id = group.clone();
    request.session_timeout_ms = options.session_timeout_ms;
    request.rebalance_timeout_ms = options.session_timeout_ms;
    request.protocol_type = StrBytes::from(CONSUMER);
    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = StrBytes::from(ASSIGNOR);
    protocol.metadata = subscription.clone();
    request.protocols = vec![protocol];
    request
}

/// The member leads its group, and gives itself nothing to read: it is here to commit.
fn sync_request(group: &StrBytes, member: &Member) -> SyncGroupRequest {
    let mut request = SyncGroupRequest::default();
    request.group_id = group.clone();
    request.generation_id = member.generation;
    request.member_id = member.id.clone();
    let mut assignment = SyncGroupRequestAssignment::default();
    assignment.member_id = member.id.clone();
    assignment.assignment = nothing();
    request.assignments = vec![assignment];
    request
}

/// An assignment of version 0 without topics and user data.
fn nothing() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
}

fn subscription(topic: &str) -> Result<Bytes, CommitsError> {
    let mut subscription = ConsumerProtocolSubscription::default();
    subscription.topics = vec![StrBytes::from(topic)];
    let mut bytes = BytesMut::new();
    encode_consumer_protocol_subscription(&mut bytes, &subscription, ApiVersion::new(1)).map_err(
        |source| ControlError::Encode {
            api: "JoinGroup",
            source,
        },
    )?;
    Ok(bytes.freeze())
}

fn check(plan: &Plan, group: usize, what: &str, code: i16) -> Result<(), CommitsError> {
    match code {
        0 => Ok(()),
        code => Err(CommitsError::Member {
            group: plan.names[group].as_str().to_owned(),
            source: ControlError::refused(what, code, None),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_wire::{decode_consumer_protocol_assignment, decode_consumer_protocol_subscription};
    use kafka_wire_core::DecodeLimits;

    #[test]
    fn what_members_say_is_what_consumers_say() {
        let (_, told) = decode_consumer_protocol_subscription(
            subscription("logs").unwrap(),
            DecodeLimits::default(),
        )
        .unwrap();
        assert_eq!(told.topics[0].as_str(), "logs");
        let (_, assigned) =
            decode_consumer_protocol_assignment(nothing(), DecodeLimits::default()).unwrap();
        assert!(assigned.assigned_partitions.is_empty());
    }
}
