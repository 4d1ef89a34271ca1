//! The coordinator of one shard: which groups there are, what may be asked of them now, and what comes out.

use std::collections::{BTreeMap, VecDeque};

use kafka_wire::{
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatResponse, DeleteGroupsResponse,
    DescribeGroupsResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
    ListGroupsResponse, OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse,
    SyncGroupResponse, TxnOffsetCommitResponse,
};
use ringlog_engine::id::Now;

use crate::ownership::{Ownership, Stage};

use super::config::GroupsConfig;
use super::error::GroupError;
use super::group::Group;
use super::join::NAME_BYTES_MAX;
use super::loading::Postponed;
use super::member::JoinWait;
use super::partition::partition_of;
use super::timers::{Place, TimerKey, Timers};
use super::transactional::UndecidedGroups;
use super::writes::Writes;
use super::{StrBytes, Token};

/// Offsets that wait longer than this for others, in milliseconds, let nothing else wait with them.
const SHORT_LINGER_MS: i64 = 10;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The request.
    pub token: Token,
    /// Its API version, which decides parts of an answer.
    pub version: i16,
    /// Client id of its header.
    pub client_id: &'a str,
    /// The client's address.
    pub client_host: &'a str,
}

/// A response, ready to be encoded in the version of its request.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Response {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    Commit(OffsetCommitResponse),
    Fetch(OffsetFetchResponse),
    Describe(DescribeGroupsResponse),
    List(ListGroupsResponse),
    Delete(DeleteGroupsResponse),
    OffsetDelete(OffsetDeleteResponse),
    TxnCommit(TxnOffsetCommitResponse),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerDescribe(ConsumerGroupDescribeResponse),
}

impl Response {
    /// The answer to a request whose changes of a consumer group were lost; others do not wait for those.
    pub(super) fn failed(self, error: GroupError) -> Self {
        let error_code = error.code();
        match self {
            Self::ConsumerHeartbeat(_) => {
                let mut response = ConsumerGroupHeartbeatResponse::default();
                response.error_code = error_code;
                Self::ConsumerHeartbeat(response)
            }
            Self::Join(lost) => {
                let mut response = JoinGroupResponse::default();
                response.error_code = error_code;
                response.generation_id = -1;
                response.member_id = lost.member_id;
                response.protocol_name = Some(StrBytes::default());
                Self::Join(response)
            }
            Self::Sync(_) => {
                let mut response = SyncGroupResponse::default();
                response.error_code = error_code;
                Self::Sync(response)
            }
            Self::Leave(mut response) => {
                response.error_code = error_code;
                Self::Leave(response)
            }
            other => other,
        }
    }
}

/// Responses on their way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    responses: VecDeque<(Token, Response)>,
}

impl Outbox {
    pub(super) fn send(&mut self, token: Token, response: Response) {
        self.responses.push_back((token, response));
    }

    /// Answers a JoinGroup with an error.
    pub(super) fn join_error(&mut self, join: JoinWait, member_id: &StrBytes, error: GroupError) {
        let mut response = JoinGroupResponse::default();
        response.error_code = error.code();
        response.generation_id = -1;
        response.member_id = member_id.clone();
        // Null only where the version knows it.
        response.protocol_name = (join.version < 7).then(StrBytes::default);
        self.send(join.token, Response::Join(response));
    }

    /// Answers a SyncGroup with an error.
    pub(super) fn sync_error(&mut self, token: Token, error: GroupError) {
        let mut response = SyncGroupResponse::default();
        response.error_code = error.code();
        self.send(token, Response::Sync(response));
    }
}

/// What a group needs of its coordinator.
pub(super) struct Env<'a> {
    pub(super) config: &'a GroupsConfig,
    pub(super) timers: &'a mut Timers,
    pub(super) out: &'a mut Outbox,
    pub(super) writes: &'a mut Writes,
    pub(super) now: Now,
}

impl Env<'_> {
    /// Whether too much waits to be written already.
    pub(super) fn is_full(&self) -> bool {
        self.writes.is_full(self.config.unwritten_bytes_max)
    }
}

/// The groups whose partition of the offsets topic this shard owns.
pub struct Coordinator {
    pub(super) config: GroupsConfig,
    pub(super) owned: Ownership,
    pub(super) groups: BTreeMap<StrBytes, Group>,
    pub(super) timers: Timers,
    pub(super) out: Outbox,
    pub(super) writes: Writes,
    pub(super) undecided: UndecidedGroups,
    /// What waits, by partition whose log is being read.
    pub(super) postponed: BTreeMap<i32, Postponed>,
    random: Box<dyn FnMut() -> u128 + Send>,
    /// Memory all groups take.
    bytes: usize,
    pub(super) next_check_ns: Option<u64>,
}

impl Coordinator {
    /// A coordinator that owns nothing yet; `random` is where member ids come from.
    #[must_use]
    pub fn new(config: GroupsConfig, random: impl FnMut() -> u128 + Send + 'static) -> Self {
        Self {
            config,
            owned: Ownership::default(),
            groups: BTreeMap::new(),
            timers: Timers::default(),
            out: Outbox::default(),
            writes: Writes::default(),
            undecided: UndecidedGroups::new(),
            postponed: BTreeMap::new(),
            random: Box::new(random),
            bytes: 0,
            next_check_ns: None,
        }
    }

    // --- ownership ---

    /// How many partitions the offsets topic has.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        self.config.offsets_partitions
    }

    /// The offsets topic was created, with this many partitions.
    ///
    /// # Panics
    /// If groups are owned already: their partitions would no longer be theirs.
    pub fn set_partitions(&mut self, partitions: i32) {
        assert!(self.owned.is_empty() || partitions == self.config.offsets_partitions);
        self.config.offsets_partitions = partitions;
    }

    /// The shard owns a partition of the offsets topic: its log is to be read ([`Coordinator::replay`]) up to its end
    /// ([`Coordinator::loaded`]); requests for its groups are put off until then.
    pub fn own(&mut self, partition: i32) {
        self.owned.begin(partition);
        self.postponed.entry(partition).or_default().begin();
    }

    /// The partition's log has been read to its end.
    pub fn loaded(&mut self, now: Now, partition: i32) {
        if !self.owned.activate(partition) {
            return;
        }
        let check_ns = now.after_ms(self.config.retention_check_interval_ms);
        self.next_check_ns.get_or_insert(check_ns);
        self.catch_up(now, partition);
        self.start_groups(now, partition);
    }

    /// The shard no longer owns the partition: its groups go from memory, and whoever waits is sent elsewhere.
    pub fn disown(&mut self, now: Now, partition: i32) {
        if !self.owned.end(partition) {
            return;
        }
        self.fail_unsent(now, partition);
        self.undecided.retain(|(of, _), _| *of != partition);
        self.postponed.remove(&partition);
        let gone: Vec<StrBytes> = self.groups_of(partition);
        for id in gone {
            self.with_group(now, &id, |group, env| {
                group.dismiss(env, GroupError::NotCoordinator);
            });
            self.drop_group(&id);
        }
    }

    /// Whether requests for the partition's groups are answered.
    #[must_use]
    pub fn is_active(&self, partition: i32) -> bool {
        self.owned.stage(partition) == Some(Stage::Active)
    }

    pub(super) fn groups_of(&self, partition: i32) -> Vec<StrBytes> {
        let groups = self.groups.values();
        let of_partition = groups.filter(|group| group.partition == partition);
        of_partition.map(|group| group.id.clone()).collect()
    }

    /// The partition of a group if requests for it are answered here and now.
    pub(super) fn admit(&self, group_id: &StrBytes) -> Result<i32, GroupError> {
        if group_id.len() > NAME_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        let partition = partition_of(group_id, self.config.offsets_partitions);
        match self.owned.stage(partition) {
            Some(Stage::Active) => Ok(partition),
            Some(Stage::Loading) => Err(GroupError::CoordinatorLoadInProgress),
            None => Err(GroupError::NotCoordinator),
        }
    }

    /// As [`Coordinator::admit`] for requests of members, whose group must have a name.
    pub(super) fn admit_named(&self, group_id: &StrBytes) -> Result<i32, GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.admit(group_id)
    }

    // --- groups ---

    /// Lets `f` change a group, and keeps account of its memory. `None` if there is no such group.
    pub(super) fn with_group<R>(
        &mut self,
        now: Now,
        id: &StrBytes,
        f: impl FnOnce(&mut Group, &mut Env<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let before = group.bytes();
        let mut env = Env {
            config: &self.config,
            timers: &mut self.timers,
            out: &mut self.out,
            writes: &mut self.writes,
            now,
        };
        let result = f(group, &mut env);
        self.bytes = self.bytes - before + group.bytes();
        if group.is_forgettable() {
            self.drop_group(id);
        }
        Some(result)
    }

    /// Adds a group without members, if there is room for one.
    pub(super) fn create_group(
        &mut self,
        now: Now,
        id: &StrBytes,
        partition: i32,
    ) -> Result<(), GroupError> {
        if self.groups.len() >= self.config.groups_max || !self.has_room(0) {
            return Err(GroupError::PolicyViolation);
        }
        self.insert_group(Group::new(super::own(id), partition, now.wall_ms));
        Ok(())
    }

    pub(super) fn insert_group(&mut self, group: Group) {
        self.bytes += group.bytes();
        self.groups.insert(group.id.clone(), group);
    }

    /// Takes a group out of memory.
    pub(super) fn drop_group(&mut self, id: &StrBytes) {
        if let Some(mut group) = self.groups.remove(id) {
            self.bytes -= group.bytes();
            self.timers.cancel(&mut group.join_phase);
            self.timers.cancel(&mut group.sync_phase);
            for alarm in group.pending.values_mut() {
                self.timers.cancel(alarm);
            }
            if let Some(consumer) = &mut group.consumer {
                consumer.cancel_alarms(&mut self.timers);
            }
            for member_id in group.member_ids() {
                if let Some(mut member) = group.remove_member(&member_id) {
                    self.timers.cancel(&mut member.session);
                }
            }
        }
    }

    /// Whether all groups together may grow by `bytes`.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.config.bytes_max
    }

    /// Memory of all groups, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Groups in memory.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// A member id: the instance id of a static member or else the client id, and a UUID.
    pub(super) fn new_member_id(&mut self, prefix: &str) -> StrBytes {
        let random = (self.random)();
        let hex = format!("{random:032x}");
        let (a, b, c, d, e) = (
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        );
        format!("{prefix}-{a}-{b}-{c}-{d}-{e}").into()
    }

    // --- out ---

    /// The next response.
    pub fn next_response(&mut self) -> Option<(Token, Response)> {
        self.out.responses.pop_front()
    }

    /// When [`Coordinator::tick`] or [`Coordinator::next_append`] is needed next, monotonic nanoseconds.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let deadlines = [
            self.timers.next_ns(),
            self.next_check_ns,
            self.writes.deadline_ns(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Until when committed offsets wait for those of others, monotonic nanoseconds, if they do and not for so long that
    /// members who wait with them would be missed.
    pub fn lingers_until_ns(&self) -> Option<u64> {
        let is_short = self.config.append_linger_ms <= SHORT_LINGER_MS;
        self.writes.deadline_ns().filter(|_| is_short)
    }

    /// What waits to be written leaves with the next call of [`Coordinator::next_append`], however long it might wait.
    pub fn hurry(&mut self) {
        self.writes.hurry();
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Now) {
        while let Some((place, key)) = self.timers.pop(now.mono_ns) {
            match key {
                TimerKey::Join(ref group) => self.join_phase_due(now, group.clone(), (place, key)),
                TimerKey::Sync(ref group) => self.sync_phase_due(now, group.clone(), (place, key)),
                TimerKey::Member(ref group, ref member) => {
                    let (group, member) = (group.clone(), member.clone());
                    self.session_due(now, &group, &member, (place, key));
                }
                TimerKey::ConsumerSession(ref group, ref member)
                | TimerKey::Revocation(ref group, ref member)
                | TimerKey::ConsumerJoin(ref group, ref member)
                | TimerKey::ConsumerSync(ref group, ref member) => {
                    let (group, member) = (group.clone(), member.clone());
                    self.consumer_alarm_due(now, &group, &member, (place, key));
                }
            }
        }
        if self.next_check_ns.is_some_and(|at_ns| at_ns <= now.mono_ns) {
            self.next_check_ns = Some(now.after_ms(self.config.retention_check_interval_ms));
            self.expire_offsets(now);
        }
    }

    fn join_phase_due(&mut self, now: Now, group: StrBytes, entry: (Place, TimerKey)) {
        self.with_group(now, &group, |group, env| {
            if env
                .timers
                .expired(&mut group.join_phase, entry, now.mono_ns)
            {
                group.join_phase_over(env);
            }
        });
    }

    fn sync_phase_due(&mut self, now: Now, group: StrBytes, entry: (Place, TimerKey)) {
        self.with_group(now, &group, |group, env| {
            if env
                .timers
                .expired(&mut group.sync_phase, entry, now.mono_ns)
            {
                group.sync_phase_over(env);
            }
        });
    }

    fn session_due(
        &mut self,
        now: Now,
        group: &StrBytes,
        member_id: &StrBytes,
        entry: (Place, TimerKey),
    ) {
        self.with_group(now, group, |group, env| {
            let alarm = match group.pending.get_mut(member_id) {
                Some(alarm) => alarm,
                None => match group.member_mut(member_id) {
                    Some(member) => &mut member.session,
                    None => return,
                },
            };
            if env.timers.expired(alarm, entry, now.mono_ns) {
                group.session_over(env, member_id);
            }
        });
    }

    fn consumer_alarm_due(
        &mut self,
        now: Now,
        group: &StrBytes,
        member_id: &StrBytes,
        (place, key): (Place, TimerKey),
    ) {
        let is_revocation = matches!(key, TimerKey::Revocation(..));
        self.with_group(now, group, |group, env| {
            let consumer = group.consumer.as_mut();
            let Some(alarm) = consumer.and_then(|consumer| consumer.alarm(&key)) else {
                return;
            };
            if !env.timers.expired(alarm, (place, key), now.mono_ns) {
                return;
            }
            match is_revocation {
                true => group.revocation_over(env, member_id),
                false => group.consumer_time_over(env, member_id),
            }
        });
    }
}
