//! Settings of the process: Kafka's broker properties where they mean the same, and a few of our own under
//! `ringlog.`.

mod broker;
mod file;
pub mod topic;

use std::collections::BTreeMap;

use broker::broker;
pub use broker::{BROKER_CONFIGS, BrokerConfig};
pub use file::{ConfigError, parse_properties};
use ringlog_engine::core::{CleanerConfig, Durability, Inspect};

/// Everything a shard's server is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host name that clients are told.
    pub advertise: String,
    /// Port of shard 0; shard `i` has `port + i`.
    pub port: u16,
    /// Where the data lies, for DescribeLogDirs.
    pub data_dir: String,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`: memory of a shard for requests under way.
    pub request_memory_bytes: usize,
    /// `max.connections`, for each shard.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub connections_max_idle_ms: u64,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`, for each shard.
    pub fetch_sessions_max: usize,
    /// `ringlog.partitions.max`.
    pub partitions_max: usize,
    /// `ringlog.request.stall.ms`: how long half a request may stall while others wait for memory.
    pub request_stall_ms: u64,
    /// `ringlog.response.memory.bytes`: responses of a shard that clients have not taken.
    pub response_bytes_max: usize,
    /// Answer cold data as places in files.
    pub spans: bool,
    /// What was set, by name.
    set: BTreeMap<&'static str, String>,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            advertise: "127.0.0.1".into(),
            port: 9092,
            data_dir: String::new(),
            num_partitions: 0,
            auto_create_topics: false,
            delete_topics: false,
            request_bytes_max: 0,
            request_memory_bytes: 0,
            connections_max: 0,
            connections_max_idle_ms: 0,
            fetch_bytes_max: 0,
            fetch_sessions_max: 0,
            partitions_max: 0,
            request_stall_ms: 0,
            response_bytes_max: 0,
            spans: false,
            set: BTreeMap::new(),
        };
        config.derive();
        config
    }
}

impl Config {
    /// Sets one broker setting.
    ///
    /// # Errors
    /// A sentence that names the setting and what is wrong with it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some(known) = broker(name) else {
            let nearest = BROKER_CONFIGS
                .iter()
                .max_by(|a, b| {
                    strsim::jaro_winkler(name, a.name)
                        .total_cmp(&strsim::jaro_winkler(name, b.name))
                })
                .map_or("", |c| c.name);
            return Err(format!(
                "unknown setting {name:?}; the nearest known one is {nearest:?}"
            ));
        };
        known.check(value)?;
        self.set.insert(known.name, value.to_owned());
        self.derive();
        Ok(())
    }

    /// The value of a broker setting: as set, else its default.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        debug_assert!(broker(name).is_some(), "no setting is called {name}");
        match self.set.get(name) {
            Some(value) => value,
            None => broker(name).map_or("", |c| c.default),
        }
    }

    /// The elements of a list.
    #[must_use]
    pub fn names(&self, name: &str) -> Vec<&str> {
        broker::elements(self.text(name)).collect()
    }

    /// The largest batch any topic may allow.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        let limit = self.number("ringlog.batch.max.bytes");
        limit.max(self.number("message.max.bytes")) as usize
    }

    /// Whose records are read before a batch is accepted.
    #[must_use]
    pub fn inspect(&self) -> Inspect {
        match self.text("ringlog.inspect.records") {
            "none" => Inspect::Headers,
            "all" => Inspect::All,
            _ => Inspect::Uncompressed,
        }
    }

    /// How logs are compacted, one pass a shard of `shards`.
    #[must_use]
    pub fn cleaner(&self, shards: u32) -> CleanerConfig {
        let dedupe_bytes = self.number("log.cleaner.dedupe.buffer.size");
        let rate = self.text("log.cleaner.io.max.bytes.per.second");
        CleanerConfig {
            enabled: self.text("log.cleaner.enable") == "true",
            dedupe_bytes: dedupe_bytes as usize / shards.max(1) as usize,
            backoff_ms: self.number("log.cleaner.backoff.ms") as u64,
            // A rate beyond the type's range is no limit.
            bytes_per_second: rate.parse::<f64>().map_or(u64::MAX, |n| n as u64),
        }
    }

    /// What acknowledgements wait for when it is the write alone.
    #[must_use]
    pub fn written(&self) -> Durability {
        match self.number("log.flush.interval.ms") {
            // Nothing set.
            ..=0 => Durability::Write,
            every_ms => Durability::WriteThenFlush {
                every_ms: every_ms as u64,
            },
        }
    }

    /// Whether a broker setting was set.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// The value of a broker setting that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    fn derive(&mut self) {
        self.num_partitions = self.number("num.partitions") as i32;
        self.auto_create_topics = self.text("auto.create.topics.enable") == "true";
        self.delete_topics = self.text("delete.topic.enable") == "true";
        self.request_bytes_max = self.number("socket.request.max.bytes") as usize;
        self.request_memory_bytes = self.number("queued.max.request.bytes") as usize;
        self.connections_max = self.number("max.connections") as usize;
        self.connections_max_idle_ms = self.number("connections.max.idle.ms") as u64;
        self.fetch_bytes_max = self.number("fetch.max.bytes") as usize;
        self.fetch_sessions_max = self.number("max.incremental.fetch.session.cache.slots") as usize;
        self.partitions_max = self.number("ringlog.partitions.max") as usize;
        self.request_stall_ms = self.number("ringlog.request.stall.ms") as u64;
        self.response_bytes_max = self.number("ringlog.response.memory.bytes") as usize;
    }

    /// The default that broker settings give topic setting `name`, where one does.
    #[must_use]
    pub fn topic_default(&self, name: &str) -> Option<String> {
        match name {
            "retention.ms" => Some(self.retention_ms().to_string()),
            "segment.ms" if self.is_set("log.roll.ms") => Some(self.text("log.roll.ms").into()),
            "segment.ms" => Some((self.number("log.roll.hours") * 3_600_000).to_string()),
            _ => BROKER_CONFIGS
                .iter()
                .find(|c| c.topic == Some(name))
                .map(|c| self.text(c.name).to_owned()),
        }
    }

    /// Whether a broker setting that gives the default of topic setting `name` was set.
    #[must_use]
    pub fn topic_default_is_set(&self, name: &str) -> bool {
        let sources: &[&str] = match name {
            "retention.ms" => &[
                "log.retention.ms",
                "log.retention.minutes",
                "log.retention.hours",
            ],
            "segment.ms" => &["log.roll.ms", "log.roll.hours"],
            _ => {
                let mut all = BROKER_CONFIGS.iter();
                return all.any(|c| c.topic == Some(name) && self.is_set(c.name));
            }
        };
        sources.iter().any(|s| self.is_set(s))
    }

    fn retention_ms(&self) -> i64 {
        let scaled = |name: &str, ms: i64| match self.number(name) {
            n if n < 0 => -1,
            n => n.saturating_mul(ms),
        };
        if self.is_set("log.retention.ms") {
            scaled("log.retention.ms", 1)
        } else if self.is_set("log.retention.minutes") {
            scaled("log.retention.minutes", 60_000)
        } else {
            scaled("log.retention.hours", 3_600_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(BROKER_CONFIGS.is_sorted_by_key(|c| c.name));
        for c in BROKER_CONFIGS.iter().filter(|c| !c.default.is_empty()) {
            assert_eq!(c.check(c.default), Ok(()), "{}", c.name);
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_known() {
        let error = Config::default().set("num.partition", "3").unwrap_err();
        assert!(
            error.contains("num.partition\"") && error.contains("num.partitions"),
            "{error}"
        );
        assert!(Config::default().set("num.partitions", "0").is_err());
        assert!(Config::default().set("log.segment.bytes", "7").is_err());
    }

    #[test]
    fn flushes_by_time_are_a_setting() {
        let mut config = Config::default();
        assert_eq!(config.written(), Durability::Write);
        assert!(config.set("log.flush.interval.ms", "0").is_err());
        config.set("log.flush.interval.ms", "250").expect("valid");
        let every_ms = 250;
        assert_eq!(config.written(), Durability::WriteThenFlush { every_ms });
    }

    #[test]
    fn retention_is_taken_from_the_finest_unit() {
        let mut config = Config::default();
        let retention = |c: &Config| c.topic_default("retention.ms").expect("has a default");
        assert_eq!(retention(&config), "604800000");
        config.set("log.retention.minutes", "2").expect("valid");
        assert_eq!(retention(&config), "120000");
        config.set("log.retention.ms", "-1").expect("valid");
        assert_eq!(retention(&config), "-1");
    }
}
