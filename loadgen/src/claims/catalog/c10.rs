//! C10: batches and codecs on real log lines.

use super::whole::{
    BATCHING_CPU, CLIENT_CPU, Whole, WholeClaim, compare, conclude, of, series, time, times,
};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Mark, Plot, Series, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::verdict::Expect;

const CODECS: [&str; 5] = ["none", "lz4", "zstd", "snappy", "gzip"];
const BATCHES: [u64; 5] = [1, 10, 100, 1000, 5000];
/// The batch size at which codecs are compared, and the large one against single records.
const LARGE: u64 = 1000;
/// Processor seconds for a million lines, on each side.
const SERVER_CPU: &str = "server_cpu_s_per_million_records";
const SENDING_CPU: &str = "client_cpu_s_per_million_records";

pub(super) const C10: WholeClaim = WholeClaim {
    id: "C10",
    sentence: "batching and compression are what makes it fast",
    points,
    space_gib: [1, 8, 24],
    setup_s: [1.0, 1.0, 2.0],
    budget_s: [2.0, 16.5, 380.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let mut points = Vec::new();
    // Half of the others' window in a full run: there the whole grid has to fit.
    let usual = time(scale);
    let usual_s = usual.0 + usual.1;
    let (warmup_s, window_s) = scale.pick(usual, usual, (0.7, 2.0));
    for batch in BATCHES {
        for codec in CODECS {
            let load = format!(
                "produce -t {{topic}} -p 4 --delete-topics {{logs}} --batch-records {batch} --compression {codec} \
                 --connections 8 --in-flight 4 --warmup {warmup_s} --duration {window_s}"
            );
            let rank = match (batch, codec) {
                (LARGE, "none" | "lz4" | "zstd") | (1, "none") => 0,
                (LARGE, _) => 1,
                (_, "none" | "zstd") => 2,
                _ => 3,
            };
            let mut point = Whole::new(codec, batch, "", load).point(rank, scale);
            point.seconds += warmup_s + window_s - usual_s;
            points.push(point);
        }
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let rate = ("records_per_s", "records/s");
    let mut findings = Vec::new();
    let batching = compare(
        measurements,
        "does batching make it faster?",
        ("none", LARGE, "1,000 log lines a batch"),
        ("none", 1, "one log line a batch"),
        rate,
        Expect::More,
    );
    findings.extend(batching);
    for codec in ["lz4", "zstd"] {
        findings.extend(compare(
            measurements,
            &format!("does {codec} make it faster, 1,000 lines a batch?"),
            (codec, LARGE, codec),
            ("none", LARGE, "uncompressed"),
            rate,
            Expect::More,
        ));
    }
    let why = format!(
        "a thousand lines a batch give {} times the records of one; lz4 then gives {} times, zstd {} times",
        times(findings.first()),
        times(findings.get(1)),
        times(findings.get(2))
    );
    let mut conclusion = conclude(findings, why, measurements);
    conclusion.findings.extend(costs(measurements));
    conclusion.notes.push(
        "Batches are made and compressed once before the load begins, and sent again and again: the rates are those of clients \
         whose processors have time to compress. What it takes to make them is measured there and told with what sending takes; the \
         server keeps batches as they come."
            .into(),
    );
    for (figure, unit, title) in [
        ("records_per_s", "records/s", "Log lines a second"),
        (
            "bytes_per_record",
            "bytes",
            "Bytes of a log line on wire and disk",
        ),
        (
            SERVER_CPU,
            "CPU s",
            "Processor time of the server for a million lines",
        ),
    ] {
        conclusion.plots.push(Plot::Lines {
            title: title.into(),
            x: Axis::log("lines a batch"),
            y: Axis::log(unit),
            series: series(measurements, &CODECS, figure),
        });
    }
    conclusion.plots.push(processors(measurements));
    conclusion.tables.push(table(measurements));
    conclusion
}

/// What compression costs the client, whose processor the documents do not speak of.
fn costs(measurements: &[Measurement]) -> Vec<Finding> {
    let costs = ["lz4", "zstd"].into_iter().filter_map(|codec| {
        compare(
            measurements,
            &format!("does {codec} cost the client, batches made and sent, 1,000 lines each? (not part of the claim)"),
            (codec, LARGE, codec),
            ("none", LARGE, "uncompressed"),
            (CLIENT_CPU, "CPU s per million"),
            Expect::More,
        )
    });
    costs.collect()
}

/// Processor time of both sides by codec.
fn processors(measurements: &[Measurement]) -> Plot {
    let series = [
        (SERVER_CPU, "server"),
        (SENDING_CPU, "client, sending"),
        (BATCHING_CPU, "client, making and compressing batches"),
    ]
    .map(|(figure, name)| {
        let marks = CODECS.iter().enumerate().filter_map(|(index, codec)| {
            let y = *of(measurements, codec, LARGE)?.figures.get(figure)?;
            Some(Mark { x: index as f64, y })
        });
        Series {
            name: name.into(),
            marks: marks.collect(),
        }
    });
    Plot::Bars {
        title: "Processor time for a million lines, 1,000 a batch".into(),
        labels: CODECS.map(String::from).to_vec(),
        y: Axis::linear("CPU s"),
        series: series.to_vec(),
    }
}

fn table(measurements: &[Measurement]) -> Table {
    let rows = CODECS.iter().filter_map(|codec| {
        let figures = &of(measurements, codec, LARGE)?.figures;
        let figure = |name: &str| {
            figures
                .get(name)
                .map_or_else(|| "–".into(), |e| number(e.median))
        };
        let names = [
            "records_per_s",
            "bytes_per_record",
            "compression_ratio",
            SERVER_CPU,
            SENDING_CPU,
            BATCHING_CPU,
            CLIENT_CPU,
        ];
        Some([vec![(*codec).to_owned()], names.map(figure).to_vec()].concat())
    });
    Table {
        title: "1,000 log lines a batch".into(),
        head: [
            "codec",
            "records/s",
            "bytes a line",
            "ratio",
            "server CPU s per million",
            "client: sending",
            "client: making and compressing batches",
            "client in all",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::{measurement, measurement_of};
    use crate::claims::verdict::Verdict;

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |single: f64, codec: [f64; 3]| {
            let all = [
                measurement(
                    &Whole::new("none", LARGE, "", ""),
                    "records_per_s",
                    &[100.0; 3],
                ),
                measurement(
                    &Whole::new("none", 1, "", ""),
                    "records_per_s",
                    &[single; 3],
                ),
                measurement(&Whole::new("lz4", LARGE, "", ""), "records_per_s", &codec),
            ];
            judge(&all).verdict
        };
        assert_eq!(verdict(1.0, [150.0, 150.0, 160.0]), Verdict::Holds);
        assert_eq!(verdict(1.0, [90.0, 95.0, 90.0]), Verdict::DoesNotHold);
        assert_eq!(verdict(1.0, [90.0, 195.0, 120.0]), Verdict::Undecided);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }

    #[test]
    fn both_processors_are_told_for_every_codec_and_do_not_decide() {
        let row = |codec: &str, rate: f64, making: f64| {
            measurement_of(
                &Whole::new(codec, LARGE, "", ""),
                &[
                    ("records_per_s", &[rate; 3]),
                    (SERVER_CPU, &[0.5; 3]),
                    (SENDING_CPU, &[0.4; 3]),
                    (BATCHING_CPU, &[making; 3]),
                    (CLIENT_CPU, &[0.4 + making; 3]),
                ],
            )
        };
        let all = [
            row("none", 100.0, 0.1),
            row("lz4", 200.0, 0.1),
            row("zstd", 300.0, 2.0),
        ];
        let conclusion = judge(&all);
        assert_eq!(conclusion.verdict, Verdict::Holds);
        let told: Vec<Verdict> = conclusion
            .findings
            .iter()
            .filter(|f| f.question.contains("cost the client"))
            .map(|f| f.verdict)
            .collect();
        assert_eq!(told, [Verdict::DoesNotHold, Verdict::Holds]);
        let rows = &conclusion.tables[0].rows;
        assert_eq!(rows.len(), 3);
        assert!(rows[0][0] == "none" && rows[0][4..] == ["0.50", "0.40", "0.10", "0.50"]);
    }
}
