//! Whether a heartbeat's sender may say what it says.

use super::super::error::GroupError;
use super::super::{StrBytes, own};
use super::heartbeat::Beat;
use super::member::{Metadata, STATIC_LEAVE_EPOCH};
use super::reconcile::reads_only;
use super::request::{JOIN_EPOCH, Refused};
use super::{ConsumerGroup, regex};

/// Who sends a heartbeat.
pub(super) enum Place {
    Member,
    /// Joins for the first time.
    New,
    /// A static member that comes back, and the id it had.
    Returned(StrBytes),
}

impl Beat<'_> {
    /// Whether it says nothing of a member but what everyone says every time.
    fn says_no_more_than(&self, known: &Metadata) -> bool {
        let request = self.request;
        let is_same_instance =
            request.instance_id.is_none() || request.instance_id == known.instance_id;
        is_same_instance
            && known.classic.is_none()
            && request.rack_id.is_none()
            && request.subscribed_topic_names.is_none()
            && request.subscribed_topic_regex.is_none()
            && request.server_assignor.is_none()
            && request.rebalance_timeout_ms == -1
            && known.client_id.as_str() == self.client_id
            && known.client_host.as_str() == self.client_host
    }
}

impl ConsumerGroup {
    /// Who sends a heartbeat, if it is one that may.
    pub(super) fn place(&self, beat: &Beat<'_>, size_max: usize) -> Result<Place, Refused> {
        let request = beat.request;
        let joins = request.member_epoch == JOIN_EPOCH;
        let is_member = self.has_member(&beat.member_id);
        let holder = request
            .instance_id
            .as_ref()
            .and_then(|instance_id| self.static_members.get(instance_id));
        if holder.is_none() && !is_member && self.member_count() >= size_max {
            let reason = format_args!(
                "The consumer group has reached its maximum capacity of {size_max} members."
            );
            return Err(Refused::new(GroupError::GroupMaxSizeReached, reason));
        }
        if joins {
            return match holder {
                // Its predecessor must have left, unless that was a member of the classic protocol, which cannot say so.
                Some(holder)
                    if !self.is_classic(holder)
                        && self.current(holder).epoch != STATIC_LEAVE_EPOCH =>
                {
                    let reason = format_args!(
                        "Static member {} with instance id {} cannot join the group because the instance id is owned by {} member.",
                        beat.member_id.as_str(),
                        request.instance_id.as_deref().unwrap_or_default(),
                        holder.as_str()
                    );
                    Err(Refused::new(GroupError::UnreleasedInstanceId, reason))
                }
                Some(holder) => Ok(Place::Returned(holder.clone())),
                None if is_member => Ok(Place::Member),
                None => Ok(Place::New),
            };
        }
        self.check_identity(&beat.member_id, request.instance_id.as_ref())?;
        self.check_epoch(beat)?;
        Ok(Place::Member)
    }

    /// Checks that a member that is named is one, and that it holds the instance id it names.
    pub(super) fn check_identity(
        &self,
        id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<(), Refused> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => {
                    let reason = format_args!("Instance id {} is unknown.", instance_id.as_str());
                    return Err(Refused::new(GroupError::UnknownMemberId, reason));
                }
                Some(holder) if holder != id => {
                    let reason = format_args!(
                        "Static member {} with instance id {} was fenced by member {}.",
                        id.as_str(),
                        instance_id.as_str(),
                        holder.as_str()
                    );
                    return Err(Refused::new(GroupError::FencedInstanceId, reason));
                }
                Some(_) => {}
            }
        }
        if self.has_member(id) {
            return Ok(());
        }
        let reason = format_args!("Member {} is not a member of the group.", id.as_str());
        Err(Refused::new(GroupError::UnknownMemberId, reason))
    }

    /// A member comes with its epoch, or, if it did not hear of that, with the one before and nothing it should not have.
    fn check_epoch(&self, beat: &Beat<'_>) -> Result<(), Refused> {
        let told = beat.request.member_epoch;
        let current = self.current(&beat.member_id);
        let is_behind =
            told == current.previous_epoch && reads_only(beat.owned.as_ref(), &current.assigned);
        if told == current.epoch || (told < current.epoch && is_behind) {
            return Ok(());
        }
        let which = if told > current.epoch {
            "greater"
        } else {
            "smaller"
        };
        let reason = format_args!(
            "The consumer group member has a {which} member epoch ({told}) than the one known by the group coordinator ({}). \
             The member must abandon all its partitions and rejoin.",
            current.epoch
        );
        Err(Refused::new(GroupError::FencedMemberEpoch, reason))
    }

    /// What is known of a member with what the heartbeat says; none if that is nothing new.
    pub(super) fn updated_metadata(&self, beat: &Beat<'_>, place: &Place) -> Option<Metadata> {
        let known = match place {
            Place::Member => self.members.get(&beat.member_id),
            Place::New => None,
            Place::Returned(before) => self.members.get(before),
        };
        if matches!(place, Place::Member)
            && known.is_some_and(|known| beat.says_no_more_than(known))
        {
            return None;
        }
        let mut metadata = known.cloned().unwrap_or_default();
        let request = beat.request;
        let update = |to: &mut Option<StrBytes>, from: &Option<StrBytes>| {
            if let Some(from) = from {
                *to = Some(own(from));
            }
        };
        update(&mut metadata.instance_id, &request.instance_id);
        update(&mut metadata.rack_id, &request.rack_id);
        update(&mut metadata.regex, &request.subscribed_topic_regex);
        update(&mut metadata.assignor, &request.server_assignor);
        if let Some(topics) = &request.subscribed_topic_names {
            metadata.topics = topics.iter().map(own).collect();
        }
        if request.rebalance_timeout_ms != -1 {
            metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        if metadata.client_id.as_str() != beat.client_id {
            metadata.client_id = beat.client_id.into();
        }
        if metadata.client_host.as_str() != beat.client_host {
            metadata.client_host = beat.client_host.into();
        }
        metadata.classic = None;
        let is_known = known == Some(&metadata) && !matches!(place, Place::Returned(_));
        (!is_known).then_some(metadata)
    }

    /// Whether new metadata can be kept: its regular expression is one, and there is room.
    pub(super) fn check_metadata(
        &self,
        beat: &Beat<'_>,
        metadata: Option<&Metadata>,
        room: usize,
    ) -> Result<(), Refused> {
        let Some(metadata) = metadata else {
            return Ok(());
        };
        if let Some(pattern) = metadata.pattern()
            && !self.patterns.contains_key(pattern)
        {
            debug_assert!(beat.version >= 1, "version 0 has none");
            regex::compile(pattern).map_err(|reason| {
                let reason = format_args!(
                    "SubscribedTopicRegex `{}` is not a valid regular expression: {reason}.",
                    pattern.as_str()
                );
                Refused::new(GroupError::InvalidRegularExpression, reason)
            })?;
        }
        match metadata.bytes() + 8 * beat.member_id.len() <= room {
            true => Ok(()),
            false => Err(GroupError::GroupMaxSizeReached.into()),
        }
    }
}
