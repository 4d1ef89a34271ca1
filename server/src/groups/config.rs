//! The coordinator's settings.

use super::consumer::{Assignor, DEFAULT_ASSIGNORS};

/// Settings of one shard's coordinator; Kafka's broker properties where a name is given. Bytes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    /// `offsets.topic.num.partitions`: partitions of the offsets topic, fixed once it exists.
    pub offsets_partitions: i32,
    /// `group.initial.rebalance.delay.ms`: an empty group waits this long for more members.
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.max.size`: members of one group.
    pub group_size_max: usize,
    /// Whether `group.coordinator.rebalance.protocols` has `consumer`.
    pub consumer_protocol: bool,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: u64,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`: members of one consumer group.
    pub consumer_group_size_max: usize,
    /// Whether `group.consumer.migration.policy` lets a classic group with members become a consumer group.
    pub online_upgrade: bool,
    /// Whether it lets a consumer group whose members are all of the classic protocol become a classic group.
    pub online_downgrade: bool,
    /// `group.consumer.assignors`: the first is that of groups whose members have no wish.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.assignment.interval.ms`: least time between two assignments of a group.
    pub assignment_interval_ms: i64,
    /// A member that has joined for the first time must see its group complete the join phase within this time,
    /// since it has no member id to send heartbeats with.
    pub new_member_join_timeout_ms: u64,
    /// `group.coordinator.append.linger.ms`: how long committed offsets wait to be written with those of other groups, below
    /// 0 for not at all unless many groups commit.
    pub append_linger_ms: i64,
    /// `offset.metadata.max.bytes`: metadata of one committed offset.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// Groups one shard coordinates; past it new ones are refused.
    pub groups_max: usize,
    /// What all members and offsets of one group may take.
    pub group_bytes_max: usize,
    /// What all groups of a shard may take.
    pub bytes_max: usize,
    /// Members of one group that were given an id and have not joined with it yet.
    pub pending_members_max: usize,
    /// The largest batch written to the offsets topic, header included.
    pub batch_bytes_max: usize,
    /// Records that wait to be written; past it whoever asks for more is asked to come again.
    pub unwritten_bytes_max: usize,
}

impl Default for GroupsConfig {
    /// Kafka's defaults, and bounds where Kafka has none.
    fn default() -> Self {
        Self {
            offsets_partitions: 50,
            initial_rebalance_delay_ms: 3_000,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_size_max: i32::MAX as usize,
            consumer_protocol: true,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_group_size_max: i32::MAX as usize,
            online_upgrade: true,
            online_downgrade: true,
            assignors: DEFAULT_ASSIGNORS.to_vec(),
            assignment_interval_ms: 1_000,
            new_member_join_timeout_ms: 300_000,
            append_linger_ms: -1,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            retention_check_interval_ms: 600_000,
            groups_max: 100_000,
            group_bytes_max: 32 << 20,
            bytes_max: 512 << 20,
            pending_members_max: 10_000,
            batch_bytes_max: 1_048_588,
            unwritten_bytes_max: 16 << 20,
        }
    }
}
