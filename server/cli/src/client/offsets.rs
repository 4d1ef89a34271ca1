//! ListOffsets: where partitions begin and end, and where a moment is in them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use kafka_wire::ListOffsetsRequest;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire_core::StrBytes;
use ringlog_load::protocol::{ControlError, error_code};

use super::{Client, Topic};
use crate::failure::Outcome;

/// Highest version of ListOffsets used here.
const LIST_OFFSETS: i16 = 7;
/// Pause before a leader that has moved is looked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// Whose records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Isolation {
    /// Every record, those of open and aborted transactions included.
    #[default]
    ReadUncommitted,
    /// Records without a transaction, and those of committed ones.
    ReadCommitted,
}

impl Isolation {
    /// As the protocol has it.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Of the first record.
    Start,
    /// After the last record.
    End,
    /// Of the first record at or after this moment, milliseconds since 1970.
    Time(i64),
}

impl Client {
    /// The offset of each of `partitions`, `None` where no record is as late as was asked.
    pub(crate) fn offsets(
        &mut self,
        topic: &Topic,
        partitions: &[i32],
        at: At,
        isolation: Isolation,
    ) -> Outcome<BTreeMap<i32, Option<i64>>> {
        let deadline = Instant::now() + self.timeout;
        let mut topic = topic.clone();
        let mut found = BTreeMap::new();
        let mut missing = partitions.to_vec();
        loop {
            let refused = self.offsets_once(&topic, &missing, at, isolation, &mut found)?;
            missing.retain(|partition| !found.contains_key(partition));
            let Some((partition, code)) = refused else {
                return Ok(found);
            };
            if !error_code::passes(code) || Instant::now() > deadline {
                let what = format!("offsets of {}/{partition}", topic.name);
                return Err(ControlError::refused(what, code, None).into());
            }
            thread::sleep(PAUSE);
            topic = self.topic(&topic.name)?;
        }
    }

    /// Asks every leader once. Returns a partition that has no offset yet, and why.
    fn offsets_once(
        &mut self,
        topic: &Topic,
        partitions: &[i32],
        at: At,
        isolation: Isolation,
        found: &mut BTreeMap<i32, Option<i64>>,
    ) -> Outcome<Option<(i32, i16)>> {
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for &partition in partitions {
            let leader = topic.leader(partition);
            by_leader.entry(leader).or_default().push(partition);
        }
        let mut refused = None;
        for (leader, partitions) in by_leader {
            if leader < 0 {
                refused = Some((partitions[0], 5));
                continue;
            }
            let request = request(topic, &partitions, at, isolation);
            let answer = self.call_node(leader, &request, LIST_OFFSETS)?;
            for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                let index = partition.partition_index;
                if partition.error_code != 0 {
                    refused = Some((index, partition.error_code));
                } else {
                    let offset = Some(partition.offset).filter(|&offset| offset >= 0);
                    found.insert(index, offset);
                }
            }
            if let Some(&left_out) = partitions.iter().find(|p| !found.contains_key(p)) {
                refused = refused.or(Some((left_out, 5)));
            }
        }
        Ok(refused)
    }

    /// First offset and the offset after the last of each of `partitions`.
    pub(crate) fn bounds(
        &mut self,
        topic: &Topic,
        partitions: &[i32],
        isolation: Isolation,
    ) -> Outcome<BTreeMap<i32, (i64, i64)>> {
        let starts = self.offsets(topic, partitions, At::Start, isolation)?;
        let ends = self.offsets(topic, partitions, At::End, isolation)?;
        let pair = |(&partition, start): (&i32, &Option<i64>)| {
            let start = start.unwrap_or(0);
            let end = ends.get(&partition).copied().flatten();
            (partition, (start, end.unwrap_or(start)))
        };
        Ok(starts.iter().map(pair).collect())
    }
}

fn request(topic: &Topic, partitions: &[i32], at: At, isolation: Isolation) -> ListOffsetsRequest {
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.isolation_level = isolation.code();
    let mut asked = ListOffsetsTopic::default();
    asked.name = StrBytes::from(topic.name.as_str());
    asked.partitions = partitions
        .iter()
        .map(|&index| {
            let mut partition = ListOffsetsPartition::default();
            partition.partition_index = index;
            partition.current_leader_epoch = -1;
            partition.timestamp = match at {
                At::Start => -2,
                At::End => -1,
                At::Time(ms) => ms.max(0),
            };
            partition
        })
        .collect();
    request.topics = vec![asked];
    request
}
