//! What happens when records are durable, or are lost.

use ringlog_engine::id::Now;

use super::super::StrBytes;
use super::super::coordinator::{Coordinator, Env};
use super::super::error::GroupError;
use super::super::group::{Group, State};
use super::super::record::CommittedOffset;
use super::{AppendFailure, AppendId, Change, Effect, Write};

impl Coordinator {
    /// An append is durable, or failed. Successes of a partition are reported in the order of its log.
    ///
    /// # Panics
    /// If `id` is not that of an append whose outcome is open.
    pub fn appended(&mut self, now: Now, id: AppendId, result: Result<(), AppendFailure>) {
        let in_flight = self.writes.in_flight.remove(&id);
        let in_flight = in_flight.expect("an append is reported once");
        let result = result.map_err(AppendFailure::error);
        self.writes_ended(now, in_flight.epoch, in_flight.writes, result);
    }

    /// Several writes in the order of their making. Those that are lost end in the reverse order, since changes are taken back
    /// that way.
    fn writes_ended(
        &mut self,
        now: Now,
        epoch: u64,
        mut writes: Vec<Write>,
        result: Result<(), GroupError>,
    ) {
        if result.is_err() {
            writes.reverse();
        }
        for write in writes {
            self.write_ended(now, epoch, write, result);
        }
    }

    /// Whether every write is durable or has failed.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.writes.is_empty()
    }

    /// Gives up what was not sent to a partition that goes elsewhere.
    pub(in crate::groups) fn fail_unsent(&mut self, now: Now, partition: i32) {
        let unsent = self.writes.unsent.remove(&partition).unwrap_or_default();
        self.writes_ended(now, 0, unsent.into(), Err(GroupError::NotCoordinator));
    }

    fn write_ended(
        &mut self,
        now: Now,
        epoch: u64,
        mut write: Write,
        result: Result<(), GroupError>,
    ) {
        self.writes.bytes -= write.bytes();
        if let Some(serial) = write.serial {
            self.writes.release(&mut self.out, serial, result);
        }
        let id = write.group.clone();
        let effect = std::mem::replace(&mut write.effect, Effect::None);
        if let Effect::Answer(waiter, part) = effect
            && let Some((token, response)) = self.writes.write_ended(waiter, part, result)
        {
            self.out.send(token, response);
        }
        let partition = self.groups.get(&id).map(|group| group.partition);
        let owned = partition.and_then(|partition| self.owned.epoch(partition));
        if owned.is_none_or(|owned| owned != epoch && epoch != 0) {
            return;
        }
        let mut gone = false;
        let mut undecided = Vec::new();
        let mut also_lost = Vec::new();
        self.with_group(now, &id, |group, env| {
            also_lost = group.settle_write(env, &mut write, result.is_ok());
            for record in write.records {
                match record.change {
                    Change::Undecided(producer_id, topic, partition, value) => {
                        undecided.push((producer_id, (topic, partition, value)));
                    }
                    change => gone |= group.change_ended(env, change, result.is_ok()),
                }
            }
            group.effect_ended(env, effect, result);
        });
        for (producer_id, offset) in undecided {
            if result.is_ok() {
                self.keep_undecided(now, &id, producer_id, offset);
            }
            self.with_group(now, &id, |group, _| {
                group.writes_on_the_way -= 1;
                group.undecided_on_the_way -= 1;
            });
        }
        if gone {
            self.drop_group(&id);
        }
        self.writes_ended(now, epoch, also_lost, result);
    }
}

impl Group {
    /// Brings a consumer group in line with what became of a write of its changes. Returns writes that are lost with it.
    fn settle_write(
        &mut self,
        env: &mut Env<'_>,
        write: &mut Write,
        is_durable: bool,
    ) -> Vec<Write> {
        let Some(serial) = write.serial else {
            return Vec::new();
        };
        self.writes_on_the_way -= 1;
        // Durable and in force, or lost and taken back, is how it is to be.
        if is_durable != write.is_taken_back {
            return Vec::new();
        }
        let also_lost = match is_durable {
            true => Vec::new(),
            false => env.writes.take_back_after(self, serial),
        };
        write.take_back(self);
        self.settle_consumer(env);
        self.settle_classic(env, GroupError::CoordinatorNotAvailable);
        self.resume_classic(env);
        also_lost
    }

    /// A change is durable, or is lost. True when the group is gone.
    fn change_ended(&mut self, env: &mut Env<'_>, change: Change, is_durable: bool) -> bool {
        match change {
            Change::Offset(topic, partition, value) => {
                self.forget_on_the_way(&topic, partition);
                if is_durable {
                    self.set_offset(topic, partition, value);
                }
                false
            }
            // Kept by the coordinator, and by the write.
            Change::Undecided(..) | Change::Made(_) => false,
            Change::Group => {
                self.writes_on_the_way -= 1;
                if is_durable && self.consumer.is_some() {
                    // The classic group that this is of has made way meanwhile, or was taken back.
                    self.bury_classic(env);
                }
                false
            }
            Change::GroupGone => {
                self.writes_on_the_way -= 1;
                if !is_durable {
                    self.transition(State::Empty, env.now.wall_ms);
                }
                is_durable
            }
        }
    }

    fn effect_ended(&mut self, env: &mut Env<'_>, effect: Effect, result: Result<(), GroupError>) {
        match effect {
            Effect::None | Effect::Answer(..) => {}
            Effect::Sync {
                generation,
                assignments,
            } => self.assignments_stored(env, generation, assignments, result),
            Effect::StaticJoin {
                member_id,
                led_before,
                version,
            } => self.static_joined(env, &member_id, led_before, version, result),
        }
    }

    fn forget_on_the_way(&mut self, topic: &StrBytes, partition: i32) {
        let key = (topic.clone(), partition);
        if let Some(count) = self.offsets_on_the_way.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.offsets_on_the_way.remove(&key);
            }
        }
    }

    /// Sets or removes an offset, as the log says.
    pub(in crate::groups) fn set_offset(
        &mut self,
        topic: StrBytes,
        partition: i32,
        value: Option<CommittedOffset>,
    ) {
        let removed = match value {
            Some(value) => {
                self.charge(offset_bytes(&value));
                let partitions = self.offsets.entry(topic).or_default();
                partitions.insert(partition, value)
            }
            None => match self.offsets.get_mut(&topic) {
                Some(partitions) => {
                    let removed = partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.offsets.remove(&topic);
                    }
                    removed
                }
                None => None,
            },
        };
        if let Some(removed) = removed {
            self.discharge(offset_bytes(&removed));
        }
    }
}

/// Memory a committed offset takes.
pub(in crate::groups) fn offset_bytes(offset: &CommittedOffset) -> usize {
    size_of::<(i32, CommittedOffset)>() + offset.metadata.len()
}
