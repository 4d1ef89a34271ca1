//! The report of `scripts/run`: a load run, its check and the server's counters in one text.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

/// What the server's line of counters starts with; JSON follows.
pub const COUNTERS_MARK: &str = "ringlog counters: ";

/// One shard's counters since the server's start. Bytes are bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct ShardCounters {
    /// Its number.
    pub shard: u32,
    /// Batches accepted.
    pub batches: u64,
    /// Records accepted.
    pub records: u64,
    /// Bytes of batches accepted.
    pub ingested_bytes: u64,
    /// Journal frames written.
    pub frames: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written to segments, indexes and checkpoints.
    pub destaged_bytes: u64,
    /// Flushes asked of the device.
    pub syncs: u64,
    /// Destage rounds finished.
    pub rounds: u64,
    /// Bytes in the journal that are not in segments yet.
    pub backlog_bytes: u64,
    /// Bytes served from memory.
    pub read_memory_bytes: u64,
    /// Bytes served from files.
    pub read_file_bytes: u64,
}

/// What the server counted up to one moment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Counters {
    /// CPU seconds of the process since its start.
    pub cpu_s: f64,
    /// By shard.
    pub shards: Vec<ShardCounters>,
}

impl Counters {
    /// Every line of counters in a server's log, in order.
    ///
    /// # Errors
    /// A sentence, if such a line is not what it should be.
    pub fn all(log: &str) -> Result<Vec<Self>, String> {
        log.lines()
            .filter_map(|line| line.split_once(COUNTERS_MARK))
            .map(|(_, json)| {
                serde_json::from_str(json)
                    .map_err(|error| format!("a line of counters: {error}: {json}"))
            })
            .collect()
    }
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Where the records came from, in words.
    pub source: &'a str,
    /// The JSON of `ringlog-load produce`.
    pub produce: &'a Value,
    /// The JSON of `ringlog-load check`.
    pub check: &'a Value,
    /// The counters before the load.
    pub before: &'a Counters,
    /// The counters after load and check.
    pub after: &'a Counters,
}

fn number(value: &Value, path: &str) -> Result<f64, String> {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.ok_or_else(|| format!("the load generator's JSON has no number at {path}"))
}

/// What one shard, or all of them, did between two moments.
struct Work {
    records: f64,
    ingested: f64,
    frames: f64,
    syncs: f64,
    written: f64,
    read: f64,
}

impl Work {
    fn between(before: &ShardCounters, after: &ShardCounters) -> Self {
        let since =
            |field: fn(&ShardCounters) -> u64| field(after).saturating_sub(field(before)) as f64;
        Self {
            records: since(|s| s.records),
            ingested: since(|s| s.ingested_bytes),
            frames: since(|s| s.frames),
            syncs: since(|s| s.syncs),
            written: since(|s| s.journal_bytes) + since(|s| s.destaged_bytes),
            read: since(|s| s.read_memory_bytes) + since(|s| s.read_file_bytes),
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.records += other.records;
        self.ingested += other.ingested;
        self.frames += other.frames;
        self.syncs += other.syncs;
        self.written += other.written;
        self.read += other.read;
        self
    }

    fn line(&self, out: &mut String, name: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "  {name:<8} {:>10.0} {:>11.1} {:>11.1} {:>8.2} {:>9.0} {:>10.0} {:>14.1} {:>11.1}",
            self.records,
            self.ingested / 1e6,
            self.written / 1e6,
            self.written / self.ingested.max(1.0),
            self.frames,
            self.syncs,
            self.syncs / (self.ingested / 1e6).max(1e-9),
            self.read / 1e6,
        );
    }
}

/// The report, and whether everything was as it should be.
///
/// # Errors
/// A sentence, if an input lacks what it should hold.
pub fn report(inputs: &Inputs<'_>) -> Result<(String, bool), String> {
    let Inputs {
        source,
        produce,
        check,
        before,
        after,
    } = *inputs;
    let mut out = String::new();
    let _ = writeln!(out, "records: {source}");
    load_lines(&mut out, produce)?;
    shard_lines(&mut out, before, after)?;
    let well = verdict(&mut out, produce, check)?;
    Ok((out, well))
}

fn load_lines(out: &mut String, produce: &Value) -> Result<(), String> {
    let at = |path: &str| number(produce, path);
    let _ = writeln!(
        out,
        "ingest:  {:.0} records/s, {:.1} MB/s for {:.0} s ({} connections, {} partitions on {} shards; \
         each ack after fsync)",
        at("/produce/records_per_s")?,
        at("/produce/mb_per_s")?,
        at("/window_s")?,
        at("/produce/connections")?,
        at("/cluster/partitions")?,
        at("/cluster/leaders")?,
    );
    let _ = writeln!(
        out,
        "ack:     p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, slowest {:.0} µs",
        at("/produce/latency_us/p50")?,
        at("/produce/latency_us/p90")?,
        at("/produce/latency_us/p99")?,
        at("/produce/latency_us/p999")?,
        at("/produce/latency_us/max")?,
    );
    let _ = writeln!(
        out,
        "CPU:     server {:.2} s, client {:.2} s for each GB ingested",
        at("/produce/server/cpu_s_per_gb")?,
        (at("/usage/client/user_s")? + at("/usage/client/system_s")?)
            / (at("/produce/batch_bytes")? / 1e9).max(1e-9),
    );
    Ok(())
}

fn shard_lines(out: &mut String, before: &Counters, after: &Counters) -> Result<(), String> {
    if before.shards.len() != after.shards.len() {
        return Err("the server's two lines of counters differ in their shards".into());
    }
    let work: Vec<Work> = before
        .shards
        .iter()
        .zip(&after.shards)
        .map(|(before, after)| Work::between(before, after))
        .collect();
    let _ = writeln!(
        out,
        "  {:<8} {:>10} {:>11} {:>11} {:>8} {:>9} {:>10} {:>14} {:>11}",
        "shard",
        "records",
        "MB in",
        "MB written",
        "ratio",
        "commits",
        "fsyncs",
        "fsyncs per MB",
        "MB read"
    );
    for (shard, work) in after.shards.iter().zip(&work) {
        work.line(out, &shard.shard.to_string());
    }
    let nothing = Work::between(&ShardCounters::default(), &ShardCounters::default());
    let all = work.iter().fold(nothing, Work::add);
    all.line(out, "all");
    let backlog: u64 = after.shards.iter().map(|shard| shard.backlog_bytes).sum();
    let _ = writeln!(
        out,
        "  (warm-up included; {:.1} MB are in the journals and not in segments yet)",
        backlog as f64 / 1e6,
    );
    Ok(())
}

/// Whether every acked record came back, byte for byte.
fn verdict(out: &mut String, produce: &Value, check: &Value) -> Result<bool, String> {
    let errors = number(produce, "/errors_total")?;
    let count = |name: &str| number(check, &format!("/{name}"));
    let (acked, found) = (count("acked")?, count("acked_found")?);
    let passed = check.pointer("/passed").and_then(Value::as_bool) == Some(true);
    let well = passed && errors == 0.0 && acked > 0.0 && acked == found && count("foreign")? == 0.0;
    let _ = writeln!(
        out,
        "check:   {acked:.0} records acked, {found:.0} read back at their offsets with the same bytes; {:.0} lost, \
         {:.0} twice, {:.0} out of order, {:.0} changed, {:.0} foreign, {errors:.0} errors",
        count("acked_lost")?,
        count("duplicates")?,
        count("out_of_order")?,
        count("corrupt")?,
        count("foreign")?,
    );
    for example in check
        .pointer("/examples")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let _ = writeln!(out, "         {}", example.as_str().unwrap_or_default());
    }
    let _ = write!(
        out,
        "{}",
        if well {
            "all is well"
        } else {
            "SOMETHING DIFFERS"
        }
    );
    Ok(well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counters(records: u64) -> Counters {
        let shard = |shard| ShardCounters {
            shard,
            records,
            ingested_bytes: records * 100,
            journal_bytes: records * 110,
            destaged_bytes: records * 90,
            syncs: records / 10,
            ..ShardCounters::default()
        };
        Counters {
            cpu_s: 0.0,
            shards: vec![shard(0), shard(1)],
        }
    }

    fn produce() -> Value {
        let latency = json!({ "p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0 });
        json!({
            "window_s": 10.0,
            "cluster": { "leaders": 2, "partitions": 16 },
            "produce": {
                "records_per_s": 1000.0, "mb_per_s": 0.1, "connections": 4, "batch_bytes": 1_000_000,
                "latency_us": latency, "server": { "cpu_s_per_gb": 0.4 },
            },
            "usage": { "client": { "user_s": 1.0, "system_s": 1.0 } },
            "errors_total": 0,
        })
    }

    fn check(lost: u64) -> Value {
        json!({
            "passed": lost == 0, "acked": 20_000, "acked_found": 20_000 - lost, "acked_lost": lost, "duplicates": 0,
            "out_of_order": 0, "corrupt": 0, "foreign": 0, "examples": ["load-0 offset 7 is missing"],
        })
    }

    fn made(produce: &Value, check: &Value) -> Result<(String, bool), String> {
        let (before, after) = (counters(1000), counters(11_000));
        report(&Inputs {
            source: "a test",
            produce,
            check,
            before: &before,
            after: &after,
        })
    }

    #[test]
    fn figures_are_those_of_the_load_alone() {
        let (text, well) = made(&produce(), &check(0)).unwrap();
        assert!(well);
        // Two shards of 10,000 records with 100 bytes each, every byte written twice.
        let all = text
            .lines()
            .find(|line| line.trim().starts_with("all "))
            .unwrap();
        let words: Vec<&str> = all.split_whitespace().collect();
        assert_eq!(words[1..5], ["20000", "2.0", "4.0", "2.00"], "{text}");
    }

    #[test]
    fn a_lost_record_or_an_error_is_no_success() {
        let (text, well) = made(&produce(), &check(1)).unwrap();
        assert!(!well && text.contains("1 lost") && text.contains("offset 7"));
        let mut errors = produce();
        errors["errors_total"] = json!(1);
        assert!(!made(&errors, &check(0)).unwrap().1);
        assert!(made(&json!({}), &check(0)).is_err());
    }

    #[test]
    fn counters_are_found_in_a_log() {
        let line = r#"{"cpu_s":1.5,"shards":[{"shard":0,"batches":1,"records":2,"ingested_bytes":3,"frames":4,
            "journal_bytes":5,"destaged_bytes":6,"syncs":7,"rounds":8,"backlog_bytes":9,"read_memory_bytes":10,
            "read_file_bytes":11,"duplicates":12}]}"#
            .replace('\n', "");
        let log = format!("INFO ready\nringlog counters: {line}\nINFO more\n");
        let found = Counters::all(&log).unwrap();
        assert_eq!(
            (found.len(), found[0].shards[0].syncs, found[0].cpu_s),
            (1, 7, 1.5)
        );
        assert!(Counters::all("ringlog counters: {").is_err());
        assert!(Counters::all("nothing").unwrap().is_empty());
    }
}
