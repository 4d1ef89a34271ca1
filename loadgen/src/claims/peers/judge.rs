//! What the other brokers' figures say about the claims that speak of them.

use crate::claims::outcome::{ClaimResult, Conclusion, Finding, Table};
use crate::claims::report_number as number;
use crate::claims::verdict::{self, Expect, Verdict};

use super::file::{Entry, FIGURE, Peers};

/// The documents' figures: the system's name here, messages a second.
const DOCUMENTS: [(&str, f64); 4] = [
    ("ActiveMQ Classic", 6_000.0),
    ("RabbitMQ", 12_000.0),
    ("RocketMQ", 100_000.0),
    ("Apache Kafka", 1_000_000.0),
];
/// 170,000/s of Kafka over 100,000/s of RocketMQ.
const KAFKA_OVER_ROCKETMQ: f64 = 1.7;
/// Ten times, by the documents.
const CONFIRMS_OVER_TRANSACTIONS: f64 = 10.0;
/// "Dearly" has no number in the documents: half of the messages.
const DEARLY: f64 = 2.0;
/// A cost, or a difference, within this factor is none.
const LITTLE: f64 = 1.25;
/// Small records, and those that persistence is measured with.
const SMALL_BYTES: u64 = 100;
const USUAL_BYTES: u64 = 1024;
const HOW: &str = "run `scripts/peers measure` and give its peers.json with --peers";

const NO_ACKS: &str = "Left out: Apache Kafka by acks and flush policy: no file with its figures was given; run `scripts/peers measure \
                       --acks` and give its peers.json with --peers.";
const NO_POWER: &str = "A loss of power is not measured for Kafka: it keeps no record of its writes to rebuild a disk from, and a kill -9 \
                        leaves the page cache, which is where its acks end by default.";

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

fn kafka_against_rocketmq(conclusion: &mut Conclusion, peers: &Peers) {
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

fn documents_figures(conclusion: &mut Conclusion, peers: &Peers) {
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

fn persistence(conclusion: &mut Conclusion, peers: &Peers) {
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

fn confirms(conclusion: &mut Conclusion, peers: &Peers) {
    // The client that has all five ways; PerfTest has four.
    let way = |tool: &str, shape: &str| {
        let mut all = peers.entries.iter().filter(|e| e.group == "confirms");
        all.find(|e| e.shape == shape && e.tool.starts_with(tool))
    };
    let mut counted = Vec::new();
    let mut beside = Vec::new();
    for tool in ["Confirms.java", "PerfTest"] {
        let pair = |above, below| Some((way(tool, above)?, way(tool, below)?));
        let (asynchronous, single, batch) = (
            "confirms, asynchronous",
            "confirms, one at a time",
            "confirms, by batches",
        );
        let (each, many) = ("transaction per message", "transaction per batch");
        let questions = [
            (
                asynchronous,
                each,
                "are asynchronous confirms ten times as fast as a transaction per message?",
                Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
                true,
            ),
            (
                batch,
                asynchronous,
                "are batched and asynchronous confirms level?",
                Expect::Level(LITTLE),
                true,
            ),
            (
                asynchronous,
                single,
                "are single confirms slower than asynchronous ones?",
                Expect::More,
                true,
            ),
            (
                single,
                each,
                "like for like: a confirm for each message against a transaction for each",
                Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
                false,
            ),
            (
                batch,
                many,
                "like for like: a batch of confirms against a batch in a transaction",
                Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
                false,
            ),
        ];
        for (above, below, question, expect, counts) in questions {
            let Some((above, below)) = pair(above, below) else {
                continue;
            };
            let finding = compare(format!("RabbitMQ: {question}"), above, below, expect);
            if counts {
                counted.push(finding)
            } else {
                beside.push(finding)
            }
        }
    }
    if counted.is_empty() {
        conclusion.notes.push(
            "The file has no confirms and transactions of RabbitMQ: scripts/peers measure --confirms --add adds them.".into(),
        );
        return;
    }
    if conclusion.verdict == Verdict::NotYetMeasured {
        let times = |finding: Option<&Finding>| {
            finding
                .and_then(|f| f.ratio)
                .map_or_else(|| "–".into(), |ratio| number(ratio.median))
        };
        conclusion.verdict = verdict::all(counted.iter().map(|finding| finding.verdict));
        conclusion.why = format!(
            "of RabbitMQ, one publisher: asynchronous confirms are {} times as fast as a transaction per message, but single \
             confirms {} times: the gain is pipelining; transactions of this server were not measured in this run",
            times(counted.first()),
            times(beside.first())
        );
    }
    conclusion.notes.push(
        "RabbitMQ's figures stand beside; the verdict is this server's where its transactions were measured.".into(),
    );
    conclusion.findings.extend(counted);
    conclusion.findings.extend(beside);
    table(conclusion, peers, "confirms", &[]);
}

/// C19 beside Kafka: acks=1 with its default flush policy, and with a flush before each ack.
fn acks(conclusion: &mut Conclusion, peers: &Peers) {
    let find = |system: &str, shape: &str, durable: bool| {
        let mut all = peers.entries.iter().filter(|e| e.group == "acks");
        all.find(|e| e.system == system && e.shape == shape && e.durable == durable)
    };
    let (kafka, here) = ("Apache Kafka", "ringlog");
    let (Some(default), Some(flushed)) =
        (find(kafka, "acks=1", false), find(kafka, "acks=1", true))
    else {
        conclusion.notes.push(format!("{NO_ACKS} {NO_POWER}"));
        return;
    };
    conclusion.findings.push(compare(
        "Kafka: is acks=1 by default as slow as with a flush before each ack, as it would be if it meant one?".into(),
        default,
        flushed,
        Expect::Level(LITTLE),
    ));
    if let Some(durable) = find(here, "acks=1", true) {
        conclusion.findings.push(compare(
            "acks=1 with a flush before each: is this server faster than Kafka?".into(),
            durable,
            flushed,
            Expect::More,
        ));
    }
    table(conclusion, peers, "acks", &[]);
    let killed = peers.entries.iter().filter(|e| e.group == "kill");
    let rows: Vec<Vec<String>> = killed
        .filter_map(|e| {
            let lost = e.lost_per_million()?;
            Some(vec![
                e.name(),
                e.shape.clone(),
                e.durability().into(),
                number(lost),
                e.settings.clone(),
            ])
        })
        .collect();
    if !rows.is_empty() {
        conclusion.tables.push(Table {
            title: "Killed under load and started again: acknowledged records that were gone"
                .into(),
            head: [
                "system",
                "how",
                "durability",
                "lost of a million, at most",
                "settings",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        });
    }
    conclusion.notes.push(NO_POWER.into());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let host = json!({ "cores": 2, "cpu": "c", "memory_gib": 1.0, "kernel": "6", "file_system": "ext4" });
        let left_out = json!([{ "system": "ActiveMQ Classic", "reason": "r", "install": "i" }]);
        serde_json::from_value(
            json!({ "schema": 1, "host": host, "left_out": left_out, "entries": entries }),
        )
        .unwrap()
    }

    fn claim(id: &str, peers: Option<&Peers>) -> Conclusion {
        let mut claims = [ClaimResult {
            id: id.into(),
            sentence: String::new(),
            conclusion: Conclusion::without(Verdict::NotYetMeasured, "nothing"),
            thinning: None,
            cut_short: None,
            measurements: Vec::new(),
        }];
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
}
