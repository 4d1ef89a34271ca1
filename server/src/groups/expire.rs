//! Offsets nobody has used for long, and groups that are left with none.

use ringlog_engine::id::Now;

use super::StrBytes;
use super::coordinator::{Coordinator, Env};
use super::group::{CONSUMER, Group, State};
use super::record::CommittedOffset;

impl Coordinator {
    /// Removes what has expired, in every partition that is active.
    pub(super) fn expire_offsets(&mut self, now: Now) {
        let ids: Vec<StrBytes> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            // What waits to be written is bounded; the rest is for the next time.
            if self.writes.is_full(self.config.unwritten_bytes_max) {
                return;
            }
            if self.is_active(group.partition) {
                self.with_group(now, &id, Group::expire);
            }
        }
    }
}

impl Group {
    fn expire(&mut self, env: &mut Env<'_>) {
        if self.is_in(State::Dead) {
            return;
        }
        let mut expired = Vec::new();
        for (topic, partitions) in &self.offsets {
            for (partition, offset) in partitions {
                let key = (topic.clone(), *partition);
                if self.is_expired(env, topic, offset)
                    && !self.offsets_on_the_way.contains_key(&key)
                {
                    expired.push((topic.clone(), *partition, None));
                }
            }
        }
        let stored: usize = self
            .offsets
            .values()
            .map(|partitions| partitions.len())
            .sum();
        let is_over = self.is_without_members()
            && self.pending.is_empty()
            && self.offsets_on_the_way.is_empty()
            && self.undecided.is_empty()
            && self.writes_on_the_way == 0
            && expired.len() == stored;
        if is_over && self.consumer.is_some() {
            self.bury_consumer(env, None);
        }
        if is_over {
            self.transition(State::Dead, env.now.wall_ms);
        }
        let batch_bytes_max = env.config.batch_bytes_max;
        env.writes
            .offsets(self, expired, is_over, None, batch_bytes_max);
    }

    /// Kafka's rule (KIP-211): offsets of consumers' groups expire a retention after the group became empty; of topics
    /// that a group no longer subscribes to, and of groups that only keep offsets, a retention after the commit.
    fn is_expired(&self, env: &Env<'_>, topic: &StrBytes, offset: &CommittedOffset) -> bool {
        if self.consumer.is_some() && self.is_subscribed(topic) {
            return false;
        }
        let since_ms = match &self.protocol_type {
            None => offset.commit_ms,
            Some(_) if self.consumer.is_some() => offset.commit_ms,
            Some(_) if self.is_in(State::Empty) => self.state_since_ms.unwrap_or(offset.commit_ms),
            Some(kind) if kind.as_str() == CONSUMER && self.is_in(State::Stable) => {
                if self.subscribed.is_none() || self.is_subscribed(topic) {
                    return false;
                }
                offset.commit_ms
            }
            Some(_) => return false,
        };
        match offset.expire_ms {
            Some(at_ms) => env.now.wall_ms >= at_ms,
            None => env.now.wall_ms.saturating_sub(since_ms) >= env.config.offsets_retention_ms,
        }
    }
}
