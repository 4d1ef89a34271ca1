//! The simulated control plane: topics come and go, settings change, the disk fills up, everybody falls idle.

use super::model::PartitionModel;
use super::world::{Actor, World};
use crate::core::LogConfig;
use crate::id::{PartitionKey, TopicId};
use crate::recovery::PartitionMeta;

/// Few names, so that a deleted topic's name soon comes back with another id.
const NAMES: [&str; 4] = ["logs", "metrics", "audit.v1", "x_y-z"];

impl World {
    /// Fills the catalog before the first start.
    pub(super) fn create_first_topics(&mut self) {
        let wanted = self.plan.partitions_max;
        for name in NAMES {
            let left = wanted - self.catalog.len();
            if left > 0 {
                let most = if name == NAMES[NAMES.len() - 1] {
                    left
                } else {
                    left.div_ceil(2)
                };
                self.record_topic(name, most);
            }
        }
    }

    /// Puts a topic into the catalog; the shards are told afterwards, or after a restart.
    fn record_topic(&mut self, name: &str, partitions: usize) -> Vec<PartitionMeta> {
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        let config = self.plan.log_config(&mut self.rng);
        let meta = |partition| PartitionMeta {
            key: PartitionKey {
                topic: TopicId(id),
                partition,
            },
            topic_name: name.to_owned(),
            config: config.clone(),
        };
        let metas: Vec<PartitionMeta> = (0..partitions as i32).map(meta).collect();
        for meta in &metas {
            self.catalog.insert(meta.key, meta.clone());
        }
        metas
    }

    /// The control plane's step.
    pub(super) fn administer(&mut self) {
        // The turn's end looks at everything.
        self.touched.extend(self.models.keys());
        self.check_time_queries();
        match self.rng.below(10) {
            0 if self.plan.topics_change => self.create_topic(),
            1 if self.plan.topics_change => self.delete_topic(),
            2 => self.change_config(),
            3 => self.change_capacity(),
            4 if self.plan.records_deleted => self.delete_records(),
            5 | 6 if self.plan.transactions => self.abort_forsaken(),
            7 if self.plan.transactions => self.check_listed(),
            _ => {}
        }
        if self.rng.percent(self.plan.idle_percent * 3) && !self.auditing {
            let idle_ns = self.rng.below(self.plan.idle_max_ns);
            self.trace
                .note("idle", [idle_ns, 0, 0], || format!("for {idle_ns} ns"));
            self.postpone_all(idle_ns);
        }
        let delay = self.plan.pause_max_ns * 10;
        let delay = self.rng.between(delay / 10, delay);
        self.schedule(delay, Actor::Admin);
    }

    fn create_topic(&mut self) {
        let is_free = |name: &&str| !self.catalog.values().any(|m| m.topic_name == **name);
        let free: Vec<&str> = NAMES.into_iter().filter(is_free).collect();
        let room = self.plan.partitions_max.saturating_sub(self.catalog.len());
        if free.is_empty() || room == 0 {
            return;
        }
        let name = self.rng.pick(&free);
        let partitions = self.rng.between(1, room as u64) as usize;
        for meta in self.record_topic(name, partitions) {
            let index = meta.key.shard(self.shards.len() as u32);
            let core = &mut self.shards[index as usize].core;
            let part = core.create_partition(self.now, meta.key, name, meta.config.clone());
            self.trace
                .note("create", [u64::from(index), u64::from(part.0), 0], || {
                    format!("{index} {meta:?}: {part:?}")
                });
            let mut model = PartitionModel::new(meta.key, meta.config, index, part);
            model.compacts = self.plan.compacts;
            self.models.insert(meta.key, model);
        }
    }

    fn delete_topic(&mut self) {
        let Some(topic) = self.some_key().map(|key| key.topic) else {
            return;
        };
        let keys: Vec<PartitionKey> = self
            .catalog
            .keys()
            .copied()
            .filter(|key| key.topic == topic)
            .collect();
        for key in keys {
            self.catalog.remove(&key);
            let Some(model) = self.models.get_mut(&key) else {
                continue;
            };
            model.deleted = true;
            let (shard, part) = (model.shard, model.part);
            self.trace
                .note("delete", [u64::from(shard), u64::from(part.0), 0], || {
                    format!("{shard} {key:?} {part:?}")
                });
            let core = &mut self.shards[shard as usize].core;
            core.drop_partition(self.now, part);
            assert!(
                core.lookup(key).is_none() && core.offsets(part).is_none(),
                "invariant: {key:?} was dropped and is there"
            );
            self.advanced(shard, part);
        }
    }

    pub(super) fn some_key(&mut self) -> Option<PartitionKey> {
        let keys: Vec<PartitionKey> = self.catalog.keys().copied().collect();
        (!keys.is_empty()).then(|| self.rng.pick(&keys))
    }

    fn change_config(&mut self) {
        let Some(key) = self.some_key() else { return };
        let config = LogConfig {
            // A batch is judged by the settings at its arrival; those that change its bytes stay.
            log_append_time: self.catalog[&key].config.log_append_time,
            ..self.plan.log_config(&mut self.rng)
        };
        let (Some(meta), Some(model)) = (self.catalog.get_mut(&key), self.models.get_mut(&key))
        else {
            return;
        };
        meta.config = config.clone();
        let earlier = std::mem::replace(&mut model.config, config.clone());
        model.earlier_configs.push(earlier);
        self.shards[model.shard as usize]
            .core
            .set_config(model.part, config);
    }

    /// A user lets a log begin later: inside a batch, at its end, or, which is refused, behind it.
    fn delete_records(&mut self) {
        let Some(key) = self.some_key() else { return };
        let Some(model) = self.models.get_mut(&key) else {
            return;
        };
        let core = &mut self.shards[model.shard as usize].core;
        let Some(offsets) = core.offsets(model.part) else {
            return;
        };
        let (start, end) = (offsets.log_start, offsets.high_watermark);
        let offset = match self.rng.below(10) {
            0 => end + 1,
            1 | 2 => end,
            _ => start + self.rng.below((end - start) as u64 / 2 + 1) as i64,
        };
        let result = core.delete_records(model.part, offset);
        let numbers = [
            u64::from(model.shard),
            offset as u64,
            u64::from(result.is_ok()),
        ];
        self.trace.note("delete-records", numbers, || {
            format!("{key:?} below {offset}: {result:?}")
        });
        assert_eq!(
            result.is_ok(),
            offset <= end,
            "invariant: {key:?} may begin anywhere up to {end}: {result:?}"
        );
        if result.is_ok() {
            model.deleting(offset);
        }
    }

    /// The disk fills up, or gets room again.
    fn change_capacity(&mut self) {
        let faults = &mut self.disk.faults;
        if faults.capacity_bytes.take().is_none() && self.plan.disk_fills {
            self.fill_disk();
        }
    }

    /// Leaves room for little more than what is there.
    pub(super) fn fill_disk(&mut self) {
        let more = self.rng.below(10 * self.plan.max_batch_bytes as u64);
        let capacity = self.disk.used_bytes() + more;
        self.disk.faults.capacity_bytes = Some(capacity);
        self.full_since_start = true;
        self.trace
            .note("capacity", [capacity, 0, 0], || format!("{capacity} bytes"));
    }

    fn check_time_queries(&self) {
        let waits = |since_ns| self.now.mono_ns - since_ns;
        let slowest = self.time_queries.values().max_by_key(|q| waits(q.since_ns));
        assert!(
            slowest.is_none_or(|q| waits(q.since_ns) < super::world::PATIENCE_NS),
            "invariant: a look-up waits for ever: {slowest:?}"
        );
    }
}
