//! One group: its members, its state, the choice of a protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{Buf, Bytes};

use super::consumer::ConsumerGroup;
use super::error::GroupError;
use super::handover::LeftBehind;
use super::member::{JoinWait, Member, Protocol, protocols_bytes};
use super::record::{CommittedOffset, GroupValue};
use super::timers::Alarm;
use super::transactional::Undecided;
use super::{StrBytes, Token};

/// The protocol type of consumers, whose metadata the coordinator can read.
pub(super) const CONSUMER: &str = "consumer";

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members.
    Empty,
    /// Waits for its members to join.
    PreparingRebalance,
    /// Waits for its leader's assignment.
    CompletingRebalance,
    /// Every member has an assignment.
    Stable,
    /// Being deleted: its tombstone is on the way to the log.
    Dead,
}

impl State {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// The first join phase of a group that was empty: it ends by time, not when all have joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    /// Length of the delay that runs.
    pub(super) delay_ms: u64,
    /// What the rebalance time-out leaves for further delays.
    pub(super) remaining_ms: u64,
    /// Someone joined during the delay that runs.
    pub(super) joined: bool,
}

/// One group. What it has of the classic protocol is empty while it is one of the consumer protocol.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: StrBytes,
    /// Partition of the offsets topic.
    pub(super) partition: i32,
    state: State,
    /// When it entered its state, milliseconds since 1970; unknown for a group stored by an old broker.
    pub(super) state_since_ms: Option<i64>,
    pub(super) protocol_type: Option<StrBytes>,
    pub(super) protocol: Option<StrBytes>,
    pub(super) generation: i32,
    pub(super) leader: Option<StrBytes>,
    members: BTreeMap<StrBytes, Member>,
    /// Member ids by instance id.
    static_members: HashMap<StrBytes, StrBytes>,
    /// How many members support a protocol.
    supported: BTreeMap<StrBytes, usize>,
    awaiting_join: usize,
    /// Members given an id that have not joined with it yet, by id.
    pub(super) pending: BTreeMap<StrBytes, Alarm>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(super) pending_sync: BTreeSet<StrBytes>,
    pub(super) subscribed: Option<BTreeSet<String>>,
    pub(super) initial_delay: Option<InitialDelay>,
    pub(super) join_phase: Alarm,
    pub(super) sync_phase: Alarm,
    /// Durable offsets by topic and partition.
    pub(super) offsets: BTreeMap<StrBytes, BTreeMap<i32, CommittedOffset>>,
    /// Durable offsets of transactions that are not decided, by producer.
    pub(super) undecided: BTreeMap<i64, Undecided>,
    /// Offsets on their way to the log: how many writes carry each.
    pub(super) offsets_on_the_way: BTreeMap<(StrBytes, i32), u32>,
    /// Whether the log holds anything about the group itself.
    pub(super) is_stored: bool,
    /// Writes about the group itself that are on the way.
    pub(super) writes_on_the_way: u32,
    /// Those of them that hold an offset of a transaction.
    pub(super) undecided_on_the_way: u32,
    /// The generation whose assignments are on their way to the log.
    pub(super) generation_on_the_way: Option<i32>,
    /// The group under the consumer protocol, if it is one.
    pub(super) consumer: Option<Box<ConsumerGroup>>,
    /// The number of the last write of changes to it.
    pub(super) last_change: u64,
    /// What the classic group that made way has left: alarms still to be cancelled, and requests still to be answered.
    pub(super) left: LeftBehind,
    /// Memory of members, pending members and offsets.
    bytes: usize,
}

impl Group {
    /// A group without members.
    pub(super) fn new(id: StrBytes, partition: i32, now_ms: i64) -> Self {
        Self {
            id,
            partition,
            state: State::Empty,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            supported: BTreeMap::new(),
            awaiting_join: 0,
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            subscribed: None,
            initial_delay: None,
            join_phase: Alarm::default(),
            sync_phase: Alarm::default(),
            offsets: BTreeMap::new(),
            undecided: BTreeMap::new(),
            offsets_on_the_way: BTreeMap::new(),
            is_stored: false,
            writes_on_the_way: 0,
            undecided_on_the_way: 0,
            generation_on_the_way: None,
            consumer: None,
            last_change: 0,
            left: LeftBehind::default(),
            bytes: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether it has no members, under either protocol.
    pub(super) fn is_without_members(&self) -> bool {
        self.is_in(State::Empty)
            && self
                .consumer
                .as_ref()
                .is_none_or(|consumer| consumer.is_empty())
    }

    pub(super) fn is_in(&self, state: State) -> bool {
        self.state == state
    }

    pub(super) fn transition(&mut self, state: State, now_ms: i64) {
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    /// Memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let consumer = self
            .consumer
            .as_ref()
            .map_or(0, |consumer| consumer.bytes());
        size_of::<Self>() + 2 * self.id.len() + self.bytes + consumer
    }

    pub(super) fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn discharge(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Whether nothing would be lost by dropping it from memory: no members, no offsets, nothing in the log.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_in(State::Empty)
            && self.consumer.is_none()
            && !self.is_stored
            && self.writes_on_the_way == 0
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.undecided.is_empty()
            && self.offsets_on_the_way.is_empty()
    }

    // --- members ---

    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn member_ids(&self) -> Vec<StrBytes> {
        self.members.keys().cloned().collect()
    }

    pub(super) fn member(&self, id: &StrBytes) -> Option<&Member> {
        self.members.get(id)
    }

    pub(super) fn member_mut(&mut self, id: &StrBytes) -> Option<&mut Member> {
        self.members.get_mut(id)
    }

    pub(super) fn has_member(&self, id: &StrBytes) -> bool {
        self.members.contains_key(id)
    }

    pub(super) fn static_member(&self, instance_id: &StrBytes) -> Option<&StrBytes> {
        self.static_members.get(instance_id)
    }

    pub(super) fn is_leader(&self, member_id: &StrBytes) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    /// Checks that a request comes from a current member.
    pub(super) fn validate_member(
        &self,
        member_id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_member(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.has_member(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    /// Adds a member. The first one decides the protocol type and leads.
    pub(super) fn add_member(&mut self, member: Member, protocol_type: StrBytes) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), member.id.clone());
        }
        self.awaiting_join += usize::from(member.join.is_some());
        self.bytes += member.bytes();
        count_protocols(&mut self.supported, &member.protocols);
        let replaced = self.members.insert(member.id.clone(), member);
        assert!(replaced.is_none(), "a member is added once");
    }

    /// Takes a member out; its session must still be cancelled and its waiting requests answered. If it led, another
    /// member leads.
    pub(super) fn remove_member(&mut self, id: &StrBytes) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.awaiting_join -= usize::from(member.join.is_some());
        self.bytes -= member.bytes();
        discount_protocols(&mut self.supported, &member.protocols);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_sync.remove(id);
        Some(member)
    }

    /// Gives a member another id, as a static member that starts anew gets. Its waiting requests are handed out.
    pub(super) fn rename_member(
        &mut self,
        from: &StrBytes,
        to: StrBytes,
    ) -> (Option<JoinWait>, Option<Token>, Alarm) {
        let Some(mut member) = self.members.remove(from) else {
            return (None, None, Alarm::default());
        };
        self.bytes -= member.bytes();
        let join = member.join.take();
        self.awaiting_join -= usize::from(join.is_some());
        let sync = member.sync.take();
        let session = std::mem::take(&mut member.session);
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
        self.pending_sync.remove(from);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), to.clone());
        }
        member.id = to.clone();
        self.bytes += member.bytes();
        self.members.insert(to, member);
        (join, sync, session)
    }

    /// Replaces what a member said when it joined.
    pub(super) fn update_member(
        &mut self,
        id: &StrBytes,
        protocols: Vec<Protocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        discount_protocols(&mut self.supported, &member.protocols);
        count_protocols(&mut self.supported, &protocols);
        self.bytes -= protocols_bytes(&member.protocols);
        self.bytes += protocols_bytes(&protocols);
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
    }

    pub(super) fn set_assignment(&mut self, id: &StrBytes, assignment: Bytes) {
        if let Some(member) = self.members.get_mut(id) {
            self.bytes -= member.assignment.len();
            self.bytes += assignment.len();
            member.assignment = assignment;
        }
    }

    /// Parks a member's JoinGroup; an earlier one that waits is handed out.
    pub(super) fn await_join(&mut self, id: &StrBytes, join: JoinWait) -> Option<JoinWait> {
        let member = self.members.get_mut(id)?;
        let earlier = member.join.replace(join);
        self.awaiting_join += usize::from(earlier.is_none());
        earlier
    }

    /// Takes a member's waiting JoinGroup.
    pub(super) fn take_join(&mut self, id: &StrBytes) -> Option<JoinWait> {
        let join = self.members.get_mut(id)?.join.take()?;
        self.awaiting_join -= 1;
        Some(join)
    }

    pub(super) fn awaiting_join(&self) -> usize {
        self.awaiting_join
    }

    /// Whether nobody is missing from the join phase.
    pub(super) fn all_joined(&self) -> bool {
        self.awaiting_join == self.members.len() && self.pending.is_empty()
    }

    /// Makes a member that has joined the leader, unless the leader has. False if nobody has joined.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member: &&Member| member.join.is_some();
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let leader = leader
            .filter(has_joined)
            .or_else(|| self.members.values().find(has_joined));
        match leader.map(|member| member.id.clone()) {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// How long a join or sync phase lasts at most: the longest any member asks for, in milliseconds.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members().map(|member| member.rebalance_timeout_ms);
        longest.max().unwrap_or(0).max(0) as u64
    }

    // --- protocols ---

    /// Whether a member with these protocols may join.
    pub(super) fn supports(&self, protocol_type: &StrBytes, protocols: &[Protocol]) -> bool {
        // A rebalance that lost all its members puts no condition on the next one.
        if self.is_in(State::Empty) || self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols.iter().any(|p| self.is_common(&p.name))
    }

    fn is_common(&self, protocol: &StrBytes) -> bool {
        self.supported.get(protocol) == Some(&self.members.len())
    }

    /// The protocol that all members support and most prefer.
    pub(super) fn select_protocol(&self) -> Option<StrBytes> {
        let mut votes: BTreeMap<&StrBytes, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|p| self.is_common(&p.name));
            if let Some(protocol) = vote {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let winner = votes.into_iter().max_by_key(|&(_, votes)| votes);
        winner.map(|(name, _)| name.clone())
    }

    /// The topics consumers are subscribed to, if their metadata can be read.
    pub(super) fn compute_subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            subscription_topics(&member.metadata(self.protocol.as_deref()?), &mut topics)?;
        }
        Some(topics)
    }

    /// Whether offsets of `topic` are in use.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.is_subscribed(topic);
        }
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }

    // --- storage ---

    /// As stored, with `assignment` of each member.
    pub(super) fn value(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupValue {
        let protocol = self.protocol.as_deref().unwrap_or("");
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since_ms.unwrap_or(-1),
            members: self
                .members()
                .map(|member| member.value(protocol, assignment(member)))
                .collect(),
        }
    }

    /// Becomes what was stored. Its alarms must have been cancelled.
    pub(super) fn restore(&mut self, value: GroupValue) {
        for id in self.member_ids() {
            self.remove_member(&id);
        }
        self.leader = None;
        let protocol = value.protocol.clone().unwrap_or_default();
        for member in value.members {
            let member = Member::from_value(member, &protocol);
            if !self.has_member(&member.id) {
                self.add_member(member, value.protocol_type.clone());
            }
        }
        self.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        self.generation = value.generation;
        self.protocol = value.protocol;
        self.leader = value.leader.filter(|leader| self.has_member(leader));
        self.state = match self.members.is_empty() {
            true => State::Empty,
            false => State::Stable,
        };
        self.state_since_ms = (value.state_since_ms >= 0).then_some(value.state_since_ms);
        self.subscribed = self.compute_subscribed();
        self.is_stored = true;
    }
}

fn count_protocols(supported: &mut BTreeMap<StrBytes, usize>, protocols: &[Protocol]) {
    for protocol in protocols {
        *supported.entry(protocol.name.clone()).or_default() += 1;
    }
}

fn discount_protocols(supported: &mut BTreeMap<StrBytes, usize>, protocols: &[Protocol]) {
    for protocol in protocols {
        if let Some(count) = supported.get_mut(&protocol.name) {
            *count -= 1;
            if *count == 0 {
                supported.remove(&protocol.name);
            }
        }
    }
}

/// Adds the topics of a consumer's metadata: Kafka's schema `ConsumerProtocolSubscription`, whose version 0 (16-bit
/// version, array of topic names) starts every later one.
fn subscription_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let mut rest = metadata;
    rest.try_get_i16().ok()?;
    for _ in 0..rest.try_get_i32().ok()? {
        let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let (name, tail) = rest.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(())
}
