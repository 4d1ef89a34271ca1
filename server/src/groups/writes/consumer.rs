//! Changes of consumer groups, and of groups between the protocols, on their way to the log. They are made before they are
//! durable; what tells of them waits, and what the log refuses is taken back, in the reverse order.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::super::Token;
use super::super::consumer;
use super::super::coordinator::{Outbox, Response};
use super::super::error::GroupError;
use super::super::group::Group;
use super::super::handover::SetAside;
use super::super::record::group_key;
use super::{Change, Record, Write, Writes};

/// What takes a change back.
#[derive(Debug)]
pub(in crate::groups) enum Undo {
    Consumer(consumer::Change),
    /// The group of the classic protocol that is then in place of what is.
    Classic(Option<Box<SetAside>>),
}

impl Undo {
    /// Takes the change back; what makes it again.
    fn apply(self, group: &mut Group) -> Self {
        match self {
            Self::Consumer(change) => Self::Consumer(group.apply_consumer(change)),
            Self::Classic(value) => Self::Classic(group.swap_classic(value)),
        }
    }
}

/// A record of a change that is made.
#[derive(Debug)]
pub(in crate::groups) struct MadeRecord {
    pub(in crate::groups) key: Vec<u8>,
    pub(in crate::groups) value: Option<Vec<u8>>,
    pub(in crate::groups) undo: Undo,
}

impl MadeRecord {
    /// What is stored of a group under the classic protocol, or that nothing is any more.
    pub(in crate::groups) fn classic(
        group_id: &str,
        value: Option<Vec<u8>>,
        undo: Option<Box<SetAside>>,
    ) -> Self {
        Self {
            key: group_key(group_id),
            value,
            undo: Undo::Classic(undo),
        }
    }
}

impl Writes {
    /// Queues changes that were made, in several batches if they are many: a group is sound after each of them.
    pub(in crate::groups) fn consumer(
        &mut self,
        group: &mut Group,
        records: Vec<MadeRecord>,
        waiter: Option<(u64, usize)>,
        batch_bytes_max: usize,
    ) {
        let mut part = Vec::new();
        let mut bytes = 0;
        for MadeRecord { key, value, undo } in records {
            let record = Record {
                key,
                value,
                change: Change::Made(Some(undo)),
            };
            if bytes + record.bytes() > batch_bytes_max / 2 && !part.is_empty() {
                self.push_consumer(group, std::mem::take(&mut part), waiter);
                bytes = 0;
            }
            bytes += record.bytes();
            part.push(record);
        }
        if !part.is_empty() {
            self.push_consumer(group, part, waiter);
        }
    }

    fn push_consumer(
        &mut self,
        group: &mut Group,
        records: Vec<Record>,
        waiter: Option<(u64, usize)>,
    ) {
        self.serial += 1;
        group.writes_on_the_way += 1;
        group.last_change = self.serial;
        self.followers.insert(self.serial, Vec::new());
        let effect = self.part(waiter);
        let write = Write {
            group: group.id.clone(),
            producer: None,
            records,
            effect,
            serial: Some(self.serial),
            is_taken_back: false,
        };
        self.queue(group.partition, write);
    }

    /// Answers a request when all changes of its group are durable.
    pub(in crate::groups) fn follow(
        &mut self,
        group: &Group,
        out: &mut Outbox,
        token: Token,
        response: Response,
    ) {
        match self.followers.get_mut(&group.last_change) {
            Some(followers) => followers.push((token, response)),
            None => out.send(token, response),
        }
    }

    /// Answers what waited for a write.
    pub(super) fn release(
        &mut self,
        out: &mut Outbox,
        serial: u64,
        result: Result<(), GroupError>,
    ) {
        for (token, response) in self.followers.remove(&serial).unwrap_or_default() {
            let response = match result {
                Ok(()) => response,
                Err(error) => response.failed(error),
            };
            out.send(token, response);
        }
    }

    /// Takes back every change of a group after the write `serial`, the newest first. Returns those that were not sent; those
    /// that were fail too, or come back when they do not.
    pub(super) fn take_back_after(&mut self, group: &mut Group, serial: u64) -> Vec<Write> {
        let in_flight = self.in_flight.values_mut();
        let in_flight = in_flight.flat_map(|in_flight| &mut in_flight.writes);
        let unsent = self.unsent.get_mut(&group.partition);
        let is_newer = |write: &&mut Write| {
            write.group == group.id && write.serial.is_some_and(|s| s > serial)
        };
        let mut newer: Vec<&mut Write> = in_flight
            .chain(unsent.into_iter().flatten())
            .filter(is_newer)
            .collect();
        newer.sort_by_key(|write| Reverse(write.serial));
        for write in newer.into_iter().filter(|write| !write.is_taken_back) {
            write.take_back(group);
        }
        let mut gone = Vec::new();
        if let Some(unsent) = self.unsent.remove(&group.partition) {
            let (taken_back, rest): (VecDeque<Write>, VecDeque<Write>) =
                unsent.into_iter().partition(|write| write.is_taken_back);
            gone = taken_back.into();
            if !rest.is_empty() {
                self.unsent.insert(group.partition, rest);
            }
        }
        gone
    }
}

impl Write {
    /// Takes its changes back; doing so again makes them anew.
    pub(super) fn take_back(&mut self, group: &mut Group) {
        let swap = |record: &mut Record| {
            if let Change::Made(undo) = &mut record.change
                && let Some(taken) = undo.take()
            {
                *undo = Some(taken.apply(group));
            }
        };
        match self.is_taken_back {
            false => self.records.iter_mut().rev().for_each(swap),
            true => self.records.iter_mut().for_each(swap),
        }
        self.is_taken_back = !self.is_taken_back;
    }
}
