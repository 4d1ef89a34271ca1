//! ConsumerGroupHeartbeat: a member joins, shows that it is alive, says what it reads and hears what it is to read.

use kafka_wire::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use ringlog_engine::id::Now;

use super::super::coordinator::{Call, Coordinator, Env, Response};
use super::super::error::GroupError;
use super::super::group::Group;
use super::super::handover::SetAside;
use super::super::topics::Topics;
use super::super::{StrBytes, own};
use super::ConsumerGroup;
use super::admission::Place;
use super::change::{Change, GroupEpoch};
use super::edit::Edit;
use super::member::{Assigned, Current, Metadata, Partitions, STATIC_LEAVE_EPOCH};
use super::reconcile::{Goal, reconcile};
use super::request::{self, JOIN_EPOCH, LEAVE_EPOCH, Refused};
use crate::wire::{topic_id, uuid};

/// A heartbeat of a member that stays.
pub(super) struct Beat<'a> {
    pub(super) version: i16,
    pub(super) client_id: &'a str,
    pub(super) client_host: &'a str,
    pub(super) request: &'a ConsumerGroupHeartbeatRequest,
    pub(super) member_id: StrBytes,
    /// What it says it reads.
    pub(super) owned: Option<Partitions>,
    topics: &'a dyn Topics,
    /// What its metadata may take, in bytes.
    room: usize,
}

impl Coordinator {
    /// ConsumerGroupHeartbeat, versions 0 and 1. The response comes when everything it tells is durable.
    pub fn consumer_heartbeat(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn Topics,
    ) {
        if let Err(refused) = self.try_consumer_heartbeat(now, call, request, topics) {
            self.out.send(call.token, refused.into_response());
        }
    }

    fn try_consumer_heartbeat(
        &mut self,
        now: Now,
        call: &Call<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn Topics,
    ) -> Result<(), Refused> {
        request::check(request, call.version, &self.config)?;
        let partition = self.admit_named(&request.group_id)?;
        let id = &request.group_id;
        let joins = request.member_epoch == JOIN_EPOCH;
        match self.groups.get(id) {
            Some(group) => group.admit_consumer(&self.config, joins)?,
            None if joins => self
                .create_group(now, id, partition)
                .map_err(|_| GroupError::GroupMaxSizeReached)?,
            None => return Err(not_found(id)),
        }
        let room = self.config.bytes_max.saturating_sub(self.bytes());
        if self.writes.is_full(self.config.unwritten_bytes_max) {
            self.with_group(now, id, |group, env| {
                group.touch_consumer(env, &request.member_id);
            });
            return Err(GroupError::CoordinatorLoadInProgress.into());
        }
        let member_id = match request.member_id.is_empty() {
            true => self.new_member_id("consumer"),
            false => own(&request.member_id),
        };
        let beat = Beat {
            version: call.version,
            client_id: call.client_id,
            client_host: call.client_host,
            request,
            member_id,
            owned: request.topic_partitions.as_ref().map(|owned| {
                let topics = owned.iter();
                let topics = topics.map(|of| {
                    (
                        topic_id(of.topic_id),
                        of.partitions.iter().copied().collect(),
                    )
                });
                topics.collect()
            }),
            topics,
            room,
        };
        let done = self.with_group(now, id, |group, env| {
            let response = match request.member_epoch {
                LEAVE_EPOCH | STATIC_LEAVE_EPOCH => group.leave_consumer(env, request, topics)?,
                _ => group.beat(env, &beat)?,
            };
            env.writes.follow(
                group,
                env.out,
                call.token,
                Response::ConsumerHeartbeat(response),
            );
            Ok(())
        });
        done.unwrap_or_else(|| Err(not_found(id)))
    }
}

pub(super) fn not_found(id: &StrBytes) -> Refused {
    let reason = format_args!("Group {} not found.", id.as_str());
    Refused::new(GroupError::GroupIdNotFound, reason)
}

impl Group {
    /// A sign of life of a member that cannot be served now.
    fn touch_consumer(&mut self, env: &mut Env<'_>, member_id: &StrBytes) {
        if let Some(consumer) = &mut self.consumer
            && consumer.has_member(member_id)
        {
            consumer.renew_session(env, &self.id, member_id);
        }
    }

    fn beat(
        &mut self,
        env: &mut Env<'_>,
        beat: &Beat<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let of_group = env.config.group_bytes_max.saturating_sub(self.bytes());
        let room = beat.room.min(of_group);
        let taken_over = match &self.consumer {
            Some(_) => Vec::new(),
            None => self.taken_over(beat.topics)?,
        };
        let classic = ConsumerGroup::of(taken_over.clone());
        let consumer = self.consumer.as_deref().unwrap_or(&classic);
        let size_max = env.config.consumer_group_size_max;
        // Nothing is changed before it is clear that nothing is refused.
        let place = consumer.place(beat, size_max)?;
        let metadata = consumer.updated_metadata(beat, &place);
        consumer.check_metadata(beat, metadata.as_ref(), room)?;
        if metadata.is_none() && consumer.is_at_rest(beat, env.now) {
            return Ok(self.rest(env, beat));
        }
        let before = match self.consumer {
            Some(_) => None,
            None => self.swap_classic(None),
        };
        self.settle_classic(env, GroupError::RebalanceInProgress);
        let id = self.id.clone();
        let response = self.edit_consumer(env, None, |edit, env| {
            edit.take_over(env, &id, before, taken_over);
            let (before, after) = edit.step(env, &id, beat.topics, beat.step(&place, metadata));
            let mut response = beat.response(env, after.epoch);
            if beat.is_full() || !is_same(&before.assigned, &after.assigned) {
                response.assignment = Some(assignment(&after.assigned));
            }
            response
        });
        Ok(response)
    }

    /// Nothing is new to anybody, as most of the time.
    fn rest(&mut self, env: &mut Env<'_>, beat: &Beat<'_>) -> ConsumerGroupHeartbeatResponse {
        if let Some(consumer) = &mut self.consumer {
            consumer.renew_session(env, &self.id, &beat.member_id);
        }
        beat.response(env, beat.request.member_epoch)
    }
}

impl ConsumerGroup {
    /// Whether a heartbeat that says nothing new finds nothing to be done.
    fn is_at_rest(&self, beat: &Beat<'_>, now: Now) -> bool {
        let current = self.currents.get(&beat.member_id);
        let epoch = self.assignment_epoch();
        !beat.is_full()
            && self.epoch() == epoch
            && beat.request.member_epoch == epoch
            && current.is_some_and(|current| current.is_reconciled_to(epoch))
            && self.topics_seen == Some(beat.topics.version())
            && !self.is_refresh_due(now, beat.topics)
    }
}

impl Beat<'_> {
    fn response(&self, env: &Env<'_>, member_epoch: i32) -> ConsumerGroupHeartbeatResponse {
        let mut response = ConsumerGroupHeartbeatResponse::default();
        response.member_id = Some(self.member_id.clone());
        response.member_epoch = member_epoch;
        response.heartbeat_interval_ms = env.config.consumer_heartbeat_interval_ms;
        response
    }

    fn step<'a>(&'a self, place: &'a Place, metadata: Option<Metadata>) -> Step<'a> {
        Step {
            member_id: &self.member_id,
            place,
            metadata,
            owned: self.owned.as_ref(),
        }
    }

    /// Whether it says everything, as a member does when it joins or does not know what was heard of it.
    fn is_full(&self) -> bool {
        let request = self.request;
        let is_subscribed =
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        request.member_epoch == JOIN_EPOCH
            || (request.rebalance_timeout_ms != -1 && is_subscribed && self.owned.is_some())
    }
}

/// What a member says, whatever protocol it speaks.
pub(super) struct Step<'a> {
    pub(super) member_id: &'a StrBytes,
    pub(super) place: &'a Place,
    /// What it says about itself, if that is new.
    pub(super) metadata: Option<Metadata>,
    /// What it says it reads.
    pub(super) owned: Option<&'a Partitions>,
}

impl Edit<'_> {
    /// Takes in what a member says, assigns anew if there is reason to, and lets it go on towards what it is to have. What it
    /// had, and has.
    pub(super) fn step(
        &mut self,
        env: &mut Env<'_>,
        group_id: &StrBytes,
        topics: &dyn Topics,
        step: Step<'_>,
    ) -> (Current, Current) {
        let id = step.member_id;
        self.enter(step.place, id);
        let before = self.group.current(id);
        self.subscribe(env, topics, id, step.metadata);
        self.update_target(env.now, env.config, topics);
        let after = self.reconcile(topics, id, step.owned, before.clone());
        self.group.renew_session(env, group_id, id);
        self.group
            .watch_revocation(env, group_id, id, before != after);
        (before, after)
    }

    /// Takes over the members of a classic group, if there was one.
    fn take_over(
        &mut self,
        env: &mut Env<'_>,
        group_id: &StrBytes,
        before: Option<Box<SetAside>>,
        changes: Vec<Change>,
    ) {
        let Some(before) = before else {
            return;
        };
        self.classic_gone(before);
        for change in changes {
            self.put(change);
        }
        for id in self.group.member_ids() {
            self.group.renew_session(env, group_id, &id);
        }
    }

    /// Gives a static member that has come back its place under its new id.
    fn enter(&mut self, place: &Place, id: &StrBytes) {
        let Place::Returned(before) = place else {
            return;
        };
        let metadata = self.group.members.get(before).cloned().unwrap_or_default();
        let target = self.group.target(before);
        let current = Current {
            epoch: 0,
            previous_epoch: 0,
            ..self.group.current(before)
        };
        self.remove(before);
        self.put(Change::Member(id.clone(), Some(Box::new(metadata))));
        self.put(Change::Target(id.clone(), Some(target)));
        self.put(Change::Current(id.clone(), Some(Box::new(current))));
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, id: &StrBytes) {
        self.put(Change::Current(id.clone(), None));
        self.put(Change::Target(id.clone(), None));
        self.put(Change::Member(id.clone(), None));
    }

    /// Takes in what a member says about itself, and starts a new epoch if there is reason to assign anew.
    fn subscribe(
        &mut self,
        env: &Env<'_>,
        topics: &dyn Topics,
        id: &StrBytes,
        metadata: Option<Metadata>,
    ) {
        let mut is_new_epoch = self.group.epoch.is_none();
        if let Some(metadata) = metadata {
            let known = self.group.members.get(id);
            let known = known.cloned().unwrap_or_default();
            let assignor = self.group.assignor(env.config);
            is_new_epoch |=
                known.topics != metadata.topics || known.pattern() != metadata.pattern();
            if known != metadata || !self.group.has_member(id) {
                self.put(Change::Member(id.clone(), Some(Box::new(metadata))));
            }
            is_new_epoch |= assignor != self.group.assignor(env.config);
            self.drop_patterns();
        }
        let matches_others = self.refresh_patterns(env.now, topics);
        let version = topics.version();
        if !is_new_epoch && !matches_others && self.group.topics_seen == Some(version) {
            return;
        }
        self.group.topics_seen = Some(version);
        let metadata_hash = self.group.metadata_hash(topics);
        let known = self.group.epoch;
        let has_changed = known.is_none_or(|known| known.metadata_hash != metadata_hash);
        // Where an epoch waits for its assignment already, that is for these topics.
        let is_waiting = self.group.epoch() > self.group.assignment_epoch();
        if !is_new_epoch && !has_changed {
            return;
        }
        let rise = i32::from(is_new_epoch || !is_waiting);
        self.put(Change::Epoch(Some(GroupEpoch {
            epoch: self.group.epoch().saturating_add(rise),
            metadata_hash,
        })));
    }

    /// Takes the member's next step towards its target; what it has then.
    fn reconcile(
        &mut self,
        topics: &dyn Topics,
        id: &StrBytes,
        owned: Option<&Partitions>,
        current: Current,
    ) -> Current {
        let group = &*self.group;
        let nothing = Partitions::new();
        let goal = Goal {
            epoch: group.assignment_epoch(),
            target: group.targets.get(id).unwrap_or(&nothing),
        };
        let next = reconcile(
            &current,
            &goal,
            |topic| group.subscribes(id, topic, topics),
            |topic, partition| group.is_free_for(id, topic, partition),
            owned,
        );
        let Some(next) = next else {
            return current;
        };
        self.put(Change::Current(id.clone(), Some(Box::new(next.clone()))));
        next
    }
}

/// Whether both have the same partitions, whenever they were assigned.
fn is_same(a: &Assigned, b: &Assigned) -> bool {
    let mut pairs = a.iter().zip(b);
    a.len() == b.len()
        && pairs.all(|((topic, of_a), (other, of_b))| topic == other && of_a.keys().eq(of_b.keys()))
}

fn assignment(assigned: &Assigned) -> Assignment {
    let topics = assigned.iter().map(|(topic, partitions)| {
        let mut of_topic = TopicPartitions::default();
        of_topic.topic_id = uuid(*topic);
        of_topic.partitions = partitions.keys().copied().collect();
        of_topic
    });
    let mut assignment = Assignment::default();
    assignment.topic_partitions = topics.collect();
    assignment
}
