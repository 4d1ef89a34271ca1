//! Offsets by topic id, as OffsetCommit and OffsetFetch name topics from version 10 on.

use kafka_wire::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};
use kafka_wire_core::Uuid;

use super::StrBytes;
use super::coordinator::{Call, Coordinator, Response};
use super::error::GroupError;
use super::topics::Topics;
use crate::repeats::distinct;
use crate::wire::{topic_id, uuid};

/// The first version of both that has ids instead of names.
pub(super) const VERSION: i16 = 10;

/// Gives topics the names they have here; those that are not here have none.
pub fn name_committed(request: &mut OffsetCommitRequest, topics: &dyn Topics) {
    for topic in &mut request.topics {
        topic.name = name_of(topic.topic_id, topics);
    }
}

impl Coordinator {
    /// OffsetFetch from version 10 on.
    pub fn fetch_offsets_by_id(
        &mut self,
        call: &Call<'_>,
        mut request: OffsetFetchRequest,
        topics: &dyn Topics,
    ) {
        for topic in request
            .groups
            .iter_mut()
            .flat_map(|group| group.topics.iter_mut().flatten())
        {
            topic.name = name_of(topic.topic_id, topics);
        }
        let mut response = self.fetch_groups(&request);
        put_ids(&request, &mut response, topics);
        self.out.send(call.token, Response::Fetch(response));
    }
}

fn name_of(id: Uuid, topics: &dyn Topics) -> StrBytes {
    topics.name(topic_id(id)).unwrap_or_default().into()
}

fn put_ids(request: &OffsetFetchRequest, response: &mut OffsetFetchResponse, topics: &dyn Topics) {
    let asked = distinct(&request.groups, |asked| asked.group_id.as_str());
    for (asked, group) in asked.zip(&mut response.groups) {
        let Some(asked) = &asked.topics else {
            // What has no id any more cannot be told.
            group.topics.retain_mut(|found| {
                let topic = topics.topic(&found.name);
                found.topic_id = topic.map_or(found.topic_id, |topic| uuid(topic.id));
                topic.is_some()
            });
            continue;
        };
        // One for each that was asked for, in that order, unless there was an error.
        for (asked, found) in asked.iter().zip(&mut group.topics) {
            found.topic_id = asked.topic_id;
            if asked.name.is_empty() {
                let code = GroupError::UnknownTopicId.code();
                found
                    .partitions
                    .iter_mut()
                    .for_each(|of| of.error_code = code);
            }
        }
    }
}
