//! One life of the simulated process: recovery, with crashes inside it; service; and an end, kind or unkind.

use std::collections::BTreeMap;

use super::consumer::{Consumer, Manner};
use super::model::PartitionModel;
use super::plan::{End, Life};
use super::world::{Actor, PATIENCE_NS, Shard, Stopped, World};
use crate::core::{Core, Durability};
use crate::disk::DiskError;
use crate::id::{FrameSeq, Part};
use crate::recovery::{
    PartitionMeta, PartitionState, Recovered, RecoveryError, RecoveryOptions, recover,
};

/// A process on a file system that has stopped itself is stopped after this long: it cannot get better.
const STOPPED_MAX_NS: u64 = 5_000_000_000;

impl World {
    /// Lives through `life`; returns false if damaged data was found where a bit had been flipped, which ends the
    /// story.
    pub(super) fn live(&mut self, life: &Life) -> bool {
        let Some(recovered) = self.recover(life) else {
            return false;
        };
        self.start(life.shards, recovered);
        self.disk.faults = life.faults;
        self.faulty = faulty(life);
        self.serve(life.steps);
        self.end(life.end);
        true
    }

    /// As [`World::live`], and everything recovered is read back first.
    pub(super) fn live_to_the_end(&mut self, life: &Life) -> bool {
        let Some(recovered) = self.recover(life) else {
            return false;
        };
        self.disk.faults = life.faults;
        self.faulty = false;
        self.start(life.shards, recovered);
        self.finish_audits();
        self.serve(life.steps);
        self.end(life.end);
        true
    }

    // --- recovery ---

    fn recover(&mut self, life: &Life) -> Option<Recovered> {
        let mut crashes = life.recovery_crashes;
        self.disk.faults = life.recovery_faults;
        if self.plan.disk_fills && self.rng.percent(30) {
            self.fill_disk();
        }
        for attempt in 0.. {
            if attempt > 5 {
                // Faults that last for ever keep any process from starting.
                self.disk.faults = super::disk::Faults::default();
                crashes = 0;
                if self.disk.stopped {
                    self.disk.lose_power();
                }
            }
            let limit = (crashes > 0).then(|| self.draw_crash_point());
            crashes = crashes.saturating_sub(1);
            let catalog: Vec<PartitionMeta> = self.catalog.values().cloned().collect();
            let options = self.recovery_options(life.shards);
            let mut disk = self.disk.blocking(limit);
            let result = recover(&mut disk, &catalog, options);
            let (calls, crashed) = (disk.calls(), disk.crashed());
            if !crashed {
                self.recovery_calls = calls.min(2000);
            }
            self.trace.note(
                "recover",
                [calls, u64::from(crashed), u64::from(result.is_ok())],
                || format!("{calls} calls, crashed {crashed}: {result:?}"),
            );
            self.summary.recoveries += 1;
            match result {
                Ok(recovered) if !crashed => return Some(recovered),
                Err(RecoveryError::Damaged(_)) if self.flipped => return None,
                Err(RecoveryError::Disk { error, .. }) => assert!(
                    crashed || error != DiskError::NOT_FOUND && attempt <= 5,
                    "invariant: recovery failed without cause: {error}"
                ),
                Err(error) => panic!("invariant: recovery refuses what a crash left: {error}"),
                Ok(_) => {}
            }
            self.disturbed = true;
            let power = self.rng.percent(60);
            self.die(if power { End::PowerLoss } else { End::Kill });
        }
        None
    }

    fn recovery_options(&mut self, shards: u32) -> RecoveryOptions {
        let mut new_dir_id = [0; 16];
        self.rng.fill(&mut new_dir_id);
        let config = self
            .plan
            .core_config(0, shards, Vec::new(), self.options.mutations);
        RecoveryOptions {
            shards,
            journal_file_len: config.journal_file_len(),
            new_dir_id,
            now_ms: self.now.wall_ms,
            mutations: self.options.mutations,
        }
    }

    fn draw_crash_point(&mut self) -> u64 {
        let longest = self.recovery_calls;
        if self.rng.percent(30) {
            // Around the switch to the new run, which comes late.
            return longest.saturating_sub(self.rng.below(40));
        }
        let most = self.rng.pick(&[5, 50, longest]);
        self.rng.below(most)
    }

    /// Starts shards over what recovery found, and holds that against the model.
    fn start(&mut self, shards: u32, recovered: Recovered) {
        self.check_run(&recovered);
        let run = recovered.run;
        let mut journals: Vec<Vec<u32>> = (0..shards)
            .map(|shard| recovered.existing_journals(shard))
            .collect();
        let mut states: Vec<Vec<PartitionState>> = (0..shards).map(|_| Vec::new()).collect();
        for state in recovered.partitions {
            states[state.meta.key.shard(shards) as usize].push(state);
        }
        self.shards.clear();
        for (index, states) in (0..).zip(states) {
            let journals = std::mem::take(&mut journals[index as usize]);
            let mutations = self.options.mutations;
            let config = self.plan.core_config(index, shards, journals, mutations);
            self.shards.push(Shard {
                core: Core::new(config, run, states, self.now),
                durable: FrameSeq(0),
            });
        }
        for shard in &mut self.shards {
            shard.durable = shard.core.durable();
        }
        self.models.retain(|_, model| !model.deleted);
        self.adopt_partitions(shards);
        (self.stopped, self.disturbed) = (Stopped::Crash, false);
        self.failures_at_start = self.disk.failed_changes;
        self.full_since_start = self.disk.faults.capacity_bytes.is_some();
        self.vouched.clear();
        self.begin_clients();
    }

    fn check_run(&mut self, recovered: &Recovered) {
        let run = recovered.run;
        if let Some(last) = self.last_run {
            assert_eq!(
                run.dir_id, last.dir_id,
                "invariant: the directory's id changed"
            );
            assert!(
                run.run > last.run,
                "invariant: run {} follows {}",
                run.run,
                last.run
            );
            // What happened since the last service: a crash in recovery alone changes nothing, but may be told as one.
            let rises = i32::from(self.stopped == Stopped::Crash);
            assert!(
                run.leader_epoch >= last.leader_epoch + rises,
                "invariant: leader epoch {} follows {}, the last stop: {:?}",
                run.leader_epoch,
                last.leader_epoch,
                self.stopped
            );
            let told = match self.stopped {
                // With its newest checkpoint damaged, a start goes by the one before and by the journal.
                _ if self.flipped => true,
                Stopped::Clean => !recovered.unclean,
                Stopped::Crash => recovered.unclean,
                Stopped::Either => true,
            };
            assert!(
                self.disturbed || told,
                "invariant: the last stop was {:?}, recovery says otherwise",
                self.stopped
            );
        }
        self.last_run = Some(run);
    }

    fn adopt_partitions(&mut self, shards: u32) {
        let mut kept: BTreeMap<u32, FrameSeq> = BTreeMap::new();
        let mut lost: BTreeMap<u32, FrameSeq> = BTreeMap::new();
        for (&key, meta) in &self.catalog {
            let shard = key.shard(shards);
            let core = &self.shards[shard as usize].core;
            let part = core.lookup(key);
            let Some((part, offsets)) = part.and_then(|part| Some((part, core.offsets(part)?)))
            else {
                panic!("invariant: recovery forgot {key:?}");
            };
            let new = || PartitionModel::new(key, meta.config.clone(), shard, Part(0));
            let model = self.models.entry(key).or_insert_with(new);
            model.compacts = self.plan.compacts;
            // Without damage, whatever was durable counts.
            let vouched = self.vouched.get(&model.shard).copied();
            let (last_kept, first_lost) =
                model.restarted(offsets.log_end, vouched.map(|v| v.frame));
            model.restarted_log_start(offsets.log_start, vouched.map(|v| v.checkpoint));
            if let Some(frame) = last_kept {
                let newest = kept.entry(model.shard).or_default();
                *newest = frame.max(*newest);
            }
            if let Some(frame) = first_lost {
                let oldest = lost.entry(model.shard).or_insert(frame);
                *oldest = frame.min(*oldest);
            }
            (model.shard, model.part) = (shard, part);
            self.touched.insert(key);
        }
        for (shard, newest) in kept {
            assert!(
                lost.get(&shard).is_none_or(|&oldest| newest < oldest),
                "invariant: shard {shard} kept frame {newest:?} and lost {:?} before it",
                lost.get(&shard)
            );
        }
        self.observe();
    }

    fn begin_clients(&mut self) {
        self.clear_agenda();
        self.consumers.clear();
        self.time_queries.clear();
        for index in 0..self.producers.len() {
            self.producers[index].disconnected();
            self.schedule_after_pause(Actor::Producer(index));
        }
        for _ in 0..self.plan.consumers {
            let manner = self
                .rng
                .pick(&[Manner::Follow, Manner::Follow, Manner::Roam]);
            let committed = self.plan.transactions && self.rng.percent(50);
            let consumer = Consumer::new(manner, None).committed(committed);
            self.consumers.push(consumer);
        }
        for (key, model) in &self.models {
            if model.high_watermark > model.log_start {
                let manner = Manner::Audit(model.high_watermark);
                let consumer = Consumer::new(manner, Some((*key, model.log_start)));
                self.consumers.push(consumer);
            }
            let stable = model.transactions.last_stable();
            if self.plan.transactions && stable > model.log_start {
                let at = Some((*key, model.log_start));
                let consumer = Consumer::new(Manner::Audit(stable), at).committed(true);
                self.consumers.push(consumer);
            }
        }
        for index in 0..self.consumers.len() {
            self.schedule_after_pause(Actor::Consumer(index));
        }
        self.schedule_after_pause(Actor::Admin);
    }

    // --- service ---

    fn serve(&mut self, steps: u64) {
        let end = self.steps + steps;
        let mut stopped_ns = 0;
        while self.steps < end && self.fatal.is_none() && stopped_ns < STOPPED_MAX_NS {
            let before_ns = self.now.mono_ns;
            self.advance();
            if self.disk.stopped {
                stopped_ns += self.now.mono_ns - before_ns;
            }
        }
    }

    /// Serves on until every audit has read its partition.
    pub(super) fn finish_audits(&mut self) {
        let since_ns = self.now.mono_ns;
        self.auditing = true;
        while self.consumers.iter().any(|c| c.is_audit() && !c.done) {
            self.advance();
            assert!(
                self.now.mono_ns - since_ns < PATIENCE_NS,
                "invariant: reading everything back takes for ever"
            );
        }
        self.auditing = false;
    }

    // --- end ---

    fn end(&mut self, end: End) {
        let fatal = self.fatal.take().is_some();
        if end != End::Shutdown || fatal {
            return self.die(end);
        }
        if !self.shut_down() {
            self.die(end);
            // The journal may have failed behind a checkpoint that says clean, and everything is in segments then.
            self.stopped = Stopped::Either;
            return;
        }
        self.stopped = if self.shards.iter().all(|s| s.core.ended_clean()) {
            Stopped::Clean
        } else {
            // The last round failed; its checkpoint may have reached the device all the same.
            assert!(
                self.disk.failed_changes > self.failures_at_start,
                "invariant: a shutdown on a disk that did not fail is clean"
            );
            Stopped::Either
        };
        // Nothing may depend on the system staying up any more, unless acknowledgements did so all along.
        let how = self.rng.pick(&[End::PowerLoss, End::Kill]);
        self.count_compactions();
        self.note_segments();
        self.shards.clear();
        if how == End::PowerLoss
            && (self.stopped == Stopped::Clean || self.plan.durability == Durability::Fsync)
        {
            self.disk.lose_power();
        } else {
            self.disk.kill();
        }
        if self.stopped == Stopped::Clean && !self.flipped {
            self.check_segments();
        }
    }

    /// The process dies here; with acknowledgements after the write alone the system lives on.
    fn die(&mut self, end: End) {
        self.summary.crashes += 1;
        self.fatal = None;
        self.draining = false;
        self.count_compactions();
        self.shards.clear();
        self.consumers.clear();
        let power = end != End::Kill && self.plan.durability == Durability::Fsync;
        self.trace.note("crash", [u64::from(power), 0, 0], || {
            if power { "power loss" } else { "kill" }.to_owned()
        });
        if power {
            self.disk.lose_power();
        } else {
            self.disk.kill();
        }
    }

    /// A clean shutdown; false when a failure came between.
    fn shut_down(&mut self) -> bool {
        self.draining = true;
        self.disk.faults.capacity_bytes = None;
        self.clear_agenda();
        self.release_all();
        for shard in &mut self.shards {
            shard.core.shutdown(self.now);
        }
        self.trace.note("shutdown", [0; 3], String::new);
        let since_ns = self.now.mono_ns;
        self.turn();
        while !self.shards.iter().all(|s| s.core.is_finished()) {
            self.advance();
            if self.fatal.take().is_some() {
                self.draining = false;
                return false;
            }
            assert!(
                self.now.mono_ns - since_ns < PATIENCE_NS,
                "invariant: shutdown takes for ever"
            );
        }
        self.check_all();
        for model in self.models.values().filter(|m| !m.deleted) {
            assert_eq!(
                model.durable,
                model.entries.len(),
                "invariant: {:?} shut down with batches that are not durable",
                model.key
            );
            let clean = self.shards[model.shard as usize].core.ended_clean();
            assert!(
                model.log_start >= model.deleted_to || !clean,
                "invariant: {:?} shut down with records that were to be deleted: it begins at {}, not {}",
                model.key,
                model.log_start,
                model.deleted_to
            );
        }
        self.draining = false;
        true
    }
}

fn faulty(life: &Life) -> bool {
    let f = life.faults;
    f.write_ppm + f.sync_ppm + f.read_ppm + f.meta_ppm > 0
}
