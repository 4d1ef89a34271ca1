//! When each group commits and each member sends a heartbeat: evenly spread over the interval, the same in every run.

use std::time::{Duration, Instant};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// A commit of the group with this number.
    Commit(usize),
    /// A heartbeat of that group's member.
    Heartbeat(usize),
}

impl Task {
    /// Whose.
    pub(super) fn group(self) -> usize {
        match self {
            Self::Commit(group) | Self::Heartbeat(group) => group,
        }
    }
}

/// A task that every group has once in `period`, one group after another.
#[derive(Debug, Clone, Copy)]
struct Round {
    period: Duration,
    /// Tasks taken so far.
    taken: u64,
}

impl Round {
    fn due(&self, start: Instant, groups: usize) -> Instant {
        let ns = self.period.as_nanos() * u128::from(self.taken) / groups.max(1) as u128;
        start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn group(&self, groups: usize) -> usize {
        (self.taken % groups.max(1) as u64) as usize
    }
}

/// All that is to be done, in the order of time.
#[derive(Debug, Clone)]
pub(super) struct Agenda {
    start: Instant,
    groups: usize,
    commits: Round,
    heartbeats: Option<Round>,
}

impl Agenda {
    /// From `start` on; without `heartbeat` there are no heartbeats.
    pub(super) fn new(
        start: Instant,
        groups: usize,
        interval: Duration,
        heartbeat: Option<Duration>,
    ) -> Self {
        let round = |period| Round { period, taken: 0 };
        Self {
            start,
            groups,
            commits: round(interval),
            heartbeats: heartbeat.map(round),
        }
    }

    /// What comes next, and when.
    pub(super) fn next(&self) -> (Instant, Task) {
        let commit = (
            self.commits.due(self.start, self.groups),
            Task::Commit(self.commits.group(self.groups)),
        );
        match &self.heartbeats {
            Some(round) if round.due(self.start, self.groups) < commit.0 => (
                round.due(self.start, self.groups),
                Task::Heartbeat(round.group(self.groups)),
            ),
            _ => commit,
        }
    }

    /// The task that comes next is done with.
    pub(super) fn take(&mut self) {
        match (self.next().1, &mut self.heartbeats) {
            (Task::Heartbeat(_), Some(round)) => round.taken += 1,
            _ => self.commits.taken += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(agenda: &mut Agenda, count: usize) -> Vec<(Instant, Task)> {
        (0..count)
            .map(|_| {
                let next = agenda.next();
                agenda.take();
                next
            })
            .collect()
    }

    #[test]
    fn each_group_commits_once_an_interval_and_groups_take_turns() {
        let start = Instant::now();
        let interval = Duration::from_millis(900);
        let mut agenda = Agenda::new(start, 3, interval, None);
        for (number, (due, task)) in taken(&mut agenda, 7).into_iter().enumerate() {
            assert_eq!(due, start + Duration::from_millis(300) * number as u32);
            assert_eq!(task, Task::Commit(number % 3));
        }
    }

    #[test]
    fn heartbeats_come_in_between_in_the_order_of_time() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut agenda = Agenda::new(start, 5000, second, Some(3 * second));
        let tasks = taken(&mut agenda, 20_000);
        assert!(tasks.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        let within = |task: &&(Instant, Task)| task.0 < start + 3 * second;
        let beats: Vec<usize> = tasks
            .iter()
            .filter(within)
            .filter(|(_, task)| matches!(task, Task::Heartbeat(_)))
            .map(|(_, task)| task.group())
            .collect();
        assert_eq!(beats, (0..5000).collect::<Vec<_>>());
        let commits = tasks.iter().filter(within).count() - beats.len();
        assert_eq!(commits, 15_000);
    }

    #[test]
    fn no_part_of_a_nanosecond_is_lost_over_a_long_run() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start, 7, Duration::from_secs(1), None);
        agenda.commits.taken = 7 * 100_000;
        assert_eq!(agenda.next().0, start + Duration::from_secs(100_000));
    }
}
