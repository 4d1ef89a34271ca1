//! C6: messages a second of one broker.

use super::whole::{Whole, WholeClaim, missing, of};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

/// The documents' figures, messages a second.
const DOCUMENTS: [(&str, f64); 4] = [
    ("ActiveMQ", 6_000.0),
    ("RabbitMQ", 12_000.0),
    ("RocketMQ", 100_000.0),
    ("Kafka", 1_000_000.0),
];
const SIZES: [u64; 2] = [100, 1024];
/// Server arguments and the name of the durability.
const DURABILITIES: [(&str, &str); 2] = [
    ("--durability fsync", "fsync before each ack"),
    ("--durability write", "no fsync before an ack"),
];
const BATCHED: &str = "in batches of 64 KiB";
const SINGLE: &str = "one at a time on 64 connections";

fn side(how: &str, durability: &str) -> String {
    format!("{how}, {durability}")
}

pub(super) const C6: WholeClaim = WholeClaim {
    id: "C6",
    sentence: "one broker takes: ActiveMQ 6,000/s, RabbitMQ 12,000/s, RocketMQ 100,000/s, Kafka 1,000,000/s",
    points,
    space_gib: [1, 8, 24],
    setup_s: [1.0, 2.0, 4.0],
    budget_s: [2.0, 13.0, 265.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    for size in SIZES {
        for (how, flags) in [
            (BATCHED, "--batch-bytes 65536 --connections 4 --in-flight 5"),
            (SINGLE, "--batch-records 1 --connections 64"),
        ] {
            for (server, durability) in DURABILITIES {
                let load = format!(
                    "produce -t {{topic}} -p 16 --delete-topics -s {size} {flags} {{time}}"
                );
                let rank = match (size, how, server) {
                    (100, BATCHED, _) => 0,
                    (1024, BATCHED, _) => 1,
                    _ => 2,
                };
                points.push(
                    Whole::new(&side(how, durability), size, server, load).point(rank, scale),
                );
            }
        }
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let rate = ("records_per_s", "records/s");
    let mut findings = Vec::new();
    for (_, durability) in DURABILITIES {
        if let Some(measured) = of(measurements, &side(BATCHED, durability), 100) {
            findings.push(Finding::against(
                format!("does this server take the million of the documents' Kafka? 100 B records {BATCHED}, {durability}"),
                ("this server", measured),
                rate,
                DOCUMENTS[3].1,
                Expect::AtLeast(1.0),
            ));
        }
    }
    let Some(first) = findings.first() else {
        return Conclusion::without(
            crate::claims::verdict::Verdict::Undecided,
            "the points for a verdict are missing",
        );
    };
    Conclusion {
        verdict: first.verdict,
        why: "of this server, one shard on one half of the cores with the load on the other; the documents name no hardware, \
              batch or durability"
            .into(),
        plots: vec![bars(measurements)],
        tables: vec![table(measurements)],
        notes: missing(measurements),
        findings,
    }
}

fn sides() -> Vec<String> {
    let all = [BATCHED, SINGLE]
        .into_iter()
        .flat_map(|how| DURABILITIES.map(|(_, durability)| side(how, durability)));
    all.collect()
}

fn bars(measurements: &[Measurement]) -> Plot {
    let series = sides().into_iter().map(|side| {
        let marks = SIZES.iter().enumerate().filter_map(|(index, size)| {
            let y = *of(measurements, &side, *size)?
                .figures
                .get("records_per_s")?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            marks: marks.collect(),
            name: side,
        }
    });
    Plot::Bars {
        title: "Records a second of this server".into(),
        labels: vec!["100 B records".into(), "1 KiB records".into()],
        y: Axis::log("records/s"),
        series: series.filter(|series| !series.marks.is_empty()).collect(),
    }
}

fn table(measurements: &[Measurement]) -> Table {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for size in SIZES {
        for side in sides() {
            if let Some(measured) = of(measurements, &side, size) {
                let figure = |name: &str| {
                    measured
                        .figures
                        .get(name)
                        .map_or_else(|| "–".into(), |e| number(e.median))
                };
                rows.push(vec![
                    format!("this server, {size} B, {side}"),
                    figure("records_per_s"),
                    figure("mb_per_s"),
                    figure("p99_us"),
                    figure("server_cpu_s_per_million_records"),
                ]);
            }
        }
    }
    for (name, claimed) in DOCUMENTS {
        let blank = || "–".to_owned();
        rows.push(vec![
            format!("{name}, by the documents"),
            number(claimed),
            blank(),
            blank(),
            blank(),
        ]);
    }
    Table {
        title: "This server beside the documents' figures".into(),
        head: [
            "",
            "records/s",
            "MB/s",
            "p99 of an ack, µs",
            "server CPU s per million records",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |values: [f64; 3]| {
            let point = Whole::new(&side(BATCHED, DURABILITIES[0].1), 100, "", "");
            judge(&[measurement(&point, "records_per_s", &values)]).verdict
        };
        assert_eq!(verdict([2e6, 2.1e6, 2.2e6]), Verdict::Holds);
        assert_eq!(verdict([5e5, 5e5, 5e5]), Verdict::DoesNotHold);
        assert_eq!(verdict([5e5, 2e6, 1e6]), Verdict::Undecided);
    }
}
