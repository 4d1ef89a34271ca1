//! Offsets on their way to the log.

use super::super::StrBytes;
use super::super::group::Group;
use super::super::record::{CommittedOffset, group_key, offset_key};
use super::{Change, Record, Writes};

impl Writes {
    /// Queues changes of offsets, then perhaps the group's own tombstone, as parts of a waiting request; in several
    /// batches if they are many.
    pub(in crate::groups) fn offsets(
        &mut self,
        group: &mut Group,
        changes: Vec<(StrBytes, i32, Option<CommittedOffset>)>,
        group_gone: bool,
        waiter: Option<(u64, usize)>,
        batch_bytes_max: usize,
    ) {
        let mut records = Vec::new();
        let mut bytes = 0;
        for (topic, partition, value) in changes {
            let on_the_way = group
                .offsets_on_the_way
                .entry((topic.clone(), partition))
                .or_default();
            *on_the_way += 1;
            let record = Record {
                key: offset_key(&group.id, &topic, partition),
                value: value.as_ref().map(CommittedOffset::encode),
                change: Change::Offset(topic, partition, value),
            };
            if bytes + record.bytes() > batch_bytes_max / 2 && !records.is_empty() {
                self.push_part(group, std::mem::take(&mut records), waiter);
                bytes = 0;
            }
            bytes += record.bytes();
            records.push(record);
        }
        if group_gone {
            group.writes_on_the_way += 1;
            records.push(Record {
                key: group_key(&group.id),
                value: None,
                change: Change::GroupGone,
            });
        }
        if !records.is_empty() {
            self.push_part(group, records, waiter);
        }
    }

    /// Queues offsets of a producer's transaction, as part of a waiting request.
    pub(in crate::groups) fn undecided(
        &mut self,
        group: &mut Group,
        producer: (i64, i16),
        changes: Vec<(StrBytes, i32, CommittedOffset)>,
        waiter: u64,
        batch_bytes_max: usize,
    ) {
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        for (topic, partition, value) in changes {
            group.writes_on_the_way += 1;
            group.undecided_on_the_way += 1;
            let record = Record {
                key: offset_key(&group.id, &topic, partition),
                value: Some(value.encode()),
                change: Change::Undecided(producer.0, topic, partition, value),
            };
            if bytes + record.bytes() > batch_bytes_max / 2 && !records.is_empty() {
                let part = std::mem::take(&mut records);
                let effect = self.part(Some((waiter, 0)));
                self.push_of(group, Some(producer), part, effect);
                bytes = 0;
            }
            bytes += record.bytes();
            records.push(record);
        }
        if !records.is_empty() {
            let effect = self.part(Some((waiter, 0)));
            self.push_of(group, Some(producer), records, effect);
        }
    }

    fn push_part(&mut self, group: &Group, records: Vec<Record>, waiter: Option<(u64, usize)>) {
        let effect = self.part(waiter);
        self.push_offsets(group, records, effect);
    }
}
