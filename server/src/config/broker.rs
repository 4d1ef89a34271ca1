//! The broker's settings: their names, defaults, and what they take.

use super::topic::{self, ConfigType};

/// One broker setting.
#[derive(Debug)]
pub struct BrokerConfig {
    /// Its name.
    pub name: &'static str,
    /// Its default.
    pub default: &'static str,
    /// Type of its value.
    pub kind: ConfigType,
    /// Least value of a number.
    min: i64,
    /// The topic setting it is the default of.
    pub(super) topic: Option<&'static str>,
    /// The words that text may be, any when empty, or that a list may have.
    words: &'static [&'static str],
    /// What it does.
    pub doc: &'static str,
}

const fn number(
    name: &'static str,
    default: &'static str,
    kind: ConfigType,
    min: i64,
    doc: &'static str,
) -> BrokerConfig {
    BrokerConfig {
        name,
        default,
        kind,
        min,
        topic: None,
        words: &[],
        doc,
    }
}

const fn flag(name: &'static str, default: &'static str, doc: &'static str) -> BrokerConfig {
    number(name, default, ConfigType::Boolean, 0, doc)
}

const fn topic_default(
    name: &'static str,
    default: &'static str,
    kind: ConfigType,
    topic: &'static str,
) -> BrokerConfig {
    BrokerConfig {
        name,
        default,
        kind,
        min: i64::MIN,
        topic: Some(topic),
        words: &[],
        doc: "Default of the topic setting of nearly the same name.",
    }
}

const fn word(
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    doc: &'static str,
) -> BrokerConfig {
    BrokerConfig {
        words,
        ..number(name, default, ConfigType::String, 0, doc)
    }
}

const fn list(
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    doc: &'static str,
) -> BrokerConfig {
    BrokerConfig {
        words,
        ..number(name, default, List, 0, doc)
    }
}

use ConfigType::{Int, List, Long, String as Text};

/// Every broker setting, by name.
pub const BROKER_CONFIGS: &[BrokerConfig] = &[
    flag(
        "auto.create.topics.enable",
        "true",
        "Create topics that a client asks about by name.",
    ),
    topic_default(
        "compression.gzip.level",
        "-1",
        Int,
        "compression.gzip.level",
    ),
    topic_default("compression.type", "producer", Text, "compression.type"),
    topic_default("compression.zstd.level", "3", Int, "compression.zstd.level"),
    number(
        "connections.max.idle.ms",
        "600000",
        Long,
        1,
        "Connections without traffic are closed after this.",
    ),
    flag("delete.topic.enable", "true", "Allow DeleteTopics."),
    number(
        "fetch.max.bytes",
        "57671680",
        Int,
        1024,
        "Bytes of records in one Fetch response at most.",
    ),
    number(
        "group.consumer.assignment.interval.ms",
        "1000",
        Int,
        0,
        "Least time between two assignments of a consumer group.",
    ),
    list(
        "group.consumer.assignors",
        "uniform,range",
        &["range", "uniform"],
        "Assignors of consumer groups; the first is that of groups whose members have no wish.",
    ),
    number(
        "group.consumer.heartbeat.interval.ms",
        "5000",
        Int,
        1,
        "How often members of consumer groups send heartbeats.",
    ),
    number(
        "group.consumer.max.size",
        "2147483647",
        Int,
        1,
        "Members of one consumer group at most.",
    ),
    word(
        "group.consumer.migration.policy",
        "bidirectional",
        &["bidirectional", "upgrade", "downgrade", "disabled"],
        "Which way a group may change its protocol while it has members: upgrade is to the consumer protocol.",
    ),
    number(
        "group.consumer.session.timeout.ms",
        "45000",
        Int,
        1,
        "A member of a consumer group that is not heard of for this long is out.",
    ),
    number(
        "group.coordinator.append.linger.ms",
        "-1",
        Int,
        -1,
        "How long committed offsets wait to be written together with those of other groups; -1: a few milliseconds while hundreds of \
         groups commit each second, else not at all. Nothing else waits.",
    ),
    list(
        "group.coordinator.rebalance.protocols",
        "classic,consumer",
        &["classic", "consumer"],
        "Protocols of groups; classic is always served.",
    ),
    number(
        "group.initial.rebalance.delay.ms",
        "3000",
        Int,
        0,
        "How long the first rebalance of a new group waits for more members.",
    ),
    number(
        "group.max.session.timeout.ms",
        "1800000",
        Int,
        1,
        "Longest session timeout a group member may ask for.",
    ),
    number(
        "group.max.size",
        "2147483647",
        Int,
        1,
        "Members of one group at most.",
    ),
    number(
        "group.min.session.timeout.ms",
        "6000",
        Int,
        1,
        "Shortest session timeout a group member may ask for.",
    ),
    number(
        "log.cleaner.backoff.ms",
        "15000",
        Long,
        0,
        "How long compaction rests when nothing is to be done.",
    ),
    number(
        "log.cleaner.dedupe.buffer.size",
        "134217728",
        Long,
        0,
        "Bytes of memory for the keys of compactions, of all shards together: 24 for a key.",
    ),
    topic_default(
        "log.cleaner.delete.retention.ms",
        "86400000",
        Long,
        "delete.retention.ms",
    ),
    flag(
        "log.cleaner.enable",
        "true",
        "Compact topics whose cleanup.policy has compact.",
    ),
    number(
        "log.cleaner.io.max.bytes.per.second",
        "1.7976931348623157E308",
        ConfigType::Double,
        0,
        "Bytes a second that each shard's compaction looks at, at most.",
    ),
    topic_default(
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        Long,
        "max.compaction.lag.ms",
    ),
    topic_default(
        "log.cleaner.min.cleanable.ratio",
        "0.5",
        ConfigType::Double,
        "min.cleanable.dirty.ratio",
    ),
    topic_default(
        "log.cleaner.min.compaction.lag.ms",
        "0",
        Long,
        "min.compaction.lag.ms",
    ),
    topic_default("log.cleanup.policy", "delete", List, "cleanup.policy"),
    number(
        "log.flush.interval.ms",
        "",
        Long,
        1,
        "With --durability write: milliseconds from an acknowledgement to its flush at most; when empty, records become durable \
         with the next round of destaging alone. With --durability fsync it has no effect: the flush comes first.",
    ),
    topic_default(
        "log.index.interval.bytes",
        "4096",
        Int,
        "index.interval.bytes",
    ),
    topic_default(
        "log.message.timestamp.after.max.ms",
        "3600000",
        Long,
        "message.timestamp.after.max.ms",
    ),
    topic_default(
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        Long,
        "message.timestamp.before.max.ms",
    ),
    topic_default(
        "log.message.timestamp.type",
        "CreateTime",
        Text,
        "message.timestamp.type",
    ),
    topic_default("log.retention.bytes", "-1", Long, "retention.bytes"),
    number(
        "log.retention.hours",
        "168",
        Int,
        -1,
        "Hours a log is kept, unless log.retention.minutes or .ms say it.",
    ),
    number(
        "log.retention.minutes",
        "",
        Int,
        -1,
        "Minutes a log is kept, unless log.retention.ms says it.",
    ),
    number(
        "log.retention.ms",
        "",
        Long,
        -1,
        "Milliseconds a log is kept; -1 keeps it for ever.",
    ),
    number(
        "log.roll.hours",
        "168",
        Int,
        1,
        "Hours until a segment is closed, unless log.roll.ms says it.",
    ),
    number(
        "log.roll.ms",
        "",
        Long,
        1,
        "Milliseconds until a segment is closed.",
    ),
    topic_default("log.segment.bytes", "1073741824", Int, "segment.bytes"),
    number(
        "max.connections",
        "10000",
        Int,
        1,
        "Connections of one shard at most.",
    ),
    number(
        "max.incremental.fetch.session.cache.slots",
        "1000",
        Int,
        0,
        "Fetch sessions of one shard at most.",
    ),
    topic_default("message.max.bytes", "1048588", Int, "max.message.bytes"),
    number(
        "num.partitions",
        "1",
        Int,
        1,
        "Partitions of topics created without a number.",
    ),
    number(
        "offset.metadata.max.bytes",
        "4096",
        Int,
        0,
        "Bytes of metadata in one offset commit at most.",
    ),
    number(
        "offsets.retention.check.interval.ms",
        "600000",
        Long,
        1,
        "How often offsets that have expired are looked for.",
    ),
    number(
        "offsets.retention.minutes",
        "10080",
        Int,
        1,
        "Minutes that offsets of an empty group are kept.",
    ),
    number(
        "offsets.topic.num.partitions",
        "50",
        Int,
        1,
        "Partitions of the topic that holds committed offsets.",
    ),
    number(
        "offsets.topic.segment.bytes",
        "104857600",
        Int,
        1_048_576,
        "Size of the segments of the topic that holds committed offsets.",
    ),
    number(
        "producer.id.expiration.ms",
        "86400000",
        Int,
        1,
        "An idempotent producer that has been silent for longer is forgotten.",
    ),
    number(
        "queued.max.request.bytes",
        "268435456",
        Long,
        1 << 20,
        "Memory of one shard for requests that are arriving or wait for the journal.",
    ),
    number(
        "ringlog.batch.max.bytes",
        "1048588",
        Int,
        1024,
        "The largest batch that any topic may allow; message.max.bytes when that is larger.",
    ),
    word(
        "ringlog.commit.sync",
        "fdatasync",
        &["fdatasync", "dsync"],
        "How the ring driver makes a journal write durable: a linked fdatasync, or one write with RWF_DSYNC, which is \
         quicker on a quiet host and slower on a busy one.",
    ),
    number(
        "ringlog.commits.in.flight",
        "4",
        Int,
        1,
        "Journal writes with their syncs that a shard has under way at most: the device merges flushes.",
    ),
    number(
        "ringlog.disk.free.min.bytes",
        "134217728",
        Long,
        0,
        "With less free space than this on the data directory's disk, Produce is refused until there is more again.",
    ),
    word(
        "ringlog.disk.record",
        "",
        &[],
        "A file in which every operation on the data directory is recorded, data included, so that tests can rebuild what a \
         loss of power leaves. Slow and large; nothing when empty. The ring driver alone has it.",
    ),
    number(
        "ringlog.inspect.decompressed.max.bytes",
        "67108864",
        Int,
        1024,
        "Bytes that a batch's records may have once decompressed, where ringlog.inspect.records is all or a topic's compression.type another \
         than the producer's. ListOffsets answers by its header a batch that has more.",
    ),
    word(
        "ringlog.inspect.records",
        "uncompressed",
        &["none", "uncompressed", "all"],
        "Whose records are read before a batch is accepted: nobody's, those of uncompressed batches, or all, which \
         decompresses them.",
    ),
    number(
        "ringlog.partitions.max",
        "200000",
        Int,
        1,
        "Partitions of all topics together at most.",
    ),
    number(
        "ringlog.reads.in.flight",
        "2",
        Int,
        1,
        "Reads of segments that a shard has under way at most. Each may keep the device and a worker of the kernel busy \
         while a producer's commit waits behind it.",
    ),
    number(
        "ringlog.request.stall.ms",
        "30000",
        Long,
        1,
        "A connection with half a request, or with responses that its client does not take, is given up when it has \
         stalled this long while others wait for memory.",
    ),
    number(
        "ringlog.response.memory.bytes",
        "268435456",
        Long,
        1 << 20,
        "Bytes of responses of one shard that clients have not taken. Beyond it fetches are answered in small pieces, \
         beyond twice as much they wait.",
    ),
    number(
        "socket.request.max.bytes",
        "104857600",
        Int,
        1024,
        "The largest request.",
    ),
    number(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "10000",
        Int,
        1,
        "How often transactions that take too long are looked for.",
    ),
    number(
        "transaction.max.timeout.ms",
        "900000",
        Int,
        1,
        "The longest time-out a transactional producer may ask for.",
    ),
    number(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        "3600000",
        Int,
        1,
        "How often transactional ids that have expired are looked for.",
    ),
    number(
        "transaction.state.log.num.partitions",
        "50",
        Int,
        1,
        "Partitions of the topic that holds transactions.",
    ),
    number(
        "transaction.state.log.segment.bytes",
        "104857600",
        Int,
        1_048_576,
        "Size of the segments of the topic that holds transactions.",
    ),
    number(
        "transactional.id.expiration.ms",
        "604800000",
        Int,
        1,
        "A transactional id that was not used for longer is forgotten.",
    ),
];

impl BrokerConfig {
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let wrong = |wanted: &str| Err(format!("{} is {value:?}, {wanted} is wanted", self.name));
        if let Some(name) = self.topic {
            return topic::check(name, value)
                .map_err(|_| format!("{} is {value:?}, which {name} does not take", self.name));
        }
        let parsed = value.parse::<i64>().ok();
        match self.kind {
            ConfigType::Boolean if !matches!(value, "true" | "false") => wrong("true or false"),
            Int if !parsed.is_some_and(|n| n >= self.min && n <= i64::from(i32::MAX)) => {
                wrong(&format!("a number from {}", self.min))
            }
            Text if !self.words.is_empty() && !self.words.contains(&value) => {
                wrong(&format!("one of {:?}", self.words))
            }
            List if !elements(value).all(|element| self.words.contains(&element)) => {
                wrong(&format!("some of {:?}", self.words))
            }
            Long if parsed.is_none_or(|n| n < self.min) => {
                wrong(&format!("a number from {}", self.min))
            }
            ConfigType::Double if !value.parse::<f64>().is_ok_and(|n| n >= 1.0) => {
                wrong("a number from 1")
            }
            _ => Ok(()),
        }
    }
}

/// The elements of a list.
pub(super) fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// The setting with this name.
pub(super) fn broker(name: &str) -> Option<&'static BrokerConfig> {
    BROKER_CONFIGS
        .binary_search_by_key(&name, |c| c.name)
        .ok()
        .map(|at| &BROKER_CONFIGS[at])
}
