//! What the other brokers' figures say about the claims that speak of them.

mod acks;
mod confirms;
mod throughput;

#[cfg(test)]
mod tests;

use crate::claims::outcome::{ClaimResult, Conclusion, Finding, Table};
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

use super::file::{Entry, FIGURE, Peers};
use acks::{NO_ACKS, NO_POWER, acks};
use confirms::confirms;
use throughput::{documents_figures, kafka_against_rocketmq, persistence};

/// The documents' figures: the system's name here, messages a second.
const DOCUMENTS: [(&str, f64); 4] = [
    ("ActiveMQ Classic", 6_000.0),
    ("RabbitMQ", 12_000.0),
    ("RocketMQ", 100_000.0),
    ("Apache Kafka", 1_000_000.0),
];
/// A cost, or a difference, within this factor is none.
const LITTLE: f64 = 1.25;
const HOW: &str = "run `scripts/peers measure` and give its peers.json with --peers";

/// Puts the figures into C5, C6, C11, C15 and C19; without any, says there what is left out.
pub fn apply(claims: &mut [ClaimResult], peers: Option<&Peers>) {
    for claim in claims {
        let add: fn(&mut Conclusion, &Peers) = match claim.id.as_str() {
            "C5" => kafka_against_rocketmq,
            "C6" => documents_figures,
            "C11" => confirms,
            "C15" => persistence,
            "C19" => acks,
            _ => continue,
        };
        match peers {
            Some(peers) => {
                add(&mut claim.conclusion, peers);
                about(&mut claim.conclusion, peers);
            }
            None if claim.id == "C19" => {
                claim.conclusion.notes.push(format!("{NO_ACKS} {NO_POWER}"))
            }
            None => claim.conclusion.notes.push(format!(
                "Left out: {}, because no file with their figures was given; {HOW}.",
                DOCUMENTS.map(|(system, _)| system).join(", ")
            )),
        }
    }
}

/// Where the figures are from, and what is missing.
fn about(conclusion: &mut Conclusion, peers: &Peers) {
    conclusion.notes.push(format!(
        "The other brokers' figures are from a run of their own on {} (scripts/peers), each driven by its own load tool: \
         messages/s compare tools and shapes too, not brokers alone.",
        peers.host.line()
    ));
    for left in &peers.left_out {
        conclusion.notes.push(format!(
            "Left out: {}: {}. To get it: {}.",
            left.system, left.reason, left.install
        ));
    }
    for (system, _) in DOCUMENTS {
        let known = peers.entries.iter().any(|e| e.system == system)
            || peers.left_out.iter().any(|l| l.system == system);
        if !known {
            conclusion.notes.push(format!(
                "Left out: {system}: the file has no figures of it; {HOW}."
            ));
        }
    }
}

fn compare(question: String, above: &Entry, below: &Entry, expect: Expect) -> Finding {
    let name = |e: &Entry| format!("{}, {}, {}, {}", e.name(), e.durability(), e.shape, e.tool);
    Finding::compare(
        question,
        (&name(above), &above.measurement()),
        (&name(below), &below.measurement()),
        FIGURE,
        expect,
    )
}

/// The entries of a group, of some systems or of all.
fn table(conclusion: &mut Conclusion, peers: &Peers, group: &str, systems: &[&str]) {
    let rows = peers.entries.iter().filter(|e| {
        e.group == group && (systems.is_empty() || systems.contains(&e.system.as_str()))
    });
    let rows = rows.map(|e| {
        let estimate = e.measurement().figures.get(FIGURE.0).copied();
        let rate = estimate.map_or_else(
            || "–".into(),
            |v| {
                format!(
                    "{} [{}–{}]",
                    number(v.median),
                    number(v.low),
                    number(v.high)
                )
            },
        );
        vec![
            e.name(),
            format!("{} B", e.record_bytes),
            e.shape.clone(),
            e.durability().into(),
            rate,
            number(e.median() * e.record_bytes as f64 / 1e6),
            e.tool.clone(),
            e.settings.clone(),
        ]
    });
    conclusion.tables.push(Table {
        title: "Brokers on this host, by scripts/peers".into(),
        head: [
            "system",
            "record",
            "driven",
            "durability",
            "messages/s",
            "MB/s",
            "tool",
            "settings",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    });
}
