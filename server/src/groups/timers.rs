//! Deadlines of members and groups in one ordered queue.

use std::collections::BTreeMap;

use super::StrBytes;

/// Whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimerKey {
    /// The join phase of a group.
    Join(StrBytes),
    /// The sync phase of a group.
    Sync(StrBytes),
    /// A member's session: group, member.
    Member(StrBytes, StrBytes),
    /// The session of a member of a consumer group: group, member.
    ConsumerSession(StrBytes, StrBytes),
    /// The time a member of a consumer group has to give partitions up: group, member.
    Revocation(StrBytes, StrBytes),
    /// The time a member of the classic protocol in a consumer group has to join again: group, member.
    ConsumerJoin(StrBytes, StrBytes),
    /// The time it has to ask for its assignment: group, member.
    ConsumerSync(StrBytes, StrBytes),
}

/// A place in the queue: due time in monotonic nanoseconds, and a number that tells equal times apart.
pub(super) type Place = (u64, u64);

/// One deadline, kept by whom it belongs to. Must be cancelled before it is dropped.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    due_ns: u64,
    place: Option<Place>,
}

impl Alarm {
    pub(super) fn is_set(&self) -> bool {
        self.place.is_some()
    }
}

/// All deadlines of a coordinator. Moving one later, as every heartbeat does, costs nothing: its place in the queue
/// is only corrected when it comes up.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<Place, TimerKey>,
    serial: u64,
}

impl Timers {
    /// Sets or moves `alarm`.
    pub(super) fn set(&mut self, alarm: &mut Alarm, due_ns: u64, key: impl FnOnce() -> TimerKey) {
        alarm.due_ns = due_ns;
        match alarm.place {
            Some((at_ns, _)) if at_ns <= due_ns => {}
            Some(place) => {
                let key = self.queue.remove(&place).unwrap_or_else(key);
                alarm.place = Some(self.insert(due_ns, key));
            }
            None => alarm.place = Some(self.insert(due_ns, key())),
        }
    }

    /// Takes `alarm` out of the queue.
    pub(super) fn cancel(&mut self, alarm: &mut Alarm) {
        if let Some(place) = alarm.place.take() {
            self.queue.remove(&place);
        }
    }

    /// When [`Timers::pop`] is needed next; a little early at times.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.queue.keys().next().map(|&(at_ns, _)| at_ns)
    }

    /// The next key at or before `now_ns`. The owner then asks [`Timers::expired`].
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<(Place, TimerKey)> {
        let entry = self.queue.first_entry()?;
        (entry.key().0 <= now_ns).then(|| entry.remove_entry())
    }

    /// Whether the alarm that came up is really due. If it was moved, it is queued again.
    pub(super) fn expired(
        &mut self,
        alarm: &mut Alarm,
        (place, key): (Place, TimerKey),
        now_ns: u64,
    ) -> bool {
        if alarm.place != Some(place) {
            return false;
        }
        alarm.place = None;
        if alarm.due_ns > now_ns {
            alarm.place = Some(self.insert(alarm.due_ns, key));
            return false;
        }
        true
    }

    /// Entries in the queue.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn insert(&mut self, due_ns: u64, key: TimerKey) -> Place {
        self.serial += 1;
        let place = (due_ns, self.serial);
        self.queue.insert(place, key);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> TimerKey {
        TimerKey::Join(name.into())
    }

    #[test]
    fn a_moved_alarm_rings_at_its_new_time_only() {
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        timers.set(&mut alarm, 10, || key("g"));
        timers.set(&mut alarm, 30, || key("g"));
        assert_eq!(timers.len(), 1);
        let early = timers.pop(10).unwrap();
        assert!(!timers.expired(&mut alarm, early, 10));
        assert_eq!(timers.pop(29), None);
        let due = timers.pop(30).unwrap();
        assert!(timers.expired(&mut alarm, due, 30));
        assert!(!alarm.is_set() && timers.len() == 0);
    }

    #[test]
    fn an_alarm_moved_forward_rings_early_and_once() {
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        timers.set(&mut alarm, 30, || key("g"));
        timers.set(&mut alarm, 10, || key("g"));
        let due = timers.pop(10).unwrap();
        assert!(timers.expired(&mut alarm, due, 10));
        assert_eq!(timers.pop(1000), None);
        timers.set(&mut alarm, 2000, || key("g"));
        timers.cancel(&mut alarm);
        assert_eq!((timers.len(), timers.next_ns()), (0, None));
    }
}
