//! Groups and offsets from the log of a partition.

use ringlog_engine::batch::{self, BatchHeader, BodyError, Marker, RecordError};
use ringlog_engine::id::Now;
use thiserror::Error;

use super::coordinator::Coordinator;
use super::error::GroupError;
use super::group::{Group, State};
use super::record::{CommittedOffset, GroupValue, Key, RecordFormatError};
use super::{StrBytes, partition_of};

/// The most a compressed batch of the offsets topic may decompress to, in bytes.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Why a batch of the offsets topic was not taken in, wholly or in part.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The batch cannot be read.
    #[error(transparent)]
    Batch(#[from] BodyError),
    /// A record of the batch cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record's key or value cannot be read; the others were taken in.
    #[error(transparent)]
    Format(#[from] RecordFormatError),
}

impl Coordinator {
    /// Takes in the next batch of a partition's log, in order.
    ///
    /// # Errors
    /// [`ReplayError`]; reading may go on with the next batch.
    pub fn replay(&mut self, now: Now, partition: i32, bytes: &[u8]) -> Result<(), ReplayError> {
        let header = BatchHeader::parse(bytes).map_err(BodyError::from)?;
        let producer_id = header.producer_id.get();
        if header.is_control() {
            if let Some(marker) = Marker::read(bytes) {
                self.decide(now, partition, producer_id, marker.committed);
            }
            return Ok(());
        }
        let undecided = header.is_transactional().then_some(producer_id);
        let mut scratch = Vec::new();
        let mut result = Ok(());
        for record in batch::body(bytes, BODY_BYTES_MAX, &mut scratch)? {
            let record = record?;
            let replayed =
                self.replay_record(now, partition, undecided, (record.key, record.value));
            result = result.and(replayed.map_err(ReplayError::from));
        }
        result
    }

    fn replay_record(
        &mut self,
        now: Now,
        partition: i32,
        undecided: Option<i64>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
    ) -> Result<(), RecordFormatError> {
        match Key::decode(key.unwrap_or_default())? {
            Key::Offset {
                group,
                topic,
                partition: index,
            } => {
                let value = value.map(CommittedOffset::decode).transpose()?;
                if value.is_some() {
                    self.ensure_group(now, partition, &group);
                }
                match (undecided, value) {
                    (Some(producer_id), Some(value)) => {
                        let offset = (topic, index, value);
                        self.keep_undecided(now, &group, producer_id, offset);
                    }
                    (_, value) => {
                        self.with_group(now, &group, |group, _| {
                            group.set_offset(topic, index, value)
                        });
                    }
                }
            }
            Key::Group { group } => match value.map(GroupValue::decode).transpose()? {
                Some(value) => {
                    self.ensure_group(now, partition, &group);
                    self.with_group(now, &group, |group, _| group.restore(value));
                }
                None => {
                    self.with_group(now, &group, |group, _| group.unstore());
                }
            },
            Key::Consumer(key) => {
                let group = key.group.clone();
                let change = key.change(value)?;
                if value.is_some() {
                    self.ensure_group(now, partition, &group);
                }
                self.with_group(now, &group, |group, _| group.apply_consumer(change));
            }
            // What a newer coordinator keeps here is none of our business.
            Key::Other(_) => {}
        }
        Ok(())
    }

    /// What was stored is taken in whatever the limits on new groups are.
    fn ensure_group(&mut self, now: Now, partition: i32, id: &StrBytes) {
        debug_assert_eq!(partition_of(id, self.config.offsets_partitions), partition);
        if !self.groups.contains_key(id) {
            self.insert_group(Group::new(id.clone(), partition, now.wall_ms));
        }
    }

    /// Members of the groups just loaded must show that they are alive.
    pub(super) fn start_groups(&mut self, now: Now, partition: i32) {
        for id in self.groups_of(partition) {
            self.with_group(now, &id, |group, env| {
                for member_id in group.member_ids() {
                    group.renew_session(env, &member_id);
                }
                if let Some(consumer) = &mut group.consumer {
                    consumer.drop_leftovers();
                }
                if group.is_shared() && group.members().len() > 0 {
                    // Stored by a classic group that was taken back, before its tombstone was.
                    group.swap_classic(None);
                    group.settle_classic(env, GroupError::CoordinatorNotAvailable);
                    group.bury_classic(env);
                }
                group.settle_consumer(env);
                if group.members().len() > env.config.group_size_max {
                    group.prepare(env);
                }
            });
        }
    }
}

impl Group {
    /// A tombstone: what is left, if anything, are offsets.
    pub(super) fn unstore(&mut self) {
        self.restore(GroupValue {
            protocol_type: StrBytes::default(),
            generation: 0,
            protocol: None,
            leader: None,
            state_since_ms: -1,
            members: Vec::new(),
        });
        debug_assert!(self.is_in(State::Empty));
        self.is_stored = false;
    }
}
