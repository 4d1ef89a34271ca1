//! The HdrHistogram interval log: one histogram a second, tagged by what it measures, latencies in nanoseconds.
//!
//! Every thread's interval is a line of its own; readers of the format add lines of one tag and time together.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::shared::Role;
use crate::stats::Counts;

/// Writes the log.
pub(crate) struct HistogramLog<W> {
    to: W,
    serializer: V2Serializer,
    begun: bool,
}

impl<W: Write> HistogramLog<W> {
    pub(crate) fn new(to: W) -> io::Result<Self> {
        Ok(Self {
            to,
            serializer: V2Serializer::new(),
            begun: false,
        })
    }

    pub(crate) fn write(
        &mut self,
        role: Role,
        start: Duration,
        length: Duration,
        counts: &Counts,
    ) -> io::Result<()> {
        let latency = match role {
            Role::Produce => "ack",
            Role::Consume => "fetch",
        };
        self.line(latency, start, length, Some(&counts.latency))?;
        self.line("end-to-end", start, length, counts.end_to_end.as_ref())?;
        self.line("send-lag", start, length, counts.send_lag.as_ref())?;
        let transactions = &counts.transactions;
        self.line("transaction", start, length, transactions.latency.as_ref())?;
        self.line("end-txn", start, length, transactions.end_latency.as_ref())
    }

    fn line(
        &mut self,
        tag: &str,
        start: Duration,
        length: Duration,
        histogram: Option<&Histogram<u64>>,
    ) -> io::Result<()> {
        let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
            return Ok(());
        };
        let mut text = Vec::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.with_max_value_divisor(1e6);
        if !self.begun {
            builder
                .add_comment("ringlog-load; values in nanoseconds, maximum column in milliseconds");
        }
        builder
            .begin_log_with(&mut text, &mut self.serializer)?
            .write_histogram(histogram, start, length, Tag::new(tag))
            .map_err(|error| io::Error::other(format!("histogram: {error:?}")))?;
        // The builder repeats its header with every log: only the first stays.
        let keep = if self.begun { last_line(&text) } else { &text };
        self.begun = true;
        self.to.write_all(keep)
    }
}

fn last_line(text: &[u8]) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let start = body
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_is_read_back() {
        let mut log = HistogramLog::new(Vec::new()).unwrap();
        let mut counts = Counts::new();
        counts.latency.record(5_000_000).unwrap();
        crate::stats::note(&mut counts.end_to_end, Duration::from_millis(7));
        for second in 0..3 {
            let start = Duration::from_secs(second);
            log.write(Role::Produce, start, Duration::from_secs(1), &counts)
                .unwrap();
        }
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&log.to) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = interval.encoded_histogram();
                let bytes = base64_decode(encoded);
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut bytes.as_slice())
                    .unwrap();
                seen.push((
                    interval.tag().unwrap().as_str().to_owned(),
                    interval.start_timestamp(),
                    histogram.max() / 1_000_000,
                ));
            }
        }
        assert_eq!(seen.len(), 6);
        assert_eq!(seen[0], ("ack".into(), Duration::ZERO, 5));
        assert_eq!(seen[5], ("end-to-end".into(), Duration::from_secs(2), 7));
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bits = 0u32;
        let mut count = 0;
        let mut out = Vec::new();
        for byte in text.bytes().filter(|&byte| byte != b'=') {
            let value = ALPHABET.iter().position(|&letter| letter == byte).unwrap() as u32;
            bits = bits << 6 | value;
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        out
    }
}
