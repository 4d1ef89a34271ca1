//! C5, C6 and C15 beside other brokers: messages a second, durable and not.

use crate::claims::outcome::{Conclusion, Finding};
use crate::claims::report_number as number;
use crate::claims::verdict::{self, Expect};

use super::super::file::{Entry, FIGURE, Peers};
use super::{DOCUMENTS, LITTLE, compare, table};

/// 170,000/s of Kafka over 100,000/s of RocketMQ.
const KAFKA_OVER_ROCKETMQ: f64 = 1.7;
/// "Dearly" has no number in the documents: half of the messages.
const DEARLY: f64 = 2.0;
const SMALL_BYTES: u64 = 100;
const USUAL_BYTES: u64 = 1024;

fn throughput(peers: &Peers) -> impl Iterator<Item = &Entry> {
    peers.entries.iter().filter(|e| e.group == "throughput")
}

/// The fastest way to drive a system, with records of one size or of any.
fn best<'a>(
    peers: &'a Peers,
    system: &str,
    bytes: Option<u64>,
    durable: Option<bool>,
) -> Option<&'a Entry> {
    throughput(peers)
        .filter(|e| e.system == system && bytes.is_none_or(|bytes| e.record_bytes == bytes))
        .filter(|e| durable.is_none_or(|durable| e.durable == durable))
        .max_by(|a, b| a.median().total_cmp(&b.median()))
}

/// C5 beside: taking records, which the read path does not explain.
pub(super) fn kafka_against_rocketmq(conclusion: &mut Conclusion, peers: &Peers) {
    for bytes in [SMALL_BYTES, USUAL_BYTES] {
        for durable in [false, true] {
            let found = |system| best(peers, system, Some(bytes), Some(durable));
            if let (Some(kafka), Some(rocket)) = (found("Apache Kafka"), found("RocketMQ")) {
                conclusion.findings.push(compare(
                    format!("is Kafka faster than RocketMQ at taking records of {bytes} B? {}, each at its best here", kafka.durability()),
                    kafka,
                    rocket,
                    Expect::AtLeast(KAFKA_OVER_ROCKETMQ),
                ));
            }
        }
    }
    conclusion.notes.push(
        "Producers of the two brokers differ in more than the read path: Kafka's collects batches, RocketMQ's benchmark sends one \
         message at a time. The verdict rests on the read path alone."
            .into(),
    );
    table(
        conclusion,
        peers,
        "throughput",
        &["Apache Kafka", "RocketMQ", "ringlog"],
    );
}

/// C6: each system against the documents' figure of it.
pub(super) fn documents_figures(conclusion: &mut Conclusion, peers: &Peers) {
    let mut findings = Vec::new();
    for (system, claimed) in DOCUMENTS {
        let Some(entry) = best(peers, system, None, None) else {
            continue;
        };
        findings.push(Finding::against(
            format!(
                "does {system} take the documents' {}/s? at its best here, with records of {} B",
                number(claimed),
                entry.record_bytes
            ),
            (
                &format!(
                    "{}, {}, {}, {}",
                    entry.name(),
                    entry.durability(),
                    entry.shape,
                    entry.tool
                ),
                &entry.measurement(),
            ),
            FIGURE,
            claimed,
            Expect::AtLeast(1.0),
        ));
    }
    if findings.len() == DOCUMENTS.len() {
        conclusion.verdict = verdict::all(findings.iter().map(|finding| finding.verdict));
        let said: Vec<String> = findings.iter().map(said).collect();
        conclusion.why = format!(
            "messages/s of each system at its best on this host, one half of the cores for the broker: {}; the documents name \
             no hardware, size or durability",
            said.join(", ")
        );
    }
    findings.append(&mut conclusion.findings);
    conclusion.findings = findings;
    table(conclusion, peers, "throughput", &[]);
}

/// What a finding's better side reached, in a few words.
fn said(finding: &Finding) -> String {
    let system = DOCUMENTS
        .iter()
        .find(|(system, _)| finding.above.name.starts_with(system));
    let value = finding
        .above
        .value
        .map_or_else(|| "–".into(), |value| number(value.median));
    format!("{} {value}", system.map_or("", |(system, _)| system))
}

/// C15: what a flush before each ack costs each system.
pub(super) fn persistence(conclusion: &mut Conclusion, peers: &Peers) {
    let mut counted = Vec::new();
    let mut words = Vec::new();
    let mut systems = 0;
    for (system, _) in DOCUMENTS {
        let (cost, expect) = match system {
            "RabbitMQ" | "ActiveMQ Classic" => ("dearly", Expect::AtLeast(DEARLY)),
            _ => ("little", Expect::Level(LITTLE)),
        };
        let pairs = pairs(peers, system);
        systems += usize::from(!pairs.is_empty());
        for (without, with) in pairs {
            let question = format!(
                "does an fsync before each ack cost {system} {cost}? {USUAL_BYTES} B, {}",
                with.shape
            );
            let finding = compare(question, without, with, expect);
            if let Some(ratio) = finding.ratio {
                // Two ways of one system, say classic and quorum queues, are told apart by the first words of the shape.
                let way = with.shape.split(',').next().unwrap_or_default();
                words.push(format!("{system} ({way}) {} times", number(ratio.median)));
            }
            counted.push(finding);
        }
    }
    if systems == DOCUMENTS.len() {
        conclusion.verdict = verdict::all(counted.iter().map(|finding| finding.verdict));
        conclusion.why = format!(
            "without the flush they take, way by way: {}; {}",
            words.join(", "),
            conclusion.why
        );
    }
    counted.append(&mut conclusion.findings);
    conclusion.findings = counted;
    table(conclusion, peers, "throughput", &[]);
}

/// Entries of a system that are not durable, each with those durable ones that are driven alike: by the same tool in the same
/// shape, or, where durability changes both, by the same program.
fn pairs<'a>(peers: &'a Peers, system: &str) -> Vec<(&'a Entry, &'a Entry)> {
    let of = |durable: bool| {
        throughput(peers).filter(move |e| e.durable == durable && e.record_bytes == USUAL_BYTES)
    };
    let program = |e: &Entry| e.tool.split(' ').next().map(str::to_owned);
    let mut found = Vec::new();
    for without in of(false).filter(|e| e.system == system) {
        let durable: Vec<&Entry> = of(true).filter(|e| e.system == system).collect();
        let alike: Vec<&Entry> = durable
            .iter()
            .copied()
            .filter(|e| e.shape == without.shape && program(e) == program(without))
            .collect();
        let chosen = match alike.is_empty() {
            true => durable
                .into_iter()
                .filter(|e| program(e) == program(without))
                .collect(),
            false => alike,
        };
        found.extend(chosen.into_iter().map(|with| (without, with)));
    }
    found
}
