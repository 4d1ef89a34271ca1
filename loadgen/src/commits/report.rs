//! The result of a run: a table for people, JSON for programs (described in REPORT.md).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::check::Restored;
use super::{CommitsOptions, CommitsResult, Membership, Tally};
use crate::report::{SCHEMA, error_lines, latency_line, ratio, switches};
use crate::stats::LatencyUs;

/// The JSON object of a run.
#[must_use]
pub fn json(options: &CommitsOptions, result: &CommitsResult) -> Value {
    json!({
        "schema": SCHEMA,
        "tool": concat!("ringlog-load ", env!("CARGO_PKG_VERSION")),
        "command": "commits",
        "started_unix_ms": result.started_unix_ms,
        "parameters": options,
        "cluster": { "coordinators": result.coordinators, "connections": result.connections },
        "window_s": result.window_s,
        "commits": tally_json(&result.commits, result.window_s),
        "heartbeats": options.has_members().then(|| tally_json(&result.heartbeats, result.window_s)),
        "server": server_json(result),
        "unanswered": result.unanswered,
        "behind_s": result.behind_s,
        "broken": result.broken,
        "usage": result.usage,
        "errors_total": result.error_count(),
    })
}

fn tally_json(tally: &Tally, window_s: f64) -> Value {
    json!({
        "count": tally.measured,
        "per_s": tally.measured as f64 / window_s,
        "latency_us": LatencyUs::of(&tally.latency),
        "send_lag_us": LatencyUs::of(&tally.send_lag),
        "total": tally.total,
        "errors": tally.errors,
        "errors_total": tally.error_count(),
    })
}

/// What the server took, or null where it was not looked at.
fn server_json(result: &CommitsResult) -> Value {
    let Some(server) = &result.usage.server else {
        return Value::Null;
    };
    let commits = result.commits.measured as f64;
    json!({
        "cores": server.cpu_s() / result.window_s,
        "cpu_us_per_commit": ratio(server.cpu_s() * 1e6, commits),
        "switches_per_commit": ratio(switches(server), commits),
        "write_bytes_per_commit": ratio(server.write_bytes as f64, commits),
    })
}

/// The table of a run.
#[must_use]
pub fn table(options: &CommitsOptions, result: &CommitsResult) -> String {
    let mut out = String::new();
    let who = match options.membership {
        Membership::None => "without members",
        Membership::Classic => "one member each",
    };
    let _ = writeln!(
        out,
        "commits {} {} groups every {} s, {who}, {} partitions of topic {} a commit; window {:.1} s after {:.1} s",
        options.bootstrap.join(","),
        options.groups,
        options.interval.as_secs_f64(),
        options.partitions,
        options.topic,
        result.window_s,
        options.warmup.as_secs_f64(),
    );
    let _ = writeln!(
        out,
        "  {} connections to {} coordinators",
        result.connections, result.coordinators
    );
    tally_lines(&mut out, "commits", &result.commits, result.window_s);
    if options.has_members() {
        tally_lines(&mut out, "heartbeats", &result.heartbeats, result.window_s);
    }
    if result.behind_s > 0.01 && !result.broken {
        let _ = writeln!(
            out,
            "    the rate was not reached: {:.2} s behind at the end",
            result.behind_s
        );
    }
    if result.broken {
        out.push_str("  a connection broke, which ended the run\n");
    } else {
        usage_lines(&mut out, result);
    }
    let _ = write!(
        out,
        "  errors      {} ({} requests without an answer)",
        result.error_count(),
        result.unanswered
    );
    out
}

fn tally_lines(out: &mut String, name: &str, tally: &Tally, window_s: f64) {
    let _ = writeln!(
        out,
        "  {name:<11} {:.0} a second  ({} answered, {} in the whole run)",
        tally.measured as f64 / window_s,
        tally.measured,
        tally.total,
    );
    latency_line(out, "reply", &LatencyUs::of(&tally.latency));
    latency_line(out, "send lag", &LatencyUs::of(&tally.send_lag));
    error_lines(out, &tally.errors);
}

fn usage_lines(out: &mut String, result: &CommitsResult) {
    let client = &result.usage.client;
    let _ = writeln!(
        out,
        "  client      {:.3} of a core",
        client.cpu_s() / result.window_s
    );
    let Some(server) = &result.usage.server else {
        return;
    };
    let commits = result.commits.measured.max(1) as f64;
    let _ = writeln!(
        out,
        "  server      {:.3} of a core (user {:.2} s, system {:.2} s), {:.1} us a commit, {:.2} switches a commit",
        server.cpu_s() / result.window_s,
        server.user_s,
        server.system_s,
        server.cpu_s() * 1e6 / commits,
        switches(server) / commits,
    );
    let _ = writeln!(
        out,
        "    wrote {:.1} MB ({:.0} bytes a commit), resident {:.0} MiB",
        server.write_bytes as f64 / 1e6,
        server.write_bytes as f64 / commits,
        server.resident_bytes as f64 / f64::from(1 << 20),
    );
}

/// The JSON object of a check.
#[must_use]
pub fn check_json(restored: &Restored) -> Value {
    let mut value = json!(restored);
    value["schema"] = json!(SCHEMA);
    value["passed"] = json!(restored.is_clean());
    value
}

/// The table of a check.
#[must_use]
pub fn check_table(restored: &Restored) -> String {
    let verdict = if restored.is_clean() {
        "passed"
    } else {
        "FAILED"
    };
    let mut out = format!(
        "check {verdict}: {} groups, {} with the offsets acknowledged last, {} with a later commit that was under way, \
         {} with less, {} with what was never sent\n  \
         answered after {:.3} s, for all groups after {:.3} s",
        restored.groups,
        restored.exact,
        restored.unacked_found,
        restored.lost,
        restored.foreign,
        restored.connected_s,
        restored.served_s,
    );
    for example in &restored.examples {
        let _ = write!(out, "\n  {example}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::ProcessCounters;
    use std::time::Duration;

    fn options(membership: Membership) -> CommitsOptions {
        CommitsOptions {
            bootstrap: vec!["h:1".into()],
            topic: "t".into(),
            partitions: 1,
            groups: 5000,
            group_prefix: "g".into(),
            interval: Duration::from_secs(1),
            membership,
            heartbeat: Duration::from_secs(3),
            session_timeout_ms: 45_000,
            connections: 256,
            in_flight: 64,
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            until_broken: false,
            server_pids: vec![1],
            cpus: Vec::new(),
            book: None,
        }
    }

    fn result() -> CommitsResult {
        let mut result = CommitsResult {
            window_s: 10.0,
            ..CommitsResult::default()
        };
        result.commits.measured = 50_000;
        result.commits.latency.record(1_500_000).unwrap();
        result.usage.server = Some(ProcessCounters {
            user_s: 0.5,
            system_s: 0.3,
            write_bytes: 5_000_000,
            ..ProcessCounters::default()
        });
        result
    }

    #[test]
    fn the_servers_share_of_a_core_is_told_to_people_and_programs() {
        let (options, mut result) = (options(Membership::None), result());
        let value = json(&options, &result);
        assert_eq!(value["server"]["cores"], 0.08);
        assert_eq!(value["server"]["cpu_us_per_commit"], 16.0);
        assert_eq!(value["server"]["write_bytes_per_commit"], 100.0);
        assert_eq!(value["commits"]["per_s"], 5000.0);
        assert_eq!(value["heartbeats"], Value::Null);
        assert_eq!(value["parameters"]["membership"], "none");
        let table = table(&options, &result);
        assert!(table.contains("server      0.080 of a core"), "{table}");
        assert!(table.contains("errors      0"), "{table}");
        result.usage.server = None;
        assert_eq!(json(&options, &result)["server"], Value::Null);
    }

    #[test]
    fn errors_and_members_show() {
        let (options, mut result) = (options(Membership::Classic), result());
        result.heartbeats.error("UNKNOWN_MEMBER_ID");
        result.behind_s = 1.0;
        let table = table(&options, &result);
        for words in ["heartbeats", "1 x UNKNOWN_MEMBER_ID", "1.00 s behind"] {
            assert!(table.contains(words), "{table}");
        }
        assert_eq!(json(&options, &result)["errors_total"], 1);
        assert!(!result.is_well(false) && result.is_well(true));
        result.broken = true;
        assert!(result.is_well(false));
    }

    #[test]
    fn a_check_says_whether_it_passed() {
        let mut restored = Restored {
            groups: 2,
            exact: 2,
            ..Restored::default()
        };
        assert!(check_table(&restored).starts_with("check passed: 2 groups"));
        restored.lost = 1;
        restored.examples.push("group g".into());
        assert!(check_table(&restored).contains("FAILED"));
        assert_eq!(check_json(&restored)["passed"], false);
    }
}
