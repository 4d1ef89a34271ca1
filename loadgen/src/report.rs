//! The result of a run: a table for people, JSON for programs (described in REPORT.md).

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::check::CheckResult;
use crate::coordinator::Generation;
use crate::counters::{ProcessCounters, Usage};
use crate::run::{RoleResult, RunOptions, RunResult};
use crate::stats::{ErrorCounts, LatencyUs};

/// Version of the JSON's shape; rises when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Whether a run counts as good: every check passed, all was read, and no error came or errors are tolerated.
#[must_use]
pub fn is_well(result: &RunResult, tolerate_errors: bool) -> bool {
    let idle = result.idle.as_ref();
    let errors = result.error_count() + idle.map_or(0, |idle| idle.closed_by_broker as u64);
    !result.verify_failed() && result.complete() && (tolerate_errors || errors == 0)
}

/// The JSON object of a run.
#[must_use]
pub fn json(options: &RunOptions, result: &RunResult) -> Value {
    let role = |role: &RoleResult| role_json(role, result.window_s, &result.usage);
    let produce = result.produce.as_ref().map(|produce| {
        let mut value = role(produce);
        value["behind_s"] = json!(produce.outcome.behind_s);
        value["unacked_records"] = json!(produce.outcome.unacked_records);
        value["compression_ratio"] = json!(result.compression_ratio);
        value["transactions"] = transactions_json(result, produce);
        value
    });
    let consume = result.consume.as_ref().map(|consume| {
        let mut value = role(consume);
        value["complete"] = json!(consume.outcome.complete);
        value
    });
    json!({
        "schema": SCHEMA,
        "tool": concat!("ringlog-load ", env!("CARGO_PKG_VERSION")),
        "command": options.command,
        "started_unix_ms": result.started_unix_ms,
        "run_id": result.run_id,
        "parameters": parameters(options),
        "cluster": { "leaders": result.leaders, "partitions": result.partitions },
        "window_s": result.window_s,
        "produce": produce,
        "consume": consume,
        "verify": result.findings().map(|findings| json!({
            "verified": findings.verified,
            "missing": findings.missing,
            "duplicates": findings.duplicates,
            "out_of_order": findings.out_of_order,
            "corrupt": findings.corrupt,
            "foreign": findings.foreign,
            "acked_but_not_read": result.acked_but_not_read(),
            "passed": !result.verify_failed(),
        })),
        "idle": idle_json(result),
        "usage": result.usage,
        "errors_total": result.error_count(),
    })
}

/// What silent connections took, or null without any.
fn idle_json(result: &RunResult) -> Value {
    let Some(idle) = &result.idle else {
        return Value::Null;
    };
    let mut value = json!(idle);
    value["server_bytes_per_connection"] = json!(idle.bytes_per_connection());
    value
}

fn parameters(options: &RunOptions) -> Value {
    json!({
        "topic": options.topic,
        "produce": options.produce,
        "consume": options.consume,
        "warmup_s": options.warmup.as_secs_f64(),
        "duration_s": options.duration.as_secs_f64(),
        "idle_connections": options.idle_connections,
        "server_pids": options.server_pids,
        "cpus": options.cpus,
    })
}

fn role_json(role: &RoleResult, window_s: f64, usage: &Usage) -> Value {
    let counts = &role.measured;
    let per_second: Vec<f64> = role
        .intervals
        .iter()
        .map(|(records, length_s)| *records as f64 / length_s)
        .collect();
    let gigabytes = counts.batch_bytes as f64 / 1e9;
    let server = usage.server.as_ref().map(|server| {
        json!({
            "cpu_s_per_gb": ratio(server.cpu_s(), gigabytes),
            "cpu_s_per_million_requests": ratio(server.cpu_s() * 1e6, counts.requests as f64),
            "switches_per_request": ratio(switches(server), counts.requests as f64),
            "write_bytes_per_byte": ratio(server.write_bytes as f64, counts.batch_bytes as f64),
        })
    });
    json!({
        "threads": role.threads,
        "connections": role.connections,
        "records": counts.records,
        "records_per_s": counts.records as f64 / window_s,
        "batches": counts.batches,
        "requests": counts.requests,
        "requests_per_s": counts.requests as f64 / window_s,
        "batch_bytes": counts.batch_bytes,
        "mb_per_s": counts.batch_bytes as f64 / 1e6 / window_s,
        "value_bytes": counts.value_bytes,
        "latency_us": LatencyUs::of(&counts.latency),
        "end_to_end_us": counts.end_to_end.as_ref().map(LatencyUs::of),
        "send_lag_us": counts.send_lag.as_ref().map(LatencyUs::of),
        "records_per_s_by_interval": per_second,
        "server": server,
        "client_cpu_s_per_million_requests": ratio(usage.client.cpu_s() * 1e6, counts.requests as f64),
        "total_records": role.total.records,
        "errors": role.total.errors,
        "errors_total": role.total.errors.values().sum::<u64>(),
    })
}

/// What became of transactions, or null without any.
fn transactions_json(result: &RunResult, produce: &RoleResult) -> Value {
    let Some(settings) = &result.transactions else {
        return Value::Null;
    };
    let (counts, total) = (&produce.measured.transactions, &produce.total.transactions);
    json!({
        "generation": settings.generation,
        "transactional_id": settings.id,
        "records": settings.records,
        "committed": counts.committed,
        "committed_per_s": counts.committed as f64 / result.window_s,
        "latency_us": counts.latency.as_ref().map(LatencyUs::of),
        "end_latency_us": counts.end_latency.as_ref().map(LatencyUs::of),
        "waits": counts.waits,
        "total_committed": total.committed,
        "total_aborted": total.aborted,
        "total_fenced": total.fenced,
    })
}

fn transaction_lines(out: &mut String, result: &RunResult, produce: &RoleResult) {
    let Some(settings) = &result.transactions else {
        return;
    };
    let (counts, total) = (&produce.measured.transactions, &produce.total.transactions);
    let generation = match settings.generation {
        Some(Generation::Second) => "second",
        _ => "first",
    };
    let _ = writeln!(
        out,
        "  transactions {:.0} a second of {} records, {generation} generation, ids {}-0 and so on  ({} committed, {} waits); \
         in the whole run {} aborted, {} producers fenced",
        counts.committed as f64 / result.window_s,
        settings.records,
        settings.id.as_deref().unwrap_or_default(),
        counts.committed,
        counts.waits,
        total.aborted,
        total.fenced,
    );
    if let Some(histogram) = &counts.latency {
        latency_line(out, "commit", &LatencyUs::of(histogram));
    }
    if let Some(histogram) = &counts.end_latency {
        latency_line(out, "EndTxn", &LatencyUs::of(histogram));
    }
}

pub(crate) fn switches(process: &ProcessCounters) -> f64 {
    (process.voluntary_switches + process.involuntary_switches) as f64
}

pub(crate) fn ratio(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

/// The table of a run.
#[must_use]
pub fn table(options: &RunOptions, result: &RunResult) -> String {
    let mut out = String::new();
    let topics = &options.topic;
    let _ = writeln!(
        out,
        "{} {} topic {} ({} partitions, {} leaders), window {:.1} s after {:.1} s",
        options.command,
        topics.bootstrap.join(","),
        topics.topic,
        result.partitions,
        result.leaders,
        result.window_s,
        options.warmup.as_secs_f64(),
    );
    if let (Some(role), Some(produce)) = (&result.produce, &options.produce) {
        let _ = writeln!(
            out,
            "  {} connections x {} in flight, acks {}, {:?}, {}",
            role.connections,
            produce.in_flight,
            produce.acks as i16,
            produce.codec,
            produce
                .rate
                .map_or_else(|| "closed loop".into(), |rate| format!("{rate} records/s")),
        );
        role_lines(&mut out, "produce", "ack", role, result);
        transaction_lines(&mut out, result, role);
        if let Some(ratio) = result.compression_ratio.filter(|ratio| *ratio > 1.001) {
            let _ = writeln!(out, "    compressed {ratio:.2} : 1");
        }
        if role.outcome.behind_s > 0.01 {
            let _ = writeln!(
                out,
                "    the rate was not reached: {:.2} s behind at the end",
                role.outcome.behind_s
            );
        }
    }
    if let Some(role) = &result.consume {
        role_lines(&mut out, "consume", "fetch", role, result);
        if !role.outcome.complete {
            out.push_str("    not everything was read in time\n");
        }
    }
    verify_lines(&mut out, result);
    idle_lines(&mut out, result);
    usage_lines(&mut out, result);
    let _ = write!(out, "  errors      {}", result.error_count());
    out
}

fn role_lines(out: &mut String, name: &str, latency: &str, role: &RoleResult, result: &RunResult) {
    let counts = &role.measured;
    let window_s = result.window_s;
    let _ = writeln!(
        out,
        "  {name:<11} {:.0} records/s  {:.1} MB/s  {:.0} requests/s  ({} records, {:.1} a batch, {:.1} batches a request)",
        counts.records as f64 / window_s,
        counts.batch_bytes as f64 / 1e6 / window_s,
        counts.requests as f64 / window_s,
        counts.records,
        counts.records as f64 / counts.batches.max(1) as f64,
        counts.batches as f64 / counts.requests.max(1) as f64,
    );
    let mut rates: Vec<f64> = role.intervals.iter().map(|(n, s)| *n as f64 / s).collect();
    rates.sort_by(f64::total_cmp);
    if let (Some(low), Some(high), true) = (rates.first(), rates.last(), rates.len() > 2) {
        let median = rates[rates.len() / 2];
        let _ = writeln!(
            out,
            "    by second: {low:.0} to {high:.0} records, median {median:.0}"
        );
    }
    latency_line(out, latency, &LatencyUs::of(&counts.latency));
    if let Some(histogram) = &counts.end_to_end {
        latency_line(out, "end to end", &LatencyUs::of(histogram));
    }
    if let Some(histogram) = &counts.send_lag {
        latency_line(out, "send lag", &LatencyUs::of(histogram));
    }
    error_lines(out, &role.total.errors);
}

pub(crate) fn latency_line(out: &mut String, name: &str, latency: &LatencyUs) {
    let _ = writeln!(
        out,
        "    {name:<10} us  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}  mean {:.0}",
        latency.p50, latency.p90, latency.p99, latency.p999, latency.max, latency.mean
    );
}

pub(crate) fn error_lines(out: &mut String, errors: &ErrorCounts) {
    for (name, count) in errors {
        let _ = writeln!(out, "    {count} x {name}");
    }
}

fn verify_lines(out: &mut String, result: &RunResult) {
    let Some(findings) = result.findings() else {
        return;
    };
    let verdict = if result.verify_failed() {
        "FAILED"
    } else {
        "passed"
    };
    let _ = writeln!(
        out,
        "  check {verdict}: {} verified, {} missing, {} duplicates, {} out of order, {} corrupt, {} foreign",
        findings.verified,
        findings.missing,
        findings.duplicates,
        findings.out_of_order,
        findings.corrupt,
        findings.foreign,
    );
    if let Some(unread @ 1..) = result.acked_but_not_read() {
        let _ = writeln!(out, "    {unread} acked records were not read");
    }
}

fn idle_lines(out: &mut String, result: &RunResult) {
    let Some(idle) = &result.idle else {
        return;
    };
    let _ = write!(
        out,
        "  idle        {} connections, made in {:.2} s, {} closed by the broker",
        idle.connections, idle.open_s, idle.closed_by_broker
    );
    if let (Some(bytes), Some(before), Some(with)) =
        (idle.bytes_per_connection(), idle.before, idle.with)
    {
        let _ = write!(
            out,
            "; server: {bytes:.0} bytes each ({:.1} MiB before, {:.1} with them), {} open files ({} before)",
            before.resident_bytes as f64 / f64::from(1 << 20),
            with.resident_bytes as f64 / f64::from(1 << 20),
            with.descriptors,
            before.descriptors,
        );
    }
    out.push('\n');
}

fn usage_lines(out: &mut String, result: &RunResult) {
    let role = result.produce.as_ref().or(result.consume.as_ref());
    let (bytes, requests) = role.map_or((0, 0), |role| {
        (role.measured.batch_bytes, role.measured.requests)
    });
    let mut line = |name: &str, process: &ProcessCounters| {
        let _ = writeln!(
            out,
            "  {name:<11} {:.2} CPU s (user {:.2}, system {:.2}), {:.2} s a GB, {:.2} s a million requests, \
             {:.2} switches a request",
            process.cpu_s(),
            process.user_s,
            process.system_s,
            process.cpu_s() / (bytes as f64 / 1e9).max(1e-9),
            process.cpu_s() * 1e6 / requests.max(1) as f64,
            switches(process) / requests.max(1) as f64,
        );
    };
    line("client", &result.usage.client);
    let Some(server) = &result.usage.server else {
        return;
    };
    line("server", server);
    let _ = writeln!(
        out,
        "    read {:.1} MB, wrote {:.1} MB ({:.2} a byte), resident {:.0} MiB",
        server.read_bytes as f64 / 1e6,
        server.write_bytes as f64 / 1e6,
        server.write_bytes as f64 / bytes.max(1) as f64,
        server.resident_bytes as f64 / f64::from(1 << 20),
    );
    for (name, disk) in &result.usage.disks {
        let _ = writeln!(
            out,
            "    {name}: {} writes {:.1} MB, {} reads {:.1} MB, {} flushes, busy {} ms",
            disk.writes,
            disk.write_bytes as f64 / 1e6,
            disk.reads,
            disk.read_bytes as f64 / 1e6,
            disk.flushes,
            disk.busy_ms,
        );
    }
}

/// The JSON object of a check.
#[must_use]
pub fn check_json(result: &CheckResult) -> Value {
    let mut value = json!(result);
    value["schema"] = json!(SCHEMA);
    value["passed"] = json!(result.is_clean());
    value
}

/// The table of a check.
#[must_use]
pub fn check_table(result: &CheckResult) -> String {
    let verdict = if result.is_clean() {
        "passed"
    } else {
        "FAILED"
    };
    let mut out = format!(
        "check {verdict}: {} records acked, {} at their offset, {} lost\n  \
         {} not acked but there, {} duplicates, {} out of order, {} corrupt, {} offsets skipped, {} foreign, \
         {:.1} MB read",
        result.acked,
        result.acked_found,
        result.acked_lost,
        result.unacked_found,
        result.duplicates,
        result.out_of_order,
        result.corrupt,
        result.offset_gaps,
        result.foreign,
        result.batch_bytes as f64 / 1e6,
    );
    for example in &result.examples {
        let _ = write!(out, "\n  {example}");
    }
    out
}
