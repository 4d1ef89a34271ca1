//! C11 beside RabbitMQ: confirms in their ways against transactions.

use crate::claims::outcome::{Conclusion, Finding};
use crate::claims::report_number as number;
use crate::claims::verdict::{self, Expect, Verdict};

use super::super::file::Peers;
use super::{LITTLE, compare, table};

/// Ten times, by the documents.
const CONFIRMS_OVER_TRANSACTIONS: f64 = 10.0;

const ASYNCHRONOUS: &str = "confirms, asynchronous";
const SINGLE: &str = "confirms, one at a time";
const BATCH: &str = "confirms, by batches";
const EACH: &str = "transaction per message";
const MANY: &str = "transaction per batch";

/// Two shapes, what is asked of them, what is claimed, and whether it is the claim itself.
const QUESTIONS: [(&str, &str, &str, Expect, bool); 5] = [
    (
        ASYNCHRONOUS,
        EACH,
        "are asynchronous confirms ten times as fast as a transaction per message?",
        Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
        true,
    ),
    (
        BATCH,
        ASYNCHRONOUS,
        "are batched and asynchronous confirms level?",
        Expect::Level(LITTLE),
        true,
    ),
    (
        ASYNCHRONOUS,
        SINGLE,
        "are single confirms slower than asynchronous ones?",
        Expect::More,
        true,
    ),
    (
        SINGLE,
        EACH,
        "like for like: a confirm for each message against a transaction for each",
        Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
        false,
    ),
    (
        BATCH,
        MANY,
        "like for like: a batch of confirms against a batch in a transaction",
        Expect::AtLeast(CONFIRMS_OVER_TRANSACTIONS),
        false,
    ),
];

/// C11 beside: RabbitMQ's confirms against its transactions.
pub(super) fn confirms(conclusion: &mut Conclusion, peers: &Peers) {
    // The client that has all five ways; PerfTest has four.
    let way = |tool: &str, shape: &str| {
        let mut all = peers.entries.iter().filter(|e| e.group == "confirms");
        all.find(|e| e.shape == shape && e.tool.starts_with(tool))
    };
    let mut counted = Vec::new();
    let mut beside = Vec::new();
    for tool in ["Confirms.java", "PerfTest"] {
        let pair = |above, below| Some((way(tool, above)?, way(tool, below)?));
        for (above, below, question, expect, counts) in QUESTIONS {
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
        conclusion.verdict = verdict::all(counted.iter().map(|finding| finding.verdict));
        conclusion.why = why(&counted, &beside);
    }
    conclusion.notes.push(
        "RabbitMQ's figures stand beside; the verdict is this server's where its transactions were measured.".into(),
    );
    conclusion.findings.extend(counted);
    conclusion.findings.extend(beside);
    table(conclusion, peers, "confirms", &[]);
}

fn why(counted: &[Finding], beside: &[Finding]) -> String {
    let times = |finding: Option<&Finding>| {
        finding
            .and_then(|f| f.ratio)
            .map_or_else(|| "–".into(), |ratio| number(ratio.median))
    };
    format!(
        "of RabbitMQ, one publisher: asynchronous confirms are {} times as fast as a transaction per message, but single \
         confirms {} times: the gain is pipelining; transactions of this server were not measured in this run",
        times(counted.first()),
        times(beside.first())
    )
}
