//! Kafka's topic settings: which there are, what values they take, and what follows from them.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use ringlog_engine::batch::Compression;
use ringlog_engine::core::{CompactionPolicy, KeptCodec, LogConfig};

use super::Config;
use crate::catalog::action::ConfigOpKind;

/// Type of a setting's value, by Kafka's numbers in DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 64 bits.
    Long = 5,
    /// Floating point.
    Double = 6,
    /// Comma-separated.
    List = 7,
}

/// Longest value of a setting, as in Kafka.
pub const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
enum Values {
    Boolean,
    Int { min: i64, max: i64 },
    GzipLevel,
    Long { min: i64 },
    Ratio,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    AnyList,
}

/// One topic setting.
#[derive(Debug)]
pub struct TopicConfig {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's default, unless a broker setting gives another.
    default: &'static str,
    values: Values,
    /// What it does here.
    pub doc: &'static str,
}

const POSITIVE: Values = Values::Long { min: 0 };
const ANY: Values = Values::Long { min: -1 };
// -2 is what the topic's own retention says.
const LOCAL: Values = Values::Long { min: -2 };
const INT: Values = Values::Int {
    min: 0,
    max: i32::MAX as i64,
};
const KEPT: &str = "Kept and reported, without effect here.";

const fn setting(
    name: &'static str,
    default: &'static str,
    values: Values,
    doc: &'static str,
) -> TopicConfig {
    TopicConfig {
        name,
        default,
        values,
        doc,
    }
}

/// Every topic setting, by name.
pub const TOPIC_CONFIGS: &[TopicConfig] = &[
    setting(
        "cleanup.policy",
        "delete",
        Values::ListOf(&["delete", "compact"]),
        "Whether old segments are deleted, or of each key the newest record is kept, or both.",
    ),
    setting(
        "compression.gzip.level",
        "-1",
        Values::GzipLevel,
        "Level where compression.type is gzip; -1 is the codec's default.",
    ),
    setting(
        "compression.lz4.level",
        "9",
        Values::Int { min: 1, max: 17 },
        "Kept and reported, without effect here: LZ4 has one speed.",
    ),
    setting(
        "compression.type",
        "producer",
        Values::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "The codec batches are kept in; those of another are compressed anew. producer keeps each as it was sent.",
    ),
    setting(
        "compression.zstd.level",
        "3",
        Values::Int {
            min: -131_072,
            max: 22,
        },
        "Level where compression.type is zstd.",
    ),
    setting(
        "delete.retention.ms",
        "86400000",
        POSITIVE,
        "How long compaction keeps tombstones, from the first pass that met them.",
    ),
    setting("file.delete.delay.ms", "60000", POSITIVE, KEPT),
    setting(
        "flush.messages",
        "9223372036854775807",
        POSITIVE,
        "Without effect: a shard flushes for all its topics, by --durability and log.flush.interval.ms.",
    ),
    setting(
        "flush.ms",
        "9223372036854775807",
        POSITIVE,
        "Without effect: a shard flushes for all its topics, by --durability and log.flush.interval.ms.",
    ),
    setting(
        "follower.replication.throttled.replicas",
        "",
        Values::AnyList,
        KEPT,
    ),
    setting(
        "index.interval.bytes",
        "4096",
        INT,
        "Bytes of log between two entries of a segment's index.",
    ),
    setting(
        "leader.replication.throttled.replicas",
        "",
        Values::AnyList,
        KEPT,
    ),
    setting("local.retention.bytes", "-2", LOCAL, KEPT),
    setting("local.retention.ms", "-2", LOCAL, KEPT),
    setting(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Values::Long { min: 1 },
        "Older records are compacted whatever min.cleanable.dirty.ratio says.",
    ),
    setting(
        "max.message.bytes",
        "1048588",
        INT,
        "The largest record batch, header included.",
    ),
    setting(
        "message.timestamp.after.max.ms",
        "3600000",
        POSITIVE,
        "How far ahead of the broker's clock a record's timestamp may be.",
    ),
    setting(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        POSITIVE,
        "How far behind the broker's clock a record's timestamp may be.",
    ),
    setting(
        "message.timestamp.type",
        "CreateTime",
        Values::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose clock stamps records.",
    ),
    setting(
        "min.cleanable.dirty.ratio",
        "0.5",
        Values::Ratio,
        "A log is compacted when more than this part of it is new.",
    ),
    setting(
        "min.compaction.lag.ms",
        "0",
        POSITIVE,
        "Younger records are not compacted.",
    ),
    setting(
        "min.insync.replicas",
        "1",
        Values::Int {
            min: 1,
            max: i32::MAX as i64,
        },
        "There is one replica.",
    ),
    setting("preallocate", "false", Values::Boolean, KEPT),
    setting(
        "remote.log.copy.disable",
        "false",
        Values::OneOf(&["false"]),
        "There is no remote storage.",
    ),
    setting(
        "remote.log.delete.on.disable",
        "false",
        Values::OneOf(&["false"]),
        "There is no remote storage.",
    ),
    setting(
        "remote.storage.enable",
        "false",
        Values::OneOf(&["false"]),
        "There is no remote storage.",
    ),
    setting(
        "retention.bytes",
        "-1",
        ANY,
        "Whole segments are deleted, oldest first, as long as the log is larger; -1 keeps all.",
    ),
    setting(
        "retention.ms",
        "604800000",
        ANY,
        "Segments whose newest record is older are deleted; -1 keeps all.",
    ),
    setting(
        "segment.bytes",
        "1073741824",
        Values::Int {
            min: 1_048_576,
            max: i32::MAX as i64,
        },
        "A segment is closed before it grows past this.",
    ),
    setting(
        "segment.index.bytes",
        "10485760",
        Values::Int {
            min: 4,
            max: i32::MAX as i64,
        },
        KEPT,
    ),
    setting("segment.jitter.ms", "0", POSITIVE, KEPT),
    setting(
        "segment.ms",
        "604800000",
        Values::Long { min: 1 },
        "A segment older than this is closed by the next batch.",
    ),
    setting(
        "unclean.leader.election.enable",
        "false",
        Values::Boolean,
        "There is one replica.",
    ),
];

impl TopicConfig {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ConfigType {
        match self.values {
            Values::Boolean => ConfigType::Boolean,
            Values::Int { .. } | Values::GzipLevel => ConfigType::Int,
            Values::Long { .. } => ConfigType::Long,
            Values::Ratio => ConfigType::Double,
            Values::OneOf(&["false"]) => ConfigType::Boolean,
            Values::OneOf(_) => ConfigType::String,
            Values::ListOf(_) | Values::AnyList => ConfigType::List,
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "{} has {} bytes, at most {VALUE_BYTES_MAX} are allowed",
                self.name,
                value.len()
            ));
        }
        let wrong = |wanted: &str| Err(format!("{} is {value:?}, {wanted} is wanted", self.name));
        let number = value.trim().parse::<i64>().ok();
        match self.values {
            Values::Boolean if !matches!(value, "true" | "false") => wrong("true or false"),
            Values::Int { min, max } if !number.is_some_and(|n| (min..=max).contains(&n)) => {
                wrong(&format!("a number from {min} to {max}"))
            }
            Values::GzipLevel if !number.is_some_and(|n| n == -1 || (1..=9).contains(&n)) => {
                wrong("-1 or a number from 1 to 9")
            }
            Values::Long { min } if number.is_none_or(|n| n < min) => {
                wrong(&format!("a number from {min}"))
            }
            Values::Ratio if !value.parse::<f64>().is_ok_and(|n| (0.0..=1.0).contains(&n)) => {
                wrong("a ratio from 0 to 1")
            }
            Values::OneOf(all) if !all.contains(&value) => wrong(&format!("one of {all:?}")),
            Values::ListOf(all)
                if value.is_empty() || !value.split(',').all(|v| all.contains(&v.trim())) =>
            {
                wrong(&format!("a list out of {all:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The setting called `name`.
///
/// # Errors
/// A sentence that says so when there is none.
pub fn known(name: &str) -> Result<&'static TopicConfig, String> {
    TOPIC_CONFIGS
        .binary_search_by_key(&name, |c| c.name)
        .map(|at| &TOPIC_CONFIGS[at])
        .map_err(|_| format!("unknown topic config name: {name}"))
}

/// Checks a setting and its value.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    known(name)?.check(value)
}

/// As [`check`], and within the limits of this broker.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_for(config: &Config, name: &str, value: &str) -> Result<(), String> {
    check(name, value)?;
    let limit = config.batch_bytes_max();
    if name == "max.message.bytes" && value.trim().parse::<usize>().is_ok_and(|n| n > limit) {
        return Err(format!(
            "max.message.bytes is {value}, this broker allows {limit} (ringlog.batch.max.bytes)"
        ));
    }
    Ok(())
}

/// The value of setting `name` where a topic has none of its own.
#[must_use]
pub fn default_text(config: &Config, name: &str) -> String {
    match config.topic_default(name) {
        Some(text) => text,
        None => known(name).map_or_else(|_| String::new(), |c| c.default.to_owned()),
    }
}

/// Adds `value`'s entries to a list or takes them away.
///
/// # Errors
/// A sentence when the setting is no list.
pub fn edit_list(
    name: &str,
    current: &str,
    value: &str,
    kind: ConfigOpKind,
) -> Result<String, String> {
    if known(name)?.kind() != ConfigType::List {
        return Err(format!("{name} is not a list"));
    }
    fn entries(text: &str) -> impl Iterator<Item = &str> {
        text.split(',').map(str::trim).filter(|v| !v.is_empty())
    }
    let mut edited: HashSet<&str> = entries(value).collect();
    let mut list: Vec<&str> = entries(current).filter(|v| !edited.contains(v)).collect();
    if kind == ConfigOpKind::Append {
        list.extend(entries(value).filter(|v| edited.remove(v)));
    }
    Ok(list.join(","))
}

/// Whether a topic's `cleanup.policy` is `compact` alone: its old records may not be deleted.
#[must_use]
pub fn only_compacts(config: &Config, topic: &BTreeMap<String, String>) -> bool {
    let policy = topic.get("cleanup.policy").cloned();
    !deletes(&policy.unwrap_or_else(|| default_text(config, "cleanup.policy")))
}

fn deletes(policy: &str) -> bool {
    policy.split(',').any(|p| p.trim() == "delete")
}

/// What the core is told: the topic's settings over the broker's.
#[must_use]
pub fn log_config(config: &Config, topic: &BTreeMap<String, String>) -> LogConfig {
    let text = |name: &str| match topic.get(name) {
        Some(value) => value.trim().to_owned(),
        None => default_text(config, name),
    };
    // Values were checked when they were set.
    let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
    let unsigned = |name: &str| number(name).clamp(0, i64::from(u32::MAX)) as u32;
    let policy = text("cleanup.policy");
    let deletes = deletes(&policy);
    let compacts = policy.split(',').any(|p| p.trim() == "compact");
    LogConfig {
        segment_bytes: unsigned("segment.bytes"),
        segment_ms: number("segment.ms"),
        retention_ms: if deletes { number("retention.ms") } else { -1 },
        retention_bytes: if deletes {
            number("retention.bytes")
        } else {
            -1
        },
        index_interval_bytes: unsigned("index.interval.bytes"),
        max_message_bytes: unsigned("max.message.bytes"),
        log_append_time: text("message.timestamp.type") == "LogAppendTime",
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        kept_codec: kept_codec(&text("compression.type"), number),
        keys_wanted: compacts,
        compaction: compacts.then(|| CompactionPolicy {
            dirty_ratio_ppm: text("min.cleanable.dirty.ratio")
                .parse::<f64>()
                .map_or(500_000, |ratio| (ratio * 1e6) as u32),
            min_lag_ms: number("min.compaction.lag.ms"),
            max_lag_ms: number("max.compaction.lag.ms"),
            delete_retention_ms: number("delete.retention.ms"),
        }),
    }
}

/// What `compression.type` says, with the codec's level.
fn kept_codec(name: &str, number: impl Fn(&str) -> i64) -> Option<KeptCodec> {
    let codec = match name {
        "uncompressed" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => return None,
    };
    let level = match codec {
        Compression::Gzip => Some(number("compression.gzip.level")).filter(|&level| level > 0),
        Compression::Zstd => Some(number("compression.zstd.level")),
        _ => None,
    };
    Some(KeptCodec {
        codec,
        level: level.and_then(|level| i32::try_from(level).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|c| c.name));
        for c in TOPIC_CONFIGS {
            assert_eq!(c.check(c.default), Ok(()), "{}", c.name);
        }
    }

    #[test]
    fn without_settings_a_log_has_kafkas_defaults() {
        let config = Config::default();
        assert_eq!(log_config(&config, &BTreeMap::new()), LogConfig::default());
    }

    #[test]
    fn a_topics_settings_win_and_compacted_topics_keep_everything() {
        let config = Config::default();
        let topic = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            log_config(&config, &map.collect())
        };
        let log = topic(&[
            ("retention.ms", "5"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        assert_eq!((log.retention_ms, log.log_append_time), (5, true));
        assert_eq!(topic(&[("cleanup.policy", "compact")]).retention_ms, -1);
        assert!(check("retention.ms", "soon").is_err());
        assert!(check("retention.mss", "1").is_err());
        assert!(check("segment.bytes", "5").is_err());
    }

    #[test]
    fn compaction_is_what_the_topic_and_the_broker_say() {
        let mut config = Config::default();
        let topic = |config: &Config, pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            log_config(config, &map.collect())
        };
        let compact = ("cleanup.policy", "compact,delete");
        let log = topic(&config, &[compact]);
        assert_eq!(log.compaction, Some(CompactionPolicy::default()));
        assert!(log.keys_wanted && log.retention_ms > 0);
        config
            .set("log.cleaner.min.cleanable.ratio", "0.25")
            .expect("valid");
        let own = [
            compact,
            ("delete.retention.ms", "7"),
            ("max.compaction.lag.ms", "9"),
        ];
        let expected = CompactionPolicy {
            dirty_ratio_ppm: 250_000,
            min_lag_ms: 0,
            max_lag_ms: 9,
            delete_retention_ms: 7,
        };
        assert_eq!(topic(&config, &own).compaction, Some(expected));
        assert_eq!(topic(&config, &[]).compaction, None);
    }

    #[test]
    fn lists_are_edited_by_entry() {
        let append = edit_list("cleanup.policy", "delete", "compact", ConfigOpKind::Append);
        assert_eq!(append, Ok("delete,compact".into()));
        let subtract = edit_list(
            "cleanup.policy",
            "delete,compact",
            "delete",
            ConfigOpKind::Subtract,
        );
        assert_eq!(subtract, Ok("compact".into()));
        assert!(edit_list("retention.ms", "1", "2", ConfigOpKind::Append).is_err());
    }

    #[test]
    fn long_lists_are_edited_in_one_pass() {
        let name = "leader.replication.throttled.replicas";
        let list = |range: std::ops::Range<u32>| {
            let entries: Vec<_> = range.map(|n| format!("{n:06}:1")).collect();
            entries.join(",")
        };
        let begun = std::time::Instant::now();
        let (old, new) = (list(0..100_000), list(50_000..150_000));
        let appended = edit_list(name, &old, &new, ConfigOpKind::Append);
        assert_eq!(appended, Ok(list(0..150_000)));
        let subtracted = edit_list(name, &old, &new, ConfigOpKind::Subtract);
        assert_eq!(subtracted, Ok(list(0..50_000)));
        let twice = edit_list(name, "a,b", "c, a,c", ConfigOpKind::Append);
        assert_eq!(twice, Ok("b,c,a".into()));
        // An entry at a time takes minutes.
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
