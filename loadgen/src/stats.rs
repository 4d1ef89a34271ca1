//! What a thread counts, interval by interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Errors by name.
pub type ErrorCounts = BTreeMap<String, u64>;

/// A histogram of latencies in nanoseconds with three significant digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    // From 1 µs: below, there is no network. The bounds are constants that the library accepts.
    match Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

/// Transactions of producers in one interval.
#[derive(Debug, Clone, Default)]
pub struct TransactionCounts {
    /// Ended as they should.
    pub committed: u64,
    /// Given up because a batch was refused or its answer never came.
    pub aborted: u64,
    /// Producers that another with their id fenced: each ends its work.
    pub fenced: u64,
    /// Times a request was sent again because the transaction before was not quite over.
    pub waits: u64,
    /// Of committed ones: from when the first record should have been sent to the answer of EndTxn.
    pub latency: Option<Histogram<u64>>,
    /// The last part of it: from when EndTxn was first due.
    pub end_latency: Option<Histogram<u64>>,
}

impl TransactionCounts {
    fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.fenced += other.fenced;
        self.waits += other.waits;
        merge(&mut self.latency, other.latency.as_ref());
        merge(&mut self.end_latency, other.end_latency.as_ref());
    }
}

fn merge(ours: &mut Option<Histogram<u64>>, theirs: Option<&Histogram<u64>>) {
    if let Some(theirs) = theirs {
        // Same bounds on both sides: adding cannot fail.
        let _ = ours.get_or_insert_with(latency_histogram).add(theirs);
    }
}

/// Counts of one role in one interval.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Produce: intended send to ack. Consume: fetch sent to fetch answered.
    pub latency: Histogram<u64>,
    /// Intended send to receipt of every stamped record.
    pub end_to_end: Option<Histogram<u64>>,
    /// Intended send to actual send, in an open loop: the generator's own share of the latency.
    pub send_lag: Option<Histogram<u64>>,
    /// Requests answered.
    pub requests: u64,
    /// Batches acked or read.
    pub batches: u64,
    /// Records acked or read.
    pub records: u64,
    /// Bytes of record batches acked or read, as on the wire.
    pub batch_bytes: u64,
    /// Bytes of the records' values, where known.
    pub value_bytes: u64,
    /// What became of transactions.
    pub transactions: TransactionCounts,
    /// What went wrong.
    pub errors: ErrorCounts,
}

impl Counts {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latency: latency_histogram(),
            end_to_end: None,
            send_lag: None,
            requests: 0,
            batches: 0,
            records: 0,
            batch_bytes: 0,
            value_bytes: 0,
            transactions: TransactionCounts::default(),
            errors: ErrorCounts::new(),
        }
    }

    /// Notes an error.
    pub fn error(&mut self, name: impl Into<String>) {
        *self.errors.entry(name.into()).or_default() += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        // Same bounds on both sides: adding cannot fail.
        let _ = self.latency.add(&other.latency);
        merge(&mut self.end_to_end, other.end_to_end.as_ref());
        merge(&mut self.send_lag, other.send_lag.as_ref());
        self.transactions.add(&other.transactions);
        self.requests += other.requests;
        self.batches += other.batches;
        self.records += other.records;
        self.batch_bytes += other.batch_bytes;
        self.value_bytes += other.value_bytes;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

/// Notes a latency in a histogram that is made when first needed.
pub(crate) fn note(histogram: &mut Option<Histogram<u64>>, latency: Duration) {
    let nanoseconds = latency.as_nanos().min(u128::from(u64::MAX)) as u64;
    histogram
        .get_or_insert_with(latency_histogram)
        .saturating_record(nanoseconds);
}

/// Percentiles of a histogram in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyUs {
    /// Number of values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Half are quicker.
    pub p50: f64,
    /// 90 in 100 are quicker.
    pub p90: f64,
    /// 99 in 100 are quicker.
    pub p99: f64,
    /// 999 in 1,000 are quicker.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl LatencyUs {
    /// Reads the percentiles.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// A run's intervals: first those of the warm-up, then those that count.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// When load begins.
    pub start: Instant,
    /// End of every interval, rising.
    ends: Vec<Instant>,
    /// How many intervals are warm-up.
    warmup: usize,
}

impl Schedule {
    /// Intervals of about one second.
    #[must_use]
    pub fn new(start: Instant, warmup: Duration, window: Duration) -> Self {
        let mut ends = Vec::new();
        let mut push = |from: Instant, length: Duration| {
            let count = (length.as_secs_f64().round() as u32).max(1);
            ends.extend((1..=count).map(|index| from + length * index / count));
            count as usize
        };
        let warmup_count = if warmup.is_zero() {
            0
        } else {
            push(start, warmup)
        };
        push(start + warmup, window);
        Self {
            start,
            ends,
            warmup: warmup_count,
        }
    }

    /// When load ends.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.ends.last().copied().unwrap_or(self.start)
    }

    /// Number of intervals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no intervals; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Index of the first interval that counts.
    #[must_use]
    pub fn first_measured(&self) -> usize {
        self.warmup
    }

    /// When interval `index` begins and ends.
    #[must_use]
    pub fn interval(&self, index: usize) -> (Instant, Instant) {
        let begin = if index == 0 {
            self.start
        } else {
            self.ends[index - 1]
        };
        (begin, self.ends[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_cover_warmup_and_window_without_a_gap() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_secs(2), Duration::from_millis(3600));
        assert_eq!((schedule.len(), schedule.first_measured()), (6, 2));
        assert_eq!(schedule.end(), start + Duration::from_millis(5600));
        assert_eq!(schedule.interval(2).0, start + Duration::from_secs(2));
        for index in 1..schedule.len() {
            assert_eq!(schedule.interval(index).0, schedule.interval(index - 1).1);
        }
        let short = Schedule::new(start, Duration::ZERO, Duration::from_millis(10));
        assert_eq!((short.len(), short.first_measured()), (1, 0));
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut counts = Counts::new();
        for us in 1..=1000 {
            counts.latency.record(us * 1000).unwrap();
        }
        counts.error("BROKEN");
        let mut sum = Counts::new();
        sum.add(&counts);
        sum.add(&counts);
        let latency = LatencyUs::of(&sum.latency);
        assert_eq!(latency.count, 2000);
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.p99 - 990.0).abs() < 1.5);
        assert!((latency.max - 1000.0).abs() < 1.0);
        assert_eq!(sum.errors["BROKEN"], 2);
    }
}
