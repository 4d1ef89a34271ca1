//! What must hold at the end of every turn.

use super::model::{Entry, PartitionModel};
use super::world::World;
use crate::core::LogOffsets;
use crate::id::{Now, PartitionKey};

impl World {
    /// Looks at what became durable: acknowledgements go out now.
    pub(super) fn observe(&mut self) {
        for index in 0..self.shards.len() {
            let shard = &mut self.shards[index];
            let durable = shard.core.durable();
            assert!(
                durable >= shard.durable,
                "invariant: durable frames do not go back"
            );
            let rose = durable > shard.durable;
            shard.durable = durable;
            if rose {
                self.trace
                    .note("durable", [index as u64, durable.0, 0], || {
                        format!("{index} {durable:?}")
                    });
                let of_shard = |m: &&mut PartitionModel| m.shard == index as u32 && !m.deleted;
                for model in self.models.values_mut().filter(of_shard) {
                    model.observe_durable(durable);
                    self.touched.insert(model.key);
                }
            }
            self.check_bounds(index);
        }
        for key in std::mem::take(&mut self.touched) {
            self.check_partition(key);
        }
        self.check_watches();
    }

    /// Looks at every partition, touched or not.
    pub(super) fn check_all(&mut self) {
        let keys: Vec<PartitionKey> = self.models.keys().copied().collect();
        for key in keys {
            self.check_partition(key);
        }
    }

    fn check_bounds(&self, index: usize) {
        let stats = self.shards[index].core.stats();
        let config = self
            .plan
            .core_config(0, 1, Vec::new(), self.options.mutations);
        let journal = config.journal_file_len() * self.plan.journal_files as u64;
        assert!(
            stats.backlog_bytes <= journal,
            "invariant: backlog of {} bytes exceeds the journal's {journal}",
            stats.backlog_bytes
        );
    }

    fn check_partition(&mut self, key: PartitionKey) {
        let Some(model) = self.models.get_mut(&key).filter(|m| !m.deleted) else {
            return;
        };
        let core = &self.shards[model.shard as usize].core;
        let Some(offsets) = core.offsets(model.part) else {
            panic!("invariant: {key:?} is gone");
        };
        model.check_offsets(self.now, offsets, core.stats().rounds);
        let compacted_end = core.compacted_end(model.part);
        assert!(
            compacted_end <= offsets.last_stable,
            "invariant: {key:?} is compacted to {compacted_end}, {offsets:?}"
        );
        model.compacted_end = model.compacted_end.max(compacted_end);
    }
}

impl PartitionModel {
    /// Holds the core's offsets against what was accepted and what is durable.
    fn check_offsets(&mut self, now: Now, offsets: LogOffsets, generation: u64) {
        let LogOffsets {
            log_start,
            high_watermark,
            last_stable: _,
            log_end,
            leader_epoch,
        } = offsets;
        let key = self.key;
        assert_eq!(log_end, self.end(), "invariant: log end of {key:?}");
        assert_eq!(
            high_watermark,
            self.durable_end(),
            "invariant: high watermark of {key:?} is the end of what is durable"
        );
        assert!(
            high_watermark >= self.high_watermark,
            "invariant: high watermark of {key:?} went back from {} to {high_watermark}",
            self.high_watermark
        );
        assert!(log_start <= high_watermark, "invariant: {offsets:?}");
        self.check_stable(offsets);
        assert!(
            leader_epoch >= self.leader_epoch,
            "invariant: leader epoch of {key:?} went back"
        );
        self.high_watermark = high_watermark;
        self.leader_epoch = leader_epoch;
        if log_start != self.log_start {
            self.check_retention(now, log_start);
            self.begins_at(log_start, generation);
        }
    }

    /// The log start moved: every batch that went was to be deleted, or too old, or the log too large even without it.
    fn check_retention(&self, now: Now, log_start: i64) {
        assert!(
            log_start > self.log_start,
            "invariant: log start of {:?} went back from {} to {log_start}",
            self.key,
            self.log_start
        );
        // What an earlier setting allowed may take effect with a checkpoint that is durable only now.
        let settings = || self.earlier_configs.iter().chain([&self.config]);
        let limit_bytes = settings()
            .filter_map(|c| u64::try_from(c.retention_bytes).ok())
            .min();
        let too_old = |e: &Entry| {
            // What compaction took keeps no segment.
            let newest = if self.compacts {
                self.newest_left(e)
            } else {
                e.max_timestamp()
            };
            settings().any(|c| c.retention_ms >= 0 && newest < now.wall_ms - c.retention_ms)
        };
        let deleted_to = self.deletions.last().copied().unwrap_or(0);
        let gone = &self.entries[self.entry_at(self.log_start)..self.entry_at(log_start)];
        // Segment by segment: one that went by size may be followed by one that went by age, as when Kafka's
        // cleaner looks at one and then at the other. So size is asked behind each batch, not at the new start.
        let mut behind_bytes = self.bytes_from(self.log_start);
        for entry in gone {
            behind_bytes -= entry.bytes.len() as u64;
            assert!(
                entry.end() <= deleted_to
                    || too_old(entry)
                    || limit_bytes.is_some_and(|limit| behind_bytes >= limit),
                "invariant: retention of {:?} took offset {} too early ({:?})",
                self.key,
                entry.base_offset,
                self.config
            );
        }
        assert!(
            gone.last().is_some_and(|e| e.end() == log_start)
                || self.deletions.contains(&log_start),
            "invariant: log start {log_start} of {:?} is inside a batch",
            self.key
        );
    }
}
