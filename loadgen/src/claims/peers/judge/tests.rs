//! Each judge with outcomes that hold, that do not, and that are noisy.

use serde_json::json;

use super::*;
use crate::claims::verdict::Verdict;

fn entry(
    group: &str,
    system: &str,
    tool: &str,
    shape: &str,
    durable: bool,
    bytes: u64,
    rates: [f64; 3],
) -> serde_json::Value {
    let repetitions = rates.map(|rate| json!({ "messages_per_s": rate }));
    json!({ "group": group, "system": system, "version": "1", "tool": tool, "shape": shape, "settings": "s", "durable": durable,
            "record_bytes": bytes, "repetitions": repetitions })
}

fn peers(entries: Vec<serde_json::Value>) -> Peers {
    let host =
        json!({ "cores": 2, "cpu": "c", "memory_gib": 1.0, "kernel": "6", "file_system": "ext4" });
    let left_out = json!([{ "system": "ActiveMQ Classic", "reason": "r", "install": "i" }]);
    serde_json::from_value(
        json!({ "schema": 1, "host": host, "left_out": left_out, "entries": entries }),
    )
    .unwrap()
}

fn claim(id: &str, peers: Option<&Peers>) -> Conclusion {
    let nothing = Conclusion::without(Verdict::NotYetMeasured, "nothing");
    let mut claims = [ClaimResult::new(id, "", nothing)];
    apply(&mut claims, peers);
    let [claim] = claims;
    claim.conclusion
}

#[test]
fn without_a_file_the_report_names_what_is_left_out_and_how_to_get_it() {
    for id in ["C5", "C6", "C11", "C15"] {
        let conclusion = claim(id, None);
        assert_eq!(conclusion.verdict, Verdict::NotYetMeasured);
        let note = conclusion.notes.join("\n");
        assert!(
            note.contains("RabbitMQ") && note.contains("scripts/peers measure"),
            "{note}"
        );
    }
    assert!(claim("C1", None).notes.is_empty());
}

fn four(scale: f64) -> Peers {
    let one = |(system, rate): (&str, f64)| {
        entry(
            "throughput",
            system,
            "t",
            "s",
            false,
            100,
            [rate * scale * 0.98, rate * scale, rate * scale * 1.02],
        )
    };
    peers(DOCUMENTS.into_iter().map(one).collect())
}

#[test]
fn the_documents_figures_are_judged_by_the_systems_own() {
    assert_eq!(claim("C6", Some(&four(2.0))).verdict, Verdict::Holds);
    assert_eq!(claim("C6", Some(&four(0.5))).verdict, Verdict::DoesNotHold);
    assert_eq!(
        claim("C6", Some(&four(1.0))).verdict,
        Verdict::Undecided,
        "a noisy one"
    );
    let mut three = four(2.0);
    three.entries.remove(0);
    let conclusion = claim("C6", Some(&three));
    assert_eq!(
        conclusion.verdict,
        Verdict::NotYetMeasured,
        "one is missing"
    );
    assert!(
        conclusion
            .notes
            .iter()
            .any(|note| note.contains("ActiveMQ Classic: r. To get it: i"))
    );
}

fn costs(rabbit: f64, kafka: f64) -> Verdict {
    noisy_costs([rabbit; 3], kafka)
}

fn noisy_costs(rabbit: [f64; 3], kafka: f64) -> Verdict {
    let both = |system, cost: [f64; 3]| {
        [
            entry(
                "throughput",
                system,
                "tool -a",
                "s",
                false,
                1024,
                cost.map(|cost| 100.0 * cost),
            ),
            entry("throughput", system, "tool -b", "s", true, 1024, [100.0; 3]),
        ]
    };
    let all = [
        both("RabbitMQ", rabbit),
        both("ActiveMQ Classic", [5.0; 3]),
        both("Apache Kafka", [kafka; 3]),
        both("RocketMQ", [1.1; 3]),
    ];
    claim("C15", Some(&peers(all.concat()))).verdict
}

#[test]
fn persistence_must_be_dear_to_two_and_cheap_to_two() {
    assert_eq!(costs(3.0, 1.1), Verdict::Holds);
    assert_eq!(costs(3.0, 2.0), Verdict::DoesNotHold);
    assert_eq!(costs(1.05, 1.1), Verdict::DoesNotHold);
    assert_eq!(costs(1.5, 1.1), Verdict::DirectionOnly);
    assert_eq!(noisy_costs([1.5, 3.0, 2.5], 1.1), Verdict::Undecided);
}

fn ways(asynchronous: [f64; 3], batch: f64) -> Verdict {
    let one = |shape, rates| {
        entry(
            "confirms",
            "RabbitMQ",
            "Confirms.java x",
            shape,
            true,
            1024,
            rates,
        )
    };
    let all = vec![
        one("confirms, one at a time", [100.0; 3]),
        one("confirms, asynchronous", asynchronous),
        one("confirms, by batches", [batch; 3]),
        one("transaction per message", [100.0; 3]),
    ];
    claim("C11", Some(&peers(all))).verdict
}

#[test]
fn confirms_are_judged_against_transactions() {
    assert_eq!(ways([1200.0; 3], 1200.0), Verdict::Holds);
    assert_eq!(ways([900.0; 3], 900.0), Verdict::DirectionOnly);
    assert_eq!(ways([800.0, 1000.0, 1200.0], 1000.0), Verdict::Undecided);
    assert_eq!(ways([1200.0; 3], 400.0), Verdict::DoesNotHold);
    assert_eq!(
        claim("C11", Some(&peers(Vec::new()))).verdict,
        Verdict::NotYetMeasured
    );
}

#[test]
fn kafkas_default_is_set_against_a_flush_before_each_ack() {
    let verdict = |default: [f64; 3]| {
        let one = |group, system, shape, durable, rates| {
            entry(group, system, "ringlog-load", shape, durable, 1024, rates)
        };
        let mut kill = one("kill", "Apache Kafka", "acks=1, kill -9", false, [10.0; 3]);
        kill["repetitions"][1]["lost_per_million"] = json!(3.5);
        let all = vec![
            one("acks", "Apache Kafka", "acks=1", false, default),
            one("acks", "Apache Kafka", "acks=1", true, [100.0; 3]),
            one("acks", "ringlog", "acks=1", true, [300.0; 3]),
            kill,
        ];
        let conclusion = claim("C19", Some(&peers(all)));
        assert_eq!(conclusion.findings[1].verdict, Verdict::Holds);
        let gone = conclusion
            .tables
            .iter()
            .find(|t| t.title.contains("Killed"));
        assert_eq!(gone.unwrap().rows[0][3], "3.50");
        assert!(
            conclusion
                .notes
                .iter()
                .any(|note| note.contains("loss of power is not measured"))
        );
        conclusion.findings[0].verdict
    };
    assert_eq!(verdict([800.0, 810.0, 820.0]), Verdict::DoesNotHold);
    assert_eq!(verdict([100.0, 105.0, 110.0]), Verdict::Holds);
    assert_eq!(verdict([100.0, 800.0, 110.0]), Verdict::Undecided);
    let without = claim("C19", Some(&peers(Vec::new())));
    assert!(
        without.findings.is_empty() && without.notes.iter().any(|note| note.contains("--acks"))
    );
}

#[test]
fn kafka_and_rocketmq_compare_at_their_best() {
    let all = vec![
        entry(
            "throughput",
            "Apache Kafka",
            "a",
            "s",
            false,
            1024,
            [100.0; 3],
        ),
        entry(
            "throughput",
            "Apache Kafka",
            "b",
            "s",
            false,
            1024,
            [300.0; 3],
        ),
        entry("throughput", "RocketMQ", "c", "s", false, 1024, [100.0; 3]),
    ];
    let conclusion = claim("C5", Some(&peers(all)));
    assert_eq!(conclusion.findings.len(), 1);
    assert_eq!(conclusion.findings[0].ratio.unwrap().median, 3.0);
    assert_eq!(
        conclusion.verdict,
        Verdict::NotYetMeasured,
        "the read path decides"
    );
}
