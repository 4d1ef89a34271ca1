//! What a group's members subscribe to, by name and by regular expression, and whether that has changed.

use std::collections::BTreeSet;
use std::hash::Hasher;

use ringlog_engine::id::{Now, TopicId};
use siphasher::sip::SipHasher13;

use super::super::StrBytes;
use super::super::topics::Topics;
use super::ConsumerGroup;
use super::change::Change;
use super::edit::Edit;
use super::member::Metadata;
use super::regex::{self, Resolved};

/// How often expressions are matched against a changing catalog at most, as in Kafka.
const REFRESH_INTERVAL_NS: u64 = 10_000_000_000;

impl ConsumerGroup {
    /// Whether somebody subscribes to a topic.
    pub(in crate::groups) fn is_subscribed(&self, topic: &str) -> bool {
        let topic = StrBytes::from(topic);
        let mut resolved = self.resolved.values();
        self.subscribers.contains_key(&topic) || resolved.any(|r| r.topics.contains(&topic))
    }

    /// Names of the topics a member subscribes to.
    pub(super) fn topics_of<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> impl Iterator<Item = &'a StrBytes> {
        let resolved = metadata
            .pattern()
            .and_then(|pattern| self.resolved.get(pattern));
        let matched = resolved
            .map(|resolved| &resolved.topics)
            .into_iter()
            .flatten();
        let further = matched.filter(|topic| !metadata.topics.contains(*topic));
        metadata.topics.iter().chain(further)
    }

    /// Whether a member subscribes to a topic, and the topic exists.
    pub(super) fn subscribes(&self, id: &StrBytes, topic: TopicId, topics: &dyn Topics) -> bool {
        let (Some(metadata), Some(name)) = (self.members.get(id), topics.name(topic)) else {
            return false;
        };
        let name = StrBytes::from(name);
        let resolved = metadata
            .pattern()
            .and_then(|pattern| self.resolved.get(pattern));
        metadata.topics.contains(&name) || resolved.is_some_and(|r| r.topics.contains(&name))
    }

    /// A hash of the subscribed topics that exist, with their ids and sizes; 0 for none. It is stored: a group that is read
    /// back is assigned anew only if they have changed.
    pub(super) fn metadata_hash(&self, topics: &dyn Topics) -> i64 {
        let resolved = self.resolved.values().flat_map(|resolved| &resolved.topics);
        let names: BTreeSet<&StrBytes> = self.subscribers.keys().chain(resolved).collect();
        let mut hasher = SipHasher13::new();
        let mut is_empty = true;
        for topic in names.into_iter().filter_map(|name| topics.topic(name)) {
            is_empty = false;
            hasher.write(&topic.id.0);
            hasher.write(&topic.partitions.to_be_bytes());
        }
        match is_empty {
            true => 0,
            false => hasher.finish().cast_signed(),
        }
    }

    /// Whether expressions are to be matched again: the catalog has changed, and the last time is long enough ago.
    pub(super) fn is_refresh_due(&self, now: Now, topics: &dyn Topics) -> bool {
        !self.patterns.is_empty()
            && self.patterns_seen.is_none_or(|(version, at_ns)| {
                version != topics.version()
                    && now.mono_ns.saturating_sub(at_ns) >= REFRESH_INTERVAL_NS
            })
    }
}

impl Edit<'_> {
    /// Brings what expressions match up to date. True if something else matches now.
    pub(super) fn refresh_patterns(&mut self, now: Now, topics: &dyn Topics) -> bool {
        let is_due = self.group.is_refresh_due(now, topics);
        let patterns = self.group.patterns.keys();
        let stale =
            patterns.filter(|pattern| is_due || !self.group.resolved.contains_key(*pattern));
        let stale: Vec<StrBytes> = stale.cloned().collect();
        if is_due {
            self.group.patterns_seen = Some((topics.version(), now.mono_ns));
        }
        let mut has_changed = false;
        for pattern in stale {
            let found = resolve(now, &pattern, topics);
            let known = self.group.resolved.get(&pattern);
            if known.is_none_or(|known| known.topics != found.topics) {
                has_changed = true;
                self.put(Change::Resolved(pattern, Some(found)));
            }
        }
        has_changed
    }

    /// Forgets what expressions matched that nobody has any more.
    pub(super) fn drop_patterns(&mut self) {
        let group = &self.group;
        let unused = group
            .resolved
            .keys()
            .filter(|pattern| !group.patterns.contains_key(*pattern));
        for pattern in unused.cloned().collect::<Vec<StrBytes>>() {
            self.put(Change::Resolved(pattern, None));
        }
    }
}

fn resolve(now: Now, pattern: &StrBytes, topics: &dyn Topics) -> Resolved {
    let mut found = BTreeSet::new();
    // One that does not compile was written by another broker; here it is refused before it is kept.
    if let Ok(regex) = regex::compile(pattern) {
        topics.each_name(&mut |name| {
            if regex.is_match(name) {
                found.insert(StrBytes::from(name));
            }
        });
    }
    Resolved {
        topics: found,
        version: i64::try_from(topics.version()).unwrap_or(i64::MAX),
        timestamp_ms: now.wall_ms,
    }
}
