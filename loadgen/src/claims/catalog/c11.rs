//! C11: acks (the protocol's confirms) against transactions, one publisher.

use super::whole::{Whole, WholeClaim, compare, conclude, of, series, times};
use crate::claims::claim::Scale;
use crate::claims::outcome::{Axis, Conclusion, Finding, Plot, Table};
use crate::claims::plan::Point;
use crate::claims::record::Measurement;
use crate::claims::report_number as number;
use crate::claims::stats::Estimate;
use crate::claims::verdict::{self, Expect};

/// One record a request, many of them under way.
const ASYNCHRONOUS: &str = "acks, asynchronous";
/// One record a request, one under way.
const SINGLE: &str = "acks, one at a time";
/// Many records under one ack, one request under way.
const BATCH: &str = "acks, by batches";
/// The batches of a transaction without the transaction.
const WINDOWED: &str = "acks, a window of five batches";
const TRANSACTION: &str = "transactions";
/// Records under way of the asynchronous side, and records of a batch.
const MANY: u64 = 100;
/// Records of a transaction.
const SIZES: [u64; 4] = [1, 10, 100, 1000];
/// Ten times, by the documents.
const CLAIMED: f64 = 10.0;
/// A difference within this factor is none.
const LEVEL: f64 = 1.25;
const FIGURE: (&str, &str) = ("records_per_s", "records/s");

pub(super) const C11: WholeClaim = WholeClaim {
    id: "C11",
    sentence: "confirms are ten times faster than transactions; batched and asynchronous confirms are level, single ones slower",
    points,
    space_gib: [1, 4, 16],
    setup_s: [0.5, 1.0, 2.0],
    budget_s: [2.0, 26.0, 230.0],
    judge,
};

fn points(scale: Scale) -> Vec<Point> {
    let (warmup_s, window_s) = scale.pick((0.1, 0.1), (0.3, 0.8), (1.0, 3.0));
    let point = |side: &str, x: u64, rank: u32, flags: &str| {
        let load = format!(
            "produce -t {{topic}} -p 1 --delete-topics -s 1024 {flags} --warmup {warmup_s} --duration {window_s}"
        );
        let mut point = Whole::new(side, x, "", load).point(rank, scale);
        point.seconds = warmup_s + window_s + 0.1;
        point
    };
    let mut points = vec![
        point(
            ASYNCHRONOUS,
            1,
            0,
            &format!("--batch-records 1 --in-flight {MANY}"),
        ),
        point(
            TRANSACTION,
            1,
            0,
            "--batch-records 1 --in-flight 5 --transactional --transaction-records 1",
        ),
        point(SINGLE, 1, 0, "--batch-records 1"),
        point(BATCH, MANY, 0, &format!("--batch-records {MANY}")),
    ];
    for size in SIZES {
        let batches = format!("--batch-records {} --in-flight 5", size.min(MANY));
        // The verdict is about the others, which a quick run repeats more often instead.
        let rank = scale.pick(0, 1, 0) + u32::from(size == 1);
        points.push(point(
            WINDOWED,
            size,
            rank,
            &format!("{batches} --idempotent"),
        ));
        if size > 1 {
            let flags = format!("{batches} --transactional --transaction-records {size}");
            points.push(point(TRANSACTION, size, rank, &flags));
        }
    }
    points
}

fn judge(measurements: &[Measurement]) -> Conclusion {
    let find = |question: &str, above: (&str, u64), below: (&str, u64), expect| {
        let (above, below) = ((above.0, above.1, above.0), (below.0, below.1, below.0));
        compare(measurements, question, above, below, FIGURE, expect)
    };
    let ten_times = find(
        "are asynchronous acks ten times as fast as a transaction for each record?",
        (ASYNCHRONOUS, 1),
        (TRANSACTION, 1),
        Expect::AtLeast(CLAIMED),
    );
    let level = find(
        "are batched and asynchronous acks level?",
        (BATCH, MANY),
        (ASYNCHRONOUS, 1),
        Expect::Level(LEVEL),
    );
    let slower = find(
        "are single acks slower than asynchronous ones?",
        (ASYNCHRONOUS, 1),
        (SINGLE, 1),
        Expect::More,
    );
    let windows = SIZES.iter().filter_map(|&size| {
        let question = format!(
            "like for like, {size} records a transaction: the same batches acked in a window of five against transactions"
        );
        let (above, below) = ((WINDOWED, size), (TRANSACTION, size));
        Some((size, find(&question, above, below, Expect::AtLeast(CLAIMED))?))
    });
    let windows: Vec<(u64, Finding)> = windows.collect();
    let like_for_like = find(
        "like for like: an ack for each record against a transaction for each",
        (SINGLE, 1),
        (TRANSACTION, 1),
        Expect::AtLeast(CLAIMED),
    );
    let by_size: Vec<String> = windows
        .iter()
        .map(|(size, finding)| format!("{} at {size}", times(Some(finding))))
        .collect();
    let windowed = match by_size.is_empty() {
        true => String::new(),
        false => format!(
            "; the same batches in a window of five take, by the records of a transaction, {} times as many",
            by_size.join(", ")
        ),
    };
    let why = format!(
        "on this server asynchronous acks take {} times the records of a transaction for each, batches under one ack {} times those of \
         asynchronous acks{windowed}",
        times(ten_times.as_ref()),
        times(level.as_ref()),
    );
    let counted: Vec<Finding> = [ten_times, level, slower].into_iter().flatten().collect();
    let complete = counted.len() == 3;
    let mut conclusion = conclude(counted, why, measurements);
    if !complete {
        conclusion.verdict = verdict::all([conclusion.verdict, verdict::Verdict::Undecided]);
    }
    let windows = windows.into_iter().map(|(_, finding)| finding);
    conclusion.findings.extend(windows.chain(like_for_like));
    conclusion.notes.push(
        "One connection, one partition, records of 1 KiB, every ack after an fsync. The verdict rests on the first three findings; the \
         others set the same batches, five under way, against the same with a commit after so many records. Records of a transaction \
         count when its EndTxn is answered."
            .into(),
    );
    conclusion.plots.push(Plot::Lines {
        title: "Records a second, one publisher".into(),
        x: Axis::log("records of a transaction"),
        y: Axis::log(FIGURE.1),
        series: series(measurements, &[WINDOWED, TRANSACTION], FIGURE.0),
    });
    conclusion.tables.push(latencies(measurements));
    conclusion
}

/// How long a transaction takes, beginning and end.
fn latencies(measurements: &[Measurement]) -> Table {
    let rows = SIZES.iter().filter_map(|&size| {
        let figures = &of(measurements, TRANSACTION, size)?.figures;
        let figure = |name: &str| {
            let estimate: Option<&Estimate> = figures.get(name);
            estimate.map_or_else(|| "–".into(), |estimate| number(estimate.median))
        };
        let names = [
            "transactions_per_s",
            "transaction_p50_us",
            "transaction_p99_us",
            "end_txn_p50_us",
            "end_txn_p99_us",
        ];
        Some([vec![size.to_string()], names.map(figure).to_vec()].concat())
    });
    Table {
        title: "Transactions, from the first record's send to EndTxn's answer".into(),
        head: [
            "records each",
            "transactions/s",
            "p50 µs",
            "p99 µs",
            "EndTxn alone, p50 µs",
            "p99 µs",
        ]
        .map(String::from)
        .to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::catalog::testing::measurement;
    use crate::claims::verdict::Verdict;

    fn judged(asynchronous: [f64; 3], batch: f64, single: f64) -> Conclusion {
        let side = |side: &str, x: u64, values: &[f64]| {
            measurement(&Whole::new(side, x, "", ""), FIGURE.0, values)
        };
        judge(&[
            side(ASYNCHRONOUS, 1, &asynchronous),
            side(TRANSACTION, 1, &[100.0; 3]),
            side(BATCH, MANY, &[batch; 3]),
            side(SINGLE, 1, &[single; 3]),
            side(WINDOWED, 1000, &[120.0; 3]),
            side(TRANSACTION, 1000, &[60.0, 59.0, 61.0]),
        ])
    }

    #[test]
    fn the_verdict_follows_the_figures() {
        let verdict = |rates, batch, single| judged(rates, batch, single).verdict;
        let fast = [1200.0, 1250.0, 1300.0];
        assert_eq!(verdict(fast, 1250.0, 300.0), Verdict::Holds);
        assert_eq!(verdict([500.0; 3], 500.0, 300.0), Verdict::DirectionOnly);
        assert_eq!(verdict([100.0; 3], 100.0, 300.0), Verdict::DoesNotHold);
        assert_eq!(verdict(fast, 9000.0, 300.0), Verdict::DoesNotHold);
        assert_eq!(verdict(fast, 1250.0, 1250.0), Verdict::DoesNotHold);
        assert_eq!(
            verdict([400.0, 1200.0, 1300.0], 1200.0, 300.0),
            Verdict::Undecided,
            "a noisy one"
        );
    }

    #[test]
    fn every_size_of_a_transaction_has_its_own_verdict_beside() {
        let findings = judged([1200.0; 3], 1200.0, 300.0).findings;
        let of = |text: &str| findings.iter().find(|f| f.question.contains(text)).unwrap();
        assert_eq!(of("1000 records").verdict, Verdict::DirectionOnly);
        assert_eq!(of("an ack for each").verdict, Verdict::DirectionOnly);
        assert_eq!(findings.len(), 5);
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
    }

    #[test]
    fn every_line_is_one_that_the_generator_takes() {
        use clap::Parser;
        for point in points(Scale::Full) {
            let whole: Whole = point.typed().unwrap();
            let words = format!("ringlog-load {}", whole.load);
            let cli = crate::cli::Cli::try_parse_from(words.split_whitespace()).unwrap();
            assert!(cli.command.request().unwrap().is_some(), "{}", whole.load);
        }
    }
}
