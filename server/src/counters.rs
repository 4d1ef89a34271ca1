//! Counters of the shards, for whoever looks at the process from outside: on SIGUSR1 one line of JSON on standard error.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ringlog_engine::core::CoreStats;
use ringlog_engine::ring::{RingStats, on_signals};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use signal_hook::consts::SIGUSR1;

/// What the line starts with; a JSON object follows.
const MARK: &str = "ringlog counters: ";

/// Names of a core's counters, in the order of [`values`].
const CORE: [&str; 18] = [
    "batches",
    "records",
    "ingested_bytes",
    "frames",
    "journal_bytes",
    "destaged_bytes",
    "syncs",
    "rounds",
    "backlog_bytes",
    "read_memory_bytes",
    "read_file_bytes",
    "duplicates",
    "compactions",
    "compactions_failed",
    "compaction_read_bytes",
    "compaction_written_bytes",
    "compaction_dropped_records",
    "compaction_ns",
];

fn values(stats: &CoreStats) -> [u64; CORE.len()] {
    [
        stats.batches,
        stats.records,
        stats.ingested_bytes,
        stats.frames,
        stats.journal_bytes,
        stats.destaged_bytes,
        stats.syncs,
        stats.rounds,
        stats.backlog_bytes,
        stats.read_memory_bytes,
        stats.read_file_bytes,
        stats.duplicates,
        stats.compactions,
        stats.compactions_failed,
        stats.compaction_read_bytes,
        stats.compaction_written_bytes,
        stats.compaction_dropped_records,
        stats.compaction_ns,
    ]
}

/// One shard's counters. Its thread publishes them once a turn; reading them disturbs nobody. A reader may see some of
/// a turn's values before the others.
#[derive(Debug, Default)]
pub struct ShardCounters {
    core: [AtomicU64; CORE.len()],
}

impl ShardCounters {
    /// Publishes the core's counters.
    pub fn publish(&self, stats: &CoreStats) {
        for (counter, value) in self.core.iter().zip(values(stats)) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    fn json(&self, shard: usize, ring: Option<&RingStats>) -> Value {
        let core = CORE.iter().zip(&self.core);
        let mut fields = json!({ "shard": shard });
        for (name, counter) in core {
            fields[name] = counter.load(Ordering::Relaxed).into();
        }
        if let Some(ring) = ring.map(RingStats::snapshot) {
            fields["enters"] = ring.enters.into();
            fields["other_calls"] = ring.other_calls.into();
            fields["turns"] = ring.turns.into();
            fields["commits"] = ring.commits.into();
            fields["commit_ns"] = ring.commit_ns.into();
            fields["busy_ns"] = ring.busy_ns.into();
            fields["connections"] = ring.connections.into();
            fields["received_bytes"] = ring.received_bytes.into();
            fields["sent_bytes"] = ring.sent_bytes.into();
            fields["span_bytes"] = ring.span_bytes.into();
        }
        fields
    }
}

/// One shard as the reporter sees it: its core's counters, and its driver's if that has any.
pub type Source = (Arc<ShardCounters>, Option<Arc<RingStats>>);

/// CPU seconds of the process and every shard's counters since start, as `{"cpu_s": …, "shards": [{…}, …]}`.
#[must_use]
pub fn snapshot(shards: &[Source]) -> Value {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    let shards: Vec<Value> = shards
        .iter()
        .enumerate()
        .map(|(shard, (core, ring))| core.json(shard, ring.as_deref()))
        .collect();
    json!({ "cpu_s": cpu_s, "shards": shards })
}

/// The [`snapshot`] of `shards` as a line.
#[must_use]
pub fn line(shards: &[Source]) -> String {
    format!("{MARK}{}", snapshot(shards))
}

/// The shards that are counted: none while the process starts.
#[derive(Debug, Clone, Default)]
pub struct Board {
    shards: Arc<OnceLock<Vec<Source>>>,
}

impl Board {
    /// The shards are there from now on; once.
    pub fn fill(&self, shards: Vec<Source>) {
        // Nobody fills it twice.
        let _ = self.shards.set(shards);
    }

    /// The shards, in their order.
    #[must_use]
    pub fn shards(&self) -> &[Source] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// From now on SIGUSR1 writes the line to standard error.
    ///
    /// # Errors
    /// The handler or the thread that waits for it cannot be set up.
    pub fn on_signal(&self) -> io::Result<()> {
        let board = self.clone();
        on_signals("counters", &[SIGUSR1], move |_| {
            // Standard error may be closed; nobody reads the line then.
            let _ = writeln!(io::stderr().lock(), "{}", line(board.shards()));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_holds_every_shard_s_counters_as_json() {
        let shards: Vec<Source> = (0..2)
            .map(|_| (Arc::default(), Some(Arc::default())))
            .collect();
        shards[1].0.publish(&CoreStats {
            batches: 3,
            duplicates: 9,
            ..CoreStats::default()
        });
        let line = line(&shards);
        let json: Value = serde_json::from_str(line.strip_prefix(MARK).unwrap()).unwrap();
        assert!(json["cpu_s"].as_f64().is_some());
        assert_eq!(json["shards"][0]["batches"], 0);
        assert_eq!(json["shards"][1]["shard"], 1);
        assert_eq!(json["shards"][1]["batches"], 3);
        assert_eq!(json["shards"][1]["duplicates"], 9);
        assert_eq!(json["shards"][1]["enters"], 0);
    }
}
