//! What was measured, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::{Latencies, Spread, Stopwatch};

/// Bytes of a MB and a GB.
const MB: f64 = 1e6;
const GB: f64 = 1e9;

/// What one repeat of one setting gave.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    operations_per_s: f64,
    mb_per_s: f64,
    cpu_s_per_gb: f64,
    latencies_us: Option<[f64; 3]>,
    beside_mb_per_s: Option<f64>,
}

impl Figures {
    /// From what was done since `watch` began.
    #[must_use]
    pub fn new(
        watch: &Stopwatch,
        operations: u64,
        bytes: u64,
        latencies: Option<&Latencies>,
    ) -> Self {
        let wall_s = watch.wall_s();
        Self {
            operations_per_s: operations as f64 / wall_s,
            mb_per_s: bytes as f64 / MB / wall_s,
            cpu_s_per_gb: watch.cpu_s() / (bytes.max(1) as f64 / GB),
            latencies_us: latencies.map(|l| [l.us(50.0), l.us(99.0), l.us(99.9)]),
            beside_mb_per_s: None,
        }
    }

    /// The same with what was read beside it, MB each second.
    #[must_use]
    pub fn beside(self, mb_per_s: f64) -> Self {
        Self {
            beside_mb_per_s: Some(mb_per_s),
            ..self
        }
    }
}

/// One setting and what its repeats gave.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The pattern: `commit`, `twice` or `read`.
    pub pattern: &'static str,
    /// The setting, by name and value.
    pub setting: serde_json::Map<String, serde_json::Value>,
    /// Commits or reads each second.
    pub operations_per_s: Spread,
    /// Millions of payload bytes each second.
    pub mb_per_s: Spread,
    /// CPU seconds for each 10^9 payload bytes.
    pub cpu_s_per_gb: Spread,
    /// Latency of a commit or a read, microseconds.
    pub p50_us: Option<Spread>,
    /// The same.
    pub p99_us: Option<Spread>,
    /// The same.
    pub p999_us: Option<Spread>,
    /// Millions of bytes each second that a reader had beside it.
    pub beside_mb_per_s: Option<Spread>,
}

impl Row {
    /// Puts the repeats of a setting together.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn new(
        pattern: &'static str,
        setting: serde_json::Map<String, serde_json::Value>,
        repeats: &[Figures],
    ) -> Self {
        let spread = |figure: fn(&Figures) -> f64| Spread::of(repeats.iter().map(figure));
        let latency = |index: usize| {
            let values: Option<Vec<f64>> = repeats
                .iter()
                .map(|r| r.latencies_us.map(|l| l[index]))
                .collect();
            values.map(Spread::of)
        };
        let beside: Option<Vec<f64>> = repeats.iter().map(|r| r.beside_mb_per_s).collect();
        Self {
            pattern,
            setting,
            operations_per_s: spread(|r| r.operations_per_s),
            mb_per_s: spread(|r| r.mb_per_s),
            cpu_s_per_gb: spread(|r| r.cpu_s_per_gb),
            p50_us: latency(0),
            p99_us: latency(1),
            p999_us: latency(2),
            beside_mb_per_s: beside.map(Spread::of),
        }
    }
}

/// The rows as a table for people: medians, with the smallest and largest rate behind.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<52} {:>10} {:>9} {:>19} {:>9} {:>9} {:>9} {:>8}\n",
        "setting", "per s", "MB/s", "min..max MB/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU s/GB"
    );
    for row in rows {
        let words: Vec<String> = row
            .setting
            .iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(word) => word.clone(),
                other => format!("{name} {other}"),
            })
            .collect();
        let latency =
            |spread: Option<Spread>| spread.map_or("-".into(), |s| format!("{:.0}", s.median));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<52} {:>10.0} {:>9.0} {:>19} {:>9} {:>9} {:>9} {:>8.2}",
            format!("{} {}", row.pattern, words.join(", ")),
            row.operations_per_s.median,
            row.mb_per_s.median,
            format!("{:.0}..{:.0}", row.mb_per_s.min, row.mb_per_s.max),
            latency(row.p50_us),
            latency(row.p99_us),
            latency(row.p999_us),
            row.cpu_s_per_gb.median,
        );
        if let Some(beside) = row.beside_mb_per_s {
            let _ = writeln!(
                text,
                "{:<52} {:>20.0}",
                "  a reader beside it", beside.median
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_row_shows_the_median_of_its_repeats() {
        let figures = |mb_per_s| Figures {
            operations_per_s: 10.0,
            mb_per_s,
            cpu_s_per_gb: 0.5,
            latencies_us: None,
            beside_mb_per_s: Some(mb_per_s * 2.0),
        };
        let setting = [("bytes".to_owned(), serde_json::json!(4096))]
            .into_iter()
            .collect();
        let row = Row::new(
            "commit",
            setting,
            &[figures(1.0), figures(9.0), figures(4.0)],
        );
        assert_eq!(
            (row.mb_per_s.median, row.mb_per_s.min, row.mb_per_s.max),
            (4.0, 1.0, 9.0)
        );
        let text = table(&[row]);
        assert!(
            text.contains("commit bytes 4096") && text.contains("1..9") && text.ends_with(" 8\n"),
            "{text}"
        );
    }

    #[test]
    fn rates_are_by_the_second() {
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(50));
        let figures = Figures::new(&watch, 100, 50_000_000, None);
        assert!((1.0..=2000.0).contains(&figures.operations_per_s));
        assert!((figures.mb_per_s / figures.operations_per_s - 0.5).abs() < 1e-9);
    }
}
