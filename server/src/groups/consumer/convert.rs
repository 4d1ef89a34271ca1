//! Which protocol a group has. The first member of an empty group decides; with members, a classic group of consumers becomes
//! one of the consumer protocol when a member of that joins, and turns back when the last of them has left (KIP-848, online
//! upgrade and downgrade).

use std::collections::HashSet;

use super::super::config::GroupsConfig;
use super::super::coordinator::Env;
use super::super::error::GroupError;
use super::super::group::{CONSUMER, Group, State};
use super::super::member::{Member, Protocol};
use super::super::timers::Alarm;
use super::super::topics::Topics;
use super::ConsumerGroup;
use super::change::{Change, GroupEpoch, TargetEpoch};
use super::edit::Edit;
use super::embedded;
use super::member::{Assigned, Classic, Current, Metadata, Partitions};
use super::request::Refused;

impl Group {
    /// Whether members of the consumer protocol may come, or, unless they are joining, may be there.
    pub(super) fn admit_consumer(&self, config: &GroupsConfig, joins: bool) -> Result<(), Refused> {
        if self.is_in(State::Dead) {
            return Err(GroupError::CoordinatorNotAvailable.into());
        }
        if self.consumer.is_some() || (joins && self.is_in(State::Empty)) {
            return Ok(());
        }
        if !joins {
            let reason = format_args!("Group {} is not a consumer group.", self.id.as_str());
            return Err(Refused::new(GroupError::GroupIdNotFound, reason));
        }
        let refuse = |reason| Err(Refused::upgrade(&self.id, reason));
        if !config.online_upgrade {
            return refuse("online upgrade is disabled");
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return refuse("the group does not use the consumer embedded protocol");
        }
        if self.members().len() > config.consumer_group_size_max {
            return refuse("the group size exceeds the consumer group maximum size");
        }
        Ok(())
    }

    /// The changes that make a consumer group of a classic one: its members, with what the leader has assigned to them, in
    /// the generation as their epoch.
    pub(super) fn taken_over(&self, topics: &dyn Topics) -> Result<Vec<Change>, Refused> {
        let mut changes = Vec::new();
        let mut taken = HashSet::new();
        for member in self.members() {
            let (metadata, mut partitions) = self.taken_over_member(member, topics)?;
            // What a leader has given to two members stays with one.
            for (topic, of_topic) in &mut partitions {
                of_topic.retain(|partition| taken.insert((*topic, *partition)));
            }
            let current = Current {
                epoch: self.generation,
                previous_epoch: self.generation,
                assigned: assigned_in(self.generation, &partitions),
                ..Current::default()
            };
            let id = || member.id.clone();
            changes.push(Change::Member(id(), Some(Box::new(metadata))));
            changes.push(Change::Target(id(), Some(partitions)));
            changes.push(Change::Current(id(), Some(Box::new(current))));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let group = ConsumerGroup::of(changes.clone());
        // In the middle of a rebalance there is no assignment to go on with, whoever joins.
        let rise = i32::from(!self.is_in(State::Stable));
        changes.push(Change::Epoch(Some(GroupEpoch {
            epoch: self.generation.saturating_add(rise),
            metadata_hash: group.metadata_hash(topics),
        })));
        changes.push(Change::TargetEpoch(Some(TargetEpoch {
            epoch: self.generation,
            timestamp_ms: 0,
        })));
        Ok(changes)
    }

    fn taken_over_member(
        &self,
        member: &Member,
        topics: &dyn Topics,
    ) -> Result<(Metadata, Partitions), Refused> {
        let refuse = |reason| Refused::upgrade(&self.id, reason);
        let malformed = || refuse("the embedded consumer protocol is malformed");
        let said = match &self.protocol {
            Some(protocol) => member.metadata(protocol),
            None => member
                .protocols
                .first()
                .map(|p| p.metadata.clone())
                .unwrap_or_default(),
        };
        let said = embedded::subscription(&said).ok_or_else(malformed)?;
        let assigned = embedded::assignment(&member.assignment).ok_or_else(malformed)?;
        if assigned.user_data.is_some_and(|data| !data.is_empty()) {
            return Err(refuse(
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor \
                 before re-attempting the upgrade",
            ));
        }
        let named = assigned.assigned_partitions.iter();
        let named = named.map(|of| (of.topic.as_str(), &of.partitions[..]));
        let metadata = Metadata {
            instance_id: member.instance_id.clone(),
            rack_id: said.rack_id.as_ref().map(super::super::own),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: said.topics.iter().map(super::super::own).collect(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            classic: Some(Classic {
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
            }),
            ..Metadata::default()
        };
        Ok((metadata, embedded::by_id(named, topics)))
    }

    /// Whether members of the classic protocol may join as such; an empty consumer group makes way for them, its offsets stay.
    pub(in crate::groups) fn become_classic(&mut self, env: &mut Env<'_>) {
        if self.consumer.is_some() {
            self.bury_consumer(env, None);
        }
    }

    /// A consumer group none of whose members speaks the consumer protocol any more becomes a classic one, and its members are
    /// to join again.
    pub(in crate::groups) fn downgrade(&mut self, env: &mut Env<'_>, topics: &dyn Topics) {
        let Some(consumer) = &self.consumer else {
            return;
        };
        let is_due = env.config.online_downgrade
            && !consumer.is_empty()
            && consumer.member_count() <= env.config.group_size_max
            && consumer
                .members
                .values()
                .all(|metadata| metadata.classic.is_some());
        if !is_due {
            return;
        }
        let (generation, members) = (consumer.epoch(), consumer.classic_members(topics));
        for member in members {
            self.add_member(member, CONSUMER.into());
        }
        self.generation = generation;
        self.transition(State::Stable, env.now.wall_ms);
        self.protocol = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        self.is_stored = true;
        let value = self.value(|member| member.assignment.clone());
        self.edit_consumer(env, None, |edit, _| {
            edit.bury();
            edit.classic_made(&value);
        });
        self.resume_classic(env);
    }

    /// Removes everything stored about a consumer group.
    pub(in crate::groups) fn bury_consumer(
        &mut self,
        env: &mut Env<'_>,
        waiter: Option<(u64, usize)>,
    ) {
        self.edit_consumer(env, waiter, |edit, _| edit.bury());
    }
}

impl Edit<'_> {
    fn bury(&mut self) {
        for id in self.group.member_ids() {
            self.remove(&id);
        }
        self.drop_patterns();
        self.put(Change::TargetEpoch(None));
        self.put(Change::Epoch(None));
    }
}

impl ConsumerGroup {
    /// The group's members as those of a classic group, with what they have.
    fn classic_members(&self, topics: &dyn Topics) -> Vec<Member> {
        let members = self.members.iter();
        let members = members.filter_map(|(id, metadata)| {
            let classic = metadata.classic.as_ref()?;
            let said = classic
                .protocol()
                .map_or(&[][..], |protocol| &protocol.metadata);
            Some(Member {
                id: id.clone(),
                instance_id: metadata.instance_id.clone(),
                client_id: metadata.client_id.clone(),
                client_host: metadata.client_host.clone(),
                rebalance_timeout_ms: metadata.rebalance_timeout_ms,
                session_timeout_ms: classic.session_timeout_ms,
                protocols: classic.protocols.clone(),
                assignment: embedded::encode(&self.current(id).assigned, said, topics),
                is_new: false,
                session: Alarm::default(),
                join: None,
                sync: None,
            })
        });
        members.collect()
    }

    /// Whether a member with these protocols may join: the classic protocol's members must have one in common.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        let classic = self.members.values().filter_map(|of| of.classic.as_ref());
        protocol_type == CONSUMER
            && protocols.iter().any(|protocol| {
                classic
                    .clone()
                    .all(|member| member.supports(&protocol.name))
            })
    }
}

/// Partitions, all assigned in `epoch`.
fn assigned_in(epoch: i32, partitions: &Partitions) -> Assigned {
    let topics = partitions.iter();
    let topics = topics.map(|(id, of_topic)| (*id, of_topic.iter().map(|p| (*p, epoch)).collect()));
    topics.collect()
}
