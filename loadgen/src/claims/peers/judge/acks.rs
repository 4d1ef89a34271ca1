//! C19 beside Apache Kafka: acks by flush policy, and what a kill takes.

use crate::claims::outcome::{Conclusion, Table};
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

use super::super::file::Peers;
use super::{LITTLE, compare, table};

pub(super) const NO_ACKS: &str = "Left out: Apache Kafka by acks and flush policy: no file with its figures was given; run `scripts/peers measure \
                       --acks` and give its peers.json with --peers.";
pub(super) const NO_POWER: &str = "A loss of power is not measured for Kafka: it keeps no record of its writes to rebuild a disk from, and a kill -9 \
                        leaves the page cache, which is where its acks end by default.";

/// C19 beside Kafka: acks=1 with its default flush policy, and with a flush before each ack.
pub(super) fn acks(conclusion: &mut Conclusion, peers: &Peers) {
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
